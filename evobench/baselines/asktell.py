"""Optimisers of other libraries, as their users call them: no part of theirs is written again here.

    pycma           N. Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; package `cma`
    scipy_de        R. Storn and K. Price, J. Global Optimization 11:341-359, 1997; `scipy.optimize`
    evosax_*        R. T. Lange, "evosax", arXiv:2212.04180; package `evosax` (JAX), where it is installed

A `Peer` minimises an `Objective` in whatever way its library has: by a call that takes a function, or
in turns of ask and tell (`by_asking`). The objective counts, keeps the best, and ends the run when the
budget is spent, in the middle of a generation if need be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import metadata
from typing import Any, Literal, Protocol

import cma
import numpy as np
from cma.sigma_adaptation import CMAAdaptSigmaCSA, CMAAdaptSigmaTPA
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from scipy.optimize import differential_evolution
from scipy.stats import qmc

from evobench.baselines.pymoo import CENTRE_STD, Settings
from evobench.problems import Problem
from evobench.record import BudgetSpent, Course, RunRecord, Stopped


class Objective:
    """What a peer may call: points `[..., dim]` to values `[...]`, float64, +inf where they are not finite.

    A batch that goes past the budget is evaluated as far as it goes, and ends the run.
    """

    def __init__(self, problem: Problem, budget: int, note_every: int, course: Course) -> None:
        self.problem, self.budget, self.note_every, self.course = problem, budget, note_every, course

    def __call__(self, x: Float[ndarray, "*batch dim"]) -> Float[ndarray, "*batch"]:
        points = np.asarray(x, dtype=np.float64)
        if not ((self.problem.lower <= points) & (points <= self.problem.upper)).all():
            raise ValueError(f"{self.problem.name} was asked for a point outside its box")
        flat = points.reshape(-1, self.problem.dim)
        paid = flat[: self.budget - self.course.f_evals]
        values = self.problem(paid) if len(paid) else np.empty(0)
        values = np.where(np.isfinite(values), values, np.inf)
        self.course.evaluated(paid, values)
        if self.course.since >= self.note_every:
            self.course.note()
        if len(paid) < len(flat):
            raise BudgetSpent
        return values.reshape(points.shape[:-1])


@dataclass(frozen=True)
class Start:
    """Where and how a run begins: `seed` alone decides all of it.

    Attributes:
        pop: population size.
        init: `uniform` in the box, or `centre`: N(box centre, 0.5² I).
    """

    problem: Problem
    seed: int
    pop: int
    init: str

    @cached_property
    def rng(self) -> np.random.Generator:
        """A stream apart from the shift's and pymoo's."""
        return np.random.default_rng([self.seed, self.problem.dim, 2])

    @property
    def width(self) -> Float[ndarray, " dim"]:
        """Box widths."""
        return self.problem.upper - self.problem.lower

    def points(self, count: int) -> Float[ndarray, "count dim"]:
        """Starting points, as `init` says."""
        lower, upper, shape = self.problem.lower, self.problem.upper, (count, self.problem.dim)
        if self.init == "centre":
            return np.clip(self.problem.centre + CENTRE_STD * self.rng.standard_normal(shape), lower, upper)
        return np.clip(self.rng.uniform(lower, upper, shape), lower, upper)

    def sigma(self, sigma0: float | None) -> float:
        """A first step size in units of x: the given one, 0.5 with the centre start, or 10% of the box."""
        return sigma0 or (CENTRE_STD if self.init == "centre" else 0.1 * float(self.width.max()))


Minimise = Callable[[Objective, Start, Any], str]
"""Minimises until it has its own reason to stop, and returns that; the settings come last."""


@dataclass(frozen=True)
class Peer:
    """An optimiser of another library.

    Attributes:
        title: one line for `evobench list`.
        minimise: runs it; see `Minimise` and `by_asking`.
        settings: a pydantic model of what can be set, with defaults.
        packages: distributions whose versions decide the results.
        own_pop: its own population at a dimension, where the user names none.
        min_pop: the smallest population it works with.
        family, variant: what it is compared with (`cmaes`, ...), and as what; by default a family of its own.
    """

    title: str
    minimise: Minimise
    settings: type[Settings] = Settings
    packages: tuple[str, ...] = ()
    own_pop: Callable[[int], int] = lambda dim: 100
    min_pop: int = 2
    family: str = ""
    variant: str = "own"


class AskTell(Protocol):
    """One run of an optimiser that is asked and told."""

    def ask(self) -> Float[ndarray, "n dim"]:
        """Points in the box."""
        ...

    def tell(self, x: Float[ndarray, "n dim"], values: Float[ndarray, " n"]) -> None:
        """Their values."""
        ...

    def stop(self) -> str:
        """Why it is done; empty as long as it is not."""
        ...


def by_asking(make: Callable[[Start, Any], AskTell]) -> Minimise:
    """Minimise in turns of ask and tell; `make` builds the optimiser from a start and its settings."""
    return partial(_take_turns, make)


def _take_turns(make: Callable[[Start, Any], AskTell], objective: Objective, start: Start, settings: Any) -> str:
    optimiser = make(start, settings)
    while not (reason := optimiser.stop()):
        x = optimiser.ask()
        optimiser.tell(x, objective(x))
    return reason


def run(
    peer: Peer,
    problem: Problem,
    settings: Settings,
    *,
    seed: int,
    budget: int,
    pop_size: int,
    init: str,
    progress: Callable[[int, float], object] = lambda evals, best: None,
) -> RunRecord:
    """One run, decided by `seed` alone; the arguments are those of `evobench.baselines.pymoo.run`."""
    course = Course(problem.centre, progress)
    objective = Objective(problem, budget, pop_size, course)
    try:
        reason = peer.minimise(objective, Start(problem, seed, pop_size, init), settings)
        course.note()
    except BudgetSpent:
        reason = "budget"
    except Stopped:
        reason = "callback"
    return course.record(seed, reason)


# cma


class PycmaSettings(Settings):
    sigma0: float | None = Field(
        None, gt=0, description="initial step size in units of x; None: 10% of the box, or 0.5 with the centre start"
    )
    step_size: Literal["default", "csa", "tpa"] = Field(
        "default", description="step-size rule; default: what cma chooses itself (4.5: CSA, TPA at 500D)"
    )
    tolfun: float = Field(1e-11, ge=0, description="stop when values differ by less (cma's default)")
    tolx: float = Field(1e-11, ge=0, description="stop when steps are smaller (cma's default)")


class _Pycma:
    """`cma.CMAEvolutionStrategy`; the box is its `bounds`, handled by its own transformation."""

    def __init__(self, start: Start, settings: PycmaSettings) -> None:
        rules = {"default": True, "csa": CMAAdaptSigmaCSA, "tpa": CMAAdaptSigmaTPA}
        self.es = cma.CMAEvolutionStrategy(
            start.points(1)[0],
            start.sigma(settings.sigma0),
            {
                "bounds": [start.problem.lower, start.problem.upper],
                "CMA_stds": start.width / start.width.max(),
                "popsize": start.pop,
                "seed": start.seed + 1,  # cma takes 0 for the clock
                "AdaptSigma": rules[settings.step_size],
                "tolfun": settings.tolfun,
                "tolx": settings.tolx,
                "verbose": -10,
            },
        )

    def ask(self) -> Float[ndarray, "n dim"]:
        return np.array(self.es.ask())

    def tell(self, x: Float[ndarray, "n dim"], values: Float[ndarray, " n"]) -> None:
        self.es.tell(list(x), values.tolist())

    def stop(self) -> str:
        return "+".join(sorted(self.es.stop()))


# SciPy


class ScipySettings(Settings):
    strategy: Literal["best1bin", "rand1bin", "currenttobest1bin", "best2bin", "rand2bin"] = Field(
        "best1bin", description="SciPy's default"
    )
    mutation: tuple[float, float] = Field((0.5, 1.0), description="F, drawn anew each generation (SciPy's default)")
    recombination: float = Field(0.7, ge=0, le=1, description="CR (SciPy's default)")
    tol: float = Field(0.01, ge=0, description="stop when the population's values spread less (SciPy's default)")
    polish: bool = Field(True, description="L-BFGS-B from the best at the end, counted (SciPy's default)")


def _scipy_de(objective: Objective, start: Start, settings: ScipySettings) -> str:
    """`scipy.optimize.differential_evolution`, which takes its population as a multiple of the dimension."""
    dim = start.problem.dim
    multiple, rest = divmod(start.pop, dim)
    where: Any = "latinhypercube"  # SciPy's own
    if start.init == "centre":
        where = start.points(start.pop)
    elif rest or start.pop < 5:
        unit = qmc.LatinHypercube(dim, rng=start.rng).random(start.pop)
        where = np.clip(start.problem.lower + unit * start.width, start.problem.lower, start.problem.upper)
    result = differential_evolution(
        lambda x: float(objective(np.clip(x, start.problem.lower, start.problem.upper))),  # unscaled: an ulp outside
        list(zip(start.problem.lower, start.problem.upper, strict=True)),
        strategy=settings.strategy,
        mutation=settings.mutation,
        recombination=settings.recombination,
        tol=settings.tol,
        polish=settings.polish,
        maxiter=2**31,  # the budget decides
        popsize=max(1, multiple),
        init=where,
        rng=start.seed,
    )
    return "converged" if result.success else " ".join(str(result.message).split())


# evosax


class EvosaxCMASettings(Settings):
    sigma0: float | None = Field(
        None, gt=0, description="initial step size in units of x; None: 10% of the box, or 0.5 with the centre start"
    )


class EvosaxSettings(Settings):
    """The package's defaults, all of them."""


