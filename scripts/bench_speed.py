"""How fast evobench is against pymoo and evosax on the work of one cell: 30 runs, Ackley, one machine.

    python scripts/bench_speed.py [--dim 30] [--share 0.1] [--rounds 3] [--peer PYTHON]

Shared machines are noisy, so contestants take turns (evobench, pymoo, evosax, evobench, …) and only
the ratios of a round are reported, as their median over rounds. Each contestant does `--share` of the
budget, and its time is scaled to all of it. pymoo runs one process a core, so 30 runs take 30/cores
times one run; its start-up is not counted. evosax needs an environment of its own (`pip install jax
evosax`), whose interpreter is given by `--peer`; its compile time is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

RUNS = 30
FAMILIES = {"pso": "PSO", "ga": "SimpleGA", "de": "DifferentialEvolution", "cmaes": "CMA_ES"}
BARS = {"pso": (3, 50), "ga": (3, 10), "de": (3, 10), "cmaes": (3, None)}
"""At most so many times evosax's time, at least so many times faster than pymoo."""


def cell(algorithm: str, dim: int, budget: int):
    """The cell of the paper's protocol, with another budget."""
    from evobench.experiment import make_experiment

    content = {"algo": algorithm, "fn": "ackley", "dim": dim, "seeds": RUNS, "budget": budget}
    return make_experiment(content).cells()[0]


def ours(algorithm: str, dim: int, budget: int) -> float:
    """Seconds of all runs as one tensor program, with all cores."""
    from evobench.runner import Task, execute

    return execute(Task(cell(algorithm, dim, budget), tuple(range(RUNS))), lambda share, best: None)[0].wall_s


def one_pymoo_run(algorithm: str, dim: int, budget: int, seed: int) -> float:
    from evobench.runner import Task, execute

    return execute(Task(cell(algorithm, dim, budget), (seed,)), lambda share, best: None)[0].wall_s


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=30)
    parser.add_argument("--share", type=float, default=0.1, help="part of the budget that is run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="interpreter of an environment with jax and evosax")
    options = parser.parse_args()
    from evobench.experiment import default_budget
    from evobench.runner import WORKER_ENVIRONMENT

    full, cores = default_budget(options.dim), os.cpu_count() or 1
    budget = round(full * options.share / 100) * 100
    scale = full / budget
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # pymoo gets what `evobench run` gives it
    print(f"{RUNS} runs x {full} evaluations, {options.dim}D Ackley, {cores} cores, median of {options.rounds} rounds")
    print(f"{'':7s} {'evobench':>10s} {'pymoo':>10s} {'evosax':>10s} {'faster than pymoo':>24s} {'times evosax':>19s}")
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        for family in FAMILIES:
            ours(f"{family}_diff", options.dim, 2000)  # warm up
            list(pool.map(one_pymoo_run, [family] * cores, [options.dim] * cores, [500] * cores, range(cores)))
            rounds = []
            for _ in range(options.rounds):
                mine = ours(f"{family}_diff", options.dim, budget) * scale
                theirs = pymoo(pool, family, options.dim, budget, cores) * scale
                peer = (
                    evosax(options.peer, family, options.dim, budget // 100) * scale if options.peer else float("nan")
                )
                rounds.append((mine, theirs, peer))
            mine, theirs, peer = (statistics.median(column) for column in zip(*rounds, strict=True))
            faster = statistics.median(b / a for a, b, _ in rounds)
            times = statistics.median(a / c for a, _, c in rounds)
            most, least = BARS[family]
            print(
                f"{family:7s} {mine:9.1f}s {theirs:9.1f}s {peer:9.1f}s "
                f"{faster:12.1f}x {f'(bar {least}x)' if least else '':>10s} {times:9.2f}x (bar {most}x)",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
