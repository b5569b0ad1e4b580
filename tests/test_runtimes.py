"""What histories say: by hand, against SciPy's peers, and against runs that were really charged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

import evobench
from evobench import runtimes, stats
from evobench.store import RUN_KEY, load_results

CURVES = {0: {100: 50.0, 200: 1e-5, 1000: 1e-9}, 1: {100: 300.0, 1000: 0.5}, 2: {100: 2.0, 400: 1e-2, 1000: 1e-3}}
"""best_f over evals of three runs, by seed."""


def stored(
    algo: str, curves: dict[int, dict[float, float]], known: bool = True, **columns: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and history of one cell with an optimum of 0."""
    cell = {"algo": algo, "fn": "ackley", "dim": 4, "settings_hash": f"{algo:0<12}"[:12]}
    ends = [points[max(points)] for points in curves.values()]
    task = {"protocol": "paper", "shift": 0.0, "budget": 1000, "f_evals": 1000, "g_evals": 0, "gradient_cost": 0.0}
    clock = {"stop_reason": "budget", "wall_s": 6.0, "batch_size": 3}
    runs = pd.DataFrame({**cell, **task, **clock, "seed": list(curves), "best_f": ends, "gap": ends, **columns})
    if not known:
        runs["gap"] = np.nan
    rows = [{**cell, "seed": seed, "evals": float(e), "best_f": f} for seed, c in curves.items() for e, f in c.items()]
    return runs, pd.DataFrame(rows)


# --- fixed targets -----------------------------------------------------------------------------


def test_running_times_by_hand() -> None:
    runs, history = stored("ga", CURVES)
    table = runtimes.to_targets(history.sample(frac=1, random_state=0), runs).set_index("target")
    assert list(table["successes"]) == [3, 2, 1, 1]
    assert list(table["ert"]) == [(100 + 1000 + 100) / 3, (200 + 1000 + 400) / 2, 200 + 1000 + 1000, 1000 + 1000 + 1000]
    assert table.loc[1e-4, "ert_low"] <= table.loc[1e-4, "ert"] <= table.loc[1e-4, "ert_high"] == np.inf
    assert table.loc[1e2, "ert_low"] == 100


def test_no_success_takes_forever() -> None:
    runs, history = stored("ga", {0: {100: 5e3}, 1: {100: 5e3}})
    row = runtimes.to_targets(history, runs).iloc[0]
    assert (row["successes"], row["rate"]) == (0, 0.0)
    assert row["ert"] == row["ert_low"] == row["ert_high"] == np.inf


@pytest.mark.parametrize(("successes", "n"), [(0, 30), (1, 30), (17, 30), (30, 30), (2, 5)])
def test_wilson_is_statsmodels(successes: int, n: int) -> None:
    assert runtimes.wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)


def test_wilson_of_a_published_example() -> None:
    # Newcombe 1998 (Stat. Med. 17:857-872), table I, method 3: 81 of 263.
    assert runtimes.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_an_unknown_optimum_has_no_targets() -> None:
    runs, history = stored("ga", CURVES, known=False)
    assert runtimes.to_targets(history, runs).empty


# --- fixed time --------------------------------------------------------------------------------


def test_seconds_are_a_runs_share_of_its_batch() -> None:
    runs, history = stored("ga", CURVES)  # 6 s for 3 runs of 1000: 2 s each, 0.1 s after 50, 1 s after 500
    table = runtimes.at_seconds(history, runs).set_index("seconds")
    assert list(table.index) == [1.0, 10.0]
    assert (table["whole"] == 2.0).all()
    assert table.loc[1.0, "median"] == np.median([1e-5, 300.0, 1e-2])
    assert table.loc[10.0, "median"] == np.median([1e-9, 0.5, 1e-3])
    alone = runtimes.at_seconds(history, runs.assign(batch_size=1)).set_index("seconds")
    assert alone.loc[1.0, "median"] == np.median([50.0, 300.0, 2.0])  # after 167 evaluations


def test_before_every_run_has_a_value_there_is_none() -> None:
    early, late = stored("ga", CURVES), stored("de", {0: {900: 1.0, 1000: 0.5}}, wall_s=60.0)
    runs, history = (pd.concat(tables) for tables in zip(early, late, strict=True))
    table = runtimes.at_seconds(history, runs)
    assert table[table["algo"] == "de"].set_index("seconds")["median"].isna().to_dict() == {
        1: True,
        10: True,
        100: False,
    }


# --- the price of a gradient -------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 100], ids=["first point: a generation", "first point: the start"])
@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("price", [0.0, 5.0, 0.1])
def test_gradients_along_a_run(start: int, each: int, price: float) -> None:
    generations = np.arange(0 if start else 1, 1400)
    kept = np.unique(np.geomspace(1, len(generations), 60).round().astype(int) - 1)
    evals = start + generations * (101 + price * each)
    taken = runtimes.gradients(evals[kept], total=1399 * each)
    np.testing.assert_array_equal(taken, each * generations[kept])


def test_runs_without_gradients_cost_what_they_cost() -> None:
    runs, history = stored("ga", CURVES)
    np.testing.assert_array_equal(runtimes.recharge(history, runs, 7.0)["evals"], history["evals"])


