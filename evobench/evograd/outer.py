"""The outer optimiser: Adam with ReduceLROnPlateau, one of each per run.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. Runs are independent, so
each has a learning rate and a plateau counter of its own; both follow torch.optim to the letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, field_validator
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

    learnable: ClassVar[tuple[str, ...]] = ()

    @field_validator("fixed")
    @classmethod
    def _check_fixed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in cls.learnable:
                raise ValueError(f"unknown parameter '{name}': choose from {', '.join(cls.learnable)}")
        return value


class Outer:
    """Adam over named tensors `[S, …]`, its moments and its per-run learning rate."""

    def __init__(self, params: Mapping[str, Tensor], settings: OuterSettings) -> None:
        self.settings = settings
        self.first = {name: torch.zeros_like(value) for name, value in params.items()}
        self.second = {name: torch.zeros_like(value) for name, value in params.items()}
        some = next(iter(params.values()))
        self.steps = 0
        self.lr = some.new_full((some.shape[0],), settings.lr)
        self.best = torch.full((some.shape[0],), torch.inf, dtype=torch.float64, device=some.device)
        self.bad = torch.zeros(some.shape[0], dtype=torch.int32, device=some.device)

    def step(self, params: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters after one Adam step. A gradient that is not finite counts as 0."""
        self.steps += 1
        scale = self.lr / (1 - _BETA1**self.steps)
        correction = (1 - _BETA2**self.steps) ** 0.5
        moved = {}
        for name, grad in grads.items():
            grad = torch.nan_to_num(grad, nan=0.0, posinf=0.0, neginf=0.0)
            first = self.first[name].lerp_(grad, 1 - _BETA1)
            second = self.second[name].mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
            denominator = second.sqrt().div_(correction).add_(_EPS)
            rate = scale.view(-1, *[1] * (grad.ndim - 1))
            moved[name] = torch.addcmul(params[name], first / denominator, rate, value=-1)
        return moved

    def schedule(self, loss: Float[Tensor, " seeds"]) -> None:
        """ReduceLROnPlateau, run by run, on the generation's loss."""
        better = loss < self.best * (1 - _THRESHOLD)
        self.best = torch.where(better, loss, self.best)
        self.bad = torch.where(better, 0, self.bad + 1)
        over = self.bad > self.settings.plateau_patience
        lower = (self.lr * self.settings.plateau_factor).clamp(min=self.settings.min_lr)
        self.lr = torch.where(over & (self.lr - lower > _LR_EPS), lower, self.lr)
        self.bad = torch.where(over, 0, self.bad)