class _Evosax:
    """An algorithm of evosax in float32, as the package has it; it knows no box, so points are clipped to it.

    A population-based one is told its starting population first.
    """

    def __init__(self, name: str, start: Start, settings: Any) -> None:
        import jax

        self.jax, self.start, self.state = jax, start, None
        self.algorithm = _evosax_algorithm(name, start.pop, start.problem.dim)
        self.params = self.algorithm.default_params
        self.key, key = jax.random.split(jax.random.PRNGKey(start.seed))
        if name == "CMA_ES":
            self.params = self.params.replace(std_init=np.float32(start.sigma(settings.sigma0)))
            self.state = self.algorithm.init(key, start.points(1)[0].astype(np.float32), self.params)

    def ask(self) -> Float[ndarray, "n dim"]:
        if self.state is None:
            return self._boxed(self.start.points(self.start.pop))
        self.key, key = self.jax.random.split(self.key)
        x, self.state = self.algorithm.ask(key, self.state, self.params)
        return self._boxed(x)

    def tell(self, x: Float[ndarray, "n dim"], values: Float[ndarray, " n"]) -> None:
        self.key, key = self.jax.random.split(self.key)
        points, fitness = x.astype(np.float32), values.astype(np.float32)
        if self.state is None:
            self.state = self.algorithm.init(key, points, fitness, self.params)
        else:
            self.state, _ = self.algorithm.tell(key, points, fitness, self.state, self.params)

    def stop(self) -> str:
        return ""

    def _boxed(self, x: Any) -> Float[ndarray, "n dim"]:
        """Float64 numbers that float32 has, but for the bounds themselves."""
        x = np.asarray(x).astype(np.float32).astype(np.float64)
        return np.clip(x, self.start.problem.lower, self.start.problem.upper)


