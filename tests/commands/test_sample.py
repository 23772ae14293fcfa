"""Sampling: codes from a known prior, images that depend on (seed, index) alone, files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dbae_jax
from dbae_jax.commands import sample, train, train_prior
from dbae_jax.errors import CheckpointError, ConfigError, DataError
from dbae_jax.evaluation import sample_files
from dbae_jax.prior.prior import Prior
from dbae_jax.runtime import sharding
from tests.helpers import commands, tiny
from tests.helpers.compiling import compiled

NOISY = {"sampler": "dbim", "steps": 3, "eta": 1.0}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The workdir of a tiny model with a prior."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    config = tiny.config(**{"train.num_steps": 2})
    train.train(config, directory)
    train_prior.train_prior(config, directory)
    return directory


@pytest.fixture(scope="module")
def model(directory):
    return dbae_jax.DBAE.load(directory)


class _Network:
    """The best network for standard normal codes; a stand-in for `LatentNetwork`."""

    latent_dim = 3

    def predict(self, params, z_t, t):
        abar = jnp.asarray(0.98 ** np.arange(1, 401), jnp.float32)
        return jnp.sqrt(1 - abar[t])[:, None] * z_t


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_codes_of_a_known_prior_have_its_mean_and_scale(sampler):
    mean, std = np.array([1.0, -2.0, 0.0]), np.array([0.5, 2.0, 1.0])
    config = tiny.config(**{"prior.timesteps": 400, "prior.beta": 0.02})
    stats = {"mean": jnp.asarray(mean, jnp.float32), "std": jnp.asarray(std, jnp.float32)}
    prior = Prior(config, _Network(), {"params": {}, "stats": stats}, step=0)
    z = prior.sample(4000, jax.random.key(0), batch_size=1000, sampler=sampler, steps=200)
    np.testing.assert_allclose((z.mean(axis=0) - mean) / std, 0, atol=0.08)
    np.testing.assert_allclose(z.std(axis=0) / std, 1, atol=0.06)


def test_another_number_of_codes_does_not_compile_the_sampler_again(model):
    fresh = Prior(model.config, model.prior._network, model.prior.variables, step=0)
    keys = jax.random.split(jax.random.key(1), 16)

    def sample(count):
        return fresh.sample(count, keys[:count], batch_size=16)

    assert len(compiled(lambda: sample(16), "_sample_batch")) == 1
    whole = sample(16)

    def fewer():
        for count in (5, 6, 7):  # batches of 16, too
            np.testing.assert_array_equal(sample(count), whole[:count])

    assert not compiled(fewer, "_sample_batch", "per_example")


@pytest.mark.parametrize("several", [True, False])
def test_devices_share_the_codes(model, several, monkeypatch):
    """Devices of one process do not wait for each other; those of several get the whole result."""
    mesh = sharding.make_mesh()
    monkeypatch.setitem(vars(mesh), "is_multi_process", several)
    variables = jax.device_put(model.prior.variables, sharding.replicated(mesh))
    fresh = Prior(model.config, model.prior._network, variables, step=0, mesh=mesh)
    keys = fresh._keys(jax.random.split(jax.random.key(1), 8), sharding.spread(mesh, np.arange(8)))
    assert {part.data.shape for part in keys.addressable_shards} == {(1,)}
    program = fresh._sample.lower(variables, keys, fresh.table(None, None, 0.0)).compile()
    assert ("all-gather" in program.as_text()) == several
    whole = fresh.sample(5, jax.random.key(3), batch_size=8)
    alone = model.prior.sample(5, jax.random.key(3), batch_size=8)
    np.testing.assert_allclose(whole, alone, atol=1e-5)


def test_an_image_depends_on_its_seed_and_index_alone(model):
    whole = model.sample(11, 5, **NOISY)
    assert whole.shape == (11, 16, 16, 1) and whole.min() >= -1 and whole.max() <= 1
    np.testing.assert_allclose(model.sample(3, 5, **NOISY), whole[:3], atol=1e-5)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(jnp.arange(7, 11))
    np.testing.assert_allclose(model.sample(4, keys, **NOISY), whole[7:], atol=1e-5)
    assert np.abs(model.sample(3, 6, **NOISY) - whole[:3]).max() > 1e-2
    distances = np.abs(whole[:, None] - whole[None]).max(axis=(2, 3, 4))
    assert np.all(distances[~np.eye(11, dtype=bool)] > 1e-2)


def test_images_are_decoded_from_the_sampled_codes(model):
    z = model.sample_codes(5, 2, sampler="ddim", steps=4)
    again = model.sample(5, 2, prior_sampler="ddim", prior_steps=4, sampler="heun", steps=3)
    np.testing.assert_allclose(again, model.decode(z, sampler="heun", steps=3), atol=1e-5)
    ancestral = model.sample_codes(5, 2, sampler="ancestral", steps=4)
    assert np.abs(ancestral - z).max() > 1e-2
    eta = model.sample_codes(5, 2, sampler="ddim", steps=4, eta=1.0)
    assert np.abs(eta - z).max() > 1e-2


def test_wrong_requests_are_refused(model):
    with pytest.raises(DataError, match="num=0 is not allowed"):
        model.sample(0, 1)
    with pytest.raises(DataError, match="one of ancestral, ddim"):
        model.sample(2, 1, prior_sampler="euler")
    with pytest.raises(DataError, match="1 to 20"):
        model.sample(2, 1, prior_steps=0)


def test_a_model_without_prior_is_refused(tmp_path):
    config = tiny.config(**{"train.num_steps": 1})
    bare = dbae_jax.DBAE(config, tiny.variables(config))
    with pytest.raises(CheckpointError, match=r"no latent prior .* `dbae train_prior`"):
        bare.sample(1, 0)
    train.train(config, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"no latent prior .* `dbae train_prior`"):
        dbae_jax.DBAE.load(tmp_path / "run").sample(1, 0)
    done = commands.run(
        *("main", "--config=configs/digits.py", "--mode=sample"),
        *(f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'out'}"),
        *[f"--config.{key}={value}" for key, value in _overrides(config).items()],
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "no latent prior to sample from" in last
    assert not (tmp_path / "out").exists()


def _overrides(config):
    model = config.model
    return {
        "model.latent_dim": model.latent_dim,
        "model.encoder.channel_mult": model.encoder.channel_mult,
        "model.decoder.base_channels": model.decoder.base_channels,
        "model.unet.channel_mult": model.unet.channel_mult,
        "model.unet.attention_resolutions": model.unet.attention_resolutions,
        "train.batch_size": config.train.batch_size,
        "optim.optimizer": config.optim.optimizer,
    }


def _config():
    return tiny.config(**{"train.num_steps": 2, "sample.eta": 1.0})


def test_images_are_sampled_once_and_do_not_depend_on_the_parts(directory, tmp_path, model):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    sample.sample(_config(), directory, num=11, out=whole, seed=3)
    names = [f"{i:06d}.png" for i in range(11)]
    assert sorted(p.name for p in whole.iterdir()) == [*names, "grid.png", "samples.json"]
    sample.sample(_config(), directory, num=2, out=parts, seed=3)
    (parts / names[1]).write_bytes(b"kept")  # files that exist are left alone
    with pytest.raises(DataError, match=r"valid images 0 to 10 \(cannot"):  # but for the grid
        sample.sample(_config(), directory, num=11, out=parts, seed=3)
    for name in [*names[:1], *names[2:]]:
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    assert (parts / names[1]).read_bytes() == b"kept"
    shown = np.asarray(Image.open(whole / names[10]))
    drawn = model.sample(11, 3, plan=_config().sample)
    assert np.abs(shown - dbae_jax.to_uint8(drawn)[10, ..., 0].astype(int)).max() <= 1
    assert Image.open(whole / "grid.png").size == (8 * (64 + 2) + 2, 2 * (64 + 2) + 2)
    record = json.loads((whole / "samples.json").read_text())
    assert record["seed"] == 3 and record["prior_step"] == 4 and record["how"]["eta"] == 1.0
    whose = {"autoencoder_fingerprint", "prior_fingerprint", "dtype", "matmul_precision"}
    assert whose <= record.keys() and len(record["prior_fingerprint"]) == 12


def test_npz_files_hold_many_images(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_files, "SHARD", 4)
    arguments = {"out": tmp_path, "file_format": "npz", "seed": 3}
    sample.sample(_config(), directory, num=6, **arguments)
    first = (tmp_path / "000000-000003.npz").stat()
    sample.sample(_config(), directory, num=7, **arguments)
    sample.sample(_config(), directory, num=2, **arguments)  # nothing to draw, nothing to remove
    names = sorted(p.name for p in tmp_path.glob("*.npz"))
    assert names == ["000000-000003.npz", "000004-000006.npz"]
    assert (tmp_path / names[0]).stat().st_mtime_ns == first.st_mtime_ns
    with np.load(tmp_path / names[1]) as file:
        assert file["images"].shape == (3, 16, 16, 1) and file["images"].dtype == np.uint8
        assert file["index"].tolist() == [4, 5, 6] and file["seed"] == 3


def test_folders_of_other_images_are_refused(directory, tmp_path):
    out = tmp_path / "out"
    sample.sample(_config(), directory, num=1, out=out)
    with pytest.raises(ConfigError, match="different values of seed"):
        sample.sample(_config(), directory, num=1, out=out, seed=1)
    with pytest.raises(ConfigError, match="different values of how"):
        sample.sample(tiny.config(), directory, num=1, out=out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="not a folder of samples"):
        sample.sample(_config(), directory, num=1, out=tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"model\.latent_dim"):
        wrong = tiny.config(**{"model.latent_dim": 4})
        sample.sample(wrong, directory, num=1, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
