"""Gradient descent alone: Adam, Lion and L-BFGS, the controls without a population.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; Chen et al., "Symbolic
Discovery of Optimization Algorithms" (Lion), NeurIPS 2023; Byrd, Lu, Nocedal and Zhu, "A Limited
Memory Algorithm for Bound Constrained Optimization", SIAM J. Sci. Comput. 16(5):1190-1208, 1995.

Every step evaluates the objective and its gradient at one point, and costs one evaluation and one
gradient: under the paper's protocol, where gradients are free, 3,000 epochs are 3,000 evaluations.
A start that stagnates is followed by another, uniform in the box or around its centre as the first
was, until the budget is spent. Points stay in the box by projection.

Adam and Lion are tensor programs over the seeds, and run in the loop of the others, with its
checkpoints and records; L-BFGS is SciPy's, a run at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize
from torch import Tensor

from evobench.evograd.loop import Best, Carry, Evaluate, Evaluator, Gradient, Turn
from evobench.evograd.relaxations import finite
from evobench.evograd.space import Random, Space, Streams
from evobench.problems import Problem
from evobench.record import BudgetSpent, Course, RunRecord

SCIPY = scipy.__version__

_PROGRESS = 1e-4
"""A start goes on while its best value falls by this share of its size within `patience` steps."""


class Settings(BaseModel):
    """What Adam and Lion share."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    lr: float = Field(ge=0, le=1e6)
    beta1: float = Field(0.9, ge=0, lt=1, description="β₁")
    beta2: float = Field(ge=0, lt=1)
    patience: int | None = Field(
        1000, ge=1, description="steps without progress before the next start; null: one start takes the whole budget"
    )


class AdamSettings(Settings):
    lr: float = Field(0.001, ge=0, le=1e6, description="learning rate (paper §3: PyTorch's default)")
    beta2: float = Field(0.999, ge=0, lt=1, description="β₂")
    eps: float = Field(1e-8, gt=0, description="ε (PyTorch's default)")


class LionSettings(Settings):
    lr: float = Field(0.0001, ge=0, le=1e6, description="learning rate (Chen et al.)")
    beta2: float = Field(0.99, ge=0, lt=1, description="β₂")


class LBFGSSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    memory: int = Field(10, ge=1, description="corrections kept (SciPy's default)")
    ftol: float = Field(
        2.220446049250313e-09, ge=0, description="a start ends when f falls by a smaller share (SciPy's default)"
    )
    gtol: float = Field(1e-5, ge=0, description="or its projected gradient is smaller (SciPy's default)")


SETTINGS: dict[str, type[BaseModel]] = {"adam": AdamSettings, "lion": LionSettings, "lbfgs": LBFGSSettings}


class Params(NamedTuple):
    """What moves."""

    x: Float[Tensor, "seeds 1 dim"]


class State(NamedTuple):
    """The present start of each run: its moments, and how it fares."""

    first: Float[Tensor, "seeds 1 dim"]  # m
    second: Float[Tensor, "seeds 1 dim"]  # v, of Adam alone
    age: Float[Tensor, "seeds 1 1"]  # steps taken
    best: Float[Tensor, "seeds 1"]  # the value that counts as progress so far
    bad: Float[Tensor, "seeds 1"]  # steps without progress


class Noise(NamedTuple):
    """Where each run would start anew."""

    x: Float[Tensor, "seeds 1 dim"]
    rows: None = None


@dataclass(frozen=True, eq=False)
class Descent:
    """Steps from one point; see `evobench.evograd.loop.Program`."""

    settings: Any
    space: Space

    evaluates_start = False

    def init(self, rng: Streams, evaluate: Evaluate) -> tuple[Params, State]:
        x = self.space.start(rng, 1)
        none = torch.zeros_like(x)
        value = torch.full_like(x[..., 0], torch.inf, dtype=torch.float64)
        return Params(x), State(none, none, torch.zeros_like(value)[..., None], value, torch.zeros_like(value))

    def noise(self, rng: Random) -> Noise:
        return Noise(self.space.start(rng, 1))

    def learned(self, params: Params) -> dict[str, Float[Tensor, " seeds"]]:
        return {}

    def step(
        self, x: Float[Tensor, "seeds 1 dim"], grad: Float[Tensor, "seeds 1 dim"], state: State
    ) -> tuple[Float[Tensor, "seeds 1 dim"], State]:
        """Where the gradient at `x` leads, before projection, and the new moments."""
        raise NotImplementedError


