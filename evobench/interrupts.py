"""Being asked to stop: Ctrl-C, and SIGTERM, which `timeout`, batch systems and containers send."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM: what is finished is kept, as with Ctrl-C."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


_HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate}


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` inside, unless somebody else handles it."""
    ours = _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Both wait until what this yields is called, or for the end: raised amid what is inside, they would leave it
    half done.

    A signal that is ignored, or that somebody else handles, is left alone.
    """
    main = _in_main_thread()
    ours = [number for number, handler in _HANDLERS.items() if main and signal.getsignal(number) is handler]
    asked: list[int] = []
    for number in ours:
        signal.signal(number, lambda number, frame: asked.append(number))

    def raise_interrupt() -> None:
        if asked:
            first = asked[0]
            asked.clear()
            _HANDLERS[signal.Signals(first)](first, None)

    try:
        yield raise_interrupt
    finally:
        for number in ours:
            signal.signal(number, _HANDLERS[number])
        raise_interrupt()


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes started inside never see Ctrl-C, not even while they import: it is the parent's to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
