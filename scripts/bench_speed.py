"""How fast evobench is against pymoo and evosax on the work of one cell: 30 runs, Ackley, one machine.

    python scripts/bench_speed.py [--dim 30] [--share 0.1] [--rounds 3] [--peer PYTHON]
    python scripts/bench_speed.py --draw                        # the stored measurements alone

Shared machines are noisy, so contestants take turns (evobench, evobench compiled, pymoo, evosax, …)
and only the ratios of a round are reported, as their median over rounds. Each contestant does `--share` of the
budget, `--compile` five times the budget, and its time is scaled to all of it. pymoo runs one process a core, so 30
runs take 30/cores times one run; its start-up is not counted. evosax needs an environment of its own
(`pip install jax evosax`), whose interpreter is given by `--peer`. Compilation is not counted, for
neither evosax nor `--compile`: a run of two generations is, as start-up, subtracted. It is reported
for `--compile`, with what it takes where the compiler's cache is empty. Everything measured is
written to results/speed/, and drawn with what is there of other dimensions.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from evobench.figures import FAMILY_COLOURS, FAMILY_NAMES, STYLE, save

if TYPE_CHECKING:
    from evobench.tasks import Task

RUNS, START = 30, 300
FAMILIES = {"pso": "PSO", "ga": "SimpleGA", "de": "DifferentialEvolution", "cmaes": "CMA_ES"}
BARS = {
    "pymoo": {"pso": 100.0, "ga": 25.0, "de": 25.0, "cmaes": 25.0},
    "evosax": {"pso": 2.0, "ga": 2.0, "de": 1.0, "cmaes": 1.0},
}
"""Times faster than pymoo at least; times evosax's time at most."""
LONGER = 5
"""Times the budget that a compiled contestant runs; its time is divided by that."""
MARKERS = "os^D"
OUT = Path("results/speed")


def cell(algorithm: str, dim: int, budget: int, compile: bool = False) -> Any:
    """The cell of the paper's protocol, with another budget."""
    from evobench.experiment import make_experiment

    content = {"algo": algorithm, "fn": "ackley", "dim": dim, "seeds": RUNS, "budget": budget, "compile": compile}
    return make_experiment(content).cells()[0]


def wall_seconds(task: Task) -> float:
    """Seconds of the runs of a task in this process."""
    from evobench.tasks import execute

    return execute(task, lambda share, best: None)[0].wall_s


def ours(algorithm: str, dim: int, budget: int, compile: bool = False) -> float:
    """Seconds of all runs with all cores, as one tensor program."""
    from evobench.tasks import Task

    return wall_seconds(Task(cell(algorithm, dim, budget, compile), tuple(range(RUNS))))


def compiled(algorithm: str, dim: int, budget: int) -> tuple[float, float]:
    """The same, compiled: seconds without start-up, and the seconds of start-up.

    `LONGER` times the budget is run, or the start-up's own noise would be much of what is left.
    """
    startup = ours(algorithm, dim, START, compile=True)
    return (ours(algorithm, dim, LONGER * budget, compile=True) - startup) / LONGER, startup


def one_pymoo_run(algorithm: str, dim: int, budget: int, seed: int) -> float:
    """Seconds of one run in this process."""
    from evobench.tasks import Task

    return wall_seconds(Task(cell(algorithm, dim, budget), (seed,)))


def pymoo(pool: ProcessPoolExecutor, algorithm: str, dim: int, budget: int, cores: int) -> float:
    """Seconds of all runs on all cores: one run on every core at once, times 30/cores."""
    times = pool.map(one_pymoo_run, *zip(*((algorithm, dim, budget, seed) for seed in range(cores)), strict=True))
    return statistics.mean(times) * RUNS / cores


def evosax(python: str, algorithm: str, dim: int, generations: int) -> float:
    """Seconds of all runs, vmapped and compiled."""
    script = Path(__file__).with_name("peer_evosax.py")
    arguments = [python, str(script), str(dim), str(generations), FAMILIES[algorithm]]
    line = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    return float(line[3])


def keep(measured: pd.DataFrame, target: Path) -> None:
    """Write what was measured, with versions, machine and commit."""
    from evobench.tasks import provenance

    target.parent.mkdir(parents=True, exist_ok=True)
    measured.assign(**provenance()).to_parquet(target, index=False)
    print(f"written to {target}")


