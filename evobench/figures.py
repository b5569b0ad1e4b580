"""The figures of `evobench plot`: the paper's Figures 1 and 2, convergence, ECDFs, profiles, ranks, learned values.

Each function takes tables of `evobench.store.load_results` and returns a matplotlib Figure of its
own; pyplot, and with it any global state of matplotlib, is not touched. Colours are Okabe and Ito's,
which colour-blind readers can tell apart (M. Okabe and K. Ito, Color Universal Design, 2008).
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy import ndarray

from evobench import runtimes, stats
from evobench.files import write_atomically
from evobench.stats import Cell
from evobench.store import HISTORY, StoreError

STYLE: Any = {
    "font.family": "STIXGeneral",  # comes with matplotlib, so a figure looks the same everywhere
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "evobench",
    "pdf.fonttype": 42,  # TrueType: text stays text, as publishers ask
}

FAMILY_NAMES = {
    "ga": "GA",
    "de": "DE",
    "pso": "PSO",
    "cmaes": "CMA-ES",
    "adam": "Adam",
    "lion": "Lion",
    "lbfgs": "L-BFGS",
}
FAMILY_COLOURS = {
    "ga": "#009E73",
    "de": "#CC79A7",
    "pso": "#0072B2",
    "cmaes": "#D55E00",
    "adam": "#000000",
    "lion": "#E69F00",
    "lbfgs": "#56B4E9",
}

DATELESS = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Metadata with which the same figure gives the same bytes."""
VARIANT_NAMES = {
    "pymoo": "pymoo",
    "released": "released code",
    "diff": "differentiable",
    "plain": "gradient off",
    "guarded": "guarded gradient",
    "tpa": "pymoo, TPA",
    "gradient": "gradient alone",
    "pycma": "cma",
    "scipy": "SciPy",
    "evosax": "evosax",
    "own": "the user's own",
}
VARIANT_COLOURS = {
    "pymoo": "#999999",
    "released": "#CC79A7",
    "diff": "#E69F00",
    "plain": "#56B4E9",
    "guarded": "#009E73",
    "tpa": "#444444",
    "gradient": "#0072B2",
    "pycma": "#D55E00",
    "scipy": "#882255",
    "evosax": "#F0E442",
}
VARIANT_LINES: dict[str, Any] = {
    "pymoo": (0, (4, 1.5)),
    "released": (0, (1, 1)),
    "diff": "-",
    "plain": (0, (5, 1, 1, 1)),
    "guarded": (0, (5, 1, 1, 1, 1, 1)),
    "tpa": (0, (9, 2)),
    "gradient": (0, (2, 1)),
    "pycma": (0, (9, 1.5, 1, 1.5)),
    "scipy": (0, (2, 1, 2, 3)),
    "evosax": (0, (6, 1, 3, 1)),
}
MARKERS = ("", "o", "s", "^", "D", "v")
OTHER = "#0072B2"
"""Colour of a variant that is not listed, and of a family where it is the only one."""

OTHERS = ("#56B4E9", "#E69F00", "#000000", "#882255")
"""Colours of families that are not listed, in their order."""

PARAMETER_NAMES = {
    "crossover_rate": "crossover rate",
    "mutation_rate": "mutation rate",
    "eta_c": r"crossover $\eta_c$",
    "eta_m": r"mutation $\eta_m$",
    "scale_factor": "scale factor F",
    "temperature": "temperature",
    "omega": r"inertia $\omega$",
    "c1": "$c_1$",
    "c2": "$c_2$",
    "sigma": r"step size $\sigma$",
}
"""What the history's learned columns are called, in the order of their rows."""

COUNTED = "gradients"
"""A column of guarded runs that is a count, not a parameter."""

DIMENSION_LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))

MOST_NAMES = 12
"""Most settings that are named below all panels."""

FLOOR = 1e-16
"""What lies below, exact zeros above all, is drawn here on a logarithmic axis, and its tick says so."""

ROUNDING = 1e-12
"""How far below zero rounding can push a function that is nowhere negative."""

ALL = "all functions"
"""The ECDF's column over every function with a known optimum."""

Panel = tuple[str, int, str]
"""Function, dimension and protocol."""


