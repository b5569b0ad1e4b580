"""The outer optimiser: Adam with ReduceLROnPlateau, one of each per run.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. Runs are independent, so
each has a learning rate and a plateau counter of its own; both follow torch.optim to the letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer
from torch import Tensor

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
_THRESHOLD = 1e-4  # a loss is better if below best·(1 − threshold)
_LR_EPS = 1e-8  # smaller changes of the learning rate are not made


class OuterSettings(BaseModel):
    """What every algorithm with gradients shares."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    lr: float = Field(0.01, ge=0, le=1e6, description="Adam's learning rate (paper §3)")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="learning rate factor on a plateau (paper §3)")
    plateau_patience: int = Field(100, ge=0, description="generations without a better loss (paper §3)")
    min_lr: float = Field(1e-6, ge=0, description="lowest learning rate (the authors' code)")
    fixed: tuple[str, ...] = Field((), description="parameters that are not learned")

    unroll: int = Field(1, ge=1, le=1000, description="generations that a gradient flows through, and between steps")

    learnable: ClassVar[tuple[str, ...]] = ()

    @property
    def learns(self) -> tuple[str, ...]:
        """The parameters that the outer optimiser moves."""
        return tuple(name for name in self.learnable if name not in self.fixed)

    @model_serializer(mode="wrap")
    def _leave_out_unroll(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As before there was such a setting: it must not change the hash of what is stored."""
        content: dict[str, Any] = handler(self)
        return content if self.unroll > 1 else {name: content[name] for name in content if name != "unroll"}

    @field_validator("fixed")
    @classmethod
    def _check_fixed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in cls.learnable:
                raise ValueError(f"unknown parameter '{name}': choose from {', '.join(cls.learnable)}")
        return value


class OuterState(NamedTuple):
    """Adam's moments `[S, …]` by name of parameter, and what each run's plateau schedule remembers."""

    first: dict[str, Tensor]
    second: dict[str, Tensor]
    decay1: Float[Tensor, " seeds"]  # β₁ᵗ, β₂ᵗ: float64, for the bias corrections
    decay2: Float[Tensor, " seeds"]
    lr: Float[Tensor, " seeds"]
    best: Float[Tensor, " seeds"]  # the loss that counts as progress so far
    bad: Int[Tensor, " seeds"]  # generations without progress


def start(params: Mapping[str, Tensor], settings: OuterSettings) -> OuterState:
    """Zero moments for the named parameters, and the first learning rate."""
    some = next(iter(params.values()))
    seeds, device = some.shape[0], some.device
    return OuterState(
        first={name: torch.zeros_like(value) for name, value in params.items()},
        second={name: torch.zeros_like(value) for name, value in params.items()},
        decay1=torch.ones(seeds, dtype=torch.float64, device=device),
        decay2=torch.ones(seeds, dtype=torch.float64, device=device),
        lr=some.new_full((seeds,), settings.lr),
        best=torch.full((seeds,), torch.inf, dtype=torch.float64, device=device),
        bad=torch.zeros(seeds, dtype=torch.int32, device=device),
    )


def step(
    state: OuterState, params: Mapping[str, Tensor], grads: Mapping[str, Tensor]
) -> tuple[OuterState, dict[str, Tensor]]:
    """One Adam step on finite gradients: the new state and the moved parameters."""
    decay1, decay2 = _BETA1 * state.decay1, _BETA2 * state.decay2
    scale = state.lr / (1 - decay1).to(state.lr.dtype)
    correction = (1 - decay2).sqrt().to(state.lr.dtype)
    first, second, moved = {}, {}, {}
    for name, grad in grads.items():
        first[name] = state.first[name].lerp(grad, 1 - _BETA1)
        second[name] = (state.second[name] * _BETA2).addcmul_(grad, grad, value=1 - _BETA2)
        shape = (-1, *[1] * (grad.ndim - 1))
        denominator = second[name].sqrt().div_(correction.view(shape)).add_(_EPS)
        rate = scale.view(shape)
        moved[name] = torch.addcmul(params[name], first[name] / denominator, rate, value=-1)
    return state._replace(first=first, second=second, decay1=decay1, decay2=decay2), moved


def schedule(state: OuterState, loss: Float[Tensor, " seeds"], settings: OuterSettings) -> OuterState:
    """ReduceLROnPlateau, run by run, on the generation's loss."""
    better = loss < state.best * (1 - _THRESHOLD)
    bad = torch.where(better, 0, state.bad + 1)
    over = bad > settings.plateau_patience
    lower = (state.lr * settings.plateau_factor).clamp(min=settings.min_lr)
    return state._replace(
        best=torch.where(better, loss, state.best),
        bad=torch.where(over, 0, bad),
        lr=torch.where(over & (state.lr - lower > _LR_EPS), lower, state.lr),
    )
