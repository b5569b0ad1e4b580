"""Files on a disk and behind fsspec URLs: whole or not there, created once, dated by one clock."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import fsspec
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem

from evobench.experiment import Experiment, make_experiment
from evobench.failures import Failures
from evobench.files import create, dated, locate, matching, now, remove, remove_empty, touch, write_atomically
from evobench.leases import LIMIT, Leases
from evobench.runner import run_experiment
from evobench.store import RUN_KEY, Store, StoreError, load_results
from evobench.verify import verify

SAME = [*RUN_KEY, "best_f", "f_evals", "g_evals", "stop_reason"]


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path) -> Path:
    return tmp_path if request.param == "disk" else locate(f"memory://{uuid4().hex}/results")


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}/results"


def small(**more) -> Experiment:
    return make_experiment({"algo": "pso_diff,ga", "fn": "ackley", "dim": 2, "seeds": 3, "budget": 600, **more})


def test_locate():
    assert locate("results/x") == Path("results/x")
    assert locate("file:///tmp/x") == Path("/tmp/x")
    assert isinstance(locate("file:///tmp/x"), Path)
    assert locate(Path("a")) == Path("a")
    assert locate("sweep:2") == Path("sweep:2"), "a name with a colon is no URL"
    assert str(locate("simplecache::memory://box/x")).endswith("box/x")
    remote = locate("memory://box/x")
    assert not isinstance(remote, Path)
    assert str(remote / "runs") == "memory://box/x/runs"
    with pytest.raises(ValueError, match=r"cannot use 'nosuch://box'.*nosuch"):
        locate("nosuch://box")


def test_a_file_is_whole_or_not_there(place):
    path = place / "deep" / "file"
    write_atomically(path, lambda file: file.write(b"one"))
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, lambda file: file.write(b"two") / 0)
    assert path.read_bytes() == b"one"
    write_atomically(path, lambda file: file.write(b"three"))
    assert path.read_bytes() == b"three"
    assert [file.name for file in (place / "deep").iterdir()] == ["file"], "nothing hidden is left"


def test_one_of_many_creates(place):
    path = place / "leases" / "x.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: create(path, b"%d" % n), range(8)))
    assert sum(made) == 1
    assert path.read_bytes() == b"%d" % made.index(True)


def test_one_clock(place):
    path = place / "file"
    before = now(place) if place.exists() else 0.0
    create(path, b"x")
    content, written = dated(path)
    assert content == b"x"
    assert before <= written <= now(place)
    touch(path, b"x")
    assert dated(path)[1] >= written
    assert [file.name for file in matching(place, "*")] == ["file"], "the clock leaves nothing behind"
    remove(path)
    remove(path)
    with pytest.raises(FileNotFoundError):
        touch(path, b"x")
    with pytest.raises(FileNotFoundError):
        dated(path)
    remove_empty(place)


def test_the_same_rows_as_on_a_disk(url, tmp_path):
    run_experiment(small(), url, jobs=1)
    run_experiment(small(), tmp_path, jobs=1)
    for kind in ("runs", "history"):
        there, here = load_results(url, kind), load_results(tmp_path, kind)
        columns = SAME if kind == "runs" else list(here.columns)
        pd.testing.assert_frame_equal(there[columns], here[columns])
    assert verify(Store(url)).findings == []
    again = run_experiment(small(), url, jobs=1)
    assert (again.computed, again.stored) == (0, 6)
    longer = run_experiment(small(seeds=4), url, jobs=1)
    assert (longer.computed, longer.stored) == (2, 6)
    assert not matching(locate(url) / "leases", "*.json")


def test_a_damaged_file_is_set_aside(url):
    run_experiment(small(algo="ga"), url, jobs=1)
    (path,) = Store(url).files("runs")
    whole = load_results(url)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match="cannot read"):
        load_results(url)
    assert run_experiment(small(algo="ga"), url, jobs=1).computed == 3
    pd.testing.assert_frame_equal(load_results(url)[SAME], whole[SAME])
    assert [file.name for file in path.parent.glob("*.corrupt")] == [f"{path.name}.corrupt"]


class Credentials(ValueError):
    """As libraries of object stores raise, and ValueErrors as well."""


@pytest.mark.parametrize("call", ["exists", "read_bytes", "rename", "ls"])
def test_what_a_file_system_raises_of_its_own(call, url, monkeypatch):
    """One sentence, and not taken for damage of the file that could not be read."""
    run_experiment(small(algo="ga"), url, jobs=1)
    store = Store(url)
    (path,) = store.files("runs")
    if call == "rename":
        path.write_bytes(b"no parquet")

    def refuse(*_, **__):
        raise Credentials("no credentials")

    monkeypatch.setattr(type(path.fs if call == "ls" else path), call, refuse)
    with pytest.raises((OSError, StoreError)) as caught:
        store.set_aside_damaged()
    assert "Credentials: no credentials" in str(caught.value)
    monkeypatch.undo()
    assert store.files("runs") == [path]


def test_a_place_where_nothing_can_be_written(place, monkeypatch):
    (place / "a").mkdir(parents=True)
    store = Store(place / "a" / "b" / "c")
    store.check_writable()
    assert not matching(place / "a", "*"), "it leaves nothing behind"
    monkeypatch.setattr("evobench.store.now", lambda directory: raises(OSError(30, "Read-only file system")))
    with pytest.raises(StoreError, match="c': Read-only file system"):
        store.check_writable()


def raises(error: Exception) -> None:
    raise error


def test_a_failure_is_recorded(url):
    failures = Failures(locate(url))
    key = ("ga", "ackley", 2, "0" * 12)
    failures.add(key, [1, 2], "ValueError: no")
    (failed,) = failures.all()
    failures.add(key, [1, 2], "ValueError: no")
    (again,) = failures.all()
    assert again.written > failed.written > 0, "another process must be able to tell an old record from a new one"
    assert (failed.key, failed.seeds, failed.reason) == (key, (1, 2), "ValueError: no")
    failures.forget(key, [1, 2])
    assert not list(failures.all())


def test_a_lease_keeps_others_out(url, monkeypatch):
    key, seeds = ("ga", "ackley", 2, "0" * 12), (0, 1)
    directory = locate(url)
    one, other = Leases(directory), Leases(directory)
    assert one.acquire(key, seeds)
    assert not other.acquire(key, seeds)
    assert other.others()
    monkeypatch.setattr("evobench.leases.now", lambda place: now(place) + LIMIT + 1)  # it was not touched for so long
    assert other.acquire(key, seeds)


class Merging(LocalFileSystem):
    """Another process puts a file in the place of one that was just listed."""

    protocol = "merging"

    def info(self, path, **kwargs):
        if isinstance(path, os.DirEntry):
            Path(path.path).rename(f"{path.path}-merged")
        return super().info(path, **kwargs)


@pytest.mark.filterwarnings("ignore:UPath 'merging'")
def test_what_is_replaced_while_it_is_listed(tmp_path):
    """One of both is seen: none would mean that nothing is stored, and all of it computed again."""
    fsspec.register_implementation("merging", Merging, clobber=True)
    (tmp_path / "old").write_text("x")
    assert [file.name for file in matching(locate(f"merging://{tmp_path}"), "*")] == ["old"]


def test_a_directory_that_cannot_be_listed_is_not_empty(place, monkeypatch):
    create(place / "a", b"x")
    assert matching(place / "nothing", "*") == matching(place / "a", "*.json") == []
    what, call = (Path, "iterdir") if isinstance(place, Path) else (type(place.fs), "ls")
    monkeypatch.setattr(what, call, lambda *_, **__: raises(PermissionError(13, "Permission denied")))
    with pytest.raises(PermissionError):
        matching(place, "*")


SHARED = """
import fsspec
from fsspec.implementations.local import LocalFileSystem

class Shared(LocalFileSystem):
    protocol = "shared"

fsspec.register_implementation("shared", Shared)
if __name__ == "__main__":
    from evobench.cli import main
    main()
"""


def test_two_processes_share_a_url(tmp_path):
    """A file system that evobench knows only through fsspec: nothing twice, nothing lost."""
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    url = f"shared://{tmp_path}/results"
    command = [sys.executable, str(script), "run", "--algo", "ga,pso", "--fn", "ackley,griewank", "--dim", "2"]
    command += ["--budget", "600", "--seeds", "3", "--jobs", "1", "--out", url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    computed = 0
    for process in processes:
        output, complaints = process.communicate(timeout=300)
        assert process.returncode == 0, complaints
        computed += int(output.split(" runs computed")[0].split()[-1])
    assert computed == 12
    runs = Store(tmp_path / "results").load(repeats=True)
    assert len(runs) == 12
    assert not runs.duplicated(RUN_KEY).any()
    assert verify(Store(tmp_path / "results")).findings == []
