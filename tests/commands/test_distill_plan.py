"""What a distillation costs: its plan, and the FLOPs of its summary."""

import jax
import numpy as np

from dbae_jax.commands import describe, plan
from dbae_jax.configuration import build
from dbae_jax.configuration.distillation import distilled as config_of
from dbae_jax.performance.flops import count_flops
from tests.commands.test_plan import needs_libtpu
from tests.helpers import tiny
from tests.helpers.tiny import DISTILL


@needs_libtpu
def test_the_plan_is_that_of_the_distillation():
    made = plan.make_plan(config_of(tiny.config(**DISTILL), "teacher"), "v5e:1x1")
    assert (made.num_steps, made.batch_size) == (4, 8)
    # The U-Net forward, backward (twice as much) and forward again; the others forward alone.
    assert 0.9 < made.flops / (8 * _flops_of_a_step()) < 1.3


def test_the_summary_counts_the_distillation():
    config = config_of(tiny.config(**DISTILL), "teacher")
    told = f"about {_flops_of_a_step() / 1e9:.1f} G per training step"
    assert told in describe.describe(config)


def _flops_of_a_step():
    """FLOPs for an image: the U-Net four times, and encoder and endpoint decoder once."""
    config = tiny.config()
    networks = build.make_networks(config)
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    arrays = [jax.ShapeDtypeStruct(s, np.float32) for s in ((1, 16, 16, 2), (1,), (1, 8))]
    whole = describe.forward_flops(config, networks, shapes)
    unet = count_flops(lambda v, *a: networks.network(v, *a, None), shapes, *arrays)
    return 4 * unet + (whole - unet)
