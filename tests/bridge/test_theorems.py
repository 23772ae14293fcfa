"""The paper's three theorems, as statements about numbers in the Gaussian world.

c denotes the condition of the denoiser: the latent code z, or x_T alone. s(.) denotes scores, and D
the denoiser. With s_theta = -(x_t - A x_T - B D)/C, and for times from e > 0 on,

  SM    = 1/2 Int g^2 E |s_theta - s(x_t | c)|^2 dt             the score-matching loss
  DSM   = 1/2 Int g^2 E |s_theta - s(x_t | x_0, x_T)|^2 dt      the trained loss
        = 1/2 Int lambda E |D - x_0|^2 dt,   lambda = g^2 B^2 / C^2 = g^2 SNR / s^2 = -dSNR/dt
  L_AE  = SM + H(x_0 | c)                                       the paper's entropy-regularised loss

e > 0 is needed: at e = 0, DSM is infinite for data with a density, even for an exact denoiser. L_AE
stays finite as e -> 0. DSM = L_AE - H(x_0 | x_e, c), where the last term tends to the entropy of
the noise C/B^2 in x_e/B for any networks.

Theorem 1. s(x_t | c) = E[s(x_t | x_0, x_T) | x_t, c], so the squares add up: DSM = SM + the
variance term 1/2 Int lambda E |E[x_0 | x_t, c] - x_0|^2 dt. As lambda = -d(B^2/C)/dt, the variance
term is I(x_0; x_e | c) by the I-MMSE relation. Over [e, T'] with T' < T, the variance term is
I(x_0; x_e | c) - I(x_0; x_T' | c). If s_theta comes from a bounded D, all terms are regular at T,
because B/C = a/s^2 is regular. For any other score, both sides grow like d/2 log 1/(T - T'), and
the theorem holds on every [e, T'].

Theorem 2. -I(x_0; z) <= -I(x_0; c) = H(x_0 | c) - H(x_0) <= L_AE - H(x_0). The gap is
SM + I(x_0; z) - I(x_0; c). It is 0 if the denoiser is exact and c = z or the decoder is injective.

Theorem 3. The model samples z ~ p, decodes x_T, and integrates the reverse SDE to e. The paths of
the model and the (time-reversed) paths of the data both start in x_T. By Girsanov's theorem and the
data-processing inequality,
KL(q(x_e, c) || p(x_e, c)) <= SM + KL(q(c) || p(c)) <= L_AE + L_PR - H(x_0), where
L_PR = E KL(q(z | x_0) || p) = I(x_0; z) + KL(q(z) || p). Girsanov's theorem is about the SDE:
nothing here bounds the distribution of samples of the ODE. For c = z the first inequality is an
equality if D is the exact denoiser of some p(x_0 | z): then data and model have the same
distribution of paths given x_e and z. The second inequality is always an equality for c = z. As
e -> 0, x_e becomes x_0 on the left side, and the right side converges.
"""

import dataclasses

import numpy as np
import pytest

from dbae_jax.bridge import marginals
from tests.helpers import bridge_drifts
from tests.helpers.gaussian_world import (
    SCHEDULES,
    Affine,
    Gaussian,
    affine_of,
    cross_entropy,
    kl,
    make_world,
    place_of,
    propagate,
    time_at,
    time_integral,
)

# Integrals end at this fraction of T. The missing 1e-9 T is about 1e-9 of the integrals.
UPPER_LIMIT = 1 - 1e-9

# name: (latent dimension, whether the denoiser is conditioned on x_T alone)
CONDITIONS = {"z2": (2, False), "z4": (4, False), "x_T": (4, True)}
on_schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
on_conditions = pytest.mark.parametrize("condition", CONDITIONS)
on_denoisers = pytest.mark.parametrize("kind", ["exact", "other", "arbitrary"])


