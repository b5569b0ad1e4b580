"""A batch of runs on disk, between two of its generations: killed there, it goes on from there.

What is stored is everything that the rest of the runs depends on, so that a resumed batch computes
the same numbers, on the CPU to the bit.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from evobench.files import matching, read, remove, remove_empty, write_atomically

VARIABLE, INTERVAL = "EVOBENCH_CHECKPOINT_S", 30.0
"""Seconds between two checkpoints, at least, and the environment variable that changes them."""

SHARE = 0.01
"""Part of the time that saving may take."""


def interval() -> float:
    """Seconds between two checkpoints.

    Raises:
        ValueError: if the environment variable is no number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        seconds = float(text) if text else INTERVAL
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ValueError(f"bad {VARIABLE} '{text}': give a number of seconds, such as 30")
    return seconds


class Checkpoint:
    """One file: a digest, then what it is the digest of.

    A batch with another `fingerprint` (settings, seeds, versions, code) cannot go on from it.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint, self.interval = path, fingerprint, interval()
        self.next = time.perf_counter() + self.interval

    @property
    def due(self) -> bool:
        return time.perf_counter() >= self.next

    def save(self, content: dict[str, Any]) -> None:
        """Write, sync, rename: the file is the last checkpoint or this one. A full disk costs the checkpoint only."""
        started = time.perf_counter()
        buffer = io.BytesIO()
        torch.save({"fingerprint": self.fingerprint, **content}, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).digest()
        with suppress(OSError):  # results are what must not be lost, and they say so themselves
            self._tidy()
            write_atomically(self.path, lambda file: file.writelines((digest, buffer.getbuffer())))
        took = time.perf_counter() - started
        self.next = time.perf_counter() + max(self.interval, took / SHARE)

    def load(self) -> dict[str, Any] | None:
        """What was saved, or None: there is nothing, it is damaged, or it is another batch's."""
        try:
            data = read(self.path)
        except OSError:
            return None
        digest, payload = data[:32], data[32:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        content: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
        return content if content["fingerprint"] == self.fingerprint else None

    def remove(self) -> None:
        """The batch is finished and stored."""
        with suppress(OSError):
            self._tidy()
            remove(self.path)
            remove_empty(self.path.parent)  # if this was the last one

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it saved."""
        for left in matching(self.path.parent, f".{self.path.name}.*.tmp"):
            remove(left)


def pack(tree: Any) -> tuple[list[Tensor], list[int]]:
    """The distinct tensors of a tree of named tuples, and which of them stands where."""
    leaves = pytree.tree_leaves(tree)
    distinct = {id(leaf): leaf for leaf in leaves}
    place = {key: index for index, key in enumerate(distinct)}
    return list(distinct.values()), [place[id(leaf)] for leaf in leaves]


def unpack(packed: tuple[list[Tensor], list[int]], like: Any, device: str) -> Any:
    """The tree that was packed, of the structure of `like`; what was one tensor is one tensor again."""
    tensors, places = packed
    tensors = [tensor.to(device) if isinstance(tensor, Tensor) else tensor for tensor in tensors]
    return pytree.tree_unflatten([tensors[place] for place in places], pytree.tree_structure(like))
