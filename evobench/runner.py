"""From cells to rows: plan what is missing, share it out, run it, store it.

A task is one batch of seeds of a tensor program, or one seed of a baseline. It is stored as soon as it
ends, so nothing that was computed is lost whatever happens to the rest; it is claimed before it begins,
so that processes and machines that share a directory share the work (`leases.py`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

import pandas as pd

from evobench.algorithms import ALGORITHMS
from evobench.evograd import checkpoint
from evobench.evograd.loop import SHARED_FROM
from evobench.executors import Executor, Here, Pool, Told
from evobench.experiment import Cell, Experiment
from evobench.failures import Failures
from evobench.leases import Leases
from evobench.problems import check_differentiable, function_source, make_problem
from evobench.schedule import Schedule
from evobench.store import Announced, AnnouncedCell, Store
from evobench.tasks import Context, Failure, Task, footprint, provenance

MEMORY = 5 * 2**30
"""Bytes that the tensors of all batches at work may fill, two of them at least; seeds that do not fit make
further batches. On two cores they stay below 6 GiB with what is not tensors."""

TOGETHER = 100
"""Runs of a tensor program at once on a CPU: among more, a run takes as long or longer, as tensors leave the cache."""


@dataclass(frozen=True)
class Plan:
    """What an experiment needs: its cells, how many of its runs are stored, and the tasks left.

    `jobs` are the processes that would have work if nothing were stored: with them goes the number of
    threads of each, and with it a last bit. `damaged` says which shards could not be read and were
    set aside; their runs are among the tasks.
    """

    cells: list[Cell]
    stored: int
    tasks: list[Task]
    jobs: int
    damaged: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """How an experiment ended: runs computed here and found, and failed tasks with their reason.

    Found is what was stored before, or by another process meanwhile.
    """

    computed: int = 0
    stored: int = 0
    failures: list[tuple[Task, str]] = field(default_factory=list)


class Listener(Protocol):
    """What shows progress; see `evobench.terminal` for the terminal's."""

    def started(self, plan: Plan) -> None: ...
    def progressed(self, task: Task, share: float, best: float) -> None: ...
    def finished(self, task: Task, runs: pd.DataFrame) -> None: ...
    def failed(self, task: Task, reason: str) -> None: ...
    def noticed(self, what: str, again: Task | None) -> None:
        """What needs nobody's help: another process is waited for, or a task begins `again`."""
        ...


def plan(experiment: Experiment, store: Store, *, fresh: bool = False, jobs: int = 1) -> Plan:
    """The tasks that are missing from the store.

    Args:
        fresh: whatever is stored.
        jobs: processes that are to have work. Where there are fewer tasks, the seeds of large tensor
            programs are shared out: processes of one thread each lose nothing by waiting for each other.

    Raises:
        ValueError: if a cell cannot be run, before anything is computed or written.
    """
    cells = experiment.cells()
    for cell in cells:
        if function_source(cell.fn) and ALGORITHMS[cell.algo].needs_gradient:
            check_differentiable(make_problem(cell.fn, cell.dim))
    tasks, stored, whole = [], 0, 0
    room = MEMORY / max(2, jobs)
    share = _share(cells, experiment.seeds, jobs, room)
    for cell in cells:
        done = set() if fresh else store.seeds_of(cell.key)
        missing = tuple(seed for seed in experiment.seeds if seed not in done)
        stored += len(experiment.seeds) - len(missing)
        tasks += batches(cell, missing, room, share, of=len(experiment.seeds))
        whole += len(batches(cell, experiment.seeds, room, share))
    return Plan(cells, stored, tasks, min(jobs, whole))


