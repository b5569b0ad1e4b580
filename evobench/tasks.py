"""A task: what is computed as one, how, and what its rows say about where they come from."""

from __future__ import annotations

import errno
import hashlib
import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

import evobench
from evobench.algorithms import ALGORITHMS
from evobench.baselines import asktell, gradient
from evobench.baselines import pymoo as baselines
from evobench.evograd import VARIANTS
from evobench.evograd.checkpoint import Checkpoint
from evobench.evograd.loop import Watch, run_batch
from evobench.experiment import BESIDE, Cell
from evobench.problems import Problem, draw_shift, make_problem
from evobench.record import RunRecord
from evobench.settings import said
from evobench.store import Store, StoreError

Progress = Callable[[float, float], object]
"""Called during a task with (share of the budget spent, best value so far); a true answer ends it."""

TaskKey = tuple[tuple[str, str, int, str], tuple[int, ...]]


@dataclass(frozen=True)
class Task:
    """A unit of work and of loss: the seeds of one cell that run together."""

    cell: Cell
    seeds: tuple[int, ...]

    @cached_property
    def key(self) -> TaskKey:
        """What identifies it: its cell's key, and its seeds."""
        return self.cell.key, self.seeds

    @property
    def memory(self) -> int:
        """Bytes that its tensors fill, estimated; 0 for a baseline, which needs next to none."""
        return len(self.seeds) * footprint(self.cell)

    def __str__(self) -> str:
        """`ga ackley 30D seed 3`, `ga_diff ackley 30D seeds 0-29`."""
        seeds = self.seeds
        if len(seeds) == 1:
            return f"{self.cell} seed {seeds[0]}"
        whole = seeds == tuple(range(seeds[0], seeds[-1] + 1))
        return f"{self.cell} seeds {f'{seeds[0]}-{seeds[-1]}' if whole else ','.join(map(str, seeds))}"

    def halves(self) -> list[Task]:
        """The same seeds as two tasks."""
        middle = len(self.seeds) // 2
        return [Task(self.cell, self.seeds[:middle]), Task(self.cell, self.seeds[middle:])]


@dataclass(frozen=True)
class Failure:
    """Why a task has no result.

    `why` decides what follows: after `memory` its halves may do, after `killed` (the process that
    computed it is gone) another try, after `error` neither; `store` ends the experiment, since nothing
    can be stored any more.
    """

    reason: str
    why: Literal["error", "memory", "killed", "store"] = "error"


Rows = tuple[pd.DataFrame, pd.DataFrame]
"""Of one task: runs, and history."""


def footprint(cell: Cell) -> int:
    """Bytes that the tensors of one run fill, estimated; 0 for a baseline."""
    peak = ALGORITHMS[cell.algo].peak
    if peak is None:
        return 0
    return peak(cell.pop_size, cell.dim) * cell.settings.get("unroll", 1) * np.dtype(cell.dtype).itemsize


def execute(
    task: Task,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    problem: Problem | None = None,
    watch: Watch | None = None,
) -> list[RunRecord]:
    """Compute a task, on whichever backend its cell names.

    Args:
        checkpoint: where a tensor program is kept meanwhile, and goes on from.
        problem: what to minimise; by default the cell's function.
        watch: shown every gradient of a tensor program.
    """
    cell = task.cell
    algorithm = ALGORITHMS[cell.algo]
    problem = problem or make_problem(cell.fn, cell.dim, cell.problem)
    settings: Any = algorithm.configure(cell.settings)
    kernel: Any = algorithm.kernel
    if not algorithm.batched:
        (seed,) = task.seeds
        if cell.shift:
            problem = problem.shifted(draw_shift(seed, problem, cell.shift))
        if cell.backend == "gradient":
            return [
                gradient.run_lbfgs(
                    problem,
                    settings,
                    seed=seed,
                    budget=cell.budget,
                    init=cell.init,
                    gradient_cost=cell.gradient_cost,
                    progress=progress,
                )
            ]
        single: Any = partial(baselines.run, cell.algo) if kernel is None else partial(asktell.run, kernel)
        record = single(
            problem,
            settings,
            seed=seed,
            budget=cell.budget,
            pop_size=cell.pop_size,
            init=cell.init,
            progress=lambda evals, best: progress(evals / cell.budget, best),
        )
        return [record]
    if cell.shift:
        shifts = np.stack([draw_shift(seed, problem, cell.shift) for seed in task.seeds])
        problem = problem.shifted(shifts[:, None])
    descends = cell.backend == "gradient"
    return run_batch(
        partial(gradient.DESCENTS[cell.algo] if descends else kernel.build, settings),
        problem,
        gradient="kept" if descends else VARIANTS[algorithm.variant].gradient,
        turn_of=gradient.DescentTurn if descends else None,
        seeds=task.seeds,
        pop_size=cell.pop_size,
        budget=cell.budget,
        init=cell.init,
        gradient_cost=cell.gradient_cost,
        dtype=getattr(torch, cell.dtype),
        device=cell.device,
        compile=cell.compile,
        checkpoint=checkpoint,
        progress=progress,
        watch=watch,
    )


