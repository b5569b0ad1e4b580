"""Results on disk: what goes in comes out, and neither crashes, neighbours nor names can spoil it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evobench.store import HISTORY, RUNS, Store, StoreError, _label, load_results

KEY = ("ga", "ackley", 3, "0123456789ab")
TEXT = [field.name for field in RUNS if field.type == pa.string()]


def rows(seeds, key=KEY, gap=0.5, learned=()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of one task, every value a function of key and seed."""
    algo, fn, dim, settings_hash = key
    identity = {"algo": algo, "fn": fn, "dim": dim, "settings_hash": settings_hash}
    runs = pd.DataFrame(
        {
            **{name: f"the {name}" for name in TEXT},
            **identity,
            "seed": seed,
            "pop_size": 100,
            "budget": 10**12 + seed,
            "f_evals": 10**12,
            "g_evals": seed,
            "best_f": 1 / (seed + 3),
            "gap": gap,
            "best_x": np.linspace(-1, seed, dim),
            "wall_s": 0.25,
            "batch_size": 30,
            "shift": 0.1,
            "gradient_cost": 5.0,
            "experiment": "tests",
            "ignored": "no column of ours",
        }
        for seed in seeds
    )
    history = pd.concat(
        pd.DataFrame(
            {
                "algo": algo,
                "fn": fn,
                "dim": dim,
                "seed": seed,
                "settings_hash": settings_hash,
                "evals": [100.0, 200.0, 300.5],
                "best_f": [3.0, 2.0, 1 / (seed + 3)],
                **{name: [seed + 0.25, 0.5, np.nan] for name in learned},
            }
        )
        for seed in seeds
    )
    return runs, history


def write(store: Store, *seeds: int, key=KEY, **more) -> str:
    return store.write(*rows(seeds, key, **more))


def shards(store: Store, kind: str = "runs") -> list[str]:
    return sorted(path.name for path in (store.directory / kind).iterdir())


def assert_holds(store: Store, seeds, key=KEY) -> None:
    """The store has exactly these seeds of one cell, each once, with its history."""
    runs, history = rows(sorted(seeds), key)
    pd.testing.assert_frame_equal(store.load()[["seed", "best_f", "algo"]], runs[["seed", "best_f", "algo"]])
    pd.testing.assert_frame_equal(store.load("history"), history.reset_index(drop=True), check_dtype=False)
    assert store.seeds_of(key) == set(seeds)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results" / "tests")


