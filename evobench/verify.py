"""`evobench verify`: does every stored row say what is true, as far as that can be checked without a rerun?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from evobench.algorithms import ALGORITHMS
from evobench.experiment import BESIDE, Cell, one_sentence
from evobench.failures import Failures
from evobench.problems import FUNCTIONS, Problem, draw_shift, make_problem
from evobench.settings import shown
from evobench.store import CELL, KINDS, RUN_KEY, Store
from evobench.tasks import failure_of

ROUNDING = 1e-9
"""Relative difference between a stored value and the same one computed in a batch of another size."""


class Finding(NamedTuple):
    """Something wrong: with which file, cell or run, and what."""

    where: str
    what: str


class Report(NamedTuple):
    """What was looked at, and what was found."""

    files: int
    runs: int
    findings: list[Finding]


def verify(store: Store) -> Report:
    """Check an experiment's directory.

    Every file: is it whole, and of this schema? Every run: are its seed, its budget and its history
    consistent, is its settings_hash that of its settings, is best_f the objective at best_x,
    evaluated again in float64? Every cell: does it have every seed that another cell has? And every
    task that failed and was not repeated since.

    Raises:
        StoreError: if there are no results.
    """
    damaged = [Finding(path, what) for path, what in store.damaged()]
    failed = list(_failed(store))
    files = sum(len(store.files(kind)) for kind in KINDS)
    if damaged or (failed and not files):  # the tables cannot be read as a whole
        return Report(files, 0, damaged + failed)
    runs, history = store.load(), store.load("history")
    findings = [*failed, *_twice(store, runs), *_seeds(runs), *_history(runs, history)]
    problem_of = cache(_problem)  # once for all cells of a problem, and so is the try where there is none
    for _, rows in runs.groupby(CELL, sort=False):
        findings += _cell(rows, problem_of)
    return Report(files, len(runs), list(dict.fromkeys(findings)))  # a function missing for many cells is one finding


def _failed(store: Store) -> Iterator[Finding]:
    for failed in Failures(store.directory).all():
        many = "s" if len(failed.seeds) > 1 else ""
        seeds = f"seed{many} {', '.join(map(str, failed.seeds))} failed: " if failed.seeds else ""
        yield Finding(f"failed/{failed.path.name}", f"{seeds}{failed.reason}")


def _name(row: Any) -> str:
    return f"{row['algo']} {row['fn']} {row['dim']}D {row['settings_hash']} seed {row['seed']}"


def _cell_name(row: Any) -> str:
    return _name(row).partition(" seed ")[0]


def _twice(store: Store, runs: pd.DataFrame) -> Iterator[Finding]:
    """A run may be stored twice, by two processes that shared the directory, if both say the same."""
    stored = store.load(repeats=True)
    for key, rows in stored[stored.duplicated(RUN_KEY, keep=False)].groupby(RUN_KEY, sort=False):
        if rows["best_f"].nunique(dropna=False) > 1:
            yield Finding(_name(dict(zip(RUN_KEY, key, strict=True))), "is stored twice, with different results")


def _seeds(runs: pd.DataFrame) -> Iterator[Finding]:
    everything = set(runs["seed"])
    for _, rows in runs.groupby(CELL, sort=False):
        if missing := len(everything - set(rows["seed"])):
            yield Finding(_cell_name(rows.iloc[0]), f"is incomplete: {missing} of {len(everything)} seeds are missing")


def _history(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Finding]:
    points = dict(iter(history.groupby(RUN_KEY, sort=False)))
    for _, row in runs.iterrows():
        curve = points.get(tuple(row[RUN_KEY]))
        if curve is None:
            yield Finding(_name(row), "has no history")
            continue
        values = curve.sort_values("evals")["best_f"].to_numpy()
        if (values[1:] > values[:-1]).any():
            yield Finding(_name(row), "has a history in which the best value gets worse")
        if values[-1] != row["best_f"]:
            yield Finding(_name(row), f"has best_f {row['best_f']:g}, but its history ends at {values[-1]:g}")


def _problem(fn: str, dim: int, settings: str) -> Problem | str:
    """The problem of its settings in JSON, or why there is none."""
    try:
        return make_problem(fn, dim, json.loads(settings))
    except ValueError as error:
        return str(error)


def _cell(rows: pd.DataFrame, problem_of: Callable[[str, int, str], Problem | str]) -> Iterator[Finding]:
    """The rows of one cell: their settings, budget and values."""
    first = rows.iloc[0]
    if first["algo"] not in ALGORITHMS:
        yield Finding(_cell_name(first), "has an algorithm that this version does not know")
        return
    try:
        settings = _cell_of(first).problem
    except ValueError as error:
        yield Finding(_cell_name(first), f"cannot be evaluated again: {error}")
        return
    problem = problem_of(first["fn"], int(first["dim"]), json.dumps(settings, sort_keys=True))
    if isinstance(problem, str):
        yield Finding(f"{first['fn']} {first['dim']}D", f"cannot be evaluated again: {problem}")
        return
    for _, row in rows.iterrows():
        try:
            yield from _row(row, problem)
        except Exception as error:  # a user's function may raise anything
            yield Finding(_name(row), f"cannot be evaluated again: {failure_of(error).reason}")


def _row(row: Any, problem: Problem) -> Iterator[Finding]:
    """One run: its budget, its settings and its value."""
    spent = row["f_evals"] + row["gradient_cost"] * row["g_evals"]
    if spent > row["budget"]:
        yield Finding(_name(row), f"spent {spent:g} evaluations of {row['budget']}")
    versions = {"pymoo": row["pymoo_version"], "cma": row["cma_version"]}
    if (expected := _cell_of(row).hash_with(versions)) != row["settings_hash"]:
        yield Finding(_name(row), f"does not have the settings_hash of its settings, {expected}")
    x = np.asarray(row["best_x"])
    if x.shape != (problem.dim,) or not ((problem.lower <= x) & (x <= problem.upper)).all():
        yield Finding(_name(row), "has a best_x outside the box")
        return
    if row["shift"]:
        problem = problem.shifted(draw_shift(int(row["seed"]), problem, row["shift"]))
    value = float(problem(x))
    if np.isfinite(row["best_f"]) and not np.isclose(row["best_f"], value, rtol=ROUNDING, atol=ROUNDING):
        yield Finding(_name(row), f"has best_f {row['best_f']!r}, but the objective at best_x is {value!r}")


def _cell_of(row: Any) -> Cell:
    """The cell that a row says it belongs to.

    Raises:
        ValueError: if there is no such cell.
    """
    try:
        settings = json.loads(row["settings"])
    except RecursionError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"its settings are no mapping: {shown(row['settings'])}")
    beside = {name: settings.pop(name) for name in BESIDE if name in settings}
    function = FUNCTIONS.get(row["fn"])
    known = function.settings.model_fields if function is not None else {}
    problem = {name: settings.pop(name) for name in known if name in settings}
    fields = {name: row[name] for name in Cell.model_fields if name not in ("settings", "problem", *BESIDE)}
    try:
        return Cell(**fields, settings=settings, problem=problem, **beside)
    except ValidationError as error:
        raise ValueError(one_sentence(error)) from error