@rc_context(STYLE)
def box(runs: pd.DataFrame) -> Figure:
    """The paper's Figure 1: final best fitness, one box per cell, in the function's units.

    Rows are dimensions (and protocols, where there are several), columns functions. An algorithm
    has the same place in every panel, so one that has not run leaves a gap. Boxes show the
    quartiles, whiskers the furthest runs within 1.5 interquartile ranges, dots the runs beyond.
    An axis is logarithmic where no value is negative and they span more than two decades, or all are
    below `FLOOR`. Runs that are not finite are counted in the panel's corner.

    Raises:
        ValueError: if there are no runs.
    """
    cells = stats.split(runs)
    seats = _seats(cells)
    places = _places(seats.values())
    more = len({stats.lineage(algo)[0] for algo, _ in places}) - 4  # than the paper's families: their names need room
    width = max(2.2, 0.7 + 0.11 * len(places) + 0.5 * max(0, more))
    figure, panels = _grid(cells, width=width, ylabel="final best fitness")
    for panel, ax in panels.items():
        _draw_boxes(ax, {cell: rows for cell, rows in cells.items() if cell[:3] == panel}, seats, places)
    handles: list[Artist] = [
        Patch(color=VARIANT_COLOURS.get(variant, OTHER), label=_variant(variant))
        for variant in _variants(algo for algo, _ in places)
    ]
    _legend(figure, handles)
    return figure


def _seats(cells: Iterable[Cell]) -> dict[Cell, tuple[str, int]]:
    """Where a cell sits: its algorithm, and its number among the settings that this one has in the panel."""
    taken: Counter[tuple[Panel, str]] = Counter()
    seats = {}
    for cell in cells:
        seats[cell] = (cell.algo, taken[cell[:3], cell.algo])
        taken[cell[:3], cell.algo] += 1
    return seats


def _places(seats: Iterable[tuple[str, int]]) -> dict[tuple[str, int], float]:
    """The x of every seat: one apart, families further, and no family narrower than its name."""
    families: dict[str, list[tuple[str, int]]] = {}
    for seat in sorted(set(seats), key=lambda seat: (stats.algorithm_order(seat[0]), seat[1])):
        families.setdefault(stats.lineage(seat[0])[0], []).append(seat)
    x = 1.0
    places: dict[tuple[str, int], float] = {}
    for name, family in families.items():
        room = max(len(family), len(_family(name)) / 2)  # two letters are about as wide as a box
        places |= {seat: x + (room - len(family)) / 2 + number for number, seat in enumerate(family)}
        x += room + 0.7
    return places


def _draw_boxes(
    ax: Axes,
    cells: dict[Cell, pd.DataFrame],
    seats: dict[Cell, tuple[str, int]],
    places: dict[tuple[str, int], float],
) -> None:
    families: dict[str, list[float]] = {}
    for (algo, _), x in places.items():
        families.setdefault(stats.lineage(algo)[0], []).append(x)
    ax.set_xticks([sum(xs) / len(xs) for xs in families.values()], [FAMILY_NAMES.get(name, name) for name in families])
    middle, span = (min(places.values()) + max(places.values())) / 2, max(places.values()) - min(places.values())
    ax.set_xlim(middle - max(2.5, span / 2 + 0.9), middle + max(2.5, span / 2 + 0.9))
    ax.tick_params(axis="x", length=0, labelsize=8)

    values = {cell: stats.final_values(rows) for cell, rows in cells.items()}
    finite = {cell: sample[np.isfinite(sample)] for cell, sample in values.items()}
    drawn = np.concatenate([*finite.values(), []])
    if not drawn.size:
        _say(ax, "no finite run" if cells else "no runs yet")
        return
    logarithmic = _scale_y(ax, drawn)
    for cell, sample in finite.items():
        if sample.size:
            colour = VARIANT_COLOURS.get(stats.lineage(cell.algo)[1], OTHER)
            _draw_box(ax, places[seats[cell]], np.maximum(sample, FLOOR) if logarithmic else sample, colour)
    _count_lost(ax, sum(sample.size for sample in values.values()) - drawn.size)
    names = {places[seats[cell]]: label.partition("@")[2] for cell, label in _labels(cells).items() if "@" in label}
    if names:
        ax.xaxis.remove_overlapping_locs = False  # a family's tick may be at one of its boxes
        ax.set_xticks(list(names), list(names.values()), minor=True, rotation=90, fontsize=5.5)
        ax.tick_params(axis="x", which="minor", length=0, pad=1)
        # Below the longest of them: a character is about 2.5 points high when it is turned.
        ax.tick_params(axis="x", which="major", pad=max(24.0, 4 + 2.5 * max(map(len, names.values()))))


