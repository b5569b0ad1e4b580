"""The paper's real-world task: a small network on Wine Quality (red), and what its loss is made of.

Cortez, Cerdeira, Almeida, Matos and Reis, "Modeling wine preferences by data mining from
physicochemical properties", Decision Support Systems 47(4):547-553, 2009; the data are the UCI
repository's, CC BY 4.0. Paper §3: a network 11-128-1 with tanh, 1,665 parameters, mean squared error
on quality + LogNormal(0, 1).

The authors' code subtracts targets `[rows]` from outputs `[rows, 1]`, which broadcasts to
`[rows, rows]`: every output is compared with every target. The mean of all those squares is
mean((o − ȳ)²) + var(y), and so needs no such matrix; its minimum is var(y), where the network ignores
the wine and says ȳ.

Everything is computed in float64, or a stored value could not be checked to nine digits.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality/winequality-red.csv"
SHA256 = "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e"
VARIABLE = "EVOBENCH_DATA"
"""The environment variable that names the file."""

INPUTS, HIDDEN = 11, 128
DIM = INPUTS * HIDDEN + HIDDEN + HIDDEN + 1
"""Parameters: hidden weights `[128, 11]`, hidden biases, output weights, output bias, as torch orders them."""

BOX = (-10.0, 10.0)
"""The paper states no box; this is the range of its uniform start."""

TEST_SHARE = 0.2
"""Part of each quality's rows that a split holds out."""

CHUNK = {"cpu": 2}
"""Networks whose hidden layers are computed at once: on a CPU as many as its cache holds."""

CHUNK_ELSEWHERE = 256


class Settings(BaseModel):
    """What can be chosen about the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise_seed: int = Field(0, ge=0, description="decides the noise on the target (the paper does not give its draw)")
    standardise: bool = Field(False, description="inputs with mean 0 and deviation 1 over the training rows")
    split: int | None = Field(
        None, ge=0, description="seed of a split stratified by quality, 80% to train; null: all rows train"
    )


class Rows(NamedTuple):
    """Inputs and noisy targets."""

    x: Float[ndarray, "rows inputs"]
    y: Float[ndarray, " rows"]


class _Tanh(torch.autograd.Function):
    """tanh(z) as 2σ(2z) − 1, three times as fast; the gradient is tanh's own, 1 − tanh(z)², 0 where saturated."""

    @staticmethod
    def forward(ctx: Any, z: Float[Tensor, "units rows"]) -> Float[Tensor, "units rows"]:
        tanh = (z + z).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(tanh)
        return tanh

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, "units rows"]) -> Float[Tensor, "units rows"]:
        gradient: Tensor = torch.ops.aten.tanh_backward(grad, *ctx.saved_tensors)
        return gradient


