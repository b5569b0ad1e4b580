"""What the runs say: a summary per cell, tests and effect sizes per pair, ranks, runtime distributions.

Pure functions over the tables that `evobench.store.load_results` returns; the order of rows never
matters. Objectives are minimised, so lower is better throughout, and a `best_f` that is not finite
counts as the worst possible value, +inf.

Sources: H. B. Mann and D. R. Whitney, Ann. Math. Stat. 18(1):50-60, 1947; F. Wilcoxon, Biometrics
Bulletin 1(6):80-83, 1945; S. Holm, Scand. J. Stat. 6(2):65-70, 1979; A. Vargha and H. D. Delaney,
J. Educ. Behav. Stat. 25(2):101-132, 2000 (A12 and its magnitudes); B. Efron, Ann. Stat. 7(1):1-26,
1979 (bootstrap); M. Friedman, J. Am. Stat. Assoc. 32(200):675-701, 1937, and J. Demšar, JMLR 7:1-30,
2006 (ranks, critical difference); N. Hansen et al., Optimization Methods and Software
36(1):114-144, 2021 (COCO: targets and runtime distributions).
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from statistics import mode
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import friedmanchisquare, mannwhitneyu, rankdata, studentized_range, wilcoxon

from evobench.store import RUN_KEY

FUNCTIONS = ("ackley", "michalewicz", "rosenbrock", "griewank")
"""The paper's order (Figure 1); other functions follow by name."""

DESCENTS = ("adam", "lion", "lbfgs")
"""Algorithms with nothing but gradients: families of one variant, `gradient`."""

FAMILIES = ("ga", "de", "pso", "cmaes", *DESCENTS)
VARIANTS = ("pymoo", "released", "diff", "plain", "guarded", "tpa", "gradient", "pycma", "scipy", "evosax", "own")
"""The order of algorithms: by family, within it by variant; unknown names follow."""

PEERS = {
    "pycma": ("cmaes", "pycma"),
    "scipy_de": ("de", "scipy"),
    "evosax_cma": ("cmaes", "evosax"),
    "evosax_de": ("de", "evosax"),
    "evosax_pso": ("pso", "evosax"),
}
"""Family and variant of other libraries' optimisers, whose names do not say them."""

PAIRS = {
    ("diff", "pymoo"),
    ("released", "pymoo"),
    ("guarded", "pymoo"),
    ("diff", "plain"),
    ("guarded", "plain"),
    ("diff", "released"),
    ("diff", "tpa"),
    ("guarded", "tpa"),
    *((variant, peer) for variant in ("diff", "guarded") for peer in ("pycma", "scipy", "evosax")),
}
"""Which variants of one family are compared: a candidate, and what it has to beat; where that ran with several
settings, in those that the candidate has. Besides, where an algorithm ran with several settings, every
other is compared with the first in the order of `split`."""

FAMILY = ("pair",)
"""Tests with the same kind of pair are corrected together, unless a config declares other families."""

SUCCESS_TARGETS = {"success_1e2": 1e2, "success_1e-1": 1e-1, "success_1e-4": 1e-4, "success_1e-8": 1e-8}
"""Gaps at which a run has succeeded. 1e2: down from the outer slopes (Rosenbrock starts near 1e10);
1e-1: in the global optimum's basin (Ackley's other minima lie above 1); 1e-4: about as far as a
float32 state gets; 1e-8: solved, as COCO and the CEC competitions define it."""

TIE = 1e-8
"""Gaps up to this are all solved, hence tie: below it runs differ by rounding, not by merit."""

ALPHA = 0.05
"""Level of the verdicts, after Holm's correction."""

MAGNITUDES = ((0.56, "negligible"), (0.64, "small"), (0.71, "medium"))
"""Vargha and Delaney's labels below each value of A12 (of 1 - A12, if that is more); `large` from there on."""

RESAMPLES = 10_000
"""Bootstrap resamples, always with the same seed: an interval depends on its runs alone."""

LEVELS = (0.025, 0.975)
"""Ends of every 95% interval."""

TENSORS = ("released", "diff", "plain", "guarded")
"""The variants that are tensor programs."""

CONTROL = "plain"
"""The variant whose runs share their noise with the other tensor programs of their family, seed by seed."""