def _draw_box(ax: Axes, x: float, sample: Float[ndarray, " runs"], colour: str) -> None:
    """One box. `Axes.boxplot` would do, but for starting matplotlib's backend in passing."""
    (box,) = boxplot_stats(sample)
    low, q1, median, q3, high = (box[name] for name in ("whislo", "q1", "med", "q3", "whishi"))
    ax.vlines([x, x], [low, q3], [q1, high], colors="black", linewidth=0.6, zorder=1.8)
    ax.hlines([low, high], x - 0.17, x + 0.17, colors="black", linewidth=0.6, zorder=1.8)
    # The edge is wide, so that a box without height still shows its colour.
    ax.add_patch(
        Rectangle((x - 0.33, q1), 0.66, q3 - q1, facecolor=colour, edgecolor=colour, linewidth=1.6, zorder=1.9)
    )
    ax.hlines(median, x - 0.33, x + 0.33, colors="black", linewidth=0.8, zorder=2)
    outliers = box["fliers"]
    ax.plot(np.full(len(outliers), x), outliers, ".", color="0.25", markersize=2.5, markeredgewidth=0)


def _labels(cells: dict[Cell, pd.DataFrame]) -> dict[Cell, str]:
    return stats.labels(pd.concat(cells.values()))


@rc_context(STYLE)
def convergence(history: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Best fitness so far over the evaluations spent, gradients included at what the protocol charges.

    One line per cell: the median over its runs, in a band from the lower to the upper quartile. A
    run that stopped early keeps its last value. Panels and axes are as in `box`.

    Raises:
        ValueError: if there are no runs.
    """
    cells, curves = stats.split(runs), stats.split_history(history, runs)
    names, seats = stats.labels(runs), _seats(cells)
    figure, panels = _grid(cells, width=2.6, ylabel="best fitness so far", xlabel="evaluations")
    looks, handles = _looks(cell.algo for cell in cells)
    for panel, ax in panels.items():
        group = {cell: points for cell, points in curves.items() if cell[:3] == panel}
        _draw_curves(ax, group, names, seats, looks)
    _legend(figure, handles)
    return figure


@rc_context(STYLE)
def figure2(history: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The paper's Figure 2 beside a robust view of the same runs, one row a problem.

    Left the mean, in a band of one standard deviation each way, over a linear axis of evaluations;
    a logarithmic axis cuts the band, which may reach below zero, at the lowest mean. Right the
    median and the quartiles, as in `convergence`.

    Raises:
        ValueError: if there are no runs.
    """
    curves = stats.split_history(history, runs)
    names, seats = stats.labels(runs), _seats(stats.split(runs))
    views = ("mean ± 1 standard deviation", "median and quartiles")
    problems = sorted({cell[:3] for cell in curves}, key=lambda panel: (panel[2], panel[1], panel[0]))
    if not problems:
        raise ValueError("there are no runs to draw")
    figure = Figure(figsize=(6.8, 2.6 * len(problems) + 0.5), layout="constrained")
    axes = figure.subplots(len(problems), 2, squeeze=False)
    looks, handles = _looks(cell.algo for cell in curves)
    several = len({protocol for _, _, protocol in problems}) > 1
    for row, (fn, dim, protocol) in zip(axes, problems, strict=True):
        group = {cell: points for cell, points in curves.items() if cell[:3] == (fn, dim, protocol)}
        for ax, view, mean in zip(row, views, (True, False), strict=True):
            ax.set_title(f"{stats.problem_title(fn, dim, protocol if several else None)}: {view}")
            ax.set_xlabel("evaluations")
            _draw_curves(ax, group, names, seats, looks, mean=mean)
        row[0].set_ylabel("best fitness so far")
    _legend(figure, handles)
    return figure


def _draw_curves(
    ax: Axes,
    curves: dict[Cell, pd.DataFrame],
    names: dict[Cell, str],
    seats: dict[Cell, tuple[str, int]],
    looks: dict[str, dict[str, Any]],
    mean: bool = False,
) -> None:
    """A line and a band for each cell of a panel: medians and quartiles, or means and deviations."""
    if not curves:
        _say(ax, "no runs yet")
        return
    grid = stats.evaluation_grid(np.concatenate([points["evals"] for points in curves.values()]))
    runs_of = {cell: stats.trajectories(points, grid) for cell, points in curves.items()}
    finite = {cell: sample[np.isfinite(sample[:, -1])] for cell, sample in runs_of.items()}
    bands = {cell: _band(sample, mean) for cell, sample in finite.items() if len(sample)}
    _count_lost(ax, sum(map(len, runs_of.values())) - sum(map(len, finite.values())))
    if not bands:
        _say(ax, "no finite run")
        return
    drawn = np.concatenate([(band[0] if mean else band).ravel() for band in bands.values()])
    logarithmic = _scale_y(ax, drawn[np.isfinite(drawn)])
    if mean:
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 500k
    else:
        _scale_x(ax, grid)
    for cell, band in bands.items():
        centre, low, high = np.maximum(band, max(FLOOR, np.nanmin(drawn))) if logarithmic else band
        _draw_line(ax, grid, centre, names[cell], looks[cell.algo], seats[cell][1])
        ax.fill_between(grid, low, high, color=looks[cell.algo]["color"], alpha=0.15, linewidth=0)


def _band(curves: Float[ndarray, "runs points"], mean: bool) -> Float[ndarray, "3 points"]:
    """Centre, lower and upper edge over the runs; NaN until every run has a value."""
    band = np.full((3, curves.shape[1]), np.nan)
    started = np.isfinite(curves).all(axis=0)
    if mean:
        centre = curves[:, started].mean(axis=0)
        spread = curves[:, started].std(axis=0, ddof=1) if len(curves) > 1 else np.zeros_like(centre)
        band[:, started] = centre, centre - spread, centre + spread
    else:
        band[:, started] = np.quantile(curves[:, started], [0.5, 0.25, 0.75], axis=0)
    return band


@rc_context(STYLE)
def learned(history: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The hyper-parameters that a run adapts, over evaluations/dim: a row a parameter, a column a function.

    One line per cell: the median over its runs, in a band from the lower to the upper quartile. The
    colour is the variant, the dash the dimension. A run that stopped early keeps its last value.

    Raises:
        ValueError: if no run's history has such a parameter.
    """
    curves = stats.split_history(history, runs)
    rows: dict[tuple[str, str], dict[Cell, pd.DataFrame]] = {}
    algos = sorted({cell.algo for cell in curves}, key=stats.algorithm_order)
    for family in dict.fromkeys(stats.lineage(algo)[0] for algo in algos):
        for name in parameters(history):
            group = {
                cell: points.assign(evals=points["evals"] / cell.dim, best_f=points[name])
                for cell, points in curves.items()
                if stats.lineage(cell.algo)[0] == family and points[name].notna().any()
            }
            if group:
                rows[family, name] = group
    if not rows:
        raise ValueError("no run here has a hyper-parameter that it adapts")
    cells = list(dict.fromkeys(cell for group in rows.values() for cell in group))
    problems = list(dict.fromkeys((cell.fn, cell.protocol) for cell in cells))
    dims = sorted({cell.dim for cell in cells})
    several, seats = len({protocol for _, protocol in problems}) > 1, _seats(curves)
    figure = Figure(figsize=(max(3.6, 2.6 * len(problems) + 0.3), 1.6 * len(rows) + 0.8), layout="constrained")
    axes = figure.subplots(len(rows), len(problems), squeeze=False)
    for row, ((family, name), group) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(f"{_family(family)}: {PARAMETER_NAMES.get(name, name)}")
        for ax, problem in zip(row, problems, strict=True):
            looks = {}
            for cell in group:
                colour = VARIANT_COLOURS.get(stats.lineage(cell.algo)[1], OTHER)
                dash = DIMENSION_LINES[dims.index(cell.dim) % len(DIMENSION_LINES)]
                looks[cell] = {"color": colour, "linestyle": dash, "linewidth": 1.1}
            _draw_learned(
                ax, {cell: group[cell] for cell in group if (cell.fn, cell.protocol) == problem}, seats, looks
            )
    for ax, (fn, protocol) in zip(axes[0], problems, strict=True):
        title = fn if ":" in fn else fn.capitalize()
        ax.set_title(f"{title} ({protocol})" if several else title)
    for ax in axes[-1]:
        ax.set_xlabel("evaluations / dimension")
    handles: list[Artist] = [
        Line2D([], [], color=VARIANT_COLOURS.get(variant, OTHER), label=_variant(variant))
        for variant in _variants(cell.algo for cell in cells)
    ]
    if len(dims) > 1:
        handles += [
            Line2D(
                [],
                [],
                color="black",
                linewidth=1.1,
                linestyle=DIMENSION_LINES[i % len(DIMENSION_LINES)],
                label=f"{dim}D",
            )
            for i, dim in enumerate(dims)
        ]
    _legend(figure, handles)
    return figure


def parameters(history: pd.DataFrame) -> list[str]:
    """The columns of a history that hold an adapted hyper-parameter, in the order of `PARAMETER_NAMES`."""
    known = list(PARAMETER_NAMES)
    found = [name for name in history.columns if name not in (*HISTORY.names, "protocol", COUNTED)]
    filled = [name for name in found if history[name].notna().any()]
    return sorted(filled, key=lambda name: (known.index(name) if name in known else len(known), name))


def _draw_learned(
    ax: Axes,
    curves: dict[Cell, pd.DataFrame],
    seats: dict[Cell, tuple[str, int]],
    looks: dict[Cell, dict[str, Any]],
) -> None:
    """A line and a band for each cell of a panel."""
    if not curves:
        _say(ax, "no runs yet")
        return
    grid = stats.evaluation_grid(np.concatenate([points["evals"] for points in curves.values()]))
    bands = {cell: _band(stats.trajectories(points, grid), mean=False) for cell, points in curves.items()}
    drawn = np.concatenate([band.ravel() for band in bands.values()])
    if not np.isfinite(drawn).any():
        _say(ax, "no finite run")
        return
    logarithmic = _scale_y(ax, drawn[np.isfinite(drawn)])
    _scale_x(ax, grid)
    for cell, band in bands.items():
        centre, low, high = np.maximum(band, FLOOR) if logarithmic else band
        _draw_line(ax, grid, centre, cell.algo, looks[cell], seats[cell][1])
        ax.fill_between(grid, low, high, color=looks[cell]["color"], alpha=0.15, linewidth=0)


@rc_context(STYLE)
def ecdf(history: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """COCO's runtime distributions (see `stats.ecdf`): share of targets reached over evaluations/dim.

    Rows as in `box`; a column for each function whose optimum is known, and, where these are
    several, one for their average, with the algorithms that ran on all of them with one setting. A
    note names the functions that are left out.

    Raises:
        ValueError: if no function of the runs has a known optimum.
    """
    shares = stats.ecdf(history, runs)
    omitted = [fn for fn in dict.fromkeys(cell.fn for cell in stats.split(runs)) if fn not in set(shares["fn"])]
    if shares.empty:
        raise ValueError(f"no ECDF without a known optimum, and none is known for {', '.join(omitted) or 'no runs'}")
    together = _average(shares)
    shares = pd.concat([shares, together])
    keys = list(dict.fromkeys(zip(shares["fn"], shares["dim"], shares["protocol"], strict=True)))
    figure, panels = _grid(keys, width=2.6, ylabel="share of targets reached", xlabel="evaluations / dimension")
    looks, handles = _looks(shares["algo"])
    groups = {tuple(panel): group for panel, group in shares.groupby(["fn", "dim", "protocol"])}
    for panel, ax in panels.items():
        if panel not in groups:
            _say(ax, "no runs yet")
            continue
        group = groups[panel]
        ax.set_ylim(-0.02, 1.02)
        _scale_x(ax, group["evals_per_dim"].to_numpy())
        for algo, curves in group.groupby("algo", sort=False):
            for number, (label, curve) in enumerate(curves.groupby("label")):
                _draw_line(ax, curve["evals_per_dim"], curve["share"], str(label), looks[str(algo)], number)
    note = f"Left out, since the optimum is unknown: {', '.join(map(str.capitalize, omitted))}" if omitted else None
    _legend(figure, handles, note)
    return figure


def _average(shares: pd.DataFrame) -> pd.DataFrame:
    """The mean over functions, of the algorithms that have all of a dimension's; nothing for a single function."""
    means = []
    for (dim, protocol), group in shares.groupby(["dim", "protocol"]):
        functions = group["fn"].nunique()
        for label, curves in group.groupby("label", sort=False):
            if functions > 1 and curves["fn"].nunique() == functions:
                share = curves.groupby("evals_per_dim", as_index=False)["share"].mean()
                means.append(share.assign(fn=ALL, dim=dim, protocol=protocol, algo=curves["algo"].iloc[0], label=label))
    return pd.concat(means) if means else shares.iloc[:0]


@rc_context(STYLE)
def profile(history: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """Data profiles (see `runtimes.data_profiles`): share of problems solved over simplex gradients.

    Rows are dimensions and protocols, columns accuracies. A note names the algorithms that are left
    out, since they did not run on all problems.

    Raises:
        ValueError: if no algorithm ran on all problems.
    """
    shares, left_out = runtimes.data_profiles(history, runs)
    if shares.empty:
        raise ValueError("no data profile: no algorithm ran on all problems")
    shares = shares.assign(fn="accuracy " + shares["accuracy"].map("{:.0e}".format))
    figure, panels = _grid(
        list(dict.fromkeys(zip(shares["fn"], shares["dim"], shares["protocol"], strict=True))),
        width=2.6,
        ylabel="share of problems solved",
        xlabel="evaluations / (dimension + 1)",
    )
    looks, handles = _looks(shares["algo"])
    groups = {tuple(panel): group for panel, group in shares.groupby(["fn", "dim", "protocol"])}
    for panel, ax in panels.items():
        group = groups[panel]
        ax.set_ylim(-0.02, 1.02)
        _scale_x(ax, group["simplex_gradients"].to_numpy())
        for number, (label, curve) in enumerate(group.groupby("label", sort=False)):
            look = looks[curve["algo"].iloc[0]]
            _draw_line(
                ax, curve["simplex_gradients"], curve["share"], str(label), look, number if "@" in str(label) else 0
            )
    _legend(figure, handles, _wrapped("Left out, not run on all problems", left_out) if left_out else None)
    return figure


@rc_context(STYLE)
def cd(runs: pd.DataFrame) -> Figure:
    """Average ranks and Nemenyi's critical difference (see `stats.rank`): a description, not a test.

    Bars join algorithms whose ranks are closer than the critical difference.

    Raises:
        ValueError: if there is too little to rank.
    """
    from scikit_posthocs import critical_difference_diagram  # seconds, and pyplot with it

    ranks = stats.rank(runs)
    labels = list(ranks.average.index)
    apart = np.abs(np.subtract.outer(ranks.average.to_numpy(), ranks.average.to_numpy())) >= ranks.critical_difference
    different = pd.DataFrame(np.where(apart, 0.0, 1.0), labels, labels)
    figure = Figure(figsize=(6.8, 1.5 + 0.13 * len(labels) + 0.1), layout="constrained")
    ax = figure.subplots()
    colours = {name: FAMILY_COLOURS.get(stats.lineage(name.partition("@")[0])[0], OTHER) for name in labels}
    critical_difference_diagram(
        ranks.average,
        different,
        ax=ax,
        label_fmt_left="{label} ({rank:.2f}) ",
        label_fmt_right=" ({rank:.2f}) {label}",
        color_palette=colours,
        elbow_props={"linewidth": 0.8},
        crossbar_props={"linewidth": 2.5, "color": "0.25"},
    )
    problems = len(ranks.medians)
    ax.set_title(
        f"Average rank of medians over {problems} problems: a description of these, not a test\n"
        f"critical difference {ranks.critical_difference:.2f} (Nemenyi, {stats.ALPHA}); "
        f"Friedman $\\chi^2$ = {ranks.statistic:.1f}",
        fontsize=9,
    )
    if ranks.left_out:
        figure.supxlabel(_wrapped("Left out, incomplete", ranks.left_out), fontsize=7)
    return figure


def _wrapped(what: str, names: Sequence[str]) -> str:
    return textwrap.fill(f"{what}: {', '.join(names)}", 100)


PAPER_WINE = {"adam": (71.90, 15.34), "cmaes_diff": (5.66, 0.39)}
"""What the paper reports of the wine task, mean and standard deviation (paper §3)."""

CASES = ("#0072B2", "#E69F00")
"""Colours of a question's two cases."""


@rc_context(STYLE)
def wine(losses: pd.DataFrame, lines: Mapping[int, tuple[float, ...]], titles: Mapping[int, str]) -> Figure:
    """The wine task: a panel a question, a row an algorithm, a dot a run, a bar its median.

    Args:
        losses: columns `question algo rate series seed loss`, as `wine_report.gather` returns them.
        lines: by question the losses of the constant ȳ and of least squares, and then those on the
            rows held out, if any.
        titles: of the questions.

    Raises:
        ValueError: if there are no runs.
    """
    if losses.empty:
        raise ValueError("there are no runs to draw")
    algos = sorted(set(losses["algo"]), key=stats.algorithm_order, reverse=True)
    figure = Figure(figsize=(7.2, 2.4 + 0.3 * len(algos)), layout="constrained")
    panels = dict(zip(titles, figure.subplots(2, 2, sharey=True).flat, strict=True))
    for question, ax in panels.items():
        ax.set_title(f"{question}. {titles[question]}", pad=18)
        ax.set_yticks(range(len(algos)), algos, family="DejaVu Sans Mono", fontsize=6.5)
        ax.set_ylim(-0.7, len(algos) - 0.3)
        ax.tick_params(axis="y", length=0)
        group = losses[losses["question"] == question]
        if group.empty:
            ax.set_xticks([])
            ax.text(0.5, 0.5, "no runs yet", transform=ax.transAxes, ha="center", va="center", color="0.5")
            continue
        _draw_losses(ax, group, algos)
        _draw_references(ax, lines[question])
        if question == 1:
            for algo, (mean, std) in PAPER_WINE.items():
                if algo in algos:
                    look = {"fmt": "D", "color": "black", "markerfacecolor": "white", "markersize": 3.5}
                    ax.errorbar(mean, algos.index(algo), xerr=std, linewidth=0.8, zorder=3, **look)
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1, 3)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("loss" if question > 2 else "")
    handles: list[Artist] = [
        Line2D([], [], color="black", linestyle="--", linewidth=0.9, label="always the mean: var(y)"),
        Line2D([], [], color="black", linestyle=":", linewidth=0.9, label="least squares"),
        Line2D([], [], color="black", marker="D", markerfacecolor="white", markersize=3.5, label="paper, mean ± std"),
    ]
    _legend(figure, handles)
    return figure


def _draw_losses(ax: Axes, losses: pd.DataFrame, algos: Sequence[str]) -> None:
    """Dots and medians, the cases of a question one above the other."""
    cases = list(dict.fromkeys(losses["series"]))
    for number, case in enumerate(cases):
        colour, shift = CASES[number], (0.18 - 0.36 * number) * (len(cases) > 1)
        for algo, rows in losses[losses["series"] == case].groupby("algo"):
            values = rows["loss"].to_numpy()
            finite = values[np.isfinite(values)]
            y = algos.index(str(algo)) + shift
            ax.plot(finite, np.full(len(finite), y), ".", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
            if len(finite):
                ax.vlines(np.median(finite), y - 0.17, y + 0.17, colors="black", linewidth=1.4, zorder=2.5)
    ax.grid(axis="x")
    ax.legend(
        handles=[Line2D([], [], color=CASES[i], marker=".", linewidth=0, label=case) for i, case in enumerate(cases)],
        fontsize=7.5,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.98),  # between the panel and its title, where it covers nothing
        borderpad=0,
        ncols=len(cases),
    )


def _draw_references(ax: Axes, values: tuple[float, ...]) -> None:
    """The constant and the line; on the rows held out in the second case's colour."""
    for index, value in enumerate(values):
        if math.isfinite(value):
            colour = CASES[1] if index > 1 else "black"
            ax.axvline(value, color=colour, linestyle="--" if index % 2 == 0 else ":", linewidth=0.9, zorder=1.5)


def _grid(
    cells: Iterable[Sequence[Any]], width: float, ylabel: str, xlabel: str = ""
) -> tuple[Figure, dict[Panel, Axes]]:
    """A figure with a titled panel for each function (columns) at each dimension and protocol (rows).

    Args:
        cells: what there is, each starting with function, dimension and protocol.
        width: of a panel, inches.

    Raises:
        ValueError: if there is nothing.
    """
    problems = {tuple(cell[:3]) for cell in cells}
    if not problems:
        raise ValueError("there are no runs to draw")
    functions = sorted({fn for fn, _, _ in problems}, key=lambda fn: (fn == ALL, stats.function_order(fn)))
    rows = sorted({(protocol, dim) for _, dim, protocol in problems})
    several = len({protocol for protocol, _ in rows}) > 1
    figure = Figure(figsize=(max(3.6, width * len(functions) + 0.3), 2.1 * len(rows) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), len(functions), squeeze=False)
    panels = {}
    for row, (protocol, dim) in enumerate(rows):
        axes[row, 0].set_ylabel(ylabel)
        for column, fn in enumerate(functions):
            axes[row, column].set_title(stats.problem_title(fn, dim, protocol if several else None))
            panels[fn, dim, protocol] = axes[row, column]
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    return figure, panels


def _looks(algos: Iterable[str]) -> tuple[dict[str, dict[str, Any]], list[Artist]]:
    """How each algorithm's line is drawn, and the legend for it.

    A family has a colour and a variant a dash; a family alone gives its variants the colours.
    """
    algos = sorted(set(algos), key=stats.algorithm_order)
    families = list(dict.fromkeys(stats.lineage(algo)[0] for algo in algos))
    alone = len(families) == 1
    looks = {}
    for algo in algos:
        family, variant = stats.lineage(algo)
        colour = VARIANT_COLOURS.get(variant, OTHER) if alone else _family_colour(family, families)
        looks[algo] = {"color": colour, "linestyle": VARIANT_LINES.get(variant, "-"), "linewidth": 1.1}
    if alone:
        return looks, [
            Line2D([], [], **look, label=f"{_family(families[0])}, {_variant(stats.lineage(algo)[1])}", gid=algo)
            for algo, look in looks.items()
        ]
    colours = [Line2D([], [], color=_family_colour(name, families), label=_family(name)) for name in families]
    dashes = [
        Line2D([], [], color="black", linewidth=1.1, linestyle=VARIANT_LINES.get(name, "-"), label=_variant(name))
        for name in _variants(algos)
    ]
    return looks, [*colours, *dashes]


def _family_colour(family: str, families: Sequence[str]) -> str:
    unlisted = [name for name in families if name not in FAMILY_COLOURS]
    return FAMILY_COLOURS.get(family) or OTHERS[unlisted.index(family) % len(OTHERS)]


def _variants(algos: Iterable[str]) -> list[str]:
    """The variants among the algorithms, in order."""
    by_variant = sorted(algos, key=lambda algo: stats.algorithm_order(algo)[2:])
    return list(dict.fromkeys(stats.lineage(algo)[1] for algo in by_variant))


def _family(name: str) -> str:
    return FAMILY_NAMES.get(name, name)


def _variant(name: str) -> str:
    return VARIANT_NAMES.get(name, name)


def _legend(figure: Figure, handles: list[Artist], note: str | None = None) -> None:
    """One legend for all panels, below them, in as many columns as the width holds.

    Lines of algorithms that have several settings are named there where their names are the same in all panels and
    few, else in the panels themselves.
    """
    several = [[line for line in ax.lines if "@" in str(line.get_label())] for ax in figure.axes]
    named = {str(line.get_label()): line for lines in several for line in lines}
    if len(named) <= MOST_NAMES and not any(re.search("@[0-9a-f]{6}$", name) for name in named):
        bare = {line.get_label() for ax in figure.axes for line in ax.lines}
        by_setting = {name.partition("@")[0] for name in named} - bare  # in every panel
        handles = [*(handle for handle in handles if handle.get_gid() not in by_setting), *named.values()]
    else:
        for ax, lines in zip(figure.axes, several, strict=True):
            if lines:
                ax.legend(handles=lines, fontsize=6)
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = min(len(handles), max(1, int(figure.get_figwidth() / (0.5 + 0.06 * longest))))
    columns = math.ceil(len(handles) / math.ceil(len(handles) / columns))  # rows of one length
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=note, title_fontsize="medium")


def _scale_y(ax: Axes, values: Float[ndarray, " values"]) -> bool:
    """Make the axis logarithmic if the values ask for it; say whether it is."""
    low, high = float(values.min()), float(values.max())
    logarithmic = low >= -ROUNDING and (high > 100 * max(low, FLOOR) or high <= FLOOR)
    if not logarithmic:
        ax.ticklabel_format(axis="y", useOffset=False)
        return False
    ax.set_yscale("log")
    low, high = max(low, FLOOR), max(high, FLOOR)
    decades = math.log10(high / low)
    if low == FLOOR:
        exponents = np.arange(round(math.log10(FLOOR)), math.ceil(math.log10(high)) + 1)
        ax.yaxis.set_major_locator(FixedLocator(list(10.0 ** exponents[:: math.ceil(len(exponents) / 6)])))
        ax.yaxis.set_major_formatter(FuncFormatter(_decade))
        ax.axhline(FLOOR, color="0.6", linewidth=0.5, linestyle=":", zorder=0)
    else:
        ax.yaxis.set_major_locator(LogLocator(numticks=6))
    if decades > 6 or high == FLOOR:
        ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())
    if high == FLOOR:
        ax.set_ylim(FLOOR / 10, FLOOR * 10)
    return True


