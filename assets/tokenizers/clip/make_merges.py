"""merges.bin from openai/CLIP's bpe_simple_vocab_16e6.txt.gz.

    python make_merges.py bpe_simple_vocab_16e6.txt.gz
"""

import gzip
import struct
import sys
from pathlib import Path

MERGES = 49152 - 256 - 2


def main():
    text = gzip.open(sys.argv[1]).read().decode("utf-8").split("\n")
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    ids = {token: i for i, token in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    pairs = []
    for line in text[1:1 + MERGES]:
        first, second = line.split()
        pairs.append((ids[first], ids[second]))
        ids[first + second] = len(ids)
    assert len(ids) == 512 + MERGES
    (Path(__file__).resolve().parent / "merges.bin").write_bytes(b"".join(struct.pack("<HH", *pair) for pair in pairs))


if __name__ == "__main__":
    main()
