"""Listing 1 of the paper, once, for all algorithms and all runs of a batch.

A generation proposes candidates from noise, evaluates them, and commits them. Its loss is the best
fitness of the generation, which is the fitness of one individual per run; so only that individual
is proposed again with a graph, and the gradient flows through [S, 1, D] instead of [S, N, D]: the
same gradient for about 1/N of the work ("the winner's path").

With the setting `unroll` = K > 1 a turn is K generations, a window. Its loss is that of the last one, and
the gradient with respect to the parameters as the window began flows back through the commits of all
of it (truncated back-propagation through time: the state that the window starts from is a constant).
The generations before the last are computed again for that, with a graph and with their whole
population, since a commit mixes individuals. The outer optimiser steps once a window, on what the last
commit made.

What the variants do with that gradient is decided here and nowhere else:

    kept        commit, then step: the paper's text, gradient steps on solutions count (`_diff`)
    overwritten step, then commit: Listing 1 as released, where the commit copies candidates that
                were computed before the step over the parameters (`_released`)
    guarded     learned hyper-parameters as in `kept`; a run either samples or descends from the
                best candidate of a generation, by steps that are kept only where they improve
                (`_guarded`, see `descent.py`)
    off         no gradient: the control with the same noise (`_plain`)

Nothing inside a generation waits for the device.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from evobench.evograd import descent as descents
from evobench.evograd.checkpoint import Checkpoint, pack, unpack
from evobench.evograd.counter import Counter
from evobench.evograd.descent import Descent, select
from evobench.evograd.graphs import Captured
from evobench.evograd.outer import OuterSettings, OuterState, schedule, start, step
from evobench.evograd.relaxations import finite, replace_worst
from evobench.evograd.space import Random, Space, Streams, take
from evobench.problems import Problem
from evobench.record import RunRecord, history_points

Gradient = Literal["kept", "overwritten", "guarded", "off"]
Evaluate = Callable[[Float[Tensor, "seeds n dim"]], Float[Tensor, "seeds n"]]
Watch = Callable[[dict[str, Tensor], dict[str, Tensor]], None]
"""Shown the learned parameters and their gradients, `[S, …]` by name, each time that there are some."""

_PROGRESS_EVERY = 0.5
"""Seconds between two looks at the device, to show progress."""

SHARED_FROM = 15_000
"""Coordinates of a population from which on operations use several threads."""


class Program(Protocol):
    """What `run_batch` has to know of what it runs.

    `evaluates_start` says whether `init` evaluates a population.
    """

    @property
    def evaluates_start(self) -> bool: ...

    def init(self, rng: Streams, evaluate: Evaluate) -> tuple[Any, Any]:
        """Starting parameters (learned) and state (not learned)."""
        ...

    def noise(self, rng: Random) -> Any:
        """Every random number of a generation, independent of the parameters. Its field `rows`,
        `[S, n]`, names the individuals that the rest is for; None means all of them."""
        ...

    def learned(self, params: Any) -> dict[str, Float[Tensor, " seeds"]]:
        """The learned hyper-parameters for the record, one number a run."""
        ...


class Algorithm(Program, Protocol):
    """What an algorithm is: pure functions over named tuples of tensors, bound to settings and space.

    `solutions` names the parameters that `commit` overwrites; `elitist` says whether the best so
    far survives every commit; `weighs` whether a commit's result, or what is proposed from it, changes
    smoothly with fitness; `welcomes` whether a point found elsewhere may join the candidates.
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
    def weighs(self) -> bool: ...
    @property
    def welcomes(self) -> bool: ...

    def propose(self, params: Any, state: Any, noise: Any) -> tuple[Tensor, Any]:
        """Candidates `[S, n, D]` in the box, differentiable in `params`, and what `commit` needs
        of their making (a velocity, say)."""
        ...

    def commit(self, params: Any, state: Any, noise: Any, x: Tensor, fitness: Tensor, carry: Any) -> tuple[Any, Any]:
        """New parameters and state from the evaluated candidates `x` `[S, N, D]`."""
        ...


