"""Differentiable particle swarm optimisation (paper §2.1.1 and §2.2.2).

Kennedy and Eberhart, "Particle Swarm Optimization", ICNN 1995. Inertia and both accelerations are
learned, one of each per particle; so are the positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from evobench.evograd.loop import Evaluate
from evobench.evograd.outer import OuterSettings
from evobench.evograd.space import Random, Space, Streams, reflect, take


class Params(NamedTuple):
    """Learned tensors."""

    x: Float[Tensor, "seeds pop dim"]  # x_i
    omega: Float[Tensor, "seeds pop"]  # ω_i
    c1: Float[Tensor, "seeds pop"]  # c_1,i
    c2: Float[Tensor, "seeds pop"]  # c_2,i


class Settings(OuterSettings):
    """Initial values and limits."""

    omega: float = Field(0.7, description="inertia ω at the start (the authors' code)")
    c1: float = Field(1.4, description="cognitive acceleration at the start (the authors' code)")
    c2: float = Field(1.4, description="social acceleration at the start (the authors' code)")
    max_velocity: float = Field(1.0, gt=0, description="largest |v|, in box widths (the authors' code)")

    learnable = Params._fields


class State(NamedTuple):
    """What was evaluated, and how the particles move."""

    velocity: Float[Tensor, "seeds pop dim"]  # v_i
    personal_x: Float[Tensor, "seeds pop dim"]  # p_i
    personal_f: Float[Tensor, "seeds pop"]  # f(p_i)
    global_x: Float[Tensor, "seeds 1 dim"]  # g


class Noise(NamedTuple):
    """A generation's random numbers."""

    r1: Float[Tensor, "seeds n dim"]
    r2: Float[Tensor, "seeds n dim"]
    rows: Int[Tensor, "seeds n"] | None = None


@dataclass(frozen=True, eq=False)
class PSO:
    """The swarm; see `evobench.evograd.loop.Algorithm` for what each method does."""

    settings: Settings
    space: Space

    solutions = frozenset({"x"})
    elitist = False
    welcomes = True
    weighs = False
    evaluates_start = True

    def init(self, rng: Streams, evaluate: Evaluate) -> tuple[Params, State]:
        s, n = self.settings, self.space.pop
        x = self.space.start(rng, n)
        fitness = evaluate(x)
        params = Params(x, *(self.space.full(value, n) for value in (s.omega, s.c1, s.c2)))
        return params, State(torch.zeros_like(x), x, fitness, take(x, fitness.argmin(1, keepdim=True)))

    def noise(self, rng: Random) -> Noise:
        shape = (self.space.pop, self.space.dim)
        return Noise(*rng.uniform(shape, shape))

    def propose(
        self, params: Params, state: State, noise: Noise
    ) -> tuple[Float[Tensor, "seeds n dim"], Float[Tensor, "seeds n dim"]]:
        x, omega, c1, c2 = (take(value, noise.rows) for value in params)
        velocity, personal_x = take(state.velocity, noise.rows), take(state.personal_x, noise.rows)
        limit = self.settings.max_velocity * self.space.width
        velocity = (
            omega[..., None] * velocity
            + c1[..., None] * noise.r1 * (personal_x - x)
            + c2[..., None] * noise.r2 * (state.global_x - x)
        ).clamp(-limit, limit)  # eq. 1
        free = x + velocity
        return reflect(free, self.space), self._turned(velocity, free)

    def commit(
        self,
        params: Params,
        state: State,
        noise: Noise,
        x: Float[Tensor, "seeds pop dim"],
        fitness: Float[Tensor, "seeds pop"],
        carry: Float[Tensor, "seeds pop dim"],
    ) -> tuple[Params, State]:
        better = fitness < state.personal_f
        personal_x = torch.where(better[..., None], x, state.personal_x)
        personal_f = torch.where(better, fitness, state.personal_f)
        leader = take(personal_x, personal_f.argmin(1, keepdim=True))
        return params._replace(x=x), State(carry, personal_x, personal_f, leader)

    def _turned(
        self, velocity: Float[Tensor, "seeds n dim"], free: Float[Tensor, "seeds n dim"]
    ) -> Float[Tensor, "seeds n dim"]:
        """Velocities with the coordinates turned round that the walls reflect."""
        outside = (free - free.clamp(self.space.lower, self.space.upper)).sign().abs()  # 0 or 1
        return torch.addcmul(velocity, velocity, outside, value=-2)

    def learned(self, params: Params) -> dict[str, Float[Tensor, " seeds"]]:
        return {name: getattr(params, name).mean(1) for name in ("omega", "c1", "c2")}
