"""Several processes share one directory, and some are killed: the same rows as one process, and no task twice.

    python scripts/share_sweep.py [--processes 3] [--kills 1] [--rounds 10] [--out DIR]

In each round real processes start at once on an empty directory, and `--kills` of them (never the last
one) are killed by SIGKILL within half a second of their first task. The others take over what they held.
Rows are compared with those of one process to the bit, all but seconds and date; each task may end once,
and begin once more for each kill. The tests run one round of three processes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from kill_sweep import SWEEP, differences

from evobench import executors, schedule
from evobench.experiment import make_experiment
from evobench.runner import run_experiment

EXPERIMENT = make_experiment({**SWEEP, "name": "share", "fn": ["griewank", "ackley"], "budget": 2_000})


def start(out: Path, log: Path) -> int:
    """The process number of a forked process that runs the experiment and logs what it computes."""
    child = os.fork()
    if child:
        return child
    schedule.LOOK = 0.2
    compute = executors.compute

    def logged(task, context, progress):  # type: ignore[no-untyped-def]
        with log.open("a", buffering=1) as file:
            file.write(f"{os.getpid()} begins {task}\n")
            outcome = compute(task, context, progress)
            file.write(f"{os.getpid()} ended {task}\n")
        return outcome

    executors.compute = logged
    try:
        summary = run_experiment(EXPERIMENT, out, jobs=1)
        code = 0 if not summary.failures and summary.computed + summary.stored == EXPECTED else 1
    except BaseException as error:  # a fork must not go on with its parent's business
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    os._exit(code)


EXPECTED = len(EXPERIMENT.cells()) * len(EXPERIMENT.seeds)
"""Runs in all."""


def share(out: Path, processes: int, kills: int, chance: random.Random) -> list[str]:
    """One round; what went wrong."""
    log = out.with_suffix(".log")
    children = [start(out, log) for _ in range(processes)]
    killed = children[: min(kills, processes - 1)]
    for child in killed:
        while not (log.exists() and f"{child} begins" in log.read_text()):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        os.kill(child, signal.SIGKILL)
    ends = {child: os.waitpid(child, 0)[1] for child in children}
    found = [f"a process ended with {ends[child]}" for child in children if ends[child] and child not in killed]
    lines = [line.partition(" ")[2] for line in log.read_text().splitlines()]
    found += [f"{line} {times} times" for line, times in Counter(lines).items() if "ended" in line and times > 1]
    again = sum("begins" in line for line in lines) - len({line for line in lines if "begins" in line})
    if again > len(killed):
        found.append(f"{again} tasks begun again, {len(killed)} kills")
    if (out / "leases").exists():
        found.append("leases are left behind")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="where to work, and to leave the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out or Path(tempfile.mkdtemp(prefix="share-sweep-"))
    out.mkdir(parents=True, exist_ok=True)
    whole, chance, wrong = out / "whole", random.Random(1), 0
    if os.waitpid(start(whole, out / "whole.log"), 0)[1]:
        sys.exit("the sweep fails even with one process")
    for number in range(options.rounds):
        shared = out / f"shared{number}"
        shutil.rmtree(shared, ignore_errors=True)
        shared.with_suffix(".log").unlink(missing_ok=True)
        found = share(shared, options.processes, options.kills, chance) + differences(whole, shared)
        print(f"round {number + 1}: {'; '.join(found) or 'the same rows, no task twice'}", flush=True)
        wrong += bool(found)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
