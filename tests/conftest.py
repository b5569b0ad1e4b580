"""What all tests share: a deterministic Hypothesis profile, and the shape of a refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

torch.set_num_threads(1)  # tensors of a test are too small to share between threads

# Shapes in annotations hold wherever the tests go in these modules.
CHECKED = ("problems", "record")  # the loop of the algorithms would take three times as long
install_import_hook([f"evobench.{name}" for name in CHECKED], "beartype.beartype")

settings.register_profile(
    "evobench",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("evobench")

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def refused() -> Refused:
    """A context manager that expects a ValueError of one printable sentence containing every given text."""

    @contextmanager
    def expect(*texts: str, error: type[Exception] = ValueError) -> Iterator[None]:
        with pytest.raises(error) as caught:
            yield
        message = str(caught.value)
        assert_one_sentence(message)
        for text in texts:
            assert re.search(re.escape(text), message), f"'{text}' is not in: {message}"

    return expect


def assert_one_sentence(message: str) -> None:
    """A terminal can print it on one line, whatever the user typed."""
    assert message.strip(), "an empty message"
    assert message.isprintable(), f"not one printable line: {message!r}"
    assert len(message) < 1000, f"{len(message)} characters"
