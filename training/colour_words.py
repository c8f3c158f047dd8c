"""Which colour words fit a drawing: the captions name what data.py changes."""
import collections

import numpy as np

HUES = [  # name, from, to (degrees)
    ("red", 345, 12), ("orange", 12, 40), ("yellow", 40, 68), ("green", 68, 165), ("cyan", 165, 190), ("blue", 190, 250),
    ("purple", 250, 290), ("pink", 290, 345),
]


def colours(a):
    """RGBA uint8 -> (words that cover at least 20 % of the drawn pixels, largest first; the word that covers half, or None)"""
    p = a[a[..., 3] > 128][:, :3].astype(np.float32) / 255
    if len(p) < 20:
        return [], None
    mx, mn = p.max(1), p.min(1)
    d = mx - mn
    r, g, b = p.T
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.where(mx == r, (g - b) / d % 6, np.where(mx == g, (b - r) / d + 2, (r - g) / d + 4)) * 60
    sat = np.where(mx > 0, d / np.maximum(mx, 1e-6), 0)
    grey = (sat < 0.18) | (d < 0.09)
    n = collections.Counter()
    n["black"] = (mx < 0.22).sum()
    n["white"] = (grey & (mx > 0.88)).sum()
    n["gray"] = (grey & (mx >= 0.22) & (mx <= 0.88)).sum()
    col = ~grey & (mx >= 0.22)
    brown = col & (h >= 8) & (h < 45) & (mx < 0.68) & (sat > 0.25)
    n["brown"] = brown.sum()
    col &= ~brown
    for name, lo, hi in HUES:
        m = ((h >= lo) | (h < hi)) if lo > hi else ((h >= lo) & (h < hi))
        n[name] += (col & m).sum()
    top = [(k, v / len(p)) for k, v in n.most_common(3)]
    return [k for k, v in top if v >= 0.2], top[0][0] if top[0][1] >= 0.5 else None
