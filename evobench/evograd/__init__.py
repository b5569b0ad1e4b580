"""EvoGrad: the paper's four differentiable algorithms and the variants that explain them.

A new algorithm is one file beside `pso.py` and one line in `FAMILIES`; it gets every variant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from evobench.evograd import cmaes, de, ga, pso
from evobench.evograd.loop import Algorithm, Gradient
from evobench.evograd.outer import OuterSettings


@dataclass(frozen=True)
class Family:
    """An algorithm: how to build it from settings and a space, what can be set, and what it fills.

    `peak` estimates the numbers that a run holds at once, from population and dimension. Its
    factors were fitted to the peak memory of 8 and 30 runs with gradients at 500D. `min_pop` is the
    smallest population its operators work with, `own_start` the start of the paper's protocol.
    """

    title: str
    build: Callable[[Any, Any], Algorithm]
    settings: type[OuterSettings]
    peak: Callable[[int, int], int] = lambda n, d: 45 * n * d
    min_pop: int = 2
    own_start: Literal["uniform", "centre"] = "uniform"


@dataclass(frozen=True)
class Variant:
    """What becomes of the gradient, and the settings in which the variant differs from the text."""

    gradient: Gradient
    summary: str
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    requires: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def most_gradients(self) -> int:
        """Gradients of a generation, at most."""
        return {"off": 0, "guarded": 2}.get(self.gradient, 1)


FAMILIES = {
    "ga": Family("genetic algorithm", ga.GA, ga.Settings, lambda n, d: 45 * n * d + 12 * n * n),
    "de": Family("differential evolution", de.DE, de.Settings, lambda n, d: 45 * n * d + 18 * n * n, min_pop=4),
    "pso": Family("particle swarm", pso.PSO, pso.Settings),
    "cmaes": Family(
        "CMA-ES", cmaes.CMAES, cmaes.Settings, lambda n, d: 45 * n * d + 25 * d * d, min_pop=4, own_start="centre"
    ),
}
"""DE's rand/1 needs three partners; CMA-ES needs two parents, half of four."""

_NO_UNROLL: dict[str, dict[str, Any]] = {family: {"unroll": 1} for family in FAMILIES}

VARIANTS = {
    "diff": Variant("kept", "as the paper's text has it: gradient steps on solutions count"),
    "plain": Variant("off", "the same tensor program and noise, no gradient", requires=_NO_UNROLL),
    "released": Variant(
        "overwritten",
        "as the authors' released code behaves: gradient steps on solutions are overwritten",
        overrides={
            "ga": {"noise": "gumbel", "fixed": ("crossover_logit", "selection_logit")},
            "de": {"noise": "gumbel", "fitness_logits": True, "fixed": ("crossover_logit", "selection_logit")},
            "cmaes": {"weights": "rank", "constants": "released", "reflected_steps": False},
        },
        requires=_NO_UNROLL,
    ),
    "guarded": Variant(
        "guarded",
        "sampling and guarded quasi-Newton descents share the budget by what pays",
        # Chosen on six other functions (configs/ablation-guarded.yaml): no gradient flows through its selection.
        overrides={"ga": {"selection": "hard"}, "de": {"selection": "hard"}, "cmaes": {"weights": "rank"}},
        requires=_NO_UNROLL,
    ),
}