@contextmanager
def scratch() -> Iterator[Store]:
    """A store of one Hypothesis example. It does not wait for the disk: that guards against power cuts only."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield Store(Path(directory) / "results")


# Round trip


def test_nothing_is_created_before_the_first_write(store):
    store.check_writable()
    store.check_ours()
    assert store.seeds_of(KEY) == set()
    store.clear(KEY)
    store.merge(KEY)
    with pytest.raises(StoreError):
        store.load()
    assert not store.directory.parent.exists()


def test_every_column_and_type_comes_back(store):
    name = write(store, 0, 7)
    expected, _ = rows([0, 7])
    loaded = load_results(str(store.directory))
    assert list(loaded.columns) == RUNS.names
    for column in RUNS.names:
        for got, wanted in zip(loaded[column], expected[column], strict=True):
            np.testing.assert_array_equal(got, wanted, err_msg=column)
    assert loaded["best_x"][0].dtype == np.float64
    types = {"dim": "int32", "seed": "int64", "budget": "int64", "best_f": "float64", "gap": "float64"}
    assert {column: str(loaded[column].dtype) for column in types} == types
    schema = pq.read_schema(store.directory / "runs" / name)
    assert [(field.name, field.type) for field in schema] == [(field.name, field.type) for field in RUNS]
    assert shards(store) == shards(store, "history") == [name]


def test_history_comes_back(store):
    name = write(store, 4)
    _, expected = rows([4])
    loaded = load_results(store.directory, "history")
    assert list(loaded.columns) == HISTORY.names
    pd.testing.assert_frame_equal(loaded, expected.reset_index(drop=True), check_dtype=False)
    schema = pq.read_schema(store.directory / "history" / name)
    assert [(field.name, field.type) for field in schema] == [(field.name, field.type) for field in HISTORY]


def test_an_unknown_optimum_is_null_and_infinity_is_not(store):
    runs, history = rows([0, 1], gap=None)
    runs["best_f"] = [np.inf, -np.inf]
    name = store.write(runs, history)
    table = pq.read_table(store.directory / "runs" / name)
    assert table.column("gap").null_count == 2
    assert table.column("best_f").null_count == 0
    assert store.load()["gap"].isna().all()
    assert store.load()["best_f"].tolist() == [np.inf, -np.inf]


def test_learned_columns_beside_cells_that_have_none(store):
    other = ("pso_diff", *KEY[1:])
    write(store, 0)
    write(store, 0, 1, key=other, learned=("omega", "c1"))
    history = store.load("history")
    assert list(history.columns) == [*HISTORY.names, "c1", "omega"]
    assert history["c1"].dtype == np.float64
    assert history.loc[history["algo"] == "ga", "omega"].isna().all()
    assert history.loc[history["algo"] == "pso_diff", "omega"].tolist()[:2] == [0.25, 0.5]
    store.merge(other)
    pd.testing.assert_frame_equal(store.load("history"), history)


@settings(max_examples=25)
@given(
    best_f=st.floats(allow_nan=False),
    best_x=st.lists(st.floats(allow_nan=False), max_size=5),
    seed=st.integers(0, 2**62),
    reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
def test_any_values_come_back_to_the_bit(best_f, best_x, seed, reason):
    with scratch() as store:
        runs, history = rows([0])
        runs["best_x"] = [np.array(best_x)]
        runs["best_f"], runs["seed"], runs["stop_reason"] = best_f, seed, reason
        store.write(runs, history)
        loaded = store.load().iloc[0]
        assert loaded["best_f"].hex() == best_f.hex()
        assert [value.hex() for value in loaded["best_x"].tolist()] == [value.hex() for value in best_x]
        assert loaded["seed"] == seed
        assert loaded["stop_reason"] == reason


def test_rows_come_in_the_order_of_their_keys(store):
    for key in (("pso", *KEY[1:]), KEY, ("ga", "ackley", 20, KEY[3]), ("ga", "ackley", 3, "f" * 12)):
        for seed in (10, 2, 0):
            write(store, seed, key=key)
    loaded = store.load()[["algo", "fn", "dim", "settings_hash", "seed"]]
    assert loaded.equals(loaded.sort_values(list(loaded.columns)).reset_index(drop=True))
    assert len(loaded) == 12


# Resuming


def test_finished_seeds_are_found(store):
    write(store, 0, 1, 2)
    write(store, 9)
    neighbours = [
        ("ga_diff", *KEY[1:]),
        ("ga", "ackley", 30, KEY[3]),
        ("ga", "ackley2", 3, KEY[3]),
        ("ga", "ackley", 3, "0123456789ac"),
    ]
    for index, key in enumerate(neighbours):
        write(store, 100 + index, key=key)
    assert store.seeds_of(KEY) == {0, 1, 2, 9}
    for index, key in enumerate(neighbours):
        assert store.seeds_of(key) == {100 + index}
    store.clear(KEY)
    assert store.seeds_of(KEY) == set()
    assert sorted(store.load()["seed"]) == sorted(store.load("history")["seed"].unique()) == [100, 101, 102, 103]


def test_a_file_is_believed_by_its_rows_not_its_name(store):
    write(store, 0)
    other = write(store, 7, key=("de", *KEY[1:]))
    for kind in ("runs", "history"):
        (store.directory / kind / other).rename(store.directory / kind / other.replace("de-", "ga-"))
    assert store.seeds_of(KEY) == {0}


def test_repeated_rows_count_once(store):
    write(store, 0, 1)
    write(store, 1, 2)
    write(store, 0)
    assert_holds(store, [0, 1, 2])


def test_writing_again_replaces(store):
    assert write(store, 0, gap=1.0) == write(store, 0, gap=2.0)
    assert store.load()["gap"].tolist() == [2.0]


# Merging


def test_merging_keeps_every_row_and_leaves_one_file(store):
    for seed in (3, 0, 2, 1):
        write(store, seed)
    write(store, 50, key=("de", *KEY[1:]))
    store.merge(KEY)
    assert len(shards(store)) == len(shards(store, "history")) == 2
    before = shards(store)
    store.merge(KEY)
    store.merge(("absent", *KEY[1:]))
    assert shards(store) == before
    assert store.seeds_of(KEY) == {0, 1, 2, 3}
    assert store.seeds_of(("de", *KEY[1:])) == {50}
    assert len(store.load("history")) == 15


def test_merging_into_a_name_that_exists(store):
    merged = write(store, 0, 1, 2)
    write(store, 1)
    write(store, 2)
    store.merge(KEY)
    assert shards(store) == shards(store, "history") == [merged]
    assert_holds(store, [0, 1, 2])


class Crash(BaseException):
    """The process dies here."""


def crash_at(monkeypatch, owner, name: str, call: int) -> None:
    """The `call`-th use of `owner.name` never happens."""
    real, count = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        if count == call:
            raise Crash
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize("parts", [([0, 1], [1, 2], [5]), ([0, 1, 2], [1], [2])], ids=["overlap", "same name"])
@pytest.mark.parametrize(
    ("owner", "step", "call"),
    [(os, "replace", 1), (os, "replace", 2), *((Path, "unlink", call) for call in range(1, 9))],
)
def test_a_crash_while_merging_loses_and_repeats_nothing(parts, owner, step, call, monkeypatch):
    everything = set().union(*parts)
    with scratch() as store:
        for part in parts:
            write(store, *part)
        with monkeypatch.context() as patch:
            crash_at(patch, owner, step, call)
            with suppress(Crash):
                store.merge(KEY)
        assert_holds(store, everything)
        store.merge(KEY)
        assert_holds(store, everything)
        assert len(shards(store)) == 1


def test_shards_that_another_process_merges_meanwhile(store, monkeypatch):
    """A reader that listed a shard before it was merged away looks again."""
    for seed in range(4):
        write(store, seed)
    real = pq.ParquetFile
    opened = []

    def merge_first(path, *args, **kwargs):
        opened.append(path)
        if len(opened) == 2:
            with monkeypatch.context() as patch:
                patch.setattr(pq, "ParquetFile", real)
                Store(store.directory).merge(KEY)
        return real(path, *args, **kwargs)

    for use in (store.load, lambda: store.seeds_of(KEY), store.check_ours, lambda: store.merge(KEY)):
        store.clear(KEY)
        for seed in range(4):
            write(store, seed)
        opened.clear()
        with monkeypatch.context() as patch:
            patch.setattr(pq, "ParquetFile", merge_first)
            use()
        assert len(opened) > 1
        assert_holds(store, range(4))


# Atomicity


STALLED_WRITER = """
    import os, sys, time
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_store import Store, write
    step, call = sys.argv[3], int(sys.argv[4])
    real, count = getattr(os, step), 0
    def stall(*args):
        global count
        count += 1
        if count == call:
            print("stalled", flush=True)
            time.sleep(60)
        return real(*args)
    setattr(os, step, stall)
    write(Store(Path(sys.argv[2])), 1, 2)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A real process that can import this file."""
    command = [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_writer_killed_at_any_step_leaves_no_half_file(tmp_path):
    steps = [("fsync", 1), ("replace", 1), ("fsync", 3), ("replace", 2)]
    writers = []
    for index, (step, call) in enumerate(steps):
        store = Store(tmp_path / str(index))
        write(store, 0)
        writers.append((store, start(STALLED_WRITER, store.directory, step, call)))
    for (store, process), (step, call) in zip(writers, steps, strict=True):
        with process:
            assert process.stdout.readline() == "stalled\n"
            process.send_signal(signal.SIGKILL)
        left = [path for kind in ("runs", "history") for path in (store.directory / kind).glob(".*.tmp")]
        assert len(left) == 1, (step, call)
        assert store.load()["seed"].tolist() == [0]
        assert store.seeds_of(KEY) == {0}, "a killed task is not done"
        assert set(store.load("history")["seed"]) >= {0}
        store.check_ours()
        write(store, 1, 2)
        store.merge(KEY)
        assert_holds(store, [0, 1, 2])


def test_hidden_files_are_not_results(store):
    write(store, 0)
    for kind in ("runs", "history"):
        (store.directory / kind / f".{shards(store)[0]}.123-abc.tmp").write_bytes(b"PAR1 half a fi")
    assert_holds(store, [0])
    store.merge(KEY)


BUSY_WRITER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_store import KEY, Store, write
    store, first = Store(Path(sys.argv[2])), int(sys.argv[3])
    print("ready", flush=True)
    for seed in range(first, 24, 2):
        write(store, seed)
        write(store, 100)
        if seed % 5 == 0:
            store.merge(KEY)
    store.merge(KEY)
"""