ECDF_TARGETS = np.logspace(2, -8, 51)
"""COCO's targets on the gap."""

GRID_POINTS = 200
"""Most points of a common grid of evaluations, as of a run's history."""


class Cell(NamedTuple):
    """What one row of the summary stands for."""

    fn: str
    dim: int
    protocol: str
    algo: str
    settings_hash: str


def lineage(algo: str) -> tuple[str, str]:
    """Family and variant of an algorithm: (`ga`, `diff`) of `ga_diff`, (`ga`, `pymoo`) of `ga`.

    They are read off the name, so that sorting results needs neither pymoo nor torch. The second
    baseline `cmaes_tpa` counts as a variant of `cmaes`; a user's own optimiser is a family of its own.
    """
    if algo in PEERS:
        return PEERS[algo]
    if algo in DESCENTS:
        return algo, "gradient"
    family, _, variant = algo.rpartition("_")
    if variant in VARIANTS and family:
        return family, variant
    return (algo, "pymoo") if algo in FAMILIES else (algo, "own")


def function_order(fn: str) -> tuple[int, str]:
    """Sort key of functions."""
    return _rank(fn, FUNCTIONS), fn


def algorithm_order(algo: str) -> tuple[int, str, int, str]:
    """Sort key of algorithms."""
    family, variant = lineage(algo)
    return _rank(family, FAMILIES), family, _rank(variant, VARIANTS), variant


def _rank(name: str, known: tuple[str, ...]) -> int:
    return known.index(name) if name in known else len(known)


def split(runs: pd.DataFrame) -> dict[Cell, pd.DataFrame]:
    """The runs of each cell, sorted by seed; cells by function, dimension, protocol, algorithm, settings.

    Settings are ordered by the first that differs, one that a cell does not have before all its values,
    numbers by size, words by the alphabet.
    """
    parts = {Cell._make(key): rows.sort_values("seed") for key, rows in runs.groupby(list(Cell._fields))}
    described = {cell: _described(rows.iloc[0]) for cell, rows in parts.items()}
    names = sorted({name for own in described.values() for name in own})

    def order(cell: Cell) -> tuple[object, ...]:
        own = described[cell]
        settings = [(name in own, *_place(own.get(name))) for name in names]
        problem = function_order(cell.fn), cell.dim, cell.protocol
        return *problem, algorithm_order(cell.algo), settings, cell.settings_hash

    return {cell: parts[cell] for cell in sorted(parts, key=order)}


def _place(value: Any) -> tuple[bool, Any]:
    """Sort key of a setting's value: numbers first."""
    return (False, value) if _is_number(value) else (True, str(value))


def labels(runs: pd.DataFrame) -> dict[Cell, str]:
    """A cell's name among those of its function, dimension and protocol.

    It is its algorithm; where that has several settings there, `@` and what tells them apart: the
    start (`cmaes@centre`), any other one thing (`pso_diff@lr=0.1`), or what is not as in most of them
    (`@weights=rank,reflected_steps=False`; `@base` where all is); if that is more than two things, one or two
    that no other has together (`@gradient_cost=0,centre`), or else the first six digits of their hash.
    """
    namesakes: dict[tuple[Any, ...], dict[Cell, dict[str, Any]]] = {}
    for cell, rows in split(runs).items():
        namesakes.setdefault(cell[:4], {})[cell] = _described(rows.iloc[0])
    names: dict[Cell, str] = {}
    for group in namesakes.values():
        apart = _differences(group) if len(group) > 1 else {}
        names |= {cell: f"{cell.algo}@{apart[cell]}" if apart else cell.algo for cell in group}
    return names


def _described(row: Any) -> dict[str, Any]:
    """A cell's settings and whatever else may tell it from its namesakes."""
    columns = {
        name: row[name] for name in ("init", "dtype", "shift", "gradient_cost", "pop_size", "budget") if name in row
    }
    settings = json.loads(row.get("settings", "{}"))
    versions = settings.pop("versions", {})
    return {**columns, **settings, **versions}


_MOST_APART = 2
"""Most settings that name a cell: more make no name."""


