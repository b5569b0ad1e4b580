"""Each operator against its equation, its distribution, and an independent implementation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pymoo.operators.mutation.pm import mut_pm
from scipy import stats

from evobench.evograd import cmaes, de, ga, pso
from evobench.evograd.relaxations import (
    binary_concrete,
    fitness_logits,
    logit,
    polynomial_offset,
    replace_worst,
    sbx_spread,
    select,
    sigmoid,
)
from evobench.evograd.space import Space, Streams, reflect, take
from evobench.problems import make_problem

ONE = torch.ones(1, 1, 1, dtype=torch.float64)


def uniforms(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64).clamp(min=2.0**-25)


def space(dim=3, pop=6, seeds=2, dtype=torch.float64, init="uniform"):
    return Space.of(make_problem("sphere", dim), seeds, pop, init, dtype, "cpu")


# Reflection


@given(st.floats(-1e7, 1e7), st.sampled_from([torch.float32, torch.float64]))
def test_reflection_folds_like_mirrors(value, dtype):
    x = torch.full((1, 1, 1), value, dtype=dtype)
    folded = float(reflect(x, space(1, dtype=dtype)))
    phase = (float(x) + 100) % 400  # there and back is twice the box's 200
    assert folded == pytest.approx(phase - 100 if phase <= 200 else 300 - phase, abs=1e-6 * max(200, abs(value)))
    assert -100 <= folded <= 100


@given(st.floats(-100, 100))
def test_reflection_leaves_the_inside_alone(value):
    x = torch.full((1, 1, 1), value, dtype=torch.float64)
    assert float(reflect(x, space(1))) == value


@pytest.mark.parametrize(("value", "slope"), [(0.0, 1.0), (99.0, 1.0), (150.0, -1.0), (-150.0, -1.0), (350.0, 1.0)])
def test_reflection_has_slope_one(value, slope):
    x = torch.full((1, 1, 1), value, dtype=torch.float64, requires_grad=True)
    reflect(x, space(1)).sum().backward()
    assert float(x.grad) == slope


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_reflection_of_what_is_not_a_number_is_in_the_box(bad):
    assert float(reflect(torch.full((1, 1, 1), bad), space(1, dtype=torch.float32)).abs()) <= 100


def test_bounds_are_rounded_into_the_box():
    """float32's 0.1 is above 0.1 and its 0.3 above 0.3: a point there would be outside."""
    problem = make_problem("sphere", 1)
    narrow = type(problem)("narrow", 1, problem.evaluate, np.array([0.1]), np.array([0.3]))
    rounded = Space.of(narrow, 1, 2, "uniform", torch.float32, "cpu")
    assert float(rounded.lower) >= 0.1
    assert float(rounded.upper) <= 0.3
    start = rounded.start(Streams((0,), torch.float32, "cpu"), 2000).double()
    assert ((start >= 0.1) & (start <= 0.3)).all()


def test_starts_have_the_stated_distribution():
    uniform = space(2).start(Streams((0, 1), torch.float64, "cpu"), 4000).flatten()
    assert stats.kstest(uniform, stats.uniform(-100, 200).cdf).pvalue > 1e-3
    centre = space(2, init="centre").start(Streams((0, 1), torch.float64, "cpu"), 4000).flatten()
    assert stats.kstest(centre, stats.norm(0, 0.5).cdf).pvalue > 1e-3


# Masks and selection


@given(st.floats(-30, 30))
def test_sigmoid(x):
    value = torch.tensor(x, dtype=torch.float64)
    assert float(sigmoid(value)) == pytest.approx(float(torch.sigmoid(value)), abs=1e-15)


@pytest.mark.parametrize("rate", [0.02, 0.5, 0.9])
def test_mask_is_one_with_its_rate(rate):
    mask = binary_concrete(uniforms(1, 200, 200), logit(rate) * ONE, 0.8 * ONE)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert stats.binomtest(int(mask.sum()), 40_000, rate).pvalue > 1e-3


