"""Results on disk: parquet, written atomically, read as one table.

    results/<experiment>/runs/<cell>-<seeds>.parquet       one row per seed
    results/<experiment>/history/<cell>-<seeds>.parquet    best_f over evals, at most 200 points a run

A shard is written to a hidden file, synced and renamed, its history first: a reader never sees half
a file, and a run that is listed has its history. When all seeds of a cell are there, its shards are
merged into one; a crash in between leaves the same rows twice, and readers drop repeats.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

RUNS = pa.schema(
    {
        "experiment": pa.string(),
        "algo": pa.string(),
        "backend": pa.string(),
        "fn": pa.string(),
        "dim": pa.int32(),
        "seed": pa.int64(),
        "pop_size": pa.int32(),
        "budget": pa.int64(),
        "f_evals": pa.int64(),
        "g_evals": pa.int64(),
        "best_f": pa.float64(),
        "gap": pa.float64(),
        "best_x": pa.list_(pa.float64()),
        "wall_s": pa.float64(),
        "batch_size": pa.int32(),
        "stop_reason": pa.string(),
        "device": pa.string(),
        "dtype": pa.string(),
        "protocol": pa.string(),
        "init": pa.string(),
        "shift": pa.float64(),
        "gradient_cost": pa.float64(),
        "settings": pa.string(),
        "settings_hash": pa.string(),
        "evobench_version": pa.string(),
        "torch_version": pa.string(),
        "pymoo_version": pa.string(),
        "cma_version": pa.string(),
        "numpy_version": pa.string(),
        "python_version": pa.string(),
        "platform": pa.string(),
        "cpu": pa.string(),
        "git_commit": pa.string(),
        "started_at": pa.string(),
    }
)
HISTORY = pa.schema(
    {
        "algo": pa.string(),
        "fn": pa.string(),
        "dim": pa.int32(),
        "seed": pa.int64(),
        "settings_hash": pa.string(),
        "evals": pa.float64(),
        "best_f": pa.float64(),
    }
)
"""Learned hyper-parameters follow as further float64 columns, in the shards that have them."""

CELL = ["algo", "fn", "dim", "settings_hash"]
RUN_KEY = [*CELL, "seed"]
HISTORY_KEY = [*RUN_KEY, "evals"]

Kind = Literal["runs", "history"]


class StoreError(ValueError):
    """A directory or file that is not what it should be; the message is one sentence for the user."""


class Store:
    """One experiment's directory. Nothing is created before the first write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def check_writable(self) -> None:
        """Fail now rather than after the first hour.

        Raises:
            StoreError: if the directory could not be written.
        """
        probe = self.directory
        while not probe.exists() and probe != probe.parent:
            probe = probe.parent
        if not probe.is_dir():
            raise StoreError(f"cannot write to '{self.directory}': '{probe}' is not a directory")
        if not os.access(probe, os.W_OK | os.X_OK):
            raise StoreError(f"cannot write to '{self.directory}': permission denied")

    def write(self, runs: pd.DataFrame, history: pd.DataFrame) -> str:
        """Write the rows of one task, all of one cell: history first, then the runs that list it.

        Returns:
            the name of the two files, one in `runs/` and one in `history/`.
        """
        cell = runs.iloc[0]
        seeds = sorted(runs["seed"])
        name = f"{_slug(cell['algo'])}-{_slug(cell['fn'])}-{cell['dim']}d-{cell['settings_hash']}-s{_label(seeds)}.parquet"
        learned = [column for column in history.columns if column not in HISTORY.names]
        history_schema = pa.schema([*HISTORY, *(pa.field(column, pa.float64()) for column in sorted(learned))])
        for kind, frame, schema in (("history", history, history_schema), ("runs", runs, RUNS)):
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(None)
            _write_atomically(table, self.directory / kind / name)
        return name

    def seeds_of(self, key: tuple[str, str, int, str]) -> set[int]:
        """Seeds of the cell (algo, fn, dim, settings_hash) that are finished."""
        seeds: set[int] = set()
        for path in self._shards("runs", key):
            table = _read(path, "runs", columns=RUN_KEY)
            rows = zip(*(table.column(name).to_pylist() for name in RUN_KEY), strict=True)
            seeds |= {row[-1] for row in rows if row[:-1] == key}
        return seeds

    def clear(self, key: tuple[str, str, int, str]) -> None:
        """Forget a cell: the runs go before their history."""
        for kind in ("runs", "history"):
            for path in self._shards(kind, key):
                path.unlink(missing_ok=True)

    def merge(self, key: tuple[str, str, int, str]) -> None:
        """Put the shards of a finished cell into one file each of runs and history."""
        old = {kind: self._shards(kind, key) for kind in ("runs", "history")}
        if len(old["runs"]) > 1:
            runs, history = (_frame([_read(path, kind) for path in old[kind]], kind) for kind in ("runs", "history"))
            merged = self.write(runs, history)
            for path in (*old["runs"], *old["history"]):
                if path.name != merged:
                    path.unlink(missing_ok=True)

    def load(self, kind: Kind = "runs") -> pd.DataFrame:
        """All rows of one kind, repeats dropped, in the order of their keys.

        Raises:
            StoreError: if there are no results, or a file is not one of ours.
        """
        paths = sorted((self.directory / kind).glob("*.parquet"))
        if not paths:
            raise StoreError(f"no results in '{self.directory}': it has no {kind}/*.parquet (run an experiment first)")
        return _frame([_read(path, kind) for path in paths], kind)

    def _shards(self, kind: str, key: tuple[str, str, int, str]) -> list[Path]:
        algo, fn, dim, settings_hash = key
        return sorted((self.directory / kind).glob(f"{_slug(algo)}-{_slug(fn)}-{dim}d-{settings_hash}-s*.parquet"))


def load_results(directory: str | Path, kind: Kind = "runs") -> pd.DataFrame:
    """Every run (or, with `kind="history"`, every history point) of an experiment's directory.

    Raises:
        StoreError: if there are no results, or a file is not one of ours.
    """
    return Store(Path(directory)).load(kind)


def _frame(tables: Sequence[pa.Table], kind: str) -> pd.DataFrame:
    key = RUN_KEY if kind == "runs" else HISTORY_KEY
    frame = pa.concat_tables(tables, promote_options="default").to_pandas()
    return frame.drop_duplicates(key).sort_values(key, kind="stable").reset_index(drop=True)


def _read(path: Path, kind: str, columns: list[str] | None = None) -> pa.Table:
    required = (RUNS if kind == "runs" else HISTORY).names
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in required if name not in file.schema_arrow.names]
            if missing:
                raise StoreError(f"'{path}' is not a result of evobench: it has no column '{missing[0]}'")
            return file.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot read '{path}': {str(error).splitlines()[0]}") from error


def _write_atomically(table: pa.Table, path: Path) -> None:
    """Write, sync, rename, sync the directory: the file is whole or not there.

    Raises:
        StoreError: if the file system refuses (read-only, full).
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with hidden.open("wb") as file:
            pq.write_table(table, file, compression="zstd", write_statistics=False, store_schema=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise StoreError(f"cannot write '{path}': {error.strerror}") from error


def _slug(name: str) -> str:
    """A name as part of a file name; a user's `module:function` keeps a digest of what it loses."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", name)[:60]
    return plain if plain == name else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _label(seeds: Iterable[int]) -> str:
    """Seeds as part of a file name: `0-29`, `1_4_7`, or a digest where that would be long."""
    seeds = list(seeds)
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    text = "_".join(map(str, seeds))
    return text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:16]
