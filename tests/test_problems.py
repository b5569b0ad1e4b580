"""The objective functions against independent implementations, their gradients, shifts, and users' own."""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path

import mpmath
import numpy as np
import pymoo.problems.single as pymoo_problems
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evobench.problems import (
    FUNCTIONS,
    PAPER_FUNCTIONS,
    Problem,
    _product,
    check_differentiable,
    draw_rotation,
    draw_shift,
    make_problem,
)

NAMES = tuple(name for name, function in FUNCTIONS.items() if function.dim is None)


# The definitions once more, in NumPy and analytic, so that complex arguments give exact derivatives.


def ackley(x):
    d = x.shape[-1]
    return (
        -20 * np.exp(-0.2 * np.sqrt((x * x).sum(-1) / d)) - np.exp(np.cos(2 * np.pi * x).sum(-1) / d) + 20 + np.exp(1)
    )


def michalewicz(x):
    i = np.arange(1, x.shape[-1] + 1)
    return -(np.sin(x) * np.sin(i * x * x / np.pi) ** 20).sum(-1)


def rosenbrock(x):
    return scipy.optimize.rosen(np.moveaxis(x, -1, 0))


def griewank(x):
    return 1 + (x * x).sum(-1) / 4000 - np.prod(np.cos(x / np.sqrt(np.arange(1, x.shape[-1] + 1))), -1)


def sphere(x):
    return (x * x).sum(-1)


def rastrigin(x):
    return 10 * x.shape[-1] + (x * x - 10 * np.cos(2 * np.pi * x)).sum(-1)


def size(x):
    """|x|, analytic beside 0."""
    return x * np.sign(x.real)


def schwefel(x):
    inside = np.where(np.abs(x.real) > 500, 500 * np.sign(x.real), x)
    return (418.9828872724338 - inside * np.sin(np.sqrt(size(inside))) + (x - inside) ** 2).sum(-1)


def schwefel_2_22(x):
    return size(x).sum(-1) + np.prod(size(x), -1)


def levy(x):
    w = 1 + (x - 1) / 4
    terms = [(v - 1) ** 2 * (1 + 10 * np.sin(np.pi * v + 1) ** 2) for v in np.moveaxis(w, -1, 0)[:-1]]
    last = (w[..., -1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[..., -1]) ** 2)
    return np.sin(np.pi * w[..., 0]) ** 2 + sum(terms) + last


def zakharov(x):
    weighted = x @ (np.arange(1, x.shape[-1] + 1) / 2)
    return (x * x).sum(-1) + weighted**2 + weighted**4


def ellipsoid_rotated(x):
    dim = x.shape[-1]
    z = np.einsum("...i,ij->...j", x, draw_rotation(dim))
    return (1000.0 ** (2 * np.arange(dim) / max(dim - 1, 1)) * z * z).sum(-1)


REFERENCE = {
    f.__name__: f
    for f in (
        *(ackley, michalewicz, rosenbrock, griewank, sphere),
        *(rastrigin, schwefel, schwefel_2_22, levy, zakharov, ellipsoid_rotated),
    )
}


def points(name: str, dim: int, *batch: int) -> np.ndarray:
    """Uniform in the box, the same for every call."""
    function = FUNCTIONS[name]
    return np.random.default_rng([NAMES.index(name), dim]).uniform(function.lower, function.upper, (*batch, dim))


def exact_gradient(name: str, x: np.ndarray) -> np.ndarray:
    """Complex-step derivative of the reference at one point: no subtraction, so no rounding to speak of."""
    step = 1e-40
    z = x + 1j * step * np.eye(len(x))
    return np.imag(REFERENCE[name](z)) / step


