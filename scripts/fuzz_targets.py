"""What reads bytes from outside, as functions of bytes: for `scripts/fuzz_bytes.py`, and briefly for the tests.

Each takes any bytes at all, and raises where they are neither refused in one sentence nor read.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evobench.configs import read_config, shipped_configs
from evobench.experiment import make_experiment
from evobench.failures import Failures
from evobench.leases import Leases
from evobench.runner import run_experiment
from evobench.store import HISTORY_KEY, KINDS, RUN_KEY, Kind, Store, StoreError
from evobench.verify import verify
from evobench.watch import look

EXPERIMENT = {"algo": "pso_diff", "fn": "sphere", "dim": 2, "seeds": 2, "budget": 60, "pop": 10, "device": "cpu"}

ODD: dict[str, tuple[Any, ...]] = {
    "string": (
        "", "all", "ga", "\x00", "é" * 300, "[", "[]", "{}", '{"a": 1e999}', '{"lr": null}', "[" * 3000, "no.module:f",
        "2026-01-01", "-1",
    ),
    "int32": (-1, 0, 1, 3, 2**31 - 1, -(2**31)),
    "int64": (-1, 0, 1, 2**31, 2**63 - 1, -(2**63)),
    "double": (0.0, -1.0, 1e308, 5e-324, np.inf, -np.inf, np.nan),
    "list<element: double>": ([], [0.0], [1e308, -1e308], [np.nan, 0.0], [0.0] * 100),
}  # fmt: skip
"""Values of the right type that no run has, by Arrow's name of the type."""


class Wrong(Exception):
    """An input was neither refused in one sentence nor read."""


@cache
def _sound() -> Store:
    """A small store, as long as this process lives."""
    directory = tempfile.TemporaryDirectory(prefix="fuzz-")
    store = Store(Path(directory.name))
    store.keep = directory  # type: ignore[attr-defined]
    run_experiment(make_experiment(EXPERIMENT), store.directory, jobs=1)
    return store


@cache
def _shard(kind: Kind) -> tuple[Path, bytes, pd.DataFrame]:
    (path,) = _sound().files(kind)
    return path, path.read_bytes(), _sound().load(kind)


def _sentence(error: Exception) -> None:
    message = str(error)
    if not message.strip() or not message.isprintable() or len(message) > 1000:
        raise Wrong(f"no one sentence: {message!r:.2000}") from error


def config(data: bytes) -> None:
    """The text of a config file, up to the cells that it stands for."""
    path = _sound().directory / "config.yaml"
    path.write_bytes(data)
    try:
        make_experiment(read_config(path)).cells()
    except ValueError as error:
        _sentence(error)


def damage(data: bytes) -> None:
    """A shard with changes: each three bytes are a place, from the end, and the bits to flip there; at most four."""
    kind: Kind = KINDS[len(data) % 2]
    path, content, sound = _shard(kind)
    spoiled = bytearray(content)
    for at in range(0, min(len(data), 12) - 2, 3):
        spoiled[-1 - int.from_bytes(data[at : at + 2], "little") % len(spoiled)] ^= data[at + 2]
    _reads_as(path, kind, bytes(spoiled), content, sound)


def foreign(data: bytes) -> None:
    """Any bytes in place of a shard."""
    kind: Kind = KINDS[len(data) % 2]
    path, content, _ = _shard(kind)
    _reads_as(path, kind, data, content, None)


def _reads_as(path: Path, kind: Kind, data: bytes, content: bytes, sound: pd.DataFrame | None) -> None:
    store = _sound()
    try:
        path.write_bytes(data)
        try:
            loaded = store.load(kind)
        except StoreError as error:
            _sentence(error)
            if not store.damaged():
                raise Wrong("cannot be loaded, but nothing is damaged") from error
        else:
            if sound is not None:
                pd.testing.assert_frame_equal(loaded, sound, check_exact=True)
        _verify(store)
    finally:
        path.write_bytes(content)


