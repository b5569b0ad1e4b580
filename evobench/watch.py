"""`evobench watch`: a run as its results tell it, from another terminal. Nothing but the store is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from evobench.store import CELL, Store, StoreError
from evobench.terminal import COST, clock

SHOWN = 12
"""Lines of the live table: the cells that were finished or begun last."""


@dataclass(frozen=True)
class CellState:
    """One cell: how many of its runs are stored, and their best value."""

    name: str
    done: int
    total: int
    best: float
    touched: str


@dataclass(frozen=True)
class Look:
    """What the store says now.

    Attributes:
        rate: runs a minute since the run began; 0 as long as none has ended.
        left_s: seconds left, by the cost of what is stored since and what is missing; None if unknown.
    """

    name: str
    cells: list[CellState]
    rate: float
    left_s: float | None

    @property
    def done(self) -> int:
        return sum(cell.done for cell in self.cells)

    @property
    def total(self) -> int:
        return sum(cell.total for cell in self.cells)

    @property
    def complete(self) -> int:
        return sum(cell.done == cell.total for cell in self.cells)

    def line(self) -> str:
        """All of it on one line."""
        best = min((cell.best for cell in self.cells), default=float("inf"))
        left = "" if self.done == self.total else f", {clock(self.left_s)} left"
        return (
            f"{self.complete}/{len(self.cells)} cells, {self.done:,}/{self.total:,} runs, best {best:.4g}, "
            f"{self.rate:.3g} runs/min{left}"
        )


def look(store: Store, now: datetime | None = None) -> Look:
    """Read the plan and the runs.

    Raises:
        StoreError: if no experiment was started there.
    """
    plan = store.plan()
    began = plan.started_at.isoformat(timespec="seconds")
    try:
        runs = store.load()
        runs = runs[runs["seed"].isin(plan.seeds)]
        found = {tuple(key): rows for key, rows in runs.groupby(CELL)}
    except StoreError:
        if store.files("runs"):
            raise
        found = {}  # nothing has ended yet
    elapsed = ((now or datetime.now(UTC)) - plan.started_at).total_seconds()
    cells, fresh, spent, missing = [], 0, 0.0, 0.0
    for cell in plan.cells:
        algo, fn, dim, _ = cell.key
        rows = found.get(cell.key)
        cost = COST.get(cell.backend, 1) * cell.budget
        done = 0 if rows is None else len(rows)
        if rows is not None:
            new = int((rows["started_at"] >= began).sum())
            fresh, spent = fresh + new, spent + cost * new
        missing += cost * (len(plan.seeds) - done)
        best = float("inf") if rows is None else float(rows["best_f"].min())
        touched = "" if rows is None else str(rows["started_at"].max())
        cells.append(CellState(f"{algo} {fn} {dim}D", done, len(plan.seeds), best, touched))
    rate = 60 * fresh / elapsed if elapsed > 0 else 0.0
    return Look(plan.name, cells, rate, elapsed * missing / spent if spent else None)


def watch(
    store: Store, console: Console, *, every: float, live: bool, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Look every so many seconds, until all runs are stored.

    Args:
        live: a table that changes in place; else a line for every change.

    Raises:
        StoreError: if no experiment was started there.
    """
    state, said = look(store), ""
    if live:
        with Live(_table(state), console=console, auto_refresh=False) as view:
            while state.done < state.total:
                sleep(every)
                state = look(store)
                view.update(_table(state), refresh=True)
    else:
        while True:
            if (counts := f"{state.done}") != said:
                said = counts
                console.print(state.line(), soft_wrap=True)
            if state.done >= state.total:
                break
            sleep(every)
            state = look(store)
    console.print(f"{state.name} is complete", soft_wrap=True)


def _table(state: Look) -> Table:
    """The sum, then the cells that changed last; names give way where the terminal is narrow."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", caption_justify="left")
    table.title, table.title_justify, table.title_style = state.line(), "left", "bold"
    table.add_column("cell", overflow="ellipsis", no_wrap=True)
    for heading in ("runs", "best"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    begun = [cell for cell in state.cells if cell.done]
    recent = sorted(begun, key=lambda cell: cell.touched)[-SHOWN:]
    for cell in recent:
        filled = round(10 * cell.done / cell.total)
        bar = "━" * filled + " " * (10 - filled)
        table.add_row(cell.name, f"{cell.done}/{cell.total}", f"{cell.best:.4g}", bar)
    if (waiting := len(state.cells) - len(begun)) > 0:
        table.caption = f"{waiting} cells without a stored run yet"
    return table
