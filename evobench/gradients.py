"""Which parameters of an algorithm receive a gradient, how often and how strongly.

The runs are those of `evobench run`, with a watch on the loop; nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from evobench.algorithms import ALGORITHMS
from evobench.evograd import FAMILIES, VARIANTS
from evobench.evograd.loop import Generation
from evobench.evograd.space import Space
from evobench.experiment import Cell
from evobench.problems import check_differentiable, make_problem
from evobench.runner import batches
from evobench.tasks import execute

Fate = Literal["learned", "overwritten", "dead", "not learned"]
"""What becomes of a parameter: it moves; its steps are overwritten by the commit; no gradient ever
reaches it; it is left out of the learning, by a setting or by the variant."""


class _Watch:
    """Norms and counts of every gradient that the loop computes for the first `runs` runs."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.seen: dict[str, list[Float[Tensor, "3 seeds"]]] = {}

    def __call__(self, params: dict[str, Tensor], grads: dict[str, Tensor]) -> None:
        for name, grad in grads.items():
            flat, value = (tensor[: self.runs].reshape(self.runs, -1).double() for tensor in (grad, params[name]))
            norms = [torch.linalg.vector_norm(tensor, dim=1) for tensor in (flat, value)]
            self.seen.setdefault(name, []).append(torch.stack([*norms, (flat != 0).double().mean(1)]).cpu())

    def columns(self, name: str) -> Float[ndarray, "3 observations"]:
        """Gradient's norm, parameter's norm and share of entries reached, over steps and runs."""
        seen = self.seen.get(name)
        return torch.cat(seen, dim=1).numpy() if seen else np.empty((3, 0))


def check(cell: Cell) -> None:
    """Something must be there to observe.

    Raises:
        ValueError: if the algorithm takes no gradient, or its function has none.
    """
    if not ALGORITHMS[cell.algo].needs_gradient:
        takers = ", ".join(name for name, algorithm in ALGORITHMS.items() if algorithm.needs_gradient)
        raise ValueError(f"{cell.algo} takes no gradient: choose from {takers}")
    if ":" in cell.fn:
        check_differentiable(make_problem(cell.fn, cell.dim))


def observe(cell: Cell, seeds: Sequence[int]) -> pd.DataFrame:
    """Run a cell and report on every parameter that its algorithm can learn.

    Returns:
        one row a parameter: `parameter`, `fate`; `steps`, gradients taken of all runs together;
        `reached`, the share of them that are not 0; and over those the mean share of `entries` that
        are not 0, median and quartiles of the `norm`, and of its ratio to the parameter's own norm
        (`relative`), inf where that is 0. NaN where there is nothing to report.
    """
    watches = []
    for task in batches(cell, seeds):
        watches.append(_Watch(len(task.seeds)))
        execute(task, lambda share, best: None, watch=watches[-1])
    generation = _generation(cell)
    settings, solutions = generation.algorithm.settings, generation.algorithm.solutions
    left_out = {*settings.fixed, *(solutions if generation.gradient == "guarded" else ())}
    overwritten = solutions if generation.gradient == "overwritten" else frozenset()
    rows = []
    for name in settings.learnable:
        norm, size, entries = np.concatenate([watch.columns(name) for watch in watches], axis=1)
        there = norm > 0
        fate: Fate = "not learned" if name in left_out else "learned" if there.any() else "dead"
        with np.errstate(divide="ignore"):
            relative = norm[there] / size[there]
        rows.append(
            {
                "parameter": name,
                "fate": "overwritten" if fate == "learned" and name in overwritten else fate,
                "steps": len(norm),
                "reached": np.nan if name in left_out else there.mean() if len(norm) else 0.0,
                "entries": entries[there].mean() if there.any() else np.nan,
                **_quartiles("norm", norm[there]),
                **_quartiles("relative", relative),
            }
        )
    return pd.DataFrame(rows)


def _generation(cell: Cell) -> Generation:
    """The loop's own account of what the cell learns."""
    algorithm, problem = ALGORITHMS[cell.algo], make_problem(cell.fn, cell.dim)
    space = Space.of(problem, 1, cell.pop_size, cell.init, torch.float64, "cpu")
    settings: Any = algorithm.configure(cell.settings)
    return Generation(FAMILIES[algorithm.family].build(settings, space), problem, VARIANTS[algorithm.variant].gradient)


def _quartiles(name: str, values: Float[ndarray, " observations"]) -> dict[str, float]:
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], method="nearest") if len(values) else [np.nan] * 3
    return dict(zip((f"{name}_q1", name, f"{name}_q3"), map(float, quartiles), strict=True))
