"""What to run: the validated model of a configs/*.yaml file and of the command line's flags.

An `Experiment` is a product of algorithms, functions and dimensions, and those that `also` adds;
each point of it is a `Cell`, and each cell has one row per seed in the store.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from evobench.algorithms import ALGORITHMS, algorithm_named
from evobench.baselines import pymoo as pymoo_baselines
from evobench.evograd.counter import COUNTED
from evobench.evograd.descent import NAME as DESCENTS
from evobench.evograd.space import STREAMS
from evobench.problems import FUNCTIONS, PAPER_FUNCTIONS, PLUGGED, Problem, function_source, make_problem, source_digest
from evobench.settings import shown

PAPER_ALGORITHMS = ("ga", "ga_diff", "de", "de_diff", "pso", "pso_diff", "cmaes", "cmaes_diff")
"""What `--algo all` means: the boxes of Figure 1, in its order."""

PAPER_DIMS = (30, 50)
"""What `--dim all` means: the rows of Figure 1."""

MAX_DIM, MAX_POP, MAX_BUDGET, MAX_SEEDS = 100_000, 1_000_000, 10**12, 100_000
"""Beyond these a slip of the keyboard would fill the memory before anything could refuse it."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    "paper": {"init": None, "shift": 0.0, "gradient_cost": 0.0, "dtype": "float32"},
    "fair": {"init": "uniform", "shift": 0.6, "gradient_cost": 5.0, "dtype": "float64"},
}
"""The parts of each protocol. `init` None is each algorithm's own start; `shift` is a share of half
the box (±60 in the paper's); fair computes in float64, as pymoo does: the optimum of a shifted
function is not a float32 number."""

BESIDE = ("compile", "versions")
"""Fields of a cell that a stored row keeps beside its settings, where they say anything."""

WHOLE = ("name", "seeds", "also", "test_family")
"""Keys that belong to an experiment as a whole, not to each of its products."""

PAPER_BUDGETS = {500: 500_000}
"""Where the paper departs from 5000·D evaluations (paper §3)."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""An experiment's name: it names a directory, so it is no path."""


SEEDS_ALLOWED = "a count (30), a range (0-29) or a list (1,4,7)"


def default_budget(dim: int) -> int:
    """Evaluations the paper grants at `dim`: 5000·D, and 500,000 at 500D."""
    return PAPER_BUDGETS.get(dim, 5000 * dim)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from `30` (0 to 29), `0-29` or `1,4,7`, increasing and without repeats.

    Raises:
        ValueError: if the text is none of these or names no seed.
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        seeds = _seed_range(text, 0, int(text) - 1)
    elif re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*,?", text):
        seeds = set()
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            if last and int(last) < int(first):
                raise ValueError(f"bad seeds {shown(text)}: the range {part} is empty; give {SEEDS_ALLOWED}")
            seeds |= _seed_range(text, int(first), int(last or first))
    else:
        raise ValueError(f"bad seeds {shown(text)}: give {SEEDS_ALLOWED}")
    if not seeds:
        raise ValueError(f"bad seeds {shown(text)}: give {SEEDS_ALLOWED}")
    return tuple(sorted(seeds))


def _seed_range(text: str, first: int, last: int) -> set[int]:
    if last - first >= MAX_SEEDS:
        raise ValueError(f"bad seeds {shown(text)}: at most {MAX_SEEDS} runs at once; give {SEEDS_ALLOWED}")
    return set(range(first, last + 1))


