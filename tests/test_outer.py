"""The outer optimiser against torch.optim, run by run."""

import pytest
import torch

from evobench.evograd import outer
from evobench.evograd.outer import OuterSettings


@pytest.mark.parametrize("settings", [{}, {"lr": 0.3, "plateau_patience": 3, "plateau_factor": 0.1, "min_lr": 1e-3}])
def test_adam_and_plateau_equal_torch(settings):
    """Each of three runs has its own losses; torch needs one optimiser for each."""
    settings = OuterSettings(**settings)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    params = {"x": normal(3, 4, 2), "scalar": normal(3)}
    ours = outer.start(params, settings)
    theirs = []
    for run in range(3):
        leaves = [value[run].clone().requires_grad_() for value in params.values()]
        adam = torch.optim.Adam(leaves, lr=settings.lr)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            adam, factor=settings.plateau_factor, patience=settings.plateau_patience, min_lr=settings.min_lr
        )
        theirs.append((leaves, adam, plateau))
    for step in range(300):
        grads = {name: normal(*value.shape) for name, value in params.items()}
        loss = torch.tensor([-float(min(step, 30)), 1.0 / (1 + step), 5.0], dtype=torch.float64)
        ours, params = outer.step(ours, params, grads)
        ours = outer.schedule(ours, loss, settings)
        for run, (leaves, adam, plateau) in enumerate(theirs):
            for leaf, grad in zip(leaves, grads.values(), strict=True):
                leaf.grad = grad[run].clone()
            adam.step()
            plateau.step(float(loss[run]))
            for leaf, value in zip(leaves, params.values(), strict=True):
                torch.testing.assert_close(value[run], leaf.detach(), rtol=1e-9, atol=1e-12)
            assert float(ours.lr[run]) == pytest.approx(adam.param_groups[0]["lr"], rel=1e-12)
    assert len({round(float(lr), 12) for lr in ours.lr}) > 1  # the runs' schedules went apart


def test_unknown_fixed_parameter_is_refused():
    from evobench.evograd.pso import Settings

    with pytest.raises(ValueError, match="unknown parameter 'sigma': choose from x, omega, c1, c2"):
        Settings(fixed=("sigma",))