def test_mask_is_the_threshold_of_the_relaxed_mask_and_has_its_gradient():
    """m = I[m̃ > 0.5], and ∂m/∂α = ∂m̃/∂α (paper §2.2)."""
    u, temperature = uniforms(1, 20, 30), 0.7 * ONE
    alpha = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
    relaxed = torch.sigmoid((torch.log(u) - torch.log(1 - u) + alpha) / temperature)
    mask = binary_concrete(u, alpha, temperature)
    assert torch.equal(mask.detach(), (relaxed > 0.5).double())
    weights = uniforms(1, 20, 30, seed=1)
    (straight,) = torch.autograd.grad((mask * weights).sum(), alpha)
    (expected,) = torch.autograd.grad((relaxed * weights).sum(), alpha)
    torch.testing.assert_close(straight, expected)


@pytest.mark.parametrize("noise", ["logistic", "gumbel"])
def test_soft_parents_are_the_equations_mixture(noise):
    u, x = uniforms(2, 4, 3, 6), torch.randn(2, 6, 5, dtype=torch.float64)
    alpha, temperature = torch.randn(2, 6, dtype=torch.float64), 0.8 * ONE
    parents = select(u, alpha, temperature, x, noise=noise, hard=False)
    assert len(parents) == 3
    for which, parent in enumerate(parents):
        for seed, row in np.ndindex(2, 4):
            draw = u[seed, row, which].numpy()
            scores = (
                (np.log(draw) - np.log(1 - draw) + alpha[seed].numpy()) / 0.8
                if noise == "logistic"
                else alpha[seed].numpy() / 0.8 - np.log(-np.log(draw))
            )
            weights = np.exp(scores - scores.max())
            np.testing.assert_allclose(parent[seed, row], weights / weights.sum() @ x[seed].numpy(), rtol=1e-12)


@pytest.mark.parametrize("combine", [None, lambda p, q: p - 0.5 * q])
@given(temperature=st.floats(0.01, 100), spread=st.floats(0, 1e30))
def test_mixtures_that_the_compiler_makes_are_the_same(combine, temperature, spread):
    """In a compiled program weights are normalised after the product, or combined before it: values and gradients are
    those of before."""

    def parents(compiling):
        alpha = spread * uniforms(2, 7, seed=1)
        leaves = [t.requires_grad_() for t in (alpha, torch.full((2, 1, 1), temperature).double(), uniforms(2, 7, 3))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: compiling)
            made = select(uniforms(2, 5, 2, 7, seed=2), *leaves, noise="logistic", hard=False, combine=combine)
        p, q = made if combine is None else (made, 2 * made)
        return p, q, *torch.autograd.grad((p * q.cos()).sum(), leaves)

    for one, other in zip(parents(False), parents(True), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)


def test_hard_gumbel_selection_has_softmax_frequencies():
    """The Gumbel-max theorem: an individual is picked with probability softmax(α/τ)."""
    alpha, n = torch.tensor([[0.0, -1.0, -2.5, -4.0]], dtype=torch.float64), 60_000
    index = torch.arange(4, dtype=torch.float64).view(1, 4, 1)
    (picked,) = select(uniforms(1, n, 1, 4), alpha, 2.0 * ONE, index, noise="gumbel", hard=True)
    counts = torch.bincount(picked.flatten().long(), minlength=4)
    expected = torch.softmax(alpha[0] / 2.0, 0) * n
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_hard_partners_are_distinct_members():
    """DE: r1, r2, r3 and i are all different (paper §2.1.3)."""
    pop, own = 4, torch.arange(4).expand(3, -1)
    x = torch.arange(pop, dtype=torch.float64).expand(3, -1)[..., None]
    partners = select(
        uniforms(3, pop, 3, pop), torch.zeros(3, pop).double(), ONE, x, noise="logistic", hard=True, besides=own
    )
    chosen = torch.cat([own[..., None].double(), *partners], dim=-1)
    assert (chosen.sort(-1).values == torch.arange(4)).all()


def test_temperature_limits():
    u, x = uniforms(1, 50, 1, 8), torch.randn(1, 8, 2, dtype=torch.float64)
    alpha = torch.zeros(1, 8, dtype=torch.float64)
    (cold,) = select(u, alpha, 1e-4 * ONE, x, noise="logistic", hard=False)
    (hard,) = select(u, alpha, ONE, x, noise="logistic", hard=True)
    torch.testing.assert_close(cold, hard)
    (hot,) = select(u, alpha, 1e6 * ONE, x, noise="logistic", hard=False)
    torch.testing.assert_close(hot, x.mean(1, keepdim=True).expand_as(hot), rtol=1e-3, atol=1e-3)