def test_two_processes_write_one_directory_while_a_third_reads(store):
    write(store, 100)
    writers = [start(BUSY_WRITER, store.directory, first) for first in (0, 1)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    seen: set[int] = set()
    while any(writer.poll() is None for writer in writers):
        runs = store.load()
        assert not runs["seed"].duplicated().any()
        assert seen <= set(runs["seed"]), "what was there stays"
        seen = set(runs["seed"])
        assert seen <= set(store.load("history")["seed"]), "a run that is listed has its history"
    for writer in writers:
        with writer:
            assert writer.wait() == 0
    store.merge(KEY)
    assert_holds(store, [*range(24), 100])
    assert len(shards(store)) == len(shards(store, "history")) == 1


# What is not ours


def test_no_results(store, tmp_path, refused):
    for directory in (store.directory, tmp_path, Path(__file__), tmp_path / "x" / "y"):
        with refused("no results in", str(directory), error=StoreError):
            load_results(directory)
    (tmp_path / "runs").mkdir()
    with refused("no results in", error=StoreError):
        load_results(tmp_path)
    write(store, 0)
    store.clear(KEY)
    with refused("no results in", error=StoreError):
        store.load("history")


def expect_refusal(store: Store, refused, *texts: str) -> None:
    for use in (store.load, store.check_ours, lambda: store.seeds_of(KEY), lambda: store.merge(KEY)):
        with refused(*texts, error=StoreError):
            use()


@pytest.mark.parametrize("size", [0, 1, 4, 8, 100, 1000, -1, -4, -8, -9, -200])
def test_a_truncated_shard(store, refused, size):
    name = write(store, 0)
    write(store, 1)
    path = store.directory / "runs" / name
    path.write_bytes(path.read_bytes()[: size or 0])
    expect_refusal(store, refused, "cannot read", name)


@pytest.mark.parametrize("content", [b"hello", b"a,b\n1,2\n" * 50, b"PAR1" + b"\0" * 50 + b"PAR1", b"\0" * 4096])
def test_a_file_that_is_not_parquet(store, refused, content):
    write(store, 0)
    name = write(store, 1)
    (store.directory / "runs" / name).write_bytes(content)
    expect_refusal(store, refused, "cannot read", name)


def test_a_directory_in_place_of_a_shard(store, refused):
    name = write(store, 1)
    write(store, 0)
    (store.directory / "runs" / name).unlink()
    (store.directory / "runs" / name).mkdir()
    expect_refusal(store, refused, name)


def test_a_link_that_leads_nowhere(store, refused):
    name = write(store, 0)
    (store.directory / "runs" / f"z{name}").symlink_to("nowhere")
    with refused("cannot read", error=StoreError):
        store.load()


def test_a_foreign_table(store, refused):
    write(store, 0)
    name = write(store, 1)
    path = store.directory / "runs" / name
    pd.DataFrame({"sales": [1, 2]}).to_parquet(path)
    expect_refusal(store, refused, name, "is not a result of evobench", "has no column 'experiment'")


@pytest.mark.parametrize("column", ["seed", "dim", "best_f", "best_x", "algo"])
def test_a_table_with_our_names_and_other_types(store, refused, column):
    write(store, 0)
    name = write(store, 1)
    path = store.directory / "runs" / name
    table = pq.read_table(path)
    odd = pa.array([b"?"], pa.binary())
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, odd), path)
    expect_refusal(store, refused, name, "is not a result of evobench", f"its column '{column}'")


