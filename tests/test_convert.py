"""The converter: the authors' state dicts to workdirs and back, latent priors, and errors."""

import jax
import numpy as np
import pytest
import safetensors.numpy

import dbae_jax
from dbae_jax import convert
from dbae_jax.api import directions, released_weights
from dbae_jax.configuration import build, config
from dbae_jax.errors import CheckpointError
from dbae_jax.models import torch_state_dict
from dbae_jax.workdirs import checkpoint
from tests.helpers import golden, tiny


@pytest.fixture(scope="module")
def small():
    """A small model with the authors' pooling, its state dict, and the unused block."""
    c = tiny.config(**{"model.encoder.pool": "mean", "model.stochastic": True})
    module = build.make_networks(c).module
    made = torch_state_dict.to_state_dict(tiny.variables(c), module)
    made = {k: np.int64(41) if k.endswith("tracked") else v for k, v in made.items()}
    unused = {
        "decoder.feat_256.1.weight_orig": np.ones((4, 4, 3, 3), np.float32),
        "decoder.feat_256.2.num_batches_tracked": np.int64(3),
    }
    return c, {k: np.asarray(v) for k, v in (made | unused).items()}


def _without_unused(values):
    return {k: v for k, v in values.items() if "feat_256" not in k}


def _assert_same(got, want):
    assert got.keys() == want.keys()
    for key in want:
        assert got[key].dtype == want[key].dtype, key
        np.testing.assert_array_equal(got[key], want[key], err_msg=key)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_round_trip_is_bit_exact(small, suffix, tmp_path):
    if suffix == ".pt":
        pytest.importorskip("torch", reason="reading .pt needs the torch extra")
    c, values = small
    convert.write_state_dict(tmp_path / f"ema{suffix}", values)
    convert.to_workdir(tmp_path / f"ema{suffix}", c, tmp_path / "run")
    convert.from_workdir(tmp_path / "run", tmp_path / f"again{suffix}")
    again = convert.read_state_dict(tmp_path / f"again{suffix}")
    _assert_same(again, _without_unused(values))


def test_a_converted_model_computes_the_same_and_can_be_trained(small, tmp_path):
    c, values = small
    convert.write_state_dict(tmp_path / "ema.safetensors", values)
    convert.to_workdir(tmp_path / "ema.safetensors", c, tmp_path / "run")
    want = dbae_jax.DBAE(c, tiny.variables(c)).encode(tiny.images(3))
    for weights in ("ema", "raw"):
        model = dbae_jax.DBAE.load(tmp_path / "run", weights=weights)
        np.testing.assert_array_equal(model.encode(tiny.images(3)), want)
    from dbae_jax.commands import train

    train.train(c, tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run")[-1] == 4


@pytest.mark.slow
def test_a_released_model_through_files(tmp_path):
    """At full size: keys and shapes of a release -> .safetensors -> workdir -> codes and back."""
    case = golden.Case("celeba64_vp_stochastic")
    convert.write_state_dict(tmp_path / "ema.safetensors", case.state_dict)
    convert.to_workdir(tmp_path / "ema.safetensors", case.config, tmp_path / "run")
    model = dbae_jax.DBAE.load(tmp_path / "run", batch_size=case.batch)
    assert case.distance("mu", model.encode(case.x_0)) < 1e-5
    convert.from_workdir(tmp_path / "run", tmp_path / "again.safetensors")
    again = safetensors.numpy.load_file(tmp_path / "again.safetensors")
    _assert_same(again, _without_unused(case.state_dict))


@pytest.fixture
def prior_file(tmp_path):
    """A workdir with a model, and the state dict of a latent prior for it."""
    c = tiny.config()
    tiny.write_workdir(c, tmp_path / "run")
    shapes = jax.eval_shape(build.make_latent_network(c).init, jax.random.key(0))
    values = {
        entry.key: golden.draw(entry.key, entry.layout.torch_shape)
        for entry in torch_state_dict.prior_entries(shapes)
    }
    values["layers.0.linear_emb.weight"] = values["layers.0.cond_layers.1.weight"]
    values["conds_mean"] = np.arange(8, dtype=np.float32)
    values["conds_std"] = np.full(8, 1e-6, np.float32)
    return c, tmp_path / "run", values


def test_a_converted_prior_samples_images(prior_file, tmp_path):
    c, directory, values = prior_file
    convert.write_state_dict(tmp_path / "latent.safetensors", values)
    convert.prior_to_workdir(tmp_path / "latent.safetensors", c, directory)
    model = dbae_jax.DBAE.load(directory)
    kernel = model.prior.variables["params"]["layer_1"]["kernel"]
    np.testing.assert_array_equal(kernel, values["layers.1.linear.weight"].T)
    # The standard deviation of the codes is so small that their mean remains.
    z = model.prior.sample(3, jax.random.key(0), batch_size=3)
    np.testing.assert_allclose(z, np.tile(values["conds_mean"], (3, 1)), atol=0.01)
    assert np.isfinite(model.sample(2, 0)).all()
    with pytest.raises(CheckpointError, match="exists already"):
        convert.prior_to_workdir(tmp_path / "latent.safetensors", c, directory)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("conds_std", r"needs conds_mean and conds_std of shape \[8\]"),
        ("layers.2.linear.bias", "1 mi"),
    ],
)
def test_priors_that_do_not_fit_are_refused(prior_file, tmp_path, key, words):
    c, directory, values = prior_file
    del values[key]
    convert.write_state_dict(tmp_path / "latent.safetensors", values)
    with pytest.raises(CheckpointError, match=words):
        convert.prior_to_workdir(tmp_path / "latent.safetensors", c, directory)
    assert not (directory / "prior").exists()


