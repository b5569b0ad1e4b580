"""The paper's claims C1 to C7, each with the rule that decides it, and what the stored runs say.

A rule was written from the paper's words. It has parts, and a part holds, fails or is open: it counts
cells that are complete (all 30 seeds), and is decided where the cells that are not could not change
the count, whatever they turned out to be. A verdict needs both protocols: the paper's, and the fair
one (for C6 and C7, whose optima nobody knows, the paper's comparison with one start for both sides and
gradients that cost).

Reads the store only. The paper: B. F. R. Citterio and A. Tangherloni, arXiv 2506.06320.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from evobench import stats
from evobench.runtimes import cut, wilson
from evobench.stats import ALPHA, FUNCTIONS, TIE
from evobench.store import CELL, Store

Verdict = Literal[
    "reproduced", "reproduced only under the paper's protocol", "not reproduced", "not testable", "evidence missing"
]

SEEDS = 30
"""Runs of a cell in the paper: seeds 0 to 29. A cell with fewer decides nothing."""

DIMS = (30, 50)
PROBLEMS = [(fn, dim) for dim in DIMS for fn in FUNCTIONS]
"""The eight panels of Figure 1."""

WINE_DIM = 1665
"""Weights of the wine task's network."""

BASELINES = ("ga", "de", "pso", "cmaes")
ALGORITHMS = [family + variant for family in BASELINES for variant in ("", "_diff")]
"""The eight boxes of a panel."""

LARGE = 0.71
"""Vargha and Delaney's bound of a large A12."""

PRICE = 5.0
"""Evaluations that the fair protocol charges for a gradient."""

STALLED = 1e-3
"""A run has stalled if the last half of its budget improves its best value by less than this share of it."""


Pair = tuple[str, str, pd.DataFrame | None, pd.DataFrame | None]
"""Where two cells are compared, what they are, and their runs; None where any is missing."""


class Part(NamedTuple):
    """One condition of a rule, and whether it holds; None while cells that could decide it are missing."""

    text: str
    holds: bool | None


class Effect(NamedTuple):
    """One number behind a part, with its 95% interval (or the range that `what` names)."""

    where: str
    what: str
    runs: str
    value: float
    low: float
    high: float
    p: float | None = None
    says: str = ""


@dataclass
class Finding:
    """What one directory of results says about a claim.

    Attributes:
        source: where the runs are, and under which conditions they were made.
        missing: by algorithm and problem, the runs of the cells that are incomplete.
        command: what computes them.
    """

    source: str
    command: str
    parts: list[Part] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    missing: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether every part does: one that fails decides."""
        outcomes = [part.holds for part in self.parts]
        if False in outcomes:
            return False
        return None if None in outcomes or not outcomes else True


class Source:
    """The runs of one experiment's directory under one protocol, read once for all claims."""

    def __init__(self, results: Path, name: str, protocol: str) -> None:
        self.name, self.directory, self.protocol = name, results / name, protocol

    @cached_property
    def cells(self) -> dict[tuple[str, str, int], list[pd.DataFrame]]:
        """The runs of each algorithm, function and dimension, by seed: a table for each of its settings."""
        cells: dict[tuple[str, str, int], list[pd.DataFrame]] = {}
        store = Store(self.directory)
        if store.files("runs"):  # nothing has been run yet otherwise, which is no error here
            runs = store.load("runs")
            runs = runs[(runs["protocol"] == self.protocol) & (runs["seed"] < SEEDS)].sort_values("seed")
            for _, rows in runs.groupby(CELL):
                algo, fn, dim = rows.iloc[0][CELL[:3]]
                cells.setdefault((algo, fn, dim), []).append(rows)
        return cells

    @cached_property
    def history(self) -> pd.DataFrame:
        """The history of all runs."""
        return Store(self.directory).load("history")


