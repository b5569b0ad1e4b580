"""A batch of runs on disk, between two of its generations: killed there, it goes on from there.

What is stored is everything that the rest of the runs depends on, so that a resumed batch computes
the same numbers, on the CPU to the bit.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

INTERVAL = float(os.environ.get("EVOBENCH_CHECKPOINT_S", "30"))
"""Seconds between two checkpoints, at least."""

SHARE = 0.01
"""Part of the time that saving may take."""


class Checkpoint:
    """One file. A batch with another `fingerprint` (settings, seeds, versions, code) cannot go on from it."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        self.next = time.perf_counter() + INTERVAL

    @property
    def due(self) -> bool:
        return time.perf_counter() >= self.next

    def save(self, content: dict[str, Any]) -> None:
        """Write, sync, rename: the file is the last checkpoint or this one. A full disk costs the checkpoint only."""
        started = time.perf_counter()
        hidden = self.path.with_name(f".{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with hidden.open("wb") as file:
                torch.save({"fingerprint": self.fingerprint, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(self.path)
        except OSError:  # results are what must not be lost, and they say so themselves
            with suppress(OSError):
                hidden.unlink()
        took = time.perf_counter() - started
        self.next = time.perf_counter() + max(INTERVAL, took / SHARE)

    def load(self) -> dict[str, Any] | None:
        """What was saved, or None: there is nothing, it is damaged, or it is another batch's."""
        try:
            content = torch.load(self.path, weights_only=True)
        except Exception:  # a damaged file raises anything; the batch then starts anew, with the same results
            return None
        return content if isinstance(content, dict) and content.get("fingerprint") == self.fingerprint else None

    def remove(self) -> None:
        """The batch is finished and stored."""
        with suppress(OSError):
            self.path.unlink()
            self.path.parent.rmdir()  # if this was the last one


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
