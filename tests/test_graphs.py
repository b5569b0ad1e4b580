"""Generations that are recorded and replayed: on the CPU with a tape in place of the CUDA graph."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import pytest
import torch
from test_device import POP, SEEDS, TENSOR_ALGORITHMS, begun, tensors
from test_evograd import assert_same
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from evobench.algorithms import ALGORITHMS
from evobench.baselines import gradient
from evobench.evograd import FAMILIES, VARIANTS, loop
from evobench.evograd.checkpoint import Checkpoint
from evobench.evograd.graphs import Captured, cuda_graph
from evobench.evograd.loop import run_batch
from evobench.evograd.space import Streams
from evobench.problems import make_problem


class Tape(TorchDispatchMode):
    """Does what a CUDA graph does: keeps operations and the tensors that they read and write, no Python; while it
    records nothing is computed (here: what was written over is put back); a replay writes the same memory."""

    def __init__(self):
        super().__init__()
        self.operations, self.overwritten = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        named = {argument.name: value for argument, value in zip(function._schema.arguments, args, strict=False)}
        for argument in function._schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = (named | kwargs)[argument.name]
                self.overwritten.append((written, written.clone()))
        result = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, result))
        return result

    def rewind(self):
        for tensor, before in reversed(self.overwritten):
            tensor.copy_(before)

    def replay(self):
        for function, args, kwargs, result in self.operations:
            if any(
                value.alias_info is not None and not value.alias_info.is_write for value in function._schema.returns
            ):
                continue  # a view of memory that is up to date
            again = function(*args, **kwargs)
            if not function._schema.is_mutable:
                for tensor, value in zip(tensors(result), tensors(again), strict=True):
                    tensor.detach().copy_(value)


def taped(work):
    work()  # as the CUDA graph is rehearsed
    with Tape() as tape:
        work()
    tape.rewind()
    return tape.replay


def refused(work):
    with Tape() as tape:
        work()
    tape.rewind()
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def copied(tree):
    return [tensor.clone() for tensor in tensors(tree)]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_tape_is_what_a_graph_is():
    """Nothing is computed while it records, and Python is not run again."""
    x, calls = torch.ones(3), []

    def work():
        calls.append(1)
        y = x.view(3, 1).expand(3, 2).sum(1)  # a view, a fresh tensor
        x[1:].add_(y[1:])  # in place, through a view
        x.copy_(x * len(calls))

    with torch.no_grad():
        with Tape() as tape:
            work()
        tape.rewind()
        assert x.tolist() == [1, 1, 1]
        replay = tape.replay
        replay()
        assert x.tolist() == [1, 3, 3]
        x.fill_(2)
        replay()
        assert x.tolist() == [2, 6, 6]
    assert calls == [1]


# The turns of the algorithms


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_replays_are_the_generations(name):
    """To the bit, turn by turn; the objective's Python runs no more, and the buffers stay where they are."""
    rng, calls = Streams(range(SEEDS), torch.float32, "cpu"), []
    with torch.no_grad():
        built, generation, carry = begun(name, "griewank", rng, "cpu")
        objective = generation.problem.evaluate
        counted = lambda x: (calls.append(1), objective(x))[1]  # noqa: E731
        vars(generation.problem)["evaluate"] = counted
        captured, ours, addresses, called = Captured(generation, taped), carry, [], []
        for _ in range(9):
            noise = built.noise(rng)
            ours = captured(ours, noise)
            called.append(len(calls))
            carry = generation(carry, noise)
            called.append(len(calls))
            assert equal(copied(ours), copied(carry))
            addresses.append([tensor.data_ptr() for tensor in tensors(ours)])
    assert called[4::2] == called[3:-1:2]  # between the calls of the eager turn, none
    assert all(again == addresses[2] for again in addresses[3:])