def test_learned_columns_that_do_not_fit_together(store, refused):
    write(store, 0, learned=("omega",))
    name = write(store, 1)
    path = store.directory / "history" / name
    table = pq.read_table(path)
    pq.write_table(table.append_column("omega", pa.array(["a"] * len(table))), path)
    with refused(name, "its column 'omega' is no double", error=StoreError):
        store.load("history")


@pytest.mark.parametrize(("kind", "column"), [("runs", "f_evals"), ("history", "omega")])
def test_two_columns_of_one_name(store, refused, kind, column):
    """A flipped bit makes `g_evals` of the one next to it."""
    name = write(store, 0, learned=("omega",))
    path = store.directory / kind / name
    table = pq.read_table(path)
    pq.write_table(table.append_column(column, table.column(column)), path)
    with refused(name, f"has two columns '{column}'", error=StoreError):
        store.load(kind)


@pytest.mark.parametrize(("kind", "column"), [("runs", "seed"), ("runs", "settings"), ("history", "best_f")])
def test_a_column_with_gaps(store, refused, kind, column):
    """Where it says nothing, nothing that reads it could go on; only an unknown gap is null."""
    name = write(store, 0, 1, learned=("omega",))
    path = store.directory / kind / name
    table = pq.read_table(path)
    at = table.schema.get_field_index(column)
    gaps = pa.array([None, *table.column(at).to_pylist()[1:]], table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), gaps), path)
    with refused(name, f"its column '{column}' has gaps", error=StoreError):
        store.load(kind)