@rc_context(STYLE)
def draw(measured: pd.DataFrame) -> Figure:
    """A panel a peer, faster to the right: rounds as points, their median as a marker, the bar as a line."""
    dims = sorted(measured["dim"].unique())
    figure = Figure(figsize=(6.8, 2.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows = {
        (family, dim): -(i + 0.32 * (j - (len(dims) - 1) / 2))
        for i, family in enumerate(FAMILIES)
        for j, dim in enumerate(dims)
    }
    for ax, (peer, bars) in zip(panels, BARS.items(), strict=True):
        for (algo, dim), part in measured.groupby(["algo", "dim"]):
            family = str(algo).partition("_")[0]
            y, colour = rows[family, dim], FAMILY_COLOURS[family]
            for way, face in (("compiled", colour), ("evobench", "white")):
                times = part[peer] / part[way] if peer == "pymoo" else part[way] / part[peer]
                ax.plot(times, [y] * len(times), ".", color=colour, markersize=2.5)
                ax.plot(times.median(), y, MARKERS[dims.index(dim)], color=colour, markerfacecolor=face, markersize=5)
        for i, family in enumerate(FAMILIES):
            ax.plot([bars[family]] * 2, [-i - 0.4, -i + 0.4], color="0.4", linewidth=1.2, zorder=1)
        ax.set(xscale="log", title="times faster than pymoo" if peer == "pymoo" else f"times {peer}'s time")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_inverted(peer != "pymoo")
        ax.grid(axis="x")
        ax.grid(visible=False, axis="y")
    panels[0].set_yticks([-i for i in range(len(FAMILIES))], [FAMILY_NAMES[family] for family in FAMILIES])
    look: Any = {"linestyle": "", "color": "black", "markersize": 5}
    handles = [
        Line2D([], [], marker=MARKERS[j], markerfacecolor="0.6", label=f"{dim}D", **look) for j, dim in enumerate(dims)
    ]
    handles += [
        Line2D([], [], marker="o", label="compiled", **look),
        Line2D([], [], marker="o", markerfacecolor="white", label="not compiled", **look),
        Line2D([], [], color="0.4", linewidth=1.2, label="the bar"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), columnspacing=1.2, handlelength=1.2)
    return figure


def stored() -> pd.DataFrame:
    """What has been measured, of every dimension."""
    return pd.concat([pd.read_parquet(path) for path in sorted(OUT.glob("bench-*d.parquet"))], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.1, help="part of the budget that is run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="interpreter of an environment with jax and evosax")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.draw:
        print(*save(draw(stored()), OUT / "bench"), sep="\n")
        return
    from evobench.executors import WORKER_ENVIRONMENT, keep_freed_memory, single_threaded
    from evobench.experiment import default_budget

    full, cores = default_budget(options.dim), os.cpu_count() or 1
    budget = round(full * options.share / 100) * 100
    scale = full / budget
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # pymoo gets what `evobench run` gives it
    keep_freed_memory()  # and so do we
    print(f"{RUNS} runs x {full} evaluations, {options.dim}D Ackley, {cores} cores, median of {options.rounds} rounds")
    print("seconds of the whole work; in brackets how many times faster than pymoo, and how many times evosax's time")
    measured = []
    with (
        tempfile.TemporaryDirectory() as cache,
        ProcessPoolExecutor(cores, get_context("spawn"), single_threaded) as pool,
    ):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # empty: the first compilation is the whole of it
        for family in FAMILIES:
            name = f"{family}_diff"
            ours(name, options.dim, 2000)  # warm up
            first = ours(name, options.dim, START, compile=True)
            list(pool.map(one_pymoo_run, [family] * cores, [options.dim] * cores, [500] * cores, range(cores)))
            rounds = []
            for _ in range(options.rounds):
                fused, startup = compiled(name, options.dim, full)
                rounds.append(
                    {
                        "evobench": ours(name, options.dim, budget) * scale,
                        "compiled": fused,
                        "pymoo": pymoo(pool, family, options.dim, budget, cores) * scale,
                        "evosax": evosax(options.peer, family, options.dim, budget // 100) * scale
                        if options.peer
                        else float("nan"),
                        "compile_s": startup,
                        "first_compile_s": first,
                    }
                )
            frame = pd.DataFrame(rounds)
            measured.append(frame.assign(algo=name, dim=options.dim, share=options.share, round=frame.index))
            medians = frame.median()
            parts = [
                f"{way} {medians[way]:6.1f} ({(frame['pymoo'] / frame[way]).median():4.0f}x, "
                f"{(frame[way] / frame['evosax']).median():4.2f}x)"
                for way in ("evobench", "compiled")
            ]
            print(
                f"{family:6s} {'   '.join(parts)}   pymoo {medians['pymoo']:6.0f}   evosax {medians['evosax']:5.1f}   "
                f"to compile: {first:.0f} s, cached {medians['compile_s']:.0f} s",
                flush=True,
            )
    keep(pd.concat(measured), OUT / f"bench-{options.dim}d.parquet")
    print(*save(draw(stored()), OUT / "bench"), sep="\n")


if __name__ == "__main__":
    main()
