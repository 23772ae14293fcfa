"""The information bound against a world where entropies are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.api.dbae import DBAE
from dbae_jax.bridge import preconditioning
from dbae_jax.errors import DataError
from dbae_jax.evaluation import pictures
from dbae_jax.evaluation.suites import information
from tests.helpers import gaussian_world, tiny
from tests.helpers.gaussian_world import SCHEDULES, make_world


def _measured(schedule, *, points=60, images=4000, spoil=0.0, seed=0):
    """Returns the bound for Gaussian data with the exact denoiser, or with a shifted one."""
    world, rng = make_world(4), np.random.default_rng([seed, 7])
    x_0, z = world.sample(rng, images)[:2]
    x_T = world.decoder(z)
    exact = gaussian_world.make_denoise_fn(world, schedule, z)
    bridge = preconditioning.Bridge(schedule)

    def model_fn(x_t, t, x_T, z):
        with jax.enable_x64(True):
            states = jnp.asarray(x_t), bridge.at(jnp.asarray(t)), jnp.asarray(x_T)
            return np.asarray(exact(*states)) + spoil

    x_0, x_T = x_0[:, None, None], x_T[:, None, None]
    draws = information.image_draws(seed, range(images))
    measured = information.loss_over_time(model_fn, x_0, x_T, z, bridge, draws, points=points)
    return measured, world.entropy_given(schedule, schedule.t_max)  # h(x_0 | x_T, z) = h(x_0 | z)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_bound_is_tight_at_the_optimum_and_a_bound_off_it(schedule):
    """With the exact denoiser the right-hand side is h(x_0 | z), within Monte Carlo error."""
    measured, exact = _measured(schedule)
    nats, error = information.entropy_bound(measured)
    assert 0 < error < 0.1
    assert nats == pytest.approx(exact, abs=4 * error)
    worse, error = information.entropy_bound(_measured(schedule, spoil=0.02)[0])
    assert worse > exact + 4 * error


def test_the_standard_error_is_the_standard_deviation_of_estimates():
    """Over seeds of times and noises, few points: the error over images covers them."""
    estimates, errors = np.array(
        [
            information.entropy_bound(_measured(SCHEDULES["vp"], points=8, images=300, seed=i)[0])
            for i in range(40)
        ]
    ).T
    assert np.std(estimates, ddof=1) == pytest.approx(errors.mean(), rel=0.4)


def test_times_are_even_in_log_snr_and_steps_cover_its_range():
    schedule = SCHEDULES["vp"]
    measured, _ = _measured(schedule, images=10)
    assert np.all(np.diff(measured.t) < 0)  # each image's times, cell by cell
    assert schedule.t_min <= measured.t.min() and measured.t.max() <= schedule.t_max
    snr = lambda t: schedule.alpha(np.float64(t)) ** 2 / schedule.variance(np.float64(t))  # noqa: E731
    whole = snr(schedule.t_min) - snr(schedule.t_max)
    assert measured.snr_step.sum(axis=1).mean() == pytest.approx(whole, rel=0.05)


def test_a_denoiser_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="returns NaN or infinity at t = "):
        _measured(SCHEDULES["vp"], points=2, images=3, spoil=np.nan)


def test_images_in_parts_are_measured_as_all_at_once():
    """The random numbers of an image do not depend on the chunk in which it is measured."""
    c = tiny.config(**{"model.stochastic": True})
    model, images = DBAE(c, tiny.variables(c)), tiny.images(7)
    whole = information.measure(model, images, points=2)
    parts = [
        information.measure(model, images[some], points=2, first=some.start)
        for some in (slice(0, 5), slice(5, 7))
    ]
    joined = information.joined(parts)
    np.testing.assert_allclose(joined.error, whole.error, rtol=1e-4)
    assert information.summary(joined) == pytest.approx(information.summary(whole), rel=1e-4)


def test_summary_counts_bits_of_eight_bit_pixels():
    ones = np.ones((5, 4))
    flat = information.LossOverTime(
        ones, 0 * ones, ones, ones, 10 * np.ones(5), np.zeros(5), dimensions=10
    )
    summary = information.summary(flat)
    nats = 5 * np.log(2 * np.pi * np.e)  # a Gaussian of variance 1 in 10 dimensions
    assert summary["information_bound_nats"] == pytest.approx(-nats)
    assert summary["unexplained_bits_per_dim"] == pytest.approx(nats / 10 / np.log(2) + 7)
    assert summary["information_bound_nats_se"] == 0


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_model_is_measured_and_shown(stochastic, tmp_path):
    c = tiny.config(**{"model.stochastic": stochastic})
    model = DBAE(c, tiny.variables(c))
    measured = information.measure(model, tiny.images(6), points=3)
    assert measured.error.shape == (6, 3) and np.isfinite(measured.error).all()
    np.testing.assert_array_equal(
        measured.error, information.measure(model, tiny.images(6), points=3).error
    )
    pictures.trajectories(tmp_path / "trajectory.png", model, tiny.images(2), columns=3, steps=4)
    assert (tmp_path / "trajectory.png").stat().st_size > 2000
