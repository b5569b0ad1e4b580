"""Differentiable differential evolution (paper §2.1.3 and §2.2.4).

Storn and Price, "Differential evolution", Journal of Global Optimization 11:341-359, 1997. Scale
factor, crossover rate and partner selection are learned; so are the individuals.

Classical DE draws its partners uniformly, so the logits α of the Gumbel-softmax start at 0 and are
learned, as the paper's text has them; the authors' code takes −f for them (`fitness_logits`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from evobench.evograd.loop import Evaluate
from evobench.evograd.outer import OuterSettings
from evobench.evograd.relaxations import binary_concrete, fitness_logits, logit, replace_worst, select, sigmoid
from evobench.evograd.space import Random, Space, Streams, reflect, take

_MAX_F = 2.0
"""F is in (0, 2] (paper §2.1.3)."""


class Params(NamedTuple):
    """Learned tensors."""

    x: Float[Tensor, "seeds pop dim"]  # x_i
    log_f: Float[Tensor, " seeds"]  # φ = log F
    crossover_logit: Float[Tensor, " seeds"]  # logit of CR
    selection_logit: Float[Tensor, "seeds pop"]  # learned part of α
    log_temperature: Float[Tensor, " seeds"]  # log τ of the selection


class Settings(OuterSettings):
    """Initial values and choices."""

    scale_factor: float = Field(0.5, gt=0, le=_MAX_F, description="F at the start (the authors' code)")
    crossover_rate: float = Field(0.9, gt=0, lt=1, description="CR at the start (the authors' code)")
    temperature: float = Field(0.8, gt=0, description="τ of the selection (the authors' code)")
    mask_temperature: float = Field(0.8, gt=0, description="τ of the crossover mask (the authors' code)")
    strategy: Literal["rand/1", "current-to-best/1"] = Field("rand/1", description="mutation strategy (paper §2.2.4)")
    noise: Literal["logistic", "gumbel"] = Field("logistic", description="noise of the selection (paper §2.2)")
    selection: Literal["soft", "hard"] = Field("soft", description="forward pass of the selection (paper §2.2: soft)")
    fitness_logits: bool = Field(False, description="add −f to the selection's logits (the authors' code)")

    learnable = Params._fields


class State(NamedTuple):
    """The evaluated population."""

    x: Float[Tensor, "seeds pop dim"]  # committed positions
    fitness: Float[Tensor, "seeds pop"]  # f of them
    elite_x: Float[Tensor, "seeds 1 dim"]  # x*, the best so far
    elite_f: Float[Tensor, "seeds 1"]


class Noise(NamedTuple):
    """A generation's random numbers, uniform."""

    partners: Float[Tensor, "seeds n partners pop"]  # selects r1, r2 and, for rand/1, r3
    cross: Float[Tensor, "seeds n dim"]  # τ_ij of the crossover
    gene: Float[Tensor, "seeds n 1"]  # draws j_rand
    rows: Int[Tensor, "seeds n"] | None = None


@dataclass(frozen=True, eq=False)
class DE:
    """DE with elitism; see `evobench.evograd.loop.Algorithm` for the methods."""

    settings: Settings
    space: Space

    solutions = frozenset({"x"})
    elitist = True
    welcomes = True
    evaluates_start = True

    @property
    def weighs(self) -> bool:
        return self.settings.fitness_logits

    def init(self, rng: Streams, evaluate: Evaluate) -> tuple[Params, State]:
        s, space = self.settings, self.space
        x = space.start(rng, space.pop)
        params = Params(
            x=x,
            log_f=space.full(math.log(s.scale_factor)),
            crossover_logit=space.full(logit(s.crossover_rate)),
            selection_logit=space.full(0.0, space.pop),
            log_temperature=space.full(math.log(s.temperature)),
        )
        fitness = evaluate(x)
        value, row = fitness.min(1, keepdim=True)
        return params, State(x, fitness, take(x, row), value)

    def noise(self, rng: Random) -> Noise:
        n, dim = self.space.pop, self.space.dim
        return Noise(*rng.uniform((n, 3 if self._rand else 2, n), (n, dim), (n, 1)))

    @property
    def _rand(self) -> bool:
        return self.settings.strategy == "rand/1"

    def propose(self, params: Params, state: State, noise: Noise) -> tuple[Float[Tensor, "seeds n dim"], None]:
        x = take(params.x, noise.rows)
        alpha = params.selection_logit
        if self.settings.fitness_logits:
            alpha = alpha + fitness_logits(state.fitness, params.x.dtype)
        scale = params.log_f.exp().clamp(max=_MAX_F).view(-1, 1, 1)
        partners = partial(
            select,
            noise.partners,
            alpha,
            params.log_temperature.exp().view(-1, 1, 1),
            params.x,
            noise=self.settings.noise,
            hard=self.settings.selection == "hard",
            besides=self._own_row(noise),
        )
        if self._rand:
            donor = partners(combine=lambda r1, r2, r3: r1 + scale * (r2 - r3))
        else:
            donor = x + scale * (state.elite_x - x) + partners(combine=lambda r1, r2: scale * (r1 - r2))
        mask = binary_concrete(noise.cross, params.crossover_logit.view(-1, 1, 1), self.settings.mask_temperature)
        genes = torch.arange(self.space.dim, device=x.device)
        certain = genes == (noise.gene * self.space.dim).floor()  # j = j_rand
        trial = torch.lerp(x, donor, torch.where(certain, 1.0, mask))
        return reflect(trial, self.space), None

    def commit(
        self,
        params: Params,
        state: State,
        noise: Noise,
        x: Float[Tensor, "seeds pop dim"],
        fitness: Float[Tensor, "seeds pop"],
        carry: None,
    ) -> tuple[Params, State]:
        # Greedy one-to-one. The gradient took the winning trial's path whether it is kept here or
        # not: the straight-through estimator of §2.2.4.
        wins = fitness <= state.fitness
        x, fitness = torch.where(wins[..., None], x, state.x), torch.where(wins, fitness, state.fitness)
        value, row = fitness.min(1, keepdim=True)
        elite_x = torch.where((value < state.elite_f)[..., None], take(x, row), state.elite_x)
        elite_f = torch.minimum(value, state.elite_f)
        x, fitness = replace_worst(x, fitness, elite_x, elite_f)
        return params._replace(x=x), State(x, fitness, elite_x, elite_f)

    def _own_row(self, noise: Noise) -> Int[Tensor, "seeds n"]:
        """Each candidate's own index, which its partners must differ from."""
        if noise.rows is not None:
            return noise.rows
        return torch.arange(self.space.pop, device=self.space.lower.device).expand(self.space.seeds, -1)

    def learned(self, params: Params) -> dict[str, Float[Tensor, " seeds"]]:
        return {
            "scale_factor": params.log_f.exp().clamp(max=_MAX_F),
            "crossover_rate": sigmoid(params.crossover_logit),
            "temperature": params.log_temperature.exp(),
        }
