"""Full-size networks, losses and samplers against the recorded outputs of the authors' code.

The weights go through the state-dict converter. Tolerances are relative L2 distances that float32
reaches. `tests/helpers/golden.py` explains the recorded cases.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.bridge.marginals import marginal_sample
from dbae_jax.bridge.preconditioning import make_denoiser
from dbae_jax.models import torch_state_dict
from dbae_jax.sampling import grids, integrate, plan
from dbae_jax.training import losses
from tests.helpers import golden

CASES = ["celeba64_vp", "celeba64_ve", "celeba64_vp_stochastic", "ffhq128_vp"]


@pytest.fixture(
    scope="module",
    params=[CASES[0], *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[1:])],
)
def case(request):
    yield golden.Case(request.param)
    if request.param != "celeba64_vp":  # the next case has the same networks
        jax.clear_caches()


@functools.lru_cache(maxsize=8)
def _program(networks, name):
    """Returns a function of the networks, compiled once for all cases with these networks."""
    return jax.jit(getattr(networks, name))


@functools.cache
def _forward(case):
    """Returns (q(z | x_0), z, x_T) in evaluation mode."""
    networks, variables = case.networks, case.variables
    code = _program(networks, "encode")(variables, case.x_0)
    z = code.sample(golden.draw("eps", code.mean.shape))
    return code, z, _program(networks, "endpoint")(variables, z)


def test_codes_and_endpoints(case):
    code, z, x_T = _forward(case)
    assert case.distance("z", z) < 1e-5
    assert case.distance("x_T", x_T) < 1e-5
    if case.config.model.stochastic:
        assert case.distance("mu", code.mean) < 1e-5
        assert case.distance("log_sigma", code.log_sigma) < 1e-5
    else:
        assert code.log_sigma is None


def test_training_pass_of_the_decoder(case):
    _, z, _ = _forward(case)
    x_T, stats = _program(case.networks, "endpoint_train")(case.variables, z)
    assert golden.distance(golden.channels_first(x_T), case.outputs["train/x_T"], "") < 1e-5
    after = torch_state_dict.to_state_dict(
        {"params": case.variables["params"], "stats": stats}, case.networks.module
    )
    entries = [name for name in case.outputs if name.startswith("train/decoder")]
    used = [name for name in entries if "feat_256" not in name and "tracked" not in name]
    assert len(used) >= 18
    for name in used:
        key = name.removeprefix("train/")
        assert golden.distance(after[key], case.outputs[name], key) < 1e-5, name


def test_denoiser(case):
    _, z, x_T = _forward(case)
    T = case.bridge.schedule.t_max
    network = functools.partial(_program(case.networks, "network"), case.variables)
    for j, t in enumerate(case.outputs["sigmas"]):
        near_T = T - t < 1e-3 * T
        raw = []

        def network_fn(x, c_noise, z, raw=raw):
            raw.append(network(x, c_noise, z))
            return raw[0]

        t = jnp.full(case.batch, t, jnp.float32)
        x_t = marginal_sample(case.bridge.schedule, t, case.x_0, x_T, case.noise)
        denoised = make_denoiser(network_fn)(x_t, case.bridge.at(t), x_T, z)
        assert case.distance(f"x_t/{j}", x_t, "x_t") < (2e-4 if near_T else 3e-5)
        assert case.distance(f"network/{j}", raw[0], "network") < (2e-4 if near_T else 3e-5)
        assert case.distance(f"denoised/{j}", denoised, "denoised") < (2e-4 if near_T else 1e-5)


def test_loss_and_gradients(case):
    times = np.resize(case.outputs["loss/sigmas"], case.batch).astype(np.float32)
    eps = golden.draw("eps", (case.batch, case.config.model.latent_dim))
    draws = losses.Draws(times, case.noise, eps, dropout_key=None)
    # Networks and their gradients are compiled once for both bridges.
    names = ("encode", "endpoint", "network")
    networks = types.SimpleNamespace(**{name: _program(case.networks, name) for name in names})

    def loss_fn(params):
        variables = {"params": params, "stats": case.variables["stats"]}
        terms = losses.bridge_loss(networks, case.bridge, variables, case.x_0, draws, train=False)
        return terms.weighted.mean(), terms

    grads, terms = jax.grad(loss_fn, has_aux=True)(case.variables["params"])
    np.testing.assert_allclose(terms.weighted, case.outputs["loss/weighted"], rtol=1e-5)
    np.testing.assert_allclose(terms.x_0_error, case.outputs["loss/x0_mse"], rtol=1e-5)

    as_keys = torch_state_dict.to_state_dict(
        {"params": grads, "stats": case.variables["stats"]}, case.networks.module
    )
    wanted = [n for n in case.outputs if n.startswith("grad/") and "feat_256" not in n]
    trained = [e for e in torch_state_dict.entries(case.networks.module, case.shapes)]
    assert len(wanted) == sum(entry.path[0] == "params" for entry in trained)
    for name in wanted:
        key = name.removeprefix("grad/")
        assert golden.distance(as_keys[key], case.outputs[name], key) < 5e-5, name


def test_samples(case):
    _, z, x_T = _forward(case)
    names = [n for n in case.outputs if n.startswith("sample/") and n.count("/") == 1]
    assert names
    for name in names:
        sampler, steps, churn, rho = name.removeprefix("sample/").split("_")[:4]
        steps, churn = int(steps.removeprefix("steps")), float(churn.removeprefix("churn"))
        schedule = case.bridge.schedule
        start = schedule.t_max - grids.DISTANCE_TO_END
        times = grids.karras(schedule, steps, start=start, rho=float(rho[3:]))
        np.testing.assert_allclose(times, case.outputs[f"grid/steps{steps}_{rho}"], rtol=1e-12)
        table = plan.Plan(sampler, steps, times, churn=churn).table(case.bridge)
        noises = jnp.stack([golden.draw_last(f"churn{i}", case.shape) for i in range(steps)])
        x_0, states = _integrate(case.networks)(case.variables, x_T, z, table, noises)
        assert case.distance(name, x_0) < 2e-4, name
        assert table.nfe == case.outputs[f"{name}/nfe"]
        path = integrate.path_states(x_T, states, table)
        for state, want in zip(path, case.outputs[f"{name}/path"], strict=True):
            assert golden.distance(golden.channels_first(state), want, "path") < 2e-4, name


@functools.lru_cache(maxsize=1)
def _integrate(networks):
    @jax.jit
    def run(variables, x_T, z, table, noises):
        denoiser = make_denoiser(functools.partial(networks.network, variables))
        return integrate.integrate(
            lambda x_t, at, x_T: denoiser(x_t, at, x_T, z),
            x_T,
            table,
            lambda i: noises[i],
            keep_path=True,
        )

    return run


def test_scalings(case):
    """Scalings in float64 on the host, and in float32 on the device, at the same float32 times."""
    from dbae_jax.configs import base

    from dbae_jax.configuration import build, config

    for name in [n for n in case.outputs if n.startswith("scalings/")]:
        t, *wanted = case.outputs[name]
        c = base.get_config()
        c.bridge.schedule = name.removeprefix("scalings/")
        bridge = build.make_bridge(config.from_config_dict(c).bridge)
        at = bridge.at(t)
        for got, want in zip((at.c_skip, at.c_out, at.c_in, at.weight), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=0)
        at = bridge.at(jnp.asarray(t, jnp.float32))
        near_T = bridge.schedule.t_max - t < 1e-3 * bridge.schedule.t_max
        for got, want in zip((at.c_skip, at.c_out, at.c_in, at.weight), wanted, strict=True):
            error = np.abs(np.asarray(got, np.float64) - want) / np.where(want == 0, 1, want)
            assert np.all(error[~near_T] < 1e-5)
            assert np.all(error[near_T] < 3e-4)