def rows(data: bytes) -> None:
    """A whole shard whose rows say odd things: each three bytes are a column, a row and a value for it."""
    kind: Kind = KINDS[len(data) % 2]
    path, content, frame = _shard(kind)
    schema = pq.read_schema(path)
    columns = {name: frame[name].tolist() for name in schema.names}
    for at in range(0, min(len(data), 12) - 2, 3):
        field = schema.field(data[at] % len(schema))
        values = ODD[str(field.type)]
        columns[field.name][data[at + 1] % len(frame)] = values[data[at + 2] % len(values)]
    try:
        pq.write_table(pa.table(columns, schema=schema), path)
        store = _sound()
        loaded, key = store.load(kind), RUN_KEY if kind == "runs" else HISTORY_KEY
        if loaded.duplicated(key).any():
            raise Wrong("a run is there twice")
        _verify(store)
        look(store)
    finally:
        path.write_bytes(content)


def _verify(store: Store) -> None:
    try:
        for finding in verify(store).findings:
            if not f"{finding.where}: {finding.what}".strip():
                raise Wrong("a finding that says nothing")
    except StoreError as error:
        _sentence(error)


RECORDS = ("plan.json", "leases/a-b-2d-000000000000-s0.0.json", "failed/a-b-2d-000000000000-s0.json")


def record(data: bytes) -> None:
    """What processes that share a directory leave for each other: plan, lease, record of a failure."""
    store = _sound()
    path = store.directory / RECORDS[len(data) % len(RECORDS)]
    before = path.read_bytes() if path.is_file() else None
    path.parent.mkdir(exist_ok=True)
    try:
        path.write_bytes(data)
        try:
            look(store)
        except StoreError as error:
            _sentence(error)
        Leases(store.directory).others()
        list(Failures(store.directory).all())
        Failures(store.directory).forget(("a", "b", 2, "0" * 12), [0])
    finally:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (config, damage, foreign, rows, record)
}


def corpus(target: str) -> list[bytes]:
    """Inputs to begin with."""
    chance = random.Random(target)
    match target:
        case "config":
            return [path.read_bytes() for path in sorted(shipped_configs().glob("*.yaml"))]
        case "foreign":
            return [content + b"\0" * (len(content) % 2 != number) for number, content in _contents()]
        case "record":
            plan = (_sound().directory / "plan.json").read_bytes()
            lease = b'{"owner": ["here", "boot", 1, "2"], "seeds": [0, 1]}'
            failed = (
                b'{"algo": "a", "fn": "b", "dim": 2, "settings_hash": "000000000000", "seeds": [0], "reason": "no"}'
            )
            texts = enumerate((plan, lease, failed))
            return [text + b" " * ((number - len(text)) % len(RECORDS)) for number, text in texts]
        case _:
            return [chance.randbytes(size) for size in (3, 4, 6, 7, 9, 10, 12, 13)]


def _contents() -> list[tuple[int, bytes]]:
    return [(number, _shard(kind)[1]) for number, kind in enumerate(KINDS)]


def words() -> list[str]:
    """What a config is made of."""
    from evobench.algorithms import ALGORITHMS
    from evobench.experiment import Experiment
    from evobench.problems import FUNCTIONS

    tags = [
        "!!set",
        "!!python/object:os.system",
        "!!binary",
        "!!timestamp",
        "!!omap",
        "<<: *a",
        "&a",
        "*a",
        "---",
        "...",
    ]
    values = [
        "fair",
        "paper",
        "centre",
        "uniform",
        "float32",
        "float64",
        "1e999",
        ".nan",
        "-.inf",
        "0x7fffffff",
        "1:59:59",
    ]
    return [*Experiment.model_fields, *ALGORITHMS, *FUNCTIONS, *tags, *values, "all", "0-29", "1,4,7", "~", "yes"]