def test_fitness_logits_are_minus_f_up_to_a_constant_and_finite():
    fitness = torch.tensor([[3.0, 1.0, math.inf, 2.0], [math.inf] * 4, [1e300, -1e300, 0.0, 5.0]], dtype=torch.float64)
    logits = fitness_logits(fitness, torch.float32)
    assert logits.isfinite().all()
    assert logits[0].argsort(descending=True).tolist() == [1, 3, 0, 2]
    torch.testing.assert_close(torch.softmax(logits[0], 0)[[0, 1, 3]], torch.softmax(-fitness[0, [0, 1, 3]], 0).float())


# SBX and polynomial mutation


def sbx_beta(u, eta):
    """The paper's equation, branch by branch."""
    return (2 * u) ** (1 / (eta + 1)) if u < 0.5 else (2 * (1 - u)) ** (-1 / (eta + 1))


@given(st.floats(2.0**-25, 1 - 2.0**-24), st.floats(0, 200))
def test_sbx_spread(u, eta):
    spread = sbx_spread(torch.tensor(u, dtype=torch.float64))
    assert math.exp(float(spread) / (eta + 1)) == pytest.approx(sbx_beta(u, eta), rel=1e-9)


@pytest.mark.parametrize("eta", [2.0, 15.0])
def test_sbx_spread_has_debs_density(eta):
    """p(β) = (η+1)/2 β^η up to 1, (η+1)/2 β^-(η+2) beyond (Deb and Agrawal 1995, eqs. 8 and 9)."""

    def cdf(beta):
        return np.where(beta <= 1, 0.5 * beta ** (eta + 1), 1 - 0.5 * beta ** -(eta + 1))

    beta = torch.exp(sbx_spread(uniforms(20_000)) / (eta + 1)).numpy()
    assert stats.kstest(beta, cdf).pvalue > 1e-3


@given(st.floats(2.0**-25, 1 - 2.0**-24), st.floats(0, 200))
def test_polynomial_offset(u, eta):
    delta = polynomial_offset(torch.tensor(u, dtype=torch.float64), torch.tensor(eta, dtype=torch.float64))
    expected = (2 * u) ** (1 / (eta + 1)) - 1 if u < 0.5 else 1 - (2 * (1 - u)) ** (1 / (eta + 1))
    assert float(delta) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_polynomial_mutation_agrees_with_pymoo_far_from_the_bounds():
    """pymoo's operator takes the distance to the bounds into account, which vanishes in a wide box."""
    rng = np.random.default_rng(0)
    start, wide = np.zeros((4000, 1)), 1.0
    mutated = mut_pm(
        start,
        np.array([-wide / 2]),
        np.array([wide / 2]),
        np.full(4000, 20.0),
        np.ones(4000),
        at_least_once=False,
        random_state=rng,
    )
    ours = polynomial_offset(uniforms(4000), torch.tensor(20.0, dtype=torch.float64)).numpy()
    assert stats.ks_2samp(mutated[:, 0], ours).pvalue > 1e-3


def genetic(x, u_spread, u_offset, *, cross, mutate, **settings):
    """One child per row from given noise; both parents are certain: the first and the second member."""
    algorithm = ga.GA(ga.Settings(selection="hard", **settings), space(x.shape[-1], 2, 1))
    params = ga.Params(
        x=x,
        log_eta_c=torch.full((1,), math.log(algorithm.settings.eta_c)).double(),
        eta_m=torch.full((1,), algorithm.settings.eta_m).double(),
        crossover_logit=torch.full((1,), 50.0 if cross else -50.0).double(),
        mutation_logit=torch.full((1, x.shape[-1]), 50.0 if mutate else -50.0).double(),
        selection_logit=torch.zeros(1, 2).double(),
        log_temperature=torch.zeros(1).double(),
        log_mask_temperature=torch.zeros(1).double(),
    )
    state = ga.State(torch.zeros(1, 2).double(), x[:, :1], torch.zeros(1, 1).double())
    chooses = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double().expand(1, 2, 2, 2)
    half = torch.full_like(u_spread, 0.5)
    noise = ga.Noise(chooses, half, u_spread, half, u_offset)
    return algorithm.propose(params, state, noise)[0]