def test_control_characters_in_what_pyarrow_says(store, refused):
    """It quotes a damaged footer's bytes as they are."""
    path = store.directory / "runs" / write(store, 0)
    content = bytearray(path.read_bytes())
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[start] = 0x1E  # the first field of the footer has a type that there is not
    path.write_bytes(content)
    with refused("cannot read", path.name, error=StoreError):
        store.load()


def test_a_missing_history_column(store, refused):
    name = write(store, 0)
    path = store.directory / "history" / name
    pq.write_table(pq.read_table(path).drop_columns(["evals"]), path)
    with refused(name, "has no column 'evals'", error=StoreError):
        store.load("history")


@settings(max_examples=60)
@given(st.data(), st.sampled_from(["runs", "history"]))
def test_damaged_bytes_are_refused_or_harmless(data, kind):
    with scratch() as store:
        path = store.directory / kind / write(store, 0, learned=("omega",))
        sound = store.load(kind)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        with suppress(StoreError):
            store.seeds_of(KEY)
        with suppress(StoreError):
            pd.testing.assert_frame_equal(store.load(kind), sound, check_exact=True)


@pytest.mark.parametrize(
    ("old", "new", "why"), [(b"omega", b"nmega", "calls column"), (b"\x16\x0c&", b"\x16\x08&", "rows")]
)
def test_a_flipped_bit_of_a_footer(store, refused, old, new, why):
    """It would rename a learned column, or lose a row, and pyarrow would not mind."""
    path = store.directory / "history" / write(store, 0, 1, learned=("omega",))
    content = path.read_bytes()
    end = content.rindex(b"PAR1")
    at = content.index(old, end - int.from_bytes(content[end - 4 : end], "little"))
    path.write_bytes(content[:at] + new + content[at + len(old) :])
    with refused(path.name, why, error=StoreError):
        store.load("history")
    assert len(store.set_aside_damaged()) == 1


# Names


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)


