"""Claims: each rule reproduced, refuted and left open by made-up runs; verdicts that no missing run could change."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Refused
from statsmodels.stats.multitest import multipletests

from evobench import stats, verdicts
from evobench.claims import ALGORITHMS, CLAIMS, PROBLEMS, SEEDS, Judgement, decided, judge, stalled
from evobench.configs import shipped_configs
from evobench.store import RUNS, Store, StoreError

PAPER = Path(__file__).parents[2] / "shared" / "spec" / "evograd-paper.txt"

Cells = dict[tuple[str, str, int], float]
"""The median of each cell."""


def claimed(protocol: str = "paper") -> Cells:
    """Runs that bear out C1 to C4: CMA-ES before PSO, GA and DE as the classical ones but for one problem."""
    level = {"cmaes_diff": 1.0, "pso_diff": 2.0, "cmaes": 3.0, "ga": 4.0, "ga_diff": 4.0, "pso": 5.0}
    cells = {(algo, fn, dim): level.get(algo, 6.0) for algo in ALGORITHMS for fn, dim in PROBLEMS}
    return {**cells, ("ga_diff", "michalewicz", 30): 40.0}


def write(
    results: Path,
    name: str,
    cells: Cells,
    protocol: str = "paper",
    seeds: int = SEEDS,
    spread: float = 0.01,
    **columns: Any,
) -> None:
    """One shard with every cell: 30 runs around its median, which stall half-way."""
    rows = []
    for (algo, fn, dim), median in cells.items():
        best = median + spread * (np.arange(SEEDS) - SEEDS / 2 + 0.5)[:seeds]
        cell = {"algo": algo, "fn": fn, "dim": dim, "settings_hash": f"{algo}{columns.get('init', '')}"[:12]}
        gap = {"gap": np.nan} if fn == "michalewicz" else {"gap": best}
        rows.append(pd.DataFrame({**cell, "seed": range(seeds), "best_f": best, **gap}))
    runs = whole(pd.concat(rows, ignore_index=True), protocol=protocol, **columns)
    identity = runs[["algo", "fn", "dim", "seed", "settings_hash"]]
    points = [(100.0, runs["best_f"] + 9), (500.0, runs["best_f"]), (1000.0, runs["best_f"])]
    history = pd.concat([identity.assign(evals=evals, best_f=best) for evals, best in points], ignore_index=True)
    Store(results / name).write(runs, history)


def whole(runs: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The runs with every column of a store's."""
    common = {"budget": 1000, "wall_s": 3.0, "batch_size": 30, "init": "uniform", "settings": "{}", **columns}
    runs = runs.assign(**common)
    runs.loc[~runs["algo"].str.contains("_"), ["wall_s", "batch_size"]] = [2.0, 1]
    for field in RUNS:
        if field.name not in runs:
            empty = {"best_x": [[0.0]] * len(runs), "gap": np.nan}
            runs[field.name] = empty.get(field.name, "" if field.type == "string" else 0)
    return runs


def judged(results: Path, claim: str) -> Judgement:
    (judgement,) = judge(results, [one for one in CLAIMS if one.id == claim])
    return judgement


@pytest.fixture(scope="module")
def borne_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the paper's claims, under both protocols."""
    results = tmp_path_factory.mktemp("results")
    write(results, "figure1", claimed())
    write(results, "figure1-fair", claimed(), protocol="fair")
    michalewicz = {("cmaes_diff", "michalewicz", 500): -98.0, ("cmaes_plain", "michalewicz", 500): -90.0}
    write(results, "figure2", michalewicz, init="centre")
    write(results, "figure2", {("cmaes", "michalewicz", 500): -30.0}, init="uniform")
    write(
        results,
        "figure2",
        {("cmaes", "michalewicz", 500): -95.0, ("cmaes_tpa", "michalewicz", 500): -300.0},
        init="centre",
    )
    for init, fn in (
        ("centre", "wine"),
        ("uniform", "wine"),
        ("centre", "wine_broadcast"),
        ("uniform", "wine_broadcast"),
    ):
        losses = {("cmaes_diff", fn, 1665): 5.66, ("adam", fn, 1665): 71.9}
        write(results, "wine", losses, init=init, gradient_cost=0.0)
    return results


