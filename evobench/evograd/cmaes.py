"""Differentiable CMA-ES (paper §2.1.4 and §2.2.5).

Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; Auger and Hansen, GECCO 2012
(the paper's reference). Mean, log σ and the Cholesky factor L are learned. The learning rates and
the damping act through the state alone, on later generations, so they are learned where a gradient
flows through several (`unroll`), and are numbers where it does not.

The weights are softmax(−f/T) over the best half, the temperature T being the standard deviation of
its fitness: a fixed T would be an argmax at 1e10 and a plain average at 1e-10. The constants are
Hansen's defaults for this population; `constants = "released"` takes those of the authors' code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from evobench.evograd.loop import Evaluate
from evobench.evograd.outer import OuterSettings
from evobench.evograd.relaxations import finite, logit, sigmoid
from evobench.evograd.space import CENTRE_STD, Random, Space, Streams, reflect, take

_H_SIGMA_SLOPE = 10.0  # of the logistic window (the authors' code)
_SMALLEST_RATE = 1e-6  # a learned rate starts this far from 0 and 1 at least
_BLOCK = 128  # rows and columns of a block: larger matrices are multiplied by blocks
_MIN_LOG_SIGMA = -80.0  # e^-80 = 2e-35: far below any spacing of float64 in the box


class Params(NamedTuple):
    """Learned tensors."""

    mean: Float[Tensor, "seeds 1 dim"]  # μ
    log_sigma: Float[Tensor, "seeds 1 1"]  # log σ
    factor: Float[Tensor, "seeds dim dim"]  # L, lower triangular


class UnrolledParams(NamedTuple):
    """Learned tensors where the gradient flows through several generations."""

    mean: Float[Tensor, "seeds 1 dim"]  # μ
    log_sigma: Float[Tensor, "seeds 1 1"]  # log σ
    factor: Float[Tensor, "seeds dim dim"]  # L, lower triangular
    logit_c_c: Float[Tensor, "seeds 1 1"]
    logit_c_sigma: Float[Tensor, "seeds 1 1"]
    log_c_1: Float[Tensor, "seeds 1 1"]  # both less log(1 − c_1 − c_μ): their sum stays below 1
    log_c_mu: Float[Tensor, "seeds 1 1"]
    log_damps: Float[Tensor, "seeds 1 1"]


class Settings(OuterSettings):
    """Initial values and choices."""

    sigma0: float | None = Field(
        None, gt=0, description="initial σ; None: 0.5 with the centre start (the authors' code), else 10% of the box"
    )
    weights: Literal["softmax", "rank"] = Field("softmax", description="recombination weights (paper §2.2.5: softmax)")
    temperature: float = Field(
        1.0, gt=0, description="of the weights, in standard deviations of the best half's fitness"
    )
    constants: Literal["hansen", "released"] = Field("hansen", description="learning rates and damping (paper: [2])")
    reflected_steps: bool = Field(True, description="y is the step to the reflected point, where f was evaluated")

    learnable = UnrolledParams._fields

    @property
    def learns(self) -> tuple[str, ...]:
        return tuple(name for name in super().learns if self.unroll > 1 or name in Params._fields)


class State(NamedTuple):
    """The distribution as committed, and its paths."""

    covariance: Float[Tensor, "seeds dim dim"]  # C; of a large one only the lower triangle is kept up
    factor: Float[Tensor, "seeds dim dim"]  # L as factorised, before any gradient step
    jitter: Float[Tensor, "seeds 1"]  # ε: L Lᵀ = C + ε I
    path_sigma: Float[Tensor, "seeds 1 dim"]  # p_σ
    path_c: Float[Tensor, "seeds 1 dim"]  # p_c
    age: Float[Tensor, "seeds 1 1"]  # generations so far


class Noise(NamedTuple):
    """A generation's random numbers."""

    z: Float[Tensor, "seeds n dim"]  # standard normal
    rows: Int[Tensor, "seeds n"] | None = None