class Best(NamedTuple):
    """The best so far of each run."""

    x: Float[Tensor, "seeds 1 dim"]
    f: Float[Tensor, "seeds 1"]  # float64


class Carry(NamedTuple):
    """Everything that a generation changes, as tensors: what one generation hands to the next."""

    params: Any
    state: Any
    outer: OuterState | None
    best: Best
    descent: Descent | None


class Turn:
    """One turn of the loop, which takes each run `f_evals` evaluations and `g_evals` gradients at most.

    `first_g_evals` are the gradients that come before the first turn; a turn takes the noise of
    `unroll` generations.
    """

    f_evals: int
    g_evals: int
    first_g_evals = 0
    unroll = 1

    def first(self, params: Any, state: Any, best: Best) -> Carry:
        """What the first turn starts from."""
        raise NotImplementedError

    def __call__(self, carry: Carry, *noises: Any) -> Carry:
        raise NotImplementedError

    def cost(self, gradient_cost: float) -> float:
        """The most that a turn may cost a run, in evaluations."""
        return self.f_evals + gradient_cost * self.g_evals

    def spent(self, carry: Carry, turns: int) -> tuple[Any, Any]:
        """Evaluations and gradients of so many turns: of every run, or `[S]`, of each."""
        return turns * self.f_evals, turns * self.g_evals


