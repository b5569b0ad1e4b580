"""Listing 1 of the paper, once, for all algorithms and all runs of a batch.

A generation proposes candidates from noise, evaluates them, and commits them. Its loss is the best
fitness of the generation, which is the fitness of one individual per run; so only that individual
is proposed again with a graph, and the gradient flows through [S, 1, D] instead of [S, N, D]: the
same gradient for about 1/N of the work ("the winner's path").

What the variants do with that gradient is decided here and nowhere else:

    kept        commit, then step: the paper's text, gradient steps on solutions count (`_diff`)
    overwritten step, then commit: Listing 1 as released, where the commit copies candidates that
                were computed before the step over the parameters (`_released`)
    guarded     learned hyper-parameters as in `kept`; solutions move along their gradient only
                where that improves them, re-evaluated and counted (`_guarded`)
    off         no gradient: the control with the same noise (`_plain`)

Nothing inside a generation waits for the device.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evobench.evograd.outer import Outer, OuterSettings
from evobench.evograd.relaxations import replace_worst
from evobench.evograd.space import Space, Streams, reflect, take
from evobench.problems import Problem
from evobench.record import RunRecord, history_points

Gradient = Literal["kept", "overwritten", "guarded", "off"]
Evaluate = Callable[[Float[Tensor, "seeds n dim"]], Float[Tensor, "seeds n"]]

_PROGRESS_EVERY = 0.5
"""Seconds between two looks at the device, to show progress."""

_SHARED_FROM = 15_000
"""Coordinates of a population from which on operations use several threads."""


class Algorithm(Protocol):
    """What an algorithm is: pure functions over named tuples of tensors, bound to settings and space.

    `solutions` names the parameters that `commit` overwrites; `elitist` says whether the best so
    far survives every commit; `refines` names the point that a guarded step starts from, the `best`
    so far or the generation's `winner`; `evaluates_start` says whether `init` evaluates a
    population.
    """

    @property
    def settings(self) -> OuterSettings: ...
    @property
    def space(self) -> Space: ...
    @property
    def solutions(self) -> frozenset[str]: ...
    @property
    def elitist(self) -> bool: ...
    @property
    def refines(self) -> str: ...
    @property
    def evaluates_start(self) -> bool: ...

    def init(self, rng: Streams, evaluate: Evaluate) -> tuple[Any, Any]:
        """Starting parameters (learned) and state (not learned)."""
        ...

    def noise(self, rng: Streams) -> Any:
        """Every random number of a generation, independent of the parameters. Its field `rows`,
        `[S, n]`, names the individuals that the rest is for; None means all of them."""
        ...

    def propose(self, params: Any, state: Any, noise: Any) -> tuple[Tensor, Any]:
        """Candidates `[S, n, D]` in the box, differentiable in `params`, and what `commit` needs
        of their making (a velocity, say)."""
        ...

    def commit(self, params: Any, state: Any, noise: Any, x: Tensor, fitness: Tensor, carry: Any) -> tuple[Any, Any]:
        """New parameters and state from the evaluated candidates `x` `[S, N, D]`."""
        ...

    def learned(self, params: Any) -> dict[str, Float[Tensor, " seeds"]]:
        """The learned hyper-parameters for the record, one number a run."""
        ...


class Evaluator:
    """The only gate to the objective: counts, keeps the best, and turns NaN and inf into worst."""

    def __init__(self, problem: Problem, space: Space) -> None:
        self.problem = problem
        self.f_evals = self.g_evals = 0
        device = space.lower.device
        self.best_f = torch.full((space.seeds, 1), torch.inf, dtype=torch.float64, device=device)
        self.best_x = space.centre.expand(space.seeds, 1, space.dim)

    def __call__(self, x: Float[Tensor, "seeds n dim"]) -> Float[Tensor, "seeds n"]:
        fitness = self.problem(x)
        fitness = torch.where(fitness.isfinite(), fitness, torch.inf)
        self.f_evals += x.shape[1]
        value, row = fitness.min(1, keepdim=True)
        better = value < self.best_f
        self.best_f = torch.where(better, value, self.best_f)
        self.best_x = torch.where(better[..., None], take(x, row), self.best_x)
        return fitness

    def gradients(
        self, points_of: Callable[[dict[str, Tensor]], Float[Tensor, "seeds 1 dim"]], at: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Gradients of each run's objective at `points_of(at)` with respect to `at`, by name.

        The value comes along with the gradient; the two together count as one gradient.
        """
        self.g_evals += 1
        leaves = {name: value.detach().requires_grad_() for name, value in at.items()}
        with torch.enable_grad():
            # A sum over runs: each run's gradient is its own, since no tensor mixes them.
            loss = self.problem(points_of(leaves)).sum()
            grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, grads, strict=True))