def gradient(problem: Problem, x: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    return torch.autograd.grad(problem(x).sum(), x)[0]


# Values


@pytest.mark.parametrize("dim", [2, 3, 7, 30, 50, 500])
@pytest.mark.parametrize("name", NAMES)
def test_values_match_numpy(name, dim):
    x = points(name, dim, 16)
    tolerance = 1e-7 if name == "michalewicz" else 1e-12  # a phase of 1e6 carries 1e-10, times a slope of 20
    np.testing.assert_allclose(make_problem(name, dim)(x), REFERENCE[name](x), rtol=1e-12, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        *(("ackley", "Ackley"), ("griewank", "Griewank"), ("rosenbrock", "Rosenbrock")),
        *(("rastrigin", "Rastrigin"), ("zakharov", "Zakharov")),
    ],
)
@pytest.mark.parametrize("dim", [2, 30])
def test_values_match_pymoo(name, peer, dim):
    x = points(name, dim, 16)
    expected = getattr(pymoo_problems, peer)(n_var=dim).evaluate(x)[:, 0]
    np.testing.assert_allclose(make_problem(name, dim)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_michalewicz_at_500d_is_computed_in_float64(dtype):
    """In float32 the phase i·x²/π would be off by up to 0.125 rad: another function."""
    x = torch.tensor(points("michalewicz", 500, 3), dtype=dtype)
    values = make_problem("michalewicz", 500)(x)
    with mpmath.workdps(40):
        for row, value in zip(x.tolist(), values.tolist(), strict=True):
            terms = (
                mpmath.sin(v) * mpmath.sin((i + 1) * mpmath.mpf(v) ** 2 / mpmath.pi) ** 20 for i, v in enumerate(row)
            )
            assert value == pytest.approx(float(-mpmath.fsum(terms)), abs=1e-7)


@pytest.mark.parametrize("dim", [2, 5, 30, 50, 500])
@pytest.mark.parametrize("name", [name for name in NAMES if FUNCTIONS[name].x_opt is not None])
def test_known_optima(name, dim):
    problem = make_problem(name, dim)
    assert problem(problem.x_opt) == pytest.approx(problem.f_opt, abs=1e-15)
    around = problem.x_opt + np.random.default_rng(0).normal(0, 0.01, (200, dim))
    assert (problem(around) > problem.f_opt).all()
    assert (problem(points(name, dim, 200)) > problem.f_opt).all()


def test_michalewicz_has_no_known_optimum_on_this_box():
    problem = make_problem("michalewicz", 5)
    assert problem.x_opt is None
    assert problem.f_opt is None
    # On the usual [0, π]² the tabulated minimum is -1.8013 at (2.20, 1.57).
    assert make_problem("michalewicz", 2)(np.array([2.202906, 1.570796])) == pytest.approx(-1.8013, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (0,), (4,), (2, 3), (2, 0, 3), (1, 1, 1, 2)])
def test_any_batch_shape_and_float64_out(name, kind, batch):
    x = points(name, 6, *batch).astype(np.float32)
    if isinstance(kind, torch.dtype):
        value = make_problem(name, 6)(torch.tensor(x, dtype=kind))
        assert value.dtype is torch.float64
    else:
        value = make_problem(name, 6)(x.astype(kind))
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.float64
    assert tuple(value.shape) == batch
    np.testing.assert_allclose(np.asarray(value), REFERENCE[name](x.astype(np.float64)), rtol=1e-11, atol=1e-9)


@given(
    name=st.sampled_from(NAMES),
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5),
        elements=st.floats(-100, 100, allow_subnormal=True),
    ),
)
def test_everywhere_in_the_box(name, x):
    """Finite values and gradients, not below the optimum, the same for tensors and arrays, row by row."""
    problem = make_problem(name, x.shape[-1])
    values = problem(x)
    assert np.isfinite(values).all()
    if problem.f_opt is not None:
        assert (values >= problem.f_opt - 1e-15 * x.shape[-1]).all()
    np.testing.assert_array_equal(problem(torch.from_numpy(x)).numpy(), values)
    rows = [problem(row) for row in x.reshape(-1, x.shape[-1])]
    np.testing.assert_allclose(values.reshape(-1), rows, rtol=1e-12, atol=1e-9)
    assert gradient(problem, x).isfinite().all()
    assert gradient(problem, x, torch.float32).isfinite().all()


