"""What a run leaves behind, whichever backend ran it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

MAX_HISTORY = 200
"""Most history points kept of a run."""


class Stopped(Exception):
    """Whoever follows a run's progress has asked it to end."""


class BudgetSpent(Exception):
    """The budget ends, in the middle of whatever a library is doing."""


@dataclass(frozen=True)
class RunRecord:
    """The outcome of one seed.

    Attributes:
        seed: the seed that decided it.
        best_f, best_x: best value (float64) and its point `[dim]`, in the box.
        f_evals, g_evals: objective evaluations and gradients, counted apart.
        stop_reason: `budget`, or what ended the run before it.
        wall_s: seconds of the whole batch this run belonged to.
        batch_size: how many runs shared those seconds.
        evals: cost at each history point: f_evals + gradient cost · g_evals, increasing.
        history: best value so far at each of those points.
        learned: hyper-parameters at the same points, by name (mean over individuals or genes).
    """

    seed: int
    best_f: float
    best_x: np.ndarray
    f_evals: int
    g_evals: int
    stop_reason: str
    wall_s: float
    batch_size: int
    evals: np.ndarray
    history: np.ndarray
    learned: dict[str, np.ndarray] = field(default_factory=dict)


def history_points(count: int, limit: int = MAX_HISTORY) -> np.ndarray:
    """Which of `count` successive observations to keep: at most `limit` increasing indices.

    Half are spaced geometrically, so that the start is visible, half evenly, so that the end is;
    the first and the last are always kept.
    """
    if count <= limit:
        return np.arange(count)
    half = limit // 2
    geometric = np.geomspace(1, count, half) - 1
    even = np.linspace(0, count - 1, limit - half)
    return np.unique(np.concatenate([geometric, even]).round().astype(int))


class Course:
    """One run of a baseline on its way: what it has spent, and its best value at the moments noted."""

    def __init__(
        self, unknown: Float[ndarray, " dim"], progress: Callable[[int, float], object] = lambda evals, best: None
    ) -> None:
        """
        Args:
            unknown: stands for the best point until there is one.
            progress: told evaluations and best value at every moment noted; what is true of its answer ends the run.
        """
        self.started, self.progress = time.perf_counter(), progress
        self.f_evals, self.best_f, self.best_x = 0, math.inf, unknown
        self.evals: list[int] = []
        self.best: list[float] = []

    @property
    def since(self) -> int:
        """Evaluations since the last moment noted."""
        return self.f_evals - (self.evals[-1] if self.evals else 0)

    def evaluated(self, x: Float[ndarray, "n dim"], values: Float[ndarray, " n"]) -> None:
        """Count these points, and keep the best of them if it is better. No value is NaN."""
        self.f_evals += len(values)
        if len(values) and values.min() < self.best_f:
            self.best_f, self.best_x = float(values.min()), x[values.argmin()].copy()

    def keep(self) -> bool:
        """Note the present, if it is new."""
        if new := self.since > 0:
            self.evals.append(self.f_evals)
            self.best.append(self.best_f)
        return new

    def note(self) -> None:
        """Note the present, and tell of it.

        Raises:
            Stopped: if whoever listens asks for it.
        """
        if self.keep() and self.progress(self.f_evals, self.best_f):
            raise Stopped

    def record(self, seed: int, stop_reason: str, g_evals: int = 0, price: float = 1) -> RunRecord:
        """What the run leaves; `price` is the cost of an evaluation with what comes with it."""
        self.keep()
        kept = history_points(len(self.evals))
        return RunRecord(
            seed=seed,
            best_f=self.best_f,
            best_x=self.best_x,
            f_evals=self.f_evals,
            g_evals=g_evals,
            stop_reason=stop_reason,
            wall_s=time.perf_counter() - self.started,
            batch_size=1,
            evals=price * np.array(self.evals)[kept],
            history=np.array(self.best)[kept],
        )