def run_batch(
    make: Callable[[Space], Algorithm],
    problem: Problem,
    *,
    gradient: Gradient,
    seeds: Sequence[int],
    pop_size: int,
    budget: int,
    init: str,
    gradient_cost: float = 0.0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    progress: Callable[[float, float], None] = lambda share, best: None,
) -> list[RunRecord]:
    """Run all seeds as one tensor program.

    Args:
        make: builds the algorithm for a space, e.g. `functools.partial(PSO, settings)`.
        problem: unshifted, or with a shift `[S, 1, D]` in the order of `seeds`.
        budget: most that may be spent a run: evaluations + `gradient_cost` · gradients.
        init: `uniform` or `centre`.
        dtype: of the state. Objective values are float64 and noise is float32 always, so that runs
            of either dtype share their noise.
        progress: called now and then with (share of the budget spent, best value of any run).

    Returns:
        one record a seed, in order.
    """
    started = time.perf_counter()
    # A batch of one takes other BLAS kernels than a larger one: it gets itself for company.
    batch = tuple(seeds) * 2 if len(seeds) == 1 else tuple(seeds)
    space = Space.of(problem, len(batch), pop_size, init, dtype, device)
    algorithm = make(space)
    evaluate = Evaluator(problem.to(device), space)
    rng = Streams(batch, torch.float32, device)
    with torch.no_grad(), _threads_for(space):
        params, state = algorithm.init(rng, evaluate)
        step = Generation(algorithm, params, evaluate, gradient)
        generations = int((budget - evaluate.f_evals) // (step.f_evals + gradient_cost * step.g_evals))
        first = 0 if algorithm.evaluates_start else 1
        points = (history_points(generations + 1 - first) + first).tolist()
        recorder = _Recorder(space, points)
        recorder(0, evaluate, gradient_cost, algorithm, params)
        looked = time.perf_counter()
        for generation, noise in enumerate(_noises(algorithm, rng, generations), start=1):
            params, state = step(params, state, noise)
            recorder(generation, evaluate, gradient_cost, algorithm, params)
            if (now := time.perf_counter()) - looked > _PROGRESS_EVERY:
                looked = now
                progress(generation / generations, float(evaluate.best_f.min()))
        evaluate.best_f.cpu()  # the device may be behind; its seconds count
    return recorder.records(seeds, evaluate, time.perf_counter() - started)


def _noises(algorithm: Algorithm, rng: Streams, count: int) -> Iterator[Any]:
    """The noise of `count` generations.

    Random numbers are serial on a CPU and need no parameters, so a spare core draws the next
    generation's while this one is computed. The streams are consumed in the same order.
    """
    in_a_pool = multiprocessing.parent_process() is not None  # there every core has its own run
    if rng.device != "cpu" or in_a_pool or (os.cpu_count() or 1) == 1:
        for _ in range(count):
            yield algorithm.noise(rng)
        return
    with ThreadPoolExecutor(1) as spare:
        ahead = spare.submit(algorithm.noise, rng)
        for _ in range(count):
            noise, ahead = ahead.result(), spare.submit(algorithm.noise, rng)
            yield noise


@contextmanager
def _threads_for(space: Space) -> Iterator[None]:
    """One thread where tensors are small: there, sharing an operation costs more than it saves.

    The number of runs has no say, since the number of threads may touch a last bit.
    """
    before = torch.get_num_threads()
    if space.pop * space.dim < _SHARED_FROM:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Generation:
    """One turn of Listing 1 for one algorithm and one variant.

    `f_evals` and `g_evals` are what a turn costs each run.
    """

    def __init__(self, algorithm: Algorithm, params: Any, evaluate: Evaluator, gradient: Gradient) -> None:
        self.algorithm, self.evaluate, self.gradient = algorithm, evaluate, gradient
        fixed = {*algorithm.settings.fixed, *(algorithm.solutions if gradient == "guarded" else ())}
        self.learn = () if gradient == "off" else tuple(name for name in params._fields if name not in fixed)
        self.outer = Outer(self._learned(params), algorithm.settings) if self.learn else None
        self.radius = algorithm.space.full(algorithm.settings.lr, 1, 1)
        guarded = gradient == "guarded"
        self.f_evals = algorithm.space.pop + guarded
        self.g_evals = bool(self.learn) + guarded

    def __call__(self, params: Any, state: Any, noise: Any) -> tuple[Any, Any]:
        x, carry = self.algorithm.propose(params, state, noise)
        fitness = self.evaluate(x)
        winner = fitness.argmin(1, keepdim=True)
        grads = self._winners_path(params, state, noise, winner, fitness) if self.outer else {}
        if self.gradient == "guarded":
            x, fitness = self._refine(x, fitness, winner)
        committed, state = self.algorithm.commit(params, state, noise, x, fitness, carry)
        if self.gradient == "overwritten":
            # The candidates were computed before the step, and the commit copies them over it.
            stepped = self._outer_step(params, grads, fitness)
            solutions = {name: getattr(committed, name) for name in self.algorithm.solutions}
            return stepped._replace(**solutions), state
        return self._outer_step(committed, grads, fitness), state

    def _learned(self, params: Any) -> dict[str, Tensor]:
        return {name: getattr(params, name) for name in self.learn}

    def _winners_path(
        self, params: Any, state: Any, noise: Any, winner: Int[Tensor, "seeds 1"], fitness: Float[Tensor, "seeds pop"]
    ) -> dict[str, Tensor]:
        """Gradient of the generation's best fitness with respect to every learned parameter."""
        its_noise = type(noise)(*(take(value, winner) for value in noise[:-1]), rows=winner)

        def winner_of(leaves: dict[str, Tensor]) -> Tensor:
            return self.algorithm.propose(params._replace(**leaves), state, its_noise)[0]

        grads = self.evaluate.gradients(winner_of, self._learned(params))
        if self.gradient == "overwritten" and self.algorithm.elitist:
            # As released, the loss is taken after elitism: it is a constant where no child wins.
            wins = take(fitness, winner) <= self.evaluate.best_f
            grads = {
                name: torch.where(wins.view(-1, *[1] * (grad.ndim - 1)), grad, 0.0) for name, grad in grads.items()
            }
        return grads

    def _outer_step(self, params: Any, grads: dict[str, Tensor], fitness: Float[Tensor, "seeds pop"]) -> Any:
        """Adam on everything learned, then the plateau schedule on the generation's loss."""
        if self.outer is None:
            return params
        moved = self.outer.step(self._learned(params), grads)
        # As released, elitism comes before the loss, which then is the best so far.
        elite = self.gradient == "overwritten" and self.algorithm.elitist
        self.outer.schedule(self.evaluate.best_f[:, 0] if elite else fitness.amin(1))
        return params._replace(**moved)

    def _refine(
        self, x: Float[Tensor, "seeds pop dim"], fitness: Float[Tensor, "seeds pop"], winner: Int[Tensor, "seeds 1"]
    ) -> tuple[Tensor, Tensor]:
        """A guarded step: along −∇f from a good point, kept only where it is better.

        Its length doubles when it is kept and halves when it is not. What is kept takes the place
        of the generation's worst candidate.
        """
        if self.algorithm.refines == "best":
            point, value = self.evaluate.best_x, self.evaluate.best_f
        else:
            point, value = take(x, winner), take(fitness, winner)
        gradient = self.evaluate.gradients(lambda at: at["x"], {"x": point})["x"]
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        stepped = reflect(point - self.radius * (gradient / norm), self.algorithm.space)
        stepped_value = self.evaluate(stepped)
        better = stepped_value < value
        longer, shorter = 2 * self.radius, self.radius / 2
        self.radius = torch.where(better[..., None], longer, shorter).clamp(min=torch.finfo(x.dtype).tiny)
        replaced_x, replaced = replace_worst(x, fitness, stepped, stepped_value)
        return torch.where(better[..., None], replaced_x, x), torch.where(better, replaced, fitness)


class _Recorder:
    """History on the device: room for every point is taken at the start."""

    def __init__(self, space: Space, points: Sequence[int]) -> None:
        self.column = {point: index for index, point in enumerate(points)}
        self.evals = [0.0] * len(points)
        self.history = torch.empty(space.seeds, len(points), dtype=torch.float64, device=space.lower.device)
        self.learned: dict[str, Tensor] = {}

    def __call__(
        self, generation: int, evaluate: Evaluator, gradient_cost: float, algorithm: Algorithm, params: Any
    ) -> None:
        column = self.column.get(generation)
        if column is None:
            return
        self.evals[column] = evaluate.f_evals + gradient_cost * evaluate.g_evals
        self.history[:, column] = evaluate.best_f[:, 0]
        for name, value in algorithm.learned(params).items():
            self.learned.setdefault(name, torch.full_like(self.history, torch.nan))[:, column] = value

    def records(self, seeds: Sequence[int], evaluate: Evaluator, wall_s: float) -> list[RunRecord]:
        """One record a seed; the only transfer from the device."""
        best_f, best_x = evaluate.best_f[:, 0].cpu().numpy(), evaluate.best_x[:, 0].double().cpu().numpy()
        history = self.history.cpu().numpy()
        learned = {name: value.cpu().numpy() for name, value in self.learned.items()}
        return [
            RunRecord(
                seed=seed,
                best_f=float(best_f[row]),
                best_x=best_x[row],
                f_evals=evaluate.f_evals,
                g_evals=evaluate.g_evals,
                stop_reason="budget",
                wall_s=wall_s,
                batch_size=len(seeds),
                evals=np.array(self.evals),
                history=history[row],
                learned={name: value[row] for name, value in learned.items()},
            )
            for row, seed in enumerate(seeds)
        ]
