"""What a person sees on a terminal: the progress of a run, the table of its cells, lists of names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import pandas as pd
from pydantic import BaseModel
from rich.console import Console, Group
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.progress import Task as Bar
from rich.table import Column, Table
from rich.text import Text

from evobench.algorithms import ALGORITHMS, UNAVAILABLE
from evobench.evograd.outer import OuterSettings
from evobench.experiment import PROTOCOLS, Cell, Experiment, shipped_configs
from evobench.problems import FUNCTIONS, PLUGGED, load_function
from evobench.runner import Plan, Task
from evobench.stats import labels
from evobench.store import CELL

COST = {"evograd": 1, "pymoo": 30, "asktell": 30}
"""What an evaluation costs on each backend, roughly: the time left is estimated in this measure,
or it would promise minutes while the tensor programs run and pymoo's hours are still to come."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""Of a sparkline, from the lowest value to the highest."""

_SPARK, _COURSE = 8, 256
"""Characters of a sparkline, and how many values it is made of at most."""

_MAX_NAME, _FACTS_WIDTH = 32, 34
"""Columns for a cell's name and for what stands right of its bar."""

_SHARED = "all but pymoo's"
"""Heading of the settings that the tensor algorithms share."""

CellKey = tuple[str, str, int, str]


def sparkline(values: Sequence[float], width: int = _SPARK) -> str:
    """The course of the values in `width` blocks, over decades where all are positive; empty below two."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    count = min(width, len(finite))
    shown = [finite[round(place * (len(finite) - 1) / (count - 1))] for place in range(count)]
    heights = [math.log(value) for value in shown] if min(shown) > 0 else shown
    low, span = min(heights), max(heights) - min(heights)
    steps = [round((height - low) / span * (len(BLOCKS) - 1)) if span else 0 for height in heights]
    return "".join(BLOCKS[step] for step in steps)


class Lines:
    """Progress where nobody watches a terminal: a line for each task that ends, at once.

    `plan` is None until the experiment was found sound and its work begins.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.plan: Plan | None = None
        self.done = self.total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to put away."""

    def started(self, plan: Plan) -> None:
        self.plan = plan
        for sentence in plan.damaged:
            self._say(f"damaged: {sentence}; set aside as .corrupt, its runs count as missing")
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
    course: list[float] = field(default_factory=list)


class Bars(Lines):
    """Progress on a terminal: one bar over all runs, and one for each cell in work."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.name_column, self.bar_column = Column(no_wrap=True), BarColumn()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=self.name_column),
            self.bar_column,
            _Facts(table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=4,
            speed_estimate_period=300,
        )
        self.cells: dict[CellKey, _CellBar] = {}
        self.shares: dict[tuple[CellKey, tuple[int, ...]], float] = {}
        self.failures = 0

    def __exit__(self, *error: object) -> None:
        self.progress.stop()  # also after Ctrl-C, or the cursor stays hidden

    def started(self, plan: Plan) -> None:
        super().started(plan)
        self.runs_left = Counter[CellKey]()
        for task in plan.tasks:
            self.runs_left[task.cell.key] += len(task.seeds)
        if plan.tasks:
            self._lay_out(min(_MAX_NAME, max(len(str(task.cell)) for task in plan.tasks)))
            self.overall = self.progress.add_task("all runs", total=sum(map(_cost, plan.tasks)))
            self._tell_overall()
            self.progress.start()

    def _lay_out(self, name_width: int) -> None:
        """Fix the columns, or the bars would jump; stay off the right edge, where Ctrl-C echoes `^C`."""
        self.name_column.width = name_width
        self.bar_column.bar_width = max(8, min(40, self.console.width - name_width - _FACTS_WIDTH - 4))

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
        if new := key not in self.cells:
            runs = self.runs_left[key]
            self.cells[key] = _CellBar(self.progress.add_task(str(task.cell), total=runs, facts=""), runs)
        cell = self.cells[key]
        cell.best = min(cell.best, best)
        cell.done += len(task.seeds) if share == 1.0 else 0
        cell.course = [*(cell.course if len(cell.course) < _COURSE else cell.course[::2]), cell.best]
        facts = f"{cell.done}/{cell.runs} runs {cell.best:>10.4g} {sparkline(cell.course):{_SPARK}}"
        self.progress.update(cell.bar, advance=gain * len(task.seeds), facts=facts, refresh=new)
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
            facts += f"  {clock(task.elapsed)}"
            facts += "" if task.finished else f"  {clock(task.time_remaining)} left"
        return Text(facts, no_wrap=True)