def test_every_released_key_is_known():
    for name in ("celeba64_vp", "celeba64_vp_stochastic", "ffhq128_vp"):
        case = golden.Case(name)
        shapes = {
            e.key: e.layout.torch_shape
            for e in torch_state_dict.entries(case.networks.module, case.shapes)
        }
        released = {k: tuple(v) for k, v in _without_unused(case.manifest).items()}
        assert shapes == {k: v for k, v in released.items() if not k.endswith("tracked")}


def _broken(values, change):
    values = dict(values)
    if change == "missing":
        del values["time_embed.0.weight"]
    elif change == "extra":
        values["time_embed.4.weight"] = np.zeros(3, np.float32)
    elif change == "misshapen":
        values["out.2.weight"] = np.zeros((9, 9, 3, 3), np.float32)
    return values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", r"1 missing: time_embed\.0\.weight"),
        ("extra", r"1 unknown: time_embed\.4\.weight"),
        ("misshapen", r"1 misshapen: out\.2\.weight is \[9, 9, 3, 3\], should be \[1, 32, 3, 3\]"),
    ],
)
def test_state_dicts_that_do_not_fit_are_refused(small, change, words, tmp_path):
    c, values = small
    convert.write_state_dict(tmp_path / "ema.safetensors", _broken(values, change))
    with pytest.raises(CheckpointError, match=words):
        convert.to_workdir(tmp_path / "ema.safetensors", c, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_that_cannot_be_read_are_refused(small, tmp_path):
    c, values = small
    whole = tmp_path / "ema.safetensors"
    convert.write_state_dict(whole, values)
    damaged = tmp_path / "torn.safetensors"
    damaged.write_bytes(whole.read_bytes()[:-1000])
    for path, words in (
        (damaged, "not a complete"),
        (tmp_path / "absent.safetensors", "does not exist"),
        (tmp_path / "ema.onnx", "must end in"),
    ):
        with pytest.raises(CheckpointError, match=words):
            convert.to_workdir(path, c, tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        convert.to_workdir(whole, c, tmp_path / "full")
    with pytest.raises(CheckpointError, match="exists already"):
        convert.from_workdir(tmp_path / "run", whole)
    assert not (tmp_path / "run").exists()


def test_pickled_code_is_never_run(small, tmp_path):
    torch = pytest.importorskip("torch", reason="reading .pt needs the torch extra")

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"out.2.weight": Bomb()}, tmp_path / "bomb.pt")
    torch.save({"a": {"b": torch.zeros(1)}, "c": {"b": torch.zeros(1)}}, tmp_path / "nested.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "nested.pt").read_bytes()[:300])
    for name, words in (
        ("bomb", "tensors only"),
        ("nested", "not hold a flat"),
        ("torn", "complete"),
    ):
        with pytest.raises(CheckpointError, match=words):
            convert.to_workdir(tmp_path / f"{name}.pt", small[0], tmp_path / "run")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()


def test_flattened_pooling_has_no_counterpart(tmp_path):
    c = tiny.config()
    assert c.model.encoder.pool == "flatten"
    with pytest.raises(CheckpointError, match="pool='flatten'"):
        torch_state_dict.to_state_dict(tiny.variables(c), build.make_networks(c).module)


def test_every_config_with_mean_pooling_converts():
    """Sizes and widths that were never released have state dicts of the same scheme."""
    from dbae_jax.configs import base

    c = base.get_config()
    c.data.image_size = 256
    c.model.unet.attention_resolutions = c.model.encoder.attention_resolutions = (32,)
    c.model.encoder.channel_mult = c.model.unet.channel_mult = (1, 1, 2, 2, 4)
    networks = build.make_networks(config.from_config_dict(c))
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    keys = [entry.key for entry in torch_state_dict.entries(networks.module, shapes)]
    assert len(keys) == len(set(keys)) == len(jax.tree.leaves(shapes))
    assert "decoder.se_256.main.3.weight_orig" in keys


def test_a_model_and_its_prior_in_one_file_and_back(prior_file, tmp_path):
    c, directory, values = prior_file
    convert.write_state_dict(tmp_path / "latent.safetensors", values)
    convert.prior_to_workdir(tmp_path / "latent.safetensors", c, directory)
    path, again = tmp_path / "packed.safetensors", tmp_path / "again"
    whose = dbae_jax.DBAE.load(directory).encoder_fingerprint
    directions.save(directory, c.data.name, whose, {"round": np.arange(8, dtype=np.float32)})
    convert.pack(directory, path)
    convert.unpack(str(path), again)
    packed, unpacked = dbae_jax.DBAE.load(path), dbae_jax.DBAE.load(again)
    np.testing.assert_array_equal(packed.encode(tiny.images(3)), unpacked.encode(tiny.images(3)))
    np.testing.assert_array_equal(packed.sample(2, 0), unpacked.sample(2, 0))
    assert checkpoint.read_meta(again, 0)["released"] == "packed.safetensors"
    np.testing.assert_allclose(unpacked.directions["round"], np.arange(8), atol=1e-2)
    with pytest.raises(
        CheckpointError, match="There is no workdir nothing, and no weights of this name"
    ):
        convert.unpack("nothing", tmp_path / "other")
    with pytest.raises(CheckpointError, match="is not empty"):
        convert.unpack(str(path), again)


def test_a_packed_config_names_no_folder_of_this_machine(tmp_path):
    changes = {"data.data_dir": "/home/somebody/data", "train.trackers": ("wandb",)}
    tiny.write_workdir(tiny.config(**changes), tmp_path / "run")
    convert.pack(tmp_path / "run", tmp_path / "packed.safetensors")
    assert b"somebody" not in (tmp_path / "packed.safetensors").read_bytes()
    packed = released_weights.read(tmp_path / "packed.safetensors")
    assert "prior" not in packed.steps and packed.config.train.trackers == ()