@settings(max_examples=20)
@given(
    algo=NAMES,
    fn=st.one_of(NAMES, st.sampled_from(["../../x:y", "/etc/passwd", "..", "*", "[a]?", "a b:c\n", "x" * 5000])),
)
def test_no_name_leaves_the_directory(algo, fn):
    with scratch() as store:
        key = (algo, fn, 3, KEY[3])
        name = write(store, *range(0, 60, 2), key=key)
        written = [path for path in store.directory.parent.rglob("*") if path.is_file()]
        assert sorted(path.relative_to(store.directory) for path in written) == [
            Path("history", name),
            Path("runs", name),
        ]
        assert name.isascii()
        assert len(f".{name}.1234567-12345678.tmp") <= 255
        assert store.seeds_of(key) == set(range(0, 60, 2))
        write(store, 1, key=key)
        store.merge(key)
        assert len(store.load()) == 31
        store.clear(key)
        assert shards(store) == []


@settings(max_examples=20)
@given(st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_two_names_never_share_a_file(names):
    assert_apart(*names)


@pytest.mark.parametrize(
    "names",
    [
        ("a:b", "a_b"),
        ("a:b", "a.b"),
        ("a:b", "A:b"),
        ("x" * 60, "x" * 61),
        ("x" * 61 + "1", "x" * 61 + "2"),
        ("é", "e"),
        ("é", "e\u0301"),
        ("a-b", "a_b"),
        ("a", "a_"),
        ("", "_"),
        ("a:", "a:_"),
    ],
)
def test_similar_names_never_share_a_file(names):
    assert_apart(*names)


@pytest.mark.parametrize("name", ["a:b", "../../x:y", "x" * 80])
def test_a_name_that_imitates_another_ones_file(name):
    with scratch() as store:
        file = write(store, 0, key=("ga", name, 3, KEY[3]))
    assert_apart(name, file.split("-")[1])


def assert_apart(one: str, other: str) -> None:
    with scratch() as store:
        keys = [("ga", name, 3, KEY[3]) for name in (one, other)]
        files = [write(store, index, key=key) for index, key in enumerate(keys)]
        assert len({file.rpartition("-s")[0] for file in files}) == 2
        assert [store.seeds_of(key) for key in keys] == [{0}, {1}]
        store.clear(keys[0])
        assert store.seeds_of(keys[1]) == {1}
        assert store.load()["fn"].tolist() == [other]


SEEDS = st.sets(st.integers(0, 10**9), min_size=1, max_size=12)


@given(SEEDS, SEEDS)
def test_seeds_as_part_of_a_name(one, other):
    labels = [_label(sorted(seeds)) for seeds in (one, other)]
    assert (labels[0] == labels[1]) == (one == other)
    assert max(map(len, labels)) <= 40
    assert all(set(label) <= set("0123456789abcdef_-") for label in labels)


def test_labels():
    assert [_label(s) for s in ([5], [0, 1, 2], [1, 4, 7], range(30))] == ["5", "0-2", "1_4_7", "0-29"]


# Writing where it cannot be


def test_a_directory_that_cannot_be_made(tmp_path, refused):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with refused("cannot write to", "is not a directory", error=StoreError):
            Store(directory).check_writable()
        with refused("cannot write", error=StoreError):
            write(Store(directory), 0)


@pytest.mark.parametrize("kind", ["runs", "history"])
def test_what_is_in_the_way_is_noticed_before_anything_is_computed(store, refused, kind):
    store.directory.mkdir(parents=True, exist_ok=True)
    (store.directory / kind).write_text("")
    with refused("cannot write to", f"{kind}' is not a directory", error=StoreError):
        store.check_writable()


def test_a_file_system_that_is_read_only(refused):
    with refused("cannot write to '/proc/evobench'", error=StoreError):
        Store(Path("/proc/evobench")).check_writable()


def test_a_full_disk(store, refused, monkeypatch):
    write(store, 0)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with refused("cannot write", "No space left on device", error=StoreError):
        write(store, 1)
    monkeypatch.undo()
    assert_holds(store, [0])
    assert not list(store.directory.rglob("*.tmp"))


def test_an_interrupted_write_cleans_up(store, monkeypatch):
    crash_at(monkeypatch, os, "fsync", 1)
    with pytest.raises(Crash):
        write(store, 1)
    assert not [path for path in store.directory.rglob("*") if path.is_file()]
