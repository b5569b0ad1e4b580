"""Objective functions: what is minimised, where its optimum lies, and who defined it.

A `Problem` maps points `[..., dim]` to values `[...]`, for torch tensors and NumPy arrays alike.
Values are float64 whatever the dtype of the points: Michalewicz's phase i·x²/π reaches 1.6e6 at
500D on this box, where float32 resolves only 0.125 rad.

To add a function: write it for tensors `[..., dim]`, then add a line to `FUNCTIONS`. One that is made
from data, and may have settings, has a `build` instead.
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
from pydantic import BaseModel
from torch import Tensor

from evobench import wine
from evobench.settings import NoSettings, configure

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


def rastrigin(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Rastrigin's function, A = 10, with 1 − cos 2πx as 2 sin² πx: no cancellation near the optimum."""
    return (x.square() + 20 * torch.sin(math.pi * x).square()).sum(-1)


_SCHWEFEL_BOX, _SCHWEFEL_X = 500.0, 420.968746359982


def schwefel(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Schwefel's problem 2.26, less its minimum.

    Outside its box it falls without end, so there (where a shift may lead) it goes on as a parabola.
    """
    inside = x.clamp(-_SCHWEFEL_BOX, _SCHWEFEL_BOX)
    root = inside.abs().clamp(min=torch.finfo(x.dtype).tiny).sqrt()  # a finite slope at 0
    best = _SCHWEFEL_X * math.sin(math.sqrt(_SCHWEFEL_X))  # 418.98 a coordinate
    return (best - inside * torch.sin(root) + (x - inside).square()).sum(-1)


def schwefel_2_22(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Schwefel's problem 2.22, Σ|x| + Π|x|."""
    return x.abs().sum(-1) + _product(x.abs())


def levy(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Levy's function, as Laguna and Martí have it."""
    w = 1 + (x - 1) / 4
    head, tail = w[..., :-1], w[..., -1]
    middle = (head - 1).square() * (1 + 10 * torch.sin(math.pi * head + 1).square())
    last = (tail - 1).square() * (1 + torch.sin(2 * math.pi * tail).square())
    return torch.sin(math.pi * w[..., 0]).square() + middle.sum(-1) + last


def zakharov(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Zakharov's function."""
    index = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    squared = (0.5 * index * x).sum(-1).square()
    return x.square().sum(-1) + squared + squared.square()


def ellipsoid(x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """An ellipsoid whose axes' curvatures go from 1 to 10⁶."""
    exponent = torch.linspace(0, 6, x.shape[-1], dtype=x.dtype, device=x.device)
    return (10**exponent * x.square()).sum(-1)


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


def _unbuilt(x: Tensor) -> Tensor:
    """Stands for a function that is made from its settings."""
    raise TypeError("this function has to be built from its settings first")


@dataclass(frozen=True)
class Function:
    """A named objective, independent of dimension.

    `x_opt` is the optimum's coordinate (the same in every dimension) and `f_opt` its value; both
    are None where they are unknown on the box. `rotated`: the function is turned about the origin,
    where its optimum then must be.

    A function made from data has one dimension, `dim`, and instead of an `evaluate` a `build` that
    makes it from its settings, with `x_opt` and `f_opt` as attributes.
    """

    name: str
    evaluate: Callable[[Tensor], Tensor]
    x_opt: float | None
    f_opt: float | None
    citation: str
    lower: float = BOX[0]
    upper: float = BOX[1]
    min_dim: int = 1
    rotated: bool = False
    dim: int | None = None
    settings: type[BaseModel] = NoSettings
    build: Callable[[Any], Any] | None = None

    def configure(self, overrides: dict[str, Any]) -> BaseModel:
        """The settings with `overrides` applied and validated.

        Raises:
            ValueError: naming the unknown setting or the bad value, and what is allowed.
        """
        return configure(self.name, self.settings(), overrides)


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
        *(
            Function(
                name,
                _unbuilt,
                x_opt=None,
                f_opt=None,
                lower=wine.BOX[0],
                upper=wine.BOX[1],
                min_dim=wine.DIM,
                dim=wine.DIM,
                settings=wine.Settings,
                build=build,
                citation=f"Cortez et al., Decision Support Systems 47(4):547-553, 2009; {what}",
            )
            for name, build, what in (
                ("wine", wine.loss, "a network's mean squared error"),
                ("wine_broadcast", wine.broadcast_loss, "the same as the authors compute it"),
            )
        ),
        Function(
            "rastrigin",
            rastrigin,
            x_opt=0.0,
            f_opt=0.0,
            lower=-5.12,
            upper=5.12,
            citation="H. Mühlenbein et al., Parallel Computing 17:619-632, 1991",
        ),
        Function(
            "schwefel",
            schwefel,
            x_opt=_SCHWEFEL_X,
            f_opt=0.0,
            lower=-_SCHWEFEL_BOX,
            upper=_SCHWEFEL_BOX,
            citation="H.-P. Schwefel, Numerical Optimization of Computer Models, Wiley, 1981 (2.26)",
        ),
        Function(
            "schwefel_2_22",
            schwefel_2_22,
            x_opt=0.0,
            f_opt=0.0,
            lower=-10.0,
            upper=10.0,
            citation="H.-P. Schwefel, Numerical Optimization of Computer Models, Wiley, 1981 (2.22)",
        ),
        Function(
            "levy",
            levy,
            x_opt=1.0,
            f_opt=0.0,
            lower=-10.0,
            upper=10.0,
            citation="M. Laguna and R. Martí, J. Global Optimization 33:235-255, 2005",
        ),
        Function(
            "zakharov",
            zakharov,
            x_opt=0.0,
            f_opt=0.0,
            lower=-5.0,
            upper=10.0,
            citation="M. Laguna and R. Martí, J. Global Optimization 33:235-255, 2005",
        ),
        Function(
            "ellipsoid_rotated",
            ellipsoid,
            x_opt=0.0,
            f_opt=0.0,
            lower=-5.0,
            upper=5.0,
            rotated=True,
            citation="N. Hansen and A. Ostermeier, Evolutionary Computation 9(2):159-195, 2001",
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
        rotation: an orthogonal matrix, float64 `[dim, dim]`, that turns the function about its
            origin, or None.
        x_opt: location of the unshifted optimum, float64 `[dim]`, or None where unknown.
        f_opt: value at the optimum, or None where unknown.
        settings: what was chosen about it, by name; empty for most.
        parallel: whether a single evaluation is work enough for several threads.
    """

    name: str
    dim: int
    evaluate: Callable[[Tensor], Tensor] = field(repr=False)
    lower: np.ndarray = field(repr=False)
    upper: np.ndarray = field(repr=False)
    x_opt: np.ndarray | None = field(default=None, repr=False)
    f_opt: float | None = None
    shift: Tensor | None = field(default=None, repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
    parallel: bool = False
    rotation: Tensor | None = field(default=None, repr=False)

    @property
    def centre(self) -> np.ndarray:
        """Of the box, `[dim]`."""
        return (self.lower + self.upper) / 2

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
        if self.rotation is not None:
            # One product a run, as the shapes of the other runs must not touch its bits.
            x = x @ self.rotation if x.ndim < 3 else x @ self.rotation.expand(*x.shape[:-2], -1, -1)
        return self.evaluate(x).to(torch.float64)

    def shifted(self, shift: np.ndarray) -> Problem:
        """The same problem translated by `shift`, `[dim]` or `[seeds, 1, dim]`."""
        return replace(self, shift=torch.as_tensor(np.asarray(shift, dtype=np.float64)))

    def to(self, device: torch.device | str) -> Problem:
        """The same problem with its tensors on `device`."""
        move = getattr(self.evaluate, "to", None)  # an objective that holds tensors, as torch's modules do
        shift, rotation = (None if tensor is None else tensor.to(device) for tensor in (self.shift, self.rotation))
        evaluate = move(device) if callable(move) else self.evaluate
        return replace(self, evaluate=evaluate, shift=shift, rotation=rotation)


def draw_shift(seed: int, problem: Problem, half_width: float) -> np.ndarray:
    """The shift of one seed, uniform in ±`half_width` per coordinate, float64 `[dim]`.

    It depends on the seed and the dimension alone, so every algorithm of that seed, pymoo's too,
    meets the same problem.
    """
    return np.random.default_rng([seed, problem.dim]).uniform(-half_width, half_width, problem.dim)


def draw_rotation(dim: int) -> np.ndarray:
    """The rotation of every rotated function at `dim`, uniform over the orthogonal matrices, float64 `[dim, dim]`.

    The QR decomposition of normal numbers, with R's diagonal made positive (F. Mezzadri, Notices of
    the AMS 54(5):592-604, 2007).
    """
    q, r = np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, dim)))
    return q * np.sign(np.diag(r))


def make_problem(name: str, dim: int, settings: dict[str, Any] | None = None) -> Problem:
    """The problem called `name` (a registered function or `package.module:function`) at `dim`.

    Raises:
        ValueError: if the name or a setting is unknown, the dimension does not fit, a user's function
            cannot be loaded or is not batched, or there are no data.
    """
    source = function_source(name)
    function = load_function(source) if source else FUNCTIONS.get(name)
    if function is None:
        raise ValueError(
            f"unknown function {name!r}: choose from {', '.join([*FUNCTIONS, *PLUGGED])}, "
            "or name your own as package.module:function"
        )
    if function.dim not in (None, dim):
        raise ValueError(f"dimension {dim} does not fit {name}: it has {function.dim}")
    if dim < function.min_dim:
        raise ValueError(f"dimension {dim} is too small for {name}: it needs at least {function.min_dim}")
    configured = function.configure(settings or {})
    evaluate, f_opt = function.evaluate, function.f_opt
    x_opt = None if function.x_opt is None else np.full(dim, function.x_opt)
    if function.build is not None:
        evaluate = function.build(configured)
        x_opt, f_opt = evaluate.x_opt, evaluate.f_opt
    problem = Problem(
        name=name,
        dim=dim,
        evaluate=evaluate,
        lower=np.full(dim, function.lower),
        upper=np.full(dim, function.upper),
        x_opt=x_opt,
        f_opt=f_opt,
        settings=configured.model_dump(),
        parallel=function.build is not None,
        rotation=torch.from_numpy(draw_rotation(dim)) if function.rotated else None,
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
        except (TypeError, ValueError, OverflowError) as error:
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
    except (Exception, SystemExit) as error:  # whatever the user's code raises, the user reads one sentence
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
    except (Exception, SystemExit):  # NumPy refuses a tensor with a graph; an operation may have no backward
        gradient = None
    if gradient is None:
        raise ValueError(
            f"'{problem.name}' is not differentiable by autograd (use torch operations, no .detach() or NumPy): "
            "only the _plain algorithms and pymoo's can minimise it"
        )
