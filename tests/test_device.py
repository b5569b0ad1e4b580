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
from evobench.problems import FUNCTIONS, PAPER_FUNCTIONS, make_problem

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
            noise = built.noise(rng)
            with Waits("meta") as waits:  # nothing comes from the host either
                carry = generation(carry, noise)
            assert waits.seen == []
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
    """Operations that cannot be part of a CUDA graph: the host looks at a value, a shape depends on values, a random
    generator moves on, a tensor comes from the host or goes there."""

    FORBIDDEN = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)

    def __init__(self, device="cpu"):
        super().__init__()
        self.device, self.seen, self.count = device, [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        result = function(*args, **(kwargs or {}))
        if any(tag in function.tags for tag in self.FORBIDDEN):
            self.seen.append(function.__name__)
        elif any(tensor.device.type != self.device for tensor in tensors((args, kwargs, result))):
            self.seen.append(f"{function.__name__} of a tensor elsewhere")
        elif function.__name__.startswith("lift_fresh"):
            self.seen.append("a tensor made of Python's numbers")
        return result


def layout(tree):
    leaves = tensors(tree)
    which = [next(place for place, other in enumerate(leaves) if other is leaf) for leaf in leaves]
    return which, [(leaf.shape, leaf.stride(), leaf.dtype, leaf.device) for leaf in leaves]


@pytest.mark.parametrize("name", TENSOR_ALGORITHMS)
def test_a_generation_never_waits(name):
    rng = Streams(range(SEEDS), torch.float32, "cpu")
    with torch.no_grad():
        built, generation, carry = begun(name, "griewank", rng, "cpu")
        carry, noise = generation(carry, built.noise(rng)), built.noise(rng)
        assert all(tensor.clone().stride() == tensor.stride() for tensor in tensors(carry))  # so do its buffers lie
        with Waits() as waits:
            after = generation(carry, noise)
    assert waits.seen == []
    assert waits.count > 50
    assert layout(after) == layout(carry)  # what is recorded over buffers


@pytest.mark.usefixtures("wine_data")
@pytest.mark.parametrize("fn", FUNCTIONS)
def test_an_objective_and_its_gradient_never_wait(fn):
    """Nor does a rotated or a shifted one; on the device without values, so that nothing comes from the host."""
    dim = FUNCTIONS[fn].dim or DIM
    problem = make_problem(fn, dim).shifted(torch.zeros(SEEDS, 1, dim).numpy()).to("meta")
    evaluate = Evaluator(problem, nothing_yet(Space.of(problem, SEEDS, POP, "uniform", torch.float32, "meta")))
    x = torch.zeros(SEEDS, POP, dim, device="meta")
    with torch.no_grad(), Waits("meta") as waits:
        evaluate(x)
        evaluate.with_gradient(x[:, :1])
    assert waits.seen == []
    assert waits.count > 20


def test_waiting_is_noticed():
    with Waits() as waits:
        torch.ones(2).sum().item()
        torch.ones(2).nonzero()
        torch.ones(2).equal(torch.ones(2))
        torch.ones(2).uniform_()
        torch.tensor([1.0])
    assert len(waits.seen) == 5
    with Waits("meta") as waits:
        x = torch.ones(2, device="meta")
        x + torch.ones(()).to("meta")
    assert len(waits.seen) >= 2


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
