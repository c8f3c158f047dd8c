"""Folders of tokenizers as each generation of transformers saves them, and the ids that each generation reads them to: tokenizers/generations.json.

    pip install -r requirements.txt
    python -m venv old && old/bin/pip install -r requirements-transformers-4.txt
    python make_tokenizer_generations.py old/bin/python

Version 4 has each tokenizer twice: one in Python, which pipelines of diffusers used, and one of the tokenizers library. Version 5 has the second
alone. The vocabularies are a few words, so that all folders together are a few KB: the file lists the text of every file once.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 12
PROMPTS = ["", "a red heart", "A RED  Heart!", "it's a <toy> heart", "heart<toy>red", "a <TOY>", "<|endoftext|> red", "a!!! b", "heart 12",
           "a red heart a red heart a red heart"]
MERGES = [("r", "e"), ("re", "d</w>"), ("h", "e"), ("a", "r"), ("he", "ar"), ("hear", "t</w>"), ("!", "!")]


def vocabulary():
    letters = "!'0123456789abcdefghijklmnopqrstuvwxyz<>|"
    vocab = {token: i for i, token in enumerate([*letters, *(letter + "</w>" for letter in letters)])}
    for first, second in MERGES:
        vocab.setdefault(first + second, len(vocab))
    for mark in (BEGIN, END):
        vocab[mark] = len(vocab)
    return vocab


def write_clip(folder, pad, flags):
    """The files of a repository from before tokenizer_config.json listed added tokens."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in MERGES))
    mark = lambda token: {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False} if flags else token
    marks = {"bos_token": mark(BEGIN), "eos_token": mark(END), "unk_token": mark(END)}
    (folder / "special_tokens_map.json").write_text(json.dumps({**marks, "pad_token": pad}))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True, "add_prefix_space": False, "errors": "replace",
              **{name: {**value, "__type": "AddedToken"} if flags else value for name, value in marks.items()}, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def sources(place):
    """Folders as people published them: Stable Diffusion 1's, 2's and XL's second, with and without a word of textual inversion, and T5's."""
    for name, pad, flags in (("sd1", END, False), ("sd2", "!", True)):
        write_clip(place / name, pad, flags)
        write_clip(place / f"{name}_added", pad, flags)
        (place / f"{name}_added/added_tokens.json").write_text(json.dumps({"<toy>": len(vocabulary())}))
    t5 = HERE / "tokenizers/t5_spiece"
    (place / "t5").mkdir()
    for file in ("spiece.model", "tokenizer_config.json"):
        (place / "t5" / file).write_bytes((t5 / file).read_bytes())


def classes(name):
    import transformers

    names = ("T5Tokenizer", "T5TokenizerFast") if "t5" in name else ("CLIPTokenizer", "CLIPTokenizerFast")
    return {"slow": getattr(transformers, names[0]), "fast": getattr(transformers, names[1])}


def generation():
    import transformers

    return int(transformers.__version__.split(".")[0])


def kinds():
    """Version 5 has one implementation under both names."""
    return ("slow", "fast") if generation() == 4 else ("fast",)


def save(place):
    for name in ("sd1", "sd2", "sd1_added", "sd2_added", "t5"):
        for kind in kinds():
            tokenizer = classes(name)[kind].from_pretrained(place / name)
            if name == "sd2":
                # As textual inversion's scripts add a word before they save.
                tokenizer.add_tokens("<toy>")
            tokenizer.save_pretrained(place / f"{name}_{generation()}_{kind}")


def read(place, out):
    """Ids by folder, implementation and prompt; of a folder that an implementation does not read, why it does not."""
    found = {}
    for folder in sorted(path for path in place.iterdir() if path.is_dir()):
        for kind in kinds():
            try:
                tokenizer = classes(folder.name)[kind].from_pretrained(folder)
                encode = lambda prompt: tokenizer(prompt, padding="max_length", max_length=LENGTH, truncation=True)
                found[f"{folder.name} {kind}"] = [[encoded.input_ids, sum(encoded.attention_mask)] for encoded in map(encode, PROMPTS)]
            except Exception as error:  # noqa: BLE001 - any of them means that it is not read
                found[f"{folder.name} {kind}"] = f"{type(error).__name__}"
    Path(out).write_text(json.dumps(found))


def version():
    import tokenizers
    import transformers

    return f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"


def main(old):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place) / "folders"
        place.mkdir()
        sources(place)
        run = lambda step, *args: subprocess.run([old, __file__, step, *map(str, args)], check=True, stdout=subprocess.PIPE, text=True).stdout
        run("save", place)
        save(place)
        run("read", place, place.parent / "old.json")
        read(place, place.parent / "new.json")
        ids = {"4": json.loads((place.parent / "old.json").read_text()), "5": json.loads((place.parent / "new.json").read_text())}
        versions = {"4": run("version").strip(), "5": version()}
        texts, folders = [], {}
        for folder in sorted(path for path in place.iterdir() if path.is_dir()):
            folders[folder.name] = {}
            for file in sorted(folder.iterdir()):
                data = file.read_bytes()
                text = data.hex() if file.suffix == ".model" else data.decode()
                if file.suffix == ".json":
                    text = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
                if text not in texts:
                    texts.append(text)
                folders[folder.name][file.name] = texts.index(text)
        lines = lambda items: "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]"
        # One line for each list of ids that two or more readers agree on.
        cases = {}
        for number, by_reader in ids.items():
            for key, found in by_reader.items():
                folder, kind = key.split(" ")
                text = json.dumps(found)
                cases.setdefault((folder, text), []).append(f"{number} {kind}")
        cases = [{"folder": folder, "readers": readers, "ids": json.loads(text)} for (folder, text), readers in sorted(cases.items())]
    out = HERE / "tokenizers/generations.json"
    out.write_text(f'{{"versions": {json.dumps(versions)}, "length": {LENGTH}, "prompts": {json.dumps(PROMPTS)},\n"texts": {lines(texts)},\n'
                   f'"folders": {json.dumps(folders)},\n"cases": {lines(cases)}}}\n')
    print(versions, len(texts), len(folders), len(cases), out.stat().st_size)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["save", place]:
            save(Path(place))
        case ["read", place, out]:
            read(Path(place), out)
        case ["version"]:
            print(version())
        case [old]:
            main(old)
