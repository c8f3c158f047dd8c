"""Small CLIP vocabularies in every form a model folder may hold, and what transformers makes of difficult prompts: tokenizers/.

    pip install -r requirements.txt && python make_tokenizers.py
"""

import json
import shutil
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

HERE = Path(__file__).parent
OUT = HERE / "tokenizers"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
TEXT = """a red circle on a blue background, a green square, a yellow heart and a white star in the night
the quick brown fox doesn't jump over the lazy dog's bowl because it's tired and we're late, they'll say
a picture of a small house near the river, oil painting, watercolour, photograph, high quality, blurry"""

PROMPTS = [
    "", " ", "a red heart", "A RED Heart", "  double  spaces\tand\nlines  ", "it's the dog's bowl, they'll say we're late; I'd've",
    "naïve café, Ångström", "nai\u0308ve cafe\u0301", "красное сердце", "红色的心", "قلب أحمر", "❤️ a heart 🦊🏳️‍🌈", "1024x768, 3.14%",
    "don’t “quote” — dash…", "under_score-hyphen/slash\\back", "<|endoftext|> inside <|startoftext|>", "<|ENDOFTEXT|>", "!!! ??? !?",
    "İstanbul ǅ ß ﬁ Ⅳ ½ ²", "a\u00a0non\u2003breaking\u200bspace", "a " * 40, "supercalifragilisticexpialidocious" * 3, "\x00\x01 control",
]


def train(size):
    """-> (vocab, merges) in CLIP's order: bytes, bytes that end a word, merges, marks."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(TEXT.split("\n"), trainers.BpeTrainer(
        vocab_size=2000, min_frequency=1, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False))
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


def write(folder, vocab, merges, length, **marks):
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    marks = {"bos_token": BEGIN, "eos_token": END, "pad_token": END, "unk_token": END, **marks}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks, indent=2) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    vocab, merges = train(640)
    write(OUT / "files", vocab, merges, 20)
    # as repositories of Stable Diffusion 1 (marks with flags) and 2 (padded with "!") have them
    mark = lambda token: {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    write(OUT / "flags", vocab, merges, 77, bos_token=mark(BEGIN), eos_token=mark(END), unk_token=mark(END), pad_token="!")
    CLIPTokenizer.from_pretrained(OUT / "files").save_pretrained(OUT / "json")

    cases = []
    for folder in ("files", "flags", "json"):
        tokenizer = CLIPTokenizer.from_pretrained(OUT / folder)
        for prompt in PROMPTS:
            full = tokenizer(prompt).input_ids
            for length in (tokenizer.model_max_length, 7):
                encoded = tokenizer(prompt, padding="max_length", max_length=length, truncation=True)
                cases.append({
                    "folder": folder, "prompt": prompt, "length": length, "ids": encoded.input_ids,
                    "tokens": sum(encoded.attention_mask), "dropped": max(0, len(full) - length)})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (OUT / "cases.json").write_text(f"[\n{lines}\n]\n")
    print(len(vocab), len(merges), len(cases), sorted(p.name for p in (OUT / "json").iterdir()))


if __name__ == "__main__":
    main()