def test_arrays_need_not_be_contiguous():
    x = points("griewank", 8, 4)[::-1, ::2]
    np.testing.assert_allclose(make_problem("griewank", 4)(x), griewank(x))
    x = np.ones((2, 4))
    x.flags.writeable = False  # as parquet gives them
    np.testing.assert_allclose(make_problem("griewank", 4)(x), griewank(x))


def test_points_are_left_alone():
    for name in NAMES:
        x = torch.from_numpy(points(name, 5, 2)).contiguous()
        before = x.clone()
        make_problem(name, 5).shifted(np.ones(5))(x)
        assert torch.equal(x, before)


def test_wrong_width(refused):
    for x in (np.zeros((2, 4)), torch.zeros(2, 4), np.zeros(4)):
        with refused("ackley takes points of 3 coordinates, not 4"):
            make_problem("ackley", 3)(x)


# Gradients


@pytest.mark.parametrize("dim", [2, 3, 30, 500])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_exact(name, dim):
    for x in points(name, dim, 3):
        expected = exact_gradient(name, x)
        tolerance = 1e-8 * np.abs(expected).max() + 1e-12
        np.testing.assert_allclose(gradient(make_problem(name, dim), x).numpy(), expected, rtol=1e-8, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_finite_differences(name):
    x = torch.from_numpy(np.random.default_rng(1).uniform(-2, 2, (4, 3))).requires_grad_()
    assert torch.autograd.gradcheck(make_problem(name, 3), (x,), eps=1e-6, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_on_the_corners(name):
    for corner in itertools.product([-100.0, 100.0], repeat=3):
        x = np.array(corner)
        expected = exact_gradient(name, x)
        np.testing.assert_allclose(gradient(make_problem(name, 3), x).numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 30])
def test_ackleys_gradient_at_its_optimum_is_zero(dim):
    """The cone has no derivative there; 0, not NaN, keeps a run that sits on it alive."""
    x = np.zeros((2, dim))
    x[1] = 3.0  # a neighbour in the batch keeps its gradient
    found = gradient(make_problem("ackley", dim), x)
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_at_tiny_points_are_finite(name, dtype):
    for size in (0.0, 5e-324, 1e-310, 1e-200, 1e-162, 1e-100, 1e-45, 1e-40, 1e-20, 1e-8):
        for x in (np.full(4, size), np.array([size, 0, 0, 0]), np.array([-size, size, 1.0, 0])):
            found = gradient(make_problem(name, 4), x, dtype)
            assert found.isfinite().all(), (size, found)


def test_ackleys_slope_near_its_optimum():
    """4/√D towards the optimum, also where x² underflows to subnormals."""
    for size in (1e-3, 1e-8, 1e-20, 1e-100, 1e-150):
        found = gradient(make_problem("ackley", 4), np.array([size, 0, 0, 0]))
        assert found[0].item() == pytest.approx(2.0, rel=0.02), size


def test_gradients_where_griewanks_product_is_zero():
    dim = 6
    zeros = np.sqrt(np.arange(1, dim + 1)) * np.pi / 2
    base = np.linspace(-3, 4, dim)
    for count in (1, 2, 3, dim):  # from the second zero on the product's gradient is 0 everywhere
        x = base.copy()
        x[:count] = zeros[:count]
        found = gradient(make_problem("griewank", dim), x).numpy()
        np.testing.assert_allclose(found, exact_gradient("griewank", x), rtol=1e-12, atol=1e-15)


@given(
    hnp.arrays(np.float64, st.tuples(st.just(3), st.integers(1, 9)), elements=st.sampled_from([0.0, 1.0, -0.5, 2.0]))
)
def test_product_and_its_gradient_with_exact_zeros(x):
    ours, torchs = (torch.tensor(x, requires_grad=True) for _ in range(2))
    product, expected = _product(ours), torch.prod(torchs, -1)
    assert torch.equal(product, expected)
    product.sum().backward()
    expected.sum().backward()
    assert torch.equal(ours.grad, torchs.grad)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_float32_points_are_float32(name):
    found = gradient(make_problem(name, 3), np.ones((2, 3)), torch.float32)
    assert found.dtype is torch.float32
    assert found.shape == (2, 3)


# Shift


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_moves_the_function(name):
    shift = np.array([10.0, -20.0, 30.0])
    plain, shifted = make_problem(name, 3), make_problem(name, 3).shifted(shift)
    x = points(name, 3, 5)
    np.testing.assert_array_equal(shifted(x), plain(x - shift))
    if plain.x_opt is not None:
        assert shifted(plain.x_opt + shift) == pytest.approx(plain.f_opt, abs=1e-14)
    assert plain.shift is None, "the original is unchanged"


def test_every_seed_has_its_own_shift():
    problem = make_problem("rosenbrock", 4)
    shifts = np.stack([draw_shift(seed, problem, 60.0) for seed in range(3)])
    x = points("rosenbrock", 4, 3, 5)
    together = problem.shifted(shifts[:, None])(x)
    assert together.shape == (3, 5)
    for seed in range(3):
        np.testing.assert_array_equal(together[seed], problem.shifted(shifts[seed])(x[seed]))
    optimum = torch.from_numpy(problem.x_opt + shifts[:, None])
    assert problem.shifted(shifts[:, None])(optimum).abs().max() < 1e-20


def test_a_shift_of_float32_points_is_applied_in_float64():
    shift = np.full(2, 1 / 3)
    value = make_problem("sphere", 2).shifted(shift)(torch.zeros(2))
    assert value.item() == 2 * (1 / 3) ** 2


@given(seed=st.integers(0, 10**9 - 1), dim=st.integers(2, 40), half_width=st.floats(0, 100))
def test_shifts_lie_in_their_bounds(seed, dim, half_width):
    shift = draw_shift(seed, make_problem("ackley", dim), half_width)
    assert shift.shape == (dim,)
    assert shift.dtype == np.float64
    assert (np.abs(shift) <= half_width).all()


def test_shifts_depend_on_seed_and_dimension_only():
    draws = {(s, d): draw_shift(s, make_problem("ackley", d), 60.0).tolist() for s in range(20) for d in (2, 3)}
    np.random.seed(5)  # noqa: NPY002
    for (seed, dim), shift in draws.items():
        for name in NAMES:
            assert draw_shift(seed, make_problem(name, dim), 60.0).tolist() == shift
    flat = [value for shift in draws.values() for value in shift]
    assert len(set(flat)) == len(flat), "no two seeds or dimensions share a coordinate"
    assert max(flat) > 50, "the whole width is used"
    assert min(flat) < -50


def test_shifts_never_change():
    """The fair protocol's optima are not part of settings_hash: another stream would mix with stored rows."""
    expected = [57.00402645, 46.14806845, -32.16354801]
    np.testing.assert_allclose(draw_shift(7, make_problem("ackley", 3), 60.0), expected, rtol=1e-8)


# Rotation and what lies outside the box


@pytest.mark.parametrize("dim", [1, 2, 30])
def test_a_rotation_is_orthogonal(dim):
    rotation = draw_rotation(dim)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-13)
    assert dim < 2 or np.abs(rotation - np.eye(dim)).max() > 0.1


