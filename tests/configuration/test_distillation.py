"""What a distillation refuses and warns of, before anything is loaded."""

import pytest

from dbae_jax.configuration.distillation import check_overrides, warn_of_sampler
from dbae_jax.errors import ConfigError
from tests.helpers import tiny


def test_keys_that_a_distillation_sets_are_refused():
    for key, words in (
        ("train.init_from", "Set --teacher instead"),
        ("train.frozen", "a distillation sets it itself"),
        ("sample.steps", "a sampler of its own"),
    ):
        with pytest.raises(ConfigError, match=f"--config.{key} cannot be set.*{words}"):
            check_overrides(["seed", key])
    check_overrides(["seed", "distill.q", "data.data_dir", "model.dtype"])


def test_a_sampler_that_needs_the_mean_is_warned_of(caplog):
    warn_of_sampler(tiny.config(**tiny.DISTILLED))
    warn_of_sampler(tiny.config(**{"sample.sampler": "euler"}))
    assert not caplog.text
    warn_of_sampler(tiny.config(**tiny.DISTILLED | {"sample.sampler": "euler"}))
    assert "The sampler euler assumes that a U-Net predicts the mean" in caplog.text