def batches(
    cell: Cell, seeds: Sequence[int], room: float = MEMORY / 2, share: int | None = None, *, of: int | None = None
) -> list[Task]:
    """The tasks of these seeds: of a tensor program as many runs at once as fit into `room`, in bytes, on a CPU
    `TOGETHER` at most, and of a large one not more than `share`. Where they are what is missing `of` so many, borders
    are where all of them would have theirs."""
    most = max(1, int(room // footprint(cell))) if ALGORITHMS[cell.algo].batched else 1
    if cell.device == "cpu" and (count := of or len(seeds)) > TOGETHER:
        parts = 2 ** math.ceil(math.log2(count / TOGETHER))  # which so many cores share evenly
        most = min(most, math.ceil(count / parts))
    if share is not None and _is_large(cell):
        most = min(most, share)
    return [Task(cell, tuple(seeds[start : start + most])) for start in range(0, len(seeds), most)]


def _share(cells: Sequence[Cell], seeds: Sequence[int], jobs: int, room: float) -> int:
    """Seeds of a large tensor program that make a task, so that each of `jobs` processes has one.

    Two at least: a run alone costs as much as two.
    """
    tasks = sum(len(batches(cell, seeds, room)) for cell in cells)
    idle, large = max(0, jobs - tasks), sum(_is_large(cell) for cell in cells)
    return max(2, math.ceil(len(seeds) / (1 + math.ceil(idle / large)))) if large else len(seeds)


def _is_large(cell: Cell) -> bool:
    """Whether its operations are long enough to be shared by several cores."""
    tensors = ALGORITHMS[cell.algo].batched and cell.device == "cpu"
    return tensors and cell.pop_size * cell.dim >= SHARED_FROM


def run_experiment(
    experiment: Experiment,
    directory: Path | str,
    *,
    jobs: int | None = None,
    fresh: bool = False,
    listener: Listener | None = None,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> Summary:
    """Run what is missing of an experiment and store it under `directory`.

    Several processes may do so at once, here or on other machines that share the directory: each
    computes what no other has claimed, and returns when all of it is stored or has failed.

    Args:
        jobs: tasks at once; default one a core, on a Ray cluster all that it can hold.
        fresh: forget the stored rows of this experiment's cells and seeds first.
        executor: worker processes of this machine, or an existing Ray cluster.
        address: of the Ray cluster; default the one that this machine belongs to.

    Raises:
        ValueError: before anything is written, if the experiment cannot be run.
        StoreError: if the directory cannot be written, also where the disk fills up on the way.
    """
    store = Store(directory)
    store.check_writable()
    checkpoint.interval()
    cells = experiment.cells()  # nothing is touched if it cannot be run
    context = (experiment.name, store.directory, provenance())
    with ExitStack() as stack:
        cluster = stack.enter_context(_cluster(address, context, jobs)) if executor == "ray" else None
        damaged = store.set_aside_damaged()
        store.check_ours()
        todo = plan(experiment, store, fresh=fresh, jobs=1 if cluster else jobs or cores())
        todo = replace(todo, damaged=damaged)
        if fresh:
            for cell in cells:
                store.clear(cell.key, experiment.seeds)
        if todo.tasks:
            store.write_plan(_announced(experiment, todo))
        if listener is not None:
            listener.started(todo)
        places = [(todo.tasks, cluster)] if cluster else _local(todo, context, listener)
        return _work_through(experiment, todo, store, places, listener)


def _work_through(
    experiment: Experiment,
    todo: Plan,
    store: Store,
    places: Iterable[tuple[list[Task], Executor]],
    listener: Listener | None,
) -> Summary:
    """Compute what is left of an experiment; a cell's shards are merged when it is complete."""
    summary, failures = Summary(stored=todo.stored), Failures(store.directory)
    left = dict.fromkeys((cell.key for cell in todo.cells), 0)
    for task in todo.tasks:
        left[task.cell.key] += len(task.seeds)
    for key in left:
        if left[key] == 0:  # killed between its last shard and their merge, perhaps
            store.merge(key)
            failures.forget(key, experiment.seeds)
    notice = listener.noticed if listener is not None else lambda what, again: None
    for tasks, place in places:
        with Leases(store.directory) as leases, place:
            for task, outcome, ours in Schedule(tasks, store, failures, leases, notice).run(place):
                if isinstance(outcome, Failure):
                    summary.failures.append((task, outcome.reason))
                    if listener is not None:
                        listener.failed(task, outcome.reason)
                    continue
                key = task.cell.key
                left[key] -= len(task.seeds)
                summary.computed += len(task.seeds) if ours else 0
                summary.stored += 0 if ours else len(task.seeds)
                failures.forget(key, task.seeds if left[key] else experiment.seeds)
                if left[key] == 0:
                    store.merge(key)
                if listener is not None:
                    listener.finished(task, outcome)
    return summary


def _announced(experiment: Experiment, todo: Plan) -> Announced:
    """A plan as the store keeps it for `evobench watch`."""
    cells = tuple(AnnouncedCell(key=cell.key, backend=cell.backend, budget=cell.budget) for cell in todo.cells)
    now = datetime.now(UTC).replace(microsecond=0)  # as the rows say it, which are compared with it
    return Announced(name=experiment.name, started_at=now, seeds=experiment.seeds, cells=cells)


def _local(todo: Plan, context: Context, listener: Listener | None) -> Iterator[tuple[list[Task], Executor]]:
    """A GPU's tasks one at a time, since they share its memory; the CPU's on the plan's processes."""
    told: Told = listener.progressed if listener is not None else lambda task, share, best: None
    if elsewhere := [task for task in todo.tasks if task.cell.device != "cpu"]:
        yield elsewhere, Here(context, told)
    if here := [task for task in todo.tasks if task.cell.device == "cpu"]:
        yield here, Here(context, told) if todo.jobs == 1 else Pool(context, told, todo.jobs)


def _cluster(address: str | None, context: Context, jobs: int | None) -> Executor:
    from evobench.cluster import Cluster

    return Cluster(address, context, jobs)


def cores() -> int:
    """Cores this process may use: fewer than the machine's in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