class Evidence:
    """A source, and what a rule finds in it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.finding = Finding(f"{source.directory}", f"evobench run configs/{source.name}.yaml")

    def found(self, algo: str, fn: str, dim: int, **where: Any) -> pd.DataFrame | None:
        """The runs of a cell by seed, however many, whose columns say what `where` asks. What they lack is noted.

        Of several settings of one algorithm the one with the most runs counts, then the latest.
        """
        settings = [
            rows
            for rows in self.source.cells.get((algo, fn, dim), [])
            if all((rows[column] == value).all() for column, value in where.items())
        ]
        rows = max(settings, key=lambda rows: (len(rows), str(rows["started_at"].max())), default=None)
        if rows is None or len(rows) < SEEDS:
            name = f"{algo} ({where['init']} start)" if "init" in where else algo
            count = 0 if rows is None else len(rows)
            self.finding.missing.setdefault(name, {})[stats.problem_title(fn, dim)] = count
        return rows

    def cell(self, algo: str, fn: str, dim: int, **where: Any) -> pd.DataFrame | None:
        """As `found`, but None if any run is missing."""
        rows = self.found(algo, fn, dim, **where)
        return rows if rows is not None and len(rows) == SEEDS else None

    def charged(self, algo: str, fn: str, dim: int, **where: Any) -> pd.DataFrame | None:
        """As `cell`, its runs read where they would have ended at `PRICE` a gradient."""
        rows = self.cell(algo, fn, dim, **where)
        return None if rows is None else cut(self.source.history, rows, PRICE)

    def count(self, what: str, outcomes: Sequence[bool | None], least: int = 0, most: int | None = None) -> None:
        """A part that asks for at least, or at most, so many of `outcomes`; None is an open one."""
        yes, still = outcomes.count(True), outcomes.count(None)
        if most is None:
            holds = True if yes >= least else False if yes + still < least else None
        else:
            holds = True if yes + still <= most else False if yes > most else None
        needed = f"needed: at least {least}" if most is None else f"allowed: at most {most}"
        known = f"{yes} of {len(outcomes)}" + (f", {still} open" if still else "")
        self.finding.parts.append(Part(f"{what}: {known} ({needed})", holds))

    def tests(self, pairs: Iterable[tuple[str, str, str, int]]) -> list[str | None]:
        """Test `first` against `second` on each (first, second, fn, dim), Holm over all of them.

        Returns:
            `better`, `worse` or `no difference`; None where a cell is missing, or where the missing
            tests of the family could still change the outcome.
        """
        cells = [
            (first, second, fn, dim, self.cell(first, fn, dim), self.cell(second, fn, dim))
            for first, second, fn, dim in pairs
        ]
        return self.contrast(
            [
                (stats.problem_title(fn, dim), f"{first} vs {second}", mine, other)
                for first, second, fn, dim, mine, other in cells
            ]
        )

    def contrast(self, pairs: Sequence[Pair]) -> list[str | None]:
        """As `tests`, on pairs of any cells."""
        tested = [None if mine is None or other is None else _test(mine, other) for _, _, mine, other in pairs]
        p = [None if test is None else test.p for test in tested]
        outcomes: list[str | None] = []
        for (where, what, *_), test, significant, corrected in zip(
            pairs, tested, decided(p), holm(p, missing=1.0), strict=True
        ):
            if test is None:
                outcomes.append(None)
                continue
            direction = "better" if test.lead > 0 else "worse"
            outcome = None if significant is None else direction if significant else "no difference"
            outcomes.append(outcome)
            self.finding.effects.append(
                Effect(where, f"A12, {what}", f"{SEEDS}:{SEEDS}", *test[2:], p=corrected, says=outcome or "open")
            )
        return outcomes


def _test(first: pd.DataFrame, second: pd.DataFrame) -> stats.Difference:
    """As `stats.compare` tests a pair."""
    return stats.difference(*stats.comparable(first, second), stats.share_noise(first, second))


def holm(p: Sequence[float | None], missing: float) -> list[float]:
    """Corrected values, tests that are missing taken to have had this one."""
    return [float(q) for q in stats.holm(np.array([missing if value is None else value for value in p], dtype=float))]


def decided(p: Sequence[float | None]) -> list[bool | None]:
    """Which tests of a family are significant after Holm's correction, whatever the missing ones will say.

    A test is corrected hardest if all missing ones turn out 1, and least if they turn out 0.
    """
    hardest, least = holm(p, missing=1.0), holm(p, missing=0.0)
    return [
        None if value is None else True if hard < ALPHA else False if easy >= ALPHA else None
        for value, hard, easy in zip(p, hardest, least, strict=True)
    ]


def _is(outcomes: Sequence[str | None], wanted: str) -> list[bool | None]:
    return [None if outcome is None else outcome == wanted for outcome in outcomes]


def median(rows: pd.DataFrame) -> float:
    """The median gap, floored at `TIE`, or the median value where the optimum is unknown."""
    values = np.maximum(stats.final_gaps(rows), TIE) if stats.optimum_known(rows) else stats.final_values(rows)
    return stats.quantile(values, 0.5)


# --- the rules -----------------------------------------------------------------------------------


def _leads(evidence: Evidence) -> None:
    """C1: differentiable CMA-ES has the lowest median, beats the classical one, and spreads less."""
    lowest: list[bool | None] = []
    for fn, dim in PROBLEMS:
        cells = {algo: rows for algo in ALGORITHMS if (rows := evidence.cell(algo, fn, dim)) is not None}
        medians = {algo: median(rows) for algo, rows in cells.items()}
        if "cmaes_diff" not in medians:
            lowest.append(None)
            continue
        winner = min(medians, key=lambda algo: medians[algo])
        if medians[winner] < medians["cmaes_diff"]:
            lowest.append(False)
            effect = _test(cells["cmaes_diff"], cells[winner])[2:]
            what = f"A12, cmaes_diff vs {winner}"
            evidence.finding.effects.append(
                Effect(stats.problem_title(fn, dim), what, f"{SEEDS}:{SEEDS}", *effect, says="not lowest")
            )
        else:
            lowest.append(True if len(medians) == len(ALGORITHMS) else None)
    evidence.count("lowest median of the eight algorithms", lowest, least=7)
    outcomes = evidence.tests(("cmaes_diff", "cmaes", fn, dim) for fn, dim in PROBLEMS)
    evidence.count("significantly better than cmaes", _is(outcomes, "better"), least=6)
    tighter = [_no_wider(evidence, fn, dim) for fn, dim in PROBLEMS if fn != "michalewicz"]
    evidence.count("interquartile range no wider than cmaes's", tighter, least=5)


def _no_wider(evidence: Evidence, fn: str, dim: int) -> bool | None:
    """Whether differentiable CMA-ES's gaps spread as little as the classical one's; those that are solved do not."""
    mine, other = evidence.cell("cmaes_diff", fn, dim), evidence.cell("cmaes", fn, dim)
    if mine is None or other is None:
        return None
    gaps, others = stats.comparable(mine, other)
    spread, classical = (stats.quantile(values, 0.75) - stats.quantile(values, 0.25) for values in (gaps, others))
    outcome = spread <= classical
    where, interval = stats.problem_title(fn, dim), stats.quantile_intervals(gaps)[1]
    says = f"{'no ' * outcome}wider than {classical:.2g}"
    evidence.finding.effects.append(
        Effect(where, "IQR of cmaes_diff", f"{SEEDS}:{SEEDS}", spread, *interval, says=says)
    )
    return outcome


def _follows(evidence: Evidence) -> None:
    """C2: differentiable PSO beats pymoo's, ranks second, and pymoo's stalls."""
    outcomes = evidence.tests(("pso_diff", "pso", fn, dim) for fn, dim in PROBLEMS)
    evidence.count("pso_diff significantly better than pso", _is(outcomes, "better"), least=5)
    cells = [[evidence.cell(algo, fn, dim) for algo in ALGORITHMS] for fn, dim in PROBLEMS]
    complete = [[rows for rows in row if rows is not None] for row in cells]
    if all(len(row) == len(ALGORITHMS) for row in complete):
        medians = pd.DataFrame([[median(rows) for rows in row] for row in complete], columns=ALGORITHMS)
        ranks = medians.rank(axis="columns").mean().sort_values()
        place = int((ranks < ranks["pso_diff"]).sum()) + 1
        order = ", ".join(f"{algo} {rank:.2f}" for algo, rank in ranks.items())
        evidence.finding.parts.append(
            Part(f"rank of pso_diff by average rank of medians: {place} ({order})", place <= 2)
        )
    else:
        whole = sum(len(row) == len(ALGORITHMS) for row in complete)
        text = f"rank of pso_diff by average rank of medians: open, {whole} of {len(PROBLEMS)} problems are complete"
        evidence.finding.parts.append(Part(text, None))
    stalls: list[bool | None] = []
    for fn, dim in PROBLEMS:
        rows = evidence.cell("pso", fn, dim)
        if rows is None:
            stalls.append(None)
            continue
        count = int(stalled(evidence.source.history, rows).sum())
        stalls.append(count > SEEDS / 2)
        interval = wilson(count, SEEDS)
        title = stats.problem_title(fn, dim)
        evidence.finding.effects.append(
            Effect(title, "share of pso's runs stalled", f"{SEEDS}", count / SEEDS, *interval)
        )
    evidence.count("pso stalls in most of its runs", stalls, least=4)


def stalled(history: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """Which runs of a cell, by seed, are unsolved and gain less than `STALLED` in the last half of their budget."""
    ((_, points),) = stats.split_history(history, rows).items()
    half, end = stats.trajectories(points, np.array([rows["budget"].iloc[0] / 2, math.inf])).T
    unsolved = ~(stats.final_gaps(rows) <= TIE)
    with np.errstate(invalid="ignore"):  # a run that was never finite has not improved
        improved = half - end >= STALLED * np.abs(half)
    return unsolved & ~improved


def _comparable(evidence: Evidence) -> None:
    """C3: differentiable GA and DE are much like the classical ones, worse on some rugged problem."""
    pairs = [(f"{family}_diff", family, fn, dim) for family in ("ga", "de") for fn, dim in PROBLEMS]
    outcomes = evidence.tests(pairs)
    evidence.count("ga_diff or de_diff significantly better", _is(outcomes, "better"), most=2)
    evidence.count("significantly worse", _is(outcomes, "worse"), most=8)
    hard = [
        outcome for (_, _, fn, _), outcome in zip(pairs, outcomes, strict=True) if fn in ("michalewicz", "rosenbrock")
    ]
    evidence.count("significantly worse on Michalewicz or Rosenbrock", _is(hard, "worse"), least=1)


def _stays_hard(evidence: Evidence) -> None:
    """C4: no algorithm solves Rosenbrock in half of its runs. Runs that are missing may succeed or fail."""
    outcomes: list[bool | None] = []
    for dim in DIMS:
        for algo in ALGORITHMS:
            found = evidence.found(algo, "rosenbrock", dim)
            runs = 0 if found is None else len(found)
            count = 0 if found is None else int((stats.final_gaps(found) <= TIE).sum())
            most = count + SEEDS - runs
            outcomes.append(False if count >= SEEDS / 2 else True if most < SEEDS / 2 else None)
            if runs:
                says = {True: "low", False: "solved by half", None: "open"}[outcomes[-1]]
                rate = (count / runs, *wilson(count, runs))
                where = stats.problem_title("rosenbrock", dim)
                evidence.finding.effects.append(Effect(where, f"success rate of {algo}", f"{runs}", *rate, says=says))
    evidence.count("fewer than half of the runs solve it", outcomes, least=len(outcomes))


def _speed(evidence: Evidence) -> None:
    """C5: seconds a run on this hardware, which decide nothing about the paper's."""
    for family in BASELINES:
        ratios = []
        for fn, dim in PROBLEMS:
            mine, other = evidence.cell(f"{family}_diff", fn, dim), evidence.cell(family, fn, dim)
            if mine is not None and other is not None:
                seconds, classical = ((rows["wall_s"] / rows["batch_size"]).median() for rows in (mine, other))
                ratios.append(float(classical / seconds))
        if ratios:
            what = f"seconds of {family} by those of {family}_diff, a run (range over problems)"
            where = f"{len(ratios)} of {len(PROBLEMS)} problems"
            summary = (float(np.median(ratios)), min(ratios), max(ratios))
            evidence.finding.effects.append(Effect(where, what, f"{SEEDS}:{SEEDS}", *summary))


