"""Released weights: one file holds all of a model; wrong files are refused."""

import jax
import numpy as np
import pytest

from dbae_jax import DBAE
from dbae_jax.api import released_weights
from dbae_jax.api.released_weights import Released
from dbae_jax.commands import train_prior
from dbae_jax.configuration import build
from dbae_jax.data import sources
from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.prior import prior
from dbae_jax.runtime import sharding, tensor_files
from tests.helpers import tiny

DIRECTIONS = {"round": np.arange(8, dtype=np.float32), "bold": np.ones(8, np.float32) / 3}


@pytest.fixture(scope="module")
def released():
    config = tiny.config()
    variables = build.make_networks(config).init(jax.random.key(0))
    network = build.make_latent_network(config)
    prior_variables = prior.first_variables(network, jax.random.key(1))
    prior_variables["stats"] = {"mean": np.full(8, 0.3, np.float32), "std": np.ones(8, np.float32)}
    return Released(config, variables, prior_variables, {"autoencoder": 7, "prior": 5}, DIRECTIONS)


@pytest.fixture
def path(released, tmp_path):
    path = tmp_path / "model.safetensors"
    released_weights.write(path, released)
    return path


def test_a_file_holds_the_model_up_to_the_rounding_of_float16(released, path):
    read = released_weights.read(path)
    assert read.config == released.config and read.steps == released.steps
    for name in ("variables", "prior"):
        got, wanted = getattr(read, name), getattr(released, name)
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 5e-4, 1e-7), got, wanted)
    np.testing.assert_array_equal(read.prior["stats"]["mean"], np.float32(0.3))  # not rounded
    assert list(read.directions) == ["round", "bold"]


def test_a_model_is_loaded_from_a_file(released, path):
    model, whole = DBAE.load(path), DBAE(released.config, released.variables)
    assert "step 7, EMA weights in model.safetensors" in repr(model)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(model.encode(images), whole.encode(images), atol=2e-2)
    shared = DBAE.load(path, mesh=sharding.make_mesh())
    np.testing.assert_allclose(shared.sample(2, 0), model.sample(2, 0), atol=1e-4)
    assert model.prior.step == 5
    np.testing.assert_allclose(model.directions["bold"], DIRECTIONS["bold"], rtol=1e-3)


def test_a_file_without_prior_and_directions_says_so_when_they_are_needed(released, tmp_path):
    path = tmp_path / "model.safetensors"
    released_weights.write(path, released._replace(prior=None, directions={}))
    with pytest.raises(DataError, match=r"model\.safetensors has no directions"):
        DBAE.load(path).directions  # noqa: B018
    with pytest.raises(CheckpointError, match=r"model\.safetensors has no latent prior"):
        DBAE.load(path).sample(1, 0)


def test_a_model_is_saved_from_memory_and_with_other_weights(released, path, tmp_path):
    model = DBAE.load(path)
    model.save(tmp_path / "again.safetensors")
    first, again = (released_weights.read(p) for p in (path, tmp_path / "again.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, first[1:], again[1:])
    assert first.config == again.config
    changed = jax.tree.map(lambda leaf: 2 * leaf, released.variables)
    model.with_variables(changed).save(tmp_path / "changed.safetensors")
    read = released_weights.read(tmp_path / "changed.safetensors")
    assert read.prior is None and not read.directions
    leaf = read.variables["params"]["decoder"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 5e-4, 1e-7),
        leaf,
        changed["params"]["decoder"],
    )


def test_a_prior_of_other_weights_is_not_left_out_in_silence(tmp_path):
    config = tiny.config(**{"prior.num_steps": 1})
    tiny.write_workdir(config, tmp_path / "run", step=1)
    train_prior.train_prior(config, tmp_path / "run")
    tiny.write_workdir(config, tmp_path / "run", step=2, seed=1)
    with pytest.raises(CheckpointError, match="was trained on the codes of"):
        DBAE.load(tmp_path / "run").save(tmp_path / "file.safetensors")
    assert not (tmp_path / "file.safetensors").exists()


def test_wrong_files_are_refused(released, path, tmp_path):
    with pytest.raises(CheckpointError, match="exists already"):
        released_weights.write(path, released)
    with pytest.raises(CheckpointError, match="does not exist"):
        DBAE.load(tmp_path / "other.safetensors")
    values, about = tensor_files.read_state_dict(path), tensor_files.read_metadata(path)
    other = tmp_path / "authors.safetensors"
    tensor_files.write_state_dict(other, values)
    with pytest.raises(CheckpointError, match=r"released weights of this version .* convert"):
        DBAE.load(other)
    name = next(iter(values))
    tensor_files.write_state_dict(other, values | {name: np.zeros((3, 3), np.float16)}, about)
    with pytest.raises(CheckpointError, match=f"does not fit its config, first at {name}"):
        DBAE.load(other)
    del values[name]
    tensor_files.write_state_dict(other, values, about)
    with pytest.raises(CheckpointError, match=f"does not fit its config, first at {name}"):
        DBAE.load(other)
    too_large = jax.tree.map(lambda leaf: leaf + 1e5, released.variables)
    with pytest.raises(CheckpointError, match="that float16 cannot hold"):
        released_weights.write(tmp_path / "new.safetensors", released._replace(variables=too_large))


def test_a_misspelled_name_is_answered_with_the_names_of_the_package():
    with pytest.raises(CheckpointError, match=r"no workdir digts, .* did you mean 'digits'\?"):
        DBAE.load("digts")


@pytest.mark.parametrize("name", released_weights.names())
def test_weights_that_come_with_the_package_have_a_card_and_are_small(name):
    path = released_weights.find(name)
    assert path.stat().st_size <= {"digits": 4e6, "shapes": 8e6, "emoji32": 8e6}[name]
    assert path.with_suffix(".md").read_text().startswith(f"# {name}.safetensors")
    assert isinstance(released_weights.read(path).steps["prior"], int)


def test_the_digits_that_come_with_the_package_reconstruct_as_their_card_says():
    model, images = DBAE.load("digits"), sources.digits("test", 16).images
    original = images / 127.5 - 1
    mse = np.mean((model.reconstruct(images) - original) ** 2) / 4
    assert abs(mse - 0.00157) < 5e-5
    samples = model.sample(64, 0)
    assert 0.8 < samples.std() / original.std() < 1.2
