"""Fine-tuning: weights of another model, frozen networks, refusals, and where weights come from."""

import jax
import numpy as np
import pytest

from dbae_jax import DBAE
from dbae_jax.commands import train as command
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.workdirs import checkpoint, workdir
from tests.helpers import tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A workdir with a model."""
    directory = tmp_path_factory.mktemp("teacher") / "run"
    tiny.write_workdir(tiny.config(), directory)
    return directory


def _fine_tuned(directory, teacher, steps, **changes):
    lengths = {"train.num_steps": steps, "checkpoint.every_steps": 1}
    config = tiny.config(**{"train.init_from": str(teacher), "seed": 5, **lengths, **changes})
    command.train(config, directory)
    return {which: workdir.load(directory, which).variables for which in ("raw", "ema")}


def _same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize(
    "frozen", [("encoder", "decoder"), pytest.param(("unet",), marks=pytest.mark.slow)]
)
def test_frozen_networks_stay_as_they_are_bit_for_bit_and_the_others_learn(
    teacher, tmp_path, frozen
):
    changes = {"train.frozen": frozen}
    before = workdir.load(teacher).variables
    # Three steps, and one more after a resumption.
    _fine_tuned(tmp_path / "run", teacher, 3, **changes)
    tuned = _fine_tuned(tmp_path / "run", teacher, 4, **changes)
    for weights in tuned.values():
        for part in ("encoder", "decoder", "unet"):
            same = _same(before["params"][part], weights["params"][part])
            assert same == (part in frozen), part
        assert _same(before["stats"], weights["stats"]) == ("decoder" in frozen)
    origin = checkpoint.read_meta(tmp_path / "run", 4)[workdir.ORIGIN]
    assert (
        origin["name"] == str(teacher) and origin["fingerprint"] == DBAE.load(teacher).fingerprint
    )


def test_parts_that_are_not_named_are_new(teacher, tmp_path):
    tuned = _fine_tuned(
        tmp_path / "run",
        teacher,
        1,
        **{"train.init_parts": ("encoder",), "train.frozen": ("encoder",)},
    )
    before = workdir.load(teacher).variables["params"]
    assert _same(before["encoder"], tuned["raw"]["params"]["encoder"])
    new = jax.tree.leaves(tuned["raw"]["params"]["unet"])
    far = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(before["unet"]), new, strict=True)]
    assert max(far) > 0.05  # one step changes a weight by no more than the learning rate


@pytest.mark.slow
def test_frozen_networks_with_accumulation_equal_those_without(teacher, tmp_path):
    changes = {"train.frozen": ("encoder", "decoder"), "model.unet.dropout": 0.0}
    whole = _fine_tuned(tmp_path / "whole", teacher, 1, **changes)
    parts = _fine_tuned(
        tmp_path / "parts", teacher, 1, **changes, **{"train.accumulation_steps": 2}
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, parts)


def test_models_that_do_not_fit_are_refused_before_anything_is_written(teacher, tmp_path):
    wider = {"model.latent_dim": 16}
    with pytest.raises(CheckpointError, match=r"does not fit: encoder.* there and .* in this"):
        _fine_tuned(tmp_path / "run", teacher, 1, **wider)
    assert not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match="nowhere"):
        _fine_tuned(tmp_path / "run", "nowhere", 1)
    with pytest.raises(ConfigError, match="did not start from another model"):
        _fine_tuned(teacher, "elsewhere", 2, seed=0)


def test_another_bridge_is_told(teacher, tmp_path, caplog):
    _fine_tuned(tmp_path / "run", teacher, 1, **{"bridge.beta_d": 15.0})
    assert "another bridge: config.bridge.beta_d (" in caplog.text
    command.train(
        tiny.config(seed=5, **{"train.num_steps": 2, "bridge.beta_d": 15.0}), tmp_path / "run"
    )
    meta = checkpoint.read_meta(tmp_path / "run", 2)
    assert meta[workdir.ORIGIN]["name"] == str(teacher)  # without train.init_from too


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"train.frozen": ("encoder",)},
            r"frozen=\('encoder',\) .*init_from must name a trained model",
        ),
        (
            {"train.init_from": "x", "train.init_parts": ("unet",), "train.frozen": ("encoder",)},
            "among config.train.init_parts",
        ),
        (
            {"train.init_from": "x", "train.frozen": ("encoder", "decoder", "unet")},
            "at most two of the three",
        ),
        ({"train.init_parts": ("head",)}, r"init_parts\[0\]='head' .* one of encoder, decoder"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        tiny.config(**changes)
