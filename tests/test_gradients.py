"""What `evobench gradients` reports, against the gradients themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from evobench.algorithms import ALGORITHMS
from evobench.cli import app
from evobench.experiment import make_experiment
from evobench.gradients import check, observe
from evobench.tasks import Task, execute

SMALL = {"fn": "ackley", "dim": 4, "pop": 10, "seeds": 3, "budget": 210, "dtype": "float64"}


def cell(algo, **changes):
    return make_experiment({**SMALL, "algo": algo, **changes}).cells()[0]


def report(algo, seeds=(0, 1, 2), **changes):
    return observe(cell(algo, **changes), seeds).set_index("parameter")


def fates(algo, **changes):
    return report(algo, **changes)["fate"].to_dict()


@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,)])
@pytest.mark.parametrize("algo", ["pso_diff", "ga_released", "cmaes_diff"])
def test_numbers_are_those_of_the_gradients(algo, seeds):
    seen = []
    records = execute(
        Task(cell(algo), seeds), lambda share, best: None, watch=lambda params, grads: seen.append((params, grads))
    )
    found = report(algo, seeds)
    assert len(seen) == records[0].g_evals
    assert not found.loc[found.index.difference(seen[0][0]), "reached"].any()
    for name in seen[0][0]:
        pairs = [(p[name][run].numpy(), g[name][run].numpy()) for p, g in seen for run in range(len(seeds))]
        there = [(p, g) for p, g in pairs if g.any()]
        row = found.loc[name]
        assert row["steps"] == len(pairs) == records[0].g_evals * len(seeds)
        assert row["reached"] == pytest.approx(len(there) / len(pairs))
        if not there:
            assert row["fate"] == "dead"
            continue
        assert row["entries"] == pytest.approx(np.mean([(g != 0).mean() for _, g in there]))
        norms = sorted(float(np.sqrt((g**2).sum())) for _, g in there)
        assert row["norm_q1"] <= row["norm"] <= row["norm_q3"]
        assert min(abs(row["norm"] - norm) for norm in norms) < 1e-12
        assert sum(norm <= row["norm"] for norm in norms) == pytest.approx(len(norms) / 2, abs=1.1)
        with np.errstate(divide="ignore"):
            relative = [np.sqrt((g**2).sum() / (p**2).sum()) for p, g in there]
        assert np.quantile(relative, 0.2, method="lower") <= row["relative_q1"] <= row["relative"]


def test_watching_changes_nothing():
    task = Task(cell("pso_diff"), (0, 1, 2))
    watched = execute(task, lambda share, best: None, watch=lambda params, grads: None)
    for one, other in zip(watched, execute(task, lambda share, best: None), strict=True):
        np.testing.assert_array_equal(one.history, other.history)
        np.testing.assert_array_equal(one.best_x, other.best_x)


def test_what_becomes_of_each_parameter():
    solutions = ["mean", "log_sigma", "factor"]
    for variant, fate in (("diff", "learned"), ("released", "overwritten"), ("guarded", "not learned")):
        found = fates(f"cmaes_{variant}")
        assert {found.pop(name) for name in solutions} == {fate}
        assert set(found.values()) == {"dead"}, "rates and damping act on later generations alone"
    assert fates("pso_diff", settings={"pso_diff": {"fixed": ["c1"]}})["c1"] == "not learned"
    assert fates("pso_released")["x"] == "overwritten"
    assert fates("pso_released")["omega"] == "learned"
    released = fates("ga_released")
    assert released["crossover_logit"] == released["selection_logit"] == "not learned"


def test_unrolled_constants_are_alive():
    for unroll in (2, 5):
        found = report("cmaes_diff", budget=600, settings={"cmaes_diff": {"unroll": unroll}})
        assert set(found["fate"]) == {"learned"}
        assert (found["reached"] > 0.9).all()
        assert set(found["steps"]) == {3 * (600 // (10 * unroll))}


def test_only_one_particle_learns_in_a_generation():
    found = report("pso_diff")
    assert found["entries"].to_dict() == pytest.approx(dict.fromkeys(found.index, 1 / 10))


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A working directory with a function whose gradient is 0 everywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "stairs.py").write_text("def f(x):\n    return x.floor().square().sum(-1)\n")
    (tmp_path / "opaque.py").write_text("def f(x):\n    return x.detach().square().sum(-1)\n")
    yield tmp_path
    for module in ("stairs", "opaque"):
        sys.modules.pop(module, None)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("algo", ["pso_diff", "cmaes_released"])
def test_without_a_slope_everything_is_dead(algo):
    found = report(algo, fn="stairs:f")
    assert set(found["fate"]) == {"dead"}
    assert (found["reached"] == 0).all()
    assert found["norm"].isna().all()


def call(line: str):
    return CliRunner().invoke(app, line.split(), prog_name="evobench", catch_exceptions=False)


def test_from_the_command_line(steps: Path):
    before = sorted(steps.iterdir())
    result = call("gradients --algo pso_diff,cmaes_released --dim 3 --seeds 2 --budget 500 --set pso_diff.fixed=[c1]")
    assert result.exit_code == 0, result.output
    assert "pso_diff ackley 3D: 2 runs of 500 evaluations" in result.stdout
    assert "not learned here: c1" in result.stdout
    assert "overwritten (the commit undoes the step): mean, log_sigma, factor" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert (
        "dead (no gradient ever): x, omega, c1, c2"
        in call("gradients --algo pso_diff --fn stairs:f --dim 3 --seeds 2 --budget 500").stdout
    )
    assert [path for path in sorted(steps.iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--algo nope", "unknown algorithm 'nope'"),
        ("--algo pso_diff,pso_plain", "pso_plain takes no gradient: choose from ga_diff"),
        ("--algo pso_diff --fn opaque:f", "'opaque:f' is not differentiable"),
        ("--algo pso_diff --budget 3", "budget 3"),
        ("--algo pso_diff --protocol odd", "'odd'"),
        ("", "--algo"),
    ],
)
def test_bad_flags(flags: str, says: str):
    result = call(f"gradients {flags}")
    assert result.exit_code == 2
    assert not result.stdout
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("algo", [name for name in ALGORITHMS if not ALGORITHMS[name].needs_gradient])
def test_algorithms_without_gradient_are_refused(algo, refused):
    with refused(f"{algo} takes no gradient"):
        check(cell(algo))


def test_a_watch_sees_finite_gradients():
    seen: list[torch.Tensor] = []
    task = Task(cell("de_diff", fn="rosenbrock"), (0,))
    execute(task, lambda share, best: None, watch=lambda params, grads: seen.extend(grads.values()))
    assert all(bool(grad.isfinite().all()) for grad in seen)
