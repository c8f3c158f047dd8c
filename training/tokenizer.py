"""CLIP's byte-level BPE (Radford et al. 2021), with a vocabulary learnt from the captions' words.

    python tokenizer.py --data DIR --out FOLDER
"""

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from data import COUNT, RGB, STYLE, Mix, article, plural
from model import TOKENS

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
# the words that byte pairs may not cross: CLIP's pattern
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def caption_texts(rows):
    """Every name, alias and keyword in the caption templates, without drawing anything."""
    colours = list(RGB)
    for n, r in enumerate(rows):
        colour, style = colours[n % len(colours)], STYLE[r["set"]][n % len(STYLE[r["set"]])]
        yield f"{article(r['name'])}, {style}"
        yield f"a {colour} {r['name']} on {article(colours[n // 12 % len(colours)])} background"
        yield f"{COUNT[2 + n % 3]} {plural(r['name']) or r['name']}, small, on the left and on the right, next to"
        yield from r["aliases"]
        yield ", ".join(r["keywords"] + r["extra"])


def train(texts, size):
    """-> (vocab, merges) in CLIP's order: bytes, bytes that end a word, merges, begin mark, end mark."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=2 * size, min_frequency=2, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False))
    vocab = {t: i for i, t in enumerate(alphabet + [c + "</w>" for c in alphabet])}
    merges = []
    for a, b in json.loads(bpe.to_str())["model"]["merges"]:
        if len(vocab) == size - 2:
            break
        merges.append((a, b))
        vocab.setdefault(a + b, len(vocab))
    for mark in (BEGIN, END):
        vocab[mark] = len(vocab)
    return vocab, merges


def save(vocab, merges, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    marks = {"bos_token": BEGIN, "eos_token": END, "pad_token": END, "unk_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--vocab", type=int, default=4096)
    a = p.parse_args()
    save(*train(caption_texts(Mix(a.data).rows), a.vocab), a.out)
    t = CLIPTokenizer.from_pretrained(a.out)
    print(len(t), t.bos_token_id, t.eos_token_id, t.pad_token_id, t.model_max_length)
    for text in ("a red heart", "purple unicorn with a birthday cake, 3d render"):
        print(text, t.convert_ids_to_tokens(t(text).input_ids))


if __name__ == "__main__":
    main()
