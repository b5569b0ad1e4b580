"""What all tests share: a deterministic Hypothesis profile, and the shape of a refusal."""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test that draws from torch's own stream gets the same numbers in any company."""
    torch.manual_seed(0)


WINE = Path(__file__).parents[2] / "shared" / "data" / "winequality-red.csv"


@pytest.fixture(scope="session")
def wine_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The wine data where they are, else a table with the same columns; the environment names it."""
    from evobench import wine

    path = WINE if WINE.exists() else tmp_path_factory.mktemp("data") / "wine.csv"
    with pytest.MonkeyPatch.context() as patch:
        if path != WINE:
            rng = np.random.default_rng(7)
            inputs = rng.lognormal(0, 0.3, (400, 11)) * [8, 0.5, 0.3, 2.5, 0.1, 15, 46, 1, 3.3, 0.7, 10]
            quality = rng.choice(np.arange(3, 9), 400, p=[0.02, 0.05, 0.42, 0.38, 0.11, 0.02])
            header = ";".join([*(f'"input {number}"' for number in range(1, 12)), '"quality"'])
            np.savetxt(path, np.column_stack([inputs, quality]), "%g", delimiter=";", header=header, comments="")
            patch.setattr(wine, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        patch.setenv(wine.VARIABLE, str(path))
        yield path


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