def cells_table(experiment: Experiment, runs: pd.DataFrame) -> Table:
    """The stored runs of an experiment's cells: a line each, under headings of function and dimension."""
    cells = experiment.cells()
    keys = {cell.key for cell in cells}
    found = {key: rows for key, rows in runs[runs["seed"].isin(experiment.seeds)].groupby(CELL) if key in keys}
    names = {cell[3:]: name for cell, name in labels(pd.concat(found.values())).items()} if found else {}
    gradients = any((rows["g_evals"] > 0).any() for rows in found.values())
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("algorithm", overflow="fold", max_width=_MAX_NAME)
    for heading in ("runs", "median", "[IQR]", "best", "evals", *(["gradients"] if gradients else []), "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("stopped by", overflow="fold")
    section = ""
    for cell in sorted(cells, key=_asked_order(experiment)):
        if section != (section := f"{cell.fn} {cell.dim}D"):
            table.add_row(Text(section, style="bold cyan"))
        table.add_row(
            f"  {names.get((cell.algo, cell.settings_hash), cell.algo)}", *_facts_of(found.get(cell.key), gradients)
        )
    return table


def _asked_order(experiment: Experiment) -> Callable[[Cell], tuple[int, ...]]:
    """Dimension by dimension, each in the order in which functions and algorithms were asked for."""
    products = experiment.products()
    dims = list(dict.fromkeys(dim for product in products for dim in product.dim))
    fns = list(dict.fromkeys(fn for product in products for fn in product.fn))
    algos = list(dict.fromkeys(algo for product in products for algo in product.algo))
    return lambda cell: (dims.index(cell.dim), fns.index(cell.fn), algos.index(cell.algo))


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


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table


def plain_rows(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of text under headers."""
    table = _plain_table(*headers)
    for row in rows:
        table.add_row(*row)
    return table


def algorithms_table() -> Table:
    table = _plain_table("algorithm", "least pop", "what it is")
    for algorithm in ALGORITHMS.values():
        table.add_row(algorithm.name, str(algorithm.min_pop), algorithm.summary)
    for name, reason in UNAVAILABLE.items():
        table.add_row(Text(name, style="dim"), "-", f"not available: {reason}")
    return table


def functions_table() -> Table:
    table = _plain_table("function", "box", "minimum", "least dim", "source")
    for name in [*FUNCTIONS, *PLUGGED]:
        try:
            function = FUNCTIONS.get(name) or load_function(PLUGGED[name])
        except ValueError as error:
            table.add_row(name, "-", "-", "-", f"not available: {error}")
            continue
        minimum = "unknown" if function.f_opt is None else f"{function.f_opt:g}"
        box = f"[{function.lower:g}, {function.upper:g}]"
        table.add_row(name, box, minimum, str(function.min_dim), function.citation)
    return table


def protocols_table() -> Table:
    parts = list(next(iter(PROTOCOLS.values())))
    table = _plain_table("protocol", *(part.replace("_", " ") for part in parts))
    for name, protocol in PROTOCOLS.items():
        values = {**protocol, "init": protocol["init"] or "each algorithm's own"}
        values["shift"] = f"within {protocol['shift']:.0%} of half the box" if protocol["shift"] else "none"
        table.add_row(name, *(str(values[part]) for part in parts))
    return table


def configs_table(directory: Path = Path("configs")) -> Table:
    """The YAML files of `directory` and the shipped ones, each with its first comment."""
    table = _plain_table("config", "what it asks")
    here = sorted([*directory.glob("*.yaml"), *directory.glob("*.yml")])
    shipped = [path for path in sorted(shipped_configs().glob("*.yaml")) if path.name not in {one.name for one in here}]
    for path in [*here, *shipped]:
        with path.open(encoding="utf-8", errors="replace") as file:
            first = file.readline().strip()
        name = path.stem if path in shipped else path.as_posix()
        table.add_row(name, first.lstrip("# ") if first.startswith("#") else "")
    if not table.row_count:
        table.add_row(f"(there is no YAML file in {directory}/)")
    return table


def settings_list() -> Group:
    """Every setting, once for all algorithms that share it, with its defaults and their source."""
    shared = [name for name, algorithm in ALGORITHMS.items() if isinstance(algorithm.settings, OuterSettings)]
    parts = [_settings_table(_SHARED, list(OuterSettings.model_fields), shared)]
    models: dict[type[BaseModel], list[str]] = {}
    for name, algorithm in ALGORITHMS.items():
        models.setdefault(type(algorithm.settings), []).append(name)
    for model, names in models.items():
        keys = [key for key in model.model_fields if names[0] not in shared or key not in OuterSettings.model_fields]
        parts.append(_settings_table(", ".join(names), keys, names))
    return Group(*parts)


def _settings_table(title: str, keys: list[str], names: list[str]) -> Table:
    """The settings `keys` of the algorithms `names`; where defaults differ, the rarer ones are named."""
    table = _plain_table("setting", "default", "what it is (source)")
    table.title, table.title_style, table.title_justify = title, "bold cyan", "left"
    table.show_header = title == _SHARED
    table.columns[0].min_width, table.columns[1].min_width = 16, 13
    for key in keys:
        field = type(ALGORITHMS[names[0]].settings).model_fields[key]
        owners: dict[Any, list[str]] = {}
        for name in names:
            owners.setdefault(getattr(ALGORITHMS[name].settings, key), []).append(name)
        usual, *others = owners
        differing = "".join(f"; {_shown(value)} in {', '.join(owners[value])}" for value in others)
        choices = f"; one of {', '.join(get_args(field.annotation))}" if get_origin(field.annotation) is Literal else ""
        table.add_row(key, _shown(usual), f"{field.description}{choices}{differing}")
    return table


def _shown(value: object) -> str:
    """A value as a config or `--set` takes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
