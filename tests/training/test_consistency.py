"""Consistency training in a Gaussian world, where the consistency function is known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.bridge.marginals import marginal_coefficients
from dbae_jax.bridge.preconditioning import Bridge, Moments, make_denoiser
from dbae_jax.bridge.schedules import VE, VP
from dbae_jax.sampling.plan import Plan
from dbae_jax.training import consistency, losses
from tests.helpers import gaussian_world
from tests.helpers.gaussian_world import SCHEDULES

schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
T = 0.5  # fraction of the end at which most tests look
PLAIN = Bridge(VP(), moments=None)  # the denoiser is the network's output


def _gaps(b=20.0):
    return consistency.Gaps(q=2.0, k=8.0, b=b, stages=8, num_steps=8_000)


def _earlier(gaps, t, stage, schedule=PLAIN.schedule):
    step = jnp.int32(stage * gaps.num_steps // gaps.stages)
    return float(consistency.earlier_times(gaps, schedule, jnp.float32([t]), step)[0])


def test_gaps_shrink_as_published():
    for stage, r in enumerate((0.25, 0.375, 0.4375)):
        assert _earlier(_gaps(20.0), 0.5, stage) == pytest.approx(r, abs=1e-3)
    assert _earlier(_gaps(1.0), 0.999, 0) == 0
    for stage, r in enumerate((0.21, 0.61, 0.80, 0.90), start=1):
        assert _earlier(_gaps(1.0), 0.999, stage) == pytest.approx(r, abs=0.01)
    scaled = _earlier(_gaps(20.0), 40.0, 0, VE())  # T = 80
    assert scaled == pytest.approx(80 * _earlier(_gaps(20.0), 0.5, 0))


def test_stages_end_with_the_training():
    """After the last step the gap stays that of the last stage."""
    last = _earlier(_gaps(), 0.5, 7)
    assert 0.5 - last == pytest.approx(0.5 / 2**8, rel=1e-3)
    assert _earlier(_gaps(), 0.5, 1_000) == last


@schedules
@pytest.mark.parametrize("step", [0, 5_000, 10**6])
def test_times_are_those_of_the_sampler_and_r_is_below_t(schedule, step):
    bridge, T = Bridge(schedule), schedule.t_max
    drawn = losses.draw(jax.random.key(0), (4096, 1, 1, 3), 2, bridge, share_at_T=0.1)
    draws = consistency.with_earlier_times(drawn, bridge, _gaps(), jnp.int32(step))
    t, r = draws.t, draws.r
    at_T, second = t == T, Plan.named("sharp", "consistency").table(bridge).at.t[1]
    assert 0.08 < at_T.mean() < 0.12
    assert t.min() >= schedule.t_min and second < t[~at_T].max() <= consistency.LATEST * T
    assert jnp.all(r < t) and jnp.all((r == 0) | (r > schedule.t_min))


class _Networks:
    """A network whose denoiser gives known answers at some times, plus a trained shift."""

    def __init__(self, answers, bridge=PLAIN):
        self.answers = answers  # time -> function of x_t [B, 1, 1, d]
        self.bridge = bridge

    def network(self, variables, x, c_noise, z, dropout_key=None):
        del z, dropout_key
        found = 0.0
        for time, answer in self.answers.items():
            at = self.bridge.at(jnp.asarray(time, x.dtype))
            x_t = x[..., : x.shape[-1] // 2] / at.c_in
            output = (answer(x_t) - at.c_skip * x_t) / at.c_out
            here = jnp.abs(c_noise - at.c_noise) < 0.1
            found += jnp.where(here[:, None, None, None], output, 0.0)
        return found + variables["params"]["shift"]


def _loss(networks, x_0, x_T, noise, t, r, shift=0.0, dropout_key=None, bridge=PLAIN):
    count = len(x_0)
    draws = losses.Draws(
        t=jnp.full(count, t), noise=noise, eps=jnp.zeros((count, 1)),
        dropout_key=dropout_key, r=jnp.full(count, r),
    )  # fmt: skip
    variables = {"params": {"shift": jnp.asarray(shift)}, "stats": {}}
    codes = losses.Endpoint(jnp.zeros((count, 1)), x_T, {})
    return consistency.consistency_loss(networks, bridge, variables, x_0, codes, draws)


def _batch(count=6, d=3):
    keys = jax.random.split(jax.random.key(0), 3)
    return [0.3 * jax.random.normal(key, (count, 1, 1, d)) for key in keys]


def test_at_the_boundary_the_target_is_the_image():
    x_0, x_T, noise = _batch()
    wrong = _Networks({T: lambda x: 0 * x, VP().t_min: lambda x: 100 + x})
    terms = _loss(wrong, x_0, x_T, noise, T, 0.0)
    c = consistency.HUBER * np.sqrt(3)
    expected = np.sqrt(np.sum(np.square(x_0), (1, 2, 3)) + c**2) - c
    np.testing.assert_allclose(terms.weighted, expected / T, rtol=1e-5)
    np.testing.assert_allclose(terms.x_0_error, np.mean(np.square(x_0), (1, 2, 3)), rtol=1e-6)


@schedules
@pytest.mark.parametrize("covariance", [0.0, 0.1])
def test_at_time_0_the_answer_is_the_state(schedule, covariance):
    """Whatever the network says: so the consistency function has its boundary condition."""
    bridge = Bridge(schedule, Moments(covariance=covariance))
    x, x_T = np.random.default_rng(0).standard_normal((2, 4, 1, 1, 3))
    denoise = make_denoiser(lambda x, c_noise, z: 100.0 + x[..., :3])
    with np.errstate(divide="ignore"):  # c_noise = log 0
        at = bridge.at(np.zeros(4))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(denoise(x, at, x_T, np.zeros((4, 2))), x)


def test_both_passes_have_the_same_dropout():
    x_0, x_T, noise = _batch()
    keys = []

    class Networks(_Networks):
        def network(self, variables, x, c_noise, z, dropout_key=None):
            keys.append(jax.random.key_data(dropout_key))
            return super().network(variables, x, c_noise, z)

    networks = Networks({T: lambda x: x, 0.4: lambda x: x})
    _loss(networks, x_0, x_T, noise, T, 0.4, dropout_key=jax.random.key(3))
    np.testing.assert_array_equal(keys, [jax.random.key_data(jax.random.key(3))] * 2)


def test_at_the_endpoint_the_target_is_the_image():
    """With the weight of the other times, which grows as the gap shrinks."""
    x_0, x_T, noise = _batch()
    networks = _Networks({1.0: lambda x: 0 * x, 0.9: lambda x: 100 + x})
    terms = _loss(networks, x_0, x_T, noise, 1.0, 0.9)
    c = consistency.HUBER * np.sqrt(3)
    expected = np.sqrt(np.sum(np.square(x_0), (1, 2, 3)) + c**2) - c
    np.testing.assert_allclose(terms.weighted, expected / 0.1, rtol=1e-5)


def test_the_target_has_no_gradient():
    """The shift moves both answers alike, but the gradient is that of the answer at t alone."""
    x_0, x_T, noise = _batch()
    networks = _Networks({T: lambda x: 0.2 * x + 1, 0.4: lambda x: 0.2 * x})

    def loss(shift):
        return _loss(networks, x_0, x_T, noise, T, 0.4, shift).weighted.sum()

    assert float(loss(1.0)) == pytest.approx(float(loss(0.0)), rel=1e-4)
    # The difference is about 1 in each of three entries: 6 examples, each sqrt(3) / (t - r).
    assert float(jax.grad(loss)(0.0)) == pytest.approx(6 * np.sqrt(3) / (T - 0.4), rel=0.02)


def _flow_matrix(world, schedule, t):
    """Returns h of the exact consistency function x -> h (x - mean_t) + mean_0, diagonal [d]."""
    _, B, C = marginal_coefficients(schedule, np.float64(t))
    values = world.posterior.values
    return np.sqrt(values / (B**2 * values + C))


def _coefficients(schedule, t):
    return [float(v) for v in marginal_coefficients(schedule, np.float64(t))]


def _minimisers(world, schedule, times):
    """Returns what training with the gaps of a grid learns at its last time, diagonal [d].

    The answer at t is the mean of the answer at r over all pairs of states with the same noise:
    E[h_r (x_r - mean_r) | x_t], in the basis in which Cov[x_0 | z] is diagonal.
    """
    _, B, C = (coefficients[:, None] for coefficients in marginal_coefficients(schedule, times))
    B_r, C_r = np.vstack([[[1.0]], B[:-1]]), np.vstack([[[0.0]], C[:-1]])
    values = world.posterior.values
    return np.prod((B_r * B * values + np.sqrt(C_r * C)) / (B**2 * values + C), axis=0)


@schedules
def test_the_consistency_function_is_the_same_along_a_path(schedule):
    """It maps all states of one path of the ODE to its end, and a state at t = 0 to itself."""
    world, T = gaussian_world.make_world(4), schedule.t_max
    rng = np.random.default_rng(0)
    z = world.code.sample(rng, 5)
    vectors, mean = world.posterior.vectors, world.posterior.code_mean(z)
    x_t = world.path_mean(schedule, 0.9 * T, z) + 0.3 * rng.standard_normal((5, 3))
    end = world.flow(schedule, 0.9 * T, 0.0, x_t, z)
    for fraction in (0.9, 0.5, 0.1, 1e-3, 0.0):
        t = fraction * T
        state = world.flow(schedule, 0.9 * T, t, x_t, z)
        apart = (state - world.path_mean(schedule, t, z)) @ vectors
        answer = mean + (apart * _flow_matrix(world, schedule, t)) @ vectors.T
        np.testing.assert_allclose(answer, end, rtol=1e-9)


@schedules
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.85])
@pytest.mark.parametrize("moments", [None, Moments(covariance=0.1)], ids=["plain", "scaled"])
def test_the_objective_is_0_between_states_of_one_path(schedule, fraction, moments):
    """For images and noises whose states at t and at r lie on one path of the ODE."""
    world, t = gaussian_world.make_world(4), fraction * schedule.t_max
    r = _earlier(_gaps(), t, 1, schedule)
    bridge, values = Bridge(schedule, moments), world.posterior.values
    (A, B, C), (A_r, B_r, C_r) = (_coefficients(schedule, time) for time in (t, r))
    label, x_T = np.random.default_rng(0).standard_normal((2, 8, 1, 1, 3))
    # Given z, the path is sqrt(B^2 l + C) label around its mean, in each eigenvector.
    to_states = np.array([[B, np.sqrt(C)], [B_r, np.sqrt(C_r)]])
    scales = np.sqrt([B**2 * values + C, B_r**2 * values + C_r])
    x_0, noise = (weights * label for weights in np.linalg.solve(to_states, scales))
    h, h_r = (_flow_matrix(world, schedule, time) for time in (t, r))
    with jax.enable_x64(True):
        for factor, lowest, highest in ((1.0, 0.0, 1e-9), (1.01, 1e-6, np.inf)):
            answers = {
                t: lambda x, factor=factor: (x - A * x_T) * h * factor,
                r: lambda x: (x - A_r * x_T) * h_r,
            }
            arrays = [jnp.asarray(array) for array in (x_0, x_T, noise)]
            terms = _loss(_Networks(answers, bridge), *arrays, t, r, bridge=bridge)
            distance = np.asarray(terms.weighted) * (t - r)
            assert (lowest <= distance).all() and (distance < highest).all(), factor


@schedules
def test_the_minimiser_of_the_objective_becomes_the_consistency_function(schedule):
    """The error falls like the gap, and its limit, extrapolated from three gaps, is exact."""
    world = gaussian_world.make_world(4)
    exact = _flow_matrix(world, schedule, T * schedule.t_max)
    # Times at which lambda rises evenly: as gaps shrink, B_r / sqrt(C_r) approaches B / sqrt(C).
    errors, found = [], []
    for count in (2_000, 4_000, 8_000, 16_000):
        angles = np.linspace(0, 1, count + 1)[1:] ** 3
        h = _minimisers(world, schedule, T * schedule.t_max * angles)
        found.append(h)
        errors.append(np.abs(h - exact).max())
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratios, 2, rtol=0.02)
    first = [2 * b - a for a, b in itertools.pairwise(found)]
    second = [(4 * b - a) / 3 for a, b in itertools.pairwise(first)]
    third = (8 * second[1] - second[0]) / 7
    np.testing.assert_allclose(third, exact, rtol=1e-8)


@schedules
@pytest.mark.parametrize("fraction", [1e-3, 0.1, 0.5, 0.85])
@pytest.mark.parametrize("moments", [None, Moments(covariance=0.1)], ids=["plain", "scaled"])
def test_the_gradient_vanishes_at_the_minimiser(schedule, fraction, moments):
    """Given x_t, targets are symmetric around their mean, where the distance has its minimum."""
    world, t = gaussian_world.make_world(4), fraction * schedule.t_max
    r = _earlier(_gaps(), t, 7, schedule)
    bridge, values = Bridge(schedule, moments), world.posterior.values
    (A, B, C), (A_r, B_r, C_r) = (_coefficients(schedule, time) for time in (t, r))
    rng = np.random.default_rng(0)
    image, noise, x_T = rng.standard_normal((3, 64, 3))
    x_T = np.concatenate([x_T, x_T])[:, None, None, :]
    image = image * np.sqrt(values)
    x_t = B * image + np.sqrt(C) * noise
    gain = B * values / (B**2 * values + C)
    # The pair with the same x_t, reflected at E[x_0 | x_t].
    other = 2 * gain * x_t - image
    other_noise = (x_t - B * other) / np.sqrt(C)
    h_r = _flow_matrix(world, schedule, r)
    best = h_r * (B_r * B * values + np.sqrt(C_r * C)) / (B**2 * values + C)
    with jax.enable_x64(True):
        answers = {t: lambda x: (x - A * x_T) * best, r: lambda x: (x - A_r * x_T) * h_r}
        networks = _Networks(answers, bridge)
        arrays = [
            jnp.asarray(np.concatenate(pair))[:, None, None, :]
            for pair in ((image, other), (noise, other_noise))
        ]

        def loss(shift):
            terms = _loss(
                networks, arrays[0], jnp.asarray(x_T), arrays[1], t, r, shift, bridge=bridge
            )
            return terms.weighted.mean() * (t - r)

        assert np.abs(jax.grad(loss)(jnp.zeros(3))).max() < 1e-10
        networks.answers[t] = lambda x: (x - A * x_T) * best + 0.01
        assert jax.grad(loss)(jnp.zeros(3)).min() > 1e-3