class Constants(NamedTuple):
    """Learning rates and damping: numbers, or tensors `[S, 1, 1]` where they are learned."""

    c_c: Any
    c_sigma: Any
    c_1: Any
    c_mu: Any
    damps: Any


def hansen_constants(dim: int, mu_eff: float) -> Constants:
    """Hansen's tutorial, table 1 (with α_cov = 2)."""
    c_1 = 2 / ((dim + 1.3) ** 2 + mu_eff)
    c_sigma = (mu_eff + 2) / (dim + mu_eff + 5)
    return Constants(
        c_c=(4 + mu_eff / dim) / (dim + 4 + 2 * mu_eff / dim),
        c_sigma=c_sigma,
        c_1=c_1,
        c_mu=min(1 - c_1, 2 * (mu_eff - 2 + 1 / mu_eff) / ((dim + 2) ** 2 + mu_eff)),
        damps=1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (dim + 1)) - 1) + c_sigma,
    )


def released_constants(dim: int) -> Constants:
    """Those of the authors' code."""
    least = min(1e-14 * dim**7, 0.1)
    values = (4 / dim, 4 / dim, 2 / dim**2, 0.4, 3.0)
    c_c, c_sigma, c_1, c_mu, damps = (max(value, least) for value in values)
    return Constants(min(c_c, 1.0), min(c_sigma, 1.0), c_1, c_mu, damps)  # 4/D is no rate below 4D


def rank_weights(parents: int) -> list[float]:
    """w_i ∝ log(μ + 1/2) − log i, summing to 1 (tutorial, eq. 49)."""
    raw = [math.log(parents + 0.5) - math.log(i) for i in range(1, parents + 1)]
    return [weight / sum(raw) for weight in raw]


