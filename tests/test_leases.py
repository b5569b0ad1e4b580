"""Leases: one owner at a time, however many want it and whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evobench import leases
from evobench.interrupts import Terminated, terminable
from evobench.leases import LIMIT, Leases, Owner

INFINITE = '{"owner": ["a", "b", 1e999, "d"], "seeds": []}'
KEY = ("ga", "ackley", 3, "0123456789ab")
NAME = "ga-ackley-3d-0123456789ab-s0-2"


def leave(directory: Path, owner: Owner | None, seeds=(0, 1, 2), age=0.0, turn=0, text=None) -> Path:
    """A lease file as somebody else left it."""
    path = directory / "leases" / f"{NAME}.{turn}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"owner": owner, "seeds": seeds}) if text is None else text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "leases").iterdir())


@pytest.fixture
def elsewhere() -> Owner:
    return Owner("there", "another boot", os.getpid(), "1")


@pytest.fixture
def dead() -> Owner:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return Owner.this()._replace(pid=process.pid)


def test_a_claim_excludes_the_others_until_it_is_given_back(tmp_path):
    with Leases(tmp_path) as one, Leases(tmp_path) as two:
        assert one.acquire(KEY, (0, 1, 2))
        assert not two.acquire(KEY, (0, 1, 2))
        assert not two.acquire(KEY, (2, 3)), "a seed in common"
        assert two.acquire(KEY, (3, 4))
        assert two.acquire(("de", *KEY[1:]), (0, 1, 2))
        assert [lease.seeds for lease in one.others()] == [{0, 1, 2}, {3, 4}]
        assert str(one.others()[0].owner) == f"process {os.getpid()} on {os.uname().nodename}"
        one.release(KEY, (0, 1, 2))
        assert two.acquire(KEY, (0, 1, 2))
    assert not (tmp_path / "leases").exists(), "nothing is left behind"


@pytest.mark.parametrize("age", [LIMIT - 60, LIMIT + 60])
def test_another_machines_lease_holds_while_it_shows_signs_of_life(tmp_path, elsewhere, age):
    path = leave(tmp_path, elsewhere, age=age)
    with Leases(tmp_path) as ours:
        assert ours.acquire(KEY, (0, 1, 2)) == (age > LIMIT)
        assert files(tmp_path) == [f"{NAME}.1.json" if age > LIMIT else path.name]


def test_a_dead_process_holds_nothing(tmp_path, dead):
    leave(tmp_path, dead)
    leave(tmp_path, Owner.this()._replace(started="0"), turn=1)  # its number was given to us since
    with Leases(tmp_path) as ours:
        assert ours.others() == []
        assert ours.acquire(KEY, (0, 1, 2))
        assert files(tmp_path) == [f"{NAME}.2.json"]


def test_a_process_that_nobody_has_buried_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()
    deadline = time.monotonic() + 10
    while leases._started(process.pid) != "ended" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Owner.this()._replace(pid=process.pid).gone
    process.communicate()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"owner": [1, 2], "seeds": 3}', '{"owner": ["a","b","c","d"]}', "\0", INFINITE]
)
def test_a_lease_that_cannot_be_read_holds_until_it_is_old(tmp_path, text):
    """It is being written, perhaps."""
    leave(tmp_path, None, text=text)
    with Leases(tmp_path) as ours:
        assert not ours.acquire(KEY, (0, 1, 2))
        assert not ours.acquire(KEY, (7,)), "whose seeds are not known yet"
        leave(tmp_path, None, text=text, age=LIMIT + 1)
        assert ours.acquire(KEY, (0, 1, 2))


@pytest.mark.parametrize("number", [-1, 0, 2**31, 2**70])
def test_a_lease_of_an_impossible_process(tmp_path, number):
    leave(tmp_path, Owner.this()._replace(pid=number), age=LIMIT + 1)
    with Leases(tmp_path) as ours:
        assert ours.acquire(KEY, (0, 1, 2))


def test_the_file_systems_clock_decides(tmp_path, elsewhere, monkeypatch):
    """This machine's may be an hour off."""
    leave(tmp_path, elsewhere)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    with Leases(tmp_path) as ours:
        assert not ours.acquire(KEY, (0, 1, 2))


def test_a_lease_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.02)
    with Leases(tmp_path) as ours:
        assert ours.acquire(KEY, (0, 1, 2))
        path = tmp_path / "leases" / files(tmp_path)[0]
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60
        path.unlink()  # taken over while this process was asleep: it goes on
        time.sleep(0.1)
        assert ours.heart.is_alive()


@pytest.mark.parametrize("step", ["create", "remove"])
def test_a_signal_amid_a_claim_leaves_none_behind(tmp_path, monkeypatch, step):
    """It comes while there is a file that the process does not know of: just made, or just forgotten."""

    def interrupted(*arguments):
        monkeypatch.undo()
        if step == "remove":
            signal.raise_signal(signal.SIGTERM)
        result = function(*arguments)
        if step == "create":
            signal.raise_signal(signal.SIGTERM)
        return result

    function = getattr(leases, step)
    monkeypatch.setattr(leases, step, interrupted)
    with terminable(), pytest.raises(Terminated), Leases(tmp_path) as one:
        claim_and_give_back(one)
    assert not (tmp_path / "leases").exists()


def claim_and_give_back(one: Leases) -> None:
    one.acquire(KEY, (0, 1, 2))
    one.release(KEY, (0, 1, 2))


@pytest.mark.parametrize("seeds_of", [lambda i: (0, 1, 2), lambda i: (0, i + 1)], ids=["the same", "one in common"])
def test_of_many_that_take_over_at_once_at_most_one_succeeds(tmp_path, dead, seeds_of):
    """Exactly one, where all want the same."""
    crowd = [Leases(tmp_path) for _ in range(6)]
    for number in range(25):
        leave(tmp_path, dead, turn=number % 3)
        barrier, won = threading.Barrier(len(crowd)), []

        def want(index: int, barrier=barrier, won=won) -> None:
            barrier.wait()
            if crowd[index].acquire(KEY, seeds_of(index)):
                won.append(index)

        threads = [threading.Thread(target=want, args=(index,)) for index in range(len(crowd))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1 or (len(won) == 0 and seeds_of(0) != seeds_of(1)), won
        for index in won:
            crowd[index].release(KEY, seeds_of(index))


def test_where_no_lease_can_be_made_everybody_computes(tmp_path):
    (tmp_path / "leases").write_text("in the way")
    with Leases(tmp_path) as ours:
        assert ours.acquire(KEY, (0, 1, 2))
        assert ours.others() == []