def _differences(group: dict[Cell, dict[str, Any]]) -> dict[Cell, str]:
    """What tells each of several cells from the others."""
    keys = dict.fromkeys(key for other in group.values() for key in other)
    values = {key: [str(other.get(key)) for other in group.values()] for key in keys}
    for key in keys:
        if len(set(values[key])) == len(group):
            return {cell: _setting(key, described) for cell, described in group.items()}
    usual = {key: mode(values[key]) for key in keys}
    apart = {cell: [key for key in keys if str(of.get(key)) != usual[key]] for cell, of in group.items()}
    names = {
        cell: ",".join(_setting(key, group[cell]) for key in apart[cell]) or "base"
        for cell in group
        if len(apart[cell]) <= _MOST_APART
    }
    counts = Counter(names.values())
    return {
        cell: names[cell] if counts[names.get(cell, "")] == 1 else _alone(cell, group, apart[cell]) for cell in group
    }


def _alone(cell: Cell, group: dict[Cell, dict[str, Any]], unusual: Sequence[str]) -> str:
    """As few settings as no other cell has together, unusual ones first; else the hash."""
    own = group[cell]
    others = [other for one, other in group.items() if one != cell]
    all_keys = [*unusual, *(key for key in own if key not in unusual)]
    for keys, count in itertools.product((unusual, all_keys), range(1, _MOST_APART + 1)):
        for some in itertools.combinations(keys, count):
            if not any(all(str(other.get(key)) == str(own.get(key)) for key in some) for other in others):
                return ",".join(_setting(key, own) for key in some)
    return cell.settings_hash[:6]


def _setting(key: str, described: dict[str, Any]) -> str:
    value = described.get(key, "default")
    if key in ("init", "dtype"):
        return str(value)
    return f"{key}={value:g}" if _is_number(value) else f"{key}={value}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def problem_title(fn: str, dim: int, protocol: str | None = None) -> str:
    """A problem's name for people: `Ackley, 30D`, or `Ackley, 30D (fair)`. A user's function keeps its name."""
    name = fn if ":" in fn else fn.replace("_", " ").capitalize()
    return f"{name}, {dim}D ({protocol})" if protocol else f"{name}, {dim}D"


def final_values(rows: pd.DataFrame) -> Float[ndarray, " runs"]:
    """`best_f` of each run, +inf where it is not finite."""
    values = rows["best_f"].to_numpy(dtype=float)
    return np.where(np.isfinite(values), values, np.inf)


def final_gaps(rows: pd.DataFrame) -> Float[ndarray, " runs"]:
    """`gap` of each run, +inf where `best_f` is not finite; NaN where the optimum is unknown."""
    return np.where(np.isfinite(final_values(rows)), rows["gap"].to_numpy(dtype=float), np.inf)