def _decade(value: float, _: int | None) -> str:
    """A power of ten; the floor as the bound that it is."""
    return f"{'≤' if value <= FLOOR else ''}$10^{{{round(math.log10(value))}}}$"


def _scale_x(ax: Axes, evaluations: Float[ndarray, " points"]) -> None:
    if evaluations.max() > 100 * evaluations.min():
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(NullLocator())


def _draw_line(ax: Axes, x: Any, y: Any, label: str, look: dict[str, Any], number: int) -> None:
    """A cell's line; `number` counts the settings of its algorithm, which markers tell apart."""
    ax.plot(x, y, label=label, marker=MARKERS[number % len(MARKERS)], markersize=2.5, markevery=20, **look)


def _say(ax: Axes, text: str) -> None:
    """An empty panel with a word in its middle."""
    ax.set_yticks([])
    ax.set_xticks([])
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="0.5")


def _count_lost(ax: Axes, count: int) -> None:
    if count:
        ax.set_title(f"{ax.get_title()}\n{count} {'run' if count == 1 else 'runs'} not finite")


def encode(figure: Figure, format: str, dpi: int = 200) -> bytes:
    """The figure as a file's content, without a date: the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format=format, dpi=dpi, metadata=DATELESS.get(format))
    return buffer.getvalue()


def save(figure: Figure, path_stem: Path, formats: Sequence[str] = ("png", "pdf", "svg")) -> list[Path]:
    """Write `<path_stem>.<format>` for each format: PNG at 200 dpi, PDF with its text as text, SVG as shapes.

    Each is written beside its place and renamed, so that a reader never sees half a figure, and
    carries no date: the same figure gives the same bytes.

    Returns:
        the paths written.

    Raises:
        StoreError: if the file system refuses.
    """
    paths = []
    for name in formats:
        content = encode(figure, name)
        path = path_stem.with_name(f"{path_stem.name}.{name}")
        try:
            write_atomically(path, methodcaller("write", content))
        except OSError as error:
            raise StoreError(f"cannot write '{path}': {error.strerror}") from error
        paths.append(path)
    return paths