@cache
def _evosax_algorithm(name: str, pop: int, dim: int) -> Any:
    """One object for all runs: JAX compiles its methods once for each object."""
    from evosax.algorithms import algorithms

    return algorithms[name](population_size=pop, solution=np.zeros(dim, dtype=np.float32))


def _evosax_peer(
    name: str, title: str, family: str, settings: type[Settings] = EvosaxSettings, min_pop: int = 2
) -> Peer:
    return Peer(
        title=f"evosax's {title}, its defaults, clipped to the box, float32",
        minimise=by_asking(partial(_Evosax, name)),
        settings=settings,
        packages=("evosax", "jax", "jaxlib"),
        min_pop=min_pop,
        family=family,
        variant="evosax",
    )


PEERS = {
    "pycma": Peer(
        title="the package cma itself: its defaults, its population of 4 + 3 ln D, its box",
        minimise=by_asking(_Pycma),
        settings=PycmaSettings,
        packages=("cma", "numpy"),
        own_pop=lambda dim: 4 + int(3 * math.log(dim)),
        min_pop=4,
        family="cmaes",
        variant="pycma",
    ),
    "scipy_de": Peer(
        title="scipy.optimize.differential_evolution: its defaults, its population of 15 D",
        minimise=_scipy_de,
        settings=ScipySettings,
        packages=("scipy", "numpy"),
        own_pop=lambda dim: max(5, 15 * dim),
        min_pop=5,
        family="de",
        variant="scipy",
    ),
    "evosax_cma": _evosax_peer("CMA_ES", "CMA-ES", "cmaes", EvosaxCMASettings, min_pop=4),
    "evosax_de": _evosax_peer("DifferentialEvolution", "differential evolution", "de", min_pop=4),
    "evosax_pso": _evosax_peer("PSO", "particle swarm", "pso"),
}


def missing(peer: Peer) -> list[str]:
    """The packages that it needs and that are not installed."""
    return [name for name in peer.packages if not any(metadata.distributions(name=name))]
