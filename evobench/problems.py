"""Objective functions: what is minimised, where its optimum lies, and who defined it.

A `Problem` maps points `[..., dim]` to values `[...]`, for torch tensors and NumPy arrays alike.
Values are float64 whatever the dtype of the points: Michalewicz's phase i·x²/π reaches 1.6e6 at
500D on this box, where float32 resolves only 0.125 rad.

To add a function: write it for tensors `[..., dim]`, then add a line to `FUNCTIONS`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

BOX = (-100.0, 100.0)
"""The paper's search box in every coordinate (paper §3)."""


def ackley(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Ackley's function, a = 20, b = 0.2, c = 2π. Its gradient at the optimum is 0, not NaN."""
    root_mean_square = torch.linalg.vector_norm(x, dim=-1) / math.sqrt(x.shape[-1])
    waves = torch.cos(2 * math.pi * x).mean(-1)
    return -20 * torch.exp(-0.2 * root_mean_square) - torch.exp(waves) + (20 + math.e)


def michalewicz(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Michalewicz's function, steepness m = 10."""
    index = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    power = torch.sin(index * x.square() / math.pi).square()  # sin²
    power = power * power.square().square()  # sin^10
    return -(torch.sin(x) * power.square()).sum(-1)


def rosenbrock(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Rosenbrock's function, the chained form over all consecutive pairs."""
    head, tail = x[..., :-1], x[..., 1:]
    return (100 * (tail - head.square()).square() + (1 - head).square()).sum(-1)


def griewank(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Griewank's function."""
    index = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    return 1 + x.square().sum(-1) / 4000 - _product(torch.cos(x / index.sqrt()))


def sphere(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """The sphere, Σ x². Every sound optimiser solves it: used by the tests."""
    return x.square().sum(-1)


def _product(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Product over the last axis by halving.

    `torch.prod` counts zeros on the host in its backward pass, which would stall a GPU once a
    generation; this has an exact gradient at zeros and no synchronisation.
    """
    while (width := x.shape[-1]) > 1:
        half = width // 2
        paired = x[..., :half] * x[..., half : 2 * half]
        x = paired if width % 2 == 0 else torch.cat([paired, x[..., 2 * half :]], dim=-1)
    return x[..., 0]


@dataclass(frozen=True)
class Function:
    """A named objective, independent of dimension.

    `x_opt` is the optimum's coordinate (the same in every dimension) and `f_opt` its value; both
    are None where they are unknown on the box.
    """

    name: str
    evaluate: Callable[[Tensor], Tensor]
    x_opt: float | None
    f_opt: float | None
    citation: str
    lower: float = BOX[0]
    upper: float = BOX[1]
    min_dim: int = 1


FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (
        Function(
            "ackley",
            ackley,
            x_opt=0.0,
            f_opt=0.0,
            citation="D. H. Ackley, A Connectionist Machine for Genetic Hillclimbing, Kluwer, 1987",
        ),
        Function(
            "michalewicz",
            michalewicz,
            x_opt=None,
            f_opt=None,
            citation="Z. Michalewicz, Genetic Algorithms + Data Structures = Evolution Programs, 1992",
        ),
        Function(
            "rosenbrock",
            rosenbrock,
            x_opt=1.0,
            f_opt=0.0,
            min_dim=2,
            citation="H. H. Rosenbrock, The Computer Journal 3(3):175-184, 1960",
        ),
        Function(
            "griewank",
            griewank,
            x_opt=0.0,
            f_opt=0.0,
            citation="A. O. Griewank, J. Optimization Theory and Applications 34:11-39, 1981",
        ),
        Function(
            "sphere",
            sphere,
            x_opt=0.0,
            f_opt=0.0,
            citation="K. A. De Jong, PhD thesis, University of Michigan, 1975 (F1)",
        ),
    )
}

PLUGGED = {
    entry.name: f"{entry.module}:{entry.attr}"
    for entry in importlib.metadata.entry_points(group="evobench.problems")
    if entry.name not in FUNCTIONS
}
"""Functions of installed packages: short names (entry points) of `package.module:function`."""

PAPER_FUNCTIONS = ("ackley", "michalewicz", "rosenbrock", "griewank")
"""What `--fn all` means: the functions of Figure 1, in its order."""


@dataclass(frozen=True)
class Problem:
    """A function at one dimension, with its box and its shift.

    Attributes:
        lower, upper: box bounds, float64 `[dim]`, in the function's own units.
        shift: translation of the function, float64, `[dim]` or `[seeds, 1, dim]`, or None.
            The optimum of a shifted problem is at `x_opt + shift`.
        x_opt: location of the unshifted optimum, float64 `[dim]`, or None where unknown.
        f_opt: value at the optimum, or None where unknown.
    """

    name: str
    dim: int
    evaluate: Callable[[Tensor], Tensor] = field(repr=False)
    lower: np.ndarray = field(repr=False)
    upper: np.ndarray = field(repr=False)
    x_opt: np.ndarray | None = field(default=None, repr=False)
    f_opt: float | None = None
    shift: Tensor | None = field(default=None, repr=False)

    @overload
    def __call__(self, x: Tensor) -> Tensor: ...
    @overload
    def __call__(self, x: np.ndarray) -> np.ndarray: ...

    def __call__(self, x: Any) -> Any:
        """Objective values, float64 `[...]`, of points `[..., dim]` (tensor or array).

        Raises:
            ValueError: if the last axis of `x` is not `dim` long.
        """
        if isinstance(x, np.ndarray):
            # A copy: the array may be read-only or strided, and a user's function may change it.
            return self(torch.from_numpy(np.array(x, dtype=np.float64, order="C"))).detach().numpy()
        if x.shape[-1] != self.dim:
            raise ValueError(f"{self.name} takes points of {self.dim} coordinates, not {x.shape[-1]}")
        x = x.to(torch.float64)
        if self.shift is not None:
            x = x - self.shift
        return self.evaluate(x).to(torch.float64)

    def shifted(self, shift: np.ndarray) -> Problem:
        """The same problem translated by `shift`, `[dim]` or `[seeds, 1, dim]`."""
        return replace(self, shift=torch.as_tensor(np.asarray(shift, dtype=np.float64)))

    def to(self, device: torch.device | str) -> Problem:
        """The same problem with its tensors on `device`."""
        return self if self.shift is None else replace(self, shift=self.shift.to(device))


def draw_shift(seed: int, problem: Problem, half_width: float) -> np.ndarray:
    """The shift of one seed, uniform in ±`half_width` per coordinate, float64 `[dim]`.

    It depends on the seed and the dimension alone, so every algorithm of that seed, pymoo's too,
    meets the same problem.
    """
    return np.random.default_rng([seed, problem.dim]).uniform(-half_width, half_width, problem.dim)


def make_problem(name: str, dim: int) -> Problem:
    """The problem called `name` (a registered function or `package.module:function`) at `dim`.

    Raises:
        ValueError: if the name is unknown, the dimension is too small, or a user's function
            cannot be loaded or is not batched.
    """
    source = function_source(name)
    function = load_function(source) if source else FUNCTIONS.get(name)
    if function is None:
        raise ValueError(
            f"unknown function {name!r}: choose from {', '.join([*FUNCTIONS, *PLUGGED])}, "
            "or name your own as package.module:function"
        )
    if dim < function.min_dim:
        raise ValueError(f"dimension {dim} is too small for {name}: it needs at least {function.min_dim}")
    problem = Problem(
        name=name,
        dim=dim,
        evaluate=function.evaluate,
        lower=np.full(dim, function.lower),
        upper=np.full(dim, function.upper),
        x_opt=None if function.x_opt is None else np.full(dim, function.x_opt),
        f_opt=function.f_opt,
    )
    if source:
        check_batched(problem)
    return problem


def function_source(name: str) -> str:
    """The `package.module:function` that a name stands for; empty for the functions of this package."""
    return name if ":" in name else PLUGGED.get(name, "")


def problem_of(function: Callable[[Any], Any], lower: np.ndarray, upper: np.ndarray) -> Problem:
    """The problem of minimising any Python function in a box.

    The function may take a batch of points `[..., dim]` as a torch tensor, if autograd can follow it,
    or as a NumPy array, or a single point `[dim]` as SciPy's minimisers have it, which is slow.

    Raises:
        ValueError: if it takes none of these.
    """

    def arrays(x: Tensor) -> Tensor:
        return torch.as_tensor(np.asarray(function(x.detach().cpu().numpy()), dtype=np.float64), device=x.device)

    def points(x: Tensor) -> Tensor:
        flat = x.detach().cpu().reshape(-1, x.shape[-1]).numpy()
        values = np.array([float(function(point)) for point in flat])
        return torch.as_tensor(values, device=x.device).view(x.shape[:-1])

    name = getattr(function, "__name__", type(function).__name__)
    failures = []
    # A NumPy function may take a tensor without a graph, with warnings: arrays are what it wants.
    for evaluate, differentiable in ((function, True), (arrays, False), (function, False), (points, False)):
        problem = Problem(name, len(lower), evaluate, lower, upper)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                check_batched(problem)
                if differentiable:
                    check_differentiable(problem)
            return problem
        except ValueError as error:
            failures.append(error)
    raise failures[0]


def source_digest(name: str) -> str:
    """A digest of the module that defines a user's function: to edit it is to have another function."""
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):  # the package around it is not there
        spec = None
    path = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


def load_function(name: str) -> Function:
    """A user's function, `package.module:function`, importable from the working directory too.

    It takes a float64 tensor `[..., dim]` and returns `[...]`. Its optional attributes `lower`,
    `upper`, `x_opt`, `f_opt` and `min_dim` set what the attributes of `Function` mean.

    Raises:
        ValueError: if the module or the function does not exist, it is not callable, or one of its
            attributes makes no sense.
    """
    module_name, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        evaluate = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way while it is imported
        raise ValueError(f"cannot load the function {name!r}: {_one_line(error)}") from error
    if not callable(evaluate):
        raise ValueError(f"{name!r} is not a function")

    def number(key: str, default: float | None) -> float | None:
        value = getattr(evaluate, key, default)
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"bad attribute {key} of {name!r}: {_one_line(value)} is not a number") from error

    lower, upper, min_dim = number("lower", BOX[0]), number("upper", BOX[1]), number("min_dim", 1.0)
    if lower is None or upper is None or not -math.inf < lower < upper < math.inf:
        raise ValueError(f"bad box of {name!r}: its lower ({lower}) must be less than its upper ({upper}), both finite")
    return Function(
        name,
        evaluate,
        x_opt=number("x_opt", None),
        f_opt=number("f_opt", None),
        citation=next(iter((getattr(evaluate, "__doc__", None) or "").strip().splitlines()), "the user's own"),
        lower=lower,
        upper=upper,
        min_dim=int(min_dim or 1),
    )


def _one_line(what: object) -> str:
    """A user's value, or what a user's code raised, on one line."""
    text = f"{type(what).__name__}: {what}" if isinstance(what, BaseException) else repr(what)
    return " ".join(text.split())


def _probe(problem: Problem) -> Tensor:
    """Points `[2, 3, dim]` inside the box, the same every time."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.rand(2, 3, problem.dim, generator=generator, dtype=torch.float64)
    lower, upper = torch.from_numpy(problem.lower), torch.from_numpy(problem.upper)
    return lower + unit * (upper - lower)


def check_batched(problem: Problem) -> None:
    """Check on the way in that a user's function is batched and treats rows independently.

    Raises:
        ValueError: with one sentence saying what it returned and what is wanted.
    """
    x = _probe(problem)
    value = _returned(problem, x)
    if not value.dtype.is_floating_point:
        raise ValueError(f"'{problem.name}' returned {value.dtype}: a floating-point tensor is wanted")
    alone = torch.stack([_returned(problem, row) for row in x.flatten(0, 1)]).view(2, 3)
    if not torch.equal(x, _probe(problem)):
        raise ValueError(f"'{problem.name}' changes the points it is given in place: it must leave them alone")
    if not torch.allclose(alone, value, rtol=1e-9, atol=1e-12, equal_nan=True):
        raise ValueError(f"'{problem.name}' is not batched: a point's value changes with the points beside it")


def _returned(problem: Problem, x: Tensor) -> Tensor:
    """A user's function of `x`, one value a point.

    Raises:
        ValueError: with one sentence, whatever the user's code raises or returns instead.
    """
    given = f"a tensor of shape {list(x.shape)}"
    try:
        value = problem.evaluate(x)
    except Exception as error:  # whatever the user's code raises, the user reads one sentence
        raise ValueError(
            f"'{problem.name}' failed on {given} ({_one_line(error)}): it must take a batch [..., dim] and return [...]"
        ) from error
    if not isinstance(value, Tensor) or value.shape != x.shape[:-1]:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"'{problem.name}' is not batched: for {given} it returned {got}, "
            f"and a tensor of shape {list(x.shape[:-1])} is wanted"
        )
    return value


def check_differentiable(problem: Problem) -> None:
    """Check that autograd reaches the points through a user's function.

    Raises:
        ValueError: with one sentence naming the function and the algorithms that need no gradient.
    """
    x = _probe(problem).requires_grad_()
    try:
        value = problem.evaluate(x)
        gradient = torch.autograd.grad(value.sum(), x, allow_unused=True)[0] if value.requires_grad else None
    except Exception:  # NumPy refuses a tensor with a graph; an operation may have no backward
        gradient = None
    if gradient is None:
        raise ValueError(
            f"'{problem.name}' is not differentiable by autograd (use torch operations, no .detach() or NumPy): "
            "only the _plain algorithms and pymoo's can minimise it"
        )