def batch(name, unroll=1, problem=None, device="cpu", checkpoint=None, **options):
    """Records of a small batch; `adam` and `lion` are turns of their own kind."""
    seeds = range(SEEDS)
    shared = {"seeds": seeds, "pop_size": POP, "init": "uniform", "device": device, "checkpoint": checkpoint}
    problem = problem or make_problem("rosenbrock", 4)
    if name in gradient.DESCENTS:
        make = partial(gradient.DESCENTS[name], gradient.SETTINGS[name](lr=0.5, patience=3, beta2=0.99))
        return run_batch(make, problem, gradient="kept", turn_of=gradient.DescentTurn, budget=40, **shared, **options)
    algorithm = ALGORITHMS[name]
    settings = algorithm.configure({"unroll": unroll} if unroll > 1 else {})
    make = partial(FAMILIES[algorithm.family].build, settings)
    return run_batch(make, problem, gradient=VARIANTS[algorithm.variant].gradient, budget=40 * POP, **shared, **options)


@pytest.fixture
def on_tape(monkeypatch):
    """Batches on the CPU take the way of those on a GPU; called with what records."""

    def begin(record=taped):
        made = []
        monkeypatch.setattr(loop, "_waits_for_launches", lambda device: True)
        monkeypatch.setattr(loop, "Captured", lambda turn: made.append(Captured(turn, record)) or made[-1])
        return made

    return begin


def assert_all_same(left, right):
    for one, other in zip(left, right, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("name", "unroll"),
    [
        ("pso_diff", 1),
        ("ga_diff", 1),
        ("de_guarded", 1),
        ("cmaes_diff", 3),
        ("cmaes_plain", 1),
        ("adam", 1),
        ("lion", 1),
    ],
)
def test_batches_are_the_same(name, unroll, on_tape):
    """Best, histories and learned values, gradients and evaluations: everything that is recorded."""
    eager = batch(name, unroll)
    made = on_tape()
    assert_all_same(batch(name, unroll), eager)
    assert made[0].next not in (made[0].turn, made[0]._first, made[0]._second)  # it was replayed


def test_a_checkpoint_of_replays_is_gone_on_from(on_tape, tmp_path, monkeypatch):
    """What is saved is the carry as it was, though the next replay writes over it."""
    monkeypatch.setenv("EVOBENCH_CHECKPOINT_S", "0")
    monkeypatch.setattr("evobench.evograd.checkpoint.SHARE", 1e9)
    monkeypatch.setattr(loop, "_PROGRESS_EVERY", 0.0)
    eager = batch("cmaes_diff")
    on_tape()

    def killed(share, best):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch("cmaes_diff", checkpoint=Checkpoint(tmp_path / "batch", "it"), progress=killed)
    saved = Checkpoint(tmp_path / "batch", "it")
    assert saved.load()["done"] > 10
    assert_all_same(batch("cmaes_diff", checkpoint=saved), eager)


def test_shown_gradients_are_not_recorded(on_tape):
    """`watch` is Python, called every turn."""
    made, seen = on_tape(), []
    batch("pso_diff", watch=lambda learned, grads: seen.append(1))
    assert made == []
    assert len(seen) == 39


# Where it cannot be


@pytest.mark.parametrize("name", ["pso_diff", "cmaes_guarded"])
def test_what_cannot_be_recorded_goes_on(name, on_tape, caplog):
    """The same numbers, and one warning that says why."""
    eager = batch(name)
    on_tape(refused)
    with caplog.at_level(logging.WARNING):
        assert_all_same(batch(name), eager)
    (record,) = caplog.records
    assert record.getMessage().endswith("not as a CUDA graph: operation not permitted when stream is capturing")


def test_the_first_error_is_the_one_that_is_told(on_tape, caplog):
    """Where the end of a recording fails too, as torch's does."""

    def spoilt(work):
        try:
            raise RuntimeError("the objective waits")
        finally:
            raise RuntimeError("capture failed")

    on_tape(spoilt)
    batch("pso_diff")
    assert caplog.messages[0].endswith("the objective waits")


