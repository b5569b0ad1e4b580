"""The claim made true: whether our own `_guarded` algorithms reach the bar that this project set itself.

Judged like the paper's claims, by rule and from the store only, under the fair protocol: a guarded
algorithm against its plain twin (the same program, settings and noise, no gradient), and the best of them
against the best of pymoo and the best descent, which is gradients alone.

What decides a comparison is the final fitness, or where both sides solve the problem (a gap of
`TIE`) the evaluations that takes, gradients charged. A side solves it if half of its runs do: then
its median run does, final fitness ties, and what remains to tell two sides apart is the time. Asking
for all runs would let one failure of thirty hide any difference in time, and asking for one would
let a lucky run stand for a side. A run that fails takes forever, so it is worse than any that does
not, whatever it spent; the same runs' expected running time (ERT) is given beside the test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from evobench import runtimes, stats
from evobench.claims import (
    BASELINES,
    LARGE,
    PRICE,
    PROBLEMS,
    Evidence,
    Finding,
    Source,
    Sources,
    decided,
    holm,
    median,
    sources,
)
from evobench.stats import TIE

Verdict = Literal["reached", "not reached", "evidence missing"]
Outcome = Literal["better", "slightly better", "worse", "no difference", "open"]
"""Of the first side. Significant after Holm's correction, but for the last two; `slightly better`: A12 below
`LARGE`, which counts neither as better nor as worse. A worse one is worse by however little."""

GUARDED = tuple(f"{family}_guarded" for family in BASELINES)
PYMOO = (*BASELINES, "cmaes_tpa")
DESCENTS = ("adam", "lbfgs")

OPPONENTS = {"best of pymoo": PYMOO, "best descent": DESCENTS}
"""Whom the best guarded algorithm meets on each problem."""

SENTENCE = "guarded gradients beat no gradient, pymoo and gradients alone"

RULE = (
    "Fair protocol, 30 runs each, 8 problems (4 functions, 30D and 50D). Each guarded algorithm is significantly "
    f"better than its plain twin (Holm, A12 at least {LARGE}) on 4 or more and significantly worse on none. The best "
    "guarded algorithm is better than both the best of pymoo and the best descent (adam or lbfgs, gradients alone) on "
    "6 or more, and worse than either on none. Better: by final fitness or, where half of the runs of both sides reach "
    "a gap of 1e-8, by the evaluations that takes, a gradient counted as 5, a failed run as endless. Differences below "
    "1e-8 are ties. The best guarded algorithm is one for all problems, by mean rank of medians among the four; the "
    "best of the others is chosen on each problem anew, by the median and, where that ties, the expected running time "
    "(ERT) to 1e-8."
)


class Side(NamedTuple):
    """A cell's runs and their times.

    Attributes:
        runs: by seed.
        costs: evaluations by which each run has solved the problem, by seed; +inf if never or unknown.
        ert: the expected running time.
    """

    algo: str
    runs: pd.DataFrame
    costs: Float[ndarray, " runs"]
    ert: float

    @property
    def solves(self) -> bool:
        """Whether half of the runs do."""
        return bool(np.isfinite(self.costs).mean() >= 0.5)

    @property
    def merit(self) -> tuple[float, float]:
        """What the best of several is the least of: the median, then the time to solve."""
        return median(self.runs), self.ert


class Contest(NamedTuple):
    """One side against another on a problem; without numbers while runs are missing.

    Attributes:
        second: the opponent's name, or what it is the best of while that is open.
        by: what decides, `fitness` or `evaluations`.
        first_value, second_value: median `best_f`, or the ERT.
        a12, low, high: probability that `first` is better, with its 95% interval.
        p: two-sided, after Holm's correction with the missing tests counted in.
    """

    fn: str
    dim: int
    first: str
    second: str
    by: Literal["fitness", "evaluations"] | None = None
    test: Literal["Wilcoxon", "Mann-Whitney"] | None = None
    first_value: float = math.nan
    second_value: float = math.nan
    a12: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    outcome: Outcome = "open"


@dataclass(frozen=True)
class Bar:
    """What the runs say.

    Attributes:
        finding: the rule's parts, and what is missing.
        best: the guarded algorithm that meets the others; None while that is open.
        ranks: mean rank of each guarded algorithm, the best first.
        contests: every comparison, those with twins first.
    """

    finding: Finding
    best: str | None
    ranks: dict[str, float]
    contests: list[Contest]

    @property
    def verdict(self) -> Verdict:
        if self.finding.holds is None:
            return "evidence missing"
        return "reached" if self.finding.holds else "not reached"


class _Field:
    """The sides of one experiment, each read once."""

    def __init__(self, source: Source) -> None:
        self.source, self.evidence = source, Evidence(source)
        self.sides: dict[tuple[str, str, int], Side | None] = {}

    @cached_property
    def solving(self) -> tuple[dict[stats.Cell, pd.DataFrame], dict[tuple[str, int], float]]:
        """The histories of all cells in which a run solves the problem, and these problems' optima."""
        cells = [rows for settings in self.source.cells.values() for rows in settings]
        runs = pd.concat([rows for rows in cells if (stats.final_gaps(rows) <= TIE).any()])
        return stats.split_history(self.source.history, runs), stats.optima(runs)

    def side(self, algo: str, fn: str, dim: int) -> Side | None:
        """A complete cell; None, and noted, if runs are missing."""
        if (algo, fn, dim) not in self.sides:
            # Runs that paid less for a gradient are no evidence.
            charged = {"gradient_cost": PRICE} if algo in GUARDED or algo in DESCENTS else {}
            self.sides[algo, fn, dim] = self._found(algo, fn, dim, **charged)
        return self.sides[algo, fn, dim]

    def twin(self, algo: str, fn: str, dim: int) -> Side | None:
        """A guarded algorithm's plain twin: its settings, without the gradient."""
        own = self.side(algo, fn, dim)
        same = {} if own is None else {"settings": own.runs["settings"].iloc[0]}
        return self._found(_twin(algo), fn, dim, **same)

    def _found(self, algo: str, fn: str, dim: int, **where: Any) -> Side | None:
        rows = self.evidence.cell(algo, fn, dim, **where)
        if rows is None:
            return None
        if not (stats.final_gaps(rows) <= TIE).any():  # the optimum is not known, or not found
            return Side(algo, rows, np.full(len(rows), np.inf), math.inf)
        histories, optima = self.solving
        cell = stats.Cell._make(rows.iloc[0][list(stats.Cell._fields)])
        points, target = histories[cell], optima[cell.fn, cell.dim] + TIE
        costs = runtimes.hits(points, target)
        return Side(algo, rows, costs, float(runtimes.ert(costs, runtimes.ends(points))))

    def best(self, algos: Sequence[str], fn: str, dim: int) -> Side | None:
        """The one with the best merit; None while any is missing."""
        sides = [self.side(algo, fn, dim) for algo in algos]
        complete = [side for side in sides if side is not None]
        return min(complete, key=lambda side: side.merit) if len(complete) == len(algos) else None