class Adam(Descent):
    """Adam, algorithm 1 of the paper."""

    def step(
        self, x: Float[Tensor, "seeds 1 dim"], grad: Float[Tensor, "seeds 1 dim"], state: State
    ) -> tuple[Float[Tensor, "seeds 1 dim"], State]:
        s, age = self.settings, state.age + 1
        first = s.beta1 * state.first + (1 - s.beta1) * grad
        second = s.beta2 * state.second + (1 - s.beta2) * grad.square()
        rate = (s.lr / (1 - s.beta1**age)).to(x.dtype)
        deviation = (second / (1 - s.beta2**age).to(x.dtype)).sqrt()
        return x - rate * first / (deviation + s.eps), state._replace(first=first, second=second, age=age)


class Lion(Descent):
    """Lion, program 1 of the paper, without weight decay."""

    def step(
        self, x: Float[Tensor, "seeds 1 dim"], grad: Float[Tensor, "seeds 1 dim"], state: State
    ) -> tuple[Float[Tensor, "seeds 1 dim"], State]:
        s = self.settings
        update = (s.beta1 * state.first + (1 - s.beta1) * grad).sign()
        first = s.beta2 * state.first + (1 - s.beta2) * grad
        return x - s.lr * update, state._replace(first=first, age=state.age + 1)


class DescentTurn(Turn):
    """One step of every run; see `evobench.evograd.loop.Turn`."""

    f_evals = g_evals = 1

    def __init__(self, algorithm: Descent, problem: Problem, gradient: Gradient) -> None:
        self.algorithm, self.problem = algorithm, problem

    def first(self, params: Params, state: State, best: Best) -> Carry:
        return Carry(params, state, None, best, None)

    def __call__(self, carry: Carry, noise: Noise) -> Carry:
        space, patience = self.algorithm.space, self.algorithm.settings.patience
        evaluate = Evaluator(self.problem, carry.best)
        value, grad = evaluate.with_gradient(carry.params.x)
        x, state = self.algorithm.step(carry.params.x, grad, carry.state)
        x = x.clamp(space.lower, space.upper)
        if patience is not None:
            progress = value < state.best - _PROGRESS * state.best.abs().nan_to_num(posinf=0.0)
            bad = torch.where(progress, 0.0, state.bad + 1)
            over = bad >= patience
            x = torch.where(over[..., None], noise.x, x)
            first, second, age = (torch.where(over[..., None], 0.0, part) for part in state[:3])
            best = torch.where(over, torch.inf, torch.where(progress, value, state.best))
            state = State(first, second, age, best, torch.where(over, 0.0, bad))
        return Carry(Params(x), state, None, evaluate.best, None)


DESCENTS: dict[str, type[Descent]] = {"adam": Adam, "lion": Lion}


def run_lbfgs(
    problem: Problem,
    settings: LBFGSSettings,
    *,
    seed: int,
    budget: int,
    init: str,
    gradient_cost: float = 0.0,
    progress: Callable[[float, float], object] = lambda share, best: None,
) -> RunRecord:
    """One run of SciPy's L-BFGS-B in float64, decided by `seed` alone; it starts where Adam does.

    Args:
        problem: with its shift for this seed, `[dim]`, if any.
        budget: most that may be spent: evaluations + `gradient_cost` · gradients.
        init: `uniform` or `centre`.
        progress: called with (share of the budget spent, best value) after every start; a true answer
            ends the run.
    """
    space, rng = Space.of(problem, 1, 1, init, torch.float64, "cpu"), Streams([seed], torch.float32, "cpu")
    allowed = int(budget // (1 + gradient_cost))
    course = Course(problem.centre)

    def objective(x: Float[ndarray, " dim"]) -> tuple[float, Float[ndarray, " dim"]]:
        if course.f_evals == allowed:
            raise BudgetSpent
        leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        value = problem(leaf)
        (grad,) = torch.autograd.grad(value, leaf)
        f = float(value.detach().nan_to_num(nan=torch.inf, neginf=torch.inf))
        course.evaluated(x[None], np.array([f]))
        course.keep()
        return f, finite(grad).numpy()

    options = {"maxcor": settings.memory, "ftol": settings.ftol, "gtol": settings.gtol}
    limits = {"maxiter": allowed, "maxfun": allowed}
    try:
        while course.f_evals < allowed:
            start = space.start(rng, 1)[0, 0].double().numpy()
            minimize(
                objective,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=np.stack([problem.lower, problem.upper], 1),
                options=options | limits,
            )
            if progress(course.f_evals / allowed, course.best_f):
                break
    except BudgetSpent:
        pass
    reason = "budget" if course.f_evals == allowed else "callback"
    return course.record(seed, reason, g_evals=course.f_evals, price=1 + gradient_cost)
