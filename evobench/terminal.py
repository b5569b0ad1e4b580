"""What a person sees on a terminal: the progress of a run, the table of its cells, lists of names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
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

from evobench import bias
from evobench.algorithms import ALGORITHMS, UNAVAILABLE
from evobench.configs import asked, shipped_configs
from evobench.evograd.outer import OuterSettings
from evobench.experiment import PROTOCOLS, Cell, Experiment
from evobench.problems import FUNCTIONS, PAPER_FUNCTIONS, PLUGGED, Function, load_function
from evobench.runner import Plan
from evobench.stats import TIE, labels, quantile
from evobench.store import CELL, CellKey
from evobench.tables import MISSING
from evobench.tasks import Task

COST = {"evograd": 1, "gradient": 10, "pymoo": 30, "asktell": 30}
"""What an evaluation costs on each backend, roughly: the time left is estimated in this measure,
or it would promise minutes while the tensor programs run and pymoo's hours are still to come."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""Of a sparkline, from the lowest value to the highest."""

_SPARK, _COURSE = 8, 256
"""Characters of a sparkline, and how many values it is made of at most."""

_MAX_NAME, _FACTS_WIDTH = 32, 34
"""Columns for a cell's name and for what stands right of its bar."""

_SHARED = "every _diff, _released, _plain and _guarded"
"""Heading of the settings that EvoGrad's algorithms share."""


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
        self._say(f"{self.done}/{self.total} {task}: best {runs['best_f'].min():.6g}, {seconds:.1f} s")

    def failed(self, task: Task, reason: str) -> None:
        self._say(f"{task} failed: {reason}")

    def noticed(self, what: str, again: Task | None) -> None:
        self._say(what)

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
        if self.shares.get(task.key, 0.0) >= 1.0:
            return  # a worker's word that came after its result
        self._advance(task, min(share, 0.999), best)

    def finished(self, task: Task, runs: pd.DataFrame) -> None:
        self.done += len(task.seeds)
        self._advance(task, 1.0, runs["best_f"].min())

    def failed(self, task: Task, reason: str) -> None:
        super().failed(task, reason)
        self.failures += len(task.seeds)
        self._advance(task, 1.0, float("inf"))

    def noticed(self, what: str, again: Task | None) -> None:
        super().noticed(what, again)
        if again is not None and again.key in self.shares:
            self._advance(again, 0.0, float("inf"))

    def _advance(self, task: Task, share: float, best: float) -> None:
        key = task.cell.key
        gain = share - self.shares.get(task.key, 0.0)
        self.shares[task.key] = share
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
    low, median, high = (quantile(runs["best_f"].to_numpy(), q) for q in (0.25, 0.5, 0.75))
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