def rows(
    task: Task, records: Sequence[RunRecord], experiment: str, origin: dict[str, str], f_opt: float | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A task's records as rows of the two tables, runs and history."""
    cell = task.cell
    about = cell.model_dump(exclude={*BESIDE, "problem"}) | {"settings": json.dumps(cell.recorded, sort_keys=True)}
    shared = {"experiment": experiment, **about, "settings_hash": cell.settings_hash, **origin}
    runs = pd.DataFrame(
        {
            **shared,
            "seed": record.seed,
            "best_f": record.best_f,
            "gap": None if f_opt is None else record.best_f - f_opt,
            "best_x": record.best_x,
            "f_evals": record.f_evals,
            "g_evals": record.g_evals,
            "stop_reason": record.stop_reason,
            "wall_s": record.wall_s,
            "batch_size": record.batch_size,
        }
        for record in records
    )
    identity = {name: shared[name] for name in ("algo", "fn", "dim", "settings_hash")}
    history = pd.concat(
        pd.DataFrame(
            {**identity, "seed": record.seed, "evals": record.evals, "best_f": record.history, **record.learned}
        )
        for record in records
    )
    return runs, history


@cache
def provenance() -> dict[str, str]:
    """Versions, machine and commit: the same in every row of one process."""
    packages = ("torch", "pymoo", "cma", "numpy")
    return {
        "evobench_version": evobench.__version__,
        **{f"{name}_version": version(name) for name in packages},
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "git_commit": _git_commit(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git_commit() -> str:
    """The commit of the running code, `-dirty` where it was changed since; empty outside git."""
    package = Path(evobench.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "__init__.py") is None:  # installed, not a checkout
        return ""
    return f"{git('rev-parse', 'HEAD')}{'-dirty' if git('status', '--porcelain', '--', '.') else ''}"


Context = tuple[str, Path, dict[str, str]]
"""Experiment name, its directory, provenance: what a task needs beside itself."""


def compute(task: Task, context: Context, progress: Progress) -> pd.DataFrame | Failure:
    """Run a task here and store it.

    Returns:
        its runs, or why there are none: plain data, which crosses any border between processes.
    """
    experiment, directory, origin = context
    store = Store(directory)
    checkpoint = Checkpoint(store.checkpoint(*task.key), _fingerprint(task, origin))
    try:
        runs, history = compute_rows(task, experiment, origin, progress, checkpoint)
        try:
            store.write(runs, history)
        except StoreError as error:
            if getattr(error.__cause__, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
                raise
            checkpoint.remove()  # of a task that is done, and larger than its result
            store.write(runs, history)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # one failing task must not take the others with it
        failure = failure_of(error)
        if failure.why == "memory":
            checkpoint.remove()  # its halves are other batches
        return failure
    checkpoint.remove()
    return runs


def compute_rows(
    task: Task, experiment: str, origin: dict[str, str], progress: Progress, checkpoint: Checkpoint | None = None
) -> Rows:
    """Run a task; what it would store."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    records = execute(task, progress, checkpoint)
    f_opt = make_problem(task.cell.fn, task.cell.dim, task.cell.problem).f_opt
    return rows(task, records, experiment, {**origin, "started_at": started_at}, f_opt)


def failure_of(error: BaseException) -> Failure:
    """What an exception means for its task."""
    text = said(error)
    reason = f"{type(error).__name__}: {text or 'no message'}"
    if isinstance(error, StoreError):
        return Failure(str(error), "store")
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:  # torch, on the CPU
        return Failure(reason, "memory")
    return Failure(reason)


def _fingerprint(task: Task, origin: dict[str, str]) -> str:
    """A digest of all that a batch depends on: what it is, versions, code, and threads."""
    identity = {
        "cell": task.cell.model_dump(),
        "hash": task.cell.settings_hash,
        "seeds": task.seeds,
        "origin": origin,
        "code": code_digest(),
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    sources = sorted(Path(evobench.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
