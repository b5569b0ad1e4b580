"""What a person sees of a run: progress while it lasts, a table of its cells at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.progress import Task as Bar
from rich.table import Table
from rich.text import Text

from evobench.experiment import Cell
from evobench.runner import Plan, Task
from evobench.store import CELL

COST = {"evograd": 1, "pymoo": 30}
"""What an evaluation costs on either backend, roughly: the time left is estimated in this measure,
or it would promise minutes while the tensor programs run and pymoo's hours are still to come."""

CellKey = tuple[str, str, int, str]


class Lines:
    """Progress where nobody watches a terminal: a line for each task that ends, at once.

    `plan` is None until the experiment was found sound and its work begins.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.plan: Plan | None = None
        self.done = self.total = 0

    def started(self, plan: Plan) -> None:
        self.plan = plan
        self.done = plan.stored
        left = sum(len(task.seeds) for task in plan.tasks)
        self.total = plan.stored + left
        cells = f"{len(plan.cells)} cell{'s' if len(plan.cells) != 1 else ''}"
        self._say(f"{cells}, {_runs(self.total)}: {plan.stored:,} stored, {left:,} to run")

    def progressed(self, task: Task, share: float, best: float) -> None:
        """A log needs no more than the ends of tasks."""

    def finished(self, task: Task, runs: pd.DataFrame) -> None:
        self.done += len(task.seeds)
        seconds = runs["wall_s"].max()
        self._say(f"{self.done}/{self.total} {describe(task)}: best {runs['best_f'].min():.6g}, {seconds:.1f} s")

    def failed(self, task: Task, reason: str) -> None:
        self._say(f"{describe(task)} failed: {reason}")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


@dataclass
class _CellBar:
    """One cell in work: its bar and what its facts are made of."""

    bar: TaskID
    runs: int
    done: int = 0
    best: float = float("inf")


class Bars(Lines):
    """Progress on a terminal: one bar over all runs, and one for each cell in work."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            _Facts(),
            console=console,
            expand=True,
            refresh_per_second=4,
            speed_estimate_period=300,
        )
        self.cells: dict[CellKey, _CellBar] = {}
        self.shares: dict[tuple[CellKey, tuple[int, ...]], float] = {}
        self.failures = 0

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def started(self, plan: Plan) -> None:
        super().started(plan)
        self.runs_left = Counter[CellKey]()
        for task in plan.tasks:
            self.runs_left[task.cell.key] += len(task.seeds)
        if plan.tasks:
            self.overall = self.progress.add_task("all runs", total=sum(map(_cost, plan.tasks)))
            self._tell_overall()
            self.progress.start()

    def progressed(self, task: Task, share: float, best: float) -> None:
        if self.shares.get(_key(task), 0.0) >= 1.0:
            return  # a worker's word that came after its result
        self._advance(task, min(share, 0.999), best)

    def finished(self, task: Task, runs: pd.DataFrame) -> None:
        self.done += len(task.seeds)
        self._advance(task, 1.0, runs["best_f"].min())

    def failed(self, task: Task, reason: str) -> None:
        super().failed(task, reason)
        self.failures += len(task.seeds)
        self._advance(task, 1.0, float("inf"))

    def _advance(self, task: Task, share: float, best: float) -> None:
        key = task.cell.key
        gain = share - self.shares.get(_key(task), 0.0)
        self.shares[_key(task)] = share
        if key not in self.cells:
            runs = self.runs_left[key]
            self.cells[key] = _CellBar(self.progress.add_task(str(task.cell), total=runs, facts=""), runs)
        cell = self.cells[key]
        cell.best = min(cell.best, best)
        cell.done += len(task.seeds) if share == 1.0 else 0
        facts = f"{cell.done}/{cell.runs} runs  best {cell.best:.4g}"
        self.progress.update(cell.bar, advance=gain * len(task.seeds), facts=facts)
        self.progress.advance(self.overall, gain * _cost(task))
        if cell.done == cell.runs:
            self.progress.remove_task(cell.bar)
        self._tell_overall()

    def _tell_overall(self) -> None:
        failed = f", {self.failures} failed" if self.failures else ""
        self.progress.update(self.overall, facts=f"{self.done:,}/{_runs(self.total)}{failed}")


class _Facts(ProgressColumn):
    """Right of a bar: counts and best value for a cell; counts, time spent and time left for all."""

    def render(self, task: Bar) -> Text:
        facts = str(task.fields["facts"])
        if task.id == 0:
            left = _clock(task.time_remaining) if not task.finished else "0:00"
            facts += f"  {_clock(task.elapsed)}  {left} left"
        return Text(facts, no_wrap=True)


def cells_table(cells: Iterable[Cell], seeds: Sequence[int], runs: pd.DataFrame) -> Table:
    """The cells' stored runs: one line each, under a heading for each function and dimension."""
    wanted = runs[runs["seed"].isin(seeds)]
    found: dict[CellKey, pd.DataFrame] = dict(iter(wanted.groupby(CELL)))  # type: ignore[arg-type]
    gradients = bool((wanted["g_evals"] > 0).any())
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("algorithm", overflow="fold", max_width=32)
    for heading in ("runs", "median", "[IQR]", "best", "evals", *(["gradients"] if gradients else []), "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("stopped by", overflow="fold")
    section = ""
    for cell in sorted(cells, key=lambda cell: cell.dim):
        if section != (section := f"{cell.fn} {cell.dim}D"):
            table.add_row(Text(section, style="bold cyan"))
        table.add_row(f"  {cell.algo}", *_facts_of(found.get(cell.key), gradients))
    return table


def _facts_of(runs: pd.DataFrame | None, gradients: bool) -> list[str]:
    """A cell's columns after its name. `seconds` is the time its runs took all together."""
    if runs is None:
        return ["0"]
    low, median, high = runs["best_f"].quantile([0.25, 0.5, 0.75])
    reasons = runs["stop_reason"].value_counts()
    return [
        str(len(runs)),
        f"{median:.3g}",
        f"[{low:.3g}, {high:.3g}]",
        f"{runs['best_f'].min():.3g}",
        f"{runs['f_evals'].median():,.0f}",
        *([f"{runs['g_evals'].median():,.0f}"] if gradients else []),
        f"{(runs['wall_s'] / runs['batch_size']).sum():.1f}",
        str(reasons.index[0]) if len(reasons) == 1 else ", ".join(f"{name} {n}" for name, n in reasons.items()),
    ]


def describe(task: Task) -> str:
    """A task's cell and seeds: `ga ackley 30D seed 3`, `ga_diff ackley 30D seeds 0-29`."""
    seeds = task.seeds
    if len(seeds) == 1:
        return f"{task.cell} seed {seeds[0]}"
    whole = seeds == tuple(range(seeds[0], seeds[-1] + 1))
    return f"{task.cell} seeds {f'{seeds[0]}-{seeds[-1]}' if whole else ','.join(map(str, seeds))}"


def _key(task: Task) -> tuple[CellKey, tuple[int, ...]]:
    return task.cell.key, task.seeds


def _cost(task: Task) -> float:
    return float(len(task.seeds) * task.cell.budget * COST[task.cell.backend])


def _runs(count: int) -> str:
    return f"{count:,} run{'s' if count != 1 else ''}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
