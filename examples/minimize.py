"""Minimise a function of your own with the gradient-guarded CMA-ES, 10 runs at once, and look at it.

python examples/minimize.py
"""

import torch

import evobench


def valley(x: torch.Tensor) -> torch.Tensor:
    """A rotated, rippled valley; takes a batch of points [..., dim] and returns their values [...]."""
    mixed = x + 0.5 * x.roll(1, dims=-1)
    return (mixed.square() + 3 * (1 - torch.cos(2 * torch.pi * mixed))).sum(-1)


result = evobench.minimize(valley, "cmaes_guarded", bounds=(-5, 5), dim=10, seeds=10, budget=20_000)
point, value = result.best
print(f"best value {value:.3g} at {point.round(3)}")
print(result.runs[["seed", "best_f", "f_evals", "g_evals"]].to_string(index=False))
result.plot().savefig("valley.png", dpi=150)
