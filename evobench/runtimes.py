"""What the histories say: when targets are reached, how far a second gets, what a gradient may cost.

Pure functions over the two tables of `evobench.store.load_results`. A history has at most 200
points a run, so a target counts as reached at the first recorded point within it, and a run cut at a
cost has the value of its last point before: both err against the run, by less than 2% of its budget.

Sources: N. Hansen et al., Optimization Methods and Software 36(1):114-144, 2021 (COCO: expected
running time, ERT); E. B. Wilson, J. Am. Stat. Assoc. 22(158):209-212, 1927 (interval of a rate);
J. J. Moré and S. M. Wild, SIAM J. Optim. 20(1):172-191, 2009 (data profiles).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import binomtest

from evobench import stats
from evobench.stats import FAMILY, SUCCESS_TARGETS, Cell
from evobench.store import RUN_KEY

PRICES = (0.0, 1.0, 2.0, 5.0, 10.0)
"""Evaluations that a gradient may be taken to cost: from free, as in the paper, to ten."""

ACCURACIES = (1e-1, 1e-3, 1e-5)
"""Moré and Wild's τ: the share of the possible reduction that may be missing."""

TASK = ["fn", "dim", "protocol", "shift", "budget"]
"""What runs have in common that may be compared, as in `stats.compare`."""


