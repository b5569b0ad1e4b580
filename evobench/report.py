"""The page of `evobench report`: claims, figures, tables and where they come from, in one HTML file.

It is made of what is stored, runs nothing, and names what is missing. Figures are inlined, so that
the file needs nothing beside it; the template is `templates/report.html`.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from operator import methodcaller
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

import evobench
from evobench import bar, figures, runtimes, stats, tables, verdicts
from evobench.claims import SEEDS, judge, sources
from evobench.configs import asked, shipped_configs
from evobench.files import write_atomically
from evobench.store import Store, StoreError
from evobench.tables import Block, number

EXPERIMENTS = {
    "figure1": "Figure 1, the paper's protocol",
    "figure1-fair": "Figure 1, the fair protocol",
    "figure2": "Figure 2, Michalewicz 500D",
    "suite500": "Four functions at 500D, the paper's protocol",
    "wine": "The wine network",
}
"""The directories that the page is about; besides, all whose name starts with `ABLATION`."""

ABLATION = "ablation-"

LARGEST_SVG = 250_000
"""Bytes; a figure that takes more is a PNG, which grows with its size and not with its points."""

DPI = 150

ORIGIN = {
    "git_commit": "commit",
    "evobench_version": "evobench",
    "torch_version": "torch",
    "pymoo_version": "pymoo",
    "cma_version": "cma",
    "numpy_version": "numpy",
    "python_version": "Python",
    "device": "device",
    "cpu": "processor",
    "platform": "platform",
}
"""What a run notes of where it was computed, and the heading of its column."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page, or the reason why there is none.

    Attributes:
        alt: what it shows, for those who do not see it.
        command: what draws it again, or, where it is absent, computes its runs.
        source: a data URI.
        absent: why there is no figure, else empty.
        anchor: its place on the page, where a claim refers to it.
    """

    title: str
    command: str
    alt: str = ""
    caption: str = ""
    source: str = ""
    absent: str = ""
    anchor: str = ""


class Experiment:
    """What is stored of one experiment; without runs only its name, title and command."""

    def __init__(self, results: Path, name: str, title: str) -> None:
        self.name, self.title, self.directory = name, title, results / name
        self.command = f"evobench {'wine' if name == 'wine' else f'run configs/{name}.yaml'}"
        self.command += "" if results == Path("results") else f" --out {self.directory}"
        self.store = Store(self.directory)
        self.stored = bool(self.store.files("runs"))

    @cached_property
    def runs(self) -> pd.DataFrame:
        return self.store.load("runs")

    @cached_property
    def history(self) -> pd.DataFrame:
        return self.store.load("history")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """See `stats.summarise`."""
        return stats.summarise(self.runs)

    @property
    def state(self) -> str:
        """How much there is, and how much of it lacks runs."""
        if not self.stored:
            return ""
        short = int((self.summary["n"] < SEEDS).sum())
        none = sum(row.count(tables.MISSING) for row in self.counts[1])
        parts = [f"{len(self.runs):,} runs in {len(self.summary)} cells"]
        parts += [f"{short} of these have fewer than {SEEDS}"] * bool(short)
        parts += [f"{none} more (algorithm, problem) have none"] * bool(none)
        return ", ".join(parts)

    @cached_property
    def counts(self) -> tuple[list[str], list[list[str]]]:
        """Problems, and a row for each algorithm: its name, and its runs of each problem (`-`: none)."""
        runs = Counter(zip(self.runs["algo"], self.runs["fn"], self.runs["dim"], strict=True))
        problems = sorted(
            {(fn, dim) for _, fn, dim in runs}, key=lambda problem: (problem[1], stats.function_order(problem[0]))
        )
        algos = sorted({algo for algo, _, _ in runs}, key=stats.algorithm_order)
        rows = [[algo, *(str(runs[algo, fn, dim] or tables.MISSING) for fn, dim in problems)] for algo in algos]
        return [stats.problem_title(fn, dim) for fn, dim in problems], rows

    @cached_property
    def origins(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row for each combination of commit, versions and machine, the earliest first."""
        noted = self.runs[list(ORIGIN)].fillna("").assign(git_commit=self.runs["git_commit"].str[:12].fillna(""))
        day = self.runs["started_at"].fillna("").str[:10]
        groups = noted.assign(day=day).groupby(list(ORIGIN))["day"].agg(["min", "max", "size"]).reset_index()
        rows = groups.sort_values(["min", "max"]).to_numpy().astype(str).tolist()
        return [*ORIGIN.values(), "first run", "last run", "runs"], rows

    @cached_property
    def blocks(self) -> list[Block]:
        """Medians, tests, and what they become at other prices of a gradient; expected running times."""
        frames = {"summary": self.summary, "comparisons": stats.compare(self.runs)}
        frames["targets"] = runtimes.to_targets(self.history, self.runs)
        if (self.runs["g_evals"] > 0).any():
            frames["prices"] = runtimes.by_price(self.history, self.runs)
        return tables.blocks(frames)


