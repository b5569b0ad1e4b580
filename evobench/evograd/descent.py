"""Guarded descents: where gradients and samples share a run's budget by what pays.

A run either samples, which is a generation of its algorithm, or descends: a burst of quasi-Newton
steps from the best candidate of a generation, each kept only where it improves. A descent goes on
while its bursts pay, and the next one waits the longer, the less the last one brought. The
population hears of what was found only once it makes no progress by itself: a local optimum that is
far better than everything around it would end the search for others.

Limited-memory BFGS in its compact form: Byrd, Nocedal and Schnabel, "Representations of
quasi-Newton matrices and their use in limited memory methods", Mathematical Programming 63, 1994.

The constants below were chosen on the sphere, Rastrigin's, Schwefel's, Levy's and Zakharov's
functions and a rotated ellipsoid, never on the paper's four.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree

from evobench.evograd.space import Space, reflect

NAME = "L-BFGS descents"
"""Names the method in `settings_hash`: another one makes other runs."""

STEPS_PER = 6
"""One step a burst for so many individuals: where a gradient costs five evaluations a burst, whose
steps are an evaluation and a gradient each, costs about as much as a generation."""

MEMORY = 8
"""Pairs of differences that the curvature is estimated from."""

PAYS = 1e-3
"""Share of the value by which a burst, or a generation, has to lower it to count as progress."""

PATIENCE = 10
"""Generations without progress after which the population is told the best."""

WAITS = (4, 64)
"""Generations between two descents: after one that found a new best, and at most."""

FIRST_STEP = 0.005
"""Length of the first step, as a share of the box."""

SHRINK, GIVE_UP = 0.25, 8
"""Factor on the step after a failure, and how many failures in a row end a descent."""

Objective = Callable[[Float[Tensor, "seeds 1 dim"]], tuple[Float[Tensor, "seeds 1"], Float[Tensor, "seeds 1 dim"]]]


class Descent(NamedTuple):
    """Where each run's descent is, and how it shares the budget."""

    x: Float[Tensor, "seeds 1 dim"]
    f: Float[Tensor, "seeds 1"]
    gradient: Float[Tensor, "seeds 1 dim"]  # ∇f(x)
    steps: Float[Tensor, "seeds memory dim"]  # s_i, the newest last; 0 where there is none yet
    changes: Float[Tensor, "seeds memory dim"]  # y_i, of the gradient
    scale: Float[Tensor, "seeds 1 1"]  # of the next step: a length until there is curvature, then a factor
    failures: Int[Tensor, " seeds"]  # in a row
    going: Bool[Tensor, " seeds"]  # whether this run's next turn is a burst
    rest: Int[Tensor, " seeds"]  # generations until the next descent
    wait: Int[Tensor, " seeds"]  # generations after this one
    to_beat: Float[Tensor, "seeds 1"]  # the best when this descent began
    level: Float[Tensor, " seeds"]  # the best generation that counted as progress
    stalled: Int[Tensor, " seeds"]  # generations since
    begun: Int[Tensor, " seeds"]  # descents so far, each with the gradient where it starts
    taken: Int[Tensor, " seeds"]  # steps so far, each an evaluation and a gradient
    generations: Int[Tensor, " seeds"]  # sampled so far


