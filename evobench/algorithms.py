"""The algorithms a user can name: one table over both backends.

A new differentiable algorithm registers in `evobench.evograd.FAMILIES`, a new variant of all of them
in `evobench.evograd.VARIANTS`, a new baseline in `BASELINES` here.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from evobench.baselines import pymoo as pymoo_baselines
from evobench.evograd import FAMILIES, VARIANTS


@dataclass(frozen=True)
class Algorithm:
    """One name of the command line.

    Attributes:
        family: `ga`, `de`, `pso` or `cmaes`: what its variants and its baseline have in common.
        variant: `pymoo`, `diff`, `plain`, `released` or `guarded`.
        settings: every setting with this algorithm's defaults.
        min_pop: smallest population its operators can work with.
        own_start: the start the paper's protocol gives it.
        summary: one line for `evobench list`.
    """

    name: str
    backend: Literal["pymoo", "evograd"]
    family: str
    variant: str
    settings: BaseModel
    min_pop: int
    own_start: Literal["uniform", "centre"]
    summary: str

    def least_budget(self, pop: int, gradient_cost: float, unroll: int = 1) -> float:
        """What one turn of the loop may cost, `unroll` generations: a smaller budget would buy nothing."""
        variant = VARIANTS.get(self.variant)
        if variant is None:
            return pop
        gradients = variant.most_gradients + (unroll - 1) * pop
        return unroll * pop + (variant.gradient == "guarded") + gradient_cost * gradients

    @property
    def needs_gradient(self) -> bool:
        """Whether it can only minimise functions that autograd can differentiate."""
        return self.variant in ("diff", "released", "guarded")

    def configure(self, overrides: dict[str, Any]) -> BaseModel:
        """The settings with `overrides` applied and validated.

        Raises:
            ValueError: naming the unknown setting or the bad value, and what is allowed.
        """
        known = type(self.settings).model_fields
        for key in overrides:
            if key not in known:
                raise ValueError(
                    f"unknown setting {key!r} of {self.name}: choose from {', '.join(known) or '(it has none)'}"
                )
        required = VARIANTS[self.variant].requires.get(self.family, {}) if self.variant in VARIANTS else {}
        for key, value in required.items():
            if overrides.get(key, value) != value:
                raise ValueError(f"bad value {shown(overrides[key])} for {self.name}.{key}: it must be {value}")
        try:
            return type(self.settings).model_validate({**self.settings.model_dump(), **overrides})
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise ValueError(f"bad value {shown(problem['input'])} for {self.name}.{key}: {problem['msg']}") from error


def shown(value: Any) -> str:
    """A user's value in a message: short and on one line, whatever was given."""
    return f"{reprlib.repr(value):.100}"


MIN_POP = {"pso": 2, "ga": 2, "de": 4, "cmaes": 4}
"""Two to recombine; DE's rand/1 needs three partners; CMA-ES needs two parents, half of four."""

BASELINES = {
    "ga": "genetic algorithm: SBX, polynomial mutation, tournament, duplicates removed",
    "de": "differential evolution, rand/1/bin",
    "pso": "particle swarm with pymoo's own parameter adaptation",
    "cmaes": "CMA-ES without restarts, step size by CSA, as in the paper's time",
    "cmaes_tpa": "CMA-ES without restarts, step size by TPA: cma's own choice at 500D today",
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
            )
            for variant, what in VARIANTS.items()
            for family in FAMILIES
        ),
    )
}
