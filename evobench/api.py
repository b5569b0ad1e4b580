"""`evobench.minimize`: any algorithm of the command line on a function of yours, from Python."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from numpy import ndarray

from evobench import figures
from evobench.algorithms import algorithm_named
from evobench.experiment import make_experiment, resolve_device
from evobench.problems import check_differentiable, problem_of
from evobench.runner import batches
from evobench.tasks import Task, execute, provenance, rows


@dataclass(frozen=True)
class Result:
    """What `minimize` found: one entry a seed, in the order of the seeds.

    Attributes:
        x: best points `[seeds, dim]`.
        fun: their values `[seeds]`, float64.
        seeds: the seeds `[seeds]`.
        nfev, njev: evaluations and gradients that each run spent `[seeds]`.
        runs: one row a run, with every setting and version, as `evobench run` stores it.
        history: best value so far over the evaluations, as `evobench run` stores it.
    """

    x: Float[ndarray, "seeds dim"]
    fun: Float[ndarray, " seeds"]
    seeds: Int[ndarray, " seeds"]
    nfev: Int[ndarray, " seeds"]
    njev: Int[ndarray, " seeds"]
    runs: pd.DataFrame
    history: pd.DataFrame

    @property
    def best(self) -> tuple[Float[ndarray, " dim"], float]:
        """Point and value of the best run."""
        row = int(self.fun.argmin())
        return self.x[row], float(self.fun[row])

    def plot(self) -> Figure:
        """Median and quartiles of the best value over the evaluations, as a matplotlib figure."""
        return figures.convergence(self.history, self.runs)


def minimize(
    function: Callable[[Any], Any],
    algorithm: str = "cmaes_guarded",
    *,
    bounds: Any,
    dim: int | None = None,
    seeds: int | str | Sequence[int] = 30,
    budget: int | None = None,
    pop: int | None = None,
    settings: dict[str, Any] | None = None,
    gradient_cost: float = 0.0,
    init: Literal["uniform", "centre"] = "uniform",
    dtype: Literal["float32", "float64"] = "float64",
    device: str = "auto",
    compile: bool = False,
    callback: Callable[[float, float], object] | None = None,
) -> Result:
    """Minimise a function with independent runs, one a seed.

    Args:
        function: takes points `[..., dim]` and returns values `[...]`, as torch tensors (then
            gradients are used) or NumPy arrays; or takes one point `[dim]` and returns a number.
        algorithm: a name of `evobench list algorithms`.
        bounds: `(low, high)` for all coordinates, or a pair for each, as SciPy has it.
        dim: number of coordinates; not needed where `bounds` has a pair for each.
        seeds: a count, a text such as `"0-29"`, or a list.
        budget: evaluations of a run, gradients included at `gradient_cost` [5000 · dim].
        pop: population [100; the own of another library's optimiser].
        settings: of the algorithm, as in `evobench list settings`.
        callback: called now and then (twice a second, or each generation of a baseline) with the share
            of the budget spent and the best value of any run so far. True ends the minimisation, as in
            SciPy: runs keep what they have, and seeds whose turn had not come are left out.

    Raises:
        ValueError: one sentence naming the bad value and what is allowed.

    Warns:
        UserWarning: if the algorithm wants gradients and the function has none: it then runs as its
            `_plain` twin.
    """
    lower, upper = _box(bounds, dim)
    problem = problem_of(function, lower, upper)
    chosen = algorithm_named(algorithm)
    if chosen.needs_gradient:
        try:
            check_differentiable(problem)
        except ValueError:
            if chosen.backend == "gradient":  # it has no twin without gradients
                raise
            twin = f"{chosen.family}_plain"
            warnings.warn(
                f"'{problem.name}' is not differentiable by autograd: {algorithm} runs as {twin}, "
                "without gradient steps and with its hyper-parameters as they start",
                stacklevel=2,
            )
            algorithm = twin
    experiment = make_experiment(
        {
            "name": "minimize",
            "algo": [algorithm],
            "fn": "sphere",  # stands for the function, which has no name to find it by
            "dim": problem.dim,
            "seeds": seeds,
            "budget": budget,
            "pop": pop,
            "init": init,
            "dtype": dtype,
            "device": device,
            "gradient_cost": gradient_cost,
            "compile": compile,
            "settings": {algorithm: settings or {}},
        }
    )
    cell = experiment.cell(algorithm, problem, resolve_device(device))
    tasks, best, records = batches(cell, experiment.seeds), math.inf, []
    for index, task in enumerate(tasks):

        def tell(share: float, value: float, index: int = index, best: float = best) -> bool:
            return callback is not None and bool(callback((index + share) / len(tasks), min(value, best)))

        records += execute(task, tell, problem=problem)
        best = min(record.best_f for record in records)
        if records[-1].stop_reason == "callback":
            break
    seeds = tuple(record.seed for record in records)
    runs, history = rows(Task(cell, seeds), records, "minimize", provenance(), None)
    return Result(
        x=np.stack([record.best_x for record in records]),
        fun=np.array([record.best_f for record in records]),
        seeds=np.array(seeds),
        nfev=np.array([record.f_evals for record in records]),
        njev=np.array([record.g_evals for record in records]),
        runs=runs,
        history=history,
    )


def _box(bounds: Any, dim: int | None) -> tuple[Float[ndarray, " dim"], Float[ndarray, " dim"]]:
    """Lower and upper bounds `[dim]`.

    Raises:
        ValueError: if they are no bounds, or do not fit the dimension.
    """
    if dim is not None and (not isinstance(dim, int) or isinstance(dim, bool) or dim < 1):
        raise ValueError(f"bad dim {dim!r}: give a whole number from 1 on")
    try:
        pairs = np.asarray(bounds, dtype=np.float64)
    except (TypeError, ValueError):
        pairs = np.empty(0)
    if pairs.shape == (2,):
        if dim is None:
            raise ValueError(f"bad dim {dim}: with one pair of bounds for all coordinates, say how many there are")
        pairs = np.tile(pairs, (dim, 1))
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise ValueError(f"bad bounds {bounds!r:.100}: give (low, high), or a pair for each coordinate")
    if dim is not None and len(pairs) != dim:
        raise ValueError(f"bad bounds: {len(pairs)} pairs for {dim} coordinates")
    lower, upper = pairs.T.copy()
    if not (np.isfinite(pairs).all() and (lower < upper).all()):
        raise ValueError(f"bad bounds {bounds!r:.100}: every low must be less than its high, and both finite")
    return lower, upper