def to_targets(history: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Fixed targets: how many runs reach each, and the evaluations that it takes to reach it once.

    The expected running time is the evaluations of all runs, each until it reaches the target or
    ends, by the number of runs that reach it: infinite if none does. Gradients count as the cell's
    protocol charges them.

    Returns:
        one row per cell with a known optimum and target of `SUCCESS_TARGETS`: the cell's columns,
        `label target n successes`; `rate rate_low rate_high` with Wilson's 95% interval; `ert
        ert_low ert_high` in evaluations, with its 95% bootstrap interval over runs.
    """
    names, f_opt = stats.labels(runs), stats.optima(runs)
    rows = [
        {**cell._asdict(), "label": names[cell], "target": target, **_running_time(points, f_opt[cell[:2]] + target)}
        for cell, points in stats.split_history(history, runs).items()
        if cell[:2] in f_opt
        for target in SUCCESS_TARGETS.values()
    ]
    columns = ["n", "successes", "rate", "rate_low", "rate_high", "ert", "ert_low", "ert_high"]
    return pd.DataFrame(rows, columns=[*Cell._fields, "label", "target", *columns])


def _running_time(points: pd.DataFrame, value: float) -> dict[str, float]:
    """The columns of `to_targets` for one cell and the objective's value at a target."""
    reached, spent = hits(points, value), ends(points)
    successes = int(np.isfinite(reached).sum())
    samples = stats.drawn(len(spent))
    low, high = stats.interval(ert(reached[samples], spent[samples]))
    rate_low, rate_high = wilson(successes, len(spent))
    return {
        "n": len(spent),
        "successes": successes,
        "rate": successes / len(spent),
        "rate_low": rate_low,
        "rate_high": rate_high,
        "ert": float(ert(reached, spent)),
        "ert_low": low,
        "ert_high": high,
    }


def hits(points: pd.DataFrame, value: float | pd.Series) -> Float[ndarray, " runs"]:
    """The cost at which each run of a cell is first recorded at or below `value`, by seed; +inf if never.

    Each run has its own value where a Series gives one by seed.
    """
    within = points[points["best_f"] <= (points["seed"].map(value) if isinstance(value, pd.Series) else value)]
    return within.groupby("seed")["evals"].min().reindex(np.unique(points["seed"]), fill_value=np.inf).to_numpy()


def ends(points: pd.DataFrame) -> Float[ndarray, " runs"]:
    """What each run of a cell spent, by seed: a history has its last evaluation."""
    return points.groupby("seed")["evals"].max().to_numpy(dtype=float)


def ert(reached: Float[ndarray, "*samples runs"], spent: Float[ndarray, "*samples runs"]) -> Float[ndarray, "*samples"]:
    """The expected running time, of runs that reached a target at these costs (see `hits`) and ended at those."""
    hit = np.isfinite(reached)
    with np.errstate(divide="ignore"):
        return np.where(hit, reached, spent).sum(-1) / hit.sum(-1)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a success rate."""
    low, high = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def at_seconds(history: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Fixed times: the best fitness after each power of ten of seconds.

    A run's seconds are its share of its batch, `wall_s / batch_size`, spread evenly over what it
    spends: what the run costs where all runs of the batch are wanted. By itself it would take
    longer, up to `wall_s`. A run that has ended keeps its value.

    Returns:
        one row per cell and time: the cell's columns, `label n seconds`, `whole`, the median of the
        seconds that its runs took, and `median q1 q3` of the best fitness, null until every run has
        a value.
    """
    names = stats.labels(runs)
    columns = ["label", "n", "seconds", "whole", "median", "q1", "q3"]
    shares = runs[[*RUN_KEY, "protocol"]].assign(whole=runs["wall_s"] / runs["batch_size"])
    timed = history.merge(shares, on=RUN_KEY)
    timed["evals"] *= timed["whole"] / timed.groupby(RUN_KEY)["evals"].transform("max")
    cells = stats.split(timed)
    if not cells:
        return pd.DataFrame(columns=[*Cell._fields, *columns])
    ends = [points["whole"].median() for points in cells.values()]
    decades = range(math.floor(math.log10(min(ends))), math.ceil(math.log10(max(ends))) + 1)
    grid = 10.0 ** np.array(decades)
    rows = []
    for cell, points in cells.items():
        values = stats.trajectories(points, grid)
        values[np.isposinf(values)] = np.nan
        for seconds, sample in zip(grid, values.T, strict=True):
            quartiles = np.full(3, np.nan) if np.isnan(sample).any() else np.quantile(sample, [0.5, 0.25, 0.75])
            about = {"label": names[cell], "n": len(sample), "seconds": seconds, "whole": points["whole"].median()}
            rows.append({**cell._asdict(), **about, **dict(zip(columns[4:], quartiles, strict=True))})
    return pd.DataFrame(rows, columns=[*Cell._fields, *columns])


def recharge(history: pd.DataFrame, runs: pd.DataFrame, price: float) -> pd.DataFrame:
    """The history with `evals` as if a gradient cost `price` evaluations, by run and cost."""
    charged = history.merge(runs[[*RUN_KEY, "g_evals", "gradient_cost"]], on=RUN_KEY).sort_values([*RUN_KEY, "evals"])
    starts = np.flatnonzero(~charged.duplicated(RUN_KEY))
    evals, total = charged["evals"].to_numpy(dtype=float), charged["g_evals"].to_numpy()
    parts = zip(np.split(evals, starts[1:]), total[starts], strict=True)
    taken = np.concatenate([*(gradients(part, int(count)) for part, count in parts), []])
    if "gradients" in charged:  # counted: those of guarded runs, which share them out as they go
        counted = charged["gradients"].to_numpy(dtype=float)
        taken = np.where(np.isnan(counted), taken, counted)
    extra = (price - charged["gradient_cost"].to_numpy()) * taken
    return charged.assign(evals=evals + extra)[history.columns]


def gradients(evals: Float[ndarray, " points"], total: int) -> Float[ndarray, " points"]:
    """The gradients that a run had taken at each of its recorded costs, of which it took `total`.

    Every generation takes as many evaluations and gradients as the other. The first two points of a
    history are one generation apart, which gives the number of generations between any two points;
    gradients in excess of one share each were taken up to the first point. So this is exact, for
    runs of at least three generations; shorter ones may be off by one gradient.
    """
    if not total or len(evals) == 1:
        return np.full(len(evals), float(total))
    generations = np.round((evals - evals[0]) / (evals[1] - evals[0]))
    each = math.ceil(total / (generations[-1] + 1))  # the first point is either before or after a first generation
    return total - each * (generations[-1] - generations)


def cut(history: pd.DataFrame, runs: pd.DataFrame, price: float) -> pd.DataFrame:
    """The runs as they would have ended if a gradient cost `price` evaluations, and `spent_at`.

    Under a higher price than the stored one a run is read where evaluations + price · gradients
    reach its budget. Under a lower price it would have gone on beyond what is stored: then every
    run of its task (`TASK`) is read at the cost that all of them cover, `spent_at`. No algorithm
    looks at its budget, so a run cut short is the run that a smaller budget would have had.
    """
    by_run = recharge(history, runs, price).set_index(RUN_KEY)
    unfinished = (runs["g_evals"] > 0) & (price < runs["gradient_cost"]) & (runs["stop_reason"] == "budget")
    covered = (runs["f_evals"] + price * runs["g_evals"]).where(unfinished, runs["budget"])
    spent_at = covered.groupby([runs[name] for name in TASK]).transform("min")
    keys = pd.MultiIndex.from_frame(runs[RUN_KEY])
    limits = pd.Series(spent_at.to_numpy(), keys).reindex(by_run.index)
    best_f = by_run[by_run["evals"] <= limits * (1 + 1e-12)].groupby(RUN_KEY)["best_f"].last().reindex(keys).to_numpy()
    f_opt = stats.optima(runs)
    optimum = [f_opt.get(problem, np.nan) for problem in zip(runs["fn"], runs["dim"], strict=True)]
    return runs.assign(best_f=best_f, gap=best_f - np.array(optimum), spent_at=spent_at)


def by_price(
    history: pd.DataFrame,
    runs: pd.DataFrame,
    prices: Sequence[float] = PRICES,
    family: Sequence[str] = FAMILY,
) -> pd.DataFrame:
    """How the comparisons change with the price of a gradient, in evaluations.

    Returns:
        the rows of `stats.compare` that compare something with gradients, once for each price:
        `price`, `spent_at` (see `cut`), and the columns of `stats.compare`, corrected within each
        price.
    """
    names = stats.labels(runs)
    tables = []
    for price in prices:
        read = cut(history, runs, price)
        spent_at = {(*cell[:3], names[cell]): rows["spent_at"].iloc[0] for cell, rows in stats.split(read).items()}
        table = stats.compare(read, family)
        first = zip(table["fn"], table["dim"], table["protocol"], table["first"], strict=True)
        table.insert(0, "price", price)
        table.insert(1, "spent_at", [spent_at[cell] for cell in first])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def data_profiles(history: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Moré and Wild's data profiles: the share of problems solved over simplex gradients, D + 1 evaluations each.

    A problem is a seed of a function at a dimension. It is solved to accuracy τ at the first recorded
    f ≤ f_L + τ (f_0 - f_L): f_L is the best that any run of any algorithm reached on the function
    (so no optimum need be known), f_0 the worst first value that any algorithm had on the problem.
    Profiles depend on which algorithms take part.

    Returns:
        columns `dim protocol algo label accuracy simplex_gradients share`, one curve for each
        algorithm of a dimension and protocol and each of `ACCURACIES`; and the labels that are left
        out, since they did not run on all of the problems.
    """
    names, cells = stats.labels(runs), stats.split_history(history, runs)
    columns = ["dim", "protocol", "algo", "label", "accuracy", "simplex_gradients", "share"]
    curves, left_out = [pd.DataFrame(columns=columns)], []
    for dim, protocol in sorted({(cell.dim, cell.protocol) for cell in cells}):
        panel = {cell: points for cell, points in cells.items() if (cell.dim, cell.protocol) == (dim, protocol)}
        low = {fn: min(points["best_f"].min() for cell, points in panel.items() if cell.fn == fn) for fn in _fns(panel)}
        start = {fn: _worst_starts([points for cell, points in panel.items() if cell.fn == fn]) for fn in low}
        grid = stats.evaluation_grid(np.concatenate([points["evals"] / (dim + 1) for points in panel.values()]))
        problems = sum(map(len, start.values()))
        for label in dict.fromkeys(names[cell] for cell in panel):
            mine = {cell: points for cell, points in panel.items() if names[cell] == label}
            if sum(points["seed"].nunique() for points in mine.values()) < problems:
                left_out.append(f"{label} ({dim}D)")
                continue
            for accuracy in ACCURACIES:
                costs = [
                    hits(points, low[cell.fn] + accuracy * (start[cell.fn] - low[cell.fn]))
                    for cell, points in mine.items()
                ]
                share = (np.concatenate(costs)[:, None] / (dim + 1) <= grid).mean(axis=0)
                about = {"dim": dim, "protocol": protocol, "algo": next(iter(mine)).algo, "label": label}
                curves.append(pd.DataFrame({**about, "accuracy": accuracy, "simplex_gradients": grid, "share": share}))
    return pd.concat(curves if len(curves) == 1 else curves[1:], ignore_index=True), left_out


def _fns(cells: dict[Cell, pd.DataFrame]) -> list[str]:
    return list(dict.fromkeys(cell.fn for cell in cells))


def _worst_starts(histories: Sequence[pd.DataFrame]) -> pd.Series:
    """The highest first value that any of a function's algorithms had, by seed."""
    firsts = [points.loc[points.groupby("seed")["evals"].idxmin(), ["seed", "best_f"]] for points in histories]
    return pd.concat(firsts).groupby("seed")["best_f"].max()
