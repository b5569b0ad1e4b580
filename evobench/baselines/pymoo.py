"""pymoo's GA, DE, PSO and CMA-ES, called as the paper's authors call them.

Blank and Deb, "pymoo: Multi-Objective Optimization in Python", IEEE Access 8:89497-89509, 2020.
Paper §3: "we used the standard versions of the algorithms available in the pymoo library … with no
restarts"; PSO is "the parameter-free variant".

The step-size rule of CMA-ES is named here, because its default depends on the version of `cma`:
`cmaes` is cumulative step-size adaptation (CSA), as in the paper's time, `cmaes_tpa` is two-point
adaptation (TPA), which `cma` ≥ 4.5 chooses by itself at 500 dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import cma
import numpy as np
import pymoo
from cma.sigma_adaptation import CMAAdaptSigmaCSA, CMAAdaptSigmaTPA
from pydantic import BaseModel, ConfigDict, Field
from pymoo.algorithms.soo.nonconvex.cmaes import CMAES
from pymoo.algorithms.soo.nonconvex.de import DE
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.algorithms.soo.nonconvex.pso import PSO
from pymoo.core.algorithm import Algorithm
from pymoo.core.callback import Callback
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.sampling.rnd import FloatRandomSampling
from pymoo.optimize import minimize

from evobench.problems import Problem
from evobench.record import Course, RunRecord, Stopped

VERSIONS = {"pymoo": pymoo.__version__, "cma": cma.__version__}
CENTRE_STD = 0.5
"""Standard deviation of the centre start, in units of x (the authors' code)."""


class Settings(BaseModel):
    """What all of pymoo's algorithms here share: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class GASettings(Settings):
    eta_c: float = Field(15, ge=0, description="SBX distribution index (the authors' call)")
    crossover_rate: float = Field(0.9, ge=0, le=1, description="SBX probability (the authors' call)")
    eta_m: float = Field(20, ge=0, description="polynomial mutation index (the authors' call)")


class DESettings(Settings):
    variant: Literal["DE/rand/1/bin", "DE/best/1/bin"] = Field("DE/rand/1/bin", description="the authors' call")
    crossover_rate: float = Field(0.9, ge=0, le=1, description="CR (the authors' call)")


class PSOSettings(Settings):
    adaptive: bool = Field(True, description="pymoo's parameter-free PSO (paper §3)")


class CMAESSettings(Settings):
    sigma0: float | None = Field(
        None, gt=0, description="initial step size in units of x; None: 10% of the box, or 0.5 with the centre start"
    )
    tolfun: float = Field(1e-11, ge=0, description="stop when values differ by less (pymoo's default)")
    tolx: float = Field(1e-11, ge=0, description="stop when steps are smaller, in the unit box (pymoo's default)")


SETTINGS: dict[str, type[Settings]] = {
    "ga": GASettings,
    "de": DESettings,
    "pso": PSOSettings,
    "cmaes": CMAESSettings,
    "cmaes_tpa": CMAESSettings,
}


class _Recorder(PymooProblem):
    """The objective as pymoo sees it; counts evaluations and keeps the best within the budget.

    pymoo checks its budget between generations, and its start-up points come on top: what it
    evaluates past the budget is neither counted nor kept.
    """

    def __init__(self, problem: Problem, budget: int, course: Course) -> None:
        super().__init__(n_var=problem.dim, n_obj=1, xl=problem.lower, xu=problem.upper)
        self.problem, self.budget, self.course = problem, budget, course

    def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        values = self.problem(x)
        values = np.where(np.isfinite(values), values, np.inf)
        left = self.budget - self.course.f_evals
        self.course.evaluated(x[:left], values[:left])
        out["F"] = values[:, None]


class _Strategy:
    """cma's generator as pymoo drives it, and what it raised.

    pymoo takes any exception for the end of the run: without this, Ctrl-C would store half a run.
    """

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self.es: Any = generator.gi_frame.f_locals["es"]
        self.error: BaseException | None = None

    @property
    def gi_frame(self) -> Any:
        return self.generator.gi_frame

    def send(self, values: Any) -> Any:
        try:
            return self.generator.send(values)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise

    def stop_reason(self) -> str:
        """cma's own words for why it stopped, or else what it raised; empty if neither."""
        if self.error is not None and not isinstance(self.error, Exception):
            raise self.error
        # The words first: pymoo's own code raises a TypeError after them, as cma's results are no tuples any more.
        return "+".join(sorted(self.es.stop(check=False))) or (type(self.error).__name__ if self.error else "")


class _Generations(Callback):
    """Notes every generation, and has cma's strategy for its stop reason."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.course = course
        self.strategy: _Strategy | None = None

    def notify(self, algorithm: Algorithm) -> None:
        self.course.note()
        if self.strategy is None and isinstance(algorithm, CMAES):
            self.strategy = algorithm.es = _Strategy(algorithm.es)


def run(
    name: str,
    problem: Problem,
    settings: Settings,
    *,
    seed: int,
    budget: int,
    pop_size: int,
    init: str,
    progress: Callable[[int, float], object] = lambda evals, best: None,
) -> RunRecord:
    """One run of the baseline `name`, decided by `seed` alone.

    Args:
        problem: with its shift for this seed, `[dim]`, if any.
        budget: objective evaluations; no more are counted.
        init: `uniform` (pymoo's own start) or `centre`, N(box centre, 0.5² I).
        progress: called with (evaluations, best value) after every generation; what is true of its
            answer ends the run.
    """
    algorithm = _build(name, problem, settings, seed=seed, pop_size=pop_size, init=init)
    course = Course(problem.centre, progress)
    generations, recorder = _Generations(course), _Recorder(problem, budget, course)
    try:
        minimize(recorder, algorithm, ("n_eval", budget), seed=_pymoo_seed(name, seed), callback=generations)
        course.note()  # pymoo makes no callback at the end
        stopped = (generations.strategy.stop_reason() if generations.strategy else "") or "no_offspring"
    except Stopped:
        stopped = "callback"
    return course.record(seed, "budget" if course.f_evals >= budget else stopped)


def _pymoo_seed(name: str, seed: int) -> int:
    """The seed handed to pymoo. `cma` takes 0 to mean the clock, so CMA-ES counts from 1."""
    return seed + 1 if name.startswith("cmaes") else seed


def _build(name: str, problem: Problem, settings: Any, *, seed: int, pop_size: int, init: str) -> Algorithm:
    """pymoo's algorithm object for one run."""
    rng = np.random.default_rng([seed, problem.dim, 1])  # apart from the shift's stream

    def around_centre(count: int) -> np.ndarray:
        points = problem.centre + CENTRE_STD * rng.standard_normal((count, problem.dim))
        return np.clip(points, problem.lower, problem.upper)

    if name.startswith("cmaes"):
        width = float((problem.upper - problem.lower).max())
        sigma0 = settings.sigma0 or (CENTRE_STD if init == "centre" else 0.1 * width)
        return CMAES(
            x0=around_centre(1)[0] if init == "centre" else None,
            sigma=sigma0 / width,  # pymoo searches the unit box
            popsize=pop_size,
            restarts=0,
            tolfun=settings.tolfun,
            tolx=settings.tolx,
            AdaptSigma=CMAAdaptSigmaTPA if name == "cmaes_tpa" else CMAAdaptSigmaCSA,
        )
    sampling = around_centre(pop_size) if init == "centre" else FloatRandomSampling()
    if name == "ga":
        return GA(
            pop_size=pop_size,
            sampling=sampling,
            crossover=SBX(prob=settings.crossover_rate, eta=settings.eta_c),
            mutation=PM(eta=settings.eta_m),
            eliminate_duplicates=True,
        )
    if name == "de":
        return DE(
            pop_size=pop_size,
            sampling=sampling,
            variant=settings.variant,
            CR=settings.crossover_rate,
            dither="vector",
            jitter=False,
        )
    # pymoo's PSO samples by Latin hypercube unless it is told otherwise, as the authors leave it.
    own_start = {"sampling": sampling} if init == "centre" else {}
    return PSO(pop_size=pop_size, adaptive=settings.adaptive, **own_start)