@dataclass(frozen=True, eq=False)
class CMAES:
    """CMA-ES with cumulative step-size adaptation; see `evobench.evograd.loop.Algorithm`."""

    settings: Settings
    space: Space

    solutions = frozenset({"mean", "log_sigma", "factor"})
    elitist = False
    welcomes = False
    evaluates_start = False

    @property
    def weighs(self) -> bool:
        return self.settings.weights == "softmax"

    @property
    def parents(self) -> int:
        """μ, the best half."""
        return self.space.pop // 2

    @cached_property
    def constants(self) -> Constants:
        if self.settings.constants == "released":
            return released_constants(self.space.dim)
        return hansen_constants(self.space.dim, 1 / sum(w * w for w in rank_weights(self.parents)))

    @cached_property
    def _by_rank(self) -> Float[Tensor, " parents"]:
        return torch.tensor(rank_weights(self.parents), dtype=torch.float64, device=self.space.lower.device)

    @cached_property
    def expected_norm(self) -> float:
        """χ = E‖N(0, I)‖."""
        dim = self.space.dim
        return math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))

    def constants_of(self, params: Params | UnrolledParams) -> Constants:
        """Learning rates and damping as these parameters have them."""
        if isinstance(params, Params):
            return self.constants
        c_1, c_mu = params.log_c_1.exp(), params.log_c_mu.exp()
        whole = 1 + c_1 + c_mu
        return Constants(
            c_c=sigmoid(params.logit_c_c),
            c_sigma=sigmoid(params.logit_c_sigma),
            c_1=c_1 / whole,
            c_mu=c_mu / whole,
            damps=params.log_damps.exp(),
        )

    def _learned_constants(self) -> list[Float[Tensor, "seeds 1 1"]]:
        """The last five of `UnrolledParams`, as they start."""
        c, least = self.constants, _SMALLEST_RATE
        rest = max(1 - c.c_1 - c.c_mu, least)
        values = [logit(min(max(rate, least), 1 - least)) for rate in (c.c_c, c.c_sigma)]
        values += [math.log(max(rate, least) / rest) for rate in (c.c_1, c.c_mu)]
        return [self.space.full(value, 1, 1) for value in (*values, math.log(c.damps))]

    def init(self, rng: Streams, evaluate: Evaluate) -> tuple[Params | UnrolledParams, State]:
        space = self.space
        # Known from here on: a generation must not wait for the device.
        _ = self.max_log_sigma, self._by_rank, self.constants, self.expected_norm
        default = CENTRE_STD if space.init == "centre" else 0.1 * self.width
        eye = torch.eye(space.dim, dtype=space.lower.dtype, device=space.lower.device)
        eye = _laid_out(eye.expand(space.seeds, -1, -1).contiguous())
        log_sigma = space.full(math.log(self.settings.sigma0 or default), 1, 1)
        params: Params | UnrolledParams = Params(space.start(rng, 1), log_sigma, eye)
        if self.settings.unroll > 1:
            params = UnrolledParams(*params, *self._learned_constants())
        path = space.full(0.0, 1, space.dim)
        return params, State(eye, eye, space.full(0.0, 1), path, path, space.full(0.0, 1, 1))

    def noise(self, rng: Random) -> Noise:
        (z,) = rng.normal((self.space.pop, self.space.dim))
        return Noise(z.to(self.space.lower.dtype))

    def propose(
        self, params: Params | UnrolledParams, state: State, noise: Noise
    ) -> tuple[Float[Tensor, "seeds n dim"], None]:
        step = _times(noise.z, _lower(params.factor))  # L z
        return reflect(params.mean + params.log_sigma.exp() * step, self.space), None

    def commit(
        self,
        params: Params | UnrolledParams,
        state: State,
        noise: Noise,
        x: Float[Tensor, "seeds pop dim"],
        fitness: Float[Tensor, "seeds pop"],
        carry: None,
    ) -> tuple[Params | UnrolledParams, State]:
        c, dim = self.constants_of(params), self.space.dim
        sigma, factor = params.log_sigma.exp(), _lower(params.factor)
        fitness, order = fitness.sort(dim=1)
        order = order[:, : self.parents]
        weights = self.weights(fitness[:, : self.parents]).to(x.dtype)[..., None]
        mu_eff = 1 / weights.square().sum(1, keepdim=True)
        if self.settings.reflected_steps:
            y = (take(x, order) - params.mean) / sigma
        else:
            y = take(noise.z, order) @ factor.mT
        y_w = (weights * y).sum(1, keepdim=True)
        mean = params.mean + sigma * y_w

        whitened = torch.linalg.solve_triangular(factor, y_w.mT, upper=False).mT  # L⁻¹ y_w
        path_sigma = (1 - c.c_sigma) * state.path_sigma + (c.c_sigma * (2 - c.c_sigma) * mu_eff).sqrt() * whitened
        length = torch.linalg.vector_norm(path_sigma, dim=-1, keepdim=True) / self.expected_norm
        age = state.age + 1
        settled = 1.0 if self.settings.constants == "released" else (1 - (1 - c.c_sigma) ** (2 * age)).sqrt()
        h_sigma = sigmoid(_H_SIGMA_SLOPE * (1.4 + 2 / (dim + 1) - length / settled))  # logistic, §2.2.5
        path_c = (1 - c.c_c) * state.path_c + h_sigma * (c.c_c * (2 - c.c_c) * mu_eff).sqrt() * y_w

        keep = 1 - c.c_1 - c.c_mu + c.c_1 * (1 - h_sigma) * c.c_c * (2 - c.c_c)
        # Rank one and rank μ as one product of √-scaled rows, never [S, μ, D, D].
        rows = torch.cat([(c.c_mu * weights).sqrt() * y, _sqrt(c.c_1) * path_c], dim=1)
        covariance = _updated(state, factor, keep, rows)
        log_sigma = params.log_sigma + (c.c_sigma / c.damps * (length - 1)).clamp(max=1.0)
        return self._repaired(params, mean, log_sigma, covariance, factor, path_sigma, path_c, age)

    def weights(self, fitness: Float[Tensor, "seeds parents"]) -> Float[Tensor, "seeds parents"]:
        """Recombination weights of the best half, sorted from the best; each run's sum to 1."""
        if self.settings.weights == "rank":
            return self._by_rank.expand_as(fitness)
        behind = fitness - fitness[:, :1]  # inf where nothing finite was found
        behind = torch.where(behind.isnan(), 0.0, behind)
        spread = finite(behind).std(1, correction=0, keepdim=True)
        scaled = torch.where(spread > 0, behind / (self.settings.temperature * spread), behind)
        return torch.softmax(-scaled.nan_to_num(nan=0.0), dim=1)

    def _repaired(
        self,
        params: Params | UnrolledParams,
        mean: Tensor,
        log_sigma: Tensor,
        covariance: Tensor,
        factor: Tensor,
        path_sigma: Tensor,
        path_c: Tensor,
        age: Tensor,
    ) -> tuple[Params | UnrolledParams, State]:
        """Factorise C; a run whose covariance broke gets its diagonal back, alone."""
        diagonal, jitter = covariance.diagonal(dim1=-2, dim2=-1), self._jitter(factor)
        jittered = torch.diagonal_scatter(covariance, diagonal + jitter, dim1=-2, dim2=-1)
        new_factor, info = torch.linalg.cholesky_ex(jittered)
        bad = ((info != 0) | ~new_factor.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)).view(-1, 1, 1)
        variance = diagonal.nan_to_num(nan=1.0).clamp(1e-20, 1e20)
        covariance = _mended(covariance, bad, variance)
        new_factor = _mended(new_factor, bad, variance.sqrt())
        log_sigma = log_sigma.nan_to_num(nan=0.0).clamp(_MIN_LOG_SIGMA, self.max_log_sigma)
        mean = torch.where(mean.isfinite(), mean, params.mean)
        path_sigma, path_c = (torch.where(bad | ~path.isfinite(), 0.0, path) for path in (path_sigma, path_c))
        params = params._replace(mean=mean, log_sigma=log_sigma, factor=new_factor)
        jitter = torch.where(bad[..., 0], 0.0, jitter)
        return params, State(covariance, new_factor, jitter, path_sigma, path_c, age)

    def _jitter(self, factor: Float[Tensor, "seeds dim dim"]) -> Float[Tensor, "seeds 1"]:
        """ε for the diagonal, from the smallest non-zero entry of L, without a graph (§2.2.5)."""
        size = torch.threshold_(factor.detach().abs(), 0.0, torch.inf).amin((-2, -1))
        return torch.exp(math.log(1e-15) - 1.75 * size.log()).clamp(1e-7, 0.1)[:, None]

    @cached_property
    def width(self) -> float:
        """The box's largest width, in units of x."""
        return float((self.space.upper - self.space.lower).max())

    @cached_property
    def max_log_sigma(self) -> float:
        """σ stays below ten box widths."""
        return math.log(10 * self.width)

    def learned(self, params: Params | UnrolledParams) -> dict[str, Float[Tensor, " seeds"]]:
        sigma = {"sigma": params.log_sigma.exp()[:, 0, 0]}
        if isinstance(params, Params):
            return sigma
        return sigma | {name: value[:, 0, 0] for name, value in self.constants_of(params)._asdict().items()}


