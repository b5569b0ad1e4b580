"""Time and memory of `unroll`: what a gradient through K generations costs.

    python scripts/unroll_cost.py [ALGO ...]      # cmaes_diff by default

Ackley at 30D, 30 runs of 100 individuals, 60 generations after one window to warm up; each K in a
process of its own, whose peak resident memory less that of a process without runs is shown.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

WINDOWS = (1, 2, 5, 10)
GENERATIONS = 60


def peak() -> float:
    """Most memory that this process has filled, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(algo: str, unroll: int) -> None:
    """Print milliseconds of CPU a generation, MiB, and gradients of a generation."""
    import torch

    from evobench.experiment import make_experiment
    from evobench.tasks import Task, execute

    torch.set_num_threads(1)

    def run(generations: int) -> tuple[float, int]:
        content = {"algo": algo, "fn": "ackley", "dim": 30, "budget": 100 * (1 + generations), "device": "cpu"}
        (cell,) = make_experiment({**content, "settings": {algo: {"unroll": unroll}}}).cells()
        started = time.process_time()
        records = execute(Task(cell, tuple(range(30))), lambda share, best: None)
        return time.process_time() - started, records[0].g_evals

    before = peak()
    run(unroll)
    seconds, gradients = run(GENERATIONS)
    print(f"{1000 * seconds / GENERATIONS:.1f} {peak() - before:.0f} {gradients / GENERATIONS:.2f}")


def main() -> None:
    """A table, one process a row."""
    print("| algorithm | K | CPU ms a generation | MiB | gradients a generation |\n| --- | ---: | ---: | ---: | ---: |")
    for algo in sys.argv[1:] or ["cmaes_diff"]:
        for unroll in WINDOWS:
            command = [sys.executable, __file__, "--measure", algo, str(unroll)]
            numbers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            print(f"| `{algo}` | {unroll} | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        main()