def optimum_known(rows: pd.DataFrame) -> bool:
    """Whether the runs of a problem have gaps."""
    return bool(rows["gap"].notna().any())


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, in the paper's order.

    Columns: `fn dim protocol algo settings_hash label`; `n`, the number of runs; of their `best_f`,
    in the function's units, `median q1 q3 best worst mean std` (quartiles interpolate linearly;
    `std` is the sample's, null for one run or if any run is not finite); the share of runs within
    each of `SUCCESS_TARGETS`, null where the optimum is unknown; and 95% bootstrap intervals of the
    median, `median_low median_high`, and of the interquartile range, `iqr_low iqr_high`.
    """
    names = labels(runs)
    spread = ["median_low", "median_high", "iqr_low", "iqr_high"]
    columns = ["label", "n", "median", "q1", "q3", "best", "worst", "mean", "std", *SUCCESS_TARGETS, *spread]
    return pd.DataFrame(
        [{**cell._asdict(), "label": names[cell], **_describe(rows)} for cell, rows in split(runs).items()],
        columns=[*Cell._fields, *columns],
    )


def _describe(rows: pd.DataFrame) -> dict[str, float]:
    values = final_values(rows)
    gaps = final_gaps(rows)
    (median_low, median_high), (iqr_low, iqr_high) = quantile_intervals(values)
    return {
        "n": len(values),
        "median": quantile(values, 0.5),
        "q1": quantile(values, 0.25),
        "q3": quantile(values, 0.75),
        "best": float(values.min()),
        "worst": float(values.max()),
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else np.nan,
        **{
            name: float((gaps <= target).mean()) if optimum_known(rows) else np.nan
            for name, target in SUCCESS_TARGETS.items()
        },
        "median_low": median_low,
        "median_high": median_high,
        "iqr_low": iqr_low,
        "iqr_high": iqr_high,
    }


def quantile(values: Float[ndarray, " runs"], q: float) -> float:
    """The quantile by linear interpolation; between a finite value and +inf it is +inf."""
    return float(_quantile_of_sorted(np.sort(values), q))


def _quantile_of_sorted(ordered: Float[ndarray, "*samples runs"], q: float) -> Float[ndarray, "*samples"]:
    position = q * (ordered.shape[-1] - 1)
    below, above = ordered[..., math.floor(position)], ordered[..., math.ceil(position)]
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.where(np.isfinite(above), below + position % 1 * (above - below), np.inf)


def quantile_intervals(values: Float[ndarray, " runs"]) -> tuple[tuple[float, float], tuple[float, float]]:
    """95% percentile bootstrap intervals of the median and of the interquartile range."""
    samples = np.sort(values)[drawn(len(values))]
    q1, median, q3 = (_quantile_of_sorted(samples, q) for q in (0.25, 0.5, 0.75))
    with np.errstate(invalid="ignore"):
        width = np.where(np.isfinite(q3), q3 - q1, np.inf)
    return interval(median), interval(width)


def interval(estimates: Float[ndarray, " resamples"]) -> tuple[float, float]:
    """The 95% percentile interval of bootstrap estimates, any of which may be infinite."""
    low, high = np.quantile(estimates, LEVELS, method="inverted_cdf")
    return float(low), float(high)


@lru_cache(maxsize=4)
def drawn(n: int) -> Int[ndarray, "resamples n"]:
    """Which of `n` runs each bootstrap resample holds, in increasing order."""
    return np.sort(np.random.default_rng(0).integers(n, size=(RESAMPLES, n)), axis=1)


def compare(runs: pd.DataFrame, family: Sequence[str] = FAMILY) -> pd.DataFrame:
    """Every pair of `PAIRS` that the runs hold, and every pair of settings, tested; one row per pair of cells.

    Two cells are compared if they had the same task: function, dimension, protocol, shift and
    budget. Gaps are floored at `TIE` where both are known, so that solved runs tie; where the
    optimum is unknown `best_f` is used as it is.

    Runs that share their noise seed by seed (a tensor program beside its gradient-free control or
    with other settings, same start, population and seeds) are paired: Wilcoxon's signed-rank test,
    ties dropped. All others are independent samples: Mann-Whitney's U. Both are two-sided.

    Args:
        family: the columns that tests corrected together share. By default one family for each kind
            of pair, whatever its function, dimension, protocol and algorithm.

    Columns: `fn dim protocol`; `pair`, such as `diff vs pymoo`, or `settings`; `first second`, the labels of the
    cells; `n_first n_second`; `median_first median_second` of `best_f`; `test`, its `p` and
    `p_holm`, corrected within its family by Holm's procedure; `a12 a12_low a12_high`, the
    probability that a run of `first` ends lower than one of `second` and its 95% interval;
    `magnitude` of that effect; and `verdict` on `first` at `ALPHA` after Holm: `better`, `worse` or
    `no difference`.
    """
    names, cells = labels(runs), split(runs)
    tasks = {cell: (*cell[:3], rows["shift"].iloc[0], rows["budget"].iloc[0]) for cell, rows in cells.items()}
    namesakes: dict[tuple[Any, ...], list[Cell]] = {}
    for cell, task in tasks.items():
        namesakes.setdefault((cell.algo, *task), []).append(cell)
    kept = [name for name in ("settings", "init", "dtype") if name in runs]
    programs = {cell: rows[kept].iloc[0].tolist() for cell, rows in cells.items()}

    apart = {cell: name.partition("@")[2] for cell, name in names.items()}

    def counterparts(first: Cell, algo: str) -> list[Cell]:
        """Of all settings of an algorithm, those to compare with."""
        others = namesakes[algo, *tasks[first]]
        same_settings = [cell for cell in others if programs[cell] == programs[first]]
        same_name = [cell for cell in others if apart[cell] == apart[first]]
        return same_settings or same_name or others

    rows = [
        {
            "fn": first.fn,
            "dim": first.dim,
            "protocol": first.protocol,
            "pair": pair,
            "first": names[first],
            "second": names[second],
            **_contrast(cells[first], cells[second]),
        }
        for first in cells
        for second in cells
        if tasks[first] == tasks[second]
        if (pair := _pair(first, second, namesakes[second.algo, *tasks[first]][0]))
        if pair == "settings" or second in counterparts(first, second.algo)
    ]
    identity = ["fn", "dim", "protocol", "pair", "first", "second"]
    samples = ["n_first", "n_second", "median_first", "median_second"]
    effects = ["test", "p", "p_holm", "a12", "a12_low", "a12_high", "magnitude", "verdict"]
    table = pd.DataFrame(rows, columns=[*identity, *samples, *effects])
    for _, tests in table.groupby(list(family)) if family else [((), table)]:
        table.loc[tests.index, "p_holm"] = holm(tests["p"].to_numpy())
    table["verdict"] = table["verdict"].where(table["p_holm"] < ALPHA, "no difference")
    return table


def _pair(first: Cell, second: Cell, reference: Cell) -> str | None:
    """What kind of pair two cells of one task are, None if they are none.

    Args:
        reference: the first of the settings of the second's algorithm.
    """
    if first.algo == second.algo:
        return "settings" if first != second == reference else None
    (family, candidate), (other_family, other) = lineage(first.algo), lineage(second.algo)
    return f"{candidate} vs {other}" if family == other_family and (candidate, other) in PAIRS else None


def _contrast(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float | str]:
    a, b = comparable(first, second)
    paired = share_noise(first, second)
    found = difference(a, b, paired)
    return {
        "n_first": len(a),
        "n_second": len(b),
        "median_first": quantile(final_values(first), 0.5),
        "median_second": quantile(final_values(second), 0.5),
        "test": "Wilcoxon" if paired else "Mann-Whitney",
        "p": found.p,
        "a12": found.a12,
        "a12_low": found.low,
        "a12_high": found.high,
        "magnitude": magnitude(found.a12),
        "verdict": "better" if found.lead > 0 else "worse",
    }


class Difference(NamedTuple):
    """How two samples differ.

    Attributes:
        p: two-sided, uncorrected.
        lead: positive where the first tends to be lower, by the test's own measure.
        a12, low, high: the effect and its 95% interval.
    """

    p: float
    lead: float
    a12: float
    low: float
    high: float


def difference(first: Float[ndarray, " m"], second: Float[ndarray, " n"], paired: bool) -> Difference:
    """Test two samples, by Wilcoxon's signed ranks where they are pairs, else by Mann-Whitney's U."""
    effect = a12(first, second)
    p, lead = signed_rank(first, second) if paired else (float(mannwhitneyu(first, second).pvalue), effect - 0.5)
    return Difference(p, lead, effect, *a12_interval(first, second))


def share_noise(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether runs of the same seed drew the same numbers: then they are pairs, in the order of seeds."""
    (family, variant), (other_family, other) = (lineage(rows["algo"].iloc[0]) for rows in (first, second))
    same = all(first[name].iloc[0] == second[name].iloc[0] for name in ("init", "pop_size") if name in first)
    controlled = variant in ("diff", "guarded") and other == CONTROL
    tensors = controlled or (variant == other and variant in TENSORS)
    return tensors and same and family == other_family and list(first["seed"]) == list(second["seed"])


