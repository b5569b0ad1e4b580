"""What the paper's experiments cost on 1, 10 and 100 machines, from the seconds that stored runs took.

    python scripts/cluster_cost.py [results/figure1] [--cores 2] [--config configs/figure1.yaml]

Each task of the config takes the mean of the stored tasks of its algorithm, function and dimension (a batch
its `wall_s` once); cells of which no run is stored are counted and left out. Tasks go, in the order in
which evobench takes them, to the core that is free first.
"""

from __future__ import annotations

import argparse
import heapq
from pathlib import Path

from evobench.configs import read_config
from evobench.experiment import make_experiment
from evobench.runner import batches
from evobench.store import load_results

MACHINES = (1, 10, 100)


def makespan(seconds: list[float], workers: int) -> float:
    """When the last task ends, each going to the worker that is free first."""
    free = [0.0] * workers
    for task in seconds:
        heapq.heapreplace(free, free[0] + task)
    return max(free)


def clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results/figure1"))
    parser.add_argument("--config", type=Path, default=Path("configs/figure1.yaml"))
    parser.add_argument("--cores", type=int, default=2, help="of a machine, a task each")
    options = parser.parse_args()
    experiment = make_experiment(read_config(options.config))
    known = load_results(options.results).groupby(["algo", "fn", "dim"])["wall_s"].mean().to_dict()
    seconds, unknown, cells = [], [], experiment.cells()
    for cell in cells:
        if (of_one := known.get((cell.algo, cell.fn, cell.dim))) is None:
            unknown.append(str(cell))
        else:
            seconds += [of_one] * len(batches(cell, experiment.seeds))
    print(f"{len(cells)} cells, {len(seconds)} tasks with a measured time, {clock(sum(seconds))} of one core")
    if unknown:
        print(f"left out, since no run is stored: {', '.join(unknown)}")
    print(f"\n| machines of {options.cores} cores | time | longest task | cores busy |\n| --- | --- | --- | --- |")
    for machines in MACHINES:
        workers = machines * options.cores
        took = makespan(seconds, workers)
        print(f"| {machines} | {clock(took)} | {clock(max(seconds))} | {sum(seconds) / took / workers:.0%} |")


if __name__ == "__main__":
    main()
