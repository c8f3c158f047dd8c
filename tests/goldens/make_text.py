"""Outputs of small T5 encoders: models/t5.json, as make_models.py makes those of the other models.

    pip install -r requirements.txt && python make_text.py
"""

import copy
import json
from pathlib import Path

import torch
from transformers import T5Config, T5EncoderModel

from precise import f32_error
from synthetic import fill, signed

T5 = {"vocab_size": 50, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 3}
CASES = [
    {"name": "t5, gated", "config": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "tokens": 9, "lengths": [5, 9]},
    {"name": "t5, relu, few buckets", "tokens": 12, "lengths": [12, 1],
     "config": {"feed_forward_proj": "relu", "relative_attention_num_buckets": 8, "relative_attention_max_distance": 7, "layer_norm_epsilon": 1e-3}},
    # Distances up to and beyond the last bucket of published models.
    {"name": "t5, long", "config": {"feed_forward_proj": "gated-gelu", "d_model": 8, "num_layers": 1}, "tokens": 140, "lengths": [133]},
]


def case(spec):
    model = fill(T5EncoderModel(T5Config(**{**T5, **spec["config"]}))).eval()
    batch, tokens = len(spec["lengths"]), spec["tokens"]
    ids = ((signed(f"{spec['name']}:input_ids", batch * tokens) + 1) / 2 * model.config.vocab_size).astype(int).reshape(batch, tokens)
    ids = torch.from_numpy(ids)
    mask = (torch.arange(tokens)[None] < torch.tensor(spec["lengths"])[:, None]).long()

    def run(model):
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    # Its norm casts to f32 whatever the model's type; the same in f64.
    norm = type(model.encoder.final_layer_norm)
    own = norm.forward
    rounded = run(model)
    norm.forward = lambda self, x: self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))
    precise = run(copy.deepcopy(model).double())
    norm.forward = own
    return {"name": spec["name"], "model": "T5EncoderModel", "config": json.loads(model.config.to_json_string(use_diff=False)),
            "input_ids": ids.tolist(), "attention_mask": mask.tolist(),
            "outputs": {"last": {"shape": list(precise.shape), "f32_error": f32_error(precise, rounded), "data": precise.flatten().tolist()}}}


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    cases = [case(spec) for spec in CASES]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (Path(__file__).parent / "models").mkdir(exist_ok=True)
    (Path(__file__).parent / "models/t5.json").write_text(f"[\n{lines}\n]\n")
    for made in cases:
        print(made["name"], {k: (v["shape"], f"{v['f32_error']:.1e}") for k, v in made["outputs"].items()})


if __name__ == "__main__":
    main()
