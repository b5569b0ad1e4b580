"""From cells to rows: plan what is missing, run it on this machine's cores, store each task.

A task is one batch of seeds of a tensor program, or one seed of a baseline. Workers write their own
shard as soon as a task ends, so nothing that was computed is lost whatever happens to the rest.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import platform
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

import evobench
from evobench.algorithms import ALGORITHMS
from evobench.baselines import asktell
from evobench.baselines import pymoo as baselines
from evobench.evograd import VARIANTS
from evobench.evograd.checkpoint import Checkpoint
from evobench.evograd.loop import run_batch
from evobench.experiment import BESIDE, Cell, Experiment
from evobench.problems import Problem, check_differentiable, draw_shift, function_source, make_problem
from evobench.record import RunRecord
from evobench.store import Store

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # pymoo allocates and frees megabytes many times a generation: keeping them in the process
    # instead of returning them to the kernel makes its PSO about twice as fast.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(1 << 26),
}

MEMORY = 3.5 * 2**30
"""Bytes that the tensors of one batch may fill; seeds that do not fit make further batches."""

Progress = Callable[[float, float], object]
"""Called during a task with (share of the budget spent, best value so far); a true answer ends it."""


@dataclass(frozen=True)
class Task:
    """A unit of work and of loss: the seeds of one cell that run together."""

    cell: Cell
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What an experiment needs: its cells, how many of its runs are stored, and the tasks left.

    `damaged` says which shards could not be read and were set aside; their runs are among the tasks.
    """

    cells: list[Cell]
    stored: int
    tasks: list[Task]
    damaged: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """How an experiment ended: runs computed and found, and failed tasks with their reason."""

    computed: int = 0
    stored: int = 0
    failures: list[tuple[Task, str]] = field(default_factory=list)


class Listener(Protocol):
    """What shows progress; see `evobench.cli` for the terminal's."""

    def started(self, plan: Plan) -> None: ...
    def progressed(self, task: Task, share: float, best: float) -> None: ...
    def finished(self, task: Task, runs: pd.DataFrame) -> None: ...
    def failed(self, task: Task, reason: str) -> None: ...


def plan(experiment: Experiment, store: Store, *, fresh: bool = False) -> Plan:
    """The tasks that are missing from the store.

    Raises:
        ValueError: if a cell cannot be run, before anything is computed or written.
    """
    cells = experiment.cells()
    for cell in cells:
        if function_source(cell.fn) and ALGORITHMS[cell.algo].needs_gradient:
            check_differentiable(make_problem(cell.fn, cell.dim))
    tasks, stored = [], 0
    for cell in cells:
        done = set() if fresh else store.seeds_of(cell.key)
        missing = tuple(seed for seed in experiment.seeds if seed not in done)
        stored += len(experiment.seeds) - len(missing)
        tasks += batches(cell, missing)
    return Plan(cells, stored, tasks)