class _Lower(torch.autograd.Function):
    """L itself; its gradient has no part above the diagonal, where L is 0 and stays so."""

    @staticmethod
    def forward(ctx: Any, factor: Float[Tensor, "seeds dim dim"]) -> Float[Tensor, "seeds dim dim"]:
        return factor.view_as(factor)

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, "seeds dim dim"]) -> Float[Tensor, "seeds dim dim"]:
        return grad.tril() if grad.shape[-1] <= _BLOCK else grad.mT.triu().mT  # see `_laid_out`


def _lower(factor: Float[Tensor, "seeds dim dim"]) -> Float[Tensor, "seeds dim dim"]:
    """As `_Lower`; the same tensor where there is no gradient, since that says that no step has moved it."""
    lower: Tensor = _Lower.apply(factor) if factor.requires_grad else factor
    return lower


def _times(z: Float[Tensor, "seeds n dim"], factor: Float[Tensor, "seeds dim dim"]) -> Float[Tensor, "seeds n dim"]:
    """L z of every row; of a large L by blocks, without most of the products with 0."""
    dim = factor.shape[-1]
    if dim <= _BLOCK or torch.is_grad_enabled():
        return z @ factor.mT
    return torch.cat([z[..., :last] @ factor[:, first:last, :last].mT for first, last in _blocks(dim)], dim=-1)


