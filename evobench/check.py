"""`evobench check`: do the algorithms still end where they ended when the reference was made?

A fixed quick set (every `_diff` algorithm and its `_plain` twin on the paper's functions, small) is run
and compared with a reference that comes with the package. On the reference's platform, processor and
versions every run must be the same to the bit. Elsewhere rounding makes other runs of the same
distribution, so samples are compared, cell by cell, by two tests: Mann and Whitney's, which sees a
shift, and Kolmogorov and Smirnov's (exact), which sees any other change. Holm's correction over all
tests of the check keeps the probability of any false alarm below `FALSE_ALARM`.

Sources: H. B. Mann and D. R. Whitney, Ann. Math. Stat. 18(1):50-60, 1947; J. L. Hodges, Arkiv foer
Matematik 3(43):469-486, 1958; S. Holm, Scand. J. Stat. 6(2):65-70, 1979.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import ks_2samp, mannwhitneyu

from evobench.algorithms import ALGORITHMS
from evobench.experiment import Experiment, make_experiment
from evobench.files import write_atomically
from evobench.problems import PAPER_FUNCTIONS
from evobench.runner import Listener, run_experiment
from evobench.stats import final_values, holm
from evobench.store import StoreError, load_results
from evobench.tasks import provenance

By = Literal["auto", "exact", "distribution"]

ALGOS = tuple(f"{family}_{variant}" for family in ("ga", "de", "pso", "cmaes") for variant in ("diff", "plain"))
FNS = PAPER_FUNCTIONS

SET: dict[str, Any] = {
    "name": "check",
    "dim": 4,
    "pop": 20,
    "budget": 2000,
    "protocol": "paper",
    "init": "uniform",
    "dtype": "float64",
    "device": "cpu",
}
"""Small, and far from solved: a run that has reached the optimum says nothing of how it got there."""

LR = 0.1
"""Adam's rate here: at the paper's 0.01 a hundred generations move nothing that a sample could show."""

SEEDS, REFERENCE_SEEDS = 100, 400
"""Runs a cell: of a check, and of a reference (its first 100 are the check's)."""

FALSE_ALARM = 1e-3
"""Probability that a check by distribution fails although nothing changed, at most."""

REFERENCE = Path(__file__).parent / "references" / "check.parquet"

KEY = ["algo", "fn", "dim"]
COLUMNS = [*KEY, "seed", "settings_hash", "best_f"]
PLATFORM = ("torch_version", "numpy_version", "platform", "cpu")
"""What must be the same for the same bits."""


class Reference(NamedTuple):
    """What a check compares with, and where that came from."""

    runs: pd.DataFrame
    origin: dict[str, str]


def check_set(algos: Sequence[str], fns: Sequence[str], seeds: str | int) -> Experiment:
    """The quick set of these algorithms and functions.

    Raises:
        ValueError: naming the bad value.
    """
    content = {**SET, "algo": list(algos), "fn": list(fns), "seeds": seeds}
    names = make_experiment(content).algo
    learning = [name for name in names if ALGORITHMS[name].needs_gradient]
    return make_experiment({**content, "settings": {name: {"lr": LR} for name in learning}})


def measure(experiment: Experiment, jobs: int | None = None, listener: Listener | None = None) -> pd.DataFrame:
    """The runs of an experiment, computed now.

    Raises:
        RuntimeError: if a run fails.
    """
    with tempfile.TemporaryDirectory(prefix="evobench-check-") as directory:
        summary = run_experiment(experiment, directory, jobs=jobs, listener=listener)
        if summary.failures:
            task, reason = summary.failures[0]
            raise RuntimeError(f"{task.cell} failed: {reason}")
        return load_results(directory)


def save(runs: pd.DataFrame, path: Path) -> None:
    """Write a reference, with what made it.

    Raises:
        StoreError: if the file system refuses.
    """
    origin = {**provenance(), "made_at": datetime.now(UTC).isoformat(timespec="seconds")}
    table = pa.Table.from_pandas(runs[COLUMNS], preserve_index=False)
    table = table.replace_schema_metadata({"origin": json.dumps(origin)})
    try:
        write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))
    except OSError as error:
        raise StoreError(f"cannot write '{path}': {error.strerror}") from error


def load(path: Path) -> Reference:
    """A reference.

    Raises:
        StoreError: if it is not there or is none.
    """
    try:
        table = pq.read_table(path)
        runs = table.to_pandas()[COLUMNS]
        return Reference(runs, json.loads(table.schema.metadata[b"origin"]))
    except FileNotFoundError:
        raise StoreError(f"there is no reference '{path}': make one with --update") from None
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"'{path}' is not a reference of evobench check: {type(error).__name__}") from error


def same_platform(origin: dict[str, str]) -> bool:
    """Whether the bits of a reference can be expected here."""
    here = provenance()
    return all(origin.get(key) == here[key] for key in PLATFORM)


