"""Where tasks are computed: in this process, or on worker processes of this machine.

`evobench.cluster` has the third place, a Ray cluster. The runner hands out tasks, at most `slots` at
once, and collects them as they end; how often a task is tried is the runner's affair.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, Self

import pandas as pd
import torch

from evobench import interrupts
from evobench.tasks import Context, Failure, Progress, Task, compute

Outcome = pd.DataFrame | Failure
"""The runs of a task, which are stored then, or why there are none."""

Told = Callable[[Task, float, float], None]
"""Called with a task, the share of its budget that is spent, and its best value so far."""

_KEPT = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 30),
    "MALLOC_TRIM_THRESHOLD_": (-1, (1 << 31) - 1),
    "MALLOC_TOP_PAD_": (-2, 1 << 26),
}
"""What makes glibc keep freed memory in the process, by variable and by number: pymoo allocates and frees megabytes
many times a generation, and returning them to the kernel makes its PSO take twice as long."""

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    **{name: str(value) for name, (_, value) in _KEPT.items()},
}


class Executor(Protocol):
    """A context manager: leaving it, by Ctrl-C too, ends at once whatever still runs."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...

    @property
    def slots(self) -> int:
        """Tasks that it takes at once."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task; never more than `slots`."""
        ...

    def ended(self, seconds: float) -> list[tuple[Task, Outcome]]:
        """The tasks that have ended; none only after waiting for `seconds`."""
        ...


def keep_freed_memory() -> None:
    """What the environment says to workers, for this process, which has begun: where there is glibc.

    Memory that has been returned to the kernel is cleared page by page when it is taken again, in every generation
    anew: 7 % of a compiled one of DE.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in _KEPT.values():
            mallopt(option, value)


class Here:
    """One task after the other in this process, with all of its threads."""

    slots = 1

    def __init__(self, context: Context, told: Told) -> None:
        self.context, self.told = context, told
        self.next: Task | None = None

    def __enter__(self) -> Self:
        keep_freed_memory()
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing runs that could be ended."""

    def submit(self, task: Task) -> None:
        self.next = task

    def ended(self, seconds: float) -> list[tuple[Task, Outcome]]:
        task, self.next = self.next, None
        if task is None:
            time.sleep(seconds)
            return []
        return [(task, compute(task, self.context, lambda share, best: self.told(task, share, best)))]


class _Worker:
    """A process of its own, so that its death is the failure of one task."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.messages: Any = spawn.Queue()
        self.pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=start_worker, initargs=(self.messages,))
        self.task: Task | None = None
        self.future: Future[Outcome] | None = None

    def begin(self, task: Task, context: Context) -> None:
        with interrupts.kept_from_children():  # not around __init__: its first semaphore lets them through again
            self.future = self.pool.submit(_work, task, context)
        self.task = task


class Pool:
    """Processes with one thread each, as many as `jobs`; one that is killed is replaced."""

    def __init__(self, context: Context, told: Told, jobs: int) -> None:
        self.context, self.told, self.slots = context, told, jobs
        self.workers: list[_Worker] = []
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        self.others = set(multiprocessing.active_children())  # whoever uses us as a library may have its own
        self.stack.enter_context(_environment(WORKER_ENVIRONMENT))
        self.raise_interrupt = self.stack.enter_context(interrupts.held())
        return self

    def __exit__(self, *error: object) -> None:
        for process in set(multiprocessing.active_children()) - self.others:
            process.terminate()
        for worker in self.workers:
            worker.pool.shutdown(wait=True, cancel_futures=True)
        self.stack.close()

    def submit(self, task: Task) -> None:
        for worker in [worker for worker in self.workers if worker.task is None]:
            try:
                return worker.begin(task, self.context)
            except BrokenProcessPool:  # killed while it had nothing to do
                self._replace(worker)
        self.workers.append(_Worker())
        self.workers[-1].begin(task, self.context)

    def ended(self, seconds: float) -> list[tuple[Task, Outcome]]:
        until = time.monotonic() + seconds
        found: list[tuple[Task, Outcome]] = []
        while not found and time.monotonic() < until:
            running = [worker.future for worker in self.workers if worker.future is not None]
            if running:
                wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            else:
                time.sleep(0.2)
            self.raise_interrupt()
            for worker in list(self.workers):
                self._relay(worker)
                if worker.task is not None and worker.future is not None and worker.future.done():
                    found.append((worker.task, self._outcome(worker, worker.future)))
                    worker.task = worker.future = None
        return found

    def _outcome(self, worker: _Worker, future: Future[Outcome]) -> Outcome:
        try:
            return future.result()
        except BrokenProcessPool:
            self._replace(worker)
            return Failure("a worker process was killed (out of memory?)", "killed")

    def _replace(self, worker: _Worker) -> None:
        """The next task that finds no free worker starts one."""
        self.workers.remove(worker)
        worker.pool.shutdown()

    def _relay(self, worker: _Worker) -> None:
        while True:
            try:
                key, share, best = worker.messages.get_nowait()
            except queue.Empty:
                return
            if worker.task is not None and worker.task.key == key:  # not a word that came after its result
                self.told(worker.task, share, best)


_messages: Any = None
"""In a worker: where it sends its progress."""


def start_worker(messages: Any) -> None:
    global _messages
    _messages = messages
    threading.Thread(target=_follow_parent, daemon=True).start()
    single_threaded()


def single_threaded() -> None:
    """Make this process one of many on its machine."""
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


def _work(task: Task, context: Context) -> Outcome:
    key = task.key
    return compute(task, context, _now_and_then(lambda share, best: _messages.put((key, share, best))))


def _now_and_then(tell: Progress) -> Progress:
    """The same, not more than twice a second."""
    last = 0.0

    def progress(share: float, best: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > 0.5:
            last = now
            tell(share, best)

    return progress


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
