"""A turn of the loop as one CUDA graph: hundreds of small operations, launched at once.

Where tensors are small, a GPU waits for the host to launch one operation after the other. A turn is a
pure function of tensors whose shapes never change, so it is recorded once, over buffers of its own, and
replayed. Where that is not possible (an objective that waits for the device, or draws random numbers on
the host), turns go on as they are, with the same numbers.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what a function does to tensors, and returns what does it again. It may run the function meanwhile."""

_LOG = logging.getLogger(__name__)


def cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """`work` as a CUDA graph, rehearsed once on the stream that it is recorded on.

    Raises:
        RuntimeError: if something in it cannot be recorded.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a recording that fails would leave the device on its stream
        with _waiting_is_an_error():
            work()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """Raise where the host waits for the device, which would spoil a recording, and torch's allocator with it."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")  # is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Captured:
    """The same turn, recorded and replayed.

    The first turn runs as it is: in what it returns, and from then on, the same fields share a tensor. So
    does the second, whose result the recording has to give, and whose noise becomes a buffer as it lies
    (the last bits depend on strides). From the third on, a carry lasts until the next turn, which writes
    over it.
    """

    def __init__(self, turn: Callable[..., Any], record: Record = cuda_graph) -> None:
        self.turn, self.record = turn, record
        self.next: Callable[..., Any] = self._first

    def __call__(self, carry: Any, *noises: Any) -> Any:
        return self.next(carry, *noises)

    def _first(self, carry: Any, *noises: Any) -> Any:
        self.next = self._second
        return self.turn(carry, *noises)

    def _second(self, carry: Any, *noises: Any) -> Any:
        new = self.turn(carry, *noises)
        try:
            self.next = _recorded(self.turn, self.record, carry, noises, new)
        except RuntimeError as error:
            # Where the end of a recording fails as well, what came before says more.
            reason = str(error.__context__ or error).strip().partition("\n")[0]
            _LOG.warning("generations are launched one operation at a time, not as a CUDA graph: %s", reason)
            self.next = self.turn
        return new


def _recorded(
    turn: Callable[..., Any], record: Record, carry: Any, noises: tuple[Any, ...], new: Any
) -> Callable[..., Any]:
    """`turn` by replaying, if that makes `new` of `carry` and `noises` as `turn` did.

    Raises:
        RuntimeError: if it cannot be recorded, or makes something else.
    """
    held, again = _copied(carry), _copied(noises)
    inputs, buffers = pytree.tree_leaves((held, noises)), pytree.tree_leaves(held)
    memory, places = {_address(buffer) for buffer in buffers}, set(_shared(buffers))

    def work() -> None:
        made = pytree.tree_leaves(turn(held, *noises))
        if _layout(made) != _layout(buffers):
            raise RuntimeError("a generation's state changes its layout")
        # What lies in a buffer is moved out first: that buffer may be filled before it is read.
        made = [
            leaf.clone() if leaf is not buffer and _address(leaf) in memory else leaf
            for leaf, buffer in zip(made, buffers, strict=True)
        ]
        _fill([buffers[place] for place in places], [made[place] for place in places])

    replay = record(work)

    def replayed(carry: Any, *its_noises: Any) -> Any:
        _fill(inputs, pytree.tree_leaves((carry, its_noises)))
        replay()
        return held

    if not _same(pytree.tree_leaves(replayed(carry, *again)), pytree.tree_leaves(new)):
        raise RuntimeError("replayed, a generation gives other numbers")
    return replayed


def _copied(tree: Any) -> Any:
    """The same tree over tensors of its own; what was one tensor in several fields is one again."""
    leaves, structure = pytree.tree_flatten(tree)
    copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return pytree.tree_unflatten([copies[place] for place in _shared(leaves)], structure)


def _shared(leaves: Sequence[Any]) -> list[int]:
    """For each leaf the place where it stands first."""
    places: dict[int, int] = {}
    return [places.setdefault(id(leaf), place) for place, leaf in enumerate(leaves)]


def _address(leaf: Any) -> int | None:
    return leaf.untyped_storage().data_ptr() if isinstance(leaf, Tensor) else None


def _layout(leaves: Sequence[Any]) -> list[Any]:
    about = [(leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return [*_shared(leaves), *about]


def _fill(buffers: Sequence[Any], values: Sequence[Any]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        if value is not buffer:
            buffer.copy_(value)


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if isinstance(a, Tensor)]
    return all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs)
