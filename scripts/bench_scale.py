"""What a generation costs as runs and dimensions grow: Ackley, 100 individuals, float32, with gradients.

    python scripts/bench_scale.py [--runs 1,3,…] [--dims 10,30,…] [--algos pso,…] [--compile] [--rounds 3]
    python scripts/bench_scale.py --quick                       # a look, in seconds
    python scripts/bench_scale.py --draw                        # the stored measurements alone

Runs grow at 30D, dimensions at 30 runs. More than 100 runs are batches on all cores, as `evobench run` has them
(the start of its processes is not counted). Contestants take turns in every round, and medians over rounds are
reported; the machine should be quiet all the same, as from 150D on operations use several threads. Timed are
as many generations as take about `--seconds` (at least 5), with the start of the runs. A contestant whose next
generation would take longer than `--longest` or hold more than `--memory` is left out. `--compile` adds compiled
contestants, with 30 times as many generations; compiling takes up to a minute each and is not counted: choose
some. Measurements and figure go to results/speed/ (`--out`).

The bars: a run costs 10 times less among 30 than alone, and less still among more; PSO, GA and DE are linear in
the dimension; CMA-ES grows no faster than D²N + D³. Alone, a run is computed twice (a batch of one takes
other BLAS kernels), so with an overhead of a ms and b ms a run, "10 times" needs a ≥ 12 b.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_speed import FAMILIES, RUNS, cell, keep, wall_seconds
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from evobench.executors import WORKER_ENVIRONMENT, keep_freed_memory, single_threaded
from evobench.figures import FAMILY_COLOURS, FAMILY_NAMES, STYLE, save
from evobench.runner import batches, cores
from evobench.tasks import footprint

DIM, POP = 30, 100
FEW = 3
"""Generations of a run that warms up."""
CHEAPER, LINEAR, SLACK = 10.0, 1.0, 0.1
"""The bars: times cheaper among 30 runs than alone, slope in the dimension, and what noise may add to a slope."""
COMPILED = 30
"""Times as many generations of a compiled contestant, so that the compiler's own noise is small beside them."""
LARGE = 100
"""Dimensions from which on slopes are fitted: below, a generation is mostly overhead."""
MARKERS = {"pso": "o", "ga": "s", "de": "^", "cmaes": "D"}


def work(family: str, dim: float) -> float:
    """How a generation's work grows with the dimension: N D, and for CMA-ES D² N + D³."""
    return dim**2 * POP + dim**3 if family == "cmaes" else float(dim)


class Contestant:
    """One algorithm at one size; `generations` are those that are timed."""

    def __init__(self, family: str, runs: int, dim: int, compile: bool, pool: Executor) -> None:
        self.family, self.runs, self.dim, self.compile, self.generations = family, runs, dim, compile, 0
        self.pool = pool

    @property
    def measured(self) -> dict[str, Any]:
        """What a row says of it."""
        return {name: value for name, value in vars(self).items() if name != "pool"}

    def seconds(self, generations: int, compile: bool) -> float:
        start = self.family != "cmaes"  # evaluates a population
        tasks = batches(cell(f"{self.family}_diff", self.dim, (start + generations) * POP, compile), range(self.runs))
        if len(tasks) == 1:
            return wall_seconds(tasks[0])
        started = time.perf_counter()
        list(self.pool.map(wall_seconds, tasks))
        return time.perf_counter() - started

    def prepare(self, seconds: float) -> float:
        """Warm up; an eager generation's seconds, roughly, from which follows how many are timed."""
        self.seconds(FEW, self.compile)
        guess = self.seconds(FEW, compile=False) / FEW
        self.generations = min(max(round(seconds / max(guess, 1e-4)), 5), 5000)
        return guess

    def measure(self) -> float:
        """Milliseconds a generation. To take the compiler's time off, a short run is subtracted."""
        short = FEW if self.compile else 0
        compiling = self.seconds(short, compile=True) if short else 0.0
        return 1000 * (self.seconds(short + self.generations, self.compile) - compiling) / self.generations