def _scales(evidence: Evidence) -> None:
    """C6 as the paper has it: differentiable CMA-ES from the centre, the classical one from its own start."""
    mine = evidence.cell("cmaes_diff", "michalewicz", 500, init="centre")
    other = evidence.cell("cmaes", "michalewicz", 500, init="uniform")
    _far_below(evidence, "Michalewicz, 500D", "cmaes_diff vs cmaes", mine, other)


def _scales_from_one_start(evidence: Evidence) -> None:
    """C6 with the start taken out and gradients charged: also against the same program without a gradient."""
    mine, classical, plain = (
        evidence.charged(algo, "michalewicz", 500, init="centre") for algo in ("cmaes_diff", "cmaes", "cmaes_plain")
    )
    where = "Michalewicz, 500D"
    pairs = [
        (where, "cmaes_diff vs cmaes, both from the centre", mine, classical),
        (where, "cmaes_diff vs cmaes_plain, both from the centre", mine, plain),
    ]
    _far_better(evidence, pairs)
    if mine is not None and classical is not None:
        below = int((stats.final_values(mine) < stats.quantile(stats.final_values(classical), 0.5)).sum())
        what = "share of cmaes_diff's runs below the median of cmaes"
        evidence.finding.effects.append(Effect(where, what, f"{SEEDS}", below / SEEDS, *wilson(below, SEEDS)))
    if ("cmaes_tpa", "michalewicz", 500) not in evidence.source.cells:
        return
    today = evidence.charged("cmaes_tpa", "michalewicz", 500, init="centre")
    if mine is not None and today is not None:
        what = "A12, cmaes_diff vs cmaes_tpa, both from the centre (no part of the rule)"
        evidence.finding.effects.append(Effect(where, what, f"{SEEDS}:{SEEDS}", *_test(mine, today)[2:]))


