"""DiffAE, whose x_T is Gaussian noise, independent of z (bridge.endpoint="free").

Diffusion, DDIM sampling and inversion, loss, configs, networks and training.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dbae_jax.configs import diffae_celeba, diffae_digits, diffae_shapes, digits

from dbae_jax import benchmark
from dbae_jax.bridge import marginals
from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.bridge.schedules import VE, VP, Free
from dbae_jax.commands import describe, train
from dbae_jax.configuration import build
from dbae_jax.configuration.config import from_config_dict, from_dict, to_dict, upgrade
from dbae_jax.data import images
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.evaluation.suites import information
from dbae_jax.models import torch_state_dict
from dbae_jax.sampling import grids, integrate, inversion, tables
from dbae_jax.sampling.plan import Plan
from dbae_jax.training import losses
from dbae_jax.workdirs import checkpoint, workdir
from tests.helpers import gaussian_world, tiny

FREE = Free(VP(beta_d=19.9))
SCHEDULES = {"vp": FREE, "ve": Free(VE())}
schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
OVERRIDES = {"bridge.endpoint": "free", "bridge.beta_d": 19.9}


# --- the diffusion --------------------------------------------------------------------------


@schedules
def test_the_marginal_is_that_of_the_diffusion_and_h_is_0(schedule):
    t = np.geomspace(schedule.t_min, schedule.t_max, 9)
    A, B, C = marginals.marginal_coefficients(schedule, t)
    np.testing.assert_array_equal(A, 0)
    np.testing.assert_array_equal(B, schedule.diffusion.alpha(t))
    np.testing.assert_array_equal(C, schedule.diffusion.variance(t))
    x_t, x_T = np.random.default_rng(0).normal(size=(2, 9, 2, 2, 1))
    np.testing.assert_array_equal(marginals.h_transform(schedule, t, x_t, x_T), 0)
    assert marginals.has_gaussian_endpoint(schedule)
    assert not marginals.has_gaussian_endpoint(schedule.diffusion)


def test_the_bridge_tends_to_the_gaussian_endpoint_as_SNR_T_vanishes():
    """At fixed t < T, the marginals of the bridge and of DiffAE differ by about sqrt(SNR_T)."""
    t, distances = np.array([0.01, 0.2, 0.5]), []
    for beta_d in (5.0, 19.9, 60.0):
        diffusion = VP(beta_d=beta_d)
        bridge = np.array(marginals.marginal_coefficients(diffusion, t))
        free = np.array(marginals.marginal_coefficients(Free(diffusion), t))
        distances.append(np.abs(bridge - free).max() / np.sqrt(diffusion.snr_end()))
    assert distances[0] < 1 and distances[1] < 4 and distances[2] < 50  # while SNR_T falls by 1e12


@schedules
def test_scalings_are_edm_s(schedule):
    """The scalings are those of EDM, table 1, for x_t / a_t = x_0 + sigma n."""
    t = np.geomspace(schedule.t_min, schedule.t_max, 9)
    at, a = Bridge(schedule).at(t), schedule.alpha(t)
    sigma, data = np.sqrt(schedule.variance(t)) / a, 0.5
    np.testing.assert_allclose(at.c_skip * a, data**2 / (sigma**2 + data**2), rtol=1e-10)
    np.testing.assert_allclose(at.c_out, sigma * data / np.hypot(sigma, data), rtol=1e-10)
    np.testing.assert_allclose(at.c_in * a, 1 / np.hypot(sigma, data), rtol=1e-10)


# --- DDIM -----------------------------------------------------------------------------------


def _run(table, x, denoise_fn, *, clip=True):
    with jax.enable_x64(True):
        out, _ = integrate.integrate(denoise_fn, jnp.asarray(x, jnp.float64), table, clip=clip)
        return np.asarray(out)


@schedules
@pytest.mark.parametrize("grid", ["uniform", "lambda"])
def test_steps_are_ddim_s(schedule, grid):
    """x_t = a_t D + sqrt(s_t^2 - w^2) eps + w noise with eps = (x_s - a_s D) / s_s, DDIM's w."""
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 1)) * inversion.end_scale(schedule)
    D, noise = 0.3, np.random.default_rng(1).normal(size=x.shape)
    for eta in (0.0, 0.7):
        table = Plan("dbim", 6, grid, eta=eta).table(Bridge(schedule))
        times = [*table.at.t, 0.0]
        assert table.nfe == 6 and times[0] == schedule.t_max
        for i in range(6):
            row = jax.tree.map(lambda column: column[i : i + 1], table)  # noqa: B023
            change = row.w_x * x + row.w_D * D
            if eta and times[i + 1] > 0:
                change = change + row.w_noise * noise
            a, s2 = (
                [np.float64(f(np.float64(t))) for t in times[i : i + 2]]
                for f in (schedule.alpha, schedule.variance)
            )
            w = eta * np.sqrt(s2[1] * (1 - a[0] ** 2 * s2[1] / (s2[0] * a[1] ** 2)))
            if isinstance(schedule.diffusion, VP):  # DDIM, eq. (16)
                ddim = eta * np.sqrt(s2[1] / s2[0] * (1 - a[0] ** 2 / a[1] ** 2))
                assert w == pytest.approx(ddim, rel=1e-6)
            want = a[1] * D + np.sqrt(s2[1] - w**2) * (x - a[0] * D) / np.sqrt(s2[0])
            np.testing.assert_allclose(x + change, want + w * noise, rtol=1e-9, atol=1e-9)