def worlds_of(condition, **options):
    """Returns the world, and the world whose code is the condition c."""
    width, by_endpoint = CONDITIONS[condition]
    world = make_world(width, **options)
    return world, world.with_endpoint_as_code() if by_endpoint else world


def denoiser_of(kind, condition, schedule, **options):
    """Returns a denoiser.

    "exact" is the exact denoiser. "other" is the exact denoiser of other data and another encoder.
    "arbitrary" is a linear denoiser that is exact in no world.
    """
    if kind == "exact":
        return worlds_of(condition, **options)[1].denoiser(schedule)
    other_fn = worlds_of(condition, seed=1)[1].denoiser(schedule)
    if kind == "other":
        return other_fn
    twist = np.array([[0.0, 0.2, 0.1], [-0.2, 0.1, 0.0], [0.0, 0.3, -0.2]])

    def arbitrary_fn(t, x_t, z):
        s2 = marginals.expand(schedule.variance(t), x_t)
        error = (x_t / (1 + s2) ** 0.5) @ twist + 0.1 * z[:, :1] - 0.05
        return other_fn(t, x_t, z) + s2 / (0.02 + s2) * error

    return arbitrary_fn


def score_of(denoiser_fn, given, schedule):
    """Returns the score s_theta of a denoiser."""

    def score_fn(t, x_t, z):
        return bridge_drifts.score_from_x_0(
            schedule, t, x_t, given.decoder(z), denoiser_fn(t, x_t, z)
        )

    return score_fn


def unconditioned_score_fn(schedule):
    """Returns a score whose denoiser is unbounded at T: that of the diffusion not fixed to x_T.

    It is the score of x_t = a x_0 + s eps for x_0 ~ N(linear in z, 0.02 I).
    """

    def score_fn(t, x_t, z):
        a, s2 = (marginals.expand(c, x_t) for c in (schedule.alpha(t), schedule.variance(t)))
        return (a * (0.05 + 0.1 * z[:, 1:2]) - x_t) / (0.02 * a * a + s2)

    return score_fn


def integral_of_error(given, schedule, fn, weight_fn, span):
    """Returns 1/2 Int weight(t) E |fn(t, x_0, x_t, z)|^2 dt for fn affine in (x_0, x_t, z)."""

    def integrand(t):
        width = 3 + sum(given.widths)
        error = affine_of(lambda y: fn(t, y[:, :3], y[:, 3:6], y[:, 6:]), width)
        return weight_fn(t) / 2 * error.mean_square(given.joint(schedule, t))

    return time_integral(integrand, schedule, *span)


def score_matching(given, schedule, score_fn, span):
    """Returns SM, the error of the score against the exact score of q(x_t | c)."""

    def error_fn(t, x_0, x_t, z):
        return score_fn(t, x_t, z) - given.score(schedule)(t, x_t, z)

    return integral_of_error(given, schedule, error_fn, schedule.diffusion_squared, span)


def denoising_score_matching(given, schedule, score_fn, span):
    """Returns DSM, computed from scores."""

    def error_fn(t, x_0, x_t, z):
        target = bridge_drifts.score_from_x_0(schedule, t, x_t, given.decoder(z), x_0)
        return score_fn(t, x_t, z) - target

    return integral_of_error(given, schedule, error_fn, schedule.diffusion_squared, span)


def reconstruction_weight(schedule, t):
    """Returns lambda = g^2 B^2 / C^2."""
    _, B, C = marginals.marginal_coefficients(schedule, t)
    return schedule.diffusion_squared(t) * (B / C) ** 2


def reconstruction(given, schedule, denoiser_fn, span):
    """Returns DSM, computed from denoised images."""
    return integral_of_error(
        given,
        schedule,
        lambda t, x_0, x_t, z: denoiser_fn(t, x_t, z) - x_0,
        lambda t: reconstruction_weight(schedule, t),
        span,
    )


def whole_span(schedule, e=None):
    return e or schedule.t_min, UPPER_LIMIT * schedule.t_max


