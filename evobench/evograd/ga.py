"""Differentiable genetic algorithm (paper §2.1.2 and §2.2.3).

Deb and Agrawal, "Simulated Binary Crossover for Continuous Search Space", Complex Systems 9(2), 1995;
Deb and Deb, "Analysing mutation schemes for real-parameter genetic algorithms", 2014. Both
distribution indices, both rates and the selection are learned; so are the individuals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from evobench.evograd.loop import Evaluate
from evobench.evograd.outer import OuterSettings
from evobench.evograd.relaxations import (
    binary_concrete,
    fitness_logits,
    logit,
    polynomial_offset,
    replace_worst,
    sbx_spread,
    select,
    sigmoid,
)
from evobench.evograd.space import Random, Space, Streams, reflect, take


class Params(NamedTuple):
    """Learned tensors."""

    x: Float[Tensor, "seeds pop dim"]  # x_i
    log_eta_c: Float[Tensor, " seeds"]  # log η_c, SBX index
    eta_m: Float[Tensor, " seeds"]  # η_m, mutation index
    crossover_logit: Float[Tensor, " seeds"]  # logit of c_r, per gene
    mutation_logit: Float[Tensor, "seeds dim"]  # logit of m_r, one a gene
    selection_logit: Float[Tensor, "seeds pop"]  # learned part of α
    log_temperature: Float[Tensor, " seeds"]  # log τ of the selection
    log_mask_temperature: Float[Tensor, " seeds"]  # log τ of both masks


class Settings(OuterSettings):
    """Initial values and choices."""

    eta_c: float = Field(15.0, gt=0, description="SBX index η_c at the start (the authors' code)")
    eta_m: float = Field(20.0, ge=0, description="mutation index η_m at the start (the authors' code)")
    crossover_rate: float = Field(0.9, gt=0, lt=1, description="crossover rate per gene (the authors' code)")
    mutation_rate: float | None = Field(
        None, gt=0, lt=1, description="mutation rate per gene; None: 1/D (the authors' code)"
    )
    temperature: float = Field(0.8, gt=0, description="τ of the selection (the authors' code)")
    mask_temperature: float = Field(0.8, gt=0, description="τ of both masks (the authors' code)")
    noise: Literal["logistic", "gumbel"] = Field("logistic", description="noise of the selection (paper §2.2)")
    selection: Literal["soft", "hard"] = Field("soft", description="forward pass of the selection (paper §2.2: soft)")

    learnable = Params._fields


class State(NamedTuple):
    """The evaluated population's fitness, and its best."""

    fitness: Float[Tensor, "seeds pop"]  # f(x_i), of the position committed
    elite_x: Float[Tensor, "seeds 1 dim"]  # the best committed position
    elite_f: Float[Tensor, "seeds 1"]


class Noise(NamedTuple):
    """A generation's random numbers, uniform."""

    parents: Float[Tensor, "seeds n 2 pop"]  # selects p and q
    cross: Float[Tensor, "seeds n dim"]  # which genes cross over
    spread: Float[Tensor, "seeds n dim"]  # u_j of SBX
    mutate: Float[Tensor, "seeds n dim"]  # which genes mutate
    offset: Float[Tensor, "seeds n dim"]  # u_j of the mutation
    rows: Int[Tensor, "seeds n"] | None = None


@dataclass(frozen=True, eq=False)
class GA:
    """A generational GA with elitism; see `evobench.evograd.loop.Algorithm` for the methods."""

    settings: Settings
    space: Space

    solutions = frozenset({"x"})
    elitist = True
    welcomes = True
    weighs = True
    evaluates_start = True

    def init(self, rng: Streams, evaluate: Evaluate) -> tuple[Params, State]:
        s, space = self.settings, self.space
        x = space.start(rng, space.pop)
        params = Params(
            x=x,
            log_eta_c=space.full(math.log(s.eta_c)),
            eta_m=space.full(s.eta_m),
            crossover_logit=space.full(logit(s.crossover_rate)),
            mutation_logit=space.full(logit(s.mutation_rate or min(1 / space.dim, 0.5)), space.dim),
            selection_logit=space.full(0.0, space.pop),
            log_temperature=space.full(math.log(s.temperature)),
            log_mask_temperature=space.full(math.log(s.mask_temperature)),
        )
        return params, _state(x, evaluate(x))

    def noise(self, rng: Random) -> Noise:
        n, dim = self.space.pop, self.space.dim
        return Noise(*rng.uniform((n, 2, n), (n, dim), (n, dim), (n, dim), (n, dim)))

    def propose(self, params: Params, state: State, noise: Noise) -> tuple[Float[Tensor, "seeds n dim"], None]:
        def scalar(value: Float[Tensor, " seeds"]) -> Float[Tensor, "seeds 1 1"]:
            return value.view(-1, 1, 1)

        alpha = fitness_logits(state.fitness, params.x.dtype) + params.selection_logit
        p, q = select(
            noise.parents,
            alpha,
            scalar(params.log_temperature.exp()),
            params.x,
            noise=self.settings.noise,
            hard=self.settings.selection == "hard",
        )
        mask_temperature = scalar(params.log_mask_temperature.exp())
        beta = torch.exp(sbx_spread(noise.spread) / (scalar(params.log_eta_c.exp()) + 1))
        crossed = 0.5 * ((1 + beta) * p + (1 - beta) * q)
        cross = binary_concrete(noise.cross, scalar(params.crossover_logit), mask_temperature)
        child = torch.lerp(p, crossed, cross)
        delta = polynomial_offset(noise.offset, scalar(params.eta_m.clamp(min=0)))
        mutate = binary_concrete(noise.mutate, params.mutation_logit[:, None], mask_temperature)
        child = child + mutate * delta * self.space.width
        return reflect(child, self.space), None

    def commit(
        self,
        params: Params,
        state: State,
        noise: Noise,
        x: Float[Tensor, "seeds pop dim"],
        fitness: Float[Tensor, "seeds pop"],
        carry: None,
    ) -> tuple[Params, State]:
        x, fitness = replace_worst(x, fitness, state.elite_x, state.elite_f)
        return params._replace(x=x), _state(x, fitness)

    def learned(self, params: Params) -> dict[str, Float[Tensor, " seeds"]]:
        return {
            "eta_c": params.log_eta_c.exp(),
            "eta_m": params.eta_m.clamp(min=0),
            "crossover_rate": sigmoid(params.crossover_logit),
            "mutation_rate": sigmoid(params.mutation_logit).mean(1),
            "temperature": params.log_temperature.exp(),
        }


def _state(x: Float[Tensor, "seeds pop dim"], fitness: Float[Tensor, "seeds pop"]) -> State:
    value, row = fitness.min(1, keepdim=True)
    return State(fitness, take(x, row), value)