@pytest.fixture(scope="module")
def charged(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The same runs, computed with gradients at no charge and at 5; every generation is recorded."""
    place = tmp_path_factory.mktemp("charged")
    content = {"algo": ["ga_diff", "ga_plain", "pso_diff", "de_guarded", "cmaes_guarded"], "fn": "sphere", "dim": 3}
    for price in (0.0, 5.0):
        experiment = evobench.make_experiment(
            {**content, "seeds": 3, "budget": 600, "pop": 12, "gradient_cost": price, "dtype": "float64"}
        )
        assert not evobench.run_experiment(experiment, place / f"{price:g}", jobs=1).failures
    return {0.0: place / "0", 5.0: place / "5"}


def test_a_free_run_cut_at_a_price_is_the_run_that_paid_it(charged: dict[float, Path]) -> None:
    free, paid = load_results(charged[0.0]), load_results(charged[5.0])
    cut = runtimes.cut(load_results(charged[0.0], "history"), free, 5.0)
    key = ["algo", "seed"]
    pd.testing.assert_series_equal(
        cut.set_index(key)["best_f"].sort_index(), paid.set_index(key)["best_f"].sort_index(), check_exact=True
    )
    assert not cut["best_f"].equals(free["best_f"]), "a price changed nothing"
    assert (cut["gap"] == cut["best_f"]).all()  # the sphere's optimum is 0


def test_recharging_gives_the_axis_of_the_run_that_paid(charged: dict[float, Path]) -> None:
    free, history = load_results(charged[0.0]), load_results(charged[0.0], "history")
    paid = load_results(charged[5.0], "history")
    mine = runtimes.recharge(history, free, 5.0)
    for (algo, seed), points in paid.groupby(["algo", "seed"]):
        same = mine[(mine["algo"] == algo) & (mine["seed"] == seed)].head(len(points))
        np.testing.assert_allclose(same["evals"], points["evals"], rtol=1e-12)
        np.testing.assert_array_equal(same["best_f"], points["best_f"])


def test_below_the_stored_price_runs_are_read_where_all_of_them_are_known(charged: dict[float, Path]) -> None:
    paid, history = load_results(charged[5.0]), load_results(charged[5.0], "history")
    cut = runtimes.cut(history, paid, 0.0)
    least = paid.loc[paid["g_evals"] > 0, "f_evals"].min()
    assert (cut["spent_at"] == least).all()
    free = load_results(charged[0.0], "history")
    at = free[free["evals"] <= least].groupby([*RUN_KEY[:3], "seed"])["best_f"].last().sort_index()
    np.testing.assert_array_equal(cut.set_index(["algo", "fn", "dim", "seed"])["best_f"].sort_index(), at)


def test_at_the_stored_price_nothing_changes(charged: dict[float, Path]) -> None:
    for price, directory in charged.items():
        runs = load_results(directory)
        table = runtimes.by_price(load_results(directory, "history"), runs, (price,))
        assert set(table["price"]) == {price}
        assert (table["spent_at"] == 600).all()
        pd.testing.assert_frame_equal(table.drop(columns=["price", "spent_at"]), stats.compare(runs), check_exact=True)


def test_a_price_beyond_the_first_generation_leaves_nothing() -> None:
    runs, history = stored("ga_diff", {0: {100: 1.0, 200: 0.5, 300: 0.1}}, g_evals=3, f_evals=300, budget=300)
    assert runtimes.cut(history, runs, 100.0)["best_f"].tolist() == [1.0]
    assert runtimes.cut(history, runs, 1000.0)["best_f"].isna().all()


# --- data profiles -----------------------------------------------------------------------------


def test_data_profiles_by_hand() -> None:
    fast = stored("ga", {0: {50: 100.0, 500: 1.0}, 1: {50: 80.0, 1000: 0.0}})
    slow = stored("de", {0: {50: 60.0, 1000: 5.0}, 1: {50: 100.0, 1000: 50.0}})
    partial = stored("pso", {0: {50: 60.0, 1000: 9.0}})
    runs, history = (pd.concat(tables) for tables in zip(fast, slow, partial, strict=True))
    table, left_out = runtimes.data_profiles(history, runs)
    assert left_out == ["pso (4D)"]
    last = table.groupby(["label", "accuracy"])["share"].last()
    # f_L is 0 (ga, seed 1), f_0 is 100 on both problems: 10 and 0.1 must be reached.
    assert last.to_dict() == {("de", 1e-1): 0.5, ("de", 1e-3): 0.0, ("de", 1e-5): 0.0} | {
        ("ga", 1e-1): 1.0,
        ("ga", 1e-3): 0.5,
        ("ga", 1e-5): 0.5,
    }
    ga = table[(table["label"] == "ga") & (table["accuracy"] == 1e-1)].set_index("simplex_gradients")["share"]
    assert ga[ga.index < 500 / 5].max() == 0
    assert ga[(ga.index >= 500 / 5) & (ga.index < 1000 / 5)].unique() == [0.5]
    assert ga.index[-1] == 1000 / 5


def test_data_profiles_need_no_known_optimum() -> None:
    runs, history = stored("ga", CURVES, known=False)
    table, _ = runtimes.data_profiles(history, runs)
    assert table["share"].max() == 1.0
