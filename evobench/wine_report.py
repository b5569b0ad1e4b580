"""What the wine runs say: four questions, each a panel of one figure and a group of rows of one table.

1. The paper's setting, each algorithm from its own start: with the right loss, and with the broadcast.
2. Equal starts: all from U(-10, 10), all from N(0, 0.5²).
3. Equal cost: a gradient is charged, inputs are standardised, Adam and Lion have the best learning
   rate of a grid (lowest median training loss over the seeds shown).
4. What generalises: the same runs, on the rows held out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from scipy.stats import quantile_test

from evobench import figures, stats, wine
from evobench.claims import PRICE
from evobench.stats import Cell
from evobench.tables import MISSING, Block, number

QUESTIONS = {
    1: "the paper's setting",
    2: "equal starts",
    3: "equal cost",
    4: "what generalises",
}

LOSSES = {"wine": "squared error", "wine_broadcast": "broadcast error"}
STARTS = {"uniform": "from U(-10, 10)", "centre": "from N(0, 0.5²)"}
TRAINED, HELD_OUT = "training rows", "rows held out"
SERIES = (*LOSSES.values(), *STARTS.values(), TRAINED, HELD_OUT)


def gather(runs: pd.DataFrame) -> pd.DataFrame:
    """The loss of every run under every question that it answers.

    Columns: `question`, a key of `QUESTIONS`; `algo`; `rate`, the learning rate where it was chosen
    from a grid, else NaN; `series`, which of the question's cases, in the order of `SERIES`; `seed`;
    `loss`.

    Raises:
        ValueError: if there are no runs of the wine task, or of several noise draws, splits, budgets, populations
            or settings.
    """
    cells = {cell: rows for cell, rows in stats.split(runs).items() if cell.fn in LOSSES}
    if not cells:
        raise ValueError(f"there are no runs of {' or '.join(LOSSES)} here")
    _check_one_task(cells)
    best = _best_rates(cells)
    parts = [
        pd.DataFrame(
            {
                "question": question,
                "algo": cell.algo,
                "rate": _rate(cell, rows),
                "series": series,
                "seed": rows["seed"],
                "loss": loss,
            }
        )
        for cell, rows in cells.items()
        if best.get(cell.algo, cell) == cell or not _equal_cost(cell, rows)
        for question, series, loss in _answers(cell, rows)
    ]
    gathered = pd.concat(parts, ignore_index=True)
    for row in gathered[gathered.duplicated(["question", "series", "algo", "seed"])].to_dict("records"):
        raise ValueError(
            f"there are several settings of {row['algo']} here: give each a directory of its own with --out"
        )
    return gathered.sort_values("series", key=lambda series: series.map(SERIES.index), kind="stable", ignore_index=True)


def _settings(rows: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rows.iloc[0]["settings"])
    return found


def task(rows: pd.DataFrame) -> wine.Settings:
    """The settings of the task that the runs of a cell had."""
    found = _settings(rows)
    return wine.Settings(**{name: found[name] for name in wine.Settings.model_fields})


def _is_charged(cell: Cell) -> bool:
    """Whether gradients have a price in its rows: not in those of a library that takes none."""
    return stats.lineage(cell.algo)[1] in (*stats.TENSORS, "gradient")


def _equal_cost(cell: Cell, rows: pd.DataFrame) -> bool:
    """Whether it answers questions 3 and 4."""
    settings, init, price = task(rows), rows["init"].iloc[0], rows["gradient_cost"].iloc[0]
    equal = init == "centre" and price == (PRICE if _is_charged(cell) else 0)
    return cell.fn == "wine" and settings.standardise and settings.split is not None and equal


def _rate(cell: Cell, rows: pd.DataFrame) -> float:
    """The learning rate of a cell that is one of a grid."""
    return float(_settings(rows)["lr"]) if cell.algo in ("adam", "lion") and _equal_cost(cell, rows) else np.nan


def _check_one_task(cells: dict[Cell, pd.DataFrame]) -> None:
    tasks = [task(rows) for rows in cells.values()]
    draws = {one.noise_seed for one in tasks}
    splits = {one.split for one in tasks if one.split is not None}
    budgets = {int(rows["budget"].iloc[0]) for rows in cells.values()}
    populations = {int(rows["pop_size"].iloc[0]) for rows in cells.values()} - {1}  # a descent's
    for what, values in (
        ("noise seeds", draws),
        ("splits", splits),
        ("budgets", budgets),
        ("populations", populations),
    ):
        if len(values) > 1:
            listed = ", ".join(map(str, sorted(values)))
            raise ValueError(f"the runs have several {what} ({listed}): give each a directory of its own with --out")


def grid(cells: dict[Cell, pd.DataFrame]) -> dict[Cell, float]:
    """Median training loss of every learning rate that was tried."""
    tried = {cell: rows for cell, rows in cells.items() if not np.isnan(_rate(cell, rows))}
    return {cell: stats.quantile(stats.final_values(rows), 0.5) for cell, rows in tried.items()}


def _best_rates(cells: dict[Cell, pd.DataFrame]) -> dict[str, Cell]:
    """The cell of the best learning rate, by algorithm."""
    medians = grid(cells)
    return {cell.algo: cell for cell in sorted(medians, key=lambda cell: -medians[cell])}


def _answers(cell: Cell, rows: pd.DataFrame) -> Iterator[tuple[int, str, Float[ndarray, " runs"]]]:
    """Question, series and losses for each question that a cell answers."""
    settings, init, losses = task(rows), rows["init"].iloc[0], stats.final_values(rows)
    if _equal_cost(cell, rows):
        yield 3, TRAINED, losses
        yield 4, TRAINED, losses
        with torch.no_grad():
            yield 4, HELD_OUT, wine.test_loss(settings)(torch.from_numpy(np.stack(list(rows["best_x"])))).numpy()
    elif not settings.standardise and settings.split is None and rows["gradient_cost"].iloc[0] == 0:
        _, variant = stats.lineage(cell.algo)
        evograd = variant not in ("pymoo", "tpa", "gradient")
        if init == ("centre" if evograd and cell.algo.startswith("cmaes") else "uniform"):
            yield 1, LOSSES[cell.fn], losses
        if cell.fn == "wine":
            yield 2, STARTS[init], losses


def references(runs: pd.DataFrame) -> dict[int, wine.References]:
    """What needs no search, by question; the questions that no run answers are left out."""
    found: dict[int, wine.References] = {}
    for cell, rows in stats.split(runs).items():
        if cell.fn in LOSSES:
            for question, _, _ in _answers(cell, rows):
                found.setdefault(question, wine.references(task(rows)))
    return found


def summarise(gathered: pd.DataFrame) -> pd.DataFrame:
    """One row per question, series and algorithm.

    Columns: `question series algo rate`; `n`; of the loss `mean`, `std` (of the sample), `median`,
    `low high` (its 95% interval by order statistics, which makes no assumption; NaN below six runs),
    `best worst`.
    """
    groups = gathered.groupby(["question", "series", "algo", "rate"], dropna=False)
    table = pd.DataFrame([dict(zip(groups.keys, key, strict=True)) | _describe(rows) for key, rows in groups])
    place = [
        (question, stats.algorithm_order(algo), SERIES.index(series))
        for question, algo, series in zip(table["question"], table["algo"], table["series"], strict=True)
    ]
    return table.iloc[sorted(range(len(table)), key=place.__getitem__)].reset_index(drop=True)


def _describe(rows: pd.DataFrame) -> dict[str, float]:
    losses = rows["loss"].to_numpy()
    interval = quantile_test(losses, p=0.5).confidence_interval(0.95)
    return {
        "n": len(losses),
        "mean": losses.mean(),
        "std": losses.std(ddof=1) if len(losses) > 1 else np.nan,
        "median": np.median(losses),
        "low": interval.low,
        "high": interval.high,
        "best": losses.min(),
        "worst": losses.max(),
    }


def figure(runs: pd.DataFrame) -> Figure:
    """The four panels; see `figures.wine`."""
    lines = {question: known if question == 4 else known[:2] for question, known in references(runs).items()}
    return figures.wine(gather(runs), lines, QUESTIONS)


def blocks(runs: pd.DataFrame) -> list[Block]:
    """The table for people, and the grid of learning rates behind it."""
    summary, known = summarise(gather(runs)), references(runs)
    spread = wine.variances()
    low, median, high = np.quantile(spread, [0.05, 0.5, 0.95])
    (seed,) = {task(rows).noise_seed for cell, rows in stats.split(runs).items() if cell.fn in LOSSES}
    table = Block(
        title="Wine: the loss of the best network of each run (lower is better)",
        note=f"Noise draw {seed}; over the draws 0 to 99 var(y) has the median {number(median)} "
        f"(5 to 95%: {number(low)} to {number(high)}). In brackets the median's 95% interval by order statistics.",
        headers=("algorithm", "case", "runs", "mean ± std", "median [95% CI]", "best"),
        stressed=4,
        groups={
            f"{question}. {title}": _rows(question, summary[summary["question"] == question], known[question])
            for question, title in QUESTIONS.items()
            if question in known
        },
    )
    medians = grid({cell: rows for cell, rows in stats.split(runs).items() if cell.fn in LOSSES})
    if not medians:
        return [table]
    best = {cell.algo: min(value for other, value in medians.items() if other.algo == cell.algo) for cell in medians}
    rates: dict[str, list[tuple[bool, list[str]]]] = {}
    split = stats.split(runs)
    for cell, value in sorted(medians.items(), key=lambda item: (item[0].algo, _rate(item[0], split[item[0]]))):
        line = [f"{_rate(cell, split[cell]):g}", str(len(split[cell])), number(value)]
        rates.setdefault(cell.algo, []).append((bool(value == best[cell.algo]), line))
    return [
        table,
        Block(
            title="Learning rates tried (3 and 4)",
            note="The rate with the lowest median is the one above.",
            headers=("learning rate", "runs", "median training loss"),
            stressed=2,
            groups=rates,
        ),
    ]


def _rows(question: int, rows: pd.DataFrame, known: wine.References) -> list[tuple[bool, list[str]]]:
    """One question's rows: what needs no search first; the best median of each case is stressed."""
    fixed = [("always ȳ: var(y)", "", known.constant), ("least squares", "", known.ols)]
    if question == 4:
        fixed = [
            (name, series, value)
            for name, both in (("always ȳ", known[::2]), ("least squares", known[1::2]))
            for series, value in zip((TRAINED, HELD_OUT), both, strict=True)
        ]
    lines = [(False, [name, series, "", "", number(value), ""]) for name, series, value in fixed]
    best = rows.groupby("series")["median"].min()
    for row in rows.to_dict("records"):
        rate = "" if np.isnan(row["rate"]) else f", lr {row['rate']:g}"
        interval = MISSING if np.isnan(row["low"]) else f"{number(row['low'])}, {number(row['high'])}"
        cells = [
            f"{row['algo']}{rate}",
            row["series"],
            str(row["n"]),
            f"{row['mean']:.2f} ± {row['std']:.2f}",
            f"{number(row['median'])} [{interval}]",
            number(row["best"]),
        ]
        lines.append((bool(row["median"] == best[row["series"]]), cells))
    return lines
