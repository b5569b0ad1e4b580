"""`evobench verify` finds each thing that can be wrong, and nothing in a directory where nothing is."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evobench.experiment import make_experiment
from evobench.runner import run_experiment
from evobench.store import Store
from evobench.verify import verify

CONTENT = {"algo": "pso_diff,de_guarded,ga", "fn": "ackley,griewank", "dim": 3, "seeds": 2, "budget": 400, "pop": 20}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Runs of a real experiment, under the fair protocol too."""
    directory = tmp_path_factory.mktemp("verified")
    for protocol in ("paper", "fair"):
        run_experiment(make_experiment({**CONTENT, "protocol": protocol}), directory, jobs=1)
    return Store(directory)


@pytest.fixture
def copy(results, tmp_path):
    """A copy to spoil."""
    store = Store(tmp_path / "copy")
    for kind in ("runs", "history"):
        (store.directory / kind).mkdir(parents=True)
        for path in results.files(kind):
            (store.directory / kind / path.name).write_bytes(path.read_bytes())
    return store


def spoil(store, kind, column, change):
    """Change a column of seed 1 in the first file; returns its algorithm."""
    path = store.files(kind)[0]
    frame = pq.read_table(path).to_pandas()
    rows = frame["seed"] == 1
    frame[column] = [change(value) if hit else value for value, hit in zip(frame[column], rows, strict=True)]
    pq.write_table(pa.Table.from_pandas(frame, schema=pq.read_schema(path), preserve_index=False), path)
    return frame["algo"].iloc[0]


def test_nothing_is_found_where_nothing_is_wrong(results):
    report = verify(results)
    assert report.findings == []
    assert report.runs == 2 * 3 * 2 * 2
    assert report.files == 2 * len(results.files("runs"))


@pytest.mark.parametrize(
    ("kind", "column", "change", "what"),
    [
        ("runs", "best_f", lambda value: value - 1e-6, "but the objective at best_x is"),
        ("runs", "best_f", lambda value: value - 1e-6, "but its history ends at"),
        ("runs", "best_x", lambda value: value + np.array([0, 0, 1e-3]), "but the objective at best_x is"),
        ("runs", "best_x", lambda value: value + 300, "outside the box"),
        ("runs", "best_x", lambda value: value[:2], "outside the box"),
        ("runs", "f_evals", lambda value: 1000, "spent 1"),
        ("runs", "budget", lambda value: 500, "does not have the settings_hash"),
        ("runs", "settings", lambda value: value.replace("0.9", "0.8"), "does not have the settings_hash"),
        ("runs", "settings", lambda value: '{"compile": true, ' + value[1:], "does not have the settings_hash"),
        ("runs", "pop_size", lambda value: value + 1, "does not have the settings_hash"),
        ("runs", "pop_size", lambda value: -(2**31), "does not have the settings_hash"),
        ("runs", "settings", lambda value: "[" * 100_000, "its settings are no mapping"),
        ("runs", "settings", lambda value: "{", "cannot be evaluated again"),
        ("runs", "settings", lambda value: "[]", "its settings are no mapping"),
        ("runs", "settings", lambda value: '{"compile": 3}', "bad value 3 for compile"),
        ("history", "best_f", lambda value: -value, "gets worse"),
        ("history", "seed", lambda value: 7, "has no history"),
    ],
)
def test_what_is_wrong_is_found(copy, kind, column, change, what):
    algo = spoil(copy, kind, column, change)
    findings = verify(copy).findings
    assert any(what in finding.what and finding.where.startswith(algo) for finding in findings), findings
    assert all(finding.where.endswith("seed 1") for finding in findings)


def test_an_impossible_dimension_is_found(copy):
    """And no box of two thousand million coordinates is made for it."""
    spoil(copy, "runs", "dim", lambda value: 2**31 - 1)
    assert any("2147483647) for dim: input should be" in finding.what for finding in verify(copy).findings)


def test_an_objective_that_raises_is_found(copy, monkeypatch):
    def no_value(self, x):
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr("evobench.problems.Problem.__call__", no_value)
    findings = verify(copy).findings
    assert {finding.what for finding in findings} == {"cannot be evaluated again: ZeroDivisionError: a bug"}


def test_missing_seeds_are_found(copy):
    path = copy.files("runs")[0]
    table = pq.read_table(path)
    pq.write_table(table.filter(table["seed"].to_numpy() == 0), path)
    (finding,) = verify(copy).findings
    assert finding.what == "is incomplete: 1 of 2 seeds are missing"


def test_repeats_that_differ_are_found(copy):
    path = copy.files("runs")[0]
    again = path.with_name(path.name.replace("-s0-1", "-s0"))
    again.write_bytes(path.read_bytes())
    assert verify(copy).findings == []  # the same row twice does no harm
    table = pq.read_table(path)
    changed = pa.array(table["best_f"].to_numpy() + 1)
    pq.write_table(table.set_column(table.schema.get_field_index("best_f"), "best_f", changed), again)
    assert any(finding.what == "is stored twice, with different results" for finding in verify(copy).findings)


@pytest.mark.parametrize("kind", ["runs", "history"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "foreign"])
def test_damage_is_found_and_repaired_by_the_next_run(copy, results, kind, damage):
    """Set aside, named, and computed again: the directory ends as if nothing had happened."""
    path = copy.files(kind)[0]
    content = path.read_bytes()
    protocol = pq.read_table(copy.directory / "runs" / path.name)["protocol"][0].as_py()
    match damage:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "flipped":  # a bit of the first column's data
            path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
        case "foreign":
            pd.DataFrame({"sales": [1.0]}).to_parquet(path)
    (finding,) = verify(copy).findings
    assert finding.where == f"{kind}/{path.name}"

    damaged = []

    class Listener:
        def started(self, plan):
            damaged.extend(plan.damaged)

        def noticed(self, what, again): ...

        def finished(self, task, runs): ...

        def progressed(self, task, share, best): ...

    experiment = make_experiment({**CONTENT, "protocol": protocol})
    summary = run_experiment(experiment, copy.directory, jobs=1, listener=Listener())
    assert summary.computed == 2
    assert [path.name in sentence for sentence in damaged] == [True]
    assert path.with_name(f"{path.name}.corrupt").exists()
    assert verify(copy).findings == []
    same = ["best_f", "f_evals", "g_evals", "settings_hash", "seed"]
    pd.testing.assert_frame_equal(copy.load()[same], results.load()[same])
    pd.testing.assert_frame_equal(copy.load("history"), results.load("history"))
