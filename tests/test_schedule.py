"""What becomes of a task that fails, or that another process has: tried again, reported, recorded, found."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from test_store import rows

from evobench import schedule
from evobench.experiment import make_experiment
from evobench.failures import Failures
from evobench.leases import Leases
from evobench.runner import batches
from evobench.schedule import RETRIES, Schedule
from evobench.store import Store, StoreError
from evobench.tasks import Failure, Task, failure_of

EXPERIMENT = make_experiment(
    {"algo": "ga_plain,de", "fn": "ackley", "dim": 3, "seeds": 8, "budget": 100, "pop": 10, "device": "cpu"}
)
BATCH, SINGLE = (batches(cell, EXPERIMENT.seeds)[0] for cell in EXPERIMENT.cells())


class Script:
    """An executor whose tasks end as `outcome` says."""

    def __init__(self, store, outcome, slots=2):
        self.store, self.outcome, self.slots = store, outcome, slots
        self.running: list[Task] = []
        self.begun = Counter()

    def submit(self, task):
        assert len(self.running) < self.slots
        self.running.append(task)
        self.begun[task.seeds] += 1

    def ended(self, seconds):
        ended = [(task, self.outcome(task)) for task in self.running]
        self.running = []
        for task, outcome in ended:
            if outcome is None:
                self.store.write(*rows(task.seeds, task.cell.key))
        return [(task, rows(task.seeds)[0] if outcome is None else outcome) for task, outcome in ended]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def run(store, tasks, outcome, **more):
    """How the tasks end, the executor, and what was told."""
    executor, told = Script(store, outcome, **more), []
    with Leases(store.directory) as leases:
        plan = Schedule(tasks, store, Failures(store.directory), leases, lambda what, again: told.append(what))
        ended = list(plan.run(executor))
    return ended, executor, told


def recorded(store):
    return {failed.path.stem: (failed.seeds, failed.reason) for failed in Failures(store.directory).all()}


def test_what_does_not_fit_is_halved_until_it_does(store):
    ended, executor, told = run(
        store, [BATCH], lambda task: Failure("MemoryError: no", "memory") if len(task.seeds) > 2 else None
    )
    assert sorted(executor.begun) == [(0, 1), (0, 1, 2, 3), tuple(range(8)), (2, 3), (4, 5), (4, 5, 6, 7), (6, 7)]
    assert sorted(task.seeds for task, outcome, ours in ended) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert not any(isinstance(outcome, Failure) for _, outcome, _ in ended)
    assert told[0] == "ga_plain ackley 3D seeds 0-7: MemoryError: no; tried again as two batches"
    assert store.seeds_of(BATCH.cell.key) == set(range(8))
    assert recorded(store) == {}


def test_what_never_fits_fails_seed_by_seed(store):
    ended, executor, _ = run(store, [BATCH], lambda task: Failure("MemoryError: no", "memory"))
    assert sorted(task.seeds for task, _, _ in ended) == [(seed,) for seed in range(8)]
    assert max(executor.begun.values()) == 1
    assert len(recorded(store)) == 8


def test_a_killed_task_is_tried_again_and_given_up(store):
    ended, executor, told = run(store, [SINGLE], lambda task: Failure("killed", "killed"))
    assert executor.begun[SINGLE.seeds] == 1 + RETRIES
    assert len(told) == RETRIES
    assert [outcome for _, outcome, _ in ended] == [Failure("killed", "killed")]
    ended, executor, _ = run(store, [BATCH], lambda task: Failure("killed", "killed"))
    halves = [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert executor.begun == {BATCH.seeds: RETRIES, halves[0]: 1, halves[1]: 1}
    assert [task.seeds for task, _, _ in ended] == halves


def test_a_task_that_was_killed_once_is_like_any_other(store):
    deaths = iter([Failure("killed", "killed")])
    ended, _, _ = run(store, [SINGLE], lambda task: next(deaths, None))
    assert [ours for _, _, ours in ended] == [True]
    assert recorded(store) == {}


def test_an_error_is_not_tried_again_and_leaves_a_record(store):
    tasks = [SINGLE, BATCH]
    ended, executor, told = run(store, tasks, lambda task: Failure("ValueError: a bug") if task is SINGLE else None)
    assert executor.begun[SINGLE.seeds] == 1
    assert told == []
    assert len(ended) == 2
    (path,) = (store.directory / "failed").iterdir()
    content = json.loads(path.read_text())
    assert content.pop("failed_at")
    algo, fn, dim, settings_hash = SINGLE.cell.key
    cell = {"algo": algo, "fn": fn, "dim": dim, "settings_hash": settings_hash}
    assert content == {**cell, "seeds": [0], "reason": "ValueError: a bug"}
    Failures(store.directory).forget(BATCH.cell.key, range(8))
    assert len(recorded(store)) == 1
    Failures(store.directory).forget(SINGLE.cell.key, (0, 1))
    assert not (store.directory / "failed").exists()


def test_a_store_that_cannot_be_written_ends_it_all(store):
    tasks = [SINGLE, BATCH, Task(BATCH.cell, (9,))]
    outcomes = {SINGLE.key: None, BATCH.key: Failure("cannot write 'x': No space left on device", "store")}
    with pytest.raises(StoreError, match="No space left on device"):
        run(store, tasks, lambda task: outcomes[task.key], slots=1)
    assert store.seeds_of(SINGLE.cell.key) == {0}
    assert recorded(store) == {}
    assert not (store.directory / "leases").exists()


def test_a_task_of_another_process_is_waited_for_and_not_repeated(store, monkeypatch):
    monkeypatch.setattr(schedule, "LOOK", 0.01)
    with Leases(store.directory) as theirs:
        assert theirs.acquire(*BATCH.key)
        looks = 0

        class Watching(Script):
            def ended(self, seconds):
                nonlocal looks
                looks += 1
                if looks == 3:  # they end it
                    store.write(*rows(BATCH.seeds, BATCH.cell.key))
                    theirs.release(*BATCH.key)
                return super().ended(seconds)

        executor, told = Watching(store, lambda task: None), []
        with Leases(store.directory) as ours:
            plan = Schedule(
                [BATCH, SINGLE], store, Failures(store.directory), ours, lambda what, again: told.append(what)
            )
            ended = {task.seeds: (list(outcome["seed"]), mine) for task, outcome, mine in plan.run(executor)}
    assert ended == {SINGLE.seeds: ([0], True), BATCH.seeds: (list(range(8)), False)}
    assert executor.begun == {SINGLE.seeds: 1}
    assert len(told) == 1
    assert told[0].startswith("waiting for process ")


def test_the_rest_of_a_task_that_another_process_did_in_part(store):
    store.write(*rows((2, 3), BATCH.cell.key))
    ended, executor, _ = run(store, [BATCH], lambda task: None)
    assert executor.begun == {(0, 1, 4, 5, 6, 7): 1}
    assert [(task.seeds, ours) for task, _, ours in ended] == [((2, 3), False), ((0, 1, 4, 5, 6, 7), True)]


def test_what_failed_elsewhere_meanwhile_is_reported_and_not_repeated(store):
    failures = Failures(store.directory)
    failures.add(*SINGLE.key, "ValueError: of last week")
    executor = Script(store, lambda task: None)
    with Leases(store.directory) as leases:
        plan = Schedule([BATCH, SINGLE], store, failures, leases, lambda what, again: None)
        failures.add(*BATCH.key, "ValueError: of another process")
        ended = {task.seeds: outcome for task, outcome, _ in plan.run(executor)}
    assert ended[BATCH.seeds] == Failure("ValueError: of another process")
    assert executor.begun == {SINGLE.seeds: 1}, "an old failure does not count"


class Speechless(Exception):
    def __str__(self):
        raise AttributeError("never initialised")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ZeroDivisionError("division by zero"), Failure("ZeroDivisionError: division by zero")),
        (KeyError(), Failure("KeyError: no message")),
        (SystemExit(3), Failure("SystemExit: 3")),
        (MemoryError(), Failure("MemoryError: no message", "memory")),
        (RuntimeError("alloc: can't allocate memory"), Failure("RuntimeError: alloc: can't allocate memory", "memory")),
        (RuntimeError("\n\x1b[31mred\nand more"), Failure(r"RuntimeError: '\x1b[31mred'")),
        (RuntimeError("x" * 10**6), Failure(f"RuntimeError: {'x' * 500}")),
        (Speechless(), Failure("Speechless: no message")),
        (StoreError("cannot write 'x'"), Failure("cannot write 'x'", "store")),
    ],
)
def test_what_an_exception_means(error, failure):
    assert failure_of(error) == failure