@pytest.fixture(scope="module")
def judgements(borne_out: Path) -> list[Judgement]:
    return judge(borne_out)


# --- verdicts ----------------------------------------------------------------------------------


def test_claims_that_the_runs_bear_out(judgements: list[Judgement]) -> None:
    found = {judgement.claim.id: judgement for judgement in judgements}
    assert {claim: judgement.verdict for claim, judgement in found.items()} == {
        **dict.fromkeys(["C1", "C2", "C3", "C4", "C6", "C7"], "reproduced"),
        "C5": "not testable",
    }
    for claim, judgement in found.items():
        for finding in (judgement.paper, judgement.fair):
            if finding is not None:
                assert not finding.missing, claim
                assert finding.effects, claim
                assert all(effect.low <= effect.value <= effect.high for effect in finding.effects)
    (today,) = (effect for effect in found["C6"].fair.effects if "cmaes_tpa" in effect.what)
    assert (today.value, today.says) == (0.0, "")  # it is told, and is no part of the rule
    speeds = found["C5"].paper.effects
    assert [effect.value for effect in speeds] == [20.0] * 4  # 2 s a run against 3 s / 30


REFUTED: dict[str, Callable[[tuple[str, str, int], float], float]] = {
    "C1": lambda key, median: 0.5 if key[0] == "ga" and key[1] != "ackley" else median,
    "C2": lambda key, median: 7.0 if key[0] == "pso_diff" else median,
    "C3": lambda key, median: (
        2.5 if key[0] == "ga_diff" and key[1] == "griewank" else median - 3 * (key[0] == "de_diff")
    ),
    "C4": lambda key, median: -1.0 if key == ("cmaes_diff", "rosenbrock", 50) else median,
}
"""What turns one claim over, applied to every cell."""


@pytest.mark.parametrize("claim", REFUTED)
def test_claims_that_the_runs_refute(claim: str, tmp_path: Path) -> None:
    other = {key: REFUTED[claim](key, median) for key, median in claimed().items()}
    write(tmp_path, "figure1", other)
    write(tmp_path, "figure1-fair", claimed(), protocol="fair")
    assert judged(tmp_path, claim).verdict == "not reproduced"
    shifted = tmp_path / "shifted"
    write(shifted, "figure1", claimed())
    write(shifted, "figure1-fair", other, protocol="fair")
    assert judged(shifted, claim).verdict == "reproduced only under the paper's protocol"


def test_figure_2_is_the_start_if_the_gradient_adds_nothing(tmp_path: Path) -> None:
    cells = {("cmaes_diff", "michalewicz", 500): -98.0, ("cmaes_plain", "michalewicz", 500): -98.0}
    write(tmp_path, "figure2", cells, init="centre")
    write(tmp_path, "figure2", {("cmaes", "michalewicz", 500): -30.0}, init="uniform")
    write(tmp_path, "figure2", {("cmaes", "michalewicz", 500): -95.0}, init="centre")
    found = judged(tmp_path, "C6")
    assert found.verdict == "reproduced only under the paper's protocol"
    assert [part.holds for part in found.fair.parts] == [True, False]


def test_the_fair_half_charges_gradients(tmp_path: Path) -> None:
    """C6: better at the end of its budget, not yet where 5 evaluations a gradient have used that up."""
    write(tmp_path, "figure2", {("cmaes_diff", "michalewicz", 500): -98.0}, init="centre", f_evals=1000, g_evals=400)
    write(tmp_path, "figure2", {("cmaes_plain", "michalewicz", 500): -92.0}, init="centre", f_evals=1000)
    for init in ("uniform", "centre"):
        write(tmp_path, "figure2", {("cmaes", "michalewicz", 500): -95.0}, init=init, f_evals=1000)
    found = judged(tmp_path, "C6")
    assert found.paper.holds is True
    # 500 evaluations and their gradients cost more than 1,000: what counts is the point before, 9 above the end
    assert [part.holds for part in found.fair.parts] == [False, False]


