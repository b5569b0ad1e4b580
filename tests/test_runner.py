"""Experiments end to end, tiny: planned, interrupted, resumed, in one process and in several."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import evobench
from evobench import executors, runner
from evobench.evograd import FAMILIES
from evobench.experiment import Experiment, make_experiment
from evobench.problems import draw_shift, make_problem
from evobench.runner import Plan, Summary, plan, run_experiment
from evobench.store import HISTORY, RUNS, Store, StoreError, load_results
from evobench.tasks import Failure, Task, compute, execute, provenance
from evobench.verify import verify

CONTENT = {
    "name": "tiny",
    "algo": "ga,cmaes,pso_diff,cmaes_plain",
    "fn": "ackley,michalewicz",
    "dim": 3,
    "seeds": "0-2",
    "budget": 47,
    "pop": 8,
    "device": "cpu",
}
TASKS = 2 * (2 * 3 + 2)  # functions × (pymoo's seeds one by one, tensor programs in one batch)
RUNS_IN_ALL = 2 * 4 * 3

CLOCK = ["wall_s", "started_at"]


def tiny(**changes) -> Experiment:
    return make_experiment({**CONTENT, **changes})


class Witness:
    """A listener that writes down what it is told, and can stop the experiment as Ctrl-C does."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.plan: Plan | None = None
        self.done: list[tuple[str, str, tuple[int, ...]]] = []
        self.failures: list[tuple[str, str]] = []
        self.notices: list[str] = []
        self.progress: dict[str, list[tuple[float, float]]] = {}

    def started(self, plan: Plan) -> None:
        self.plan = plan

    def progressed(self, task: Task, share: float, best: float) -> None:
        self.progress.setdefault(f"{task.cell} {task.seeds}", []).append((share, best))

    def finished(self, task: Task, runs: pd.DataFrame) -> None:
        assert sorted(runs["seed"]) == list(task.seeds)
        self.done.append((task.cell.algo, task.cell.fn, task.seeds))
        if len(self.done) == self.stop_after:
            raise KeyboardInterrupt

    def failed(self, task: Task, reason: str) -> None:
        self.failures.append((task.cell.algo, reason))

    def noticed(self, what: str, again: Task | None) -> None:
        self.notices.append(what)


def assert_same_results(one: Path, other: Path) -> None:
    """Row by row, every column but the clock's."""
    for kind in ("runs", "history"):
        left, right = (load_results(path, kind).drop(columns=CLOCK, errors="ignore") for path in (one, other))
        if kind == "runs":
            boxes = [np.stack(frame.pop("best_x")) for frame in (left, right)]
            np.testing.assert_array_equal(*boxes)
        pd.testing.assert_frame_equal(left, right, check_exact=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary, Witness]:
    """The experiment run once, uninterrupted, in this process."""
    directory = tmp_path_factory.mktemp("whole")
    witness = Witness()
    summary = run_experiment(tiny(), directory, jobs=1, listener=witness)
    return directory, summary, witness


# Planning


def test_a_plan_counts_what_is_stored_and_what_is_left(tmp_path):
    store = Store(tmp_path)
    empty = plan(tiny(), store)
    assert (len(empty.cells), empty.stored, len(empty.tasks)) == (8, 0, TASKS)
    assert sum(len(task.seeds) for task in empty.tasks) == RUNS_IN_ALL
    assert not list(tmp_path.iterdir()), "planning writes nothing"

    run_experiment(tiny(algo="ga,pso_diff", fn="ackley", seeds="1,5"), tmp_path, jobs=1)
    later = plan(tiny(), store)
    assert later.stored == 2
    assert sum(len(task.seeds) for task in later.tasks) == RUNS_IN_ALL - 2
    left = {(task.cell.algo, task.seeds) for task in later.tasks if task.cell.fn == "ackley"}
    assert {seeds for algo, seeds in left if algo == "ga"} == {(0,), (2,)}
    assert {seeds for algo, seeds in left if algo == "pso_diff"} == {(0, 2)}, "one batch of what is missing"
    assert {seeds for algo, seeds in left if algo == "cmaes_plain"} == {(0, 1, 2)}
    assert plan(tiny(), store, fresh=True).stored == 0
    assert len(plan(tiny(), store, fresh=True).tasks) == TASKS
    other_settings = plan(tiny(settings={"ga": {"eta_c": 6}}), store)
    assert other_settings.stored == 1, "a changed setting is another cell"