def bias_tables(found: pd.DataFrame, verdicts: pd.DataFrame) -> Group:
    """What `bias.assess` found: a table and a verdict for each algorithm, dimension and start."""
    parts: list[Table | Text] = []
    for verdict in verdicts.to_dict("records"):
        rows = found[(found[list(bias.Group._fields)] == [verdict[name] for name in bias.Group._fields]).all(axis=1)]
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", title_justify="left")
        own = " (its own)" if verdict["start"] == ALGORITHMS[verdict["algo"]].own_start else ""
        table.title, table.title_style = f"{verdict['algo']}, {verdict['dim']}D, start: {verdict['start']}{own}", "cyan"
        table.add_column("function", no_wrap=True)
        for heading in ("centred", "shifted", "ratio [95% CI]", "A12 [95% CI]", "p"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in rows.to_dict("records"):
            effect = f"{row['a12']:.2f} [{row['a12_low']:.2f}, {row['a12_high']:.2f}]"
            values = (*map(_rounded, (row["centred"], row["shifted"])), _ratio(row), effect, _rounded(row["p_holm"]))
            table.add_row(row["fn"], *values, style="bold" if row["profits"] else "")
        parts += [table, Text(f"{_verdict(verdict)}\n")]
    return Group(*parts, Text(_BIAS_NOTE))


_BIAS_NOTE = (
    f"centred, shifted: median errors, floored at {TIE:g}. A12: probability that a run ends lower\n"
    "with the optimum at the centre. p: Mann-Whitney, Holm's correction. Bold: profits."
)


def _verdict(verdict: dict[Hashable, Any]) -> str:
    profits = ", ".join(verdict["profits"])
    name = "centre bias" if verdict["biased"] else "some centre bias" if profits else "no centre bias"
    bound = f"{'above' if verdict['ratio'] > bias.BOUND else 'not above'} {bias.BOUND:g}"
    return f"{name}: profits on {profits or 'no function'}\ngeometric mean of the ratios {_ratio(verdict)}, {bound}"


def _ratio(row: dict[Hashable, Any]) -> str:
    return f"{_rounded(row['ratio'])} [{_rounded(row['ratio_low'])}, {_rounded(row['ratio_high'])}]"


def gradients_table(cell: Cell, seeds: int, rows: pd.DataFrame) -> Group:
    """What `gradients.observe` found of one cell."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", title_justify="left")
    budget = f"{_runs(seeds)} of {cell.budget:,} evaluations"
    table.title, table.title_style = f"{cell}: {budget}", "cyan"
    for heading in ("parameter", "fate"):
        table.add_column(heading, no_wrap=True)
    for heading in ("reached", "entries", "norm [IQR]", "norm / own norm [IQR]"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        shares = [f"{row[name]:.1%}" if row[name] == row[name] else MISSING for name in ("reached", "entries")]
        spreads = [
            f"{_rounded(row[name])} [{_rounded(row[f'{name}_q1'])}, {_rounded(row[f'{name}_q3'])}]"
            if row["reached"] > 0
            else MISSING
            for name in ("norm", "relative")
        ]
        table.add_row(row["parameter"], row["fate"], *shares, *spreads, style="bold" if row["fate"] == "dead" else "")
    return Group(table, Text(f"{_fates(rows)}\n"))


def _fates(rows: pd.DataFrame) -> str:
    """What is named after a table: all but the parameters that learn."""
    names = {fate: list(part["parameter"]) for fate, part in rows.groupby("fate", sort=False)}
    explained = {
        "dead": "dead (no gradient ever)",
        "overwritten": "overwritten (the commit undoes the step)",
        "not learned": "not learned here",
    }
    sentences = [f"{text}: {', '.join(names[fate])}" for fate, text in explained.items() if fate in names]
    return "\n".join(sentences) or "every parameter learns"


def _rounded(value: float) -> str:
    """Two significant digits, `270` and `3.3e6`: what an interval of this width has."""
    mantissa, e, exponent = f"{float(f'{value:.2g}'):g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


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


def functions_table() -> Group:
    """The paper's functions, then the others, installed packages' among them."""
    papers: dict[str, Function | str] = {name: FUNCTIONS[name] for name in PAPER_FUNCTIONS}
    others: dict[str, Function | str] = {name: FUNCTIONS[name] for name in FUNCTIONS if name not in papers}
    for name, target in PLUGGED.items():
        try:
            others[name] = load_function(target)
        except ValueError as error:
            others[name] = f"not available: {error}"
    parts = []
    for title, functions in (("the paper's: --fn all", papers), ("by name only", others)):
        table = _plain_table("function", "box", "minimum", "least dim", "source")
        table.title, table.title_style, table.title_justify = title, "bold cyan", "left"
        table.show_header = functions is papers
        for column, width in zip(table.columns, (17, 13, 7, 9), strict=False):
            column.min_width = width
        for name, function in functions.items():
            if isinstance(function, str):
                table.add_row(name, "-", "-", "-", function)
                continue
            minimum = "unknown" if function.f_opt is None else f"{function.f_opt:g}"
            box = f"[{function.lower:g}, {function.upper:g}]"
            table.add_row(name, box, minimum, str(function.min_dim), function.citation)
        parts.append(table)
    return Group(*parts)


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
        table.add_row(path.stem if path in shipped else path.as_posix(), asked(path))
    if not table.row_count:
        table.add_row(f"(there is no YAML file in {directory}/)")
    return table


def settings_list() -> Group:
    """Every setting, once for all algorithms that share it, with its defaults and their source."""
    defaults: dict[str, BaseModel] = {name: algorithm.settings for name, algorithm in ALGORITHMS.items()}
    defaults |= {name: one.settings() for name, one in FUNCTIONS.items() if one.settings.model_fields}
    shared = {name: settings for name, settings in defaults.items() if isinstance(settings, OuterSettings)}
    parts = [_settings_table(_SHARED, list(OuterSettings.model_fields), shared)]
    models: dict[type[BaseModel], dict[str, BaseModel]] = {}
    for name, settings in defaults.items():
        models.setdefault(type(settings), {})[name] = settings
    for model, owners in models.items():
        known = OuterSettings.model_fields if issubclass(model, OuterSettings) else {}
        parts.append(
            _settings_table(", ".join(owners), [key for key in model.model_fields if key not in known], owners)
        )
    return Group(*parts)


def _settings_table(title: str, keys: list[str], defaults: Mapping[str, BaseModel]) -> Table:
    """The settings `keys` of the owners of `defaults`; where these differ, the rarer ones are named."""
    table = _plain_table("setting", "default", "what it is (source)")
    table.title, table.title_style, table.title_justify = title, "bold cyan", "left"
    table.show_header = title == _SHARED
    table.columns[0].min_width, table.columns[1].min_width = 16, 13
    for key in keys:
        field = type(next(iter(defaults.values()))).model_fields[key]
        owners: dict[Any, list[str]] = {}
        for name, settings in defaults.items():
            owners.setdefault(getattr(settings, key), []).append(name)
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
