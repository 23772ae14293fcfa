"""The prior's training as a system, on the codes of a tiny model."""

import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dbae_jax
from dbae_jax.commands import train_prior
from dbae_jax.configuration import build
from dbae_jax.data import codes as codes_lib
from dbae_jax.data import registry
from dbae_jax.data.codes import Codes
from dbae_jax.errors import CheckpointError, ConfigError, DataError, NonFiniteError, PreemptedError
from dbae_jax.prior import likelihood, prior
from dbae_jax.runtime import sharding
from dbae_jax.workdirs import checkpoint, records, workdir
from tests.helpers import tiny

STOCHASTIC = {"model.stochastic": True, "prior.sample_codes": True}


@pytest.fixture(scope="module", params=[{}, STOCHASTIC], ids=["deterministic", "stochastic"])
def case(request, tmp_path_factory):
    """(overrides, workdir of a model of two steps with a prior of four)."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    config = _config(request.param)
    tiny.write_workdir(config, directory, step=2)
    train_prior.train_prior(config, directory)
    return request.param, directory


@pytest.fixture
def run_copy(case, tmp_path):
    return case[0], pathlib.Path(shutil.copytree(case[1], tmp_path / "run"))


def _config(overrides, **others):
    return tiny.config(**overrides, **others, **{"train.num_steps": 2})


def _ema(folder, step):
    config = workdir.from_dict(checkpoint.read_meta(folder, step)["config"])
    network = build.make_latent_network(config)
    abstract = jax.eval_shape(lambda: prior.first_variables(network, jax.random.key(0)))
    return checkpoint.read_variables(folder, step, "ema", workdir.placed(abstract))


def _assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_leaves_what_it_should(case):
    overrides, directory = case
    folder = directory / "prior"
    assert checkpoint.steps(folder) == [2, 4]
    rows = records.read(folder)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    assert {"codes_per_second", "grad_norm", "train_seconds"} <= rows[0].keys()
    measured = [row for row in rows if "prior_nll_nats" in row]
    assert [row["step"] for row in measured] == [4]
    assert ("l_pr_nats" in measured[0]) == bool(overrides)
    whose = prior.identity_of(2, dbae_jax.DBAE.load(directory).variables)
    assert checkpoint.read_meta(folder, 4)["autoencoder"] == whose
    assert checkpoint.steps(directory) == [2]  # the model's own


def test_codes_are_the_models_and_normalised_to_mean_0_std_1(case):
    overrides, directory = case
    model = dbae_jax.DBAE.load(directory)
    with np.load(directory / "prior" / train_prior.CODES_FILE) as file:
        mean = file["train_mean"]
        assert ("train_sigma" in file) == bool(overrides)
        assert len(file["test_mean"]) == 16
    source = registry.make_source(_config(overrides).data, "train")
    assert len(mean) == len(source)
    np.testing.assert_allclose(mean[:5], model.encode(source.images[:5]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean[-5:], model.encode(source.images[-5:]), rtol=1e-4, atol=1e-5)
    stats = _ema(directory / "prior", 4)["stats"]
    z_0 = np.asarray(prior.normalised(stats, mean))
    np.testing.assert_allclose(z_0.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(z_0.std(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(prior.denormalised(stats, z_0), mean, rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_ends_as_the_uninterrupted_one(run_copy, monkeypatch):
    """SIGTERM after step 3: saved there; then on to the end, and encoding is not done again."""
    overrides, directory = run_copy
    folder = directory / "prior"
    whole = _ema(folder, 4)
    shutil.rmtree(folder / checkpoint.FOLDER)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Writer, "preempted", lambda self, step: step == 3)
        with pytest.raises(PreemptedError, match="step 3 of 4 is saved"):
            train_prior.train_prior(_config(overrides), directory)
    assert checkpoint.steps(folder) == [2, 3]
    monkeypatch.setattr(codes_lib, "encode", None)
    assert int(train_prior.train_prior(_config(overrides), directory).step) == 4
    _assert_same(_ema(folder, 4), whole)
    assert [row["step"] for row in records.read(folder) if "loss" in row] == [1, 2, 3, 4]
    assert int(train_prior.train_prior(_config(overrides), directory).step) == 4  # nothing to do


def test_torn_files_are_made_again(run_copy, caplog):
    overrides, directory = run_copy
    folder = directory / "prior"
    codes = folder / train_prior.CODES_FILE
    codes.write_bytes(codes.read_bytes()[:1000])
    for path in (folder / "checkpoints" / "4" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    whole = _ema(folder, 4)
    with caplog.at_level("INFO", logger="dbae_jax"):
        train_prior.train_prior(_config(overrides), directory)
    assert f"{train_prior.CODES_FILE} is damaged" in caplog.text and "unreadable" in caplog.text
    _assert_same(_ema(folder, 4), whole)


def test_misfits_are_refused(run_copy):
    overrides, directory = run_copy
    with pytest.raises(
        ConfigError, match=r"prior\.width \(16 in the workdir, 32 in this command\)"
    ):
        train_prior.train_prior(_config(overrides, **{"prior.width": 32}), directory)
    with pytest.raises(ConfigError, match=r"model\.latent_dim"):
        train_prior.train_prior(_config(overrides, **{"model.latent_dim": 4}), directory)
    with pytest.raises(ConfigError, match=r"prior\.batch_size=12 .* by 8 devices; use 8 or 16"):
        train_prior.train_prior(_config(overrides, **{"prior.batch_size": 12}), directory)
    with pytest.raises(CheckpointError, match="does not exist"):
        train_prior.train_prior(_config(overrides), directory / "nowhere")
    with pytest.raises(NonFiniteError, match=r"smaller config\.prior\.learning_rate"):
        wild = {"prior.learning_rate": 1e30, "prior.num_steps": 40}
        train_prior.train_prior(_config(overrides, **wild), directory)


def _assert_refused(config, directory, words):
    """The prior in the workdir neither trains on nor is sampled from."""
    with pytest.raises(CheckpointError, match=words):
        train_prior.train_prior(config, directory)
    with pytest.raises(CheckpointError, match=words):
        dbae_jax.DBAE.load(directory).sample(1, 0)


def test_a_prior_of_other_weights_is_refused(run_copy):
    overrides, directory = run_copy
    later = _config(overrides)
    tiny.write_workdir(later, directory, step=3, seed=1)
    words = r"ema weights of step 2 \(\w+\), not of the ema weights of step 3 "
    _assert_refused(later, directory, words)
    assert dbae_jax.DBAE.load(directory, step=2).sample(1, 0).shape == (1, 16, 16, 1)


def test_a_prior_of_weights_that_were_exchanged_is_refused(run_copy):
    """Of the same step: another training, or a conversion, put in the place of the first."""
    overrides, directory = run_copy
    config = _config(overrides)
    shutil.rmtree(directory / checkpoint.FOLDER)
    tiny.write_workdir(config, directory, step=2, seed=1)
    words = r"step 2 \(\w{12}\), not of the ema weights of step 2 \(\w{12}\)"
    _assert_refused(config, directory, words)


def test_draws_of_a_deterministic_code_are_refused():
    with pytest.raises(ConfigError, match=r"prior\.sample_codes=True .* deterministic"):
        tiny.config(**{"prior.sample_codes": True})


def _codes(count, latent_dim=2, seed=0):
    """A mixture of two well-separated Gaussians along one direction: far from Gaussian."""
    rng = np.random.default_rng(seed)
    z = 0.15 * rng.standard_normal((count, latent_dim))
    z[:, 0] += rng.choice([-1, 1], count)
    return Codes(z.astype(np.float32), None)


def test_training_learns_what_a_gaussian_cannot_and_samples_it(tmp_path):
    """Two narrow clusters: the bound falls below the Gaussian's, and samples lie in both."""
    overrides = {
        "model.latent_dim": 2,
        "prior.num_steps": 1500,
        "prior.width": 64,
        "prior.timesteps": 200,
        "prior.beta": 0.03,
        "prior.batch_size": 128,
        "prior.learning_rate": 3e-3,
        "prior.ema_decay": 0.99,
        "prior.sample_steps": 100,
    }
    config, mesh = tiny.config(**overrides), sharding.make_mesh(jax.devices()[:1])
    codes, held_out = _codes(2000), _codes(500, seed=1)
    run = train_prior.set_up(config, tmp_path, codes, {}, mesh)
    state = run.state
    batches = codes_lib.batches(codes, batch_size=128, seed=0, start_step=0, mesh=mesh)
    for _ in range(config.prior.num_steps):
        state, _ = run.train_step(state, next(batches), run.key)
    values = likelihood.make_measure(config, held_out, mesh)(state.ema)
    normalised = values["gaussian_nll_nats"]
    assert normalised == pytest.approx(math.log(2 * math.pi * math.e), abs=0.1)
    assert values["prior_nll_nats"] + 4 * values["prior_nll_se"] < normalised - 0.3
    network = build.make_latent_network(config)
    drawn = prior.Prior(config, network, state.ema, step=0).sample(
        500, jax.random.key(3), batch_size=500
    )
    near = np.abs(np.abs(drawn[:, 0]) - 1) < 0.5
    assert near.mean() > 0.9
    assert 0.3 < (drawn[:, 0] > 0).mean() < 0.7