def test_nothing_to_do(whole):
    directory, _, _ = whole
    files = sorted(path.stat().st_mtime_ns for path in directory.rglob("*"))
    witness = Witness()
    summary = run_experiment(tiny(), directory, jobs=2, listener=witness)
    assert (summary.computed, summary.stored, summary.failures) == (0, RUNS_IN_ALL, [])
    assert witness.done == []
    assert sorted(path.stat().st_mtime_ns for path in directory.rglob("*")) == files


@pytest.mark.parametrize(
    "changes", [{"budget": 7}, {"fn": "no_such_module:f"}, {"shift": 101}, {"algo": "de", "pop": 3}]
)
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path, refused, changes):
    with refused():
        run_experiment(tiny(**changes), tmp_path / "results", jobs=1)
    assert not (tmp_path / "results").exists()


def test_foreign_results_are_refused_before_anything_is_computed(tmp_path, refused):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "sales.parquet").write_bytes(b"not ours")
    with refused("sales.parquet"):
        run_experiment(tiny(), tmp_path, jobs=1)
    assert len(list(tmp_path.rglob("*"))) == 2


# Results


def test_every_run_is_there_once(whole):
    directory, summary, witness = whole
    assert (summary.computed, summary.stored, summary.failures) == (RUNS_IN_ALL, 0, [])
    runs = load_results(directory)
    assert list(runs.columns) == RUNS.names
    assert len(runs) == RUNS_IN_ALL
    expected = {
        (algo, fn, 3, seed)
        for algo in ("ga", "cmaes", "pso_diff", "cmaes_plain")
        for fn in ("ackley", "michalewicz")
        for seed in range(3)
    }
    assert set(runs[["algo", "fn", "dim", "seed"]].itertuples(index=False, name=None)) == expected
    assert len(witness.done) == len(witness.plan.tasks) == TASKS
    assert len(list((directory / "runs").iterdir())) == len(list((directory / "history").iterdir())) == 8, "merged"


def test_the_stored_best_is_the_functions_value_there(whole):
    for row in load_results(whole[0]).itertuples():
        problem = make_problem(row.fn, row.dim)
        assert problem(row.best_x) == pytest.approx(row.best_f, rel=1e-12, abs=1e-12)
        assert (np.abs(row.best_x) <= 100).all()
        if row.fn == "ackley":
            assert row.gap == row.best_f
        else:
            assert math.isnan(row.gap)


def test_the_budget_is_respected(whole):
    directory, _, _ = whole
    runs, history = load_results(directory), load_results(directory, "history")
    assert (runs["f_evals"] <= 47).all()
    assert (runs.loc[runs["backend"] == "pymoo", "f_evals"] == 47).all()
    assert (runs.loc[runs["backend"] == "evograd", "f_evals"] >= 40).all()
    assert (runs["g_evals"] > 0).equals(runs["algo"] == "pso_diff")
    assert (history["evals"] <= 47).all()
    last = history.groupby(["algo", "fn", "seed"]).last()["best_f"]
    assert last.tolist() == runs.sort_values(["algo", "fn", "seed"])["best_f"].tolist()
    assert list(history.columns[: len(HISTORY)]) == HISTORY.names
    assert {"omega", "c1", "c2"} & set(history.columns) or len(history.columns) > len(HISTORY)