class Cell(BaseModel):
    """One (algorithm, function, dimension, settings), fully resolved: what a run depends on."""

    model_config = ConfigDict(frozen=True)

    algo: str
    backend: str
    fn: str
    dim: int = Field(ge=1, le=MAX_DIM)
    pop_size: int
    budget: int
    protocol: str
    init: str
    shift: float
    gradient_cost: float
    dtype: str
    device: str
    compile: bool = False
    versions: dict[str, str] = {}
    settings: dict[str, Any]
    problem: dict[str, Any] = {}

    @property
    def settings_hash(self) -> str:
        """12 hex digits over everything that can change a result, and nothing else.

        The protocol's name is left out, since its parts are in. A baseline's results depend on
        the versions of pymoo and cma, a tensor program's on its dtype, its kind of device, its
        random streams and whether it is compiled, a user's function on the source of its module, the
        wine task on its settings; another library's optimiser and a user's own algorithm have their
        `versions`.
        """
        return self.hash_with(pymoo_baselines.VERSIONS)

    def hash_with(self, versions: dict[str, str]) -> str:
        """The hash that the cell has where pymoo and cma have these versions."""
        unsaid = {name for name in (*BESIDE, "problem") if not getattr(self, name)}
        content = self.model_dump(exclude={"protocol", "backend"} | unsaid)
        if self.backend == "pymoo":
            content["versions"] = versions
        elif self.backend in ("evograd", "gradient"):
            content["streams"] = COUNTED if self.compile else STREAMS
            if ALGORITHMS[self.algo].variant == "guarded":
                content["descents"] = DESCENTS
        if source := function_source(self.fn):
            content["source"] = source_digest(source)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What identifies the cell in the store."""
        return self.algo, self.fn, self.dim, self.settings_hash

    @property
    def recorded(self) -> dict[str, Any]:
        """What a row's `settings` say: those of the algorithm and of the problem, and what has no column."""
        return self.settings | self.problem | {name: value for name in BESIDE if (value := getattr(self, name))}

    def __str__(self) -> str:
        return f"{self.algo} {self.fn} {self.dim}D"