def contestants(options: argparse.Namespace, pool: Executor) -> list[Contestant]:
    """Those whose generations are neither too long nor too large, warmed up."""
    sizes = [(runs, DIM) for runs in options.runs] + [(RUNS, dim) for dim in options.dims if dim != DIM]
    chosen = []
    for compile in (False, True) if options.compile else (False,):
        for family in options.algos:
            last: dict[int, float] = {}  # seconds of a generation, by dimension
            for runs, dim in sizes:
                one = Contestant(family, runs, dim, compile, pool)
                gib = runs * footprint(cell(f"{family}_diff", dim, FEW * POP)) / 2**30
                smaller = max((known for known in last if known < dim), default=None)
                guess = last[smaller] * work(family, dim) / work(family, smaller) if runs == RUNS and smaller else 0.0
                if gib > options.memory or guess > options.longest:
                    print(f"left out: {FAMILY_NAMES[family]}, {runs} runs, {dim}D: about {guess:.0f} s, {gib:.1f} GiB")
                    continue
                found = one.prepare(options.seconds * (COMPILED if compile else 1))
                if runs == RUNS:
                    last[dim] = found
                chosen.append(one)
    return chosen


def fit(costs: pd.Series[float]) -> tuple[float, float]:
    """Overhead a and cost of a run b, milliseconds, of costs a + b · runs (one run is computed twice), by
    least squares of relative errors."""
    runs, cost = np.maximum(costs.index.to_numpy(float), 2), costs.to_numpy()
    (a, b), *_ = np.linalg.lstsq(np.stack([1 / cost, runs / cost], 1), np.ones(len(cost)), rcond=None)
    return float(a), float(b)


def slope(dims: Any, costs: Any) -> float:
    """d log cost / d log D, fitted."""
    return float(np.polyfit(np.log(np.asarray(dims, float)), np.log(np.asarray(costs, float)), 1)[0])


def name_of(family: str, compile: bool) -> str:
    return FAMILY_NAMES[family] + (", compiled" if compile else "")


def table(title: str, costs: pd.DataFrame) -> None:
    print(f"\n{title}")
    for (family, compile), row in costs.iterrows():
        name = name_of(family, compile)
        print(f"{name:17s}" + "".join(f"{value:9.3g}" if np.isfinite(value) else f"{'-':>9s}" for value in row))


def verdict(met: bool) -> str:
    return "met" if met else "NOT met"


def report(by_runs: pd.DataFrame, by_dim: pd.DataFrame) -> None:
    """Both tables, and what they say of the bars."""
    heads = {
        frame.columns.name: f"{'':17s}" + "".join(f"{column:9d}" for column in frame.columns)
        for frame in (by_runs, by_dim)
    }
    per_run = by_runs / by_runs.columns.to_numpy()
    table(f"milliseconds a run and generation, {DIM}D, by runs\n{heads['runs']}", per_run)
    for (family, compile), costs in by_runs.iterrows():
        costs = costs.dropna()
        name = name_of(family, compile)
        shares = costs / costs.index.to_numpy()
        if {1, RUNS} <= set(costs.index):
            times, later = shares[1] / shares[RUNS], shares[shares.index >= RUNS]
            a, b = fit(costs)
            print(
                f"{name}: {times:.1f} times cheaper among {RUNS} (bar {CHEAPER:.0f}: {verdict(times >= CHEAPER)}), "
                f"and then {'falling' if (later.diff().dropna() <= 0).all() else 'not falling'}, "
                f"to {later.iloc[-1] / later.iloc[0]:.2f} among {later.index[-1]}; "
                f"{a:.2f} ms + {b:.3f} ms a run, a/b = {a / b:.0f}"
            )
    table(f"milliseconds a generation of {RUNS} runs, by dimension\n{heads['dim']}", by_dim)
    for (family, compile), costs in by_dim.iterrows():
        costs = costs.dropna()
        name = name_of(family, compile)
        large = costs[costs.index >= LARGE]
        if len(large) > 1:
            found, bar = slope(large.index, large), slope(large.index, [work(family, dim) for dim in large.index])
            model = f"D²N + D³ has {bar:.2f}" if family == "cmaes" else "linear is 1"
            print(f"{name}: slope {found:.2f} from {LARGE}D on, {model}: {verdict(found <= bar + SLACK)}")