def test_rotations_never_change():
    """They are not part of settings_hash: others would mix with stored rows."""
    np.testing.assert_allclose(draw_rotation(2), [[0.41616819, -0.90928766], [-0.90928766, -0.41616819]], rtol=1e-7)


def test_the_rotated_ellipsoids_axes():
    """Along the rotation's columns the curvatures are 1 to 10⁶, for every run and wherever it is shifted."""
    rotation, shift = draw_rotation(5), np.arange(10.0).reshape(2, 1, 5) / 10
    problem = make_problem("ellipsoid_rotated", 5).shifted(shift)
    along = problem(shift + rotation.T)
    np.testing.assert_allclose(along, np.tile(10 ** np.linspace(0, 6, 5), (2, 1)), rtol=1e-9)


def test_rotated_runs_do_not_touch_each_other():
    problem = make_problem("ellipsoid_rotated", 30)
    x = torch.from_numpy(points("ellipsoid_rotated", 30, 6, 100))
    assert torch.equal(problem(x)[2:4], problem(x[2:4]))


def test_schwefel_is_worse_outside_its_box():
    """As written it falls without end there, below its minimum in the box."""
    x = np.linspace(-1500, 1500, 20_001)[:, None]
    values = make_problem("schwefel", 1)(x)
    assert (values >= 0).all()
    assert (values[np.abs(x[:, 0]) > 560] > 1000).all()