def _world(schedule, count=40):
    """Returns a Gaussian world, images of one pixel with 3 channels, codes, exact denoiser."""
    world, rng = gaussian_world.make_world(4), np.random.default_rng(3)
    x_0, z = world.sample(rng, count)
    return world, x_0, z, gaussian_world.make_denoise_fn(world, schedule, z)


@pytest.mark.parametrize("plan", ["euler", "heun", "dbim", "multistep2", "multistep3"])
def test_every_sampler_follows_the_exact_flow(plan):
    world, _, z, denoise_fn = _world(FREE)
    x_T, e = np.random.default_rng(4).normal(size=(40, 3)), np.float64(FREE.t_min)
    exact = world.denoiser(FREE)(e, world.flow(FREE, np.float64(1.0), e, x_T, z), z)
    errors = [
        np.abs(
            _run(Plan(plan, steps, "lambda").table(Bridge(FREE)), x_T[:, None, None], denoise_fn)
            - exact[:, None, None]
        ).max()
        for steps in (20, 80)
    ]
    assert errors[1] < 0.01 and errors[1] < 0.35 * errors[0]


def test_the_markov_sampler_samples_the_distribution_of_x_0_given_z():
    """eta = 1 from x_T ~ N(0, I): mean and covariance of x_0 given one latent code."""
    world, _, z, _ = _world(FREE)
    codes = np.broadcast_to(z[:1], (5_000, 4))
    denoise_fn = gaussian_world.make_denoise_fn(world, FREE, codes)
    table = Plan("dbim", 300, "lambda", eta=1.0).table(Bridge(FREE))
    x_T = np.random.default_rng(5).normal(size=(5_000, 1, 1, 3))
    keys = jax.random.split(jax.random.key(0), 5_000)
    with jax.enable_x64(True):
        noise_fn = integrate.example_noise_fn(keys, (1, 1, 3))
        samples = integrate.integrate(denoise_fn, jnp.asarray(x_T), table, noise_fn)[0]
    posterior = world.posterior
    cov = posterior.vectors @ np.diag(posterior.values) @ posterior.vectors.T
    samples = np.asarray(samples)[:, 0, 0]
    np.testing.assert_allclose(samples.mean(axis=0), posterior.code_mean(z[:1])[0], atol=3e-3)
    np.testing.assert_allclose(np.cov(samples.T), cov, atol=0.08 * cov.max())


@pytest.mark.parametrize("grid", ["lambda", "karras"])
def test_inversion_infers_x_T_of_the_exact_flow(grid):
    world, x_0, z, denoise_fn = _world(FREE)
    exact = world.flow(FREE, np.float64(FREE.t_min), np.float64(FREE.t_max), x_0, z)[:, None, None]
    errors = []
    for steps in (100, 400):
        table = inversion.inversion(Bridge(FREE), steps, grid)
        assert table.nfe == steps and table.at.t[0] == pytest.approx(FREE.t_min)
        errors.append(np.abs(_run(table, x_0[:, None, None], denoise_fn, clip=False) - exact).max())
    assert errors[1] < 0.1 and errors[1] < 0.35 * errors[0]  # first order


def test_inversion_and_sampling_return_to_the_image_as_the_number_of_steps_grows():
    _, x_0, _, denoise_fn = _world(FREE)
    x, errors = x_0[:, None, None], []
    for steps in (10, 40, 160):
        start = inversion.initial_state(x, FREE)
        x_T = _run(
            inversion.inversion(Bridge(FREE), steps, "lambda"), start, denoise_fn, clip=False
        )
        again = _run(Plan("dbim", steps, "lambda").table(Bridge(FREE)), x_T, denoise_fn)
        errors.append(np.abs(again - x).max())
    assert errors[2] < 0.4 * errors[1] < 0.16 * errors[0] and errors[2] < 0.01