class Experiment(BaseModel):
    """A configuration file, or the flags of `evobench run`: the two share their names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "adhoc"
    algo: tuple[str, ...]
    fn: tuple[str, ...]
    dim: tuple[int, ...]
    seeds: tuple[int, ...] = tuple(range(30))
    budget: int | None = Field(None, gt=0, le=MAX_BUDGET)
    pop: int | None = Field(None, gt=0, le=MAX_POP)
    protocol: Literal["paper", "fair"] = "paper"
    init: Literal["centre", "uniform"] | None = None
    shift: float | None = Field(None, ge=0, allow_inf_nan=False)
    gradient_cost: float | None = Field(None, ge=0, allow_inf_nan=False)
    dtype: Literal["float32", "float64"] | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    compile: bool = False
    settings: dict[str, dict[str, Any]] = {}
    also: tuple[dict[str, Any], ...] = ()
    """Further products, each given by the keys in which it differs from this one."""
    test_family: tuple[Literal["pair", "fn", "dim", "protocol"], ...] = ("pair",)
    """Tests that agree in these columns of `evobench compare` are corrected together; none: all of them."""

    @model_validator(mode="before")
    @classmethod
    def _own_dimension(cls, content: Any) -> Any:
        """A function that has one dimension only need not be told."""
        if isinstance(content, dict) and "dim" not in content and (dim := own_dimension(content.get("fn"))):
            return {**content, "dim": dim}
        return content

    @field_validator("algo", "fn", "dim", mode="before")
    @classmethod
    def _as_list(cls, value: Any, field: ValidationInfo) -> Any:
        """One value stands for a list of one; a string may hold several, separated by commas."""
        values = _listed(value)
        if field.field_name == "dim":  # spelled out here: `all` is no integer
            return [dim for value in values for dim in (PAPER_DIMS if value == "all" else (value,))]
        return values

    @field_validator("test_family", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("dim", "budget", "pop", "shift", "gradient_cost", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: Any, field: ValidationInfo) -> Any:
        """YAML reads `yes` as True, and pydantic would read True as 1."""
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, bool):
                raise ValueError(f"bad value {item} for {field.field_name}: a number is wanted")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, value: Any) -> Any:
        several = isinstance(value, list | tuple | set | frozenset | range)
        for item in value if several else [value]:
            if isinstance(item, bool) or not isinstance(item, int | str):
                raise ValueError(f"bad seeds {shown(value)}: give {SEEDS_ALLOWED}")
        # The last comma makes the list [7] the seed 7, where the number 7 is a count.
        return parse_seeds("".join(f"{item}," for item in value) if several else str(value))

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"bad name {shown(value)}: use letters, digits, '.', '_' and '-'")
        return value

    @field_validator("algo")
    @classmethod
    def _check_algo(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = _expand(value, PAPER_ALGORITHMS, "algorithm")
        for name in names:
            algorithm_named(name)
        return names

    @field_validator("fn")
    @classmethod
    def _check_fn(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = _expand(value, PAPER_FUNCTIONS, "function")
        for name in names:
            if name not in FUNCTIONS and not function_source(name):
                known = ", ".join([*FUNCTIONS, *PLUGGED])
                raise ValueError(f"unknown function {name!r}: choose from {known}, all, or package.module:function")
        return names

    @field_validator("dim", mode="after")
    @classmethod
    def _check_dim(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for dim in value:
            if not 1 <= dim <= MAX_DIM:
                raise ValueError(f"bad dimension {shown(dim)}: it must be from 1 to {MAX_DIM}")
        return _expand(value, PAPER_DIMS, "dimension")

    @model_validator(mode="after")
    def _check_also(self) -> Experiment:
        for other in self.also:
            for key in WHOLE:
                if key in other:
                    raise ValueError(f"'{key}' cannot be changed under 'also': it is the whole experiment's")
        return self

    @model_validator(mode="after")
    def _check_settings(self) -> Experiment:
        run = dict.fromkeys(name for product in self.products() for name in product.configurable)
        for name, overrides in self.settings.items():
            if name not in run:
                raise ValueError(f"settings are given for {name!r}, which is not run: choose from {', '.join(run)}")
            (ALGORITHMS[name] if name in ALGORITHMS else FUNCTIONS[name]).configure(overrides)
        return self

    @property
    def configurable(self) -> tuple[str, ...]:
        """The algorithms of this product, and those of its functions that have settings."""
        return (*self.algo, *(fn for fn in self.fn if fn in FUNCTIONS and FUNCTIONS[fn].settings.model_fields))

    def products(self) -> list[Experiment]:
        """This product, and each that `also` adds."""
        mine = {**self.model_dump(exclude={"also", "settings"}), "settings": self.settings}  # a dump spells aliases out
        others = []
        for other in self.also:
            content = {**mine, **other}
            known = Experiment.model_validate({**content, "settings": {}}).configurable
            if isinstance(content["settings"], dict):
                settings = {**self.settings}
                for name, given in content["settings"].items():
                    if name not in ALGORITHMS and name not in FUNCTIONS:
                        raise ValueError(f"settings are given for {shown(name)}: choose from {', '.join(known)}")
                    both = isinstance(given, dict) and isinstance(settings.get(name), dict)
                    settings[name] = {**settings[name], **given} if both else given
                content["settings"] = {name: given for name, given in settings.items() if name in known}
            others.append(Experiment.model_validate(content))
        return [self, *others]

    def cells(self) -> list[Cell]:
        """Every cell, dimension by dimension, the tensor programs (minutes) before single runs (pymoo: hours).

        Raises:
            ValueError: if a cell cannot be run: its dimension, population, budget or shift is too
                small or too large for it, or its device or function is not there.
        """
        cells = [cell for product in self.products() for cell in product._own_cells()]
        unique = {cell.key: cell for cell in cells}.values()
        return sorted(
            unique, key=lambda cell: (not ALGORITHMS[cell.algo].batched, cell.backend in ("pymoo", "asktell"))
        )

    def _own_cells(self) -> list[Cell]:
        device = resolve_device(self.device)
        if self.compile:
            check_compiler(device)
        problems = [make_problem(fn, dim, self.settings.get(fn)) for dim in self.dim for fn in self.fn]
        return [self.cell(name, problem, device) for problem in problems for name in self.algo]

    def cell(self, name: str, problem: Problem, device: str) -> Cell:
        """The cell of one algorithm on one problem.

        Raises:
            ValueError: as `cells`.
        """
        algorithm = ALGORITHMS[name]
        pop = algorithm.population(self.pop, problem.dim)
        if pop < algorithm.min_pop:
            raise ValueError(f"population {pop} is too small: {name} needs at least {algorithm.min_pop}")
        budget = self.budget if self.budget is not None else default_budget(problem.dim)
        parts = PROTOCOLS[self.protocol]
        if budget < pop:
            raise ValueError(f"budget {budget} is smaller than one population of {pop}")
        gradient_cost = parts["gradient_cost"] if self.gradient_cost is None else self.gradient_cost
        settings = algorithm.configure(self.settings.get(name, {})).model_dump()
        unroll = settings.get("unroll", 1)
        if budget < (least := algorithm.least_budget(pop, gradient_cost, unroll)):
            turn = f"{unroll} generations of {name} cost" if unroll > 1 else f"a generation of {name} costs"
            raise ValueError(f"budget {budget} is too small: {turn} {least:g}")
        if self.compile and unroll > 1:
            raise ValueError(f"compile and {name}.unroll {unroll} do not go together: leave one of them out")
        half_box = float(((problem.upper - problem.lower) / 2).min())
        shift = self.shift if self.shift is not None else parts["shift"] * half_box
        if shift > half_box:
            raise ValueError(f"shift {shift:g} is too large: half the box of {problem.name} is {half_box:g}")
        tensors = algorithm.batched
        return Cell(
            algo=name,
            backend=algorithm.backend,
            fn=problem.name,
            dim=problem.dim,
            pop_size=pop,
            budget=budget,
            protocol=self.protocol,
            init=self.init or parts["init"] or algorithm.own_start,
            shift=shift,
            # pymoo takes no gradients; whatever runs one at a time computes in float64 on the CPU.
            gradient_cost=gradient_cost if algorithm.takes_gradients else 0.0,
            dtype=(self.dtype or parts["dtype"]) if tensors else "float64",
            device=device if tensors else "cpu",
            compile=self.compile and tensors,
            versions=dict(algorithm.versions),
            settings=settings,
            problem=problem.settings,
        )


def own_dimension(fn: Any) -> int | None:
    """The dimension of functions that have no other; None where there is a choice."""
    dims = {FUNCTIONS[name].dim if isinstance(name, str) and name in FUNCTIONS else None for name in _listed(fn)}
    return dims.pop() if len(dims) == 1 else None


def _listed(value: Any) -> Any:
    """One value stands for a list of one; a string may hold several, separated by commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list | tuple) else [value]


