"""Selection, crossover and mutation as differentiable functions of noise (paper §2.2).

Every function takes its uniform noise as an argument. Where a decision is hard in the forward pass,
the backward pass is the relaxed one (straight-through).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """`hard` in the forward pass, exactly; the gradient of `soft` in the backward pass."""
    return hard + (soft - soft.detach())


def finite(x: Tensor) -> Tensor:
    """`x`, with 0 in place of what is not finite."""
    if torch.compiler.is_compiling():  # of `nan_to_num` it would make a loop over single numbers
        return torch.where(x.isfinite(), x, 0.0)
    return x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def sigmoid(x: Tensor) -> Tensor:
    """The logistic function. `torch.sigmoid` rounds differently at the end of a tensor on the CPU,
    so that a run's numbers would depend on the runs beside it; this does not."""
    return 0.5 + 0.5 * torch.tanh(0.5 * x)


def binary_concrete(u: Tensor, logit: Tensor, temperature: Tensor | float) -> Tensor:
    """A 0/1 mask that is 1 with probability sigmoid(logit): Gumbel-Sigmoid, straight-through.

    m̃ = σ((log u − log(1 − u) + α)/τ), m = I[m̃ > 0.5] (paper §2.2; Jang et al. 2017). The threshold
    is u > σ(−α), which needs no logarithm; the relaxed mask is computed only where a gradient is.
    """
    hard = (u > sigmoid(-logit)).to(logit.dtype)
    if not torch.is_grad_enabled():
        return hard
    return straight_through(hard, sigmoid((torch.logit(u) + logit) / temperature))


def select(
    u: Float[Tensor, "seeds n parents pop"],
    alpha: Float[Tensor, "seeds pop"],
    temperature: Float[Tensor, "seeds 1 1"],
    x: Float[Tensor, "seeds pop dim"],
    *,
    noise: Literal["logistic", "gumbel"],
    hard: bool,
    besides: Int[Tensor, "seeds n"] | None = None,
    combine: Callable[..., Tensor] | None = None,
) -> Any:
    """The parents of every candidate, `[S, n, D]` each: Gumbel-softmax over the population, one batched product.

    A parent is p̃·x with p̃ = softmax((log u − log(1 − u) + α)/τ) (paper §2.2); with `gumbel` noise
    p̃ = softmax(α/τ − log(−log u)), as in the authors' code. Soft parents are mixtures of the whole
    population. Hard ones are its members in the forward pass, straight-through: all different where
    `besides` is given, and different from that individual. Weights have the precision of `u`.

    Args:
        combine: a linear function of the parents, whose value is wanted instead of their tuple. Of soft ones a
            compiled program takes it of their weights, `[S, n, N]` each: one product, not one for each parent.
    """
    seeds, n, parents, pop = u.shape
    alpha, temperature = alpha.to(u.dtype), temperature.to(u.dtype)
    u = u.reshape(seeds, n * parents, pop)

    def each(rows: Float[Tensor, "seeds m k"]) -> tuple[Float[Tensor, "seeds n k"], ...]:
        return rows.view(seeds, n, parents, -1).unbind(2)

    if torch.compiler.is_compiling() and noise == "logistic" and not hard:
        weights, total = _softmax_in_two(u, alpha, temperature)
        if combine is not None:
            return combine(*each(weights / total)).to(x.dtype) @ x
        return each((weights.to(x.dtype) @ x) / total)
    if noise == "logistic":
        scores = (torch.logit(u) + alpha[:, None]) / temperature
    else:
        scores = alpha[:, None] / temperature - torch.log(-torch.log(u))
    if hard:
        weights = _one_hot(scores.view(seeds, n, parents, pop), besides).reshape(scores.shape)
    else:
        weights = torch.softmax(scores, dim=-1)
    made = each(weights.to(x.dtype) @ x)
    return made if combine is None else combine(*made)


def _softmax_in_two(
    u: Float[Tensor, "seeds m pop"], alpha: Float[Tensor, "seeds pop"], temperature: Float[Tensor, "seeds 1 1"]
) -> tuple[Float[Tensor, "seeds m pop"], Float[Tensor, "seeds m 1"]]:
    """Weights and their sums, in fewer passes than the compiler makes of `torch.softmax` of a quotient."""
    if not torch.is_grad_enabled():  # α once, and not anew for every candidate
        alpha = alpha.as_strided(alpha.shape, alpha.stride())
    scores = (u / (1 - u)).log() + alpha[:, None]  # `torch.logit` has a clamp: a tenth would be single numbers
    weights = ((scores - scores.detach().amax(-1, keepdim=True)) / temperature).exp()
    return weights, weights.sum(-1, keepdim=True)


def _one_hot(
    scores: Float[Tensor, "seeds n parents pop"], besides: Int[Tensor, "seeds n"] | None
) -> Float[Tensor, "seeds n parents pop"]:
    """One-hot argmax, straight-through; without replacement where `besides` is given."""
    taken = [] if besides is None else [besides[..., None]]
    picks = []
    for score in scores.unbind(2):
        if taken:
            score = score.scatter(-1, torch.cat(taken, dim=-1), -torch.inf)
        index = score.argmax(-1, keepdim=True)
        if besides is not None:
            taken.append(index)
        soft = torch.softmax(score, dim=-1)
        picks.append(straight_through(torch.zeros_like(soft).scatter(-1, index, 1.0), soft))
    return torch.stack(picks, dim=2)


def replace_worst(
    x: Float[Tensor, "seeds pop dim"],
    fitness: Float[Tensor, "seeds pop"],
    elite_x: Float[Tensor, "seeds 1 dim"],
    elite_f: Float[Tensor, "seeds 1"],
) -> tuple[Float[Tensor, "seeds pop dim"], Float[Tensor, "seeds pop"]]:
    """Explicit elitism: the elite takes the place of the worst (paper §2.1.3 and §2.2.4)."""
    worst = torch.arange(x.shape[1], device=x.device) == fitness.argmax(1, keepdim=True)
    return torch.where(worst[..., None], elite_x, x), torch.where(worst, elite_f, fitness)


def logit(probability: float) -> float:
    """log(p/(1 − p)), where a rate is stored as a logit."""
    return math.log(probability / (1 - probability))


def fitness_logits(fitness: Float[Tensor, "seeds pop"], dtype: torch.dtype) -> Float[Tensor, "seeds pop"]:
    """−f, shifted so that the best has 0: the softmax is the same, and 1e10 does not swamp it.

    An individual without a finite value gets the lowest logit that is finite.
    """
    best = fitness.amin(-1, keepdim=True)
    lowest = torch.finfo(torch.float32).min / 4
    return torch.where(fitness.isinf(), lowest, best - fitness).clamp(min=lowest).to(dtype)


def sbx_spread(u: Tensor) -> Tensor:
    """The log of the base of SBX's spread, so that β = exp(spread/(η_c + 1)) (paper §2.2.3).

    β = (2u)^(1/(η_c+1)) below u = 0.5, [2(1 − u)]^(−1/(η_c+1)) from it on.
    """
    return torch.copysign(torch.log(2 * torch.minimum(u, 1 - u)), u - 0.5)


def polynomial_offset(u: Tensor, eta: Tensor) -> Tensor:
    """The offset δ of polynomial mutation, in (−1, 1), in box widths (paper §2.1.2).

    δ = (2u)^(1/(η_m+1)) − 1 below u = 0.5, 1 − [2(1 − u)]^(1/(η_m+1)) from it on.
    """
    power = torch.exp(torch.log(2 * torch.minimum(u, 1 - u)) / (eta + 1))
    return torch.copysign(1 - power, u - 0.5)