def test_times_of_an_inversion_are_checked():
    with pytest.raises(ValueError, match="fixed to a decoded x_T"):
        tables.inversion_table(Bridge(VP()), np.array([0.1, 1.0]))
    for times in ([0.0, 1.0], [0.1, 0.9], [0.5, 0.2, 1.0], [1.0], [0.1, np.nan, 1.0]):
        with pytest.raises(ValueError, match="must rise from above 0 to T = 1"):
            tables.inversion_table(Bridge(FREE), np.array(times))


def test_with_a_gaussian_x_T_boot_is_refused_and_all_samplers_start_at_T():
    with pytest.raises(ValueError, match="boot=True: a Gaussian x_T"):
        Plan("dbim", 5, boot=True).table(Bridge(FREE))
    for sampler in ("euler", "heun"):
        assert Plan(sampler, 5).table(Bridge(FREE)).at.t[0] == FREE.t_max
    grid = grids.uniform_lambda(FREE, 6, start=1.0)
    np.testing.assert_allclose(np.diff(marginals.lambda_of(FREE, grid[:-1]), 2), 0, atol=1e-9)


# --- the loss and the bound -----------------------------------------------------------------


def test_the_loss_is_the_standard_denoising_loss_of_z_and_x_t_alone():
    """With x_t = a x_0 + s n, D = c_skip x_t + c_out F(c_in x_t, 250 ln t, z)."""
    config = tiny.config(**OVERRIDES)
    networks, variables = build.make_networks(config), tiny.variables(config)
    x_0 = images.to_float(jnp.asarray(tiny.images(4)))
    model_bridge = build.make_bridge(config.bridge)
    draws = losses.draw(jax.random.key(1), x_0.shape, 8, model_bridge)._replace(dropout_key=None)
    loss_fn = functools.partial(losses.bridge_loss, networks, model_bridge, train=True)
    terms = jax.jit(loss_fn)(variables, x_0, draws)

    t = np.float64(draws.t)[:, None, None, None]
    a = np.exp(-19.9 * t**2 / 4 - 0.1 * t / 2)
    s = np.sqrt(1 - a**2)
    x_t = np.float32(a * x_0 + s * draws.noise)
    x_t_var = 0.25 * a**2 + s**2
    weights = {name: {"params": variables["params"][name]} for name in ("encoder", "unet")}
    z = jax.jit(networks.module.encoder.apply)(weights["encoder"], x_0).mean
    scaled = jnp.float32(x_t / np.sqrt(x_t_var))
    F = jax.jit(networks.module.unet.apply)(weights["unet"], scaled, 250 * jnp.log(draws.t), z)
    D = 0.25 * a / x_t_var * x_t + 0.5 * s / np.sqrt(x_t_var) * F
    error = np.mean((D - x_0) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(terms.x_0_error, error, rtol=1e-4)
    weight = (4 + (a / s) ** 2)[:, 0, 0, 0]  # 1 / s0^2 + SNR
    np.testing.assert_allclose(terms.weighted, weight * error, rtol=1e-4)
    assert terms.stats == {}


def test_the_information_bound_is_tight_and_equals_that_of_a_bridge():
    """H(x_0 | z) is the same for every schedule; a Gaussian x_T adds a term for SNR_T > 0."""
    world, rng = gaussian_world.make_world(4), np.random.default_rng(7)
    every = range(4000)
    x_0, z = world.sample(rng, len(every))
    high_snr = Free(VP())  # SNR_T = 0.5: the term at T is not small
    exact = world.entropy_given(VP(), 1.0)
    values = {}
    for name, schedule in {"free": FREE, "high SNR_T": high_snr, "bridge": VP()}.items():
        denoise_fn = gaussian_world.make_denoise_fn(world, schedule, z)
        model_bridge = Bridge(schedule)

        def model_fn(x_t, t, x_T, z):
            with jax.enable_x64(True):
                at = model_bridge.at(jnp.asarray(t))  # noqa: B023
                return np.asarray(denoise_fn(jnp.asarray(x_t), at, jnp.asarray(x_T)))  # noqa: B023

        x_T = world.decoder(z) if name == "bridge" else np.zeros_like(x_0)
        x_0s, x_Ts, draws = (
            x_0[:, None, None],
            x_T[:, None, None],
            information.image_draws(0, every),
        )
        measured = information.loss_over_time(
            model_fn, x_0s, x_Ts, z, model_bridge, draws, points=60
        )
        values[name] = information.entropy_bound(measured)
        values[name, "at T"] = measured.at_endpoint.mean()
    for name in ("free", "bridge"):
        nats, error = values[name]
        assert nats == pytest.approx(exact, abs=4 * error) and error < 0.1
    nats, error = values["high SNR_T"]
    held = world.information_at(high_snr, 1.0)  # I(x_0; x_T | z), bounded by the term at T
    assert values["high SNR_T", "at T"] >= held > 5e-4
    assert nats - values["high SNR_T", "at T"] + held == pytest.approx(exact, abs=4 * error)
    assert values["bridge", "at T"] == 0 and 0 < values["free", "at T"] < 1e-3


# --- configs and the networks ---------------------------------------------------------------


def test_configs_of_diffae_and_dbae_differ_only_in_the_bridge():
    diffae, dbae = (to_dict(from_config_dict(m.get_config())) for m in (diffae_digits, digits))
    assert diffae["bridge"] == dbae["bridge"] | {"endpoint": "free", "beta_d": 19.9}
    assert {k: v for k, v in diffae.items() if k != "bridge"} == {
        k: v for k, v in dbae.items() if k != "bridge"
    }
    for module in (diffae_shapes, diffae_celeba):
        config = from_config_dict(module.get_config())
        assert marginals.has_gaussian_endpoint(build.make_bridge(config.bridge).schedule)


def test_networks_differ_only_in_the_endpoint_decoder_and_the_input_x_T():
    shapes = {}
    for kind, overrides in {"dbae": {}, "diffae": OVERRIDES}.items():
        networks = build.make_networks(tiny.config(**overrides))
        shapes[kind] = jax.eval_shape(networks.init, jax.random.key(0))
    assert set(shapes["diffae"]["params"]) == {"encoder", "unet"} and not shapes["diffae"]["stats"]
    size = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)  # noqa: E731
    assert size(shapes["diffae"]["params"]["encoder"]) == size(shapes["dbae"]["params"]["encoder"])
    dbae_unet, diffae_unet = (size(shapes[kind]["params"]["unet"]) for kind in ("dbae", "diffae"))
    assert dbae_unet["conv_in"].pop("kernel") == (3, 3, 2, 32)
    assert diffae_unet["conv_in"].pop("kernel") == (3, 3, 1, 32)
    assert dbae_unet == diffae_unet