def test_where_a_row_comes_from(whole):
    runs = load_results(whole[0])
    assert set(runs["experiment"]) == {"tiny"}
    origin = provenance()
    assert set(origin) | {"started_at"} == set(RUNS.names[RUNS.names.index("evobench_version") :])
    for column, value in origin.items():
        assert set(runs[column]) == {value}
    for package in ("torch", "pymoo", "cma", "numpy"):
        assert origin[f"{package}_version"] == version(package)
    assert origin["evobench_version"] == evobench.__version__
    assert origin["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert origin["cpu"]
    assert origin["platform"]
    for column in set(RUNS.names) - {"gap", "git_commit"}:
        assert runs[column].notna().all(), column
        assert (runs[column].astype(str) != "").all(), column
    started = pd.to_datetime(runs["started_at"])
    assert str(started.dt.tz) == "UTC"
    assert (runs["wall_s"] > 0).all()
    assert runs.groupby("backend")["batch_size"].unique().map(list).to_dict() == {"evograd": [3], "pymoo": [1]}


def test_a_row_says_what_was_run(whole):
    runs = load_results(whole[0])
    cells = {cell.key: cell for cell in tiny().cells()}
    for row in runs.itertuples():
        cell = cells[row.algo, row.fn, row.dim, row.settings_hash]
        for field in type(cell).model_fields:
            if field not in ("settings", "compile", "versions", "problem"):
                assert getattr(row, field) == getattr(cell, field), field
        assert json.loads(row.settings) == json.loads(json.dumps(cell.settings))  # "compile" is added where it is on
    assert {json.loads(text)["eta_c"] for text in runs.loc[runs["algo"] == "ga", "settings"]} == {15.0}


def test_progress_is_told(whole):
    _, _, witness = whole
    baselines = [task for task in witness.plan.tasks if task.cell.backend == "pymoo"]
    assert set(witness.progress) >= {f"{task.cell} {task.seeds}" for task in baselines}
    for steps in witness.progress.values():
        shares, bests = zip(*steps, strict=True)
        assert list(shares) == sorted(shares)
        assert 0 < shares[-1] <= 1
        assert all(np.isfinite(bests))
        assert list(bests) == sorted(bests, reverse=True)


def test_seeds_decide_and_neighbours_do_not(whole, tmp_path):
    """One seed of each algorithm by itself gives the rows it gives beside the others."""
    run_experiment(tiny(seeds="1,"), tmp_path, jobs=1)
    alone = load_results(tmp_path)
    beside = load_results(whole[0]).query("seed == 1").reset_index(drop=True)
    assert alone["best_f"].tolist() == pytest.approx(beside["best_f"].tolist(), rel=1e-6)
    baseline = alone["backend"] == "pymoo"
    assert alone.loc[baseline, "best_f"].tolist() == beside.loc[baseline, "best_f"].tolist()
    assert load_results(whole[0]).groupby(["algo", "fn"])["best_f"].nunique().eq(3).all()


def test_the_fair_protocol_shifts_all_algorithms_of_a_seed_alike(tmp_path):
    experiment = tiny(protocol="fair", algo="ga,cmaes,pso_diff,ga_guarded", budget=120)
    assert run_experiment(experiment, tmp_path, jobs=1).failures == []
    runs = load_results(tmp_path)
    for row in runs.itertuples():
        problem = make_problem(row.fn, row.dim)
        shifted = problem.shifted(draw_shift(row.seed, problem, 60.0))
        assert shifted(row.best_x) == pytest.approx(row.best_f, rel=1e-12, abs=1e-12)
        assert problem(row.best_x) != pytest.approx(row.best_f), "unshifted it would be another value"
    assert set(runs["shift"]) == {60.0}
    assert set(runs["init"]) == {"uniform"}
    assert set(runs["dtype"]) == {"float64"}
    charged = runs["f_evals"] + runs["gradient_cost"] * runs["g_evals"]
    assert (charged <= 120).all()
    assert (runs.loc[runs["algo"] == "pso_diff", "g_evals"] > 0).all()
    assert (runs.loc[runs["algo"] == "pso_diff", "f_evals"] < 100).all(), "gradients are paid for"


# Interrupting, resuming, forgetting


@pytest.mark.parametrize("stop_after", [1, TASKS - 1])
def test_interrupted_and_resumed_equals_uninterrupted(whole, tmp_path, stop_after):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny(), tmp_path, jobs=1, listener=Witness(stop_after))
    stored = len(load_results(tmp_path))
    assert 0 < stored < RUNS_IN_ALL
    witness = Witness()
    summary = run_experiment(tiny(), tmp_path, jobs=1, listener=witness)
    assert summary.stored == witness.plan.stored == stored
    assert summary.computed == RUNS_IN_ALL - stored
    assert_same_results(tmp_path, whole[0])
    assert len(list((tmp_path / "runs").iterdir())) == 8