def test_a_lower_median_is_no_tighter_distribution(tmp_path: Path) -> None:
    """C1: everything holds but the interquartile range, which for pymoo's CMA-ES is 0 on four problems."""
    cells = claimed()
    same = {key: cells.pop(key) for key in list(cells) if key[0] == "cmaes" and key[1] in ("rosenbrock", "griewank")}
    write(tmp_path, "figure1", cells)
    write(tmp_path, "figure1", same, settings_hash="b" * 12, spread=0.0)
    assert [part.holds for part in judged(tmp_path, "C1").paper.parts] == [True, True, False]


# --- what is missing ---------------------------------------------------------------------------


def test_without_runs_everything_is_missing_and_says_what_computes_it(tmp_path: Path) -> None:
    for judgement in judge(tmp_path):
        claim = judgement.claim.id
        assert judgement.verdict == ("not testable" if claim == "C5" else "evidence missing")
        assert judgement.paper.missing
        assert re.fullmatch(r"evobench run configs/(figure1|figure2|wine)\.yaml", judgement.paper.command)
    assert judged(tmp_path, "C1").fair.command == "evobench run configs/figure1-fair.yaml"


def test_a_cell_with_29_runs_decides_nothing(tmp_path: Path) -> None:
    cells = claimed()
    lost = {key: cells.pop(key) for key in list(cells) if key[0] == "cmaes" and key[1] in ("ackley", "griewank")}
    write(tmp_path, "figure1", cells)
    write(tmp_path, "figure1", lost, seeds=29, settings_hash="b" * 12)
    found = judged(tmp_path, "C1")
    assert found.verdict == "evidence missing"
    assert found.paper.missing == {
        "cmaes": {"Ackley, 30D": 29, "Griewank, 30D": 29, "Ackley, 50D": 29, "Griewank, 50D": 29}
    }
    assert [part.holds for part in found.paper.parts] == [None, None, None]
    assert "4 of 8, 4 open" in found.paper.parts[0].text


def test_what_missing_cells_cannot_change_is_decided_and_marked(tmp_path: Path) -> None:
    cells = {key: REFUTED["C1"](key, median) for key, median in claimed().items()}
    write(tmp_path, "figure1", {key: median for key, median in cells.items() if key[:2] != ("de", "ackley")})
    found = judged(tmp_path, "C1")
    assert found.verdict == "not reproduced"
    assert found.paper.missing == {"de": {"Ackley, 30D": 0, "Ackley, 50D": 0}}
    assert "fails*" in verdicts.render([found], "table").split("C1")[1]


@pytest.mark.parametrize(("known", "outcome"), [(15, False), (14, None)])
def test_missing_runs_may_succeed_or_fail(known: int, outcome: bool | None, tmp_path: Path) -> None:
    """C4: half of 30 runs solve it, or those that are missing could."""
    cells = claimed()
    del cells["cmaes", "rosenbrock", 30]
    write(tmp_path, "figure1", cells)
    write(tmp_path, "figure1", {("cmaes", "rosenbrock", 30): -1.0}, seeds=known, settings_hash="b" * 12)
    assert judged(tmp_path, "C4").paper.holds is outcome


def test_decisions_hold_whatever_the_missing_tests_say() -> None:
    rng = np.random.default_rng(0)
    certain = 0
    for _ in range(60):
        p: list[float | None] = [float(value) for value in 10 ** rng.uniform(-3, 0, 4)]
        p[rng.integers(4)] = p[rng.integers(4)] = None
        answers = []
        for fill in itertools.product([0.0, 0.004, 0.012, 0.02, 0.04, 0.3, 1.0], repeat=p.count(None)):
            values = iter(fill)
            answers.append(stats.holm(np.array([next(values) if q is None else q for q in p])) < stats.ALPHA)
        for value, outcome, column in zip(p, decided(p), np.array(answers).T, strict=True):
            if value is None:
                assert outcome is None
            elif outcome is not None:
                certain += 1
                assert (column == outcome).all()
            else:
                assert set(column) == {True, False}, "it was decided"
    assert certain > 20
    assert decided([0.01, 0.02, 0.2]) == list(multipletests([0.01, 0.02, 0.2], method="holm")[0])


