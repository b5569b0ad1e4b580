"""Statistics: against brute force, SciPy, statsmodels and published numbers, and what must not change them."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from conftest import Refused
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, friedmanchisquare, mannwhitneyu, wilcoxon
from statsmodels.stats.multitest import multipletests

from evobench import stats
from evobench.algorithms import ALGORITHMS
from evobench.problems import PAPER_FUNCTIONS

PAIRS = {
    f"{family}_{candidate} vs {family}{reference}"
    for family in ("ga", "de", "pso", "cmaes")
    for candidate, reference in [
        ("diff", ""),
        ("released", ""),
        ("guarded", ""),
        ("diff", "_plain"),
        ("guarded", "_plain"),
        ("diff", "_released"),
    ]
} | {"cmaes_diff vs cmaes_tpa", "cmaes_guarded vs cmaes_tpa"}

values = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 1.0, np.inf])
samples = st.lists(values, min_size=1, max_size=12).map(np.array)


def runs_of(algo: str, best_f: list[float], fn: str = "ackley", known: bool = True, **columns: object) -> pd.DataFrame:
    """The runs of one cell, its gaps as the store has them for an optimum of 0 (or an unknown one)."""
    best = np.array(best_f, dtype=float)
    cell = {"fn": fn, "dim": 30, "protocol": "paper", "algo": algo, "settings_hash": f"{algo:0<12}"[:12]}
    task = {"budget": 150_000, "shift": 0.0}
    rows = {"seed": np.arange(len(best)), "best_f": best, "gap": best if known else np.nan}
    return pd.DataFrame({**cell, **task, **rows, **columns})


def history_of(runs: pd.DataFrame, points: dict[float, float]) -> pd.DataFrame:
    """The same history, best_f by evals, for each of the runs."""
    identity = runs[["algo", "fn", "dim", "seed", "settings_hash"]]
    return pd.concat([identity.assign(evals=evals, best_f=best) for evals, best in points.items()])


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    """Every algorithm on two functions, 10 runs each, of overlapping quality."""
    rng = np.random.default_rng(0)
    algos = [a + v for a in ("ga", "de", "pso", "cmaes") for v in ("", "_released", "_diff", "_plain", "_guarded")]
    return pd.concat(
        [
            runs_of(algo, list(rng.normal(50 + 0.1 * i, 1, 10)), fn, known=fn == "ackley")
            for i, (algo, fn) in enumerate(itertools.product([*algos, "cmaes_tpa"], ["ackley", "michalewicz"]))
        ],
        ignore_index=True,
    )


@pytest.fixture(scope="module")
def compared(everything: pd.DataFrame) -> pd.DataFrame:
    return stats.compare(everything)


# --- A12 ---------------------------------------------------------------------------------------


def brute_force(first: np.ndarray, second: np.ndarray) -> float:
    wins = sum(1.0 if a < b else 0.5 if a == b else 0.0 for a in first for b in second)
    return wins / (len(first) * len(second))


@given(samples, samples)
def test_a12_is_the_share_of_pairs_won(first: np.ndarray, second: np.ndarray) -> None:
    effect = stats.a12(first, second)
    assert effect == pytest.approx(brute_force(first, second), abs=1e-12)
    assert 0 <= effect <= 1
    assert effect + stats.a12(second, first) == pytest.approx(1, abs=1e-12)


@given(samples, samples)
def test_a12_sees_only_the_order(first: np.ndarray, second: np.ndarray) -> None:
    _, ranks = np.unique(np.concatenate([first, second]), return_inverse=True)
    transformed = np.exp(0.1 * ranks)
    assert stats.a12(transformed[: len(first)], transformed[len(first) :]) == stats.a12(first, second)


def test_a12_of_published_samples() -> None:
    # The textbook's race of six tortoises and six hares, in the order of their arrival: U is 11 for
    # the tortoises and 25 for the hares, of 36 pairs.
    order = "THHHHHTTTTTH"
    tortoises, hares = (np.array([i for i, animal in enumerate(order) if animal == name]) for name in "TH")
    assert stats.a12(tortoises, hares) == pytest.approx(11 / 36)
    assert stats.a12(hares, tortoises) == pytest.approx(25 / 36)
    # Identical samples are stochastically equal (Vargha and Delaney 2000).
    assert stats.a12(hares, hares) == 0.5


@given(samples, samples)
def test_a12_is_mann_whitneys_u(first: np.ndarray, second: np.ndarray) -> None:
    u = mannwhitneyu(second, first).statistic  # pairs in which the second is greater
    assert stats.a12(first, second) * len(first) * len(second) == pytest.approx(u, abs=1e-9)


@pytest.mark.parametrize(
    ("effect", "label"),
    [(0.5, "negligible"), (0.55, "negligible"), (0.56, "small"), (0.63, "small"), (0.64, "medium"), (0.71, "large")],
)
def test_magnitudes_are_vargha_and_delaneys(effect: float, label: str) -> None:
    assert stats.magnitude(effect) == label
    assert stats.magnitude(1 - effect) == label


# --- its interval ------------------------------------------------------------------------------


@settings(max_examples=25)
@given(samples, samples, st.randoms(use_true_random=False))
def test_interval_holds_the_point_and_ignores_the_order_of_runs(first: np.ndarray, second: np.ndarray, random) -> None:  # type: ignore[no-untyped-def]
    low, high = stats.a12_interval(first, second)
    assert 0 <= low <= high <= 1
    if len(first) >= 5 and len(second) >= 5:
        assert low - 1e-12 <= stats.a12(first, second) <= high + 1e-12
    shuffled = np.array(random.sample(list(first), len(first)))
    assert stats.a12_interval(shuffled, second) == (low, high)


def test_interval_agrees_with_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 30), rng.normal(0.5, 1, 25)
    plain = [stats.a12(rng.choice(first, 30), rng.choice(second, 25)) for _ in range(4000)]
    assert stats.a12_interval(first, second) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.012)


def test_interval_covers_the_truth_in_about_95_percent() -> None:
    rng = np.random.default_rng(2)
    truth = 0.6381631950841185  # P(X < Y) for X ~ N(0, 1), Y ~ N(0.5, 1): Phi(0.5 / sqrt 2)
    intervals = [stats.a12_interval(rng.normal(0, 1, 30), rng.normal(0.5, 1, 30)) for _ in range(200)]
    assert 0.90 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.99


# --- Holm's correction -------------------------------------------------------------------------


@settings(max_examples=10)  # statsmodels is slow
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20).map(np.array))
def test_holm_is_statsmodels(p: np.ndarray) -> None:
    np.testing.assert_allclose(stats.holm(p), multipletests(p, method="holm")[1], rtol=1e-12)


def test_holm_of_a_worked_example() -> None:
    # Four tests: 0.005·4, 0.01·3, 0.03·2, then 0.04·1 raised to its predecessor's 0.06.
    np.testing.assert_allclose(stats.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


# --- summaries ---------------------------------------------------------------------------------


def test_summary_of_a_cell() -> None:
    best = [0.05, 3.0, 1e-9, 200.0, 5e-5]
    row = stats.summarise(runs_of("ga", best)).iloc[0]
    assert (row["algo"], row["label"], row["n"]) == ("ga", "ga", 5)
    assert row["median"] == 0.05
    assert (row["q1"], row["q3"]) == (5e-5, 3.0)
    assert (row["best"], row["worst"]) == (1e-9, 200.0)
    assert row["mean"] == pytest.approx(np.mean(best))
    assert row["std"] == pytest.approx(np.std(best, ddof=1))
    assert list(row.filter(like="success_")) == [0.8, 0.6, 0.4, 0.2]


def test_success_is_null_without_a_known_optimum() -> None:
    row = stats.summarise(runs_of("ga", [-29.0, -28.0], "michalewicz", known=False)).iloc[0]
    assert row.filter(like="success_").isna().all()
    assert row["median"] == -28.5


def test_a_run_that_is_not_finite_is_the_worst() -> None:
    lost = runs_of("ga", [1.0, 2.0, np.nan, -np.inf, np.inf])
    row = stats.summarise(lost).iloc[0]
    assert row["best"] == 1.0
    assert row["q1"] == 2.0
    assert row["median"] == row["q3"] == row["worst"] == row["mean"] == np.inf
    assert np.isnan(row["std"])
    assert row["success_1e2"] == pytest.approx(2 / 5)
    (comparison,) = stats.compare(pd.concat([lost, runs_of("ga_diff", [9.0] * 5)])).itertuples()
    assert comparison.a12 == pytest.approx(3 / 5)


@pytest.mark.parametrize("size", [1, 2])
def test_quantiles_beside_infinity(size: int) -> None:
    sample = np.array([1.0] * 3 + [np.inf] * size)
    assert stats.quantile(sample, 0.5) == 1.0
    assert stats.quantile(sample, 0.6) == (np.inf if size == 2 else 1.0)


def test_a_single_run_is_summarised() -> None:
    row = stats.summarise(runs_of("ga", [2.0])).iloc[0]
    assert row["q1"] == row["median"] == row["q3"] == row["mean"] == 2.0
    assert np.isnan(row["std"])


def test_cells_come_in_the_papers_order(everything: pd.DataFrame) -> None:
    others = pd.concat([runs_of("zzz", [1.0], "sphere"), runs_of("ga", [1.0], "ackley", dim=5)])
    table = stats.summarise(pd.concat([others, everything.sample(frac=1, random_state=0)]))
    problems = list(dict.fromkeys(zip(table["fn"], table["dim"], strict=True)))
    assert problems == [("ackley", 5), ("ackley", 30), ("michalewicz", 30), ("sphere", 30)]
    algos = list(table[(table["fn"] == "ackley") & (table["dim"] == 30)]["algo"])
    variants = ["", "_released", "_diff", "_plain", "_guarded"]
    assert algos == [f + v for f in ("ga", "de", "pso", "cmaes") for v in variants] + ["cmaes_tpa"]


def test_orders_agree_with_the_registries() -> None:
    assert stats.FUNCTIONS == PAPER_FUNCTIONS
    for name, algorithm in ALGORITHMS.items():
        family, variant = stats.lineage(name)
        assert family == algorithm.family
        assert family in stats.FAMILIES
        assert variant == algorithm.variant or name == "cmaes_tpa"
        assert variant in stats.VARIANTS


def test_settings_are_cells_of_their_own_and_named_only_where_they_must_be() -> None:
    table = stats.summarise(
        pd.concat(
            [
                runs_of("ga", [1.0], settings_hash="aaaaaabbbbbb"),
                runs_of("ga", [2.0], settings_hash="ccccccdddddd"),
                runs_of("ga_diff", [3.0]),
                runs_of("ga", [4.0], fn="griewank", settings_hash="eeeeeeffffff"),
                runs_of("ga_diff", [5.0], protocol="fair"),
            ]
        )
    )
    assert list(table["label"]) == ["ga_diff", "ga@aaaaaa", "ga@cccccc", "ga_diff", "ga"]
    assert list(table["median"]) == [5.0, 1.0, 2.0, 3.0, 4.0]


def test_settings_that_differ_in_several_things_are_named_by_what_is_not_as_in_most() -> None:
    kinds = [{"weights": "softmax", "lr": 0.1}, {"weights": "softmax", "lr": 1}, {"weights": "rank", "lr": 0.1}]
    table = stats.summarise(
        pd.concat(
            runs_of("cmaes_diff", [float(place)], settings_hash=f"{place:012}", settings=json.dumps(kind))
            for place, kind in enumerate(kinds)
        )
    )
    labels = dict(zip(table["median"], table["label"], strict=True))
    assert labels == {0.0: "cmaes_diff@base", 1.0: "cmaes_diff@lr=1", 2.0: "cmaes_diff@weights=rank"}


def test_settings_that_differ_in_many_things_are_named_by_as_few_as_tell_them_apart() -> None:
    """One thing, or two that no other has together, as they are or as usual; a hash where it takes three."""
    usual = {"a": 0, "b": 0, "c": 0, "d": 0}
    kinds = [{}, {"a": 2}, {"b": 2}, {"c": 2}, {"d": 2}, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1, "d": 1}]
    named = ["base", "a=2", "b=2", "c=2", "d=2"]
    assert _labels([usual | kind for kind in kinds]) == [*named, "c=1", "d=1"]
    kinds.append({"a": 1, "c": 1, "d": 1})
    assert _labels([usual | kind for kind in kinds]) == [*named, "b=1,c=1", "b=1,d=1", "c=1,d=1"]
    kinds = [{}, {"a": 1}, {"b": 1}, {"c": 1}, {"a": 1, "b": 1}, {"a": 1, "c": 1}, {"b": 1, "c": 1}]
    named = ["base", "a=1", "b=1", "c=1", "a=1,b=1", "a=1,c=1", "b=1,c=1"]
    assert _labels([usual | kind for kind in [*kinds, {"a": 1, "b": 1, "c": 1}]]) == [*named, "000007"]


def _labels(kinds: list[dict[str, int]]) -> list[str]:
    """What follows the @ in the names of `ga` with these settings."""
    runs = (
        runs_of("ga", [float(place)], settings_hash=f"{place:06}" * 2, settings=json.dumps(kind))
        for place, kind in enumerate(kinds)
    )
    table = stats.summarise(pd.concat(runs)).sort_values("median")
    return [label.partition("@")[2] for label in table["label"]]


# --- comparisons -------------------------------------------------------------------------------


def test_the_declared_pairs_and_no_others(compared: pd.DataFrame) -> None:
    for _, rows in compared.groupby("fn"):
        assert len(rows) == len(PAIRS)
        assert set(rows["first"] + " vs " + rows["second"]) == PAIRS


def test_p_values_are_scipys_and_their_correction_statsmodels(everything: pd.DataFrame, compared: pd.DataFrame) -> None:
    assert compared["pair"].nunique() == 8
    best_f = {key: rows.to_numpy() for key, rows in everything.groupby(["fn", "algo"])["best_f"]}
    for _, family in compared.groupby("pair"):
        p = []
        for row in family.itertuples():
            samples = best_f[row.fn, row.first], best_f[row.fn, row.second]
            test = {"Wilcoxon": wilcoxon, "Mann-Whitney": mannwhitneyu}[row.test]
            p.append(test(*samples, alternative="two-sided").pvalue)
            assert row.test == ("Wilcoxon" if row.second.endswith("_plain") else "Mann-Whitney")
        assert len(family) == (2 if "tpa" in family["pair"].iloc[0] else 8)
        np.testing.assert_allclose(family["p"], p)
        np.testing.assert_allclose(family["p_holm"], multipletests(p, method="holm")[1])
    assert (compared["p_holm"] > compared["p"]).any(), "nothing was corrected"


def test_settings_are_compared_with_the_first_of_them() -> None:
    """In the order of their values, and seed by seed where a tensor program draws the same noise."""

    def cells(algo: str) -> list[pd.DataFrame]:
        return [
            runs_of(algo, [best, best + 1, best + 3], settings_hash=f"{10 - number}" * 6, settings=f'{{"lr": {lr}}}')
            for number, (lr, best) in enumerate([(0.1, 5.0), (0, 9.0), (1e-05, 1.0)])
        ]

    table = stats.compare(pd.concat(cells("ga_diff") + cells("ga")))
    for algo, test in (("ga_diff", "Wilcoxon"), ("ga", "Mann-Whitney")):
        rows = table[(table["pair"] == "settings") & table["first"].str.startswith(f"{algo}@")]
        assert list(rows["first"]) == [f"{algo}@lr=1e-05", f"{algo}@lr=0.1"]
        assert set(rows["second"]) == {f"{algo}@lr=0"}
        assert list(rows["test"]) == [test] * 2
        assert list(rows["median_first"]) == [2, 6]
    assert len(table[table["pair"] == "diff vs pymoo"]) == 3
    moved = [rows.assign(shift=number) for number, rows in enumerate(cells("ga_diff"))]
    assert stats.compare(pd.concat(moved)).empty, "another shift is another task"


@pytest.mark.parametrize(
    ("shift", "verdict", "effect"), [(-5, "better", 1.0), (5, "worse", 0.0), (0.15, "no difference", 45 / 121)]
)
def test_verdicts(shift: float, verdict: str, effect: float) -> None:
    best = np.linspace(100, 101, 11)
    (row,) = stats.compare(pd.concat([runs_of("ga", list(best)), runs_of("ga_diff", list(best + shift))])).itertuples()
    assert row.verdict == verdict
    assert row.a12 == pytest.approx(effect, abs=1e-12)
    assert row.a12_low <= row.a12 <= row.a12_high
    assert (row.median_first, row.median_second) == (np.median(best + shift), np.median(best))


def test_a_verdict_needs_holms_correction() -> None:
    """One raw p below 0.05 among many comparisons is no difference."""
    rng = np.random.default_rng(0)
    best = rng.normal(100, 1, 12)
    near = stats.compare(pd.concat([runs_of("ga", list(best)), runs_of("ga_diff", list(best - 0.8))]))
    assert 0.0125 < near["p"][0] < 0.05
    assert near["verdict"][0] == "better"
    many = [runs_of(a, list(best), fn) for fn in ("griewank", "rosenbrock", "sphere") for a in ("ga", "ga_diff")]
    among = stats.compare(pd.concat([runs_of("ga", list(best)), runs_of("ga_diff", list(best - 0.8)), *many]))
    assert among["p"][0] == near["p"][0]
    assert among["p_holm"][0] == pytest.approx(4 * near["p"][0])
    assert among["verdict"][0] == "no difference"


def test_solved_runs_tie() -> None:
    """Gaps of 1e-9 and 1e-15 are one quality: solved. Gaps above 1e-8 are not."""
    first, second = runs_of("cmaes", [1e-9] * 10), runs_of("cmaes_diff", [1e-15] * 10)
    (row,) = stats.compare(pd.concat([first, second])).itertuples()
    assert (row.a12, row.a12_low, row.a12_high, row.p, row.verdict) == (0.5, 0.5, 0.5, 1.0, "no difference")
    (row,) = stats.compare(pd.concat([first.assign(best_f=1e-7, gap=1e-7), second])).itertuples()
    assert (row.a12, row.verdict) == (1.0, "better")


def test_without_a_known_optimum_small_differences_count() -> None:
    first = runs_of("cmaes", [-1e-9] * 10, "michalewicz", known=False)
    second = runs_of("cmaes_diff", [-2e-9] * 10, "michalewicz", known=False)
    (row,) = stats.compare(pd.concat([first, second])).itertuples()
    assert (row.a12, row.verdict) == (1.0, "better")


def test_the_floor_is_on_the_gap_not_on_the_value() -> None:
    """With f_opt = -100, values below 1e-8 are nowhere near solved."""
    first, second = runs_of("ga", [-50.0] * 10), runs_of("ga_diff", [-60.0] * 10)
    both = pd.concat([first, second])
    (row,) = stats.compare(both.assign(gap=both["best_f"] + 100)).itertuples()
    assert (row.a12, row.verdict) == (1.0, "better")


def test_equal_samples_and_single_runs_have_no_difference() -> None:
    equal = stats.compare(pd.concat([runs_of("ga", [3.0] * 30), runs_of("ga_diff", [3.0] * 30)]))
    single = stats.compare(pd.concat([runs_of("ga", [3.0]), runs_of("ga_diff", [1.0])]))
    assert list(equal["p"]) == list(single["p"]) == [1.0]
    assert list(equal["verdict"]) == list(single["verdict"]) == ["no difference"]
    assert (equal["a12"][0], single["a12"][0]) == (0.5, 1.0)


@pytest.mark.parametrize(
    "other",
    [{"dim": 50}, {"protocol": "fair"}, {"budget": 1000}, {"shift": 60.0}, {"fn": "griewank"}],
    ids=lambda other: next(iter(other)),
)
def test_only_runs_of_the_same_task_are_compared(other: dict[str, object]) -> None:
    mine = runs_of("ga_diff", [1.0, 2.0])
    assert len(stats.compare(pd.concat([mine, runs_of("ga", [1.0, 2.0])]))) == 1
    assert stats.compare(pd.concat([mine, runs_of("ga", [1.0, 2.0]).assign(**other)])).empty


def test_every_setting_meets_every_partner() -> None:
    table = stats.compare(
        pd.concat(
            [
                runs_of("ga", [1.0, 2.0]),
                runs_of("ga_diff", [0.5, 0.7], settings_hash="aaaaaabbbbbb"),
                runs_of("ga_diff", [5.0, 7.0], settings_hash="ccccccdddddd"),
            ]
        )
    )
    table = table[table["pair"] == "diff vs pymoo"]
    assert list(table["first"]) == ["ga_diff@aaaaaa", "ga_diff@cccccc"]
    assert list(table["second"]) == ["ga", "ga"]
    assert list(table["a12"]) == [1.0, 0.0]


def test_a_setting_meets_the_same_setting_where_there_is_one() -> None:
    def at(algo: str, lr: float) -> pd.DataFrame:
        return runs_of(algo, [1.0, 2.0], settings_hash=f"{lr:012g}", settings=f'{{"lr": {lr}}}')

    table = stats.compare(
        pd.concat([at("ga_diff", 1), at("ga_diff", 2), at("ga_diff", 3), at("ga_plain", 1), at("ga_plain", 2)])
    )
    table = table[table["pair"] == "diff vs plain"]
    assert set(table["first"] + " vs " + table["second"]) == {
        "ga_diff@lr=1 vs ga_plain@lr=1",
        "ga_diff@lr=2 vs ga_plain@lr=2",
        "ga_diff@lr=3 vs ga_plain@lr=1",
        "ga_diff@lr=3 vs ga_plain@lr=2",
    }
    table = stats.compare(pd.concat([at("ga_diff", 2), at("ga_plain", 1), at("ga_plain", 2)]))
    table = table[table["pair"] == "diff vs plain"]
    assert list(table["first"] + " vs " + table["second"]) == ["ga_diff vs ga_plain@lr=2"]


def test_the_order_of_rows_changes_nothing(everything: pd.DataFrame) -> None:
    runs = everything[everything["algo"].str.startswith("cmaes") & (everything["fn"] == "ackley")]
    shuffled = runs.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(stats.summarise(shuffled), stats.summarise(runs), check_exact=True)
    pd.testing.assert_frame_equal(stats.compare(shuffled), stats.compare(runs), check_exact=True)


def test_tables_without_rows_keep_their_columns(everything: pd.DataFrame, compared: pd.DataFrame) -> None:
    none = everything.iloc[:0]
    assert stats.summarise(none).empty
    assert list(stats.summarise(none)) == list(stats.summarise(everything))
    assert stats.compare(none).empty
    assert list(stats.compare(none)) == list(compared)


# --- pairs that share their noise --------------------------------------------------------------


def test_signed_rank_of_a_published_sample() -> None:
    # Darwin's maize: heights of 15 cross-fertilised plants less those of their self-fertilised twins.
    differences = np.array([6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75.0])
    p, lead = stats.signed_rank(np.zeros(15), differences)
    assert p == pytest.approx(0.041259765625)
    assert lead == 120 - 2 * 24  # T = 24 of 120
    assert stats.signed_rank(differences, np.zeros(15)) == (p, -lead)


@settings(max_examples=15)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=8))
def test_signed_rank_is_scipys_without_ties(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    p, _ = stats.signed_rank(first, second)
    with np.errstate(invalid="ignore"):
        differences = np.where(first == second, 0.0, first - second)
    finite = np.where(np.isfinite(differences), differences, np.sign(differences) * 1e15)
    if (finite != 0).any():
        assert p == pytest.approx(wilcoxon(finite[finite != 0]).pvalue)
    else:
        assert p == 1.0


def test_a_small_gain_on_every_seed_is_seen_only_by_the_paired_test() -> None:
    best = np.linspace(10, 20, 12)
    plain, mine = runs_of("ga_plain", list(best)), runs_of("ga_diff", list(best - 0.01))
    (row,) = stats.compare(pd.concat([plain, mine])).itertuples()
    assert (row.test, row.verdict) == ("Wilcoxon", "better")
    assert row.p == pytest.approx(2 / 2**12)
    other_seeds = mine.assign(seed=mine["seed"] + 1)
    other_start = pd.concat([plain.assign(init="uniform"), mine.assign(init="centre")])
    for runs in (pd.concat([plain, other_seeds]), other_start):
        (row,) = stats.compare(runs).itertuples()
        assert (row.test, row.verdict) == ("Mann-Whitney", "no difference")


def test_pairs_are_of_the_same_seed_whatever_the_order_of_rows() -> None:
    best = np.linspace(10, 20, 12)
    runs = pd.concat([runs_of("ga_plain", list(best)), runs_of("ga_guarded", list(best + 0.01))])
    (row,) = stats.compare(runs.sample(frac=1, random_state=3)).itertuples()
    assert (row.test, row.verdict) == ("Wilcoxon", "worse")


def test_solved_pairs_tie_and_never_win() -> None:
    """Twenty pairs that are solved, however far beyond 1e-8, and one that is won: nothing."""
    plain = runs_of("ga_plain", [9e-9] * 20 + [5.0])
    (row,) = stats.compare(pd.concat([plain, runs_of("ga_diff", [1e-16] * 20 + [1e-16])])).itertuples()
    assert (row.p, row.verdict) == (1.0, "no difference")
    assert row.a12 == pytest.approx((20 * 20 / 2 + 20 / 2 + 21) / 21**2)  # all pairs of runs: solved ones tie


# --- families of tests -------------------------------------------------------------------------


@pytest.mark.parametrize("family", [("pair",), ("pair", "fn"), ("fn", "dim"), ()])
def test_holm_is_over_the_declared_family(everything: pd.DataFrame, family: tuple[str, ...]) -> None:
    table = stats.compare(everything[everything["algo"].str.startswith("ga")], family)
    groups = [rows for _, rows in table.groupby(list(family))] if family else [table]
    assert len(groups) == {("pair",): 6, ("pair", "fn"): 12, ("fn", "dim"): 2, (): 1}[family]
    for rows in groups:
        np.testing.assert_allclose(rows["p_holm"], multipletests(rows["p"], method="holm")[1])


# --- intervals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9, 30])
def test_intervals_of_median_and_iqr_are_scipys(size: int) -> None:
    sample = np.random.default_rng(size).lognormal(size=size)
    spread = lambda x, axis: np.subtract(*np.quantile(x, [0.75, 0.25], axis=axis))  # noqa: E731
    for statistic, mine in zip((np.median, spread), stats.quantile_intervals(sample), strict=True):
        theirs = bootstrap((sample,), statistic, method="percentile", n_resamples=10_000, rng=1).confidence_interval
        assert mine == pytest.approx((theirs.low, theirs.high), rel=0.12)
        assert mine[0] <= statistic(sample, axis=0) <= mine[1]


def test_intervals_are_seeded_and_survive_infinities() -> None:
    sample = np.array([1.0, 2.0, 3.0, 4.0, np.inf, np.inf])
    (low, high), (_, widest) = stats.quantile_intervals(sample)
    assert 1 <= low < 4
    assert high == widest == np.inf
    assert stats.quantile_intervals(sample[::-1]) == stats.quantile_intervals(sample)
    assert stats.quantile_intervals(np.array([7.0])) == ((7.0, 7.0), (0.0, 0.0))


# --- ranks -------------------------------------------------------------------------------------

DEMSAR = [
    (4, 3, 2, 1),
    (1, 2, 3, 4),
    (4, 1, 2, 3),
    (4, 1, 3, 2),
    (4, 2, 3, 1),
    (1, 2.5, 4, 2.5),
    (3, 2, 4, 1),
    (2.5, 2.5, 4, 1),
    (4, 3, 2, 1),
    (2.5, 2.5, 2.5, 2.5),
    (4, 2.5, 1, 2.5),
    (3, 2, 4, 1),
    (4, 1, 2, 3),
    (3, 1, 4, 2),
]
"""Ranks of four classifiers on 14 data sets (Demšar 2006, table 6)."""


def demsar() -> pd.DataFrame:
    return pd.concat(
        runs_of(algo, [float(10 + row[column])] * 3, f"set{number:02}")
        for number, row in enumerate(DEMSAR)
        for column, algo in enumerate(("ga", "de", "pso", "cmaes"))
    )


def test_ranks_of_a_published_example() -> None:
    ranks = stats.rank(demsar())
    assert ranks.average.round(3).to_dict() == {"cmaes": 1.964, "de": 2.0, "pso": 2.893, "ga": 3.143}
    assert ranks.critical_difference == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)  # 1.25
    assert (len(ranks.medians), ranks.left_out) == (14, [])
    expected = friedmanchisquare(*np.array(DEMSAR).T)
    assert (ranks.statistic, ranks.p) == pytest.approx((expected.statistic, expected.pvalue))
    published = 12 * 14 / (4 * 5) * ((ranks.average**2).sum() - 4 * 5**2 / 4)  # without the correction for ties
    assert published == pytest.approx(9.28, abs=5e-3)


def test_nemenyi_is_scikit_posthocs() -> None:
    from scikit_posthocs import posthoc_nemenyi_friedman

    rng = np.random.default_rng(0)
    for _ in range(5):
        blocks = pd.DataFrame(rng.normal(0.5 * np.arange(6), 1, (9, 6)))
        ranks = blocks.rank(axis=1).mean().to_numpy()
        apart = np.abs(ranks[:, None] - ranks) >= stats.critical_difference(6, 9)
        assert (apart == (posthoc_nemenyi_friedman(blocks).to_numpy() < stats.ALPHA)).all()


def test_what_is_incomplete_is_not_ranked() -> None:
    runs = demsar()
    lost = runs[~((runs["algo"] == "ga") & (runs["fn"] >= "set02") & (runs["seed"] == 2))]
    ranks = stats.rank(lost)
    assert (set(ranks.average.index), len(ranks.medians), ranks.left_out) == ({"de", "pso", "cmaes"}, 14, ["ga"])
    hole = runs[~((runs["fn"] == "set03") & (runs["algo"] == "de") & (runs["seed"] == 0))]
    assert stats.rank(hole).left_out == ["Set03, 30D (paper)"]


def test_too_little_to_rank(refused: Refused) -> None:
    with refused("3 algorithms", "2 problems", "at most 2 on 14"):
        stats.rank(demsar().query("algo in ['ga', 'de']"))


def test_algorithms_that_solve_a_problem_share_its_rank() -> None:
    solved = [runs_of("ga", [0.0] * 3, fn) for fn in ("a", "b")] + [runs_of("de", [1e-9] * 3, fn) for fn in ("a", "b")]
    runs = pd.concat([*solved, *(runs_of("pso", [1e-7] * 3, fn) for fn in ("a", "b"))])
    assert stats.rank(runs).average.to_dict() == {"ga": 1.5, "de": 1.5, "pso": 3.0}


# --- trajectories and ECDFs --------------------------------------------------------------------


def test_trajectories_carry_the_last_value_forward() -> None:
    history = pd.DataFrame(
        {"seed": [7, 7, 3, 3, 3], "evals": [200.0, 100.0, 100.0, 300.0, 400.0], "best_f": [5.0, 9.0, 8.0, 2.0, 1.0]}
    )
    curves = stats.trajectories(history, np.array([50.0, 100.0, 199.0, 200.0, 300.0, 1000.0]))
    nan = np.nan
    np.testing.assert_array_equal(curves, [[nan, 8, 8, 8, 2, 1], [nan, 9, 9, 5, 5, 5]])


def test_grid_spans_the_evaluations() -> None:
    grid = stats.evaluation_grid(np.array([250_000.0, 100.0, 4000.0]))
    assert (grid[0], grid[-1]) == (100.0, 250_000.0)
    assert (np.diff(grid) > 0).all()
    assert 100 < len(grid) <= stats.GRID_POINTS


def test_ecdf_counts_the_targets_reached() -> None:
    runs = pd.concat([runs_of("ga", [1e-3, 1e-3]), runs_of("ga_diff", [1e-9, 1e-9])])
    history = pd.concat(
        [
            history_of(runs[runs["algo"] == "ga"], {300: 1e4, 3000: 1.0, 30_000: 1e-3}),
            history_of(runs[runs["algo"] == "ga_diff"], {300: 99.0, 3000: 1e-9}),
        ]
    )
    table = stats.ecdf(history, runs)
    curves = {label: curve.set_index("evals_per_dim")["share"] for label, curve in table.groupby("label")}
    assert (curves["ga"].index == curves["ga_diff"].index).all()
    assert (curves["ga"].index[0], curves["ga"].index[-1]) == (10.0, 1000.0)
    # 51 targets, five a decade from 1e2: 1 is the 11th, 1e-3 the 26th.
    assert set(curves["ga"].round(6)) == {0.0, round(11 / 51, 6), round(26 / 51, 6)}
    assert set(curves["ga_diff"].round(6)) == {round(1 / 51, 6), 1.0}
    assert (curves["ga"].diff().dropna() >= 0).all()
    assert curves["ga_diff"][curves["ga_diff"].index < 100].max() < 0.5


def test_ecdf_averages_over_runs_and_knows_the_optimum() -> None:
    runs = runs_of("ga", [-100.0, -90.0]).assign(gap=[0.0, 10.0])
    history = pd.concat([history_of(runs[:1], {30: 1.0, 300: -100.0}), history_of(runs[1:], {30: -90.0, 60: -90.0})])
    shares = stats.ecdf(history, runs)["share"]
    assert shares.iloc[0] == pytest.approx((0 + 6) / 102)  # gaps of 101 and 10: none and six of 51 targets
    assert shares.iloc[-1] == pytest.approx((51 + 6) / 102)


def test_ecdf_leaves_out_unknown_optima() -> None:
    known, unknown = runs_of("ga", [1.0]), runs_of("ga", [-20.0], "michalewicz", known=False)
    both = pd.concat([known, unknown])
    history = history_of(both, {100: 5.0, 1000: 1.0})
    assert set(stats.ecdf(history, both)["fn"]) == {"ackley"}
    assert stats.ecdf(history, unknown).empty


def test_histories_without_runs_are_left_out() -> None:
    runs = runs_of("ga", [1.0, 2.0])
    history = history_of(runs, {100: 5.0})
    ((_, rows),) = stats.split_history(history, runs[:1]).items()
    assert set(rows["seed"]) == {0}


def test_histories_come_in_the_order_of_their_runs() -> None:
    """Which is that of their settings; a history knows but their hash, which says nothing."""
    rates = {"cccccccccccc": 0.001, "aaaaaaaaaaaa": 0.01, "bbbbbbbbbbbb": 0.1}
    cells = [
        runs_of("pso_diff", [1.0, 2.0], settings_hash=digest, settings=f'{{"lr": {rate}}}')
        for digest, rate in rates.items()
    ]
    runs = pd.concat(cells)
    found = stats.split_history(history_of(runs, {100: 5.0}), runs)
    assert [cell.settings_hash for cell in found] == [cell.settings_hash for cell in stats.split(runs)] == list(rates)


def test_a_setting_that_is_left_out_comes_before_its_values() -> None:
    """Whatever other settings there are: `unroll` is left out where it is 1."""
    for digest, chosen in (("a" * 12, '"unroll": 5'), ("b" * 12, '"unroll": 5, "weights": "rank"')):
        usual = chosen.replace('"unroll": 5', '"lr": 1')
        runs = [
            runs_of("cmaes_diff", [1.0], settings_hash=digest, settings=f'{{"lr": 1, {chosen}}}'),
            runs_of("cmaes_diff", [1.0], settings_hash="c" * 12, settings=f"{{{usual}}}"),
        ]
        assert [cell.settings_hash for cell in stats.split(pd.concat(runs))] == ["c" * 12, digest]


def test_labels_say_what_tells_settings_apart() -> None:
    base = {"fn": "ackley", "dim": 30, "protocol": "paper", "seed": 0, "best_f": 1.0}

    def names(*cells):
        runs = pd.DataFrame({**base, "algo": algo, "settings_hash": digest, **more} for algo, digest, more in cells)
        return sorted(stats.labels(runs).values())

    centre, uniform = {"init": "centre", "settings": '{"lr": 1}'}, {"init": "uniform", "settings": '{"lr": 0.5}'}
    assert names(("cmaes", "a" * 12, centre), ("ga", "b" * 12, uniform)) == ["cmaes", "ga"]
    assert names(("cmaes", "a" * 12, centre), ("cmaes", "b" * 12, uniform)) == ["cmaes@centre", "cmaes@uniform"]
    again = {**centre, "settings": '{"lr": 0.1}'}
    assert names(("cmaes", "a" * 12, centre), ("cmaes", "b" * 12, again)) == ["cmaes@lr=0.1", "cmaes@lr=1"]
    assert names(("cmaes", "a" * 12, centre), ("cmaes", "b" * 12, centre)) == ["cmaes@aaaaaa", "cmaes@bbbbbb"]
    further = {**centre, "settings": '{"lr": 1, "unroll": 5}'}  # left out where it is 1
    assert names(("cmaes", "a" * 12, centre), ("cmaes", "b" * 12, further)) == [
        "cmaes@unroll=5",
        "cmaes@unroll=default",
    ]
    three = (("cmaes", "a" * 12, centre), ("cmaes", "b" * 12, again), ("cmaes", "c" * 12, uniform))
    assert names(*three) == ["cmaes@lr=0.1", "cmaes@lr=0.5", "cmaes@lr=1"]
