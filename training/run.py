"""A run that can be stopped: its time, its checkpoint.pt and its log.csv.

Run the same command again and it goes on from the last checkpoint. Only time in which it runs counts."""

import argparse
import copy
import csv
import os
import sys
import time
from pathlib import Path

import torch

STOPPED = 3  # exit code of a run that stopped for --session before all its minutes


def arguments(p, minutes, warm_up, decay, ema):
    """What every run takes; the defaults that differ are the script's."""
    p.add_argument("--data", required=True, help="folder of atlas_*.webp and captions.jsonl")
    p.add_argument("--out", required=True, help="folder for checkpoint.pt, log.csv and tokenizer/")
    p.add_argument("--fold-in", action="store_true", help="train on val_concept too")
    p.add_argument("--minutes", type=float, default=minutes, help="length of the whole run, resumed parts together")
    p.add_argument("--pictures", type=int, help="its length in pictures, in place of minutes: where other programs use the machine, minutes say little")
    p.add_argument("--session", type=float, default=float("inf"), help="stop after this many minutes, exit code 3; the same command goes on")
    p.add_argument("--steps", type=int, default=0, help="stop after this many steps, whatever the time (for comparisons)")
    p.add_argument("--save-minutes", type=float, default=5)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--warm-up", type=int, default=warm_up, help="steps")
    p.add_argument("--decay", type=float, default=decay, help="last part of the time, in which the learning rate goes to zero")
    p.add_argument("--ema", type=float, default=ema)
    p.add_argument("--ns-steps", type=int, default=5, help="Muon's Newton-Schulz steps; 3 are enough where they cost much, 0: AdamW alone")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="default: where the processor has units for it, which does not always pay")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())


def network(p):
    """The transformer's size."""
    p.add_argument("--width", type=int, default=256, help="of a network made from nothing")
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--patch", type=int, default=8, help="pixels; half of it draws finer and takes four times as long")


class Run:
    """The network, the average of its weights, its optimizers, and where the run stands."""

    def __init__(self, a, model, optimizers, columns):
        self.a, self.model, self.optimizers = a, model, optimizers
        self.ema = copy.deepcopy(model).requires_grad_(False).eval()
        self.rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
        self.params = [p for p in model.parameters() if p.requires_grad]
        self.averaged = [e for e, p in zip(self.ema.parameters(), model.parameters()) if p.requires_grad]
        self.step, self.images, self.elapsed = 0, 0, 0.0
        self.path = Path(a.out) / "checkpoint.pt"
        if self.path.exists():
            self.resume()
        self.log = csv.writer(open(Path(a.out) / "log.csv", "a", newline="", buffering=1))  # a line at a time
        if self.step == 0:
            self.log.writerow(["step", "minutes", "images", *columns])
        self.begun = self.last = time.monotonic()
        self.saved, self.losses, self.norms, self.left_out = self.elapsed, [], [], 0

    def resume(self):
        c = torch.load(self.path, map_location=next(self.model.parameters()).device, weights_only=True)
        self.step, self.images, self.elapsed = c["step"], c["images"], c["elapsed"]
        self.model.load_state_dict(c["model"])
        self.ema.load_state_dict(c["ema"])
        for o, s in zip(self.optimizers, c["optimizers"]):
            o.load_state_dict(s)

    def tick(self):
        """Counts the time -> (whether to save now, exit code or None)"""
        now = time.monotonic()
        self.elapsed += min(now - self.last, 60)  # a step of more than a minute was stopped from outside
        self.last = now
        if self.progress() >= 1 or (self.a.steps and self.step >= self.a.steps):
            return True, 0
        if now - self.begun >= 60 * self.a.session:
            return True, STOPPED
        return self.elapsed - self.saved >= 60 * self.a.save_minutes, None

    def progress(self):
        return min(1, self.images / self.a.pictures if self.a.pictures else self.elapsed / (60 * self.a.minutes))

    def save(self, *columns, **arguments):
        """A line of the log, with the means of loss and gradient norm since the last one, and the checkpoint, atomically: a run that is
        killed while it writes keeps its last one."""
        self.saved = self.elapsed
        mean = lambda v: round(torch.stack(v).mean().item(), 5) if v else ""
        row = [self.step, round(self.elapsed / 60, 2), self.images, mean(self.losses), mean(self.norms), *columns]
        self.log.writerow(row)
        print(*row, flush=True)
        self.losses, self.norms = [], []
        state = dict(step=self.step, images=self.images, elapsed=self.elapsed, model=self.model.state_dict(), ema=self.ema.state_dict(),
                     optimizers=[o.state_dict() for o in self.optimizers], arguments=vars(self.a) | arguments)
        torch.save(state, f"{self.path}.part")
        os.replace(f"{self.path}.part", self.path)

    def leave_out(self):
        """A gradient that is no number would make all weights such. One is a bad batch, many in a row are a run that has come apart."""
        self.left_out += 1
        print(f"step {self.step}: its gradient is no number, left out", flush=True)
        if self.left_out == 20:
            sys.exit(f"20 gradients in a row are no numbers; {self.path} is of before")
        for p in self.params:
            p.grad = None

    def update(self, loss, images):
        """One step of the optimizers, at a rate that is warmed up linearly, constant, and linear to zero over the last part of the time."""
        if loss.requires_grad:  # else its gradients are there already
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        if norm.isfinite():
            self.norms.append(norm)
            self.losses.append(loss.detach())
            self.left_out = 0
        else:
            self.leave_out()
        factor = min(1, (self.step + 1) / self.a.warm_up) * min(1, (1 - self.progress()) / self.a.decay)
        for o, rates in zip(self.optimizers, self.rates):
            for group, rate in zip(o.param_groups, rates):
                group["lr"] = rate * factor
            o.step()
            o.zero_grad(set_to_none=True)
        self.step += 1
        self.images += images
        torch._foreach_lerp_(self.averaged, self.params, 1 - min(self.a.ema, (1 + self.step) / (10 + self.step)))
