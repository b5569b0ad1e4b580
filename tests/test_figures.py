"""Figures: the right panels, boxes, lines and scales, and files that are whole and reproducible."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Refused
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from evobench import figures, stats
from evobench.store import StoreError

SEEDS = 6
PAPER = [family + variant for family in ("ga", "de", "pso", "cmaes") for variant in ("", "_diff")]
FUNCTIONS = ("ackley", "michalewicz", "rosenbrock", "griewank")


def finals(fn: str, algo: str) -> np.ndarray:
    """Values as they occur: Ackley down to 4e-16, Griewank exactly 0, Michalewicz negative, Rosenbrock to 1e10."""
    spread = np.linspace(0, 1, SEEDS)
    solved = algo.startswith("cmaes")
    return {
        "ackley": 4.4e-16 + 0 * spread if solved else 20 + spread,
        "michalewicz": -28 - 10 * spread,
        "rosenbrock": 10 ** (10 * spread) - solved,
        "griewank": 0 * spread if solved else 0.01 + spread,
    }[fn]


def runs_of(algos: list[str], fns: tuple[str, ...] = FUNCTIONS, dims: tuple[int, ...] = (30, 50)) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {
                    **{"algo": algo, "fn": fn, "dim": dim, "protocol": "paper", "settings_hash": f"{algo:0<12}"[:12]},
                    **{"budget": 5000 * dim, "shift": 0.0, "seed": range(SEEDS), "best_f": finals(fn, algo)},
                    "gap": np.nan if fn == "michalewicz" else finals(fn, algo),
                }
            )
            for algo in algos
            for fn in fns
            for dim in dims
        ],
        ignore_index=True,
    )


def history_of(runs: pd.DataFrame, start: float = 1e3) -> pd.DataFrame:
    """Three points a run: the start, half way, and the final value, which CMA-ES reaches early."""
    identity = runs[["algo", "fn", "dim", "seed", "settings_hash"]]
    end = np.where(runs["algo"] == "cmaes", 0.5, 1.0) * runs["budget"]
    points = [(100.0, start), (end / 2, (start + runs["best_f"]) / 2), (end, runs["best_f"])]
    return pd.concat([identity.assign(evals=evals, best_f=best) for evals, best in points], ignore_index=True)


def panels(figure: Figure) -> dict[str, Axes]:
    return {ax.get_title(): ax for ax in figure.axes}


def legend(figure: Figure) -> list[str]:
    (only,) = figure.legends
    return [text.get_text() for text in only.get_texts()]


def words(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def centres(ax: Axes) -> list[float]:
    """The x of each box."""
    return [patch.get_x() + patch.get_width() / 2 for patch in ax.patches]


# --- box ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_box() -> Figure:
    return figures.box(runs_of(PAPER))


def test_box_is_the_papers_grid(paper_box: Figure) -> None:
    assert list(panels(paper_box)) == [
        f"{name}, {dim}D" for dim in (30, 50) for name in ("Ackley", "Michalewicz", "Rosenbrock", "Griewank")
    ]
    rows = paper_box.axes[0].get_gridspec()
    assert (rows.nrows, rows.ncols) == (2, 4)
    for ax in paper_box.axes:
        assert len(ax.patches) == 8
        assert [label.get_text() for label in ax.get_xticklabels()] == ["GA", "DE", "PSO", "CMA-ES"]
    assert legend(paper_box) == ["pymoo", "differentiable"]
    assert [ax.get_ylabel() for ax in paper_box.axes] == ["final best fitness", "", "", ""] * 2


def test_box_puts_plain_beside_diff_in_the_colour_of_the_legend(paper_box: Figure) -> None:
    (names,) = paper_box.legends
    colours = [patch.get_facecolor() for patch in names.get_patches()]
    assert colours == [to_rgba(figures.VARIANT_COLOURS[name]) for name in ("pymoo", "diff")]
    for ax in paper_box.axes:
        boxes = sorted(zip(centres(ax), ax.patches, strict=True), key=lambda box: box[0])
        assert [patch.get_facecolor() for _, patch in boxes] == colours * 4
        gaps = np.diff([x for x, _ in boxes])
        assert gaps == pytest.approx([1, 1.7, 1, 1.7, 1, 2.2, 1])  # the name CMA-ES is wider than its two boxes


@pytest.mark.parametrize(
    ("fn", "scale"), [("Ackley", "log"), ("Michalewicz", "linear"), ("Rosenbrock", "log"), ("Griewank", "log")]
)
def test_axes_are_logarithmic_where_the_values_ask_for_it(paper_box: Figure, fn: str, scale: str) -> None:
    assert panels(paper_box)[f"{fn}, 30D"].get_yscale() == scale


def test_two_decades_are_linear() -> None:
    runs = runs_of(["ga"], ("rosenbrock",), (30,))
    narrow, wide = (runs.assign(best_f=np.geomspace(1, top, SEEDS)) for top in (100, 101))
    assert figures.box(narrow).axes[0].get_yscale() == "linear"
    assert figures.box(wide).axes[0].get_yscale() == "log"


def test_rounding_below_zero_does_not_make_an_axis_linear() -> None:
    runs = runs_of(["ga"], ("griewank",), (30,))
    (ax,) = figures.box(runs.assign(best_f=[-2.2e-16, 1e-9, 1e-6, 1e-3, 0.1, 1.0])).axes
    assert ax.get_yscale() == "log"
    (ax,) = figures.box(runs.assign(best_f=[-1e-3, 1e-9, 1e-6, 1e-3, 0.1, 1.0])).axes
    assert ax.get_yscale() == "linear"


def test_where_all_is_solved_there_is_nothing_but_the_floor() -> None:
    runs = runs_of(["ga"], ("rosenbrock",), (30,))
    figure = figures.box(runs.assign(best_f=np.geomspace(1e-30, 1e-17, SEEDS)))
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["≤$10^{-16}$"]
    assert {patch.get_y() for patch in ax.patches} == {figures.FLOOR}


def test_zeros_are_drawn_at_a_floor_that_says_so(paper_box: Figure) -> None:
    paper_box.draw_without_rendering()
    griewank, ackley = panels(paper_box)["Griewank, 30D"], panels(paper_box)["Ackley, 30D"]
    lowest = min(patch.get_y() for patch in griewank.patches)
    assert lowest == figures.FLOOR
    assert griewank.get_ylim()[0] < figures.FLOOR
    labels = dict(zip(griewank.get_yticks(), (t.get_text() for t in griewank.get_yticklabels()), strict=True))
    assert labels[figures.FLOOR] == "≤$10^{-16}$"
    assert sum("≤" in label for label in labels.values()) == 1
    assert not any("≤" in label.get_text() for label in ackley.get_yticklabels())


def test_the_box_has_the_quartiles() -> None:
    runs = runs_of(["ga"], ("michalewicz",), (30,)).assign(best_f=[-6.0, -5.0, -4.0, -3.0, -2.0, 40.0])
    (ax,) = figures.box(runs).axes
    (box,) = ax.patches
    assert (box.get_y(), box.get_y() + box.get_height()) == (-4.75, -2.25)
    (dots,) = [line for line in ax.lines if line.get_marker() == "."]
    assert list(dots.get_ydata()) == [40.0]


def test_a_missing_cell_leaves_its_place_empty(paper_box: Figure) -> None:
    runs = runs_of(PAPER)
    missing = (runs["algo"] == "de") & (runs["fn"] == "ackley") & (runs["dim"] == 30)
    axes = panels(figures.box(runs[~missing]))
    full = centres(axes["Ackley, 50D"])
    assert centres(axes["Ackley, 30D"]) == [x for i, x in enumerate(full) if i != 2]
    assert axes["Ackley, 30D"].get_xlim() == axes["Ackley, 50D"].get_xlim()


def test_a_panel_without_runs_says_so() -> None:
    runs = runs_of(["ga", "ga_diff"], ("ackley", "griewank"))
    figure = figures.box(runs[~((runs["fn"] == "griewank") & (runs["dim"] == 50))])
    empty = panels(figure)["Griewank, 50D"]
    assert words(empty) == ["no runs yet"]
    assert not empty.patches
    assert words(panels(figure)["Griewank, 30D"]) == []


def test_a_single_cell() -> None:
    figure = figures.box(runs_of(["cmaes_diff"], ("michalewicz",), (500,)))
    assert list(panels(figure)) == ["Michalewicz, 500D"]
    assert len(figure.axes[0].patches) == 1
    assert legend(figure) == ["differentiable"]


def test_sixteen_algorithms_and_more_keep_their_order() -> None:
    variants = ["", "_released", "_diff", "_plain", "_guarded"]
    algos = [family + variant for family in ("ga", "de", "pso", "cmaes") for variant in variants]
    figure = figures.box(runs_of([*reversed(algos), "cmaes_tpa"], ("ackley",), (30,)))
    (ax,) = figure.axes
    assert len(ax.patches) == 21
    expected = [*["pymoo", "released", "diff", "plain", "guarded"] * 4, "tpa"]
    by_place = [patch for _, patch in sorted(zip(centres(ax), ax.patches, strict=True), key=lambda box: box[0])]
    assert [patch.get_facecolor() for patch in by_place] == [to_rgba(figures.VARIANT_COLOURS[v]) for v in expected]
    assert legend(figure) == [figures.VARIANT_NAMES[name] for name in dict.fromkeys(expected)]


def test_runs_that_are_not_finite_are_counted_not_drawn() -> None:
    runs = runs_of(["ga", "ga_diff"], ("michalewicz",), (30,))
    runs.loc[[0, 1], "best_f"] = [np.nan, np.inf]
    (ax,) = figures.box(runs).axes
    assert ax.get_title() == "Michalewicz, 30D\n2 runs not finite"
    assert len(ax.patches) == 2
    (ax,) = figures.box(runs.assign(best_f=np.inf)).axes
    assert words(ax) == ["no finite run"]


def test_several_settings_have_places_and_names_of_their_own() -> None:
    runs = runs_of(["ga", "ga_diff"], ("ackley", "griewank"), (30,))
    again = runs[(runs["algo"] == "ga_diff") & (runs["fn"] == "ackley")].assign(settings_hash="abcdef123456")
    axes = panels(figures.box(pd.concat([runs, again])))
    assert len(set(centres(axes["Ackley, 30D"]))) == 3
    assert [label.get_text() for label in axes["Ackley, 30D"].get_xticklabels(minor=True)] == ["abcdef", "ga_dif"]
    assert len(axes["Griewank, 30D"].patches) == 2
    assert axes["Griewank, 30D"].get_xticklabels(minor=True) == []


def test_protocols_have_rows_of_their_own() -> None:
    paper = runs_of(["ga"], ("ackley",), (30,))
    assert list(panels(figures.box(pd.concat([paper, paper.assign(protocol="fair")])))) == [
        "Ackley, 30D (fair)",
        "Ackley, 30D (paper)",
    ]


@pytest.mark.parametrize("draw", [figures.box, lambda runs: figures.convergence(history_of(runs), runs)])
def test_nothing_to_draw_is_refused(draw, refused: Refused) -> None:  # type: ignore[no-untyped-def]
    with refused("no runs"):
        draw(runs_of(["ga"]).iloc[:0])


# --- convergence -------------------------------------------------------------------------------


def test_convergence_has_a_line_and_a_band_per_cell() -> None:
    runs = runs_of(PAPER, ("ackley", "michalewicz"), (30,))
    figure = figures.convergence(history_of(runs), runs)
    assert list(panels(figure)) == ["Ackley, 30D", "Michalewicz, 30D"]
    ackley, michalewicz = figure.axes
    for ax in figure.axes:
        assert len(ax.collections) == 8
        curves = [line for line in ax.lines if len(line.get_xdata()) > 2]
        assert len(curves) == 8
        assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 8
        assert {(line.get_xdata()[0], line.get_xdata()[-1]) for line in curves} == {(100.0, 150_000.0)}
    assert (ackley.get_yscale(), michalewicz.get_yscale()) == ("log", "linear")
    assert (ackley.get_xscale(), michalewicz.get_xscale()) == ("log", "log")
    assert legend(figure) == ["GA", "DE", "PSO", "CMA-ES", "pymoo", "differentiable"]


def test_convergence_is_the_median_and_carries_the_last_value_forward() -> None:
    runs = runs_of(["cmaes", "cmaes_diff"], ("michalewicz",), (30,))
    (ax,) = figures.convergence(history_of(runs, start=0.0), runs).axes
    early, late = ax.lines
    assert early.get_ydata()[0] == late.get_ydata()[0] == 0
    assert early.get_ydata()[-1] == late.get_ydata()[-1] == -33.0
    at_end = early.get_xdata() >= 75_000
    assert 5 < at_end.sum() < len(at_end)
    assert (early.get_ydata()[at_end] == -33.0).all()
    assert (late.get_ydata()[:-1] > -33.0).all()
    bottom, top = (edge(ax.collections[0].get_paths()[0].vertices[:, 1]) for edge in (np.min, np.max))
    assert (bottom, top) == (-35.5, 0.0)


def test_figure_2_shows_means_beside_medians() -> None:
    runs = runs_of(["cmaes", "cmaes_diff"], ("michalewicz",), (500,))
    runs.loc[runs["algo"] == "cmaes", "best_f"] = [-20.0, -20.0, -20.0, -20.0, -20.0, -80.0]
    figure = figures.figure2(history_of(runs, start=0.0), runs)
    ax, robust = figure.axes
    assert ax.get_title().endswith("mean ± 1 standard deviation")
    assert robust.get_title().endswith("median and quartiles")
    assert robust.lines[0].get_ydata()[-1] == -20
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")
    classical, _ = ax.lines
    assert classical.get_ydata()[-1] == -30
    band = ax.collections[0].get_paths()[0].vertices
    last = band[band[:, 0] == band[:, 0].max(), 1]
    assert (last.min(), last.max()) == pytest.approx((-30 - np.sqrt(600), -30 + np.sqrt(600)))
    assert legend(figure) == ["CMA-ES, pymoo", "CMA-ES, differentiable"]
    assert classical.get_color() == figures.VARIANT_COLOURS["pymoo"]


def test_a_mean_band_that_reaches_zero_is_cut_on_a_logarithmic_axis() -> None:
    runs = runs_of(["ga"], ("rosenbrock",), (30,)).assign(best_f=[1.0, 1.0, 1.0, 1.0, 1.0, 100.0])
    ax, _ = figures.figure2(history_of(runs, start=1e6), runs).axes
    assert ax.get_yscale() == "log"
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(17.5)


def test_convergence_draws_zeros_at_the_floor() -> None:
    runs = runs_of(["cmaes", "ga"], ("griewank",), (30,))
    (ax,) = figures.convergence(history_of(runs), runs).axes
    assert min(np.min(line.get_ydata()) for line in ax.lines[:2]) <= figures.FLOOR
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() >= 0


def test_convergence_starts_where_every_run_has_a_value() -> None:
    runs = runs_of(["ga"], ("michalewicz",), (30,))
    history = history_of(runs, start=0.0)
    history.loc[(history["seed"] == 3) & (history["evals"] == 100), "best_f"] = np.inf
    (ax,) = figures.convergence(history, runs).axes
    (line,) = ax.lines
    known = np.isfinite(line.get_ydata())
    assert line.get_xdata()[known].min() >= 75_000
    assert known[-1]
    assert ax.get_title() == "Michalewicz, 30D"


def test_convergence_counts_runs_that_are_never_finite() -> None:
    runs = runs_of(["ga"], ("michalewicz",), (30,))
    history = history_of(runs)
    history.loc[history["seed"] == 3, "best_f"] = np.inf
    (ax,) = figures.convergence(history, runs).axes
    assert ax.get_title() == "Michalewicz, 30D\n1 run not finite"
    assert np.isfinite(ax.lines[0].get_ydata()).all()


def test_convergence_of_runs_without_a_history() -> None:
    runs = runs_of(["ga"], ("ackley", "griewank"), (30,))
    history = history_of(runs)
    axes = panels(figures.convergence(history[history["fn"] == "ackley"], runs))
    assert words(axes["Griewank, 30D"]) == ["no runs yet"]
    assert len(axes["Ackley, 30D"].lines) == 1


def test_lines_of_several_settings_are_told_apart() -> None:
    runs = runs_of(["ga_diff"], ("michalewicz",), (30,))
    both = pd.concat([runs, runs.assign(settings_hash="abcdef123456")])
    (ax,) = figures.convergence(history_of(both), both).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ga_diff@abcdef", "ga_diff@ga_dif"]
    assert len({line.get_marker() for line in ax.lines}) == 2


def test_an_algorithm_of_several_settings_is_named_by_them_alone() -> None:
    runs = runs_of(["cmaes", "cmaes_diff"], ("michalewicz",), (500,))
    other = runs[runs["algo"] == "cmaes"].assign(init="centre", settings_hash="abcdef123456")
    both = pd.concat([runs.assign(init="uniform"), other])
    assert legend(figures.figure2(history_of(both), both)) == [
        "CMA-ES, differentiable",
        "cmaes@centre",
        "cmaes@uniform",
    ]
    elsewhere = runs_of(["cmaes"], ("ackley",), (500,)).assign(init="uniform")
    wider = pd.concat([both, elsewhere])
    assert legend(figures.convergence(history_of(wider), wider))[0] == "CMA-ES, pymoo"


# --- ecdf --------------------------------------------------------------------------------------


def test_ecdf_has_a_column_for_each_known_optimum_and_one_for_all() -> None:
    runs = runs_of(PAPER)
    figure = figures.ecdf(history_of(runs), runs)
    assert list(panels(figure)) == [
        f"{name}, {dim}D" for dim in (30, 50) for name in ("Ackley", "Rosenbrock", "Griewank", "All functions")
    ]
    (note,) = figure.legends
    assert note.get_title().get_text() == "Left out, since the optimum is unknown: Michalewicz"
    for ax in figure.axes:
        assert len(ax.lines) == 8
        for line in ax.lines:
            assert (np.diff(line.get_ydata()) >= 0).all()
            assert 0 <= line.get_ydata().min() <= line.get_ydata().max() <= 1
    ends = {title: [line.get_ydata()[-1] for line in ax.lines] for title, ax in panels(figure).items()}
    assert ends["Ackley, 30D"][-1] == 1
    average = np.mean([ends[f"{name}, 30D"] for name in ("Ackley", "Rosenbrock", "Griewank")], axis=0)
    np.testing.assert_allclose(ends["All functions, 30D"], average)


def test_ecdf_averages_only_what_ran_on_all_functions() -> None:
    runs = runs_of(["ga", "ga_diff"], ("ackley", "griewank"), (30,))
    runs = runs[~((runs["algo"] == "ga_diff") & (runs["fn"] == "griewank"))]
    axes = panels(figures.ecdf(history_of(runs), runs))
    assert {title: len(ax.lines) for title, ax in axes.items()} == {
        "Ackley, 30D": 2,
        "Griewank, 30D": 1,
        "All functions, 30D": 1,
    }


def test_ecdf_of_one_function_has_one_panel() -> None:
    runs = runs_of(["ga"], ("ackley",), (30,))
    assert list(panels(figures.ecdf(history_of(runs), runs))) == ["Ackley, 30D"]


def test_ecdf_without_a_known_optimum_is_refused(refused: Refused) -> None:
    runs = runs_of(["ga"], ("michalewicz",))
    with refused("michalewicz", "optimum"):
        figures.ecdf(history_of(runs), runs)


# --- files -------------------------------------------------------------------------------------


def test_save_writes_whole_files_that_are_the_same_every_time(tmp_path: Path) -> None:
    runs = runs_of(["ga", "ga_diff"], ("ackley",), (30,))
    written = [figures.save(figures.box(runs), tmp_path / name / "fig.1") for name in ("a", "b")]
    assert [path.name for path in written[0]] == ["fig.1.png", "fig.1.pdf", "fig.1.svg"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["fig.1.pdf", "fig.1.png", "fig.1.svg"]
    png, pdf, svg = (path.read_bytes() for path in written[0])
    assert b"<dc:date>" not in svg
    assert png.startswith(b"\x89PNG")
    assert png.endswith(b"IEND\xaeB`\x82")
    assert pdf.startswith(b"%PDF")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert b"/CreationDate" not in pdf
    assert b"/Type3" not in pdf
    assert b"/CIDFontType2" in pdf
    assert [path.read_bytes() for path in written[1]] == [png, pdf, svg]


def test_save_in_one_format_at_200_dpi(tmp_path: Path) -> None:
    figure = figures.box(runs_of(["ga"], ("ackley",), (30,)))
    (path,) = figures.save(figure, tmp_path / "box", ("png",))
    width, height = (int.from_bytes(path.read_bytes()[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == tuple((200 * figure.get_size_inches()).astype(int))
    assert list(tmp_path.iterdir()) == [path]


def test_save_where_nothing_can_be_written(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("")
    with refused("cannot write", "box.png", error=StoreError):
        figures.save(figures.box(runs_of(["ga"], ("ackley",), (30,))), tmp_path / "file" / "box")


def test_text_does_not_overlap(paper_box: Figure) -> None:
    """Titles and tick labels of neighbouring panels, measured as drawn."""
    paper_box.draw_without_rendering()
    texts = []
    for ax in paper_box.axes:
        (bottom, top), ticks = ax.get_ylim(), zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
        shown = [label for value, label in ticks if bottom <= value <= top]
        texts += [text.get_window_extent() for text in [ax.title, *ax.get_xticklabels(), *shown]]
    assert len(texts) > 70
    overlapping = [(a, b) for i, a in enumerate(texts) for b in texts[:i] if a.overlaps(b)]
    assert not overlapping


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    runs_of(["ga", "ga_diff"], ("griewank",), (30,)).to_pickle(tmp_path / "runs")
    program = """
