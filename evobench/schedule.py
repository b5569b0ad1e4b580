"""From tasks to outcomes: claimed, computed once by whoever comes first, tried again where that may help."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from evobench.executors import Executor, Outcome
from evobench.failures import Failures
from evobench.leases import Leases
from evobench.store import Store, StoreError, stem
from evobench.tasks import Failure, Task, TaskKey

RETRIES = 2
"""How often a task is tried again whose process was killed."""

LOOK = 2.0
"""Seconds between two looks at what other processes have claimed."""

Notice = Callable[[str, Task | None], None]
"""Called with a sentence about what needs nobody's help, and the task that begins anew, if one does."""


class Ended(NamedTuple):
    """A task, its runs or why there are none, and whether that was found out here or by another process."""

    task: Task
    outcome: Outcome
    ours: bool


class Schedule:
    """The tasks of one experiment that are left, for one executor."""

    def __init__(self, tasks: Sequence[Task], store: Store, failures: Failures, leases: Leases, notice: Notice) -> None:
        self.waiting = list(tasks)
        self.store, self.failures, self.leases, self.notice = store, failures, leases, notice
        self.tries = Counter[TaskKey]()
        self.failed_before = {(failed.path.stem, failed.written) for failed in failures.all()}
        self.said = ""

    def run(self, executor: Executor) -> Iterator[Ended]:
        """Every task as it ends, those of other processes too.

        Raises:
            StoreError: if results cannot be stored any more.
        """
        running = 0
        while self.waiting or running:
            for task in self._unclaimed():
                if running == executor.slots:
                    break
                if not self.leases.acquire(*task.key):
                    continue
                self.waiting.remove(task)
                if (found := self._found(task)) is not None:
                    self.leases.release(*task.key)
                    yield found
                else:
                    executor.submit(task)
                    running += 1
            if self.waiting and not running:
                self._say_who()
            for task, outcome in executor.ended(random.uniform(LOOK / 2, LOOK)):
                running -= 1
                again = self._again(task, outcome)
                if not again and isinstance(outcome, Failure):
                    if outcome.why == "store":
                        raise StoreError(outcome.reason)
                    self.failures.add(*task.key, outcome.reason)
                self.leases.release(*task.key)
                self.waiting[:0] = again
                if not again:
                    yield Ended(task, outcome, ours=True)

    def _unclaimed(self) -> list[Task]:
        """The tasks that no other process works on."""
        others = self.leases.others()
        return [task for task in self.waiting if not any(lease.covers(*task.key) for lease in others)]

    def _found(self, task: Task) -> Ended | None:
        """What became of a task that another process had, or None: it is to be computed.

        Where some of its seeds are stored, the others go back to the tasks that wait.
        """
        runs = self.store.runs_of(task.cell.key, task.seeds)
        if done := tuple(sorted(runs["seed"])):
            if left := tuple(seed for seed in task.seeds if seed not in done):
                self.waiting.insert(0, Task(task.cell, left))
            return Ended(Task(task.cell, done), runs, ours=False)
        for failed in self.failures.all():
            if failed.path.stem == stem(*task.key) and (failed.path.stem, failed.written) not in self.failed_before:
                return Ended(task, Failure(failed.reason), ours=False)
        return None

    def _again(self, task: Task, outcome: Outcome) -> list[Task]:
        """What to try instead of a task that failed: itself, its halves, or nothing."""
        if not isinstance(outcome, Failure):
            return []
        tries = self.tries[task.key]
        again: list[Task] = []
        if outcome.why == "memory" and len(task.seeds) > 1:
            again = task.halves()
        elif outcome.why == "killed" and tries < RETRIES:
            tries += 1
            # By the system, for its memory, as a rule: the last try is of less.
            again = task.halves() if tries == RETRIES and len(task.seeds) > 1 else [task]
        for other in again:
            self.tries[other.key] = tries
        if again:
            how = "tried again" if len(again) == 1 else "tried again as two batches"
            self.notice(f"{task}: {outcome.reason}; {how}", task)
        return again

    def _say_who(self) -> None:
        """Tell whom this process waits for, once."""
        owners = {str(lease.owner or "another process") for lease in self.leases.others()}
        said = f"waiting for {', '.join(sorted(owners))}, which has claimed what is left" if owners else ""
        if said and said != self.said:
            self.notice(said, None)
        self.said = said
