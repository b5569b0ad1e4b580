"""The algorithms a user can name: one table over all backends.

A new differentiable algorithm registers in `evobench.evograd.FAMILIES`, a new variant of all of them
in `evobench.evograd.VARIANTS`, another library's in `evobench.baselines.asktell.PEERS`, one that has
nothing but gradients in `DESCENTS` here; a user's own registers itself (`register`) or comes with an
installed package (entry points `evobench.algorithms`).
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from evobench.baselines import gradient
from evobench.baselines import pymoo as pymoo_baselines
from evobench.baselines.asktell import PEERS, Peer, missing
from evobench.evograd import FAMILIES, VARIANTS, Family, descent
from evobench.settings import configure, shown


@dataclass(frozen=True)
class Algorithm:
    """One name of the command line.

    Attributes:
        family: `ga`, `de`, `pso`, `cmaes` or a user's: what its variants and its baseline have in common.
        variant: `pymoo`, `diff`, `plain`, `released` or `guarded`; `gradient` where there is no
            population; a library's name, or `own`, for another optimiser.
        settings: every setting with this algorithm's defaults.
        min_pop: smallest population its operators can work with.
        own_start: the start the paper's protocol gives it.
        summary: one line for `evobench list`.
        kernel: what runs it; None for pymoo's and for gradient descent.
        versions: of what its results depend on beside this package, for its cells' settings_hash.
        peak: numbers that a run holds at once, from population and dimension, where all runs of a batch
            are one tensor program; None where each run is a task of its own.
    """

    name: str
    backend: Literal["pymoo", "evograd", "gradient", "asktell"]
    family: str
    variant: str
    settings: BaseModel
    min_pop: int
    own_start: Literal["uniform", "centre"]
    summary: str
    kernel: Family | Peer | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    peak: Callable[[int, int], int] | None = None

    @property
    def batched(self) -> bool:
        """Whether all runs of a batch are one tensor program."""
        return self.peak is not None

    @property
    def takes_gradients(self) -> bool:
        """Whether what it does depends on what a gradient costs."""
        return self.backend in ("evograd", "gradient")

    def population(self, asked: int | None, dim: int) -> int:
        """How many individuals it has where `asked` for a number, or for its own."""
        if self.backend == "gradient":
            return 1
        if asked is not None:
            return asked
        return self.kernel.own_pop(dim) if isinstance(self.kernel, Peer) else 100

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
    name: Algorithm(
        name=name,
        backend="pymoo",
        family=name.removesuffix("_tpa"),
        variant="pymoo",
        settings=pymoo_baselines.SETTINGS[name](),
        min_pop=FAMILIES[name.removesuffix("_tpa")].min_pop,
        own_start="uniform",
        summary=f"pymoo's {summary}",
    )
    for name, summary in BASELINES.items()
}

UNAVAILABLE: dict[str, str] = {}
"""Names that would be algorithms, and what keeps them from it."""


def register(name: str, kernel: Family | Peer, versions: dict[str, str] | None = None) -> None:
    """Add an algorithm: a `Family` as `<name>_diff`, `<name>_plain`, ...; a `Peer` under its name.

    From a script, call it on top, outside `if __name__ == "__main__":`, since workers import the
    script again; a package names it in its entry points instead (group `evobench.algorithms`).

    Args:
        versions: what else its results depend on; by default a digest of the file that builds it.

    Raises:
        ValueError: if the name is taken or no name, or the kernel is neither.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
        raise ValueError(f"bad name {shown(name)} of an algorithm: use small letters, digits and '_'")
    if versions is None:
        versions = {"source": _source(kernel)}
    if isinstance(kernel, Family):
        added = [
            Algorithm(
                name=f"{name}_{variant}",
                backend="evograd",
                family=name,
                variant=variant,
                settings=kernel.settings(**what.overrides.get(name, {})),
                min_pop=kernel.min_pop,
                own_start=kernel.own_start,
                summary=f"{kernel.title}, {what.summary}",
                kernel=kernel,
                versions=versions,
                peak=kernel.peak,
            )
            for variant, what in VARIANTS.items()
        ]
    elif isinstance(kernel, Peer):
        added = [
            Algorithm(
                name=name,
                backend="asktell",
                family=kernel.family or name,
                variant=kernel.variant,
                settings=kernel.settings(),
                min_pop=kernel.min_pop,
                own_start="uniform",
                summary=kernel.title,
                kernel=kernel,
                versions=versions | {package: version(package) for package in kernel.packages},
            )
        ]
    else:
        raise ValueError(f"{shown(kernel)} is no algorithm: give a Family or a Peer")
    for algorithm in added:
        if algorithm.name in ALGORITHMS:
            raise ValueError(f"the algorithm {algorithm.name!r} is there already: choose another name")
    ALGORITHMS.update({algorithm.name: algorithm for algorithm in added})


def algorithm_named(name: str) -> Algorithm:
    """The algorithm of this name.

    Raises:
        ValueError: if there is none, or what it needs is not installed.
    """
    if name in UNAVAILABLE:
        raise ValueError(f"algorithm {name!r} is not available: {UNAVAILABLE[name]}")
    if name not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {name!r}: choose from {', '.join(ALGORITHMS)}, or all")
    return ALGORITHMS[name]


def _source(kernel: Any) -> str:
    """A digest of the file that builds an algorithm: to edit it is to have another algorithm."""
    maker = kernel.build if isinstance(kernel, Family) else getattr(kernel, "minimise", None)
    while isinstance(maker, partial):
        maker = next(iter(maker.args), maker.func)
    path = inspect.getsourcefile(inspect.unwrap(maker)) if maker is not None else None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12] if path else ""


def _register_all() -> None:
    """Ours, then what installed packages bring."""
    for name, family in FAMILIES.items():
        register(name, family, versions={})
    ALGORITHMS.update(
        {
            name: Algorithm(
                name=name,
                backend="gradient",
                family=name,
                variant="gradient",
                settings=gradient.SETTINGS[name](),
                min_pop=1,
                own_start="uniform",
                summary=summary,
                versions={} if name in gradient.DESCENTS else {"scipy": gradient.SCIPY},
                peak=(lambda pop, dim: 30 * dim) if name in gradient.DESCENTS else None,
            )
            for name, summary in DESCENTS.items()
        }
    )
    for name, peer in PEERS.items():
        if absent := missing(peer):
            UNAVAILABLE[name] = f"it needs the package {absent[0]} (pip install {absent[0]})"
        else:
            register(name, peer, versions={})
    for entry in entry_points(group="evobench.algorithms"):
        try:
            register(entry.name, entry.load())
        except Exception as error:  # a user's package may fail in any way: it must not take the others with it
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            UNAVAILABLE.setdefault(entry.name, f"the entry point {entry.value} failed ({reason})")


_register_all()