import pathlib, sys
import matplotlib, pandas
here = pathlib.Path(sys.argv[1])
before = matplotlib.rcParams.copy()
from evobench import figures, stats
figures.save(figures.box(pandas.read_pickle(here / "runs")), here / "box")
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
assert all(matplotlib.rcParams[key] == before[key] for key in figures.STYLE)
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


@pytest.mark.parametrize(("count", "below"), [(2, True), (figures.MOST_NAMES + 1, False)])
def test_settings_are_named_once_below_all_panels_while_they_are_few(count: int, below: bool) -> None:
    runs = pd.concat(
        runs_of(["ga"], ("ackley", "griewank"), (30,)).assign(
            settings=f'{{"lr": {lr}}}', settings_hash=f"{lr:012}", best_f=np.geomspace(1, 2, 2 * SEEDS)
        )
        for lr in range(count)
    )
    figure = figures.convergence(history_of(runs), runs)
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert sum("@lr=" in name for name in names) == (count if below else 0)
    for ax in figure.axes:
        assert (ax.get_legend() is None) == below


def test_figure_2_has_a_row_for_each_problem() -> None:
    runs = runs_of(["cmaes"], ("michalewicz", "ackley"), (500, 30))
    figure = figures.figure2(history_of(runs), runs)
    assert len(figure.axes) == 8
    assert all(ax.lines for ax in figure.axes)
    with pytest.raises(ValueError, match="there are no runs to draw"):
        figures.figure2(history_of(runs).iloc[:0], runs.iloc[:0])