def _expand(values: tuple[Any, ...], everything: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """`all` spelled out, repeats removed, order kept; an empty list is refused."""
    if not values:
        raise ValueError(f"no {what} given: name at least one")
    spelled = [item for value in values for item in (everything if value == "all" else (value,))]
    return tuple(dict.fromkeys(spelled))


def resolve_device(device: str) -> str:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        ValueError: if the device is not there or cannot do the work.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not there: choose cpu or auto")
    if device == "mps":
        raise ValueError("device 'mps' has no float64, which objective values need: choose cpu or auto")
    return device


def check_compiler(device: str) -> None:
    """What torch.compile needs must be there.

    Raises:
        ValueError: if it is not.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise ValueError(f"compile needs a C++ compiler, and {compiler!r} is not there: install one, or name it in CXX")


def one_sentence(error: ValidationError) -> str:
    """pydantic's first complaint as one sentence that names the key."""
    problem = error.errors()[0]
    key = ".".join(part for part in problem["loc"] if isinstance(part, str))  # not the place in a list
    key = key if key.isprintable() else repr(key)
    if not key and problem["type"] != "value_error":
        return f"an experiment is a mapping of keys to values, not {shown(problem['input'])}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}': choose from {', '.join(Experiment.model_fields)}"
    if problem["type"] == "missing":
        return f"'{key}' is missing: an experiment needs algo, fn and dim"
    return f"bad value {shown(problem['input'])} for {key}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def make_experiment(content: dict[str, Any]) -> Experiment:
    """An experiment from plain data.

    Raises:
        ValueError: one sentence naming the bad value and what is allowed.
    """
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise ValueError(one_sentence(error)) from error
