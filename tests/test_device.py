"""What can be proved of the GPU path without a GPU, and, where there is one, a run on it."""

from functools import partial

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from evobench.algorithms import ALGORITHMS
from evobench.evograd import FAMILIES, VARIANTS
from evobench.evograd.loop import Evaluator, Generation, nothing_yet, run_batch
from evobench.evograd.space import Space, Streams
from evobench.problems import PAPER_FUNCTIONS, make_problem

TENSOR_ALGORITHMS = [name for name, algorithm in ALGORITHMS.items() if algorithm.backend == "evograd"]
SEEDS, POP, DIM = 3, 10, 5


class MetaStreams:
    """Noise of the right shapes, and no values."""

    def uniform(self, *shapes):
        return [torch.rand(SEEDS, *shape, device="meta") for shape in shapes]

    normal = uniform


def begun(name, fn, rng, device):
    algorithm = ALGORITHMS[name]
    problem = make_problem(fn, DIM)
    space = Space.of(problem, SEEDS, POP, algorithm.own_start, torch.float32, device)
    built = FAMILIES[algorithm.family].build(algorithm.settings, space)
    vars(built)["width"] = 200.0  # CMA-ES looks at the box once, before the first generation
    evaluate = Evaluator(problem, nothing_yet(space))
    generation = Generation(built, problem, VARIANTS[algorithm.variant].gradient)
    carry = generation.first(*built.init(rng, evaluate), evaluate.best)
    return built, generation, carry


def tensors(tree):
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("fn", PAPER_FUNCTIONS)
@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_a_generation_stays_on_its_device(name, fn):
    """On torch's device without values, a tensor of another device and any look at a value are errors.

    FakeTensorMode's CUDA would say more, but a torch without CUDA aborts when a graph is built there.
    """
    with torch.no_grad():
        built, generation, carry = begun(name, fn, rng := MetaStreams(), "meta")
        for _ in range(2):
            carry = generation(carry, built.noise(rng))
            assert {tensor.device.type for tensor in tensors(carry)} == {"meta"}


def test_another_device_is_noticed():
    with torch.no_grad():
        built, generation, carry = begun("pso_diff", "ackley", rng := MetaStreams(), "meta")
        elsewhere = carry._replace(state=carry.state._replace(velocity=torch.zeros(SEEDS, POP, DIM)))
        with pytest.raises(RuntimeError, match="device"):
            generation(elsewhere, built.noise(rng))
        with pytest.raises((RuntimeError, NotImplementedError)):
            carry.best.f.min().item()


class Waits(TorchDispatchMode):
    """Operations that make the host wait for the device, or whose shape depends on values."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(part in function.__name__ for part in self.NAMES):
            self.seen.append(function.__name__)
        if "_to_copy" in function.__name__ and (kwargs or {}).get("device", args[0].device) != args[0].device:
            self.seen.append("a copy to another device")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_a_generation_never_waits(name):
    rng = Streams(range(SEEDS), torch.float32, "cpu")
    with torch.no_grad():
        built, generation, carry = begun(name, "griewank", rng, "cpu")
        noise = built.noise(rng)
        with Waits() as waits:
            shapes = [tensor.shape for tensor in tensors(carry)]
            carry = generation(carry, noise)
            assert [tensor.shape for tensor in tensors(carry)] == shapes  # what a captured graph needs
    assert waits.seen == []


def test_waiting_is_noticed():
    with Waits() as waits:
        torch.ones(2).sum().item()
        torch.ones(2).nonzero()
    assert len(waits.seen) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch.cuda finds")
@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_a_gpu_finds_what_the_cpu_finds(name):
    algorithm = ALGORITHMS[name]
    best = []
    for device in ("cpu", "cuda"):
        records = run_batch(
            partial(FAMILIES[algorithm.family].build, algorithm.settings),
            make_problem("sphere", 5),
            gradient=VARIANTS[algorithm.variant].gradient,
            seeds=range(20),
            pop_size=20,
            budget=4000,
            init=algorithm.own_start,
            device=device,
        )
        best.append(sorted(record.best_f for record in records)[10])
    assert best[1] < 100 * best[0] + 1e-3