def autoencoder_loss(given, schedule, denoiser_fn, e):
    """Returns L_AE, computed from the trained loss: DSM + H(x_0 | x_e, c)."""
    loss = reconstruction(given, schedule, denoiser_fn, whole_span(schedule, e))
    return loss + given.entropy_given(schedule, e)


def prior_loss(world, prior):
    """Returns L_PR = E KL(q(z | x_0) || p) for a linear encoder with constant noise."""
    noise = Gaussian(np.zeros(len(world.encoder_cov)), world.encoder_cov)
    return cross_entropy(world.code, prior) - noise.entropy()


def generated(given, schedule, denoiser_fn, prior, e):
    """Returns the distribution of the model's (x_e, c): c ~ prior, then the reverse SDE from x_T.

    The reverse SDE starts in x_T at time T - 1e-6 T. The error is about 1e-6 of g^2 at T.
    """
    score_fn = score_of(denoiser_fn, given, schedule)

    def drift_fn(t, x_t, z):
        x_T = given.decoder(z)
        return bridge_drifts.reverse_sde_drift(schedule, t, x_t, x_T, score_fn(t, x_t, z))

    W, b = given.decoder
    width = len(prior.mean)
    start = Affine(np.r_[W, np.eye(width)], np.r_[b, np.zeros(width)]).push(prior)
    times = [(1 - 1e-6) * schedule.t_max, e]
    return propagate(given, schedule, drift_fn, start, times, noise=-1)[0]


@on_schedules
@on_denoisers
@pytest.mark.parametrize(
    ("condition", "noise_free"), [("z2", False), ("z4", False), ("x_T", False), ("z2", True)]
)
def test_theorem_1(schedule, kind, condition, noise_free):
    """Both forms of DSM on [e, T] equal SM + I(x_0; x_e | c), to 1e-6 of the smaller term.

    A noise-free z with D = 2 leaves one direction of x_0 unknown: I(x_0; x_e | z) is finite,
    although I(x_0; z) is not.
    """
    _, given = worlds_of(condition, noise_free=noise_free)
    span = whole_span(schedule)
    denoiser_fn = denoiser_of(kind, condition, schedule, noise_free=noise_free)
    score_fn = score_of(denoiser_fn, given, schedule)
    matched = score_matching(given, schedule, score_fn, span)
    information = given.information_at(schedule, span[0])
    by_score = denoising_score_matching(given, schedule, score_fn, span)
    by_image = reconstruction(given, schedule, denoiser_fn, span)
    assert matched < 1e-9 if kind == "exact" else matched > 1
    tolerance = 1e-6 * (information if kind == "exact" else min(information, matched))
    assert by_score == pytest.approx(matched + information, rel=0, abs=tolerance)
    assert by_image == pytest.approx(matched + information, rel=0, abs=tolerance)


@on_schedules
@on_conditions
def test_theorem_1_for_a_score_that_ignores_x_T(schedule, condition):
    """On [e, T'], minus the information at T'; on [e, T] both sides are infinite."""
    _, given = worlds_of(condition)
    score_fn = unconditioned_score_fn(schedule)

    def denoiser_fn(t, x_t, z):
        score = score_fn(t, x_t, z)
        return bridge_drifts.x_0_from_score(schedule, t, x_t, given.decoder(z), score)

    sides = []
    for distance in (0.9, 1e-4, 1e-5):
        span = schedule.t_min, (1 - distance) * schedule.t_max
        matched = score_matching(given, schedule, score_fn, span)
        information = given.information_at(schedule, span[0])
        information -= given.information_at(schedule, span[1])
        by_score = denoising_score_matching(given, schedule, score_fn, span)
        by_image = reconstruction(given, schedule, denoiser_fn, span)
        tolerance = 1e-6 * min(information, matched)
        assert by_score == pytest.approx(matched + information, rel=0, abs=tolerance)
        assert by_image == pytest.approx(matched + information, rel=0, abs=tolerance)
        sides.append(by_score)
    # A factor of 10 closer to T adds 1/2 Int g^2 d / C dt, with C = g^2 (T - t) near T.
    assert sides[2] - sides[1] == pytest.approx(3 / 2 * np.log(10), rel=1e-2)