def test_ctrl_c_in_the_middle_of_a_task(whole, tmp_path):
    """What was computed of the task is lost, nothing else."""

    class Impatient(Witness):
        def progressed(self, task: Task, share: float, best: float) -> None:
            if len(self.done) == 6 and share > 0.3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny(), tmp_path, jobs=1, listener=Impatient())
    assert 0 < len(load_results(tmp_path)) < RUNS_IN_ALL
    run_experiment(tiny(), tmp_path, jobs=1)
    assert_same_results(tmp_path, whole[0])


def test_fresh_forgets_the_seeds_that_are_run_and_no_others(tmp_path):
    few = {"algo": "ga", "fn": "ackley", "seeds": "0-2"}
    run_experiment(tiny(**few), tmp_path, jobs=1)
    run_experiment(tiny(**{**few, "algo": "de"}), tmp_path, jobs=1)
    before = load_results(tmp_path)
    before_history = load_results(tmp_path, "history")
    summary = run_experiment(tiny(**{**few, "seeds": "0,1"}), tmp_path, jobs=1, fresh=True)
    assert (summary.computed, summary.stored) == (2, 0)
    after = load_results(tmp_path)
    assert after["seed"].tolist() == before["seed"].tolist() == [0, 1, 2, 0, 1, 2]
    assert after["best_f"].tolist() == before["best_f"].tolist()
    kept = "algo == 'de' or seed == 2"
    columns = ["wall_s", "started_at"]  # these tell a run that was kept from one that was repeated
    assert after.query(kept)[columns].equals(before.query(kept)[columns])
    assert (after.query(f"not ({kept})")["wall_s"] != before.query(f"not ({kept})")["wall_s"]).all()
    assert load_results(tmp_path, "history").equals(before_history)


# Several processes, and tasks that fail


SPITEFUL = """
import os

calls = 0

def f(x):
    global calls
    if x.ndim == 2 and x.shape[0] == 20:
        calls += 1
        if calls > 1:
            raise ArithmeticError("no value\\nfor this point")
    return x.square().sum(-1)

def deadly(x):
    if x.ndim == 2 and x.shape[0] == 20 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), 9)
    return x.square().sum(-1)
"""


@pytest.fixture
def spiteful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Users' functions that fail, or kill, pymoo's CMA-ES alone: only its first batch is of 20 points."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "spiteful.py").write_text(SPITEFUL)
    yield "spiteful:f"
    sys.modules.pop("spiteful", None)


def test_a_failing_task_is_reported_and_the_others_finish(spiteful, tmp_path):
    directory = tmp_path / "results"
    witness = Witness()
    experiment = tiny(fn=spiteful, algo="ga,cmaes,pso_diff")
    summary = run_experiment(experiment, directory, jobs=1, listener=witness)
    assert summary.computed == 7, "three of ga, three of pso_diff, and cmaes before it broke"
    assert [(task.cell.algo, task.seeds, why) for task, why in summary.failures] == [
        ("cmaes", (1,), "ArithmeticError: no value"),
        ("cmaes", (2,), "ArithmeticError: no value"),
    ]
    assert witness.failures == [("cmaes", "ArithmeticError: no value")] * 2
    assert len(witness.done) == 5
    left = plan(experiment, Store(directory))
    assert [(task.cell.algo, task.seeds) for task in left.tasks] == [("cmaes", (1,)), ("cmaes", (2,))]
    listed = [finding for finding in verify(Store(directory)).findings if finding.where.startswith("failed/")]
    assert [finding.what for finding in listed] == [f"seed {seed} failed: ArithmeticError: no value" for seed in (1, 2)]
    sys.modules["spiteful"].calls = -99
    assert run_experiment(experiment, directory, jobs=1).computed == 2
    assert len(list((directory / "runs").iterdir())) == 3
    assert verify(Store(directory)).findings == []
    assert not (directory / "failed").exists()