def test_configs_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match=r"at most 0.001, and here it is 0.5"):
        build.make_bridge(tiny.config(**{"bridge.endpoint": "free"}).bridge)
    with pytest.raises(ConfigError, match="endpoint='none' is not allowed"):
        tiny.config(**{"bridge.endpoint": "none"})
    with pytest.raises(ConfigError, match=r"sample\.boot=True is not allowed"):
        tiny.config(**OVERRIDES, **{"sample.boot": True})
    build.make_bridge(tiny.config(**{"bridge.endpoint": "free", "bridge.schedule": "ve"}).bridge)


def test_configs_saved_without_the_key_endpoint_mean_a_decoded_x_T():
    saved = to_dict(tiny.config())
    del saved["bridge"]["endpoint"]
    assert from_dict(upgrade(saved)) == tiny.config()


def test_functions_that_need_an_endpoint_decoder_refuse_diffae():
    config = tiny.config(**OVERRIDES, **{"model.encoder.pool": "mean"})
    networks = build.make_networks(config)
    with pytest.raises(CheckpointError, match="no counterpart in the authors' state dicts"):
        torch_state_dict.entries(networks.module, jax.eval_shape(networks.init, jax.random.key(0)))
    with pytest.raises(ConfigError, match="endpoint is not allowed: it must be one of encode, den"):
        benchmark.benchmark(config, ["endpoint"], seconds=0.0)
    assert "decoder " not in describe.describe(config)


# --- training -------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_resumes_where_it_stopped(tmp_path, caplog):
    config = tiny.config(**OVERRIDES, **{"train.num_steps": 2, "checkpoint.every_steps": 1})
    one = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=1))
    train.train(one, tmp_path / "run")
    with caplog.at_level("INFO", logger="dbae_jax"):
        state = train.train(config, tmp_path / "run")
    assert "Resuming from step 1" in caplog.text
    assert checkpoint.steps(tmp_path / "run") == [1, 2] and int(state.step) == 2
    first, second = (workdir.load(tmp_path / "run", "raw", step) for step in (1, 2))
    jax.tree.map(np.testing.assert_array_equal, second.variables, jax.device_get(state.variables))
    kernels = [run.variables["params"]["unet"]["conv_out"]["kernel"] for run in (first, second)]
    assert np.abs(kernels[0]).max() > 0 and not np.array_equal(*kernels)
    with pytest.raises(
        ConfigError, match=r"bridge.endpoint \('free' in the workdir, 'decoded' in this command\)"
    ):
        workdir.resume(tmp_path / "run", tiny.config(), None)