def _trains(evidence: Evidence) -> None:
    """C7 as the paper has it: the loss that broadcasts, Adam from U(-10, 10), CMA-ES from N(0, 0.5² I)."""
    mine = evidence.cell("cmaes_diff", "wine_broadcast", WINE_DIM, init="centre", gradient_cost=0)
    other = evidence.cell("adam", "wine_broadcast", WINE_DIM, init="uniform", gradient_cost=0)
    _far_below(evidence, "wine, the loss broadcast", "cmaes_diff vs adam", mine, other)


def _trains_from_one_start(evidence: Evidence) -> None:
    """C7 with the right loss, from either start, and gradients charged."""
    for init in ("uniform", "centre"):
        mine, other = (
            evidence.charged(algo, "wine", WINE_DIM, init=init, gradient_cost=0) for algo in ("cmaes_diff", "adam")
        )
        _far_below(evidence, "wine", f"cmaes_diff vs adam, {init} start", mine, other)


def _far_better(evidence: Evidence, pairs: Sequence[Pair]) -> None:
    """A part for each pair: significantly better by a large effect."""
    before = len(evidence.finding.effects)
    outcomes = evidence.contrast(pairs)
    tested = iter(evidence.finding.effects[before:])
    for (_, what, mine, other), outcome in zip(pairs, outcomes, strict=True):
        effect = None if mine is None or other is None else next(tested).value
        known = "open" if effect is None else f"A12 {effect:.2f}"
        holds = None if outcome is None or effect is None else outcome == "better" and effect >= LARGE
        text = f"significantly better, {what}, by a large effect: {known} (needed: {LARGE})"
        evidence.finding.parts.append(Part(text, holds))