def judge(results: Path, source: Sources | None = None) -> Bar:
    """The bar by the runs under `results`.

    Args:
        source: of these results, where something else is judged by them too.

    Raises:
        StoreError: if a file there is damaged or not one of ours.
    """
    field = _Field((source or sources(results))("figure1-fair", "fair"))
    finding, count = field.evidence.finding, field.evidence.count
    contests = _meet(
        (fn, dim, algo, field.side(algo, fn, dim), _twin(algo), field.twin(algo, fn, dim))
        for algo in GUARDED
        for fn, dim in PROBLEMS
    )
    for algo in GUARDED:
        own = [contest.outcome for contest in contests if contest.first == algo]
        count(f"{algo} better than {_twin(algo)}", [_says(outcome, "better") for outcome in own], least=4)
        count(f"{algo} worse than {_twin(algo)}", [_says(outcome, "worse") for outcome in own], most=0)

    ranks = _ranks(field)
    best = next(iter(ranks), None)
    name = best or "the best guarded algorithm"
    others = _meet(
        (fn, dim, name, field.side(best, fn, dim) if best else None, who, field.best(algos, fn, dim))
        for fn, dim in PROBLEMS
        for who, algos in OPPONENTS.items()
    )
    met = [[contest.outcome for contest in others if (contest.fn, contest.dim) == problem] for problem in PROBLEMS]
    both = " and ".join(f"the {who}" for who in OPPONENTS)
    count(f"{name} better than both {both}", [_both(own) for own in met], least=6)
    count(f"{name} worse than either", [_either(own) for own in met], most=0)
    return Bar(finding, best, ranks, [*contests, *others])


