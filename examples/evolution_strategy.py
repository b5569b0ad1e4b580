"""An algorithm of your own: a differentiable (1,λ) evolution strategy, run beside the paper's PSO.

H.-P. Schwefel, "Numerical Optimization of Computer Models", Wiley 1981: each child draws a step size,
then its place; the best child is the next parent. Mean and step size are learned too.

python examples/evolution_strategy.py
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

import evobench
from evobench.algorithms import register
from evobench.evograd import Family
from evobench.evograd.outer import OuterSettings
from evobench.evograd.space import Space, reflect, take


class Params(NamedTuple):
    """What is learned; S seeds, D dimensions."""

    mean: Tensor  # [S, 1, D]
    log_sigma: Tensor  # [S, 1, 1]


class Noise(NamedTuple):
    """The random numbers of a generation of N children; the last field is always `rows`."""

    step: Tensor  # [S, N, 1]
    z: Tensor  # [S, N, D]
    rows: Tensor | None = None


class Settings(OuterSettings):
    """Adam's; what can be learned."""

    learnable = Params._fields


@dataclass(frozen=True, eq=False)
class ES:
    """Functions of tensors whose first axis is the seed: rows of different seeds never meet."""

    settings: Settings
    space: Space

    solutions = frozenset({"mean", "log_sigma"})  # what a commit overwrites
    elitist, weighs, welcomes, evaluates_start = False, False, True, False

    def init(self, rng, evaluate):
        """Parameters and state of the start."""
        return Params(self.space.start(rng, 1), (0.1 * self.space.width.max()).log().expand(self.space.seeds, 1, 1)), ()

    def noise(self, rng):
        """A generation's random numbers."""
        step, z = rng.normal((self.space.pop, 1), (self.space.pop, self.space.dim))
        return Noise(step.to(self.space.lower.dtype), z.to(self.space.lower.dtype))

    def propose(self, params, state, noise):
        """Children in the box, differentiable in the parameters, and their step sizes."""
        log_sigma = params.log_sigma + noise.step / math.sqrt(self.space.dim)
        return reflect(params.mean + log_sigma.exp() * noise.z, self.space), log_sigma

    def commit(self, params, state, noise, x, fitness, log_sigma):
        """The best child is the next parent."""
        winner = fitness.argmin(1, keepdim=True)
        return Params(take(x, winner), take(log_sigma, winner).clamp(-80, 80)), state

    def learned(self, params):
        """What the history records, one number a run."""
        return {"sigma": params.log_sigma.exp()[:, 0, 0]}


FAMILY = Family("(1,λ) evolution strategy", ES, Settings)

if __name__ == "__main__":
    register("es", FAMILY)
    for name in ("es_diff", "es_plain", "pso_diff"):
        result = evobench.minimize(lambda x: x.square().sum(-1), name, bounds=(-5, 5), dim=10, seeds=10, budget=10_000)
        print(f"{name:9s} best {result.best[1]:.3g}")
