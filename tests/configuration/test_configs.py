"""The installed configs: each is valid, and those for people have the sizes that the docs state."""

import importlib

import jax
import pytest
from dbae_jax.configs import celebahq, celebahq256, emoji, emoji32, ffhq256, folder32, folder64

from dbae_jax.configuration import build, config_files
from dbae_jax.configuration.config import from_config_dict

# Config -> millions of parameters, as docs/reference/data_sets.md and docs/performance/ state them.
SIZES = {"folder32": 2.3, "folder64": 22.5, "folder128": 33.7, "folder": 120.6, "ffhq256": 201.1}


@pytest.mark.parametrize("name", config_files.names())
def test_every_installed_config_is_valid(name):
    config = from_config_dict(config_files.load(config_files.resolve(name)))
    build.make_networks(config)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    module = importlib.import_module(f"dbae_jax.configs.{name}")
    networks = build.make_networks(from_config_dict(module.get_config()))
    params = jax.eval_shape(networks.init, jax.random.key(0))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6 == pytest.approx(
        SIZES[name], abs=0.05
    )


def _config(module):
    return from_config_dict(module.get_config())


def test_configs_share_what_their_files_say():
    assert _config(folder32).model == _config(emoji32).model
    assert _config(folder32).train == _config(emoji32).train
    assert _config(emoji).model == _config(folder64).model
    assert _config(emoji).train.batch_size == _config(folder64).train.batch_size
    assert _config(emoji).eval == _config(emoji32).eval
    hq, faces = _config(celebahq256), _config(ffhq256)
    assert (hq.model, hq.optim, hq.train) == (faces.model, faces.optim, faces.train)
    assert hq.data.name == "celebahq" and hq.data.image_size == faces.data.image_size == 256
    assert hq.data.test_split == _config(celebahq).data.test_split


def test_models_at_256_pixels_have_the_published_widths():
    """As DiffAE's and DDBM's models of this size."""
    config = _config(ffhq256)
    unet, encoder = config.model.unet, config.model.encoder
    assert (unet.base_channels, unet.channel_mult) == (128, (1, 1, 2, 2, 4, 4))
    assert (encoder.base_channels, encoder.channel_mult) == (128, (1, 1, 2, 2, 4, 4, 4))
    assert unet.attention_resolutions == (32, 16, 8) and encoder.attention_resolutions == (16,)
    assert config.train.batch_size == 64
    assert (config.optim.learning_rate, config.optim.ema_decay) == (1e-4, 0.9999)