def test_a_disk_that_fills_up_ends_the_run_and_spoils_nothing(whole, tmp_path, refused):
    """For real: files of more than so many bytes are refused. One sentence, and what was finished stays."""
    sizes = sorted(path.stat().st_size for path in whole[0].rglob("*.parquet"))
    run_experiment(tiny(algo="ga"), tmp_path, jobs=1)  # finished before the disk is full
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[-1] - 40, limit[1]))  # times change a file by some bytes
    try:
        with refused("cannot write '", ".parquet': File too large", error=StoreError):
            run_experiment(tiny(), tmp_path, jobs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {"runs", "history", "plan.json"}
    assert Store(tmp_path).damaged() == []
    assert 0 < run_experiment(tiny(), tmp_path, jobs=1).stored < RUNS_IN_ALL
    assert_same_results(tmp_path, whole[0])


def test_a_directory_that_becomes_read_only(whole, tmp_path, refused, monkeypatch):
    real, calls = os.replace, 0

    def replace(*paths):
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(*paths)

    monkeypatch.setattr(os, "replace", replace)
    with refused("cannot write '", "Read-only file system", error=StoreError):
        run_experiment(tiny(), tmp_path, jobs=1)
    monkeypatch.undo()
    assert run_experiment(tiny(), tmp_path, jobs=1).stored == 2 * 3, "two tasks had been stored"
    assert_same_results(tmp_path, whole[0])


def test_processes_that_share_a_directory_share_the_work(tmp_path):
    """Real ones; one of three is killed, and the others take over what it held."""
    script = Path(__file__).parent.parent / "scripts" / "share_sweep.py"
    command = [sys.executable, str(script), "--rounds", "1", "--processes", "3", "--kills", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parent.parent, timeout=250)
    assert done.stdout == "round 1: the same rows, no task twice\n", done.stdout + done.stderr
    assert done.returncode == 0


def test_two_workers_give_the_same_rows_whatever_happens_to_one_of_them(whole, spiteful, tmp_path):
    """A task whose worker is killed is tried again, and takes no other task with it."""
    directory = tmp_path / "results"
    witness = Witness()
    experiment = tiny(fn=f"ackley,michalewicz,{spiteful},spiteful:deadly", seeds="0-2")
    bystander = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(100,))
    bystander.start()
    try:
        summary = run_experiment(experiment, directory, jobs=2, listener=witness)
        assert multiprocessing.active_children() == [bystander], "our workers end, other children do not"
    finally:
        bystander.kill()
        bystander.join()
    assert summary.computed + sum(len(task.seeds) for task, _ in summary.failures) == 2 * RUNS_IN_ALL
    assert len(witness.done) + len(witness.failures) == 2 * TASKS
    assert {(task.cell.fn, why) for task, why in summary.failures} == {(spiteful, "ArithmeticError: no value")}
    (notice,) = witness.notices
    assert re.fullmatch(
        r"cmaes spiteful:deadly 3D seed \d: a worker process was killed \(out of memory\?\); tried again", notice
    )

    runs, expected = load_results(directory), load_results(whole[0])
    common = runs[runs["fn"].isin(["ackley", "michalewicz"])].reset_index(drop=True)
    np.testing.assert_array_equal(np.stack(common.pop("best_x")), np.stack(expected.pop("best_x")))
    pd.testing.assert_frame_equal(common.drop(columns=CLOCK), expected.drop(columns=CLOCK), check_exact=True)
    left = plan(experiment, Store(directory))
    failed = {(task.cell.key, task.seeds) for task, _ in summary.failures}
    assert {(task.cell.key, task.seeds) for task in left.tasks} == failed


