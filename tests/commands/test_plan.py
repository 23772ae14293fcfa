"""Plans of a small config for devices that this machine does not have, and independent counts."""

import dataclasses
import importlib.util
import json
import math

import jax
import numpy as np
import pytest

from dbae_jax.commands import plan
from dbae_jax.configuration import build
from dbae_jax.errors import ConfigError
from dbae_jax.performance import hlo, kernels, step_plan, topology, workloads
from dbae_jax.performance.chips import CHIPS
from dbae_jax.runtime import sharding
from dbae_jax.training import jitted_step
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import create_state
from tests.helpers import tiny

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra: tpu)"
)

needs_cuda_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="jax's plugin for CUDA is not installed (extra: plan-gpu)",
)

SMALL = {"model.unet.attention_resolutions": (16,)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config, path = tiny.config(**SMALL), tmp_path_factory.mktemp("plan") / "plan.json"
    text = plan.plan(config, topology="v5e:2x2", json_path=path)
    return config, text, json.loads(path.read_text())


def _shapes(config):
    """The state's arrays, as shapes."""
    networks, optimizer = build.make_networks(config), make_optimizer(config)
    return jax.eval_shape(lambda key: create_state(networks, optimizer, key), jax.random.key(0))


def _num_bytes(tree):
    return sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@needs_libtpu
def test_memory_is_that_of_the_state_and_the_images(made):
    config, text, values = made
    # The whole state, also the vectors v of the spectral norms, which a step does not read.
    state, images, key = _num_bytes(_shapes(config)), 16 * 16 * 16 // 4, 8
    assert values["argument_arrays_bytes"] == state + images + key
    # In device memory, the last axis of 32 channels is padded to at most 128.
    assert state + images + key <= values["argument_bytes"] < 4 * (state + images + key)
    assert values["argument_bytes"] - values["donated_bytes"] < 32 * images
    assert values["peak_bytes"] >= values["argument_bytes"]
    assert values["fits"] and " of 16 GiB: fits" in text
    assert values["num_chips"] == 4


@needs_libtpu
def test_one_gradient_is_reduced_over_the_chips(made):
    config, _, values = made
    weights = _num_bytes(_shapes(config).variables["params"])
    assert [c["kind"] for c in values["collectives"]] == ["all-reduce"]
    reduced = values["collectives"][0]["num_bytes"]
    # In addition to the gradient: statistics of the batch norms, forward and back, and the metrics.
    assert weights <= reduced < 1.01 * weights


@needs_libtpu
def test_the_roofline_adds_up(made):
    _, text, values = made
    chip = CHIPS["v5e"]
    slower = max(values["flops"] / 197e12, values["memory_traffic_bytes"] / 819e9)
    # Without on-chip memory, both count the same arrays, except the unread parts of slices.
    assert values["memory_traffic_bytes"] == pytest.approx(values["bytes_accessed"], rel=0.1)
    sent = 2 * 3 / 4 * values["collectives"][0]["num_bytes"]
    assert values["step_seconds"] == pytest.approx(slower + sent / chip.interconnect)
    assert values["hours"] == pytest.approx(values["step_seconds"] * 4 / 3600)
    assert values["num_images"] == 4 * 16
    assert values["flops"] > 3 * 4 * 1e6
    assert f"{1e3 * values['step_seconds']:.1f} ms, bound by " in text


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "batch_size", "sentence"),
    [
        ("v5e:3x5", 16, "is not known to libtpu"),
        ("v5e:2x2", 18, "16 or 20"),
    ],
)
def test_errors_of_the_compiler_are_one_sentence(name, batch_size, sentence):
    with pytest.raises(ConfigError, match=sentence):
        plan.plan(tiny.config(**{"train.batch_size": batch_size}), topology=name)


@pytest.mark.parametrize("number", [1, 2])
@needs_cuda_plugin
def test_a_plan_for_gpus_that_are_not_there(number, tmp_path):
    config = tiny.config(
        **{
            "train.batch_size": 8 * number,
            "model.dtype": "bfloat16",
            # The compiler refuses operations that it has no deterministic form of.
            "train.deterministic": number == 1,
        }
    )
    path = tmp_path / "plan.json"
    text = plan.plan(config, topology=f"h100:{number}", json_path=path)
    values = json.loads(path.read_text())
    kinds, collectives = values["kernels"], values["collectives"]
    assert f"h100:{number}, {number} x H100 " in text and " of 75 GiB: fits" in text

    shapes = _shapes(config)
    weights = _num_bytes(shapes.variables["params"])
    images, key = 8 * 16 * 16, 8
    assert values["argument_arrays_bytes"] == pytest.approx(_num_bytes(shapes) + images + key, 0.01)
    assert values["argument_bytes"] <= values["peak_bytes"] < 2**30

    # Executed products: those of the model, and some of them twice in the backward pass.
    of_model = workloads.count(workloads.TRAIN_STEP, config) / number
    assert of_model < 1.05 * values["flops"] < 2 * of_model
    assert values["flops"] == sum(kind["flops"] for kind in kinds)
    assert all(kind["seconds"] >= 2.99e-6 * kind["count"] for kind in kinds)
    assert values["kernel_seconds"] == pytest.approx(sum(kind["seconds"] for kind in kinds))
    names = [kind["kind"] for kind in kinds]
    assert {"convolution", "convolution: gradient of the weights", "matrix product"} < {*names}
    assert all(name in text for name in names)

    # Gradients in bfloat16 or float32, and statistics.
    reduced = sum(c["num_bytes"] for c in collectives)
    assert [c["kind"] for c in collectives] == ["all-reduce"] * (number - 1)
    assert (number - 1) * weights / 2 <= reduced <= (number - 1) * 1.05 * weights
    of_collectives = values["memory_traffic_bytes"] - sum(kind["num_bytes"] for kind in kinds)
    assert of_collectives == pytest.approx(2 * reduced, rel=0.01)

    seconds = values["kernel_seconds"] + reduced / CHIPS["H100"].interconnect  # 2 (N-1)/N is 1
    assert values["step_seconds"] == pytest.approx(seconds)
    assert values["images_per_second"] == pytest.approx(8 * number / seconds)
    assert values["hours"] == pytest.approx(4 * seconds / 3600)