def test_ga_child_is_the_papers():
    x = torch.tensor([[[-3.0, 4.0, 10.0], [5.0, 4.5, -20.0]]]).double()
    u, v = uniforms(1, 2, 3), uniforms(1, 2, 3, seed=5)
    beta = np.vectorize(sbx_beta)(u.numpy(), 15.0)
    p, q = x[:, :1].numpy(), x[:, 1:].numpy()
    crossed = 0.5 * ((1 + beta) * p + (1 - beta) * q)
    offset = polynomial_offset(v, torch.tensor(20.0).double()).numpy() * 200
    np.testing.assert_allclose(genetic(x, u, v, cross=True, mutate=False), crossed, rtol=1e-7)
    np.testing.assert_allclose(genetic(x, u, v, cross=True, mutate=True), crossed + offset, rtol=1e-7)
    np.testing.assert_allclose(genetic(x, u, v, cross=False, mutate=False), np.broadcast_to(p, (1, 2, 3)))


def test_elitism_replaces_the_worst():
    x, fitness = torch.arange(6.0).view(1, 3, 2), torch.tensor([[1.0, 9.0, 5.0]])
    new_x, new_f = replace_worst(x, fitness, torch.full((1, 1, 2), 7.0), torch.tensor([[0.5]]))
    assert new_x.tolist() == [[[0, 1], [7, 7], [4, 5]]]
    assert new_f.tolist() == [[1.0, 0.5, 5.0]]


# DE


@pytest.mark.parametrize("strategy", ["rand/1", "current-to-best/1"])
def test_de_trial_is_the_papers(strategy):
    pop, dim = 6, 4
    algorithm = de.DE(de.Settings(strategy=strategy, scale_factor=0.7), space(dim, pop, 2))
    generator = torch.Generator().manual_seed(3)
    x = 20 * torch.randn(2, pop, dim, generator=generator, dtype=torch.float64)
    params = de.Params(
        x=x,
        log_f=torch.full((2,), math.log(0.7), dtype=torch.float64),
        crossover_logit=torch.full((2,), logit(0.4), dtype=torch.float64),
        selection_logit=torch.zeros(2, pop).double(),
        log_temperature=torch.zeros(2).double(),
    )
    best = x[:, 2:3]
    state = de.State(x, torch.zeros(2, pop).double(), best, torch.zeros(2, 1).double())
    noise = algorithm.noise(Streams((0, 1), torch.float64, "cpu"))
    trial = algorithm.propose(params, state, noise)[0]
    u = noise.partners.numpy()
    odds = u / (1 - u)
    weights = odds / odds.sum(-1, keepdims=True)  # softmax of the logistic noise at τ = 1
    r = np.einsum("snkp,spd->knsd", weights, x.numpy()).transpose(0, 2, 1, 3)
    xs = x.numpy()
    donor = r[0] + 0.7 * (r[1] - r[2]) if strategy == "rand/1" else xs + 0.7 * (best.numpy() - xs) + 0.7 * (r[0] - r[1])
    certain = np.floor(noise.gene.numpy() * dim) == np.arange(dim)
    crossed = (noise.cross.numpy() > 1 - 0.4) | certain  # u > σ(−α): probability CR
    np.testing.assert_allclose(trial, np.where(crossed, donor, xs), rtol=1e-9)
    assert crossed.any(-1).all()


def test_de_keeps_the_better_and_injects_the_best():
    algorithm = de.DE(de.Settings(), space(1, 4, 1))
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).double().view(1, 4, 1)
    params = de.Params(x, *(torch.zeros(1).double() for _ in range(4)))
    state = de.State(x, torch.tensor([[10.0, 20.0, 30.0, 40.0]]).double(), x[:, :1], torch.tensor([[10.0]]).double())
    trial, fitness = x + 0.5, torch.tensor([[11.0, 20.0, 5.0, 41.0]]).double()
    params, state = algorithm.commit(params, state, None, trial, fitness, None)
    assert state.x.flatten().tolist() == [1.0, 2.5, 3.5, 3.5]  # loses, ties, wins, worst of all
    assert state.fitness.tolist() == [[10.0, 20.0, 5.0, 5.0]]
    assert float(state.elite_f) == 5.0
    assert torch.equal(params.x, state.x)


