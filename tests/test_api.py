"""`evobench.minimize` on functions of every kind."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import evobench
from evobench.evograd import loop

CENTRE = np.array([1.0, -2.0, 0.5])


def torch_bowl(x):
    return (x - torch.as_tensor(CENTRE)).square().sum(-1)


def numpy_bowl(x):
    return ((x - CENTRE) ** 2).sum(axis=-1)


def scipy_bowl(x):
    assert x.ndim == 1
    return sum((float(a) - float(b)) ** 2 for a, b in zip(x, CENTRE, strict=True))


def minimize(function, algorithm, **options):
    return evobench.minimize(
        function, algorithm, **{"bounds": (-5, 5), "dim": 3, "seeds": 3, "budget": 3000, **options}
    )


@pytest.mark.parametrize("algorithm", ["cmaes_guarded", "pso_diff", "ga_released", "de_plain", "cmaes", "de"])
def test_every_backend_and_variant_finds_the_bowls_ground(algorithm):
    result = minimize(torch_bowl, algorithm, pop=20)
    assert result.x.shape == (3, 3)
    assert result.fun.shape == result.nfev.shape == result.njev.shape == (3,)
    np.testing.assert_allclose(result.fun, [torch_bowl(torch.from_numpy(x)) for x in result.x], rtol=1e-12)
    point, value = result.best
    assert value == result.fun.min() == torch_bowl(torch.from_numpy(point))
    np.testing.assert_allclose(point, CENTRE, atol=0.5 if algorithm == "ga_released" else 0.05)
    assert (result.nfev <= 3000).all()
    assert (result.njev > 0).all() == algorithm.endswith(("diff", "guarded", "released"))


def stepped_bowl(x):
    """Torch's, but without a gradient to the points."""
    return torch_bowl(x.detach())


@pytest.mark.parametrize("function", [numpy_bowl, scipy_bowl, stepped_bowl])
def test_a_function_without_gradient_runs_as_the_plain_twin_and_says_so(function):
    with pytest.warns(UserWarning, match=f"'{function.__name__}' is not differentiable.* pso_diff runs as pso_plain"):
        result = minimize(function, "pso_diff", pop=20)
    assert set(result.runs["algo"]) == {"pso_plain"}
    assert (result.njev == 0).all()
    plain = minimize(torch_bowl, "pso_plain", pop=20)
    np.testing.assert_allclose(result.fun, plain.fun, rtol=1e-9)


def test_a_differentiable_function_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        minimize(torch_bowl, "pso_diff", pop=20, budget=400)


def test_each_run_is_its_seeds():
    """The same numbers alone and together; seeds as the command line has them."""
    together = minimize(torch_bowl, "cmaes_diff", seeds="2-4", pop=20)
    alone = minimize(torch_bowl, "cmaes_diff", seeds=[3], pop=20)
    assert together.seeds.tolist() == [2, 3, 4]
    assert alone.fun[0] == together.fun[1]


def test_bounds_of_every_form():
    pairs = [(-5, 5), (-1.5, 7), (0, 1)]
    result = evobench.minimize(torch_bowl, "de_diff", bounds=pairs, seeds=2, budget=2000, pop=20)
    assert ((result.x >= [-5, -1.5, 0]) & (result.x <= [5, 7, 1])).all()
    np.testing.assert_allclose(result.best[0], [1, -1.5, 0.5], atol=0.1)  # the ground is outside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": (5, -5)}, "every low must be less than its high"),
        ({"bounds": (0, np.inf)}, "both finite"),
        ({"bounds": "wide"}, "bad bounds 'wide'"),
        ({"bounds": [(0, 1), (0, 1)]}, "2 pairs for 3 coordinates"),
        ({"bounds": (0, 1), "dim": None}, "bad dim None"),
        ({"bounds": (0, 1), "dim": 2.5}, "bad dim 2.5"),
        ({"algorithm": "all"}, "unknown algorithm 'all'"),
        ({"algorithm": "sgd"}, "unknown algorithm 'sgd'"),
        ({"budget": 5}, "budget 5 is smaller"),
        ({"seeds": []}, "bad seeds"),
        ({"settings": {"speed": 1}}, "unknown setting 'speed'"),
    ],
)
def test_bad_arguments_are_one_sentence(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        minimize(torch_bowl, options.pop("algorithm", "pso_diff"), **options)
    assert len(str(caught.value).splitlines()) == 1


def hopeless(x):
    raise TypeError("no")


def test_a_function_that_takes_nothing_of_the_kind():
    with pytest.raises(ValueError, match="'hopeless' failed on a tensor"):
        minimize(hopeless, "pso_diff")


def test_history_figure_and_callback(monkeypatch):
    monkeypatch.setattr(loop, "_PROGRESS_EVERY", 0.0)
    told = []
    result = minimize(torch_bowl, "pso_diff", budget=60_000, callback=lambda share, best: told.append((share, best)))
    assert result.history["evals"].max() == 60_000
    assert len(told) > 10
    assert all(0 < share <= 1 for share, _ in told)
    assert told == sorted(told, key=lambda pair: (pair[0], -pair[1]))
    figure = result.plot()
    assert figure.axes[0].lines
    assert "sphere" not in figure.axes[0].get_title().lower()


@pytest.mark.parametrize("algorithm", ["pso_diff", "pso", "pycma"])
def test_a_callback_ends_it(algorithm, monkeypatch):
    """As in SciPy; what was found is kept, and it is said why it ended."""
    monkeypatch.setattr(loop, "_PROGRESS_EVERY", 0.0)
    shares = []

    def enough(share, best):
        shares.append(share)
        return len(shares) == 3

    result = minimize(torch_bowl, algorithm, budget=10_000, pop=20, callback=enough)
    assert len(shares) == 3
    assert (result.runs["stop_reason"] == "callback").all()
    assert result.seeds.tolist() == ([0, 1, 2] if algorithm == "pso_diff" else [0])  # the others had not begun
    assert (result.nfev < 200).all()
    last = result.history.groupby("seed")["evals"].max()
    assert (last == result.nfev).all()
    np.testing.assert_array_equal(result.history.groupby("seed")["best_f"].min(), result.fun)
    assert result.plot().axes[0].lines


def test_the_example_runs(tmp_path):
    example = Path(__file__).parents[1] / "examples" / "minimize.py"
    done = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "best value" in done.stdout
    assert (tmp_path / "valley.png").stat().st_size > 10_000