def _updated(
    state: State,
    factor: Float[Tensor, "seeds dim dim"],
    keep: Float[Tensor, "seeds 1 1"],
    rows: Float[Tensor, "seeds n dim"],
) -> Float[Tensor, "seeds dim dim"]:
    """keep · C + rowsᵀ rows, where C is L Lᵀ − ε I if a gradient step has moved L from L₀.

    Of a small C that is C + L Lᵀ − L₀ L₀ᵀ = C + Δ Mᵀ + M Δᵀ with Δ = L − L₀ and M = L₀ + Δ/2, which rounds
    less. A large C gets its lower triangle only, which is all that its factorisation reads, by blocks, without
    most of the products with 0.
    """
    covariance, committed = state.covariance, state.factor
    dim, moved = covariance.shape[-1], factor is not committed
    if dim <= _BLOCK or torch.is_grad_enabled():
        if dim > _BLOCK:  # a gradient flows through all of C
            covariance = covariance.tril() + covariance.tril(-1).mT
        if moved:
            change = factor - committed
            half = change @ torch.add(committed, change, alpha=0.5).mT
            covariance = covariance + half + half.mT
        return torch.baddbmm(keep * covariance, rows.mT, rows)
    blocks = []
    for first, last in _blocks(dim):
        if moved:
            block = (keep * factor[:, first:last, :last]) @ factor[:, first:, :last].mT
        else:
            block = keep * covariance[:, first:, first:last].mT
        block = torch.baddbmm(block, rows[..., first:last].mT, rows[..., first:])
        blocks.append(torch.nn.functional.pad(block, (first, 0)))
    covariance = torch.cat(blocks, dim=-2).mT
    if moved:
        covariance.diagonal(dim1=-2, dim2=-1).sub_(keep[..., 0] * state.jitter)
    return covariance


def _blocks(dim: int) -> list[tuple[int, int]]:
    """Where each block of rows begins and ends."""
    return [(first, min(first + _BLOCK, dim)) for first in range(0, dim, _BLOCK)]


def _laid_out(symmetric: Float[Tensor, "seeds dim dim"]) -> Float[Tensor, "seeds dim dim"]:
    """Large matrices are kept column by column in memory, as LAPACK returns L: passes over several need one order."""
    return symmetric if symmetric.shape[-1] <= _BLOCK else symmetric.mT


def _mended(
    matrix: Float[Tensor, "seeds dim dim"], bad: Bool[Tensor, "seeds 1 1"], diagonal: Float[Tensor, "seeds dim"]
) -> Float[Tensor, "seeds dim dim"]:
    """The matrices, of bad runs this diagonal one."""
    if not torch.compiler.is_compiling():
        return torch.where(bad, _laid_out(torch.diag_embed(diagonal)), matrix)
    # Of the choice it would make a loop over single numbers, and of a product one over vectors.
    mended = finite(matrix) * (~bad).to(matrix.dtype)
    own = mended.diagonal(dim1=-2, dim2=-1)
    return torch.diagonal_scatter(mended, torch.where(bad[..., 0], diagonal, own), dim1=-2, dim2=-1)


def _sqrt(value: Any) -> Any:
    return value.sqrt() if isinstance(value, Tensor) else math.sqrt(value)