# PSO


def test_pso_step_is_equation_1():
    algorithm = pso.PSO(pso.Settings(), space(3, 5, 2))
    rng = Streams((0, 1), torch.float64, "cpu")
    params, state = algorithm.init(rng, lambda x: x.square().sum(-1))
    generator = torch.Generator().manual_seed(1)
    velocity = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    omega, c1, c2 = (torch.rand(2, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    params = params._replace(x=params.x / 4, omega=omega, c1=c1, c2=c2)
    state = state._replace(velocity=velocity)
    noise = algorithm.noise(rng)
    x, moved = algorithm.propose(params, state, noise)
    for seed, i in np.ndindex(2, 5):
        v = (
            omega[seed, i] * velocity[seed, i]
            + c1[seed, i] * noise.r1[seed, i] * (state.personal_x[seed, i] - params.x[seed, i])
            + c2[seed, i] * noise.r2[seed, i] * (state.global_x[seed, 0] - params.x[seed, i])
        )
        expected = params.x[seed, i] + v
        inside = expected.abs() <= 100
        assert inside.any()
        torch.testing.assert_close(x[seed, i][inside], expected[inside])
        torch.testing.assert_close(moved[seed, i], torch.where(inside, v, -v))


def test_pso_velocity_is_clamped_and_bests_are_remembered():
    algorithm = pso.PSO(pso.Settings(max_velocity=0.01), space(3, 5, 2))
    rng = Streams((0, 1), torch.float64, "cpu")
    params, state = algorithm.init(rng, lambda x: x.square().sum(-1))
    noise = algorithm.noise(rng)
    x, velocity = algorithm.propose(params, state, noise)
    assert velocity.abs().max() <= 2.0
    fitness = torch.where(torch.arange(5) % 2 == 0, -1.0, torch.inf).double().expand(2, -1)
    _, after = algorithm.commit(params, state, noise, x, fitness, velocity)
    assert torch.equal(after.personal_x[:, ::2], x[:, ::2])
    assert torch.equal(after.personal_x[:, 1::2], state.personal_x[:, 1::2])
    assert torch.equal(after.global_x, x[:, :1])


# CMA-ES


def test_cmaes_constants_are_those_of_the_cma_package():
    import cma

    for dim, pop in [(30, 100), (50, 100), (10, 20)]:
        reference = cma.CMAEvolutionStrategy(dim * [0.0], 1.0, {"popsize": pop, "verbose": -9, "CMA_active": False})
        ours = cmaes.hansen_constants(dim, float(reference.sp.weights.mueff))
        assert ours.c_1 == pytest.approx(reference.sp.c1, rel=1e-6)
        assert ours.c_mu == pytest.approx(reference.sp.cmu, rel=0.1)  # cma weighs 1/μ_eff by a quarter more
        assert ours.c_c == pytest.approx(reference.sp.cc, rel=1e-6)
        assert cmaes.rank_weights(pop // 2) == pytest.approx(list(reference.sp.weights.positive_weights), rel=1e-6)
        assert ours.damps > 1


def test_cmaes_constants_by_hand():
    """Hansen's tutorial, table 1, for n = 10, μ_eff = 5.4."""
    c = cmaes.hansen_constants(10, 5.4)
    assert c.c_sigma == pytest.approx(7.4 / 20.4)
    assert c.damps == pytest.approx(1 + 0 + 7.4 / 20.4)
    assert c.c_c == pytest.approx(4.54 / 15.08)
    assert c.c_1 == pytest.approx(2 / (11.3**2 + 5.4))
    assert c.c_mu == pytest.approx(2 * (3.4 + 1 / 5.4) / (144 + 5.4))
    released = cmaes.released_constants(30)
    assert released == (4 / 30, 4 / 30, 2 / 900, 0.4, 3.0)
    assert cmaes.released_constants(500).c_1 == 0.1


def strategy(seeds=2, pop=8, dim=4, **settings):
    algorithm = cmaes.CMAES(cmaes.Settings(**settings), space(dim, pop, seeds))
    params, state = algorithm.init(Streams(range(seeds), torch.float64, "cpu"), None)
    return algorithm, params, state


def test_cmaes_samples_its_distribution():
    algorithm, params, state = strategy(seeds=1, pop=40_000, dim=3)
    factor = torch.tensor([[[2.0, 0, 0], [-1.0, 0.5, 0], [0.3, 0.7, 1.5]]]).double()
    params = params._replace(mean=torch.tensor([[[1.0, -2.0, 3.0]]]).double(), log_sigma=-ONE, factor=factor)
    x = algorithm.propose(params, state, algorithm.noise(Streams((5,), torch.float64, "cpu")))[0][0]
    np.testing.assert_allclose(x.mean(0), [1, -2, 3], atol=0.02)
    expected = math.exp(-2) * (factor @ factor.mT)[0]
    np.testing.assert_allclose(np.cov(x.T), expected, atol=0.02)


@pytest.mark.parametrize("constants", ["hansen", "released"])
def test_cmaes_update_is_the_tutorials(constants):
    """Line by line in NumPy, for one run, over several generations."""
    algorithm, params, state = strategy(weights="rank", constants=constants, sigma0=0.5)
    rng, dim, chi = Streams((0, 1), torch.float64, "cpu"), 4, algorithm.expected_norm
    mean, sigma, cov = params.mean[1, 0].numpy(), 0.5, np.eye(dim)
    p_s, p_c, weights = np.zeros(dim), np.zeros(dim), np.array(cmaes.rank_weights(4))
    c_c, c_s, c_1, c_mu, damps = algorithm.constants
    mu_eff = 1 / (weights**2).sum()
    for generation in range(1, 6):
        noise = algorithm.noise(rng)
        x, _ = algorithm.propose(params, state, noise)
        fitness = (x * torch.tensor([1.0, 2.0, 3.0, 4.0])).square().sum(-1)
        params, state = algorithm.commit(params, state, noise, x, fitness, None)
        factor = np.linalg.cholesky(cov)
        points = x[1].numpy()
        y = (points[fitness[1].argsort()[:4]] - mean) / sigma
        y_w = weights @ y
        mean = mean + sigma * y_w
        p_s = (1 - c_s) * p_s + math.sqrt(c_s * (2 - c_s) * mu_eff) * np.linalg.solve(factor, y_w)
        settled = math.sqrt(1 - (1 - c_s) ** (2 * generation)) if constants == "hansen" else 1
        h = 1 / (1 + math.exp(-10 * (1.4 + 2 / (dim + 1) - np.linalg.norm(p_s) / settled / chi)))
        p_c = (1 - c_c) * p_c + h * math.sqrt(c_c * (2 - c_c) * mu_eff) * y_w
        cov = (
            (1 - c_1 - c_mu) * cov
            + c_1 * (np.outer(p_c, p_c) + (1 - h) * c_c * (2 - c_c) * cov)
            + c_mu * np.einsum("i,ij,ik->jk", weights, y, y)
        )
        sigma *= math.exp(min(1, c_s / damps * (np.linalg.norm(p_s) / chi - 1)))
        np.testing.assert_allclose(params.mean[1, 0], mean, rtol=1e-5)
        np.testing.assert_allclose(state.covariance[1], cov, rtol=1e-5, atol=1e-7)
        assert float(params.log_sigma[1].exp()) == pytest.approx(sigma, rel=1e-5)
        np.testing.assert_allclose(state.factor[1] @ state.factor[1].T, cov, rtol=1e-5, atol=2e-6)  # jitter


def test_cmaes_paths_are_standard_normal_under_random_selection():
    """With selection by chance the paths keep unit variance, whatever the weights: σ does not drift."""
    algorithm, params, state = strategy(seeds=400, pop=10, dim=5, temperature=0.7)
    rng = Streams(range(400), torch.float64, "cpu")
    params = params._replace(mean=0 * params.mean, log_sigma=0 * params.log_sigma - 3)
    for _ in range(60):
        noise = algorithm.noise(rng)
        x, _ = algorithm.propose(params, state, noise)
        chance = rng.uniform((10,))[0]
        params, state = algorithm.commit(params, state, noise, x, chance, None)
        params = params._replace(log_sigma=0 * params.log_sigma - 3)
    assert float(state.path_sigma.var()) == pytest.approx(1.0, abs=0.1)


def test_cmaes_softmax_weights():
    algorithm, _, _ = strategy()
    fitness = torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0], [1.0, 2.0, math.inf, math.inf], [math.inf] * 4])
    weights = algorithm.weights(fitness.double())
    expected = np.exp(-(fitness[0].numpy() - 1) / fitness[0].numpy().std())
    np.testing.assert_allclose(weights[0], expected / expected.sum())
    np.testing.assert_allclose(weights[1], 0.25)
    assert weights[2, 2:].tolist() == [0, 0]
    np.testing.assert_allclose(weights.sum(1), 1)
    np.testing.assert_allclose(algorithm.weights(1e8 * fitness[:1].double() - 7), weights[:1], rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_broken_covariance_is_repaired_alone(compiled, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)
    algorithm, params, state = strategy(seeds=3)
    rng = Streams(range(3), torch.float64, "cpu")
    noise = algorithm.noise(rng)
    x, _ = algorithm.propose(params, state, noise)
    fitness = x.square().sum(-1)
    healthy, healthy_state = algorithm.commit(params, state, noise, x, fitness, None)
    broken = state.covariance.clone()
    broken[1, 0, 1] = broken[1, 1, 0] = 50.0  # not positive definite
    broken[2, 0, 0] = math.nan
    mended, mended_state = algorithm.commit(params, state._replace(covariance=broken), noise, x, fitness, None)
    for one, other in zip((*healthy, *healthy_state), (*mended, *mended_state), strict=True):
        assert torch.equal(one[0], other[0])
        assert other.isfinite().all()
    whole = mended_state.covariance + torch.diag_embed(mended_state.jitter.expand(3, 4))
    torch.testing.assert_close(mended.factor @ mended.factor.mT, whole)
    assert (mended_state.jitter > 0)[:, 0].tolist() == [True, False, False]


def test_a_mean_that_is_not_finite_stays_where_it_was():
    """And not at the centre of the box, where many functions have their optimum."""
    algorithm, params, state = strategy(seeds=3)
    noise = algorithm.noise(Streams(range(3), torch.float64, "cpu"))
    x, _ = algorithm.propose(params, state, noise)
    x[1, :, 2] = math.nan
    after, _ = algorithm.commit(params, state, noise, x, x[..., 0].square(), None)
    assert after.mean[1, 0, 2] == params.mean[1, 0, 2]
    assert after.mean.isfinite().all()


def test_the_gradient_of_a_large_factor_has_nothing_above_the_diagonal(monkeypatch):
    for block in (128, 2):
        monkeypatch.setattr(cmaes, "_BLOCK", block)
        factor = cmaes._laid_out(torch.eye(4).expand(2, -1, -1).contiguous()).requires_grad_()
        cmaes._lower(factor).square().sum().add(cmaes._lower(factor).sum()).backward()
        expected = (2 * torch.eye(4) + 1).tril().expand(2, -1, -1)
        assert torch.equal(factor.grad, expected)


def test_a_gradient_step_on_the_factor_changes_the_covariance():
    """keep · (C + L Lᵀ − L₀ L₀ᵀ) + rowsᵀ rows; C itself to the bit where the step is nothing."""
    _, _, state = strategy()
    change, rows = 0.01 * torch.randn(2, 4, 4).double().tril(), torch.randn(2, 3, 4).double()
    keep = torch.tensor([0.9, 0.8]).double().view(2, 1, 1)
    moved = state.factor + change
    updated = cmaes._updated(state, moved, keep, rows)
    torch.testing.assert_close(updated, keep * (moved @ moved.mT) + rows.mT @ rows)
    still = cmaes._updated(state, state.factor, keep, rows)
    assert torch.equal(cmaes._updated(state, state.factor.clone(), keep, rows), still)


def test_a_factor_without_a_gradient_is_not_taken_for_a_moved_one(monkeypatch):
    """`cmaes_plain` needs no L Lᵀ."""
    algorithm, params, state = strategy()
    noise = algorithm.noise(Streams((0, 1), torch.float64, "cpu"))
    x, _ = algorithm.propose(params, state, noise)
    seen = []
    updated = cmaes._updated
    monkeypatch.setattr(
        cmaes, "_updated", lambda state, *its: seen.append(its[0] is state.factor) or updated(state, *its)
    )
    params, state = algorithm.commit(params, state, noise, x, x.square().sum(-1), None)
    algorithm.commit(params._replace(factor=params.factor.clone()), state, noise, x, x.square().sum(-1), None)
    assert seen == [True, False]


@pytest.mark.parametrize("moved", [True, False])
@torch.no_grad()
def test_a_large_covariance_is_updated_by_blocks(moved, monkeypatch):
    """Its lower triangle is that of the whole, the last block smaller than the others; what it was stays."""
    jitter, rows = torch.tensor([[0.5], [0.1]]).double(), torch.randn(2, 3, 8).double()
    committed = torch.randn(2, 8, 8).double().tril()
    covariance = committed @ committed.mT - torch.diag_embed(jitter.expand(2, 8))
    factor = committed + 0.1 * torch.randn(2, 8, 8).double().tril() if moved else committed
    _, _, state = strategy(seeds=2, pop=8, dim=8)
    state = state._replace(covariance=covariance, factor=committed, jitter=jitter)
    arguments = state, factor, torch.rand(2, 1, 1).double(), rows
    whole, before = cmaes._updated(*arguments), [value.clone() for value in (*state, *arguments[1:])]
    monkeypatch.setattr(cmaes, "_BLOCK", 3)
    torch.testing.assert_close(cmaes._updated(*arguments).tril(), whole.tril())
    for value, expected in zip((*state, *arguments[1:]), before, strict=True):
        assert torch.equal(value, expected)


def test_a_gradient_through_a_large_covariance_is_that_of_the_whole(monkeypatch):
    """What stands above the diagonal, left behind by updates without a gradient, has no part in it."""
    covariance = torch.eye(8).double() + 0.1 * torch.ones(2, 8, 8).double()
    rows, factor = torch.randn(2, 3, 8).double(), torch.linalg.cholesky(covariance)
    keep = torch.tensor([0.9, 0.8]).double().view(2, 1, 1).requires_grad_()
    _, _, state = strategy(seeds=2, pop=8, dim=8)

    def slope(covariance):
        updated = cmaes._updated(state._replace(covariance=covariance, factor=factor), factor, keep, rows)
        return torch.autograd.grad(torch.linalg.cholesky_ex(updated)[0].sin().sum(), keep)[0]

    whole = slope(covariance)
    monkeypatch.setattr(cmaes, "_BLOCK", 3)
    torch.testing.assert_close(slope(covariance.tril() + torch.full((8, 8), 7.0).double().triu(1)), whole)


@torch.no_grad()
def test_cmaes_is_the_same_by_blocks(monkeypatch):
    """Nothing reads what is above the diagonal of a large C."""
    found = []
    for block in (128, 3):
        monkeypatch.setattr(cmaes, "_BLOCK", block)
        algorithm, params, state = strategy(seeds=2, pop=8, dim=8)
        rng = Streams((0, 1), torch.float64, "cpu")
        for _ in range(20):
            noise = algorithm.noise(rng)
            x, _ = algorithm.propose(params, state, noise)
            params, state = algorithm.commit(params, state, noise, x, x.square().sum(-1), None)
            params = params._replace(factor=params.factor - 0.01 * params.factor.tril(-1) - 0.001)
            params = params._replace(factor=params.factor.tril())
        found.append(params)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_take_picks_rows():
    tensor, rows = torch.arange(24).view(2, 4, 3), torch.tensor([[3], [1]])
    assert take(tensor, rows).tolist() == [[[9, 10, 11]], [[15, 16, 17]]]
    assert take(tensor[..., 0], rows).tolist() == [[9], [15]]
    assert take(tensor, None) is tensor