def test_l_pr_of_a_known_posterior_is_its_divergence(monkeypatch):
    """q = N(m, s^2) per image against the prior N(0, 1), whose network is known."""
    config = tiny.config(
        **{"model.stochastic": True, "model.latent_dim": 3},
        **{"prior.timesteps": 400, "prior.beta": 0.02, "prior.bound_points": 400},
    )
    rng = np.random.default_rng(0)
    mean, scale = rng.standard_normal((400, 3)), np.exp(0.3 * rng.standard_normal((400, 3)) - 1)
    codes = Codes(mean.astype(np.float32), scale.astype(np.float32))
    abar = jnp.asarray(0.98 ** np.arange(1, 401), jnp.float32)

    def predict(self, params, z_t, t):  # E[eps | z_t]
        return jnp.sqrt(1 - abar[t])[:, None] * z_t

    monkeypatch.setattr("dbae_jax.models.latent_net.LatentNetwork.predict", predict)
    shift, std = rng.standard_normal(3), np.array([0.5, 2.0, 1.0])  # KL does not see them
    variables = {
        "params": {},
        "stats": {"mean": jnp.asarray(shift, jnp.float32), "std": jnp.asarray(std, jnp.float32)},
    }
    moved = Codes(codes.mean * std + shift, codes.sigma * std)
    moved = Codes(moved.mean.astype(np.float32), moved.sigma.astype(np.float32))
    mesh = sharding.make_mesh(jax.devices()[:1])
    values = likelihood.make_measure(config, moved, mesh)(variables)
    exact = 0.5 * (scale**2 + mean**2 - 1 - 2 * np.log(scale)).sum(axis=1).mean()
    assert values["l_pr_nats"] == pytest.approx(exact, abs=4 * values["prior_nll_se"])
    assert values["prior_nll_se"] < 0.15


def test_batches_are_permutations_and_a_function_of_seed_and_step():
    codes = Codes(np.arange(10, dtype=np.float32)[:, None], None)
    mesh = sharding.make_mesh(jax.devices()[:2])

    def take(count, **others):
        made = codes_lib.batches(
            codes, **({"batch_size": 4, "seed": 0, "start_step": 0, "mesh": mesh} | others)
        )
        return [np.asarray(next(made)["mean"])[:, 0].tolist() for _ in range(count)]

    first = take(5)
    order = np.concatenate(first)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert take(2, start_step=3) == first[3:]
    assert take(5, seed=1) != first
    assert sorted(take(1, batch_size=20)[0]) == sorted([*range(10), *range(10)])


def test_encoding_nothing_is_refused():
    model = dbae_jax.DBAE(tiny.config(), tiny.variables(tiny.config()))
    with pytest.raises(DataError, match="no images to encode"):
        codes_lib.encode(model, [], num_threads=1)