@rc_context(STYLE)
def draw(by_runs: pd.DataFrame, by_dim: pd.DataFrame) -> Figure:
    """Left what a run costs among how many, right what a generation costs; dotted what the bars say."""
    figure = Figure(figsize=(6.8, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    per_run = by_runs / by_runs.columns.to_numpy()
    _lines(left, per_run, lambda family, runs: 1 / runs, first=True)
    _lines(right, by_dim, work, first=False)
    left.set(title=f"one run, {DIM}D", xlabel="runs", ylabel="milliseconds a run and generation")
    right.set(title=f"a generation of {RUNS} runs", xlabel="dimension $D$", ylabel="milliseconds a generation")
    handles = [
        Line2D([], [], color=FAMILY_COLOURS[family], marker=MARKERS[family], markersize=3.5, label=FAMILY_NAMES[family])
        for family in dict.fromkeys(by_dim.index.get_level_values(0))
    ]
    if by_dim.index.get_level_values(1).any():
        handles.append(Line2D([], [], color="black", linestyle=(0, (4, 1.5)), label="compiled"))
    bars = "∝ 1/runs; ∝ $D$, CMA-ES ∝ $D^2N + D^3$"
    handles.append(Line2D([], [], color="0.5", linestyle=":", linewidth=1, label=bars))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.2, handlelength=1.5)
    return figure


def _lines(ax: Axes, costs: pd.DataFrame, model: Callable[[str, float], float], first: bool) -> None:
    """A line a contestant, and its model through the first or the last point where it is not compiled."""
    ax.set(xscale="log", yscale="log")
    for (family, compile), row in costs.iterrows():
        row = row.dropna()
        look = {"color": FAMILY_COLOURS[family], "linewidth": 1.1}
        style = (0, (4, 1.5)) if compile else "-"
        ax.plot(row.index, row, linestyle=style, marker=MARKERS[family], markersize=3.5, **look)
        if compile:
            continue
        x = np.geomspace(row.index[0], row.index[-1], 50)
        values = np.array([model(family, value) for value in x])
        anchor = 0 if first else -1
        reference = values * (row.iloc[anchor] / values[anchor])
        shown = reference >= row.min() / 3
        ax.plot(x[shown], reference[shown], linestyle=":", linewidth=0.8, color=look["color"], zorder=1)
    ax.set_xticks(list(costs.columns), [str(column) for column in costs.columns])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())


def numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=numbers, default=[1, 3, 10, 30, 100, 300])
    parser.add_argument("--dims", type=numbers, default=[10, 30, 100, 300, 1000])
    parser.add_argument("--algos", type=lambda text: text.split(","), default=list(FAMILIES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--longest", type=float, default=15.0, help="seconds a generation, at most")
    parser.add_argument("--memory", type=float, default=6.0, help="GiB, at most")
    parser.add_argument("--out", type=Path, default=Path("results/speed"))
    parser.add_argument("--quick", action="store_true", help="few sizes, one round")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw what is stored")
    options = parser.parse_args()
    stored = options.out / "scale.parquet"
    if options.draw:
        return show(stored)
    if options.quick:
        options.runs, options.dims, options.rounds, options.seconds = [1, 10, 30, 100], [30, 100, 300], 1, 0.1
    unknown = set(options.algos) - set(FAMILIES)
    if unknown:
        parser.error(f"unknown algorithm '{min(unknown)}': choose from {', '.join(FAMILIES)}")
    started = time.perf_counter()
    os.environ.update(WORKER_ENVIRONMENT)  # of the processes of the pool; this one has begun
    keep_freed_memory()
    with ProcessPoolExecutor(cores(), get_context("spawn"), single_threaded) as pool:
        field = contestants(options, pool)
        rows = [
            {**one.measured, "round": number, "ms": one.measure()} for number in range(options.rounds) for one in field
        ]
    keep(pd.DataFrame(rows), stored)
    show(stored)
    print(f"{time.perf_counter() - started:.0f} s")


def show(stored: Path) -> None:
    """Say and draw what was measured."""
    measured = pd.read_parquet(stored)
    medians = measured.groupby(["family", "compile", "runs", "dim"], sort=False)["ms"].median().reset_index()
    index = ["family", "compile"]
    by_runs = medians[medians["dim"] == DIM].pivot(index=index, columns="runs", values="ms")
    by_dim = medians[medians["runs"] == RUNS].pivot(index=index, columns="dim", values="ms")
    order = [(family, compile) for compile in (False, True) for family in FAMILIES]
    by_runs, by_dim = (frame.loc[[key for key in order if key in frame.index]] for frame in (by_runs, by_dim))
    report(by_runs, by_dim)
    print(*save(draw(by_runs, by_dim), stored.with_suffix("")), sep="\n")


if __name__ == "__main__":
    main()