class Evaluator:
    """The only gate to the objective: counts, keeps the best, and turns NaN and inf into worst."""

    def __init__(self, problem: Problem, best: Best) -> None:
        self.problem, self.best = problem, best
        self.f_evals = self.g_evals = 0

    def __call__(self, x: Float[Tensor, "seeds n dim"]) -> Float[Tensor, "seeds n"]:
        return self._kept(x, self.problem(x))

    def with_gradient(
        self, x: Float[Tensor, "seeds 1 dim"]
    ) -> tuple[Float[Tensor, "seeds 1"], Float[Tensor, "seeds 1 dim"]]:
        """Fitness and gradient of one point a run: one evaluation and one gradient, computed together."""
        self.g_evals += 1
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            value = self.problem(leaf)
            (grad,) = torch.autograd.grad(value.sum(), leaf)
        return self._kept(x, value.detach()), finite(grad)

    def _kept(self, x: Float[Tensor, "seeds n dim"], fitness: Float[Tensor, "seeds n"]) -> Float[Tensor, "seeds n"]:
        fitness = torch.where(fitness.isfinite(), fitness, torch.inf)
        self.f_evals += x.shape[1]
        value, row = fitness.min(1, keepdim=True)
        better = value < self.best.f
        self.best = Best(
            torch.where(better[..., None], take(x, row), self.best.x), torch.where(better, value, self.best.f)
        )
        return fitness

    def gradients(
        self, points_of: Callable[[dict[str, Tensor]], Float[Tensor, "seeds 1 dim"]], at: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Gradients of each run's objective at `points_of(at)` with respect to `at`, by name.

        The value comes along with the gradient; the two together count as one gradient. What is not
        finite in it counts as 0.
        """
        self.g_evals += 1
        leaves = {name: value.detach().requires_grad_() for name, value in at.items()}
        with torch.enable_grad():
            # A sum over runs: each run's gradient is its own, since no tensor mixes them.
            loss = self.problem(points_of(leaves)).sum()
            grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, map(finite, grads), strict=True))


def run_batch(
    make: Callable[[Space], Any],
    problem: Problem,
    *,
    gradient: Gradient,
    turn_of: Callable[[Any, Problem, Gradient], Turn] | None = None,
    seeds: Sequence[int],
    pop_size: int,
    budget: int,
    init: str,
    gradient_cost: float = 0.0,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    compile: bool = False,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[float, float], object] = lambda share, best: None,
    watch: Watch | None = None,
) -> list[RunRecord]:
    """Run all seeds as one tensor program.

    Args:
        make: builds the algorithm for a space, e.g. `functools.partial(PSO, settings)`: an `Algorithm`, or a
            `Program` that `turn_of` takes.
        turn_of: makes a turn of it; by default a `Generation`.
        problem: unshifted, or with a shift `[S, 1, D]` in the order of `seeds`.
        budget: most that may be spent a run: evaluations + `gradient_cost` · gradients.
        init: `uniform` or `centre`.
        dtype: of the state. Objective values are float64 and noise is float32 always, so that runs
            of either dtype share their noise.
        compile: turn the generation into machine code first (torch.compile): up to a minute, some
            seconds where the compiler's cache has it, then several times as fast. Random numbers are
            made by the same program, and are other ones (`counter.py`).
        checkpoint: where the batch is saved now and then, and goes on from if it is there.
        progress: called now and then with (share of the budget spent, best value of any run); what
            is true of its answer ends the runs after this generation.
        watch: shown every gradient; not with `compile`.

    Returns:
        one record a seed, in order.
    """
    started = time.perf_counter()
    # A batch of one takes other BLAS kernels than a larger one: it gets itself for company.
    batch = tuple(seeds) * 2 if len(seeds) == 1 else tuple(seeds)
    space = Space.of(problem, len(batch), pop_size, init, dtype, device)
    algorithm, problem = make(space), problem.to(device)
    few_large = compile or problem.parallel
    with (
        torch.no_grad(),
        _denormals_are_zero(),
        _threads_for(space, few_large) as threads,
        _Noises(algorithm, batch, device, threads, compile) as noises,
    ):
        evaluate = Evaluator(problem, nothing_yet(space))
        params, state = algorithm.init(noises.rng, evaluate)
        generation = (
            turn_of(algorithm, problem, gradient) if turn_of else Generation(algorithm, problem, gradient, watch)
        )
        carry = generation.first(params, state, evaluate.best)
        cost = generation.cost(gradient_cost)
        paid = evaluate.f_evals + gradient_cost * generation.first_g_evals
        count = int((budget - paid) // cost)
        first = 0 if algorithm.evaluates_start else 1
        columns = {point: column for column, point in enumerate((history_points(count + 1 - first) + first).tolist())}
        recorder = _Recorder(space, len(columns))
        done = 0

        def record(number: int) -> None:
            f_evals, g_evals = generation.spent(carry, number)
            spent = evaluate.f_evals + f_evals + gradient_cost * g_evals
            also = {"gradients": g_evals} if isinstance(g_evals, Tensor) else {}  # each run has its own number
            recorder(columns[number], spent, carry.best, algorithm.learned(carry.params) | also)

        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            done, carry = saved["done"], unpack(saved["carry"], carry, device)
            noises.restore(saved["noises"])
            recorder.restore(saved["recorder"])
            started -= saved["seconds"]
        elif 0 in columns:
            record(0)
        turn: Callable[..., Carry] = generation
        if compile:
            turn = _compiled(generation, algorithm, device, begun=done > 0)
        elif _waits_for_launches(device) and watch is None:
            turn = Captured(generation)
        looked, stopped = time.perf_counter(), 0
        for number in range(done + 1, count + 1):
            carry = turn(carry, *(noises.draw() for _ in range(generation.unroll)))
            if number in columns:
                record(number)
            if (now := time.perf_counter()) - looked > _PROGRESS_EVERY:
                looked = now
                if progress(number / count, float(carry.best.f.min())):
                    stopped = number
                    break
            if checkpoint is not None and checkpoint.due:
                checkpoint.save(
                    {
                        "done": number,
                        "carry": pack(carry),
                        "noises": noises.saved(),
                        "recorder": recorder.saved(),
                        "seconds": time.perf_counter() - started,
                    }
                )
        carry.best.f.cpu()  # the device may be behind; its seconds count
        turns = stopped or count
        f_evals, g_evals = (
            torch.as_tensor(spent).expand(len(batch)).tolist() for spent in generation.spent(carry, turns)
        )
        if stopped:
            columns[stopped] = sum(point < stopped for point in columns)
            recorder.cut(columns[stopped])
            record(stopped)
    seconds, reason = time.perf_counter() - started, "callback" if stopped else "budget"
    f_evals = [evaluate.f_evals + spent for spent in f_evals]
    return recorder.records(seeds, carry.best, f_evals, g_evals, seconds, reason)


def nothing_yet(space: Space) -> Best:
    """The best of runs that have evaluated nothing."""
    value = torch.full((space.seeds, 1), torch.inf, dtype=torch.float64, device=space.lower.device)
    return Best(space.centre.expand(space.seeds, 1, space.dim).contiguous(), value)


def _waits_for_launches(device: str) -> bool:
    return torch.device(device).type == "cuda"


def _compiled(generation: Turn, algorithm: Program, device: str, begun: bool) -> Callable[..., Carry]:
    """Noise and generation as machine code, fused into few passes over memory."""
    torch.compiler.reset()  # every algorithm and problem is a program of its own

    def drawn(carry: Carry, *counters: Counter) -> Carry:
        return generation(carry, *(algorithm.noise(counter) for counter in counters))

    # On the CPU a C++ wrapper, which costs less time a call than the one in Python.
    program = torch.compile(drawn, fullgraph=True, dynamic=False, options={"cpp_wrapper": device == "cpu"})

    def asked(carry: Carry, *counters: Counter) -> Carry:
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return program(carry, *counters)

    def unasked(carry: Carry, *counters: Counter) -> Carry:
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            return program(carry, *counters)

    # The first turn runs as it is: in what it returns, and from then on, the same fields share a
    # tensor, and a program is compiled for one such pattern. Whether a program fits is asked of what it gets
    # from elsewhere and of what it returns itself; after that it would be asked again and again, for a twelfth
    # of a short generation. It checks shapes on its own.
    turns = itertools.chain([] if begun else [drawn], itertools.repeat(asked, 4), itertools.repeat(unasked))

    logging.getLogger("torch._inductor").setLevel(logging.ERROR)  # it warns of operations that it leaves as they are
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # of torch, to torch

    return lambda carry, *counters: next(turns)(carry, *counters)


class _Noises:
    """The noise of one generation after the other; of a compiled one, which draws its own, the counters.

    Random numbers need no parameters: where the generation leaves a core free, that core draws the
    next generation's meanwhile. The streams are consumed in the same order.
    """

    def __init__(self, algorithm: Program, seeds: Sequence[int], device: str, threads: int, compiled: bool) -> None:
        self.algorithm = algorithm
        self.rng = Streams(seeds, torch.float32, device)
        self.counter = Counter.of(seeds, device) if compiled else None
        in_a_pool = multiprocessing.parent_process() is not None  # there every core has its own run
        free = device == "cpu" and threads == 1 and not (compiled or in_a_pool) and (os.cpu_count() or 1) > 1
        self.spare = ThreadPoolExecutor(1) if free else None
        self.following: Future[Any] | None = None

    def __enter__(self) -> _Noises:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.spare is not None:
            self.spare.shutdown()

    def draw(self) -> Any:
        """The next generation's."""
        if (counter := self.counter) is not None:
            self.counter = counter.following()
            return counter
        noise = self.algorithm.noise(self.rng) if self.following is None else self.following.result()
        self.following = self.spare.submit(self.algorithm.noise, self.rng) if self.spare is not None else None
        return noise

    def saved(self) -> dict[str, Any]:
        """Where the streams are, and what was drawn ahead."""
        ahead = None if self.following is None else list(self.following.result()[:-1])
        turn = None if self.counter is None else self.counter.turn
        return {"ahead": ahead, "streams": self.rng.saved(), "turn": turn}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        if saved["ahead"] is not None:
            kind = type(self.algorithm.noise(self.rng))
            self.following = Future()
            self.following.set_result(kind(*saved["ahead"]))
        self.rng.restore(saved["streams"])
        if self.counter is not None:
            self.counter = self.counter._replace(turn=saved["turn"].to(self.counter.turn.device))


@contextmanager
def _denormals_are_zero() -> Iterator[None]:
    """Numbers below 1.2e-38 (float64: 2.2e-308) become zero, since a product with some takes a hundred times as long.

    A population of soft parents that contracts towards zero is full of them. This is the mode of a
    thread: those that PyTorch has started before keep theirs.
    """
    before = bool(torch.tensor([1e-38]) * 0.1 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def _threads_for(space: Space, few_large: bool) -> Iterator[int]:
    """One thread where tensors are small: there, sharing an operation costs more than it saves.

    The number of runs has no say, since the number of threads may touch a last bit. A compiled
    generation, or an objective that says so, has few, large passes to share.
    """
    before = torch.get_num_threads()
    threads = before if few_large or space.pop * space.dim >= SHARED_FROM else 1
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


class Generation(Turn):
    """One turn of Listing 1 for one algorithm and one variant: a pure function of tensors.

    `f_evals` and `g_evals` are what a turn takes each run, at most. In a window a gradient is that of
    the last winner, and one of every individual before where weights follow from fitness.
    """

    def __init__(self, algorithm: Algorithm, problem: Problem, gradient: Gradient, watch: Watch | None = None) -> None:
        self.algorithm, self.problem, self.gradient, self.watch = algorithm, problem, gradient, watch
        guarded = gradient == "guarded"
        learnable = algorithm.settings.learns if gradient != "off" else ()
        self.learn = tuple(name for name in learnable if not (guarded and name in algorithm.solutions))
        self.unroll = algorithm.settings.unroll
        earlier = (self.unroll - 1) * algorithm.space.pop
        self.f_evals = earlier + algorithm.space.pop
        self.g_evals = bool(self.learn) * (1 + algorithm.weighs * earlier) + guarded
        self.first_g_evals = int(guarded and algorithm.evaluates_start)

    def cost(self, gradient_cost: float) -> float:
        generation = super().cost(gradient_cost)
        if self.gradient != "guarded":
            return generation
        return max(generation, (1 + gradient_cost) * descents.steps(self.algorithm.space.pop))

    def spent(self, carry: Carry, turns: int) -> tuple[Any, Any]:
        if (descent := carry.descent) is None:
            return super().spent(carry, turns)
        f_evals = descent.generations * self.f_evals + descent.taken
        return f_evals, descent.begun + descent.taken + descent.generations * bool(self.learn)

    def first(self, params: Any, state: Any, best: Best) -> Carry:
        """What the first turn starts from."""
        outer = start(self._learned(params), self.algorithm.settings) if self.learn else None
        return Carry(params, state, outer, best, self._first_descent(best) if self.gradient == "guarded" else None)

    def __call__(self, carry: Carry, *noises: Any) -> Carry:
        if carry.descent is None:
            return self._generation(carry, *noises)
        # A run that descends has the generation of its row computed along, uncounted and unseen.
        descending = carry.descent.going
        return select(descending, self._burst(carry, carry.descent), self._generation(carry, *noises))

    def _generation(self, carry: Carry, *noises: Any) -> Carry:
        """Propose, evaluate, learn, commit; in a window, so many times until the last one learns."""
        params, state, descent = carry.params, carry.state, carry.descent
        evaluate = Evaluator(self.problem, carry.best)
        *before, noise = noises
        earlier = []
        for its_noise in before:
            x, made = self.algorithm.propose(params, state, its_noise)
            earlier.append((its_noise, fitness := evaluate(x)))
            params, state = self.algorithm.commit(params, state, its_noise, x, fitness, made)
        x, made = self.algorithm.propose(params, state, noise)
        fitness = evaluate(x)
        winner = fitness.argmin(1, keepdim=True)
        grads = self._winners_path(carry, noise, winner, fitness, evaluate, earlier)
        if descent is not None:
            x, fitness, descent = self._next_descent(x, fitness, winner, descent, evaluate)
        committed, state = self.algorithm.commit(params, state, noise, x, fitness, made)
        if self.gradient == "overwritten":
            # The candidates were computed before the step, and the commit copies them over it.
            outer, stepped = self._outer_step(carry.outer, params, grads, fitness, evaluate)
            solutions = {name: getattr(committed, name) for name in self.algorithm.solutions}
            return Carry(stepped._replace(**solutions), state, outer, evaluate.best, descent)
        outer, stepped = self._outer_step(carry.outer, committed, grads, fitness, evaluate)
        return Carry(stepped, state, outer, evaluate.best, descent)

    def _learned(self, params: Any) -> dict[str, Tensor]:
        return {name: getattr(params, name) for name in self.learn}

    def _winners_path(
        self,
        carry: Carry,
        noise: Any,
        winner: Int[Tensor, "seeds 1"],
        fitness: Float[Tensor, "seeds pop"],
        evaluate: Evaluator,
        earlier: Sequence[tuple[Any, Float[Tensor, "seeds pop"]]] = (),
    ) -> dict[str, Tensor]:
        """Gradient of the generation's best fitness with respect to every learned parameter.

        `earlier` has noise and fitness of the generations between `carry` and this one.
        """
        if not self.learn:
            return {}
        its_noise = type(noise)(*(take(value, winner) for value in noise[:-1]), rows=winner)

        def winner_of(leaves: dict[str, Tensor]) -> Tensor:
            params, state = carry.params._replace(**leaves), carry.state
            for noise, fitness in earlier:
                params, state = self._again(params, state, noise, fitness)
            return self.algorithm.propose(params, state, its_noise)[0]

        grads = evaluate.gradients(winner_of, self._learned(carry.params))
        if self.gradient == "overwritten" and self.algorithm.elitist:
            # As released, the loss is taken after elitism: it is a constant where no child wins.
            wins = take(fitness, winner) <= evaluate.best.f
            grads = {
                name: torch.where(wins.view(-1, *[1] * (grad.ndim - 1)), grad, 0.0) for name, grad in grads.items()
            }
        if self.watch is not None:
            self.watch(self._learned(carry.params), grads)
        return grads

    def _again(self, params: Any, state: Any, noise: Any, fitness: Float[Tensor, "seeds pop"]) -> tuple[Any, Any]:
        """A generation whose `fitness` is known, with a graph."""
        x, made = self.algorithm.propose(params, state, noise)
        if self.algorithm.weighs:
            fitness = torch.where(fitness.isfinite(), self.problem(x), torch.inf)
        params, state = self.algorithm.commit(params, state, noise, x, fitness, made)
        return params, state

    def _outer_step(
        self,
        outer: OuterState | None,
        params: Any,
        grads: dict[str, Tensor],
        fitness: Float[Tensor, "seeds pop"],
        evaluate: Evaluator,
    ) -> tuple[OuterState | None, Any]:
        """Adam on everything learned, then the plateau schedule on the generation's loss."""
        if outer is None:
            return None, params
        outer, moved = step(outer, self._learned(params), grads)
        # As released, elitism comes before the loss, which then is the best so far.
        elite = self.gradient == "overwritten" and self.algorithm.elitist
        loss = evaluate.best.f[:, 0] if elite else fitness.amin(1)
        return schedule(outer, loss, self.algorithm.settings), params._replace(**moved)

    def _first_descent(self, best: Best) -> Descent:
        """From the best of the starting population, if the algorithm has one."""
        space = self.algorithm.space
        if not self.algorithm.evaluates_start:
            idle = descents.begin(best.x, best.f, torch.zeros_like(best.x), space)
            return idle._replace(going=~idle.going)
        descent = descents.begin(best.x, *Evaluator(self.problem, best).with_gradient(best.x), space)
        return descent._replace(begun=descent.begun + 1)

    def _burst(self, carry: Carry, descent: Descent) -> Carry:
        """Everything but the descent and what it finds stays as it is."""
        descent = descents.burst(descent, Evaluator(self.problem, carry.best).with_gradient, self.algorithm.space)
        better = (descent.f < carry.best.f)[:, 0]
        return carry._replace(best=select(better, Best(descent.x, descent.f), carry.best), descent=descent)

    def _next_descent(
        self,
        x: Float[Tensor, "seeds pop dim"],
        fitness: Float[Tensor, "seeds pop"],
        winner: Int[Tensor, "seeds 1"],
        descent: Descent,
        evaluate: Evaluator,
    ) -> tuple[Tensor, Tensor, Descent]:
        """Where the wait is over, start from the generation's winner; where the population has
        stalled, let the best so far take the place of its worst candidate."""
        value = take(fitness, winner)
        progress = value[:, 0] < descent.level - descents.PAYS * descent.level.abs()
        progress |= descent.level == torch.inf
        due = descent.rest <= 1
        descent = descent._replace(
            rest=descent.rest - 1,
            level=torch.where(progress, value[:, 0], descent.level),
            stalled=torch.where(progress, 0, descent.stalled + 1),
            generations=descent.generations + 1,
        )
        point = take(x, winner)
        begun = descents.begin(point, *evaluate.with_gradient(point), self.algorithm.space, last=descent)
        begun = begun._replace(begun=begun.begun + 1, to_beat=evaluate.best.f)
        if self.algorithm.welcomes:
            stalled = descent.stalled >= descents.PATIENCE
            x, fitness = select(stalled, replace_worst(x, fitness, *evaluate.best), (x, fitness))
        return x, fitness, select(due, begun, descent)


class _Recorder:
    """History on the device: room for every point is taken at the start."""

    def __init__(self, space: Space, columns: int) -> None:
        self.history = torch.empty(space.seeds, columns, dtype=torch.float64, device=space.lower.device)
        self.spent = torch.empty_like(self.history)
        self.learned: dict[str, Tensor] = {}

    def __call__(
        self,
        column: int,
        spent: float | Float[Tensor, " seeds"],
        best: Best,
        learned: dict[str, Float[Tensor, " seeds"]],
    ) -> None:
        self.spent[:, column] = spent
        self.history[:, column] = best.f[:, 0]
        for name, value in learned.items():
            self.learned.setdefault(name, torch.full_like(self.history, torch.nan))[:, column] = value

    def cut(self, columns: int) -> None:
        """End here, before the budget does: the first so many points, and room for one more."""
        self.history, self.spent = self.history[:, : columns + 1], self.spent[:, : columns + 1]
        self.learned = {name: value[:, : columns + 1] for name, value in self.learned.items()}

    def saved(self) -> dict[str, Any]:
        return {"history": self.history, "spent": self.spent, "learned": self.learned}

    def restore(self, saved: dict[str, Any]) -> None:
        self.history.copy_(saved["history"])
        self.spent.copy_(saved["spent"])
        self.learned = {name: value.to(self.history.device) for name, value in saved["learned"].items()}

    def records(
        self,
        seeds: Sequence[int],
        best: Best,
        f_evals: Sequence[int],
        g_evals: Sequence[int],
        wall_s: float,
        stop_reason: str,
    ) -> list[RunRecord]:
        """One record a seed; the only transfer from the device."""
        best_f, best_x = best.f[:, 0].cpu().numpy(), best.x[:, 0].double().cpu().numpy()
        history, spent = self.history.cpu().numpy(), self.spent.cpu().numpy()
        learned = {name: value.cpu().numpy() for name, value in self.learned.items()}
        return [
            RunRecord(
                seed=seed,
                best_f=float(best_f[row]),
                best_x=best_x[row],
                f_evals=f_evals[row],
                g_evals=g_evals[row],
                stop_reason=stop_reason,
                wall_s=wall_s,
                batch_size=len(seeds),
                evals=spent[row],
                history=history[row],
                learned={name: value[row] for name, value in learned.items()},
            )
            for row, seed in enumerate(seeds)
        ]