def test_a_task_runs_by_itself():
    (cell,) = tiny(algo="cmaes_plain", fn="ackley").cells()
    records = execute(Task(cell, (4, 2)), lambda share, best: None)
    assert [record.seed for record in records] == [4, 2]


def test_whatever_a_function_raises_is_the_failure_of_its_task(tmp_path, monkeypatch):
    """Not only Exceptions: libraries cancel and skip by exceptions of other kinds. Ctrl-C is the user's."""

    class Cancelled(BaseException):
        pass

    def raises(error):
        def execute(*_, **__):
            raise error

        return execute

    (cell,) = tiny(algo="cmaes_plain", fn="ackley").cells()
    task, context = Task(cell, (4, 2)), ("adhoc", tmp_path, {})
    monkeypatch.setattr("evobench.tasks.execute", raises(Cancelled("by a library")))
    assert compute(task, context, lambda share, best: None) == Failure("Cancelled: by a library")
    monkeypatch.setattr("evobench.tasks.execute", raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        compute(task, context, lambda share, best: None)


def test_seeds_that_do_not_fit_into_memory_make_further_batches(tmp_path, monkeypatch):
    """The same results, to the bit in float64."""
    content = {"algo": "cmaes_diff,de_guarded", "fn": "griewank", "dim": 6, "seeds": 5, "budget": 300, "pop": 10}
    experiment = make_experiment(content | {"dtype": "float64"})
    run_experiment(experiment, tmp_path / "one", jobs=1)
    monkeypatch.setattr(runner, "MEMORY", 2 * 2.2 * 8 * FAMILIES["cmaes"].peak(10, 6))
    tasks = plan(experiment, Store(tmp_path / "none")).tasks
    assert [task.seeds for task in tasks if task.cell.algo == "cmaes_diff"] == [(0, 1), (2, 3), (4,)]
    run_experiment(experiment, tmp_path / "several", jobs=1)
    one, several = (load_results(tmp_path / name) for name in ("one", "several"))
    assert (one["batch_size"] == 5).all()
    assert (several["batch_size"] <= 2).all()
    same = ["algo", "seed", "best_f", "f_evals", "g_evals"]
    pd.testing.assert_frame_equal(one[same], several[same], check_exact=True)


def test_the_estimate_of_memory_at_500_dimensions():
    """30 runs are one batch, 200 of CMA-ES are three, of PSO two, and 300 of PSO four; what is at work at once has
    the same memory on any machine."""

    def batches(seeds, algo="cmaes_diff", jobs=1):
        content = {"algo": algo, "fn": "michalewicz", "dim": 500, "seeds": seeds}
        return [len(task.seeds) for task in plan(make_experiment(content), Store("nowhere"), jobs=jobs).tasks]

    assert batches(30) == [30]
    assert len(batches(200)) == len(batches(200, jobs=2)) == 3
    assert batches(100, "pso_diff") == [100]
    assert batches(200, "pso_diff") == [100, 100]
    assert batches(300, "pso_diff") == [75] * 4  # of which each of two cores has two
    for jobs in (2, 8):
        at_once = sorted(batches(200, jobs=jobs))[-jobs:]
        assert sum(at_once) * 4 * FAMILIES["cmaes"].peak(100, 500) <= runner.MEMORY


PEAK = """
import sys
from pathlib import Path
from evobench.experiment import make_experiment
from evobench.tasks import Task, execute, footprint

algo, dim, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
content = {"algo": algo, "fn": "ackley", "dim": dim, "seeds": count, "budget": 500, "device": "cpu"}
(cell,) = make_experiment(content).cells()
execute(Task(cell, (0, 1)), lambda share, best: None)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
execute(Task(cell, tuple(range(count))), lambda share, best: None)
status = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in status if line.startswith("VmHWM")).split()[1], footprint(cell))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a process's peak memory is Linux's to tell")
def test_the_estimate_of_memory_is_an_upper_bound_but_not_far_up():
    """What eight more runs add to the peak of a process of their own."""

    def peak(count):
        command = [sys.executable, "-c", PEAK, "cmaes_diff", "400", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return map(float, done.stdout.split())

    (few, estimate), (many, _) = peak(4), peak(12)
    assert 0.3 * estimate < 1024 * (many - few) / 8 < estimate


FAULTS = """
import resource
import torch
from evobench.executors import Here

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        tensors = [torch.ones(500_000) for _ in range(5)]  # 10 MB, gone before they are made again
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with Here(None, None):
    faults()
    print(faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone is asked to keep freed memory")
def test_a_process_that_computes_by_itself_keeps_its_memory():
    """As its workers do: 200 MB that come and go are not cleared by the kernel page by page, 49,000 faults."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 5_000


def test_the_seeds_of_a_large_cell_are_shared_out_where_cores_are_idle(tmp_path):
    """Each process has a batch of its own, and what is stored does not move the borders between batches."""

    def tasks(directory="nowhere", jobs=2, **content):
        content = {"algo": "pso_plain", "fn": "ackley", "dim": 1500, "pop": 10, "seeds": 5, "budget": 30} | content
        return [task.seeds for task in plan(make_experiment(content), Store(tmp_path / directory), jobs=jobs).tasks]

    assert tasks() == tasks(compile=True) == [(0, 1, 2), (3, 4)]
    assert tasks(jobs=1) == tasks(dim=1499) == [(0, 1, 2, 3, 4)]
    assert tasks(jobs=9) == [(0, 1), (2, 3), (4,)]
    assert tasks(algo="pso_plain,ga_plain", jobs=3) == [(0, 1, 2), (3, 4)] * 2
    assert tasks(algo="pso_plain,ga_plain") == [(0, 1, 2, 3, 4)] * 2
    content = {"algo": "pso_plain", "fn": "ackley", "dim": 1500, "pop": 10, "budget": 30}
    run_experiment(make_experiment(content | {"seeds": "3,4"}), tmp_path / "results", jobs=1)
    assert tasks("results") == [(0, 1, 2)]
    run_experiment(make_experiment(content | {"seeds": 5}), tmp_path / "results", jobs=2)
    run_experiment(make_experiment(content | {"seeds": 5}), tmp_path / "whole", jobs=1)
    shared, whole = (load_results(tmp_path / name).sort_values("seed") for name in ("results", "whole"))
    np.testing.assert_allclose(shared["best_f"], whole["best_f"], rtol=1e-5)


def test_what_is_stored_does_not_move_the_borders_between_batches_of_many_seeds(tmp_path):
    """300 seeds are four batches, and where one is stored the other three are left, whichever it is."""
    content = {"algo": "pso_plain", "fn": "ackley", "dim": 2, "pop": 2, "budget": 4}
    first, second, *rest = plan(make_experiment(content | {"seeds": 300}), Store(tmp_path)).tasks
    run_experiment(make_experiment(content | {"seeds": f"{second.seeds[0]}-{second.seeds[-1]}"}), tmp_path, jobs=1)
    assert plan(make_experiment(content | {"seeds": 300}), Store(tmp_path)).tasks == [first, *rest]


@pytest.mark.parametrize(("stored", "jobs"), [("", 2), ("pso_plain", 2), ("pso_plain", 1)])
def test_what_is_stored_does_not_change_how_the_rest_is_computed(stored, jobs, tmp_path, monkeypatch):
    """Two cells are a pool's, even where one is left: a process alone has more threads, and other last bits."""
    content = {"algo": "pso_plain,de_plain", "fn": "ackley", "dim": 3, "seeds": 2, "budget": 100, "pop": 10}
    if stored:
        run_experiment(make_experiment(content | {"algo": stored}), tmp_path, jobs=1)
    ways = []
    for kind in (executors.Here, executors.Pool):
        real = kind.submit
        monkeypatch.setattr(
            kind,
            "submit",
            lambda self, task, real=real, kind=kind: ways.append(kind) or real(self, task),
        )
    run_experiment(make_experiment(content), tmp_path, jobs=jobs)
    assert ways == [executors.Pool if jobs == 2 else executors.Here] * (1 if stored else 2)
