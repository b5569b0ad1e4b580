"""What a run leaves behind, whichever backend ran it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MAX_HISTORY = 200
"""Most history points kept of a run."""


class Stopped(Exception):
    """Whoever follows a run's progress has asked it to end."""


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
