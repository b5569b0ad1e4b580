"""Where a batch of runs lives: its shapes, its box, its random streams.

Shapes everywhere in this package: S seeds, N individuals, D dimensions; every state tensor leads
with the seed axis, and rows of different seeds never meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evobench.problems import Problem

CENTRE_STD = 0.5
"""Standard deviation of the start at the box centre, in units of x (the authors' code)."""

_SMALLEST_UNIFORM = 2.0**-25
"""Half the spacing of torch's float32 uniforms: keeps their logarithms finite."""

_MANTISSA, _ONE = np.uint32(0x007FFFFF), np.uint32(0x3F800000)
"""Of a float32: its 23 bits of mantissa, and the pattern of 1.0."""

_BELOW_ONE = np.float32(1 - 2.0**-24)


@runtime_checkable
class Random(Protocol):
    """Where random numbers come from, one stream a seed: `Streams`, or a compiled generation's `Counter`.

    A generation takes all its numbers in one call: a counter has the same ones for the next call.
    """

    def uniform(self, *shapes: tuple[int, ...]) -> list[Float[Tensor, "seeds ..."]]:
        """One tensor a shape, `[S, *shape]`, uniform on the open interval (0, 1)."""
        ...

    def normal(self, *shapes: tuple[int, ...]) -> list[Float[Tensor, "seeds ..."]]:
        """One tensor a shape, `[S, *shape]`, standard normal."""
        ...


STREAMS = "SFC64 uniforms, torch normals"
"""Names the streams: other streams make other runs, and a cell's settings_hash covers it."""


class Streams:
    """One random stream a seed, so that a run depends on its own seed alone.

    On the CPU uniforms come from SFC64, several times as fast as torch's generator; normals, and
    everything on a GPU, come from torch.
    """

    def __init__(self, seeds: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> None:
        self.dtype, self.device = dtype, device
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.bits = [np.random.SFC64(seed) for seed in seeds] if str(device) == "cpu" else []

    def uniform(self, *shapes: tuple[int, ...]) -> list[Float[Tensor, "seeds ..."]]:
        """One tensor a shape, `[S, *shape]`, uniform on the open interval (0, 1)."""
        total = total_of(shapes)
        if not self.bits:
            flat = self._draw(Tensor.uniform_, total).clamp_(min=_SMALLEST_UNIFORM)
            return split(flat.to(self.dtype), shapes)
        pairs = (total + 1) // 2  # SFC64 gives two words at once
        words = np.concatenate([bits.random_raw(pairs) for bits in self.bits]).view(np.uint32)
        words &= _MANTISSA
        words |= _ONE  # 1 + k/2²³, as a float32
        uniforms = words.view(np.float32)
        uniforms -= _BELOW_ONE  # (2k + 1)/2²⁴, exactly
        flat = torch.from_numpy(uniforms.reshape(len(self.bits), 2 * pairs)[:, :total])
        return split(flat.to(self.dtype), shapes)

    def normal(self, *shapes: tuple[int, ...]) -> list[Float[Tensor, "seeds ..."]]:
        """One tensor a shape, `[S, *shape]`, standard normal."""
        return split(self._draw(Tensor.normal_, total_of(shapes)).to(self.dtype), shapes)

    def saved(self) -> dict[str, list[Tensor]]:
        """Where every stream is."""
        words = [bits.state["state"]["state"] for bits in self.bits]
        return {
            "generators": [generator.get_state() for generator in self.generators],
            "bits": [torch.from_numpy(word.view(np.int64).copy()) for word in words],
        }

    def restore(self, saved: dict[str, list[Tensor]]) -> None:
        """Go on from there."""
        for generator, state in zip(self.generators, saved["generators"], strict=True):
            generator.set_state(state)
        for bits, word in zip(self.bits, saved["bits"], strict=True):
            bits.state = {**bits.state, "state": {"state": word.numpy().view(np.uint64)}}

    def _draw(self, fill: object, total: int) -> Tensor:
        """A single draw a seed for all shapes: this loop's overhead is paid once a generation."""
        flat = torch.empty(len(self.generators), total, dtype=torch.float32, device=self.device)
        for row, generator in zip(flat.unbind(0), self.generators, strict=True):
            fill(row, generator=generator)  # type: ignore[operator]
        return flat


def split(flat: Float[Tensor, "seeds total"], shapes: Sequence[tuple[int, ...]]) -> list[Float[Tensor, "seeds ..."]]:
    """One tensor a shape, `[S, *shape]`, of each seed's numbers in their order."""
    parts = flat.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def total_of(shapes: Sequence[tuple[int, ...]]) -> int:
    """Numbers that so many tensors hold."""
    return sum(math.prod(shape) for shape in shapes)


@dataclass(frozen=True, eq=False)
class Space:
    """Shapes and box of a batch.

    Attributes:
        lower, upper: box bounds `[D]` in the state's dtype, rounded into the box.
        init: `uniform` in the box, or `centre`: N(box centre, 0.5² I).
    """

    seeds: int
    pop: int
    dim: int
    lower: Float[Tensor, " dim"]
    upper: Float[Tensor, " dim"]
    init: str

    @classmethod
    def of(cls, problem: Problem, seeds: int, pop: int, init: str, dtype: torch.dtype, device: str) -> Space:
        """The space of `seeds` runs on `problem`."""
        lower, upper = _rounded_inwards(problem, dtype)
        return cls(seeds, pop, problem.dim, lower.to(device), upper.to(device), init)

    @property
    def width(self) -> Float[Tensor, " dim"]:
        """Box widths `[D]`."""
        return self.upper - self.lower

    @property
    def centre(self) -> Float[Tensor, " dim"]:
        """Box centre `[D]`."""
        return (self.lower + self.upper) / 2

    def full(self, value: float, *shape: int) -> Float[Tensor, "seeds ..."]:
        """A constant `[S, *shape]`."""
        return self.lower.new_full((self.seeds, *shape), value)

    def start(self, rng: Random, count: int) -> Float[Tensor, "seeds count dim"]:
        """Starting points `[S, count, D]`, as `init` says."""
        if self.init == "uniform":
            (unit,) = rng.uniform((count, self.dim))
            return reflect(self.lower + unit * self.width, self)
        (normal,) = rng.normal((count, self.dim))
        return reflect(self.centre + CENTRE_STD * normal, self)


def _rounded_inwards(problem: Problem, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Bounds in `dtype` that are inside the float64 bounds: float32's 0.1 is above 0.1."""
    exact_lower, exact_upper = torch.from_numpy(problem.lower), torch.from_numpy(problem.upper)
    lower, upper = exact_lower.to(dtype), exact_upper.to(dtype)
    infinity = torch.tensor(torch.inf, dtype=dtype)
    lower = torch.where(lower.double() < exact_lower, torch.nextafter(lower, infinity), lower)
    upper = torch.where(upper.double() > exact_upper, torch.nextafter(upper, -infinity), upper)
    return lower, upper


def reflect(x: Float[Tensor, "seeds n dim"], space: Space) -> Float[Tensor, "seeds n dim"]:
    """Fold points into the box, as if its walls were mirrors (paper §2.1.1, "bounced").

    Any distance outside is folded; the gradient is ±1. A point inside is returned to the bit. What
    is not finite goes to 0, or to the bound nearest to it.
    """
    width = space.width
    inside = x.clamp(space.lower, space.upper)
    excess = x - inside  # 0 inside
    distance = excess.abs()
    phase = distance - torch.floor(distance / (2 * width)) * (2 * width)  # there and back
    back = width - (phase - width).abs()
    folded = torch.addcmul(inside, excess.sign(), back, value=-1)  # not `copysign`: the compiler does not inline it
    # NaN alone differs from itself; of `isnan` the compiler would make a loop over single numbers.
    return torch.where(folded != folded, 0.0, folded).clamp(space.lower, space.upper)


def take(tensor: Float[Tensor, "seeds pop ..."], rows: Int[Tensor, "seeds n"] | None) -> Float[Tensor, "seeds n ..."]:
    """The given individuals of each seed, or all of them where `rows` is None."""
    if rows is None:
        return tensor
    return torch.take_along_dim(tensor, rows.view(*rows.shape, *[1] * (tensor.ndim - 2)), dim=1)