def signed_rank(first: Float[ndarray, " n"], second: Float[ndarray, " n"]) -> tuple[float, float]:
    """Wilcoxon's signed-rank test of pairs: p, two-sided, and the sum of ranks by which `first` is ahead.

    Pairs that tie are dropped (Wilcoxon's own rule); p is 1 if all do. It is exact up to 50 pairs
    whose differences all have another size.
    """
    differ = first != second
    advantage = second[differ] - first[differ]
    if not len(advantage):
        return 1.0, 0.0
    ranks = np.sign(advantage) * rankdata(np.abs(advantage))
    return float(wilcoxon(ranks).pvalue), float(ranks.sum())


def comparable(first: pd.DataFrame, second: pd.DataFrame) -> tuple[Float[ndarray, " m"], Float[ndarray, " n"]]:
    """The values by which two cells are compared: gaps floored at `TIE`, or `best_f` if either
    optimum is unknown; +inf for a run that is not finite."""
    if optimum_known(first) and optimum_known(second):
        return np.maximum(final_gaps(first), TIE), np.maximum(final_gaps(second), TIE)
    return final_values(first), final_values(second)


def holm(p: Float[ndarray, " tests"]) -> Float[ndarray, " tests"]:
    """p-values corrected for the family that they are, by Holm's step-down procedure.

    statsmodels has it, but collects garbage at every call: a third of a second beside torch.
    """
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def a12(first: Float[ndarray, " m"], second: Float[ndarray, " n"]) -> float:
    """Vargha and Delaney's A12 for minimisation: P(first < second) + P(first = second) / 2."""
    return float(_wins(first, second).mean())


