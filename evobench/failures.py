"""Tasks that failed, for whoever comes later: a small file each, gone when a later run succeeds.

results/<experiment>/failed/<cell>-<seeds>.json
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from evobench.files import dated, matching, remove, remove_empty, write_atomically
from evobench.store import CellKey, StoreError, stem


class Failed(NamedTuple):
    """One record as it is found: whose, why, and when it was written (seconds)."""

    path: Path
    key: CellKey
    seeds: tuple[int, ...]
    reason: str
    written: float


class Failures:
    """The records of one experiment's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "failed"

    def add(self, key: CellKey, seeds: Collection[int], reason: str, **more: Any) -> None:
        """Record that these seeds of a cell have no result.

        Raises:
            StoreError: if the file system refuses.
        """
        path = self.directory / f"{stem(key, seeds)}.json"
        algo, fn, dim, settings_hash = key
        cell = {"algo": algo, "fn": fn, "dim": dim, "settings_hash": settings_hash}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        content = {**cell, "seeds": sorted(seeds), "reason": reason, "failed_at": at, **more}
        text = json.dumps(content, indent=1) + "\n"
        try:
            write_atomically(path, lambda file: file.write(text.encode()))
        except OSError as error:
            raise StoreError(f"cannot write '{path}': {error.strerror or error}") from error

    def forget(self, key: CellKey, done: Collection[int]) -> None:
        """Remove the records of a cell whose seeds are all done."""
        with suppress(OSError):
            for failed in self.all():
                if failed.key == key and set(failed.seeds) <= set(done):
                    remove(failed.path)
            remove_empty(self.directory)  # if this was the last one

    def all(self) -> Iterator[Failed]:
        """Every record. One that cannot be read has no seeds, and says so as its reason."""
        for path in matching(self.directory, "*.json"):
            with suppress(FileNotFoundError):
                text, written = dated(path)
                try:
                    content = json.loads(text)
                    key = (content["algo"], content["fn"], int(content["dim"]), content["settings_hash"])
                    yield Failed(path, key, tuple(map(int, content["seeds"])), str(content["reason"]), written)
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                    yield Failed(path, ("", "", 0, ""), (), "cannot be read: it is no record of a failure", written)
