"""Random numbers as a function of seed, turn and place, for compiled generations.

Threefry-2x32: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. There is
no state to wait for, so that the compiler fuses it with what it is for, and every thread draws its own. With
13 rounds it is the fastest of its kind that passes all of BigCrush (there, table 2). One operation at a time it
would be several times slower than `Streams`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from evobench.evograd.space import split, total_of

COUNTED = "Threefry-2x32-13"
"""Names the streams of a compiled cell: other streams make other runs, and its settings_hash covers it."""

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


class Counter(NamedTuple):
    """The random numbers of one turn, as `Streams` has those of all turns.

    A tuple of tensors, so that it can be an argument of a compiled program.
    """

    low: Int[Tensor, "seeds 1"]  # a seed's bits, int32
    high: Int[Tensor, "seeds 1"]
    turn: Int[Tensor, ""]

    @classmethod
    def of(cls, seeds: Sequence[int], device: torch.device | str) -> Counter:
        """The numbers of turn 0."""
        words = torch.tensor([(_signed(seed), _signed(seed >> 32)) for seed in seeds], dtype=torch.int32, device=device)
        return cls(words[:, :1], words[:, 1:], torch.zeros((), dtype=torch.int32, device=device))

    def following(self) -> Counter:
        """Those of the next turn."""
        return self._replace(turn=self.turn + 1)

    def uniform(self, *shapes: tuple[int, ...]) -> list[Float[Tensor, "seeds ..."]]:
        """One tensor a shape, `[S, *shape]`, uniform on the open interval (0, 1), float32."""
        total = total_of(shapes)
        return split(torch.cat(self._pairs(total), dim=1)[:, :total], shapes)

    def normal(self, *shapes: tuple[int, ...]) -> list[Float[Tensor, "seeds ..."]]:
        """One tensor a shape, `[S, *shape]`, standard normal, float32 (Box and Muller, 1958)."""
        total = total_of(shapes)
        first, second = self._pairs(total)
        radius, angle = (-2 * first.log()).sqrt(), 2 * math.pi * second
        return split(torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :total], shapes)

    def _pairs(self, total: int) -> list[Float[Tensor, "seeds pairs"]]:
        """Two uniforms of each counter, (2k + 1)/2²⁴ for k of 23 bits, as `Streams` has them."""
        places = torch.arange((total + 1) // 2, dtype=torch.int32, device=self.low.device)
        words = threefry(self.low, self.high, places, self.turn)
        return [((word >> 9) & 0x007FFFFF).to(torch.float32) * 2.0**-23 + 2.0**-24 for word in words]


def threefry(
    key_0: Int[Tensor, "*shape"],
    key_1: Int[Tensor, "*shape"],
    counter_0: Int[Tensor, "*shape"],
    counter_1: Int[Tensor, "*shape"],
    rounds: int = 13,
) -> tuple[Int[Tensor, "*shape"], Int[Tensor, "*shape"]]:
    """Two words of 32 bits from two words of a counter and two of a key: int32, which wrap around."""
    keys = key_0, key_1, key_0 ^ key_1 ^ _PARITY
    x, y = counter_0 + keys[0], counter_1 + keys[1]
    for number in range(rounds):
        x = x + y
        y = _rotated(y, _ROTATIONS[number % 8]) ^ x
        if number % 4 == 3:
            turn = number // 4 + 1
            x, y = x + keys[turn % 3], y + (keys[(turn + 1) % 3] + turn)
    return x, y


def _rotated(word: Int[Tensor, "*shape"], by: int) -> Int[Tensor, "*shape"]:
    return (word << by) | ((word >> (32 - by)) & ((1 << by) - 1))


def _signed(word: int) -> int:
    """The lowest 32 bits as int32 has them."""
    return ((word & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