@on_schedules
@pytest.mark.parametrize("kind", ["other", "arbitrary"])
def test_theorem_1_by_sampling(schedule, kind):
    """DSM and DSM - SM agree with means over samples (x_0, z, t), within 5 standard errors."""
    _, given = worlds_of("z4")
    denoiser_fn, rng, count = denoiser_of(kind, "z4", schedule), np.random.default_rng(0), 100_000
    low, high = place_of(schedule, schedule.t_min), place_of(schedule, 0.9999 * schedule.t_max)
    t, slope = time_at(schedule, rng.uniform(low, high, count))
    x_0, z = given.sample(rng, count)
    x_T = given.decoder(z)
    x_t = marginals.marginal_sample(schedule, t, x_0, x_T, rng.standard_normal(x_0.shape))
    denoised = denoiser_fn(t, x_t, z)
    score = bridge_drifts.score_from_x_0(schedule, t, x_t, x_T, denoised)

    def terms(error, weight):
        return (high - low) * slope * weight / 2 * np.sum(error**2, axis=-1)

    g2 = schedule.diffusion_squared(t)
    trained = terms(score - bridge_drifts.score_from_x_0(schedule, t, x_t, x_T, x_0), g2)
    by_image = terms(denoised - x_0, reconstruction_weight(schedule, t))
    np.testing.assert_allclose(by_image, trained, rtol=1e-6, atol=1e-9)
    matched = terms(score - given.score(schedule)(t, x_t, z), g2)
    span = schedule.t_min, 0.9999 * schedule.t_max
    information = given.information_at(schedule, span[0]) - given.information_at(schedule, span[1])
    exact = score_matching(given, schedule, score_of(denoiser_fn, given, schedule), span)
    for samples, expected in ((trained, exact + information), (trained - matched, information)):
        error = samples.std() / np.sqrt(count)
        assert error < 0.05 * expected
        assert abs(samples.mean() - expected) < 5 * error


@on_schedules
@on_conditions
@on_denoisers
def test_theorem_2(schedule, condition, kind):
    """The gap of the bound is SM + I(x_0; z) - I(x_0; c): 0 for an exact denoiser given z."""
    world, given = worlds_of(condition)
    denoiser_fn = denoiser_of(kind, condition, schedule)
    bound = autoencoder_loss(given, schedule, denoiser_fn, schedule.t_min) - world.data.entropy()
    gap = bound + world.information()
    lost = world.information() - given.information()
    assert gap > -1e-9
    assert lost > 0.1 if condition == "x_T" else abs(lost) < 1e-9
    if kind == "exact":
        assert gap == pytest.approx(lost, abs=1e-6)
    else:
        score_fn = score_of(denoiser_fn, given, schedule)
        matched = score_matching(given, schedule, score_fn, whole_span(schedule))
        assert gap == pytest.approx(matched + lost, rel=1e-6) and matched > 1


@on_schedules
def test_theorem_2_is_tight_given_x_T_of_an_injective_decoder(schedule):
    """With an injective decoder, the denoiser needs only x_T."""
    world = make_world(2)
    given = world.with_endpoint_as_code()
    loss = autoencoder_loss(given, schedule, given.denoiser(schedule), schedule.t_min)
    assert loss - world.data.entropy() == pytest.approx(-world.information(), abs=1e-6)


