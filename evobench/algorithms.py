"""The algorithms a user can name: one table over all backends.

A new differentiable algorithm registers in `evobench.evograd.FAMILIES`, a new variant of all of them
in `evobench.evograd.VARIANTS`, a new baseline in `BASELINES` here, or in `DESCENTS` where it has
nothing but gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from evobench.baselines import gradient
from evobench.baselines import pymoo as pymoo_baselines
from evobench.evograd import FAMILIES, VARIANTS, descent
from evobench.settings import configure, shown


@dataclass(frozen=True)
class Algorithm:
    """One name of the command line.

    Attributes:
        family: `ga`, `de`, `pso` or `cmaes`: what its variants and its baseline have in common.
        variant: `pymoo`, `diff`, `plain`, `released` or `guarded`; `gradient` where there is no population.
        settings: every setting with this algorithm's defaults.
        min_pop: smallest population its operators can work with.
        own_start: the start the paper's protocol gives it.
        summary: one line for `evobench list`.
        peak: numbers that a run holds at once, from population and dimension, where all runs of a batch
            are one tensor program; None where each run is a task of its own.
    """

    name: str
    backend: Literal["pymoo", "evograd", "gradient"]
    family: str
    variant: str
    settings: BaseModel
    min_pop: int
    own_start: Literal["uniform", "centre"]
    summary: str
    peak: Callable[[int, int], int] | None = None

    @property
    def batched(self) -> bool:
        """Whether all runs of a batch are one tensor program."""
        return self.peak is not None

    @property
    def takes_gradients(self) -> bool:
        """Whether what it does depends on what a gradient costs."""
        return self.backend != "pymoo"

    def population(self, asked: int) -> int:
        """How many individuals it has where `asked` for a number."""
        return 1 if self.backend == "gradient" else asked

    def least_budget(self, pop: int, gradient_cost: float, unroll: int = 1) -> float:
        """What one turn of the loop may cost, `unroll` generations: a smaller budget would buy nothing."""
        if self.backend == "gradient":
            return 1 + gradient_cost
        variant = VARIANTS.get(self.variant)
        if variant is None:
            return pop
        burst = (1 + gradient_cost) * descent.steps(pop) if variant.gradient == "guarded" else 0
        gradients = variant.most_gradients + (unroll - 1) * pop
        return max(unroll * pop + gradient_cost * gradients, burst)

    @property
    def needs_gradient(self) -> bool:
        """Whether it can only minimise functions that autograd can differentiate."""
        return self.variant in ("diff", "released", "guarded", "gradient")

    def configure(self, overrides: dict[str, Any]) -> BaseModel:
        """The settings with `overrides` applied and validated.

        Raises:
            ValueError: naming the unknown setting or the bad value, and what is allowed.
        """
        required = VARIANTS[self.variant].requires.get(self.family, {}) if self.variant in VARIANTS else {}
        for key, value in required.items():
            if overrides.get(key, value) != value:
                raise ValueError(f"bad value {shown(overrides[key])} for {self.name}.{key}: it must be {value}")
        return configure(self.name, self.settings, overrides)


MIN_POP = {"pso": 2, "ga": 2, "de": 4, "cmaes": 4}
"""Two to recombine; DE's rand/1 needs three partners; CMA-ES needs two parents, half of four."""

BASELINES = {
    "ga": "genetic algorithm: SBX, polynomial mutation, tournament, duplicates removed",
    "de": "differential evolution, rand/1/bin",
    "pso": "particle swarm with pymoo's own parameter adaptation",
    "cmaes": "CMA-ES without restarts, step size by CSA, as in the paper's time",
    "cmaes_tpa": "CMA-ES without restarts, step size by TPA: cma's own choice at 500D today",
}

DESCENTS = {
    "adam": "Adam alone, from one point, started anew where it stagnates",
    "lion": "Lion alone, as Adam",
    "lbfgs": "SciPy's L-BFGS-B alone, started anew where it converges",
}

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        *(
            Algorithm(
                name=name,
                backend="pymoo",
                family=name.removesuffix("_tpa"),
                variant="pymoo",
                settings=pymoo_baselines.SETTINGS[name](),
                min_pop=MIN_POP[name.removesuffix("_tpa")],
                own_start="uniform",
                summary=f"pymoo's {summary}",
            )
            for name, summary in BASELINES.items()
        ),
        *(
            Algorithm(
                name=f"{family}_{variant}",
                backend="evograd",
                family=family,
                variant=variant,
                settings=FAMILIES[family].settings(**what.overrides.get(family, {})),
                min_pop=MIN_POP[family],
                own_start="centre" if family == "cmaes" else "uniform",
                summary=f"{FAMILIES[family].title}, {what.summary}",
                peak=FAMILIES[family].peak,
            )
            for variant, what in VARIANTS.items()
            for family in FAMILIES
        ),
        *(
            Algorithm(
                name=name,
                backend="gradient",
                family=name,
                variant="gradient",
                settings=gradient.SETTINGS[name](),
                min_pop=1,
                own_start="uniform",
                summary=summary,
                peak=(lambda pop, dim: 30 * dim) if name in gradient.DESCENTS else None,
            )
            for name, summary in DESCENTS.items()
        ),
    )
}
