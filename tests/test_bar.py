"""The bar: every outcome from made-up runs, checked against SciPy; what is missing; how it is shown."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy import ndarray
from scipy.stats import mannwhitneyu, rankdata, wilcoxon
from statsmodels.stats.multitest import multipletests
from test_claims import whole

from evobench import bar, verdicts
from evobench.bar import DESCENTS, GUARDED, PYMOO, Bar, Contest, judge, tied
from evobench.claims import PROBLEMS, SEEDS
from evobench.store import Store

BUDGET = 1000.0

SPREAD = np.random.default_rng(0).permutation(SEEDS) / SEEDS
"""Of 30 runs by seed, each another, from 0 to less than 1."""

NEVER = np.full(SEEDS, math.inf)

Cell = tuple[ndarray, ndarray]
"""Of one algorithm on a problem, by seed: the gaps, and the evaluations after which runs have them."""

Cells = dict[tuple[str, str, int], Cell]


def unsolved(median: float) -> Cell:
    return median + 0.01 * (SPREAD - 0.5), NEVER


def solved(evals: float, gap: float = 0.0) -> Cell:
    return np.full(SEEDS, gap), evals + SPREAD


def write(results: Path, cells: Cells, **columns: Any) -> None:
    """One shard with every cell; the history has the first point, the one that solves and the last."""
    rows, points = [], []
    for (algo, fn, dim), (gaps, costs) in cells.items():
        known = fn != "michalewicz"
        cell = {"algo": algo, "fn": fn, "dim": dim, "settings_hash": f"{algo}{len(columns)}"[:12]}
        runs = pd.DataFrame({**cell, "seed": range(len(gaps)), "best_f": gaps, "gap": gaps if known else np.nan})
        identity = runs[["algo", "fn", "dim", "seed", "settings_hash"]]
        for evals, best in ((0.1, gaps + 100), (costs, gaps), (BUDGET, gaps)):
            points.append(identity.assign(evals=np.minimum(evals, BUDGET), best_f=best))
        rows.append(runs)
    common = {"protocol": "fair", "budget": BUDGET, "gradient_cost": 5.0, "pop_size": 100, **columns}
    history = pd.concat(points).drop_duplicates(["algo", "fn", "dim", "seed", "evals"], keep="last")
    Store(results / "figure1-fair").write(whole(pd.concat(rows, ignore_index=True), **common), history)


def over_the_bar() -> Cells:
    """Ackley and Michalewicz are better by fitness, Griewank and Rosenbrock, which all solve, by evaluations."""
    cells: Cells = {}
    for fn, dim in PROBLEMS:
        for place, algo in enumerate(GUARDED):
            twin, easy = algo.replace("_guarded", "_plain"), fn in ("griewank", "rosenbrock")
            cells[algo, fn, dim] = solved(10 + 5 * place) if easy else unsolved(1.0 + place)
            cells[twin, fn, dim] = solved(500) if easy else unsolved(9.0)
        for algo in (*PYMOO, *DESCENTS):
            cells[algo, fn, dim] = solved(400, 1e-9) if fn == "griewank" else unsolved(8.0)
    return cells


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Bar:
    results = tmp_path_factory.mktemp("results")
    write(results, over_the_bar())
    return judge(results)


def twins(results: Path, mine: Cell, other: Cell, fn: str = "griewank", algo: str = "cmaes") -> Contest:
    """A guarded algorithm against its plain twin, and nothing else."""
    write(results, {(f"{algo}_guarded", fn, 30): mine, (f"{algo}_plain", fn, 30): other})
    (contest,) = [one for one in judge(results).contests if one.by]
    return contest


def effect(first: ndarray, second: ndarray) -> float:
    """A12 by its definition."""
    return float(np.mean([(a < b) + 0.5 * (a == b) for a in first for b in second]))


# --- the whole rule ----------------------------------------------------------------------------


def test_a_bar_that_is_reached(over: Bar) -> None:
    assert over.verdict == "reached"
    assert len(over.finding.parts) == 2 * len(GUARDED) + 2
    assert all(part.holds for part in over.finding.parts)
    assert not over.finding.missing
    assert {contest.outcome for contest in over.contests} == {"better"}
    assert len(over.contests) == 4 * 8 + 2 * 8
    by = {fn: {one.by for one in over.contests if one.fn == fn and one.second.endswith("_plain")} for fn, _ in PROBLEMS}
    assert by == {
        "ackley": {"fitness"},
        "michalewicz": {"fitness"},
        "rosenbrock": {"evaluations"},
        "griewank": {"evaluations"},
    }


def test_a_twin_has_the_settings_of_its_guarded_algorithm(tmp_path: Path) -> None:
    """Of a plain algorithm with two settings, not the one with the latest runs."""
    hard, soft = json.dumps({"selection": "hard"}), json.dumps({"selection": "soft"})
    ours, same, other = unsolved(2.0), unsolved(3.0), unsolved(1.0)
    write(tmp_path, {("ga_guarded", "ackley", 30): ours, ("ga_plain", "ackley", 30): same}, settings=hard)
    write(tmp_path, {("ga_plain", "ackley", 30): other}, settings=soft, dtype="float32", started_at="2030-01-01")
    (contest,) = [one for one in judge(tmp_path).contests if one.by]
    assert (contest.second, contest.outcome) == ("ga_plain", "better")
    assert contest.second_value == pytest.approx(3.0, abs=0.01)


def test_families_are_corrected_by_holms_procedure(over: Bar) -> None:
    """The twins are one family, all other contests another."""
    cells = over_the_bar()
    for contests in (over.contests[:32], over.contests[32:]):
        p = []
        for one in contests:
            mine, other = ([*cells[algo, one.fn, one.dim]][one.by == "evaluations"] for algo in one[2:4])
            if one.test == "Wilcoxon":
                p.append(wilcoxon(mine - other).pvalue)
            else:
                p.append(mannwhitneyu(mine, other).pvalue)
        assert [one.p for one in contests] == pytest.approx(list(multipletests(p, method="holm")[1]))


def test_the_best_is_one_by_mean_rank(over: Bar) -> None:
    medians = [[np.median(over_the_bar()[algo, *problem][0]) for algo in GUARDED] for problem in PROBLEMS]
    expected = dict(zip(GUARDED, rankdata(medians, axis=1).mean(axis=0), strict=True))
    assert over.ranks == pytest.approx(expected)
    assert over.best == "ga_guarded"
    assert {one.first for one in over.contests[32:]} == {"ga_guarded"}


def test_what_misses_it_is_decided_whatever_is_missing(tmp_path: Path) -> None:
    """Too few better than a twin, one worse; lbfgs as good on three problems, ahead on one of these; none of pymoo."""
    cells = over_the_bar()
    for problem in PROBLEMS[:5]:
        cells["de_plain", *problem] = cells["de_guarded", *problem]
    cells["pso_plain", "ackley", 50] = unsolved(2.5)  # pso_guarded: 3.0
    for problem in PROBLEMS[:3]:
        cells["lbfgs", *problem] = cells["ga_guarded", *problem]
    cells["lbfgs", "ackley", 30] = unsolved(0.5)
    write(tmp_path, {key: cell for key, cell in cells.items() if key[0] not in PYMOO})
    found = judge(tmp_path)
    parts = {part.text: part.holds for part in found.finding.parts}
    assert parts["de_guarded better than de_plain: 3 of 8 (needed: at least 4)"] is False
    assert parts["de_guarded worse than de_plain: 0 of 8 (allowed: at most 0)"] is True
    assert parts["pso_guarded better than pso_plain: 7 of 8 (needed: at least 4)"] is True
    assert parts["pso_guarded worse than pso_plain: 1 of 8 (allowed: at most 0)"] is False
    both = "ga_guarded better than both the best of pymoo and the best descent"
    assert parts[f"{both}: 0 of 8, 5 open (needed: at least 6)"] is False
    assert parts["ga_guarded worse than either: 1 of 8, 7 open (allowed: at most 0)"] is False
    assert found.verdict == "not reached"
    assert set(found.finding.missing) == set(PYMOO)


# --- one contest -------------------------------------------------------------------------------


def test_better_by_fitness(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    mine, other = rng.lognormal(0, 1, SEEDS), rng.lognormal(1, 1, SEEDS)
    found = twins(tmp_path, (mine, NEVER), (other, NEVER), fn="ackley")
    assert (found.by, found.test, found.outcome) == ("fitness", "Wilcoxon", "better")
    assert found.a12 == pytest.approx(effect(mine, other))
    assert found.low < found.a12 < found.high
    assert (found.first_value, found.second_value) == pytest.approx((np.median(mine), np.median(other)))
    assert found.p == pytest.approx(32 * wilcoxon(mine - other).pvalue), "31 tests are missing, and may say 1"


@pytest.mark.parametrize(("mine", "other", "outcome"), [(20, 300, "better"), (300, 20, "worse")])
def test_gaps_that_tie_are_decided_by_evaluations(mine: float, other: float, outcome: str, tmp_path: Path) -> None:
    """The side with the larger gap wins if it is sooner within 1e-8."""
    found = twins(tmp_path, solved(mine, 5e-9), solved(other, 1e-15))
    assert (found.by, found.outcome) == ("evaluations", outcome)
    assert (found.first_value, found.second_value) == pytest.approx(((mine + SPREAD).mean(), (other + SPREAD).mean()))
    assert found.a12 == (1.0 if outcome == "better" else 0.0)


def test_equal_times_tie(tmp_path: Path) -> None:
    found = twins(tmp_path, solved(20, 1e-12), solved(20))
    assert (found.by, found.outcome, found.a12, found.p) == ("evaluations", "no difference", 0.5, 1.0)


@pytest.mark.parametrize(("failures", "by"), [(15, "evaluations"), (16, "fitness")])
def test_a_side_solves_a_problem_if_half_of_its_runs_do(failures: int, by: str, tmp_path: Path) -> None:
    """The failing side is ten times as fast where it does not fail."""
    gaps, costs = (values.copy() for values in solved(20))
    gaps[:failures], costs[:failures] = 1.0, math.inf
    slow = solved(200)
    found = twins(tmp_path, slow, (gaps, costs))
    assert found.by == by
    if by == "evaluations":
        assert found.a12 == pytest.approx(effect(slow[1], costs)) == 0.5
        spent = np.where(np.isfinite(costs), costs, BUDGET)
        assert found.second_value == pytest.approx(spent.sum() / (SEEDS - failures))
    else:
        assert found.a12 == pytest.approx(effect(slow[0], gaps))
        assert found.p == pytest.approx(32 * wilcoxon(np.sign(slow[0] - gaps)[:failures]).pvalue)
        assert found.outcome == "better"


def test_a_failed_run_is_worse_than_any_other(tmp_path: Path) -> None:
    """Independent samples, among whose times are infinite ones."""
    cells = over_the_bar()
    rng = np.random.default_rng(2)
    mine, other = (np.where(rng.random(SEEDS) < 0.2, math.inf, rng.uniform(10, 900, SEEDS)) for _ in range(2))
    cells["ga_guarded", "griewank", 30] = np.where(np.isfinite(mine), 0.0, 1e-3), mine
    cells["lbfgs", "griewank", 30] = np.where(np.isfinite(other), 0.0, 1e-5), other
    cells["adam", "griewank", 30] = unsolved(8.0)
    write(tmp_path, {key: cell for key, cell in cells.items() if key[0] in (*GUARDED, *DESCENTS)})
    (found,) = [
        one for one in judge(tmp_path).contests if one.second == "lbfgs" and (one.fn, one.dim) == ("griewank", 30)
    ]
    assert (found.by, found.test) == ("evaluations", "Mann-Whitney")
    assert found.a12 == pytest.approx(effect(mine, other))
    assert found.a12 == pytest.approx(1 - mannwhitneyu(mine, other).statistic / SEEDS**2)


def test_a_small_effect_is_neither_better_nor_worse(tmp_path: Path) -> None:
    """Every pair says the same, by a tenth of the spread."""
    mine = SPREAD - 0.1 * (1 + SPREAD / 10)
    found = twins(tmp_path, (mine, NEVER), (SPREAD, NEVER), fn="michalewicz")
    assert found.p < 1e-6
    assert found.a12 == pytest.approx(effect(mine, SPREAD))
    assert 0.5 < found.a12 < 0.71
    assert found.outcome == "slightly better"
    (part,) = [part for part in judge(tmp_path).finding.parts if part.text.startswith("cmaes_guarded better")]
    assert "0 of 8, 7 open" in part.text


def test_worse_by_however_little_is_worse(tmp_path: Path) -> None:
    mine = SPREAD + 0.1 * (1 + SPREAD / 10)
    found = twins(tmp_path, (mine, NEVER), (SPREAD, NEVER), fn="michalewicz")
    assert found.a12 > 0.29
    assert found.outcome == "worse"


def test_differences_below_1e_8_are_ties_where_no_optimum_is_known(tmp_path: Path) -> None:
    found = twins(tmp_path, (-20 + SPREAD, NEVER), (-20 + SPREAD + 9e-9, NEVER), fn="michalewicz")
    assert (found.a12, found.p, found.outcome) == (0.5, 1.0, "no difference")


def test_values_that_tie() -> None:
    first, second = tied(np.array([3.0, 1.0, math.inf]), np.array([1.0 + 9e-9, 1.0 + 1.8e-8, math.inf, 3.0 + 2e-8]))
    assert first.tolist() == [3.0, 1.0, math.inf]
    assert second.tolist() == [1.0, 1.0, math.inf, 3.0 + 2e-8]


def test_the_opponent_is_the_best_of_the_problem(tmp_path: Path) -> None:
    """By the median, and where that is solved by the time."""
    cells = over_the_bar()
    cells["de", "ackley", 30], cells["cmaes_tpa", "griewank", 50] = unsolved(7.0), solved(300, 5e-9)
    write(tmp_path, {key: cell for key, cell in cells.items() if key[0] in (*GUARDED, *PYMOO)})
    found = {(one.fn, one.dim): one.second for one in judge(tmp_path).contests[32:] if one.second in PYMOO}
    assert found["ackley", 30] == "de"
    assert found["griewank", 50] == "cmaes_tpa"


# --- what is missing ---------------------------------------------------------------------------


def test_without_runs_everything_is_open(tmp_path: Path) -> None:
    found = judge(tmp_path)
    assert found.verdict == "evidence missing"
    assert found.best is None
    assert {part.holds for part in found.finding.parts} == {None}
    assert {one.outcome for one in found.contests} == {"open"}
    assert len(found.contests) == 48
    assert found.finding.command == "evobench run configs/figure1-fair.yaml"


def test_a_missing_run_leaves_a_contest_open(tmp_path: Path) -> None:
    cells = over_the_bar()
    gaps, costs = cells["adam", "ackley", 30]
    cells["adam", "ackley", 30] = gaps[:-1], costs[:-1]
    write(tmp_path, cells)
    found = judge(tmp_path)
    assert found.finding.missing == {"adam": {"Ackley, 30D": 29}}
    (contest,) = [one for one in found.contests if one.outcome == "open"]
    assert (contest.fn, contest.dim, contest.second) == ("ackley", 30, "best descent")
    *_, both, either = found.finding.parts
    assert (both.holds, either.holds) == (True, None)
    assert "7 of 8, 1 open" in both.text


def test_runs_with_free_gradients_are_no_evidence(tmp_path: Path) -> None:
    write(tmp_path, {("ga_guarded", "ackley", 30): unsolved(1.0)}, gradient_cost=0.0)
    write(tmp_path, {("ga_plain", "ackley", 30): unsolved(2.0)})
    found = judge(tmp_path)
    assert found.finding.missing["ga_guarded"]["Ackley, 30D"] == 0
    assert "Ackley, 30D" not in found.finding.missing["ga_plain"]


# --- the page ----------------------------------------------------------------------------------


@pytest.fixture(params=["reached", "missing"])
def shown(request: pytest.FixtureRequest, over: Bar, tmp_path: Path) -> Bar:
    return over if request.param == "reached" else judge(tmp_path)


def test_the_page_has_all_of_it(shown: Bar) -> None:
    text = verdicts.render([], "table", shown)
    assert max(map(len, text.splitlines())) <= 100
    squeezed = re.sub(r"\s+", " ", text)
    assert f"G {bar.SENTENCE}: {shown.verdict}" in squeezed
    assert bar.RULE in squeezed
    for part in shown.finding.parts:
        assert part.text in squeezed
    assert text.count(" vs ") == 48


def test_markdown_has_rectangular_tables(shown: Bar) -> None:
    overview, evidence = re.findall(r"(?:^\|.*\n)+", verdicts.render([], "markdown", shown) + "\n", re.MULTILINE)
    assert "| G |" in overview
    for block in (overview, evidence):
        assert len({row.count("|") for row in block.splitlines()}) == 1
    assert len(evidence.splitlines()) == 2 + 48


def test_json_is_strict_and_has_every_contest(shown: Bar) -> None:
    (record,) = json.loads(verdicts.render([], "json", shown), parse_constant=pytest.fail)
    assert (record["id"], record["verdict"], record["paper"]) == ("G", shown.verdict, None)
    contests = record["fair"]["contests"]
    assert len(contests) == 48
    assert set(contests[0]) == set(Contest._fields)
    assert [one["outcome"] for one in contests] == [one.outcome for one in shown.contests]
    assert record["fair"]["best"] == shown.best


def test_runs_that_are_not_finite_fit_into_json(tmp_path: Path) -> None:
    write(tmp_path, {("ga_guarded", "ackley", 30): unsolved(1.0), ("ga_plain", "ackley", 30): (NEVER, NEVER)})
    own = judge(tmp_path)
    (record,) = json.loads(verdicts.render([], "json", own), parse_constant=pytest.fail)
    first = record["fair"]["contests"][0]
    assert (first["second_value"], first["outcome"]) == (None, "better")
    assert " inf " in verdicts.render([], "table", own)