# The registry


def test_the_papers_functions_and_box():
    assert PAPER_FUNCTIONS == ("ackley", "michalewicz", "rosenbrock", "griewank")
    for name in PAPER_FUNCTIONS:
        problem = make_problem(name, 3)
        assert problem.lower.tolist() == [-100] * 3
        assert problem.upper.tolist() == [100] * 3
        assert FUNCTIONS[name].citation


def test_unknown_names_and_dimensions(refused):
    with refused("unknown function 'akley'", "ackley", "michalewicz"):
        make_problem("akley", 3)
    with refused("dimension 1", "rosenbrock", "at least 2"):
        make_problem("rosenbrock", 1)
    with refused("dimension 0", "at least 1"):
        make_problem("ackley", 0)
    with refused("unknown function"):
        make_problem("no\nsuch\x1bfunction", 3)


# Users' own functions


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module into the working directory and returns its name; nothing of it stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(source: str, module: str = "users_objectives") -> str:
        sys.modules.pop(module, None)
        (tmp_path / f"{module}.py").write_text("import torch\n" + textwrap.dedent(source))
        return module

    yield write
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_a_users_function_from_the_working_directory(user):
    name = user("""
        def bowl(x):
            '''A bowl.

            With a long description.
            '''
            return (x - 2).square().sum(-1)
        bowl.lower, bowl.upper, bowl.x_opt, bowl.f_opt, bowl.min_dim = -1, 5, 2, 0, 3
        def bare(x):
            return x.abs().sum(-1)
        bare.__doc__ = "   "
    """)
    problem = make_problem(f"{name}:bowl", 4)
    assert problem.lower.tolist() == [-1.0] * 4
    assert problem.upper.tolist() == [5.0] * 4
    assert problem.x_opt.tolist() == [2.0] * 4
    assert problem.f_opt == 0.0
    assert problem(np.ones((2, 4))).tolist() == [4.0, 4.0]
    assert problem(torch.ones(2, 4)).dtype is torch.float64
    check_differentiable(problem)
    with pytest.raises(ValueError, match="at least 3"):
        make_problem(f"{name}:bowl", 2)
    bare = make_problem(f"{name}:bare", 2)
    assert bare.lower.tolist() == [-100.0] * 2
    assert bare.x_opt is None
    assert bare.f_opt is None