def _far_below(
    evidence: Evidence, where: str, what: str, mine: pd.DataFrame | None, other: pd.DataFrame | None
) -> None:
    """Significantly better by a large effect, the worst run below the other's median."""
    _far_better(evidence, [(where, what, mine, other)])
    if mine is not None and other is not None:
        worst, median = float(stats.final_values(mine).max()), stats.quantile(stats.final_values(other), 0.5)
        text = f"its worst run, {worst:.4g}, is below the other's median, {median:.4g}"
        evidence.finding.parts.append(Part(text, worst < median))


# --- the claims ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """What the paper says, and the rule that decides it.

    Attributes:
        id: C1 to C7.
        sentence: the claim in short.
        section, quote: where and how the paper has it.
        rule: the decision rule, written from the quote.
        judge: adds the rule's parts to the evidence of the directories `paper` and `fair`.
        why: what lies behind the difference between the protocols, or between the two sides.
        ablations: the configs that take these things apart.
        fair_judge: the rule under the fair protocol, where it is another one.
        lacking: what is lacking to test it, else empty.
    """

    id: str
    sentence: str
    section: str
    quote: str
    rule: str
    judge: Callable[[Evidence], None]
    why: str = ""
    ablations: tuple[str, ...] = ()
    paper: tuple[str, str] = ("figure1", "paper")
    fair: tuple[str, str] | None = ("figure1-fair", "fair")
    fair_judge: Callable[[Evidence], None] | None = None
    lacking: str = ""


CLAIMS = (
    Claim(
        "C1",
        "differentiable CMA-ES is best nearly everywhere",
        "§3, Figure 1",
        "Our differentiable CMAES consistently achieves the best performance across nearly all benchmark functions "
        "and dimensions, particularly on Ackley, Griewank, and Rosenbrock, where it achieves both lower medians and "
        "tighter distributions.",
        "Of the 8 problems (4 functions, 30D and 50D): the lowest median of the eight algorithms in 7 or more (those "
        "that solve a problem share the lowest), and significantly better than pymoo's CMA-ES in 6 or more. Of the 6 "
        "problems without Michalewicz: an interquartile range no wider than that one's in 5 or more.",
        _leads,
        why="Its mean starts at the centre of the box, Ackley's and Griewank's optimum, with σ = 0.5; pymoo's starts "
        "at a random point with σ = 20. The fair protocol moves the optimum and starts both at random. Apart from its "
        "start, its weights and its gradient steps it is the CMA-ES of Hansen's tutorial.",
        ablations=("ablation-start", "ablation-shift", "ablation-gradient", "ablation-lr"),
    ),
    Claim(
        "C2",
        "differentiable PSO follows closely; pymoo's PSO converges prematurely",
        "§3, Figure 1",
        "Differentiable PSO is also highly competitive, closely following CMAES in most settings. [...] Even though "
        "the pymoo PSO version is able to autotune its parameters, it often suffers from premature convergence, while "
        "its differentiable counterpart maintains a better exploration-exploitation balance.",
        "Significantly better than pymoo's PSO on 5 or more of 8 problems; first or second of the eight algorithms by "
        "average rank of medians; and on 4 or more problems most of pymoo's runs are unsolved and improve by less than "
        "0.1% over the last half of their budget.",
        _follows,
        why="Both adapt ω, c1 and c2, pymoo's by a rule and the differentiable one by its gradient, which moves "
        "positions too.",
        ablations=("ablation-gradient", "ablation-released", "ablation-lr"),
    ),
    Claim(
        "C3",
        "differentiable GA and DE are like the classical ones, sometimes worse",
        "§3, Figure 1",
        "In contrast, differentiable GA and DE perform comparably to their standard versions and occasionally "
        "underperform, particularly on Michalewicz and Rosenbrock, where gradient information may not align well with "
        "the problem geometry.",
        "Of the 16 comparisons with pymoo's GA and DE: significantly better in 2 at most, significantly worse in half "
        "(8) at most, and significantly worse in 1 or more on Michalewicz or Rosenbrock.",
        _comparable,
        why="Soft parents are averages of the population. They lie nearer to its middle than its members do, so at "
        "first nearer to the centre of the box, where Ackley and Griewank have their optimum, and diversity is lost. "
        "The fair protocol moves the optimum.",
        ablations=("ablation-selection", "ablation-selection-shifted", "ablation-gradient"),
    ),
    Claim(
        "C4",
        "Rosenbrock stays hard for all",
        "§3, Figure 1",
        "Rosenbrock, known for its narrow curved valley, remains challenging for all algorithms.",
        "At 30D and 50D, each of the eight algorithms solves Rosenbrock (gap up to 1e-8) in fewer than half of its "
        "runs.",
        _stays_hard,
        why="A curved valley is what a full covariance matrix is for. What can keep the differentiable CMA-ES from "
        "solving it are its gradient steps and, in the released code, its constants.",
        ablations=("ablation-gradient", "ablation-lr", "ablation-constants"),
    ),
    Claim(
        "C5",
        "EvoGrad is about 3 times as fast as pymoo",
        "§3",
        "Notably, EvoGrad implementations run approximately 3× faster than the equivalent pymoo versions executed on "
        "CPU.",
        "None: it is a statement about the authors' code on their NVIDIA RTX 4090 and Xeon. The ratio of seconds a run "
        "on the hardware of the stored runs is given for information.",
        _speed,
        fair=None,
        lacking="an NVIDIA RTX 4090",
    ),
    Claim(
        "C6",
        "at 500D differentiable CMA-ES is far better than the classical one",
        "§3, Figure 2",
        "In terms of solution quality, the classical CMAES converged to a best fitness of -28.82, whereas the "
        "differentiable variant consistently achieved substantially lower values across all runs, with best fitness "
        "values ranging from -93.40 to -103.97",
        "Michalewicz 500D, 30 runs each. The paper's protocol: significantly better than pymoo's CMA-ES (CSA) by a "
        "large effect, and its worst run below the classical median. Fair: from the same start, a gradient charged as "
        "5 evaluations, significantly better by a large effect than pymoo's CMA-ES and than its own program without "
        "the gradient.",
        _scales,
        why="The paper's curve compares two starts as well as two programs: the centre of the box, with σ = 0.5, and a "
        "random point, with σ = 20. Its classical program adapts σ by its path (CSA), as pymoo's did by default then; "
        "what cma itself takes at 500D today is two-point adaptation (cmaes_tpa).",
        ablations=("ablation-gradient-500d",),
        paper=("figure2", "paper"),
        fair=("figure2", "paper"),
        fair_judge=_scales_from_one_start,
    ),
    Claim(
        "C7",
        "differentiable CMA-ES trains the wine network better than Adam",
        "§3",
        "Across 30 independent runs, Adam achieved an average best final loss (ABF) of 71.90 ± 15.34 (min: 34.51, max: "
        "89.80), while CMAES achieved a significantly lower ABF of 5.66 ± 0.39 (min: 5.19, max: 6.47), with comparable "
        "computational time.",
        "Final losses of 30 runs each significantly lower than Adam's by a large effect, and the worst run below "
        "Adam's median. Fair: the same from one start for both, either of the two, with a gradient charged as 5 "
        "evaluations and a loss that compares each prediction with its own target.",
        _trains,
        why="Judged as the authors' code runs it: Adam starts from U(-10, 10) and CMA-ES from N(0, 0.5²), where tanh "
        "is not saturated. The paper's text has both start from U(-10, 10), as one part of the fair half does. The "
        "loss compares each prediction with every target, so that none is lower than the variance of the targets.",
        paper=("wine", "paper"),
        fair=("wine", "paper"),
        fair_judge=_trains_from_one_start,
    ),
)


@dataclass(frozen=True)
class Judgement:
    """A claim, what each protocol says, and the verdict."""

    claim: Claim
    paper: Finding
    fair: Finding | None

    @property
    def verdict(self) -> Verdict:
        """The claim is the paper's, so its protocol decides whether it is reproduced, and the fair one how far."""
        if self.claim.lacking:
            return "not testable"
        if self.paper.holds is None or self.fair is None:
            return "evidence missing"
        if not self.paper.holds:
            return "not reproduced"
        if self.fair.holds is None:
            return "evidence missing"
        return "reproduced" if self.fair.holds else "reproduced only under the paper's protocol"


Sources = Callable[[str, str], Source]
"""Gives an experiment's source by its name and protocol."""


def sources(results: Path) -> Sources:
    """The experiments under a directory, each read once however many judge by it."""
    return cache(partial(Source, results))


def judge(results: Path, claims: Sequence[Claim] = CLAIMS, source: Sources | None = None) -> list[Judgement]:
    """Each claim by the runs under `results`.

    Args:
        source: of these results, where something else is judged by them too.

    Raises:
        StoreError: if a file there is damaged or not one of ours.
    """
    source = source or sources(results)

    def finding(where: tuple[str, str], rule: Callable[[Evidence], None]) -> Finding:
        evidence = Evidence(source(*where))
        rule(evidence)
        return evidence.finding

    return [
        Judgement(
            claim,
            finding(claim.paper, claim.judge),
            finding(claim.fair, claim.fair_judge or claim.judge) if claim.fair else None,
        )
        for claim in claims
    ]
