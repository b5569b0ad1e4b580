"""Centre bias: the experiment it asks for, its numbers against independent ones, its verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests
from typer.testing import CliRunner

from evobench.bias import CENTRED, SHIFT, assess, bias_experiment
from evobench.cli import app
from evobench.problems import FUNCTIONS, make_problem
from evobench.runner import run_experiment
from evobench.store import load_results

SMALL = {"dim": 2, "seeds": 6, "budget": 300}


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """An experiment with both starts, and its runs."""
    experiment = bias_experiment("cmaes_plain", **SMALL, init="uniform")
    directory = tmp_path_factory.mktemp("bias")
    run_experiment(experiment, directory, jobs=1)
    return experiment, load_results(directory)


def altered(experiment, runs, centred, shifted):
    """The same rows with other gaps: `centred` and `shifted` take a generator and a count."""
    runs, rng = runs.copy(), np.random.default_rng(3)
    for moved, draw in ((False, centred), (True, shifted)):
        where = (runs["shift"] > 0) == moved
        runs.loc[where, "gap"] = draw(rng, where.sum())
    runs["best_f"] = runs["gap"]
    return assess(experiment, runs)


def test_the_optima_are_the_centres_of_their_boxes():
    for fn in CENTRED:
        problem = make_problem(fn, 3)
        np.testing.assert_array_equal(problem.x_opt, (problem.lower + problem.upper) / 2)


def test_the_experiment():
    experiment = bias_experiment("cmaes_diff,pso", init="uniform")
    cells = experiment.cells()
    assert len(cells) == len({cell.key for cell in cells}) == (2 + 1) * len(CENTRED) * 2
    assert {cell.dtype for cell in cells} == {"float64"}
    assert {cell.init for cell in cells if cell.algo == "cmaes_diff"} == {"centre", "uniform"}
    assert {cell.init for cell in cells if cell.algo == "pso"} == {"uniform"}
    for cell in cells:
        assert cell.shift in (0, SHIFT * FUNCTIONS[cell.fn].upper)
        assert cell.budget == 150_000


def test_numbers_match_independent_ones(computed):
    experiment, runs = computed
    found, verdicts = assess(experiment, runs)
    assert len(found) == 2 * len(CENTRED)
    assert verdicts["start"].tolist() == ["centre", "uniform"]
    for row in found.to_dict("records"):
        mine = runs[(runs["fn"] == row["fn"]) & (runs["init"] == row["start"])]
        a, b = (np.maximum(mine.loc[mine["shift"] == s, "gap"], 1e-8) for s in sorted(mine["shift"].unique()))
        assert (row["n_centred"], row["n_shifted"]) == (len(a), len(b)) == (6, 6)
        assert row["ratio"] == pytest.approx(np.median(b) / np.median(a))
        wins = [(x < y) + (x == y) / 2 for x in a for y in b]
        assert row["a12"] == pytest.approx(np.mean(wins))
        assert row["p"] == scipy.stats.mannwhitneyu(a, b).pvalue
        theirs = scipy.stats.bootstrap(
            (a, b),
            lambda a, b, axis: np.median(b, axis) / np.median(a, axis),
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert np.log([row["ratio_low"], row["ratio_high"]]) == pytest.approx(
            np.log(theirs), abs=0.5
        )  # a median of six has few values
    for verdict in verdicts.to_dict("records"):
        mine = found[found["start"] == verdict["start"]]
        assert verdict["ratio"] == pytest.approx(scipy.stats.gmean(mine["ratio"]))
        assert verdict["ratio_low"] < verdict["ratio"] < verdict["ratio_high"]
        np.testing.assert_allclose(mine["p_holm"], multipletests(mine["p"], method="holm")[1])
        assert verdict["profits"] == list(mine.loc[(mine["p_holm"] < 0.05) & (mine["a12"] > 0.5), "fn"])


def test_a_start_at_the_optimum_is_seen(computed):
    _, verdicts = assess(*computed)
    centre, uniform = verdicts.to_dict("records")
    assert "ackley" in centre["profits"]
    assert "ackley" not in uniform["profits"]
    assert centre["ratio"] > 2 * uniform["ratio"]


def test_verdicts(computed):
    def near(size):
        return lambda rng, n: size * rng.uniform(0.9, 1.1, n)

    _, verdicts = altered(*computed, near(1e-12), near(1.0))  # solved counts as 1e-8
    assert verdicts["ratio"].tolist() == pytest.approx([1e8, 1e8], rel=0.1)
    assert verdicts["biased"].all()
    assert [len(names) for names in verdicts["profits"]] == [len(CENTRED)] * 2
    _, verdicts = altered(*computed, near(1.0), near(5.0))
    assert not verdicts["biased"].any(), "five times is less than Kudela's bound"
    assert [len(names) for names in verdicts["profits"]] == [len(CENTRED)] * 2, "but lower in every run"
    for centred, shifted in ((near(1.0), near(1.0)), (near(5.0), near(1.0)), (near(1e-9), near(1e-10))):
        _, verdicts = altered(*computed, centred, shifted)
        assert not verdicts["biased"].any()
        assert not any(verdicts["profits"])


def test_one_failure_is_no_bias(computed):
    """Beside solved runs a single failure would make a ratio of means of 1e7."""
    experiment, runs = computed
    runs = runs.assign(gap=1e-12, best_f=1e-12)
    runs.loc[(runs["shift"] > 0) & (runs["seed"] == 3), ["best_f", "gap"]] = 1.0
    found, verdicts = assess(experiment, runs)
    assert verdicts["ratio"].tolist() == [1, 1]
    assert not found["profits"].any()
    assert not verdicts["biased"].any()


def test_a_run_without_a_finite_value_counts_as_the_worst(computed):
    experiment, runs = computed
    runs = runs.copy()
    runs.loc[(runs["shift"] > 0) & (runs["seed"] < 4), ["best_f", "gap"]] = np.inf
    found, _ = assess(experiment, runs)
    assert np.isfinite(found["ratio"]).all()
    assert (found["ratio"] > 1e200).all()


def test_other_runs_in_the_directory_do_not_count(computed):
    experiment, runs = computed
    other = runs.assign(settings_hash="000000000000", best_f=7.0, gap=7.0)
    later = runs.assign(seed=runs["seed"] + 100, best_f=7.0, gap=7.0)
    mixed = assess(experiment, pd.concat([runs, other, later]))
    for left, right in zip(assess(experiment, runs), mixed, strict=True):
        assert left.to_dict("records") == right.to_dict("records")


def call(line: str):
    return CliRunner().invoke(app, line.split(), prog_name="evobench", catch_exceptions=False)


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    line = "bias --algo pso_plain --dim 2 --seeds 3 --budget 300 --jobs 1 --set pso_plain.omega=0.6"
    first = call(line)
    assert first.exit_code == 0, first.output
    assert "0 stored, 36 to run" in first.stdout
    assert "pso_plain, 2D, start: uniform (its own)" in first.stdout
    for fn in CENTRED:
        assert fn in first.stdout
    assert "geometric mean of the ratios" in first.stdout
    assert max(map(len, first.stdout.splitlines())) <= 100
    again = call(line)
    assert "36 stored, 0 to run" in again.stdout
    assert again.stdout.split("\n\n", 1)[1] == first.stdout.split("\n\n", 1)[1]
    settings = load_results(tmp_path / "results" / "bias")["settings"]
    assert settings.str.contains('"omega": 0.6').all()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--algo nope", "unknown algorithm 'nope'"),
        ("--algo ga --jobs 0", "bad --jobs '0'"),
        ("--algo ga --budget 3", "budget 3"),
        ("--algo ga --dim x", "'x'"),
        ("--algo ga --init corner", "'corner'"),
        ("--algo ga --set pso.omega=1", "settings are given for 'pso'"),
        ("", "--algo"),
    ],
)
def test_bad_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, says: str):
    monkeypatch.chdir(tmp_path)
    result = call(f"bias {flags}")
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