def test_of_several_settings_the_fullest_counts(tmp_path: Path) -> None:
    cells = claimed()
    write(tmp_path, "figure1", cells)
    wrong = {key: 0.1 for key in cells if key[0] == "ga"}
    write(tmp_path, "figure1", wrong, seeds=5, settings_hash="c" * 12)
    assert judged(tmp_path, "C1").paper.holds is True


def test_a_damaged_file_is_no_missing_evidence(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "figure1" / "runs").mkdir(parents=True)
    (tmp_path / "figure1" / "runs" / "x.parquet").write_bytes(b"no parquet")
    with refused("x.parquet", error=StoreError):
        judge(tmp_path)


# --- parts of the rules ------------------------------------------------------------------------


def test_stalled_runs() -> None:
    runs = pd.DataFrame(
        {"algo": "pso", "fn": "ackley", "dim": 30, "settings_hash": "a", "seed": range(5), "protocol": "paper"}
    ).assign(budget=1000, best_f=[20.0, 19.0, -5.0, 1e-9, np.nan], gap=[20.0, 19.0, 1.0, 1e-9, np.nan])
    identity = runs[["algo", "fn", "dim", "settings_hash", "seed"]]
    half = [20.01, 20.0, -4.0, 1e-9, np.inf]
    history = pd.concat(
        [
            identity.assign(evals=400.0, best_f=half),
            identity.assign(evals=900.0, best_f=[20.0, 19.0, -5.0, 1e-9, np.inf]),
        ]
    )
    # 0.05% better, 5% better, 25% better, solved, never finite
    assert stalled(history, runs).tolist() == [True, False, False, False, True]


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not beside the project")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_quotes_are_the_papers(claim: Any) -> None:
    def plain(text: str) -> str:
        return re.sub(r"\s+", " ", re.sub(r"[$`*\\]|times", "", text)).replace("×", "").replace("3 faster", "3faster")

    paper = plain(PAPER.read_text())
    for passage in claim.quote.split(" [...] "):
        assert plain(passage) in paper


def test_ablations_are_shipped_configs() -> None:
    shipped = {path.stem for path in shipped_configs().glob("*.yaml")}
    assert {name for claim in CLAIMS for name in claim.ablations} <= shipped


# --- the page ----------------------------------------------------------------------------------


def test_the_page_fits_a_terminal_and_has_everything(judgements: list[Judgement], tmp_path: Path) -> None:
    for page in (judgements, judge(tmp_path)):
        text = verdicts.render(page, "table")
        assert max(map(len, text.splitlines())) <= 100
        assert "\x1b" not in text
        squeezed = re.sub(r"\s+", " ", text)
        for judgement in page:
            assert f"{judgement.claim.id} {judgement.claim.sentence}: {judgement.verdict}" in squeezed
            assert judgement.claim.rule in squeezed
            assert judgement.claim.why in squeezed
            assert (judgement.paper.command in squeezed) == bool(judgement.paper.missing)


def test_markdown_has_rectangular_tables(judgements: list[Judgement]) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", verdicts.render(judgements, "markdown"), re.MULTILINE)
    assert len(blocks) == 1 + 2 * 6 + 1
    for block in blocks:
        assert len({re.sub(r"\\\|", "", row).count("|") for row in block.splitlines()}) == 1


def test_json_is_strict_and_complete(judgements: list[Judgement], tmp_path: Path) -> None:
    for page, holds in ((judgements, True), (judge(tmp_path), None)):
        content = json.loads(verdicts.render(page, "json"), parse_constant=pytest.fail)
        assert [claim["id"] for claim in content] == [f"C{number}" for number in range(1, 8)]
        assert content[4]["fair"] is None
        assert {part["holds"] for part in content[0]["paper"]["parts"]} == {holds}


def test_an_unknown_format_is_refused(refused: Refused) -> None:
    with refused("'html'", "markdown"):
        verdicts.render([], "html")  # type: ignore[arg-type]
