"""Who computes what: lease files, by which processes that share a directory divide its tasks.

    results/<experiment>/leases/<cell>-<seeds>.<turn>.json

Creating a file that is not there yet (O_EXCL) succeeds for one process only, on network file systems
too. The owner touches its lease every `BEAT` seconds. It is dead where its process is gone, as far as
that can be seen from here, or where it was not touched for `LIMIT` seconds. A dead lease is not
replaced, since two could do that one after the other: who takes its task over creates the next turn's.

Leases save work; what is stored is right without them. Where none can be made, everybody computes.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from evobench import interrupts
from evobench.files import create, dated, matching, now, remove, remove_empty, touch
from evobench.store import CellKey, prefix, stem

BEAT, LIMIT = 15.0, 180.0
"""Seconds between two signs of life, and without one until an owner counts as dead: more than a
network file system may take to show the last (60 s), and than Python may be kept from running."""

NAME = re.compile(r"(.+)\.([0-9]{1,6})\.json")


class Owner(NamedTuple):
    """A process: `machine` tells where its number means something, `started` what the number was given to."""

    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Owner:
        return cls(platform.node(), _machine(), os.getpid(), _started(os.getpid()))

    @property
    def gone(self) -> bool:
        """Whether it is known to have ended: never true of another machine's, or of another container's."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False  # somebody else's, or no number of a process
        return _started(self.pid) not in (self.started, "")

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease(NamedTuple):
    """A lease file as it is found."""

    path: Path
    stem: str
    turn: int
    owner: Owner | None  # None: being written, or damaged
    seeds: frozenset[int] | None
    touched: float

    def covers(self, key: CellKey, seeds: Sequence[int]) -> bool:
        """Whether it is about any of these seeds of a cell."""
        return self.stem.startswith(prefix(key)) and (self.seeds is None or not self.seeds.isdisjoint(seeds))


class Leases:
    """This process's leases of an experiment; leaving the context gives all back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "leases"
        self.owner = Owner.this()
        self.mine: dict[tuple[CellKey, tuple[int, ...]], Path] = {}
        self.ending = threading.Event()
        self.heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self.heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ending.set()
        self.heart.join()
        for key in list(self.mine):
            self.release(*key)
        with suppress(OSError):
            for lease in self._all():
                if not self._alive(lease):
                    remove(lease.path)
            remove_empty(self.directory)  # if this was the last one

    def acquire(self, key: CellKey, seeds: Sequence[int]) -> bool:
        """Claim these seeds of a cell; False if any of them is another process's, and that is alive."""
        name = stem(key, seeds)
        try:
            leases = list(self._all())
            if self._taken(leases, key, seeds):
                return False
            turn = max((lease.turn for lease in leases if lease.stem == name), default=-1) + 1
            path = self.directory / f"{name}.{turn}.json"
            with interrupts.held():  # between the two one would leave the file behind
                if not create(path, self._text(seeds)):
                    return False
                self.mine[key, tuple(seeds)] = path
        except OSError:
            return True
        # Two that claim seeds in common under different names cannot both have looked before the other wrote.
        if self._taken(self._all(), key, seeds):
            self.release(key, seeds)
            return False
        for lease in leases:
            if lease.stem == name and lease.turn < turn:
                remove(lease.path)
        return True

    def release(self, key: CellKey, seeds: Sequence[int]) -> None:
        """Give a lease back."""
        with interrupts.held(), suppress(OSError):
            if (path := self.mine.pop((key, tuple(seeds)), None)) is not None:
                remove(path)

    def others(self) -> list[Lease]:
        """The leases of other processes that are alive."""
        try:
            return [lease for lease in self._all() if self._others(lease)]
        except OSError:
            return []

    def _text(self, seeds: Sequence[int]) -> bytes:
        return json.dumps({"owner": self.owner, "seeds": list(seeds)}).encode()

    def _taken(self, leases: Iterable[Lease], key: CellKey, seeds: Sequence[int]) -> bool:
        return any(lease.covers(key, seeds) and self._others(lease) for lease in leases)

    def _others(self, lease: Lease) -> bool:
        """Whether it keeps us from its task."""
        return lease.path not in self.mine.values() and self._alive(lease)

    def _all(self) -> Iterator[Lease]:
        for path in matching(self.directory, "*.json"):
            if match := NAME.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    content, touched = dated(path)
                    yield Lease(path, match[1], int(match[2]), *_content(content), touched)

    def _alive(self, lease: Lease) -> bool:
        if lease.owner is not None and lease.owner.gone:
            return False
        try:
            return now(self.directory) - lease.touched < LIMIT
        except FileNotFoundError:  # with its directory, it is gone
            return False

    def _beat(self) -> None:
        while not self.ending.wait(BEAT):
            for (_, seeds), path in list(self.mine.items()):
                with suppress(OSError):  # taken over: this process was asleep, say
                    touch(path, self._text(seeds))


def _content(text: bytes) -> tuple[Owner | None, frozenset[int] | None]:
    """Owner and seeds of a lease, None where they cannot be read."""
    try:
        content = json.loads(text)
        host, machine, pid, started = content["owner"]
        return Owner(str(host), str(machine), int(pid), str(started)), frozenset(map(int, content["seeds"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None, None


def _machine() -> str:
    """This start of this machine, and within it the container; empty where it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _started(pid: int) -> str:
    """When a process started, in ticks of its machine; `ended` for one that only waits to be buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in "ZX" else fields[19]