@dataclass(frozen=True, eq=False)
class Loss:
    """Mean squared error of networks on some rows, `[..., 1665]` to `[...]`.

    Attributes:
        inputs: transposed, with a row of ones for the biases, so that a layer is one product.
        broadcast: every output against every target, as the authors compute it.
    """

    inputs: Float[Tensor, "12 rows"]
    targets: Float[Tensor, " rows"]
    mean: float
    variance: float
    broadcast: bool

    @classmethod
    def on(cls, rows: Rows, *, broadcast: bool = False) -> Loss:
        """The loss on these rows."""
        inputs = np.vstack([rows.x.T, np.ones(len(rows.y))])
        return cls(
            torch.from_numpy(inputs), torch.from_numpy(rows.y), float(rows.y.mean()), float(rows.y.var()), broadcast
        )

    def __call__(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        parts = x.reshape(-1, DIM).split(CHUNK.get(x.device.type, CHUNK_ELSEWHERE))
        return torch.cat([self._of(part) for part in parts]).view(x.shape[:-1])

    def _of(self, networks: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        outputs = self.outputs(networks)
        if self.broadcast:
            return (outputs - self.mean).square().mean(1) + self.variance
        return (outputs - self.targets).square().mean(1)

    def outputs(self, networks: Float[Tensor, "n dim"]) -> Float[Tensor, "n rows"]:
        """What each network says of each row."""
        weights, biases, out_weights, out_bias = networks.split([INPUTS * HIDDEN, HIDDEN, HIDDEN, 1], dim=1)
        layer = torch.cat([weights.view(-1, HIDDEN, INPUTS), biases[..., None]], dim=2)
        hidden: Tensor = _Tanh.apply(layer.view(-1, INPUTS + 1) @ self.inputs)
        return torch.baddbmm(out_bias[..., None], out_weights[:, None], hidden.view(len(networks), HIDDEN, -1))[:, 0]

    def to(self, device: torch.device | str) -> Loss:
        """The same loss with its rows on `device`."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))

    @property
    def f_opt(self) -> float | None:
        """The least value, where it is known."""
        return self.variance if self.broadcast else None

    @property
    def x_opt(self) -> Float[ndarray, " dim"] | None:
        """A network that has it: no weights, and ȳ as its bias."""
        return np.append(np.zeros(DIM - 1), self.mean) if self.broadcast else None


def loss(settings: Settings) -> Loss:
    """The mean squared error, on the rows that train."""
    return Loss.on(rows(settings)[0])


def broadcast_loss(settings: Settings) -> Loss:
    """The loss as the authors compute it, on the rows that train."""
    return Loss.on(rows(settings)[0], broadcast=True)


def rows(settings: Settings) -> tuple[Rows, Rows | None]:
    """The rows that train, and those held out where there is a split.

    Raises:
        ValueError: if there are no data.
    """
    return _rows(settings, data_file())


@cache
def _rows(settings: Settings, path: Path) -> tuple[Rows, Rows | None]:
    table = read(path)
    x, quality = table[:, :INPUTS], table[:, INPUTS]
    y = quality + noise(settings.noise_seed, len(table))
    held_out = np.zeros(len(table), bool)
    if settings.split is not None:
        held_out = stratified(quality, settings.split)
    if settings.standardise:
        x = (x - x[~held_out].mean(0)) / x[~held_out].std(0)
    train, test = (Rows(np.ascontiguousarray(x[part]), y[part]) for part in (~held_out, held_out))
    return train, test if settings.split is not None else None


def noise(seed: int, count: int) -> Float[ndarray, " rows"]:
    """LogNormal(0, 1), what the paper adds to the target."""
    return np.random.default_rng(seed).lognormal(0.0, 1.0, count)


def stratified(classes: Float[ndarray, " rows"], seed: int) -> ndarray:
    """Which rows are held out: `TEST_SHARE` of each class, rounded."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(classes), bool)
    for value in np.unique(classes):
        members = np.flatnonzero(classes == value)
        held_out[rng.permutation(members)[: round(TEST_SHARE * len(members))]] = True
    return held_out


def test_loss(settings: Settings) -> Loss:
    """The mean squared error on the rows held out.

    Raises:
        ValueError: if none are.
    """
    held_out = rows(settings)[1]
    if held_out is None:
        raise ValueError("there is no test loss without a split: set wine.split")
    return Loss.on(held_out)


class References(NamedTuple):
    """Losses to compare with: of the constant ȳ, and of ordinary least squares. NaN without a split."""

    constant: float  # var(y)
    ols: float
    test_constant: float
    test_ols: float


def references(settings: Settings) -> References:
    """What needs no search, fitted to the rows that train."""
    train, test = rows(settings)
    coefficients = np.linalg.lstsq(_with_ones(train.x), train.y, rcond=None)[0]

    def losses(part: Rows | None) -> tuple[float, float]:
        if part is None:
            return np.nan, np.nan
        constant, line = train.y.mean(), _with_ones(part.x) @ coefficients
        return float(np.mean((part.y - constant) ** 2)), float(np.mean((part.y - line) ** 2))

    return References(*losses(train), *losses(test))


def _with_ones(x: Float[ndarray, "rows inputs"]) -> Float[ndarray, "rows columns"]:
    return np.hstack([x, np.ones((len(x), 1))])


def variances(draws: int = 100) -> Float[ndarray, " draws"]:
    """var(y) with each noise seed from 0 on: the least broadcast loss of that draw."""
    quality = read(data_file())[:, INPUTS]
    return np.array([(quality + noise(seed, len(quality))).var() for seed in range(draws)])


def data_file() -> Path:
    """The data: the file that `EVOBENCH_DATA` names, or the user's cache, filled by download.

    Raises:
        ValueError: saying where to put the file, if it cannot be had.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    import pooch

    cache_dir, name = Path(pooch.os_cache("evobench")), URL.rpartition("/")[2]
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=name, path=cache_dir))
    except (OSError, ValueError) as error:  # no network, no space; another checksum
        reason = "its checksum is wrong" if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(
            f"cannot download the wine data ({reason}): put {URL} at '{cache_dir / name}', "
            f"or name the file with --data or {VARIABLE}"
        ) from error


@cache
def read(path: Path) -> Float[ndarray, "rows columns"]:
    """The table, 11 inputs and the quality.

    Raises:
        ValueError: if the file cannot be read, or is not the one that the paper used.
    """
    advice = f"give a copy of {URL} by --data or {VARIABLE}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read the wine data '{path}' ({error.strerror}): {advice}") from error
    if (digest := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ValueError(f"'{path}' is not the wine data: its sha256 is {digest}, not {SHA256}; {advice}")
    return np.loadtxt(content.decode().splitlines(), delimiter=";", skiprows=1)
