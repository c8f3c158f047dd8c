"""Muon (Jordan et al. 2024): steepest descent under the spectral norm for matrices.

torch.optim.Muon orthogonalises in bf16, which a CPU without bf16 units computes fifty times slower than f32. This one works in
the precision it is given, and stacks matrices of one shape so that a GPU does them in one call."""

import torch


def orthogonalise(g, steps):
    """The nearest orthogonal matrix, roughly: the quintic Newton-Schulz iteration of Jordan et al. 2024, on a stack."""
    x = g.transpose(-1, -2) if g.shape[-2] > g.shape[-1] else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.transpose(-1, -2) if g.shape[-2] > g.shape[-1] else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the step's root mean square is AdamW's (Liu et al. 2025, "Muon is scalable", 2.2)."""

    def __init__(self, params, lr, weight_decay=0.01, momentum=0.95, ns_steps=5):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, ns_steps=ns_steps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                momenta = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in params]
                torch._foreach_lerp_(momenta, [p.grad for p in params], 1 - group["momentum"])
                g = torch.stack([p.grad.lerp(m, group["momentum"]) for p, m in zip(params, momenta)])
                g = (g.bfloat16() if g.is_cuda else g).flatten(2)  # a convolution is the matrix from all that one output sees
                update = orthogonalise(g, group["ns_steps"]).float().view(-1, *shape).unbind()
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(params, update, alpha=-0.2 * max(g.shape[1:]) ** 0.5 * group["lr"])