def test_a_users_function_may_have_parameters_of_its_own(user):
    """NumPy points must not trip over a value that carries a graph."""
    name = user("""
        weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
        def weighted(x):
            return (weight * x).sum(-1)
    """)
    assert make_problem(f"{name}:weighted", 3)(np.ones((2, 3))).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(x): return x.sum()", ["not batched", "shape []", "shape [2, 3] is wanted"]),
        ("def f(x): return x", ["not batched", "shape [2, 3, 3]"]),
        ("def f(x): return 1.0", ["not batched", "a float"]),
        ("def f(x): return x.sum(-1).numpy()", ["not batched", "a ndarray"]),
        ("def f(x): return (x.sum(-1) > 0).long()", ["torch.int64", "floating-point"]),
        ("def f(x): return x.sum(-1) - x.mean()", ["not batched", "points beside it"]),
        ("def f(x): return x.sum(2)", ["failed on a tensor of shape [3]", "IndexError"]),
        ("def f(x): return x.sum(-1) if x.ndim > 1 else x", ["not batched", "shape [3]"]),
        ("def f(x): return x.sum(-1) if x.ndim > 1 else 0.0", ["not batched", "a float"]),
        ("def f(x): raise RuntimeError('one\\ntwo')", ["failed on a tensor", "RuntimeError: one two"]),
        ("def f(x): return x @ torch.ones(7, 1)", ["failed on a tensor"]),
        ("def f(x): return x.sub_(1).sum(-1)", ["in place"]),
        ("f = 3", ["is not a function"]),
        ("def g(x): return x", ["cannot load", "has no attribute 'f'"]),
        ("raise OSError('first\\nsecond')", ["cannot load", "OSError: first second"]),
        ("def f(x) return x", ["cannot load", "SyntaxError"]),
        ("import sys; sys.exit(3)", ["cannot load", "SystemExit"]),
        ("import no_such_package", ["cannot load", "no_such_package"]),
    ],
)
def test_what_is_wrong_with_a_users_function_in_one_sentence(user, refused, source, says):
    name = user(source)
    with refused(f"{name}:f", *says):
        make_problem(f"{name}:f", 3)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ("f.lower = 'low'", ["lower", "low"]),
        ("f.upper = [1, 2, 3]", ["upper", "[1, 2, 3]"]),
        ("f.lower, f.upper = 5, 5", ["lower", "upper"]),
        ("f.lower, f.upper = 5, -5", ["lower", "upper"]),
        ("f.upper = float('nan')", ["lower", "upper"]),
        ("f.lower = -float('inf')", ["lower", "upper"]),
        ("f.x_opt = [1, 2]", ["x_opt"]),
        ("f.x_opt = torch.zeros(40, 40)", ["x_opt"]),
        ("f.f_opt = 'zero'", ["f_opt", "zero"]),
        ("f.min_dim = 'two'", ["min_dim", "two"]),
    ],
)
def test_bad_attributes_of_a_users_function(user, refused, attributes, says):
    name = user(f"def f(x): return x.sum(-1)\n{attributes}")
    with refused(f"{name}:f", *says):
        make_problem(f"{name}:f", 3)


@pytest.mark.parametrize("name", ["no_such_module:f", "no.such.module:f", ":f", "math:", "math:pi", ".relative:f", ":"])
def test_names_that_load_nothing(refused, name, user):
    with refused(f"'{name}'"):
        make_problem(name, 3)


@pytest.mark.parametrize(
    "body",
    [
        "x.detach().sum(-1)",
        "torch.from_numpy(x.numpy()).sum(-1)",
        "torch.as_tensor(x.detach().numpy().sum(-1))",
        "torch.ones(x.shape[:-1], dtype=x.dtype, requires_grad=True) * 2",
    ],
)
def test_a_function_without_a_gradient(user, refused, body):
    name = user(f"def f(x): return {body}")
    problem = make_problem(f"{name}:f", 3)  # fine for pymoo
    assert problem(np.ones((2, 3))).shape == (2,)
    with refused(f"'{name}:f' is not differentiable", "_plain"):
        check_differentiable(problem)


@pytest.mark.parametrize("name", NAMES)
def test_registered_functions_pass_the_checks_of_users_functions(name):
    from evobench.problems import check_batched

    problem = make_problem(name, 5)
    check_batched(problem)
    check_differentiable(problem)
