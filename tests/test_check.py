"""`evobench check`: it passes on this code, sees deliberate faults, and its p values are what they claim."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Refused
from scipy.stats import mannwhitneyu
from typer.testing import CliRunner

from evobench import check, runner
from evobench.cli import app

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_summary(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def call(line):
    return CliRunner().invoke(app, line.split(), prog_name="evobench", catch_exceptions=False)


def sample(values, algo="pso_diff", first=0, settings_hash="x"):
    seeds = range(first, first + len(values))
    return pd.DataFrame(
        {"algo": algo, "fn": "ackley", "dim": 4, "seed": seeds, "settings_hash": settings_hash, "best_f": values}
    )


def test_every_fault_is_seen():
    """Copies of the package with a fault each, on the smallest part of the check, to the bit and by distribution."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_power.py", "--quick"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = re.findall(r"^(\w.*): 1 cells to the bit, 1 by distribution$", done.stdout, re.M)
    assert len(seen) == 6, done.stdout


def test_this_code_passes(tmp_path, monkeypatch):
    """Fresh seeds by distribution anywhere; the reference's seeds to the bit where its platform is."""
    fresh = call("check --algo cmaes_plain,pso_diff --fn griewank --seeds 5000-5099 --jobs 1")
    assert fresh.exit_code == 0, fresh.output
    assert "all 2 cells as in the reference, compared by distribution" in fresh.stdout
    if check.same_platform(check.load(check.REFERENCE).origin):
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
        (tmp_path / "step.md").write_text("before\n")
        same = call("check --algo pso_diff --fn griewank --jobs 1")
        assert same.exit_code == 0, same.output
        assert "compared to the bit" in same.stdout
        assert (tmp_path / "step.md").read_text().startswith("before\n### evobench check\n")


def test_the_reference_is_of_the_present_settings():
    """Or every cell would fail: --update was forgotten."""
    known = check.load(check.REFERENCE)
    experiment = check.check_set(check.ALGOS, check.FNS, check.SEEDS)
    hashes = {cell.key[:3]: cell.settings_hash for cell in experiment.cells()}
    assert {tuple(key): set(rows["settings_hash"]) for key, rows in known.runs.groupby(check.KEY)} == {
        key: {value} for key, value in hashes.items()
    }
    assert known.runs.groupby(check.KEY)["seed"].nunique().eq(check.REFERENCE_SEEDS).all()
    assert np.isfinite(known.runs["best_f"]).all()
    assert set(check.PLATFORM) <= set(known.origin)


def test_an_own_reference_and_a_failing_check(tmp_path):
    """Made, found again, spoiled: exit 1, a table that names cell, size and direction, and a summary."""
    own = tmp_path / "own.parquet"
    line = f"check --algo pso_plain --fn ackley --reference {own} --jobs 1"
    assert call(f"{line} --update --seeds 100").exit_code == 0
    assert call(line).exit_code == 0  # the same machine: to the bit
    known = check.load(own)
    assert known.origin["torch_version"] == runner.provenance()["torch_version"]
    check.save(known.runs.assign(best_f=known.runs["best_f"] / 1000), own)
    for by, finding in (
        ("exact", "is not the same to the bit: 100% of runs"),
        ("distribution", "another distribution"),
    ):
        failed = call(f"{line} --by {by} --summary {tmp_path / 'summary.md'}")
        assert failed.exit_code == 1
        text = " ".join(failed.stdout.split())
        for part in ("pso_plain ackley 4D", "worse in", "1 of 1 cells failed"):
            assert part in text
        assert finding in (tmp_path / "summary.md").read_text()
        assert "| pso_plain ackley 4D |" in (tmp_path / "summary.md").read_text()


def test_refusals(tmp_path, refused: Refused):
    with refused("no reference", "--update"):
        check.load(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_text("no")
    with refused("is not a reference of evobench check"):
        check.load(tmp_path / "bad.parquet")
    for line, text in (
        ("check --update --algo pso_diff", "would lose the rest"),
        ("check --by exact --seeds 5000-5001 --algo pso_diff --fn ackley", "needs the reference's seeds"),
        ("check --algo sgd", "unknown algorithm 'sgd'"),
    ):
        result = call(line)
        assert (result.exit_code, result.stdout) == (2, "")
        assert text in result.stderr


def test_compare_says_what_is_wrong():
    rng = np.random.default_rng(0)
    before = rng.normal(size=400)
    known = pd.concat([sample(before), sample(before, "ga_diff"), sample(before, "de_diff", settings_hash="old")])
    now = pd.concat(
        [sample(before[:100]), sample(before[:100] + 1, "ga_diff"), sample(before[:100], "de_diff"), sample([1.0], "x")]
    )
    table = check.compare(now, known, exact=False).set_index("algo")
    assert table["finding"].tolist() == [
        "",
        "has another distribution",
        "has other settings than the reference",
        "is not in the reference",
    ]
    assert table.loc["ga_diff", "worse"] > 0.6 > table.loc["pso_diff", "worse"] > 0.4
    exact = check.compare(now[now["algo"] != "x"], known, exact=True).set_index("algo")
    assert exact["changed"].fillna(-1).tolist() == [0, 1, -1]
    one = sample(np.where(np.arange(100) == 7, np.nextafter(before[:100], 9), before[:100]))
    assert check.compare(one, known, exact=True)["changed"].tolist() == [0.01]


@pytest.mark.parametrize("change", [lambda x: x + 0.65, lambda x: x * 3, lambda x: np.full_like(x, x[0])])
def test_power_against_shift_spread_and_one_value(change):
    """Among 32 cells, a shift of 0.65 standard deviations, a threefold spread, or a hundred times one run."""
    rng = np.random.default_rng(1)
    known = pd.concat([sample(rng.normal(size=400), f"a{n}") for n in range(32)])
    now = pd.concat([sample(rng.normal(size=100), f"a{n}", 1000) for n in range(1, 32)])
    now = pd.concat([sample(change(rng.normal(size=100)), "a0", 1000), now])
    table = check.compare(now, known, exact=False)
    assert table.loc[table["finding"] != "", "algo"].tolist() == ["a0"]


def test_false_alarms_are_as_rare_as_claimed():
    """60 clean checks of 4 cells at 50 times the rate: no more alarms than that rate explains."""
    rng, alarms = np.random.default_rng(2), 0
    known = pd.concat([sample(rng.lognormal(size=100), f"a{n}") for n in range(4)])
    for _ in range(60):
        now = pd.concat([sample(rng.lognormal(size=25), f"a{n}", 1000) for n in range(4)])
        alarms += bool((check.compare(now, known, exact=False)["p"] < 50 * check.FALSE_ALARM).any())
    assert alarms <= 9  # 3 are expected at most; 10 would have probability 0.0007


def test_the_normal_approximation_is_no_bolder_than_the_exact_test_in_its_tail():
    """Where the verdict falls, at p near 1e-5."""
    after, tail = np.arange(20) - 0.5, []
    for offset in range(-10, 0):
        before = np.arange(80) + offset + 0.25
        exact, approximate = (mannwhitneyu(after, before, method=how).pvalue for how in ("exact", "asymptotic"))
        if 1e-7 < exact < 1e-3:
            tail.append(approximate / exact)
    assert len(tail) >= 2
    assert min(tail) >= 0.8, tail