def batches(cell: Cell, seeds: Sequence[int]) -> list[Task]:
    """The tasks of these seeds: for a tensor program as many runs at once as fit into `MEMORY`."""
    most = 1
    if cell.backend == "evograd":
        kernel: Any = ALGORITHMS[cell.algo].kernel
        numbers = kernel.peak(cell.pop_size, cell.dim)
        most = max(1, int(MEMORY // (numbers * np.dtype(cell.dtype).itemsize)))
    return [Task(cell, tuple(seeds[start : start + most])) for start in range(0, len(seeds), most)]


def run_experiment(
    experiment: Experiment,
    directory: Path | str,
    *,
    jobs: int | None = None,
    fresh: bool = False,
    listener: Listener | None = None,
) -> Summary:
    """Run what is missing of an experiment and store it under `directory`.

    Args:
        jobs: worker processes; default one a core.
        fresh: forget the stored rows of this experiment's cells and seeds first.

    Raises:
        ValueError: before anything is written, if the experiment cannot be run.
        StoreError: if the directory cannot be written.
    """
    store = Store(directory)
    store.check_writable()
    experiment.cells()  # nothing is touched if it cannot be run
    damaged = store.set_aside_damaged()
    store.check_ours()
    todo = replace(plan(experiment, store, fresh=fresh), damaged=damaged)
    if fresh:
        for cell in todo.cells:
            store.clear(cell.key, experiment.seeds)
    if todo.tasks:
        store.write_plan(_announced(experiment, todo))
    if listener is not None:
        listener.started(todo)
    summary = Summary(stored=todo.stored)
    context = (experiment.name, store.directory, provenance())
    left = dict.fromkeys((cell.key for cell in todo.cells), 0)
    for task in todo.tasks:
        left[task.cell.key] += len(task.seeds)
    for key in left:
        if left[key] == 0:  # killed between its last shard and their merge, perhaps
            store.merge(key)
    # As many processes as if nothing were stored: with them goes the number of threads, and a last bit.
    everything = sum(len(batches(cell, experiment.seeds)) for cell in todo.cells)
    jobs = max(1, min(jobs or cores(), everything))
    with closing(_run(todo.tasks, context, jobs, listener)) as outcomes:  # whatever ends the loop ends the workers
        for task, outcome in outcomes:
            if isinstance(outcome, str):
                summary.failures.append((task, outcome))
                if listener is not None:
                    listener.failed(task, outcome)
                continue
            summary.computed += len(task.seeds)
            left[task.cell.key] -= len(task.seeds)
            if left[task.cell.key] == 0:  # none of its seeds failed
                store.merge(task.cell.key)
            if listener is not None:
                listener.finished(task, outcome)
    return summary


def _announced(experiment: Experiment, todo: Plan) -> dict[str, Any]:
    """A plan as the store keeps it for `evobench watch`."""
    cells = [{"key": cell.key, "backend": cell.backend, "budget": cell.budget} for cell in todo.cells]
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"name": experiment.name, "started_at": started_at, "seeds": experiment.seeds, "cells": cells}


def execute(
    task: Task, progress: Progress, checkpoint: Checkpoint | None = None, problem: Problem | None = None
) -> list[RunRecord]:
    """Compute a task, on whichever backend its cell names.

    Args:
        checkpoint: where a tensor program is kept meanwhile, and goes on from.
        problem: what to minimise; by default the cell's function.
    """
    cell = task.cell
    algorithm = ALGORITHMS[cell.algo]
    problem = problem or make_problem(cell.fn, cell.dim)
    settings: Any = algorithm.configure(cell.settings)
    kernel: Any = algorithm.kernel
    if cell.backend != "evograd":
        (seed,) = task.seeds
        if cell.shift:
            problem = problem.shifted(draw_shift(seed, problem, cell.shift))
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
    return run_batch(
        partial(kernel.build, settings),
        problem,
        gradient=VARIANTS[algorithm.variant].gradient,
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
    )


def rows(
    task: Task, records: Sequence[RunRecord], experiment: str, origin: dict[str, str], f_opt: float | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A task's records as rows of the two tables, runs and history."""
    cell = task.cell
    beside = {name: value for name in BESIDE if (value := getattr(cell, name))}
    settings = cell.settings | beside
    about = cell.model_dump(exclude=set(BESIDE)) | {"settings": json.dumps(settings, sort_keys=True)}
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
"""Experiment name, its directory, provenance: what a worker needs beside the task."""


def _compute(task: Task, context: Context, progress: Progress) -> pd.DataFrame:
    """Run a task and store it; returns its runs."""
    experiment, directory, origin = context
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    store = Store(directory)
    checkpoint = Checkpoint(store.checkpoint(task.cell.key, task.seeds), _fingerprint(task, origin))
    records = execute(task, progress, checkpoint)
    f_opt = make_problem(task.cell.fn, task.cell.dim).f_opt
    runs, history = rows(task, records, experiment, {**origin, "started_at": started_at}, f_opt)
    store.write(runs, history)
    checkpoint.remove()
    return runs


def _fingerprint(task: Task, origin: dict[str, str]) -> str:
    """A digest of all that a batch depends on: what it is, versions, code, and threads."""
    identity = {
        "cell": task.cell.model_dump(),
        "hash": task.cell.settings_hash,
        "seeds": task.seeds,
        "origin": origin,
        "code": _code_digest(),
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@cache
def _code_digest() -> str:
    sources = sorted(Path(evobench.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


Outcomes = Generator[tuple[Task, pd.DataFrame | str], None, None]
"""Tasks as they end, with their runs or the reason of their failure."""


def _run(tasks: Sequence[Task], context: Context, jobs: int, listener: Listener | None) -> Outcomes:
    """A GPU's tasks one at a time, since they share its memory; the CPU's on `jobs` processes."""
    elsewhere = [task for task in tasks if task.cell.device != "cpu"]
    here = [task for task in tasks if task.cell.device == "cpu"]
    yield from _run_here(elsewhere, context, 1, listener)
    yield from (_run_here if jobs == 1 or not here else _run_in_pool)(here, context, jobs, listener)


def cores() -> int:
    """Cores this process may use: fewer than the machine's in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_here(tasks: Sequence[Task], context: Context, jobs: int, listener: Listener | None) -> Outcomes:
    """One after the other in this process, with all of its threads."""
    for task in tasks:

        def progress(share: float, best: float, task: Task = task) -> None:
            if listener is not None:
                listener.progressed(task, share, best)

        try:
            outcome: pd.DataFrame | str = _compute(task, context, progress)
        except Exception as error:  # one failing task must not take the others with it
            outcome = _reason(error)
        yield task, outcome


def _run_in_pool(tasks: Sequence[Task], context: Context, jobs: int, listener: Listener | None) -> Outcomes:
    """`jobs` processes with one thread each. Leaving early, by Ctrl-C too, ends them at once."""
    spawn = multiprocessing.get_context("spawn")
    messages: Any = spawn.Queue()
    others = set(multiprocessing.active_children())  # whoever uses us as a library may have its own
    with _environment(WORKER_ENVIRONMENT), _held_interrupts() as raise_interrupt:
        pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_start_worker, initargs=(messages,))
        try:
            with _without_interrupts():
                futures: dict[Future[pd.DataFrame], int] = {
                    pool.submit(_work, index, task, context): index for index, task in enumerate(tasks)
                }
            pending = set(futures)
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                raise_interrupt()
                _relay(messages, tasks, listener)
                for future in done:
                    try:
                        outcome: pd.DataFrame | str = future.result()
                    except BrokenProcessPool:
                        outcome = "a worker process was killed (out of memory?)"
                    except Exception as error:  # see _run_here
                        outcome = _reason(error)
                    yield tasks[futures[future]], outcome
        finally:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


_messages: Any = None
"""In a worker: where it sends its progress."""


def _start_worker(messages: Any) -> None:
    global _messages
    _messages = messages
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    # pymoo makes thousands of short-lived objects a generation: collecting less often saves a fifth.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _follow_parent() -> None:
    """End with the parent, even where it was killed: no worker computes for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(index: int, task: Task, context: Context) -> pd.DataFrame:
    last = 0.0

    def progress(share: float, best: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > 0.5:
            last = now
            _messages.put((index, share, best))

    return _compute(task, context, progress)


def _relay(messages: Any, tasks: Sequence[Task], listener: Listener | None) -> None:
    while True:
        try:
            index, share, best = messages.get_nowait()
        except queue.Empty:
            return
        if listener is not None:
            listener.progressed(tasks[index], share, best)


@contextmanager
def _held_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C waits until what this yields is called: amid `wait` it would leave locks taken, and the pool hang."""
    pressed: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where it is ignored
    if ours:
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))

    def raise_interrupt() -> None:
        if pressed:
            raise KeyboardInterrupt

    try:
        yield raise_interrupt
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, not even while they import: it is the parent's to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes started inside; what the user set stays."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