def compare(now: pd.DataFrame, reference: pd.DataFrame, *, exact: bool) -> pd.DataFrame:
    """One row a cell of `now`: is it what the reference says?

    Columns: `algo fn dim`; `changed`, the share of runs that are not the reference's to the bit
    (NaN by distribution); medians `before` and `after`; `worse`, the probability that a run of now
    ends higher than one of the reference; `p`, the smaller of both tests' after Holm's correction
    over all tests; `finding`, what is wrong, or empty.
    """
    rows, stored = [], dict(iter(reference.groupby(KEY)))
    for key, runs in now.groupby(KEY, sort=False):
        known = stored.get(key, reference.iloc[:0])
        row: dict[str, Any] = {**dict(zip(KEY, key, strict=True)), "changed": np.nan, "p_shift": 1.0, "p_shape": 1.0}
        if known.empty:
            rows.append({**row, "finding": "is not in the reference"})
            continue
        before, after = final_values(known), final_values(runs)
        shift = mannwhitneyu(after, before, method="asymptotic")
        row |= {
            "before": float(np.median(before)),
            "after": float(np.median(after)),
            "worse": float(shift.statistic) / (len(before) * len(after)),
            "p_shift": float(shift.pvalue),
            "p_shape": float(ks_2samp(after, before, method="exact").pvalue),
            "finding": "",
        }
        if set(runs["settings_hash"]) != set(known["settings_hash"]):
            row["finding"] = "has other settings than the reference"
        elif exact:
            row["changed"] = _changed(runs, known)
            row["finding"] = "is not the same to the bit" if row["changed"] > 0 else ""
        rows.append(row)
    columns = [*KEY, "changed", "before", "after", "worse", "p_shift", "p_shape", "finding"]
    table = pd.DataFrame(rows, columns=columns)
    pairs = table[["p_shift", "p_shape"]].to_numpy()
    table["p"] = holm(pairs.ravel()).reshape(pairs.shape).min(axis=1)
    differs = (table["p"] < FALSE_ALARM) & (table["finding"] == "")
    if not exact:
        table.loc[differs, "finding"] = "has another distribution"
    return table.drop(columns=["p_shift", "p_shape"])


def _changed(runs: pd.DataFrame, known: pd.DataFrame) -> float:
    """The share of runs that have other values than the same seeds of the reference.

    Raises:
        ValueError: if the reference does not have all of these seeds.
    """
    before = known.set_index("seed")["best_f"].reindex(runs["seed"]).to_numpy()
    if np.isnan(before).any():
        raise ValueError("the reference does not have these seeds: compare them by distribution")
    values: Float[ndarray, " runs"] = runs["best_f"].to_numpy()
    return float((values != before).mean())


def headline(table: pd.DataFrame, origin: dict[str, str], *, exact: bool) -> str:
    """One sentence: what was compared with what, and how it came out."""
    bad = int((table["finding"] != "").sum())
    how = "to the bit" if exact else f"by distribution (false alarms: under 1 in {1 / FALSE_ALARM:,.0f} checks)"
    commit = f", {origin['git_commit'][:10]}" if origin.get("git_commit") else ""
    made = f"torch {origin['torch_version']}, {origin['cpu']}{commit}, {origin['made_at'][:10]}"
    outcome = f"{bad} of {len(table)} cells failed" if bad else f"all {len(table)} cells as in the reference"
    return f"{outcome}, compared {how}; reference: {made}"


HEADERS = ("cell", "median was", "is", "direction", "p (Holm)", "finding")


def findings(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """The failed cells as text, under `HEADERS`."""
    return [
        (
            f"{row['algo']} {row['fn']} {row['dim']}D",
            f"{row['before']:.4g}",
            f"{row['after']:.4g}",
            _direction(row["worse"]),
            f"{row['p']:.2g}",
            row["finding"] if np.isnan(row["changed"]) else f"{row['finding']}: {row['changed']:.0%} of runs",
        )
        for _, row in table[table["finding"] != ""].iterrows()
    ]


def _direction(worse: float) -> str:
    """How a run of now fares against one of the reference."""
    if np.isnan(worse):
        return "-"
    if abs(worse - 0.5) < 0.005:
        return "neither"
    return f"worse in {worse:.0%}" if worse > 0.5 else f"better in {1 - worse:.0%}"


def markdown(table: pd.DataFrame, origin: dict[str, str], *, exact: bool) -> str:
    """The check for a pull request."""
    failed = findings(table)
    lines = ["### evobench check", "", headline(table, origin, exact=exact) + "."]
    if failed:
        rows = [HEADERS, ("---",) * len(HEADERS), *failed]
        lines += ["", *(f"| {' | '.join(row)} |" for row in rows)]
        lines += ["", "If the change is meant, `evobench check --update` makes it the reference."]
    return "\n".join(lines) + "\n"
