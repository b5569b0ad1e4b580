"""Does an algorithm profit from an optimum at the centre of the box?

J. Kudela, "A critical problem in benchmarking and analysis of evolutionary computation methods",
Nature Machine Intelligence 4:1238-1245, 2022; "The Evolutionary Computation Methods No One Should
Use", arXiv:2301.01984: run a method on functions whose optimum is the centre of the box and on the
same functions shifted, and take the ratio of its errors, shifted to unshifted; where the geometric
mean of the ratios exceeds 10, the method has a centre bias. Kudela's errors are means over runs; here
they are medians, since one run that fails beside solved ones makes a ratio of means of 1e5, and a test
on one function at least must agree.

The two sets of runs are an ordinary experiment. It computes in float64: near 0, and only there,
float32 resolves points without end, which would pass for a bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import mannwhitneyu

from evobench.experiment import PROTOCOLS, Cell, Experiment, make_experiment
from evobench.problems import FUNCTIONS
from evobench.stats import ALPHA, RESAMPLES, TIE, a12, a12_interval, final_gaps, holm
from evobench.store import CELL

CENTRED = ("sphere", "ellipsoid_rotated", "schwefel_2_22", "rastrigin", "ackley", "griewank")
"""Functions whose optimum is the centre of their box: three with one minimum, three with many."""

SHIFT: float = PROTOCOLS["fair"]["shift"]
"""Largest shift of a coordinate, as a share of half the box: the fair protocol's. Kudela's is 0.2 in
every coordinate, which a start at the centre still covers."""

BOUND = 10.0
"""Kudela's bound on the geometric mean of the ratios."""

_LARGEST = 1e300
"""Stands for the error of a run that found nothing finite."""


class Group(NamedTuple):
    """What one verdict is on: an algorithm, a dimension, a start."""

    algo: str
    dim: int
    start: str


def bias_experiment(
    algo: Any,
    *,
    dim: Any = 30,
    seeds: Any = 30,
    budget: Any = None,
    init: Any = None,
    settings: dict[str, dict[str, Any]] | None = None,
) -> Experiment:
    """Every algorithm on every function of `CENTRED`, unshifted and shifted.

    Args:
        init: a start to look at beside each algorithm's own.

    Raises:
        ValueError: one sentence naming the bad value and what is allowed.
    """
    products = [
        {"fn": fn, "shift": shift, "init": start}
        for start in dict.fromkeys((None, init))
        for fn in CENTRED
        for shift in (0.0, SHIFT * FUNCTIONS[fn].upper)
    ]
    shared = {"name": "bias", "algo": algo, "dim": dim, "seeds": seeds, "budget": budget, "dtype": "float64"}
    return make_experiment({**shared, "settings": settings or {}, **products[0], "also": products[1:]})


def assess(experiment: Experiment, runs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the runs of a `bias_experiment` say, by function and as a whole.

    Returns:
        by function: `algo dim start fn`; `n_centred n_shifted`; `centred shifted`, median errors,
        floored at `stats.TIE`; their `ratio` with its 95% interval `ratio_low ratio_high`
        (percentile bootstrap); `a12 a12_low a12_high`, the probability that a run ends lower where
        the optimum is the centre; `p p_holm`, two-sided Mann-Whitney U, corrected over the functions
        of one verdict; `profits`, whether that probability is above a half at `stats.ALPHA`.
        verdicts: `algo dim start`; `ratio ratio_low ratio_high`, the geometric mean over functions;
        `profits`, the functions on which it does; `biased`, whether the mean exceeds `BOUND` and
        there are such functions.
    """
    rows: dict[Group, list[dict[str, Any]]] = {}
    logs: dict[Group, list[Float[ndarray, " resamples"]]] = {}
    for cell, centred, shifted in _pairs(experiment, runs):
        group = Group(cell.algo, cell.dim, cell.init)
        rng = np.random.default_rng(CENTRED.index(cell.fn))
        resampled = np.log(_medians(shifted, rng)) - np.log(_medians(centred, rng))
        rows.setdefault(group, []).append({**group._asdict(), "fn": cell.fn, **_contrast(centred, shifted, resampled)})
        logs.setdefault(group, []).append(resampled)
    verdicts = []
    for group, lines in rows.items():
        for line, p in zip(lines, holm(np.array([line["p"] for line in lines])), strict=True):
            line["p_holm"], line["profits"] = p, bool(p < ALPHA and line["a12"] > 0.5)
        low, high = np.exp(np.quantile(np.mean(logs[group], axis=0), [0.025, 0.975]))
        ratio = float(np.exp(np.mean([np.log(line["ratio"]) for line in lines])))
        profits = [line["fn"] for line in lines if line["profits"]]
        mean = {"ratio": ratio, "ratio_low": low, "ratio_high": high}
        verdicts.append({**group._asdict(), **mean, "profits": profits, "biased": ratio > BOUND and bool(profits)})
    return pd.DataFrame([line for lines in rows.values() for line in lines]), pd.DataFrame(verdicts)


def _pairs(experiment: Experiment, runs: pd.DataFrame) -> Iterator[tuple[Cell, Any, Any]]:
    """Each unshifted cell with its errors and those of its shifted twin, by algorithm, dimension and start."""
    found = dict(iter(runs[runs["seed"].isin(experiment.seeds)].groupby(CELL)))
    cells = [cell for cell in experiment.cells() if cell.key in found]
    twins = {cell.model_copy(update={"shift": 0.0}).key: cell for cell in cells if cell.shift}
    order = {name: place for place, name in enumerate(experiment.algo)}
    for cell in sorted(cells, key=lambda cell: (order[cell.algo], cell.dim)):
        if not cell.shift and cell.key in twins:
            yield cell, _errors(found[cell.key]), _errors(found[twins[cell.key].key])


def _errors(runs: pd.DataFrame) -> Float[ndarray, " runs"]:
    return np.clip(final_gaps(runs), TIE, _LARGEST)


def _medians(errors: Float[ndarray, " runs"], rng: np.random.Generator) -> Float[ndarray, " resamples"]:
    """Bootstrapped medians."""
    resampled: Float[ndarray, " resamples"] = np.median(rng.choice(errors, (RESAMPLES, len(errors))), axis=1)
    return resampled


def _contrast(
    centred: Float[ndarray, " m"], shifted: Float[ndarray, " n"], resampled: Float[ndarray, " resamples"]
) -> dict[str, Any]:
    low, high = np.exp(np.quantile(resampled, [0.025, 0.975]))
    a12_low, a12_high = a12_interval(centred, shifted)
    return {
        "n_centred": len(centred),
        "n_shifted": len(shifted),
        "centred": float(np.median(centred)),
        "shifted": float(np.median(shifted)),
        "ratio": float(np.median(shifted) / np.median(centred)),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "a12": a12(centred, shifted),
        "a12_low": a12_low,
        "a12_high": a12_high,
        "p": float(mannwhitneyu(centred, shifted).pvalue),
    }