@on_schedules
def test_a_lower_loss_is_more_information_in_the_code(schedule):
    """The trained loss bounds -I(x_0; z), up to a constant that depends on no network.

    H(x_0 | x_e, c) <= d/2 log(2 pi e C/B^2), the entropy of the noise in x_e / B; the difference is
    1/2 log det(1 + (C/B^2) Cov[x_0 | c]^-1) and vanishes with e.
    """
    e, losses = schedule.t_min / 100, []
    _, B, C = marginals.marginal_coefficients(schedule, np.float64(e))
    for scale in (4.0, 1.0, 0.25):
        base = make_world(4)
        world = dataclasses.replace(base, encoder_cov=scale * base.encoder_cov)
        loss = reconstruction(world, schedule, world.denoiser(schedule), whole_span(schedule, e))
        bound = loss + 3 / 2 * np.log(2 * np.pi * np.e * C / B**2) - world.data.entropy()
        assert 0 < bound + world.information() < 1e-2
        losses.append(loss)
    assert losses[0] > losses[1] + 0.5 > losses[2] + 1


@on_schedules
@on_conditions
@on_denoisers
def test_theorem_3(schedule, condition, kind):
    """KL(q(x_e) || p(x_e)) <= L_AE + L_PR - H(x_0) for a latent prior that is not q(z)."""
    world, given = worlds_of(condition)
    prior, e = make_world(world.widths[1], seed=3).code, schedule.t_min
    denoiser_fn = denoiser_of(kind, condition, schedule)
    bound = autoencoder_loss(given, schedule, denoiser_fn, e) - world.data.entropy()
    bound += prior_loss(world, prior)
    prior_of_c = world.decoder.push(prior) if given is not world else prior
    model, data = generated(given, schedule, denoiser_fn, prior_of_c, e), given.state(schedule, e)
    assert 0.1 < kl(data.block(0, 3), model.block(0, 3)) < bound
    joint = kl(data, model)
    assert joint < bound * (1 + 1e-6)
    if given is world and kind != "arbitrary":
        assert joint == pytest.approx(bound, rel=1e-6)


@on_schedules
def test_theorem_3_is_tight_at_the_optimum(schedule):
    """With an exact denoiser and p = q(z), the bound is 0, and model and data agree."""
    world, e = make_world(4), schedule.t_min
    denoiser_fn = world.denoiser(schedule)
    loss = autoencoder_loss(world, schedule, denoiser_fn, e) + prior_loss(world, world.code)
    assert loss - world.data.entropy() == pytest.approx(0, abs=1e-6)
    model = generated(world, schedule, denoiser_fn, world.code, e)
    assert abs(kl(world.state(schedule, e), model)) < 1e-6


@on_schedules
def test_theorem_3_holds_for_x_0_as_e_vanishes(schedule):
    """The bound tends to E KL(q(x_0 | z) || p(x_0 | z)) + KL(q(z) || p), computed at e = 0."""
    world, other, prior = make_world(4), make_world(4, seed=1), make_world(4, seed=3).code
    denoiser_fn = other.denoiser(schedule)
    joint = world.joint(schedule, schedule.t_min)
    pick = [0, 1, 2, 6, 7, 8, 9]  # (x_0, z)
    data = Gaussian(joint.mean[pick], joint.cov[np.ix_(pick, pick)])
    code_mean, values, vectors = other.posterior
    lift = Affine(np.r_[code_mean.matrix, np.eye(4)], np.r_[code_mean.offset, np.zeros(4)])
    mean, cov = lift.push(prior)
    cov[:3, :3] += vectors @ np.diag(values) @ vectors.T
    limit, distances = kl(data, Gaussian(mean, cov)), []
    for e in (schedule.t_min, schedule.t_min / 100):
        bound = autoencoder_loss(world, schedule, denoiser_fn, e) - world.data.entropy()
        distances.append(limit - bound - prior_loss(world, prior))
    assert 0 < distances[1] < 1e-2 * limit and distances[1] < 0.02 * distances[0]
    assert kl(world.data, Gaussian(mean[:3], cov[:3, :3])) < limit
