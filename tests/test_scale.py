"""What scripts/bench_scale.py concludes from costs that are known, and what bench_speed.py draws of times."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import bench_scale
import bench_speed

RUNS, DIMS = [1, 3, 10, 30, 100, 300], [10, 30, 100, 300, 1000]


def table(columns, name, **rows):
    index = pd.MultiIndex.from_tuples([(family, False) for family in rows], names=["family", "compile"])
    return pd.DataFrame(list(rows.values()), index=index, columns=pd.Index(columns, name=name))


def shared(a, b):
    """Milliseconds of a generation: a lonely run is computed twice."""
    return [a + b * max(runs, 2) for runs in RUNS]


@pytest.mark.parametrize(("a", "b"), [(2.0, 0.2), (6.0, 0.01)])
def test_overhead_and_work_are_told_apart(a, b):
    assert bench_scale.fit(pd.Series(shared(a, b), index=RUNS)) == pytest.approx((a, b))


def test_models():
    assert bench_scale.slope(DIMS, [bench_scale.work("pso", dim) for dim in DIMS]) == pytest.approx(1)
    assert bench_scale.work("cmaes", 1000) == 1000**2 * 100 + 1000**3
    assert bench_scale.slope([100, 1000], [3.0, 300.0]) == pytest.approx(2)


def test_verdicts(capsys):
    """Ten times cheaper means an overhead of 12 runs at least; a generation's growth is held against its model."""
    by_runs = table(RUNS, "runs", pso=shared(12.1, 1), ga=shared(11.9, 1), de=[*shared(20, 1)[:-1], 400.0])
    cubic = [1e-6 * bench_scale.work("cmaes", dim) for dim in DIMS]
    by_dim = table(
        DIMS, "dim", pso=[9.0, 10, 20, 60, 200], ga=[1.0, 3, 10, 40, 160], cmaes=[5.0, 6, *cubic[2:4], np.nan]
    )
    bench_scale.report(by_runs, by_dim)
    lines = capsys.readouterr().out.splitlines()
    pso, ga, de = (line for line in lines if "cheaper" in line)
    assert "10.0 times cheaper among 30 (bar 10: met), and then falling, to 0.74 among 300; 12.10 ms + 1.000 ms" in pso
    assert pso.endswith(" a run, a/b = 12")
    assert "(bar 10: NOT met), and then falling" in ga
    assert "(bar 10: met), and then not falling, to 0.80 among 300" in de
    pso, ga, cmaes = (line for line in lines if "slope" in line)
    assert "slope 1.00" in pso
    assert pso.endswith("linear is 1: met")
    assert "slope 1.20" in ga
    assert ga.endswith("NOT met")
    assert cmaes.endswith(": met")
    assert "-" in next(line for line in lines if line.startswith("CMA-ES  ")).split()  # what was left out


def test_a_figure_of_both():
    """Every point is on a line, and what was left out on none."""
    by_runs = table(RUNS, "runs", pso=shared(2, 0.2), cmaes=shared(3, 0.1))
    by_dim = table(DIMS, "dim", pso=[1.0, 2, 3, 4, 5], cmaes=[1.0, 2, 3, 4, np.nan])
    left, right = bench_scale.draw(by_runs, by_dim).axes
    solid = [line for line in right.lines if line.get_linestyle() == "-"]
    assert [len(line.get_xdata()) for line in solid] == [5, 4]
    first = next(iter(left.lines)).get_ydata()
    assert list(first) == pytest.approx([cost / runs for cost, runs in zip(shared(2, 0.2), RUNS, strict=True)])


@pytest.mark.parametrize("runs", [2, 101])  # here; of the pool, in two batches
def test_a_measurement_is_a_run(runs):
    with ThreadPoolExecutor(1) as pool:
        one = bench_scale.Contestant("cmaes", runs, 5, compile=False, pool=pool)
        assert 0 < one.prepare(0.0) < 60
        assert one.generations == 5
        assert 0 < one.measure() < 60_000
    assert "pool" not in one.measured


@pytest.mark.parametrize("peers", [2.0, np.nan])  # NaN: no evosax at hand
def test_a_figure_of_speed(peers):
    """Rounds, and their median ratio: 100 and 20 times faster than pymoo, 0.5 and 2.5 times evosax's time."""
    rounds = pd.DataFrame({"compiled": [1.0, 2, 1], "evobench": 5.0, "pymoo": [100.0, 100, 100], "evosax": peers})
    measured = pd.concat(
        rounds.assign(algo=f"{family}_diff", dim=dim) for family in bench_speed.FAMILIES for dim in (30, 50)
    )
    left, right = bench_speed.draw(measured).axes
    for ax, expected in ((left, [100, 20]), (right, [1 / peers, 5 / peers])):
        medians = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("o", "s")]
        assert medians == pytest.approx(expected * 8, nan_ok=True)
        bars = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "-"]
        assert bars == list(bench_speed.BARS["pymoo" if ax is left else "evosax"].values())
    assert right.xaxis_inverted()
    assert [text.get_text() for text in left.get_yticklabels()] == ["PSO", "GA", "DE", "CMA-ES"]
