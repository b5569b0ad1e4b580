"""Results on disk: parquet, written atomically, read as one table.

    results/<experiment>/runs/<cell>-<seeds>.parquet       one row per seed
    results/<experiment>/history/<cell>-<seeds>.parquet    best_f over evals, at most 200 points a run

A shard is written to a hidden file, synced and renamed, its history first: a reader never sees half
a file, and a run that is listed has its history. When all seeds of a cell are there, its shards are
merged into one; a crash in between leaves the same rows twice, and readers drop repeats.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from evobench.files import exists, local, locate, matching, nearest, now, read, remove, set_aside, write_atomically
from evobench.settings import said

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

COMPLETE = {*RUNS.names, *HISTORY.names} - {"gap"}
"""Columns without nulls. The gap is null where the optimum is not known, a hyper-parameter where it is not yet."""

CellKey = tuple[str, str, int, str]
"""What identifies a cell: algo, fn, dim, settings_hash."""

CELL = ["algo", "fn", "dim", "settings_hash"]
RUN_KEY = [*CELL, "seed"]
HISTORY_KEY = [*RUN_KEY, "evals"]

Kind = Literal["runs", "history"]
KINDS: tuple[Kind, ...] = ("runs", "history")

PARQUET: Any = {
    "compression": "zstd",
    "write_statistics": False,
    "store_schema": False,
    "write_page_checksum": True,  # so that a flipped bit is noticed
}

PLAN = "plan.json"
"""Beside the results: the cells and seeds of the last command that had something to compute."""


class AnnouncedCell(BaseModel):
    """A cell, and what its runs will cost."""

    key: CellKey
    backend: str
    budget: int = Field(ge=1, le=2**63 - 1)


class Announced(BaseModel):
    """What a command set out to do: the content of `PLAN`."""

    name: str
    started_at: AwareDatetime
    seeds: tuple[int, ...]
    cells: tuple[AnnouncedCell, ...]


MERGES = 100
"""How often a reader looks again for shards that another process has merged meanwhile."""


class StoreError(ValueError):
    """A directory or file that is not what it should be; the message is one sentence for the user."""


class Store:
    """One experiment's directory, of this machine or an fsspec URL. Nothing is created before the first write.

    Raises:
        ValueError: if there is no such file system.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = locate(directory)

    def check_writable(self) -> None:
        """Fail now rather than after the first hour.

        Raises:
            StoreError: if the directory could not be written.
        """
        for place in (self.directory, *(self.directory / kind for kind in KINDS)):
            probe = place
            try:
                probe = nearest(place)
                now(probe)  # writes: permissions say yes to root on a file system that says no
            except NotADirectoryError as error:
                raise StoreError(f"cannot write to '{place}': '{probe}' is not a directory") from error
            except OSError as error:
                raise StoreError(f"cannot write to '{place}': {error.strerror or error}") from error

    def check_ours(self) -> None:
        """Fail now rather than when the results are read.

        Raises:
            StoreError: if a parquet file in the directory is damaged or was not written by a store.
        """
        for kind in KINDS:
            for path in self.files(kind):
                with suppress(FileNotFoundError):  # another process has merged it meanwhile
                    _read(path, kind, columns=[])

    def set_aside_damaged(self) -> list[str]:
        """Rename shards that cannot be read whole to `….corrupt`, so that their runs count as missing.

        Only files with the name of a shard are touched.

        Runs and history are one: where either is damaged or its history is gone, both are set aside.

        Returns:
            a sentence for each, naming the file and what is wrong with it.

        Raises:
            StoreError: if the system does not let a file be read.
            OSError: if it does not let one be renamed.
        """
        sentences = []
        names = {path.name for kind in KINDS for path in self.files(kind)}
        for name in sorted(name for name in names if SHARD.fullmatch(name)):
            paths = {kind: self.directory / kind / name for kind in KINDS}
            try:
                if exists(paths["runs"]):
                    for kind, path in paths.items():
                        _read(path, kind)
                elif exists(paths["history"]):  # of a task that was killed before it wrote its runs
                    _read(paths["history"], "history")
                continue
            except FileNotFoundError as error:
                if exists(paths["history"]) or not exists(paths["runs"]):
                    continue  # another process is merging them
                sentences.append(f"'{error.filename or paths['history']}' is missing")
            except StoreError as error:
                if getattr(error.__cause__, "errno", None) is not None:
                    raise  # not allowed to read it, say: nothing is wrong with the file
                sentences.append(str(error))
            for path in paths.values():
                set_aside(path)
        return sentences

    def write(self, runs: pd.DataFrame, history: pd.DataFrame) -> str:
        """Write the rows of one task, all of one cell: history first, then the runs that list it.

        Returns:
            the name of the two files, one in `runs/` and one in `history/`.
        """
        name = stem(tuple(runs.iloc[0][CELL]), runs["seed"]) + ".parquet"
        learned = [column for column in history.columns if column not in HISTORY.names]
        history_schema = pa.schema([*HISTORY, *(pa.field(column, pa.float64()) for column in sorted(learned))])
        for kind, frame, schema in (("history", history, history_schema), ("runs", runs, RUNS)):
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(None)
            self._write(table, self.directory / kind / name)
        return name

    def _write(self, table: pa.Table, path: Path) -> None:
        """One shard.

        Raises:
            StoreError: if the file system refuses (read-only, full).
        """
        try:
            write_atomically(path, lambda file: pq.write_table(table, file, **PARQUET))
        except OSError as error:
            raise StoreError(f"cannot write '{path}': {error.strerror or error}") from error

    def seeds_of(self, key: CellKey) -> set[int]:
        """Seeds of the cell (algo, fn, dim, settings_hash) that are finished."""
        seeds: set[int] = set()
        for table in self._read_all("runs", _pattern(key), columns=RUN_KEY):
            rows = zip(*(table.column(name).to_pylist() for name in RUN_KEY), strict=True)
            seeds |= {row[-1] for row in rows if row[:-1] == key}
        return seeds

    def runs_of(self, key: CellKey, seeds: Collection[int]) -> pd.DataFrame:
        """The finished runs of a cell that have these seeds."""
        tables = self._read_all("runs", _pattern(key))
        runs = _frame(tables or [RUNS.empty_table()], "runs")
        return runs[(runs[CELL] == list(key)).all(axis=1) & runs["seed"].isin(list(seeds))]

    def clear(self, key: CellKey, seeds: Iterable[int] | None = None) -> None:
        """Forget these seeds of a cell, or all of it: the runs go before their history."""
        shards = {kind: self._shards(kind, key) for kind in KINDS}
        kept = ""
        if seeds is not None and shards["runs"]:
            gone = list(seeds)
            runs, history = (_frame([_read(path, kind) for path in paths], kind) for kind, paths in shards.items())
            runs, history = runs[~runs["seed"].isin(gone)], history[~history["seed"].isin(gone)]
            kept = self.write(runs, history) if len(runs) else ""
        checkpoints = matching(self.directory / "checkpoints", f"*{prefix(key)}*")
        for path in (*shards["runs"], *shards["history"], *checkpoints):
            if path.name != kept:
                remove(path)

    def write_plan(self, plan: Announced) -> None:
        """Say what the last command set out to do here, for whoever watches.

        Raises:
            StoreError: if the file system refuses.
        """
        path = self.directory / PLAN
        try:
            write_atomically(path, lambda file: file.write(plan.model_dump_json(indent=1).encode()))
        except OSError as error:
            raise StoreError(f"cannot write '{path}': {error.strerror or error}") from error

    def plan(self) -> Announced:
        """What `write_plan` wrote.

        Raises:
            StoreError: if there is none, or it cannot be read.
        """
        path = self.directory / PLAN
        try:
            return Announced.model_validate_json(read(path))
        except FileNotFoundError:
            raise StoreError(f"nothing to watch in '{self.directory}': no experiment was started there") from None
        except OSError as error:
            raise StoreError(f"cannot read '{path}': {error.strerror or error}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise StoreError(f"cannot read '{path}': {where and f'{where}: '}{problem['msg']}") from error

    def merge(self, key: CellKey) -> None:
        """Put the shards of a finished cell into one file each of runs and history."""
        old = {kind: self._shards(kind, key) for kind in KINDS}
        if len(old["runs"]) > 1:
            try:
                runs, history = (_frame([_read(path, kind) for path in paths], kind) for kind, paths in old.items())
            except FileNotFoundError:  # another process that shares the directory is merging them
                return
            merged = self.write(runs, history)
            for path in (*old["runs"], *old["history"]):
                if path.name != merged:
                    remove(path)

    def checkpoint(self, key: CellKey, seeds: Sequence[int]) -> Path:
        """Where an unfinished task of these seeds is kept."""
        return self.directory / "checkpoints" / f"{stem(key, seeds)}.pt"

    def files(self, kind: Kind) -> list[Path]:
        """Every shard."""
        return matching(self.directory / kind, "*.parquet")

    def damaged(self) -> list[tuple[str, str]]:
        """Files that cannot be read whole, or are not ours, each with what is wrong."""
        found = []
        for kind in KINDS:
            for path in self.files(kind):
                try:
                    _read(path, kind)
                except FileNotFoundError:  # merged meanwhile
                    continue
                except StoreError as error:
                    found.append((f"{kind}/{path.name}", str(error)))
        return found

    def load(self, kind: Kind = "runs", *, repeats: bool = False) -> pd.DataFrame:
        """All rows of one kind, repeats dropped unless they are asked for, in the order of their keys.

        Raises:
            StoreError: if there are no results, or a file is not one of ours.
        """
        tables = self._read_all(kind, "*.parquet")
        if not tables:
            raise StoreError(f"no results in '{self.directory}': it has no {kind}/*.parquet (run an experiment first)")
        return _frame(tables, kind, repeats)

    def _shards(self, kind: Kind, key: CellKey) -> list[Path]:
        return matching(self.directory / kind, _pattern(key))

    def _read_all(self, kind: Kind, pattern: str, columns: list[str] | None = None) -> list[pa.Table]:
        """Every shard of a pattern. They are listed anew when one vanishes: another process is merging them."""
        for _ in range(MERGES):
            try:
                return [_read(path, kind, columns) for path in matching(self.directory / kind, pattern)]
            except FileNotFoundError as error:
                vanished = error
        raise StoreError(f"cannot read '{self.directory / kind}': {vanished}")


def load_results(directory: str | Path, kind: Kind = "runs") -> pd.DataFrame:
    """Every run (or, with `kind="history"`, every history point) of an experiment's directory.

    Raises:
        StoreError: if there are no results, or a file is not one of ours.
    """
    return Store(directory).load(kind)


def _frame(tables: Sequence[pa.Table], kind: Kind, repeats: bool = False) -> pd.DataFrame:
    key = RUN_KEY if kind == "runs" else HISTORY_KEY
    try:
        frame = pa.concat_tables(tables, promote_options="default").to_pandas()
    except pa.ArrowException as error:
        raise StoreError(f"these {kind} do not fit together: {said(error) or type(error).__name__}") from error
    return (frame if repeats else frame.drop_duplicates(key)).sort_values(key, kind="stable").reset_index(drop=True)


def _read(path: Path, kind: Kind, columns: list[str] | None = None) -> pa.Table:
    """One shard.

    Raises:
        StoreError: if it is damaged or not one of ours.
        FileNotFoundError: if it is gone.
    """
    try:
        source = path if local(path) else pa.BufferReader(read(path))
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            if why := _not_ours(file.schema_arrow, kind):
                raise StoreError(f"'{path}' is not a result of evobench: {why}")
            table = file.read(columns=columns)
            if table.num_rows != file.metadata.num_rows:
                raise ValueError(f"its footer counts {file.metadata.num_rows} rows, and there are {table.num_rows}")
            if columns is None:  # after reading: of a damaged column, the metadata alone would end the process
                _check_names(file.metadata)
            table.validate(full=True)  # text that is not UTF-8 would fail later, and less clearly
            if gaps := [name for name in table.column_names if name in COMPLETE and table.column(name).null_count]:
                raise StoreError(f"'{path}' is not a result of evobench: its column '{gaps[0]}' has gaps")
            return table
    except (FileNotFoundError, StoreError):
        raise
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: names that are not UTF-8
        raise StoreError(f"cannot read '{path}': {said(error) or type(error).__name__}") from error


def _not_ours(found: pa.Schema, kind: Kind) -> str | None:
    """Why a store cannot have written a file with these columns."""
    if twice := [name for name in found.names if found.names.count(name) > 1]:
        return f"it has two columns {twice[0]!r}"
    ours = RUNS if kind == "runs" else HISTORY
    for field in ours:
        if field.name not in found.names:
            return f"it has no column '{field.name}'"
        if found.field(field.name).type != field.type:
            return f"its column '{field.name}' is no {field.type}"
    for name in found.names:
        if kind == "history" and name not in ours.names and found.field(name).type != pa.float64():
            return f"its column {name!r} is no double"
    return None


def _check_names(metadata: pq.FileMetaData) -> None:
    """A footer names every column twice and has no checksum: a flipped bit would rename one unnoticed.

    Raises:
        ValueError: if the two differ.
    """
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            one, other = metadata.schema.column(index).path, metadata.row_group(group).column(index).path_in_schema
            if one != other:
                raise ValueError(f"its footer calls column {index} both {one!r} and {other!r}")


def _pattern(key: CellKey) -> str:
    """The shards of a cell, whatever their seeds."""
    return f"{prefix(key)}*.parquet"


SHARD = re.compile(r"\w+-\w+-[0-9]+d-[0-9a-f]{12}-s\w[\w-]*\.parquet")
"""The name of a shard, whatever its cell and seeds."""


def stem(key: CellKey, seeds: Iterable[int]) -> str:
    """The name, without its ending, of a file about these seeds of a cell."""
    return f"{prefix(key)}{_label(sorted(seeds))}"


def prefix(key: CellKey) -> str:
    """What the names of all files about a cell begin with."""
    algo, fn, dim, settings_hash = key
    return f"{_slug(algo)}-{_slug(fn)}-{dim}d-{settings_hash}-s"


def _slug(name: str) -> str:
    """A name as part of a file name; one that does not fit there keeps a digest of what it loses."""
    if re.fullmatch(r"[A-Za-z0-9_]{1,60}", name) and not re.search(r"_[0-9a-f]{8}$", name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_]+', '_', name)[:60]}_{digest}"


def _label(seeds: Sequence[int]) -> str:
    """Increasing seeds as part of a file name: `0-29`, `1_4_7`, or a digest where that would be long."""
    if len(seeds) > 1 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]}-{seeds[-1]}"
    text = "_".join(map(str, seeds))
    return text if len(text) <= 40 else hashlib.sha256(text.encode()).hexdigest()[:16]