def _twin(algo: str) -> str:
    return algo.replace("_guarded", "_plain")


def _meet(pairs: Iterable[tuple[str, int, str, Side | None, str, Side | None]]) -> list[Contest]:
    """Each (fn, dim, first, its side, second, its side) tested, and corrected as one family."""
    contests = [_contest(*pair) for pair in pairs]
    p = [None if test is None else test.p for _, test in contests]
    return [
        contest if test is None else contest._replace(p=corrected, outcome=_outcome(test, significant))
        for (contest, test), significant, corrected in zip(contests, decided(p), holm(p, missing=1.0), strict=True)
    ]


def _contest(
    fn: str, dim: int, name: str, first: Side | None, other: str, second: Side | None
) -> tuple[Contest, stats.Difference | None]:
    """A contest and its test, not yet corrected."""
    if first is None or second is None:
        return Contest(fn, dim, name, other if second is None else second.algo), None
    timed, paired = first.solves and second.solves, stats.share_noise(first.runs, second.runs)
    samples = (first.costs, second.costs) if timed else tied(*stats.comparable(first.runs, second.runs))
    found = stats.difference(*samples, paired)
    contest = Contest(
        fn,
        dim,
        name,
        second.algo,
        by="evaluations" if timed else "fitness",
        test="Wilcoxon" if paired else "Mann-Whitney",
        first_value=first.ert if timed else stats.quantile(stats.final_values(first.runs), 0.5),
        second_value=second.ert if timed else stats.quantile(stats.final_values(second.runs), 0.5),
        a12=found.a12,
        low=found.low,
        high=found.high,
    )
    return contest, found


def tied(
    first: Float[ndarray, " m"], second: Float[ndarray, " n"]
) -> tuple[Float[ndarray, " m"], Float[ndarray, " n"]]:
    """The values with all that lie closer than `TIE` made equal: so close, runs differ by rounding.

    To be a tie with both its neighbours is to tie them with each other, so chains of close values
    become one.
    """
    values, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    starts = np.concatenate([[True], np.diff(values) >= TIE])
    merged = values[starts][np.cumsum(starts) - 1][places]
    return merged[: len(first)], merged[len(first) :]


def _outcome(test: stats.Difference, significant: bool | None) -> Outcome:
    if not significant:
        return "open" if significant is None else "no difference"
    if test.lead < 0:
        return "worse"
    return "better" if test.a12 >= LARGE else "slightly better"


def _ranks(field: _Field) -> dict[str, float]:
    """Mean rank of each guarded algorithm's medians among the four, the best first; empty while any is missing."""
    sides = [[field.side(algo, *problem) for algo in GUARDED] for problem in PROBLEMS]
    medians = [[median(side.runs) for side in row if side is not None] for row in sides]
    if any(len(row) < len(GUARDED) for row in medians):
        return {}
    ranks = pd.DataFrame(medians, columns=GUARDED).rank(axis="columns").mean()
    return {str(algo): float(rank) for algo, rank in ranks.sort_values(kind="stable").items()}


def _says(outcome: Outcome, wanted: Outcome) -> bool | None:
    return None if outcome == "open" else outcome == wanted


def _both(outcomes: Sequence[Outcome]) -> bool | None:
    """Whether all are better: one that is not decides."""
    answers = [_says(outcome, "better") for outcome in outcomes]
    return False if False in answers else None if None in answers else True


def _either(outcomes: Sequence[Outcome]) -> bool | None:
    """Whether any is worse: one that is decides."""
    answers = [_says(outcome, "worse") for outcome in outcomes]
    return True if True in answers else None if None in answers else False