def a12_interval(first: Float[ndarray, " m"], second: Float[ndarray, " n"]) -> tuple[float, float]:
    """95% percentile bootstrap interval of A12, both samples resampled.

    Where the samples do not overlap the interval is the point itself: no resample overlaps either.
    """
    wins = _wins(np.sort(first), np.sort(second))
    times_first, times_second = _resamples(*wins.shape)
    effects = ((times_first @ wins) * times_second).sum(1) / wins.size
    low, high = np.quantile(effects, LEVELS)
    return float(low), float(high)


@lru_cache(maxsize=8)
def _resamples(m: int, n: int) -> tuple[Float[ndarray, "resamples m"], Float[ndarray, "resamples n"]]:
    """How often each run is drawn in each resample of two samples. That is all A12 needs of them."""
    rng = np.random.default_rng(0)
    first, second = (rng.multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(float) for size in (m, n))
    return first, second


def _wins(first: Float[ndarray, " m"], second: Float[ndarray, " n"]) -> Float[ndarray, "m n"]:
    """1 where `first` is lower, 1/2 where they tie."""
    return (first[:, None] < second) + 0.5 * (first[:, None] == second)


def magnitude(effect: float) -> str:
    """Vargha and Delaney's label of an A12: `negligible`, `small`, `medium` or `large`."""
    strength = max(effect, 1 - effect)
    return next((label for bound, label in MAGNITUDES if strength < bound), "large")


class Ranks(NamedTuple):
    """Average ranks of algorithms over problems; see `rank`.

    Attributes:
        average: rank by label, the best first.
        medians: what was ranked, `[problems, labels]`.
        statistic, p: Friedman's chi-squared, and its p-value.
        critical_difference: ranks closer than this are not told apart by Nemenyi's test at `ALPHA`.
        left_out: titles of problems and labels of algorithms that were not ranked.
    """

    average: pd.Series
    medians: pd.DataFrame
    statistic: float
    p: float
    critical_difference: float
    left_out: list[str]


def rank(runs: pd.DataFrame) -> Ranks:
    """Rank algorithms by their medians on each problem (function, dimension, protocol).

    Ranks need every algorithm on every problem: of the cells that have all seeds, the largest block
    of problems by algorithms is ranked. Medians of gaps are floored at `TIE`, so that algorithms
    that solve a problem share its rank. The problems are chosen, not sampled: ranks describe them,
    and test nothing about others.

    Raises:
        ValueError: if no block of three algorithms on two problems is complete.
    """
    names, seeds = labels(runs), runs["seed"].nunique()
    medians: dict[str, dict[str, float]] = {}
    for cell, rows in split(runs).items():
        column = medians.setdefault(names[cell], {})
        values = np.maximum(final_gaps(rows), TIE) if optimum_known(rows) else final_values(rows)
        column[problem_title(*cell[:3])] = quantile(values, 0.5) if len(rows) == seeds else np.nan
    table = pd.DataFrame(medians)
    blocks = []
    for problem in table.index:
        algorithms = table.columns[table.loc[problem].notna()]
        blocks.append(table[algorithms].dropna())
    block = max(blocks, key=lambda block: block.size, default=table)
    if block.shape[0] < 2 or block.shape[1] < 3:
        raise ValueError(
            f"ranks need 3 algorithms with all {seeds} runs on the same 2 problems: here are at most "
            f"{block.shape[1]} on {block.shape[0]}"
        )
    statistic, p = friedmanchisquare(*block.to_numpy().T)
    return Ranks(
        average=block.rank(axis="columns").mean().sort_values(),
        medians=block,
        statistic=float(statistic),
        p=float(p),
        critical_difference=critical_difference(block.shape[1], block.shape[0]),
        left_out=[
            *(title for title in table.index if title not in block.index),
            *table.columns.difference(block.columns),
        ],
    )