def write(results: Path, out: Path) -> Path:
    """Write the page as `out/index.html`.

    Returns:
        its path.

    Raises:
        ValueError: if `results` is no directory of experiments, or a file there is damaged.
        OSError: if the file system refuses.
    """
    page = build(results)
    write_atomically(out / "index.html", methodcaller("write", page.encode()))
    return out / "index.html"


def build(results: Path) -> str:
    """The page.

    Raises:
        ValueError: if `results` is no directory of experiments, or a file there is damaged.
    """
    if not results.is_dir():
        raise ValueError(f"bad results '{results}': it is no directory")
    if (results / "runs").is_dir():
        raise ValueError(f"'{results}' is one experiment: give the directory of all, '{results.parent}'")
    experiments = {name: Experiment(results, name, title) for name, title in EXPERIMENTS.items()}
    source = sources(results)
    judgements, own = judge(results, source=source), bar.judge(results, source)
    paper, fair, large, suite, wine = experiments.values()
    figure1 = [paper, fair]
    ablations = [
        Experiment(results, directory.parent.name, question(directory.parent.name))
        for directory in sorted(results.glob(f"{ABLATION}*/runs"))
    ]
    sections: list[tuple[str, str, str, list[Picture]]] = [
        (
            "figure1",
            "Figure 1: final values",
            "A cell is one algorithm on one problem. Boxes are quartiles over its runs, whiskers reach the furthest "
            "runs within 1.5 interquartile ranges. The fair protocol starts all algorithms from the same distribution, "
            "moves the optimum off the centre, charges a gradient as 5 evaluations and computes in float64.",
            [_box(one) for one in figure1],
        ),
        (
            "convergence",
            "Convergence",
            "Median of the best value so far, in a band from the lower to the upper quartile. Gradients count as the "
            "protocol charges them.",
            [_convergence(one) for one in figure1],
        ),
        (
            "figure2",
            "Figure 2: 500 dimensions",
            "Left mean and standard deviation, as in the paper, right median and quartiles of the same runs.",
            _figure2(large),
        ),
        (
            "suite500",
            "500 dimensions: four functions",
            "500,000 evaluations, 1,000 for each dimension where Figure 1 has 5,000.",
            [_box(suite), _convergence(suite)],
        ),
        (
            "ecdf",
            "Runtime distributions",
            "Share of 51 targets, gaps of 1e2 to 1e-8, that runs have reached after so many evaluations by dimension. "
            "Michalewicz has no known optimum, hence no targets.",
            [_ecdf(one) for one in figure1],
        ),
        (
            "ranks",
            "Critical differences",
            "Average ranks of medians. Algorithms that a bar joins are closer than Nemenyi's critical difference. The "
            "problems are chosen, not sampled: ranks describe these and test nothing about others.",
            [_ranks(one) for one in figure1],
        ),
        (
            "learned",
            "Learned hyper-parameters",
            "What each run adapts, over its evaluations: median and quartiles. With the gradient off, GA, DE and PSO "
            "keep what they start with, and CMA-ES has only its own step-size rule.",
            [picture for one in (*figure1, large) for picture in _learned(one)],
        ),
        (
            "ablations",
            "Ablations: what it is due to",
            "One question each. All but what is named is as in the paper's protocol.",
            [_ablation(one) for one in ablations],
        ),
        (
            "wine",
            "The wine network",
            "A dot is the final loss of a run, a bar their median. Lines: what needs no search.",
            [_wine(wine)],
        ),
    ]
    environment = Environment(
        loader=PackageLoader("evobench"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        version=evobench.__version__,
        results=results,
        tally=Counter(judgement.verdict for judgement in judgements),
        judgements=judgements,
        verdicts=verdicts,
        bar=bar,
        own=own,
        overview=[*map(verdicts.overview, judgements), verdicts.bar_overview(own)],
        sections=sections,
        anchors={one.name for one in ablations},
        experiments=list(experiments.values()),
        tables=[(one, _tables(one)) for one in experiments.values()],
        others=sorted(
            {path.parent.name for path in results.glob("*/runs")} - {*experiments, *(one.name for one in ablations)}
        ),
        claims_command=f"evobench claims{_flag(results, '--results')}",
        report_command=f"evobench report{_flag(results, '')}",
    )


def _flag(results: Path, flag: str) -> str:
    """What names the directory on a command line, where it is not the usual one."""
    return "" if results == Path("results") else f" {flag} {results}".replace("  ", " ")


def _tables(experiment: Experiment) -> list[Block]:
    """Of the wine runs also their own table, where the data is at hand."""
    if not experiment.stored:
        return []
    if experiment.name != "wine":
        return experiment.blocks
    from evobench import wine_report  # brings torch along

    try:
        own = wine_report.blocks(experiment.runs)
    except ValueError:  # the figure's place says why
        own = []
    return [*own, *experiment.blocks]


# --- pictures ------------------------------------------------------------------------------------


def _picture(
    experiment: Experiment, title: str, kind: str, caption: str, draw: Callable[[], tuple[Figure, str]]
) -> Picture:
    """A figure and its alternative text, or what there is not enough of to draw it."""
    if not experiment.stored:
        return Picture(title, experiment.command, absent="Not computed.")
    command = f"evobench plot {experiment.directory} --kind {kind}"
    try:
        figure, alt = draw()
    except StoreError:
        raise  # damage is no lack of runs
    except ValueError as error:
        return Picture(title, command, absent=f"Not drawn: {error}.")
    return Picture(title, command, alt, caption, source=inline(figure))


def inline(figure: Figure) -> str:
    """The figure as a data URI: SVG, or PNG where that would be large."""
    content, kind = figures.encode(figure, "svg"), "svg+xml"
    if len(content) > LARGEST_SVG:
        figure.set_layout_engine("none")  # it is laid out by now, and that takes most of the time
        content, kind = figures.encode(figure, "png", DPI), "png"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def _winners(summary: pd.DataFrame) -> str:
    """The lowest median of each problem."""
    best = summary.sort_values("median", kind="stable").drop_duplicates(["fn", "dim"]).sort_index()
    return "lowest medians: " + "; ".join(
        f"{stats.problem_title(row['fn'], row['dim'])} {row['label']} {number(row['median'])}"
        + (f" ({row['n']} runs)" if row["n"] < SEEDS else "")
        for row in best.to_dict("records")
    )


def _problems(runs: pd.DataFrame) -> str:
    cells = stats.split(runs)
    algos = sorted({cell.algo for cell in cells}, key=stats.algorithm_order)
    problems = dict.fromkeys(stats.problem_title(cell.fn, cell.dim) for cell in cells)
    return f"{', '.join(algos)} on {'; '.join(problems)}"


def _box(one: Experiment) -> Picture:
    return _picture(
        one,
        one.title,
        "box",
        one.state,
        lambda: (
            figures.box(one.runs),
            f"Box plots of the final best fitness of {_problems(one.runs)}; {_winners(one.summary)}.",
        ),
    )


def _convergence(one: Experiment) -> Picture:
    return _picture(
        one,
        one.title,
        "convergence",
        one.state,
        lambda: (
            figures.convergence(one.history, one.runs),
            f"Lines of the best fitness so far over evaluations, of {_problems(one.runs)}; at the end, "
            f"{_winners(one.summary)}.",
        ),
    )


def question(name: str) -> str:
    """What a shipped config asks, in its first line; of any other the name."""
    path = shipped_configs() / f"{name}.yaml"
    return asked(path) or name if path.is_file() else name


def _ablation(one: Experiment) -> Picture:
    """Final values, or where there is a single problem the way there."""
    one_problem = one.stored and len(one.runs[["fn", "dim"]].drop_duplicates()) == 1
    return replace(_convergence(one) if one_problem else _box(one), anchor=one.name)


def _figure2(one: Experiment) -> list[Picture]:
    """The runs from each algorithm's own start, and those from the centre."""
    own, centre = "The paper's: each from its own start", "Fair: all from the centre of the box"

    def draw(fair: bool) -> tuple[Figure, str]:
        classical = one.runs["algo"].map(lambda algo: stats.lineage(algo)[1] in ("pymoo", "tpa"))
        from_random = one.runs["init"] == "uniform"
        runs = one.runs[~from_random if fair else from_random == classical]
        return figures.figure2(one.history, runs), (
            f"Lines of the best fitness so far over evaluations, of {_problems(runs)}, "
            f"{'all from the centre' if fair else 'each from its own start'}; {_winners(stats.summarise(runs))}."
        )

    caption = f"{one.state}. The command draws both starts in one figure." if one.stored else ""
    return [
        _picture(one, own, "figure2", caption, lambda: draw(False)),
        _picture(one, centre, "figure2", caption, lambda: draw(True)),
    ]


def _ecdf(one: Experiment) -> Picture:
    return _picture(
        one,
        one.title,
        "ecdf",
        "",
        lambda: (
            figures.ecdf(one.history, one.runs),
            f"Curves of the share of targets reached over evaluations by dimension, of "
            f"{_problems(one.runs[one.runs['gap'].notna()])}.",
        ),
    )


def _ranks(one: Experiment) -> Picture:
    def draw() -> tuple[Figure, str]:
        ranks = stats.rank(one.runs)
        order = ", ".join(f"{name} {value:.2f}" for name, value in ranks.average.items())
        return figures.cd(one.runs), (
            f"Critical-difference diagram over {'; '.join(ranks.medians.index)}. Average ranks: {order}; critical "
            f"difference {ranks.critical_difference:.2f}."
        )

    return _picture(one, one.title, "cd", "", draw)


def _learned(one: Experiment) -> list[Picture]:
    """A figure for each family that adapts anything, since parameters are rows."""
    if not one.stored:
        return [Picture(one.title, one.command, absent="Not computed.")]
    adapted = one.history.dropna(subset=figures.parameters(one.history), how="all")["algo"].unique()
    runs_of = {family: one.runs[one.runs["algo"].isin(algos)] for family, algos in _families(adapted).items()}
    pictures = []
    for family, runs in runs_of.items():

        def draw(runs: pd.DataFrame = runs) -> tuple[Figure, str]:
            ends = _ends(one.history, runs)
            return figures.learned(one.history, runs), (
                f"Lines of the adapted hyper-parameters over evaluations by dimension, of {_problems(runs)}. Median "
                f"over all runs at the start and at the end: {ends}."
            )

        name = figures.FAMILY_NAMES.get(family, family)
        pictures.append(_picture(one, f"{name}, {one.title}", "learned", "", draw))
    return pictures


def _families(algos: Iterable[str]) -> dict[str, list[str]]:
    """Algorithms by family, in order."""
    families: dict[str, list[str]] = {}
    for algo in sorted(algos, key=stats.algorithm_order):
        families.setdefault(stats.lineage(algo)[0], []).append(algo)
    return families


def _ends(history: pd.DataFrame, runs: pd.DataFrame) -> str:
    """By algorithm and parameter, the median of the first and of the last recorded values."""
    parts = []
    points = pd.concat(stats.split_history(history, runs).values()).sort_values("evals")
    for algo, rows in points.groupby("algo"):
        each = rows.groupby(["fn", "dim", "settings_hash", "seed"])
        for name in figures.parameters(rows):
            first, last = each[name].first().median(), each[name].last().median()
            parts.append(f"{algo} {name} {number(first)} to {number(last)}")
    return "; ".join(parts)


def _wine(one: Experiment) -> Picture:
    def draw() -> tuple[Figure, str]:
        from evobench import wine_report  # brings torch along

        medians = wine_report.summarise(wine_report.gather(one.runs)).sort_values("median", kind="stable")
        best = medians.drop_duplicates(["question", "series"]).sort_index().to_dict("records")
        named = "; ".join(
            f"{wine_report.QUESTIONS[row['question']]}, {row['series']}: {row['algo']} {number(row['median'])}"
            for row in best
        )
        return wine_report.figure(one.runs), f"Dots of the final losses. Lowest medians: {named}."

    return _picture(one, "Four questions", "wine", one.state, draw)