def steps(pop: int) -> int:
    """Steps of a burst, beside a population of `pop`."""
    return max(1, pop // STEPS_PER)


def select(mask: Bool[Tensor, " seeds"], one: Any, other: Any) -> Any:
    """The runs of `mask` from one tree of tensors `[S, …]`, the rest from another."""

    def leaf(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        if a is None or b is None or a is b:
            return a
        return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)

    return pytree.tree_map(leaf, one, other)


def begin(x: Tensor, f: Tensor, gradient: Tensor, space: Space, last: Descent | None = None) -> Descent:
    """A descent from `x` in every run; what outlives a descent comes from the `last` one."""
    none = torch.zeros(space.seeds, dtype=torch.int32, device=x.device)
    fresh = Descent(
        x=x,
        f=f,
        gradient=gradient,
        steps=x.new_zeros(space.seeds, MEMORY, space.dim),
        changes=x.new_zeros(space.seeds, MEMORY, space.dim),
        scale=FIRST_STEP * space.width.mean() * x.new_ones(space.seeds, 1, 1),
        failures=none,
        going=torch.ones_like(none, dtype=torch.bool),
        rest=none,
        wait=none + WAITS[0],
        to_beat=f,
        level=torch.full_like(f[:, 0], torch.inf),
        stalled=none,
        begun=none,
        taken=none,
        generations=none,
    )
    if last is None:
        return fresh
    kept = ("wait", "level", "stalled", "begun", "taken", "generations")
    return fresh._replace(**{name: getattr(last, name) for name in kept})


def burst(descent: Descent, objective: Objective, space: Space) -> Descent:
    """Quasi-Newton steps of the runs that descend; the others stay as they are."""
    before, going = descent, descent.going
    for _ in range(steps(space.pop)):
        descent = select(going, _step(descent, objective, space), descent)
        going = going & (descent.failures < GIVE_UP)
    pays = (before.f - descent.f)[:, 0] >= PAYS * descent.f[:, 0].abs()
    going = going & pays
    ended = before.going & ~going
    shortest, longest = WAITS
    found = (descent.f < descent.to_beat)[:, 0]
    wait = torch.where(found, shortest, (2 * descent.wait).clamp(max=longest))
    return descent._replace(
        going=going,
        wait=torch.where(ended, wait, descent.wait),
        rest=torch.where(ended, wait, descent.rest),
    )


def direction(descent: Descent) -> Float[Tensor, "seeds 1 dim"]:
    """−H ∇f with the inverse Hessian H of the remembered pairs (Byrd et al. 1994, eq. 3.1)."""
    s, y, g = descent.steps, descent.changes, descent.gradient.mT
    inner = s @ y.mT  # s_i · y_j
    curvature = inner.diagonal(dim1=-2, dim2=-1)
    unused = torch.diag_embed((curvature == 0).to(s.dtype))
    newest, squares = curvature[:, -1:, None], y @ y.mT
    gamma = torch.where(newest > 0, newest / squares[:, -1:, -1:], 1.0)
    upper = inner.triu() + unused
    along = torch.linalg.solve_triangular(upper, s @ g, upper=True)
    middle = torch.diag_embed(curvature) + gamma * squares
    weights = torch.linalg.solve_triangular(upper.mT, middle @ along - gamma * (y @ g), upper=False)
    return -(gamma * g + s.mT @ weights - gamma * (y.mT @ along)).mT


def _step(descent: Descent, objective: Objective, space: Space) -> Descent:
    """One step in every run, kept where it improves; the curvature is learned where it is positive."""
    known = (descent.steps[:, -1:] != 0).any(-1, keepdim=True)
    towards = direction(descent)
    tiny = torch.finfo(towards.dtype).tiny
    length = torch.linalg.vector_norm(towards, dim=-1, keepdim=True).clamp(min=tiny)
    x = reflect(descent.x + descent.scale * torch.where(known, towards, towards / length), space)
    f, gradient = objective(x)
    better = (f < descent.f)[:, 0]
    step, change = x - descent.x, gradient - descent.gradient
    inner = (step * change).sum((-2, -1))
    enough = inner > 1e-12 * torch.linalg.vector_norm(step, dim=(-2, -1)) * torch.linalg.vector_norm(
        change, dim=(-2, -1)
    )
    learns = better & enough
    known_now = known | learns.view(-1, 1, 1)
    grown = torch.where(known_now, 1.0, 2 * descent.scale)
    moved = select(better, (x, f, gradient), (descent.x, descent.f, descent.gradient))
    pairs = (torch.cat([descent.steps[:, 1:], step], 1), torch.cat([descent.changes[:, 1:], change], 1))
    steps, changes = select(learns, pairs, (descent.steps, descent.changes))
    return descent._replace(
        x=moved[0],
        f=moved[1],
        gradient=moved[2],
        steps=steps,
        changes=changes,
        scale=torch.where(better.view(-1, 1, 1), grown, SHRINK * descent.scale),
        failures=torch.where(better, 0, descent.failures + 1),
        taken=descent.taken + 1,
    )