def critical_difference(algorithms: int, problems: int) -> float:
    """Nemenyi's critical difference of average ranks at `ALPHA`: q √(k(k+1)/6N) (Demšar 2006, §3.2.2)."""
    q = studentized_range.ppf(1 - ALPHA, algorithms, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(algorithms * (algorithms + 1) / (6 * problems)))


def trajectories(history: pd.DataFrame, grid: Float[ndarray, " points"]) -> Float[ndarray, "runs points"]:
    """Best value so far of each run of one cell at each cost in `grid`, in the order of the seeds.

    The last observation is carried forward, so a run that stopped early keeps its last value; NaN
    before a run's first observation. `grid` has the units of `history.evals`.
    """
    ordered = history.sort_values(["seed", "evals"])
    starts = np.unique(ordered["seed"], return_index=True)[1][1:]
    evals, values = (np.split(ordered[name].to_numpy(dtype=float), starts) for name in ("evals", "best_f"))
    return np.array(
        [
            np.concatenate([[np.nan], best])[np.searchsorted(cost, grid, side="right")]
            for cost, best in zip(evals, values, strict=True)
        ]
    )


def evaluation_grid(evals: Float[ndarray, " points"]) -> Float[ndarray, " grid"]:
    """At most `GRID_POINTS` increasing costs from the first to the last of `evals`.

    Half are spaced geometrically and half evenly, as the points of a history are.
    """
    space = GRID_POINTS // 2
    return np.union1d(
        np.geomspace(evals.min(), evals.max(), space), np.linspace(evals.min(), evals.max(), GRID_POINTS - space)
    )


def split_history(history: pd.DataFrame, runs: pd.DataFrame) -> dict[Cell, pd.DataFrame]:
    """The history of each cell, as `split` has its runs; runs and history without the other are left out."""
    found = split(history.merge(runs[[*RUN_KEY, "protocol"]], on=RUN_KEY))
    return {cell: found[cell] for cell in split(runs) if cell in found}  # a history has no settings to be ordered by


def optima(runs: pd.DataFrame) -> dict[tuple[str, int], float]:
    """f_opt by function and dimension, where it is known."""
    # The smallest gap loses the fewest digits of f_opt = best_f - gap.
    closest = runs.dropna(subset="gap").sort_values("gap", key=abs).drop_duplicates(["fn", "dim"])
    return {(row["fn"], row["dim"]): row["best_f"] - row["gap"] for _, row in closest.iterrows()}


def ecdf(history: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """COCO's runtime distribution of each cell: the share of (run, target) pairs reached over time.

    The targets are `ECDF_TARGETS`, on the gap; a problem whose optimum is unknown has none and is
    left out. A target counts from the first recorded point of the history that is within it.

    Returns:
        columns `fn dim protocol algo label evals_per_dim share`, at the same costs for all cells;
        no rows if no optimum is known.
    """
    names = labels(runs)
    f_opt = optima(runs)
    cells = {cell: points for cell, points in split_history(history, runs).items() if cell[:2] in f_opt}
    curves = [pd.DataFrame(columns=["fn", "dim", "protocol", "algo", "label", "evals_per_dim", "share"])]
    if cells:
        grid = evaluation_grid(np.concatenate([points["evals"] / cell.dim for cell, points in cells.items()]))
    for cell, points in cells.items():
        gaps = trajectories(points.assign(evals=points["evals"] / cell.dim), grid) - f_opt[cell.fn, cell.dim]
        share = (gaps[..., None] <= ECDF_TARGETS).mean(axis=(0, 2))
        identity = {"fn": cell.fn, "dim": cell.dim, "protocol": cell.protocol, "algo": cell.algo, "label": names[cell]}
        curves.append(pd.DataFrame({**identity, "evals_per_dim": grid, "share": share}))
    return pd.concat(curves if len(curves) == 1 else curves[1:], ignore_index=True)