def test_an_objective_that_python_changes_is_not_frozen(on_tape, caplog):
    """A recording would repeat one day's number for ever: the replay is compared, and refused."""
    day = iter(range(1_000_000))
    drifting = replace(make_problem("sphere", 4), evaluate=lambda x: x.square().sum(-1) + 1000 * next(day))
    made = on_tape()
    batch("pso_diff", problem=drifting)
    assert made[0].next is made[0].turn
    assert caplog.messages[0].endswith("replayed, a generation gives other numbers")
    assert next(day) > 2 * 39  # asked for every fitness and gradient to the end


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(lambda carry, noise: Pair(carry.b, carry.a + noise), id="swapped"),
        pytest.param(lambda carry, noise: Pair(carry.b.flip(0), carry.a), id="handed on"),
        pytest.param(lambda carry, noise: Pair(carry.a, carry.b + noise), id="kept"),
        pytest.param(lambda carry, noise: Pair(carry.b[:].view(2, 2), carry.a[:] + noise), id="views"),
        pytest.param(lambda carry, noise: (lambda both: Pair(both[0], both[1]))(torch.stack(carry) + noise), id="rows"),
        pytest.param(lambda carry, noise: (lambda one: Pair(one, one))(carry.a + noise), id="one"),
        pytest.param(lambda carry, noise: Pair(noise.expand(2, 2), carry.a.mT), id="strided"),
        pytest.param(lambda carry, noise: Pair(carry.a / 0 * 0, carry.b + noise), id="not a number"),
    ],
)
def test_buffers_are_filled_in_any_order(turn):
    """Fields that change places, are handed on, or are views of one tensor."""
    carry = ours = Pair(torch.arange(4.0).view(2, 2), -torch.arange(4.0).view(2, 2))
    captured = Captured(turn, taped)
    for number in range(7):
        noise = torch.tensor(float(number))
        ours, carry = captured(ours, noise.clone()), turn(carry, noise)
        for one, other in zip(tensors(ours), tensors(carry), strict=True):
            assert torch.equal(one.nan_to_num(), other.nan_to_num())
            assert one.dtype == other.dtype
    assert captured.next is not turn


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(lambda carry, noise: Pair(torch.cat([carry.a, noise]), carry.b), id="grows"),
        pytest.param(lambda carry, noise: Pair(carry.a[:1] + noise, carry.b), id="fits by repetition"),
        pytest.param(lambda carry, noise: Pair(carry.a + noise, carry.b - noise), id="was one tensor"),
        pytest.param(lambda carry, noise: Pair(carry.b.to(torch.int64) + 1, carry.b), id="another type"),
    ],
)
def test_what_is_laid_out_otherwise_is_not_recorded(turn, caplog):
    """Even where the values of the turn that is compared, with noise 0, happen to be the same."""
    both = torch.zeros(2)
    carry = ours = Pair(both, both)
    captured = Captured(turn, taped)
    captured.next = captured._second  # its input is laid out as no output is
    for number in range(4):
        noise = torch.tensor([float(number)])
        ours, carry = captured(ours, noise.clone()), turn(carry, noise)
        assert equal(copied(ours), copied(carry))
        assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in carry]
    assert captured.next is turn
    assert caplog.messages[0].endswith("layout")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch.cuda finds")
@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_a_gpu_replays_what_it_computes(name):
    """To the bit, and without a fallback."""
    rng = Streams(range(SEEDS), torch.float32, "cuda")
    with torch.no_grad():
        built, generation, carry = begun(name, "griewank", rng, "cuda")
        captured, ours = Captured(generation, cuda_graph), carry
        memory = []
        for _ in range(30):
            noise = built.noise(rng)
            ours, carry = captured(ours, noise), generation(carry, noise)
            assert equal(copied(ours), copied(carry))
            memory.append(torch.cuda.memory_allocated())
    assert captured.next is not generation
    assert memory[-1] == memory[10]