# --- data profiles and ranks -------------------------------------------------------------------


def test_profile_has_a_column_for_each_accuracy_and_names_what_is_left_out() -> None:
    runs = runs_of(["ga", "ga_diff", "pso"], ("ackley", "griewank"))
    runs = runs[~((runs["algo"] == "pso") & (runs["fn"] == "griewank"))]
    figure = figures.profile(history_of(runs), runs)
    assert list(panels(figure)) == [f"Accuracy 1e-0{n}, {dim}D" for dim in (30, 50) for n in (1, 3, 5)]
    for ax in figure.axes:
        assert [line.get_label() for line in ax.lines] == ["ga", "ga_diff"]
        for line in ax.lines:
            assert (np.diff(line.get_ydata()) >= 0).all()
    (legends,) = figure.legends
    assert legends.get_title().get_text() == "Left out, not run on all problems: pso (30D), pso (50D)"
    with pytest.raises(ValueError, match="no data profile"):
        figures.profile(history_of(runs), runs[(runs["fn"] == "ackley") == (runs["algo"] == "pso")])


def test_critical_differences_join_what_is_not_apart() -> None:
    runs = runs_of(PAPER)
    figure = figures.cd(runs)
    (ax,) = figure.axes
    assert "8 problems: a description of these, not a test" in ax.get_title()
    assert {text.split(" ")[0] for text in words(ax) if text.startswith(("cmaes", "ga"))} <= set(PAPER)
    ranks = stats.rank(runs)
    bars = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 2.5]
    assert bars
    for bar in bars:
        assert np.ptp(np.asarray(bar, dtype=float)) < ranks.critical_difference


def test_critical_differences_name_what_is_left_out() -> None:
    runs = runs_of(PAPER)
    figure = figures.cd(runs[~((runs["algo"] == "de") & (runs["seed"] == 0))])
    assert figure.get_supxlabel() == "Left out, incomplete: de"