@needs_cuda_plugin
def test_full_effort_needs_the_gpus():
    with pytest.raises(ConfigError, match=r"needs the GPUs.*Leave out --effort"):
        plan.plan(tiny.config(), topology="h100:1", effort="full")


def test_the_table_names_slow_kernels():
    values = dict.fromkeys((f.name for f in dataclasses.fields(step_plan.StepPlan)), 0)
    values |= {"chip": CHIPS["H100"], "num_chips": 1, "collectives": (), "batch_size": 60}
    values["kernels"] = (
        kernels.KernelKind("convolution", 2, 4 * 10**12, 10**9, 0.02),
        kernels.KernelKind("copy", 7, 0, 3 * 10**9, 0.01),
    )
    values["slow_kernels"] = (kernels.SlowKernel("unet/up, backward", "convolution", "8x8", 2),)
    text = plan.as_table(step_plan.StepPlan(**values | {"flops": 4 * 10**12, "num_steps": 360_000}))
    rows = [line.split() for line in text.splitlines()]
    assert ["sum", "9", "4.000", "4.00", "30.00"] in rows
    assert "2000 images/s and 3.0 hours at best" in text
    assert "no fast implementation exists for 2 kernels" in text
    assert text.endswith("convolution with a window of 8x8, 2 times: unet/up, backward")
    values["slow_kernels"] = ()
    assert "WARNING" not in plan.as_table(step_plan.StepPlan(**values))


def test_a_missing_cudnn_is_reported_with_its_package():
    for message in ("cuDNN not found.", "cuDNN is not detected."):
        sentence = step_plan._why_not_compiled(message, "h100:8")
        assert "pip install nvidia-cudnn-cu13" in sentence


def test_a_step_that_does_not_fit_is_reported_in_one_sentence():
    message = "RESOURCE_EXHAUSTED: ... Used 31.20G of 15.75G hbm. Exceeded hbm capacity by 15.4G"
    assert "needs 31.20G of the 15.75G of a device" in step_plan._why_not_compiled(
        message, "v5e:4x4"
    )


def test_plans_for_devices_other_than_tpus(monkeypatch):
    """The counted program is from the compiler for CPUs."""
    devices = jax.devices()[:2]
    monkeypatch.setattr(topology, "devices", lambda name: (devices, CHIPS["H100"]))
    config = tiny.config(**{"train.accumulation_steps": 2})
    found = step_plan.make_plan(config, "gpu:2")
    assert found.flops == sum(kind.flops for kind in found.kernels)
    assert found.memory_traffic_bytes > found.argument_arrays_bytes
    assert [c.kind for c in found.collectives] == ["all-reduce"]


def test_the_step_is_the_one_that_trains():
    """The same function and shapes run on real devices."""
    config = tiny.config()
    mesh = sharding.make_mesh(jax.devices()[:2])
    training = jitted_step.make_training(config, mesh)
    arguments = jitted_step.abstract_arguments(config, mesh)
    compiled = training.train_step.lower(*arguments).compile()
    everywhere = sharding.replicated(mesh)
    key = jax.device_put(jax.random.key(0), everywhere)
    state = jax.jit(training.init, out_shardings=everywhere)(key)
    batch = sharding.to_global(mesh, {"image": tiny.images(16)})
    state, metrics = compiled(state, batch, key)
    assert int(state.step) == 1 and np.isfinite(float(metrics["loss"]))


def test_collectives_send_what_goes_around_the_ring():
    """A ring of N: an all-reduce of B bytes sends 2 (N-1)/N B, a reduce-scatter to B (N-1) B."""
    chip, nothing = (
        CHIPS["v5e"],
        dict.fromkeys((f.name for f in dataclasses.fields(step_plan.StepPlan)), 0),
    )

    def seconds(kind):
        some = (hlo.Collective(kind, 1, 4 * 10**9),)
        of = step_plan.StepPlan(**nothing | {"chip": chip, "num_chips": 4, "collectives": some})
        return of.collective_seconds * chip.interconnect / 1e9

    assert seconds("all-reduce") == pytest.approx(6)
    assert seconds("all-gather") == pytest.approx(3)
    assert seconds("reduce-scatter") == pytest.approx(12)
    assert seconds("collective-permute") == pytest.approx(4)
