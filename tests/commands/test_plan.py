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
from dbae_jax.performance import hlo, memory_traffic, topology, workloads
from dbae_jax.performance.chips import CHIPS
from dbae_jax.runtime import sharding
from dbae_jax.training import jitted_step
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import create_state
from tests.helpers import tiny

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra: tpu)"
)


SMALL = {"model.unet.attention_resolutions": (16,)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config, path = tiny.config(**SMALL), tmp_path_factory.mktemp("plan") / "plan.json"
    text = plan.plan(config, path, topology="v5e:2x2")
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
        plan.plan(tiny.config(**{"train.batch_size": batch_size}), None, topology=name)


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:4", "gpu", "gpu:0", "v5e:2x2x2x2"])
def test_errors_for_unknown_topologies_list_the_known_ones(name):
    with pytest.raises(ConfigError, match=r"v5e:4x4, v5p:2x2x4, v6e:4x4, or gpu:8"):
        topology.devices(name)


def test_gpus_that_are_not_there(monkeypatch):
    with pytest.raises(ConfigError, match=r"gpu:2 .* jax finds 0"):
        topology.devices("gpu:2")


def test_a_missing_compiler_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e .\.\[tpu\]"):
        topology.devices("v5e:2x2")


def test_a_step_that_does_not_fit_is_reported_in_one_sentence():
    message = "RESOURCE_EXHAUSTED: ... Used 31.20G of 15.75G hbm. Exceeded hbm capacity by 15.4G"
    assert "needs 31.20G of the 15.75G of a device" in plan._why_not_compiled(message, "v5e:4x4")


def test_plans_for_devices_other_than_tpus(monkeypatch):
    """FLOPs are the model's own; the counted program is from the compiler for CPUs."""
    devices = jax.devices()[:2]
    monkeypatch.setattr(topology, "devices", lambda name: (devices, CHIPS["H100"]))
    config = tiny.config(**{"train.accumulation_steps": 2})
    found = plan.make_plan(config, "gpu:2")
    assert found.flops == workloads.count(workloads.TRAIN_STEP, config) / 2
    assert found.memory_traffic_bytes > found.argument_arrays_bytes
    assert [c.kind for c in found.collectives] == ["all-reduce"]


def test_collectives_of_a_handwritten_program():
    text = """
%c (p: (s32[])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  %p = (s32[]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT, metadata={}
}

%b (p: (s32[])) -> (s32[]) {
  %l = f32[5]{0} all-reduce(%x), replica_groups={}
}

ENTRY %main (z: f32[64]) -> f32[7] {
  %a = (f32[128]{0:T(128)}, bf16[3,3]{1,0:T(8,128)(2,1)}) all-reduce(%x, %y), replica_groups={}
  %s = f32[64]{0} all-reduce-start(%z)
  %d = f32[64]{0} all-reduce-done(%s)
  %g = s32[2,2]{1,0} all-gather(%w)
  %t = (s32[]) while(%u), condition=%c, body=%b
  ROOT %n = f32[7] add(%all-reduce.1, %b)
}
"""
    assert hlo.collectives(hlo.computations(text)) == [
        hlo.Collective("all-reduce", 2 + 3, 4 * 128 + 2 * 9 + 4 * 64 + 3 * 4 * 5),
        hlo.Collective("all-gather", 1, 16),
    ]


PROGRAM = """
%limit.1 (q: (f32[4])) -> pred[] {
  %eight = s32[]{:T(128)} constant(8)
  %q = (f32[4]{0:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%q), index=1
  ROOT %less = pred[]{:T(512)} compare(%i, %eight), direction=COMPARED
}

%same.1 (a.0: f32[3,200]) -> f32[3,200] {
  %a.0 = f32[3,200]{1,0:T(8,128)} parameter(0)
  ROOT %same.2 = f32[3,200]{1,0:T(8,128)} bitcast(%a.0)
}

%f (a.1: f32[3,200], b.1: bf16[5]) -> f32[3,200] {
  %a.1 = f32[3,200]{1,0:T(8,128)} parameter(0)
  %handed = f32[3,200]{1,0:T(8,128)} fusion(%a.1), kind=kLoop, calls=%same.1
  %b.1 = bf16[5]{0} parameter(1)
  ROOT %f.1 = f32[3,200]{0,1:T(8,128)} add(%handed, %b.1)
}

%fill (row.3: f32[1,256], i.4: s32[]) -> f32[9,256] {
  %row.3 = f32[1,256]{1,0:T(1,128)} parameter(0)
  %i.4 = s32[]{:T(128)} parameter(1)
  %zero = f32[9,256]{1,0:T(8,128)} broadcast(%i.4), dimensions={}
  ROOT %filled = f32[9,256]{1,0:T(8,128)} dynamic-update-slice(%zero, %row.3, %i.4, %i.4)
}

%sorted (k.1: f32[3,200], v.1: f32[3,200]) -> (f32[3,200], f32[3,200]) {
  %k.1 = f32[3,200]{1,0:T(8,128)} parameter(0)
  %v.1 = f32[3,200]{1,0:T(8,128)} parameter(1)
  ROOT %s.1 = (f32[3,200]{1,0:T(8,128)}, f32[3,200]{1,0:T(8,128)}) sort(%k.1, %v.1), to_apply=%by
}

%away (e.1: f32[4]) -> f32[4] {
  %e.1 = f32[4]{0:T(128)} parameter(0)
  ROOT %e.2 = f32[4]{0:T(128)} negate(%e.1)
}

%g (n: f32[3,200]) -> f32[3,200] {
  %n = f32[3,200]{0,1:T(8,128)} parameter(0)
  ROOT %g.1 = f32[3,200]{0,1:T(8,128)} negate(%n)
}

%cut (b.2: f32[9,256], a.2: f32[9,256], i.2: s32[]) -> (f32[9,256], f32[1,256]) {
  %b.2 = f32[9,256]{1,0:T(8,128)} parameter(0)
  %a.2 = f32[9,256]{1,0:T(8,128)} parameter(1)
  %i.2 = s32[]{:T(128)} parameter(2)
  %same = f32[9,256]{1,0:T(8,128)} bitcast(%a.2)
  %row = f32[1,256]{1,0:T(1,128)} dynamic-slice(%same, %i.2, %i.2), dynamic_slice_sizes={1,256}
  %in = f32[9,256]{1,0:T(8,128)} dynamic-update-slice(%b.2, %row, %i.2, %i.2)
  ROOT %both = (f32[9,256]{1,0:T(8,128)}, f32[1,256]{1,0:T(1,128)}) tuple(%in, %row)
}

%body.1 (p: (f32[4])) -> (f32[4]) {
  %p = (f32[4]{0:T(128)}) parameter(0)
  %x = f32[4]{0:T(128)} get-tuple-element(%p), index=0
  ROOT %y = f32[4]{0:T(128)} add(%x, %x), metadata={op_name="a(%x)"}
}

ENTRY %main.2 (a: f32[3,200], b: bf16[5]) -> f32[4] {
  %a = f32[3,200]{1,0:T(8,128)} parameter(0)
  %b = bf16[5]{0} parameter(1)
  %near = f32[3,200]{0,1:T(8,128)S(1)} fusion(%a, %b), kind=kLoop, calls=%f
  %far = f32[3,200]{0,1:T(8,128)} fusion(%near), kind=kLoop, calls=%g
  %start = (f32[7]{0:S(1)}, f32[7]{0}, u32[]{:S(2)}) copy-start(%b)
  %done = f32[7]{0:S(1)} copy-done(%start)
  %part = ((f32[9,200]{1,0:T(8,128)}), f32[1,200]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) slice-start(%a)
  %got = f32[1,200]{1,0:T(8,128)S(1)} slice-done(%part)
  %joined = f32[9,200]{1,0:T(8,128)} custom-call(%a), custom_call_target="ConcatBitcast"
  %i.3 = s32[]{:T(128)} constant(2)
  %m = f32[9,256]{1,0:T(8,128)} bitcast(%joined)
  %cuts = (f32[9,256]{1,0:T(8,128)}, f32[1,256]{1,0:T(1,128)S(1)}) fusion(%m, %m, %i.3), calls=%cut
  %row.2 = f32[1,256]{1,0:T(1,128)} dynamic-slice(%m, %i.3, %i.3), dynamic_slice_sizes={1,256}
  %in.2 = f32[9,256]{1,0:T(8,128)} dynamic-update-slice(%m, %row.2, %i.3, %i.3)
  %full = f32[9,256]{1,0:T(8,128)} fusion(%row.2, %i.3), kind=kLoop, calls=%fill
  %pairs = (f32[3,200]{1,0:T(8,128)}, f32[3,200]{1,0:T(8,128)}) fusion(%a, %a), calls=%sorted
  %e = f32[4]{0:T(128)S(1)} copy(%done)
  %ran = ((f32[4]{0:T(128)}), f32[4]{0:T(128)}, s32[]) async-start(%e), calls=%away
  %chosen = f32[4]{0:T(128)} conditional(%i.3, %e, %e), branch_computations={%away, %away}
  %t = (f32[4]{0:T(128)}) tuple(%done)
  %w = (f32[4]{0:T(128)}) while(%t), condition=%limit.1, body=%body.1, TURNS
  ROOT %r = f32[4]{0:T(128)} get-tuple-element(%w), index=0
}
"""


@pytest.mark.parametrize(
    ("known", "compared", "trip_count"),
    [('backend_config={"known_trip_count":{"n":"5"}}', "LT", 5), ("", "LT", 8), ("", "GT", 1)],
)
def test_traffic_of_a_handwritten_program(known, compared, trip_count, caplog):
    """Covers padding, on-chip memory, trip counts, asynchronous pairs and parts of arrays."""
    a, b = 4 * 8 * 256, 2 * 5  # [3, 200] in tiles of 8 by 128
    far = 4 * 200 * 128  # the other way around: 3 lies closest and takes the room of 128
    part = 4 * 8 * 256  # of [9, 200]
    row = 4 * 256  # of [9, 256]: cut and written in a fusion, then cut, and written, by themselves
    index = 4
    add = 3 * 4 * 128
    text = PROGRAM.replace("TURNS", known).replace("COMPARED", compared)
    with caplog.at_level("WARNING", logger="dbae_jax"):
        found = memory_traffic.memory_bytes(hlo.computations(text))
    whole = 4 * 16 * 256  # of [9, 256], where no array was there to write the row into
    pairs, away = 4 * 4 * 8 * 256, 2 * 4 * 128
    once = a + b + far + 4 * 7 + part + (2 + 2 + 2) * row + index
    once += whole + row + index + pairs + 3 * away
    assert found == once + trip_count * add
    assert ("loop %w is unknown: its body counts once" in caplog.text) == (trip_count == 1)


@needs_libtpu
def test_traffic_of_a_loop_grows_with_its_trip_count():
    """Each iteration of a scan reads its part of the scanned array."""
    device = topology.devices("v5e:1x1")[0][0]
    on_chip = jax.sharding.SingleDeviceSharding(device)

    def traffic(trip_count):
        weights = jax.ShapeDtypeStruct((trip_count, 1024, 1024), np.float32, sharding=on_chip)
        x = jax.ShapeDtypeStruct((1024, 1024), np.float32, sharding=on_chip)
        loop = jax.jit(lambda x, weights: jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0])
        compiled = loop.lower(x, weights).compile(compiler_options=plan.QUICK)
        return memory_traffic.memory_bytes(hlo.computations(compiled.as_text()))

    # x is copied, its copy and a part of the weights are read, and the product is written.
    iteration = (2 + 2 + 1) * 4 * 1024**2
    assert traffic(16) - traffic(8) == pytest.approx(8 * iteration, rel=0.01)


@pytest.mark.parametrize(
    "parameters",
    [
        "  %a = f32[2,3]{1,0:T(8,128)} parameter(0)\n  %b = u8[5]{0:T(256)(4,1)} parameter(1)\n",
        "  %t = (f32[2,3]{1,0:T(8,128)}, /*index=1*/u8[5]{0:T(256)(4,1)}) parameter(0), m={}",
    ],
)
def test_arguments_of_a_handwritten_program(parameters):
    inner = "%inner (p: f32[9]) -> f32[9] {\n  %p = f32[9]{0} parameter(0)\n}\n\n"
    text = f"{inner}ENTRY %main () -> f32[] {{\n{parameters}\n}}\n"
    assert hlo.parameter_bytes(hlo.computations(text)) == 4 * 6 + 5


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


def test_peaks_depend_on_the_format():
    v5e, h100 = CHIPS["v5e"], CHIPS["H100"]
    assert v5e.peak_flops("bfloat16", "highest") == v5e.peak_flops("float32", "default") == 197e12
    assert v5e.peak_flops("float32", "high") == pytest.approx(197e12 / 3)
    assert v5e.peak_flops("float32", "highest") == pytest.approx(197e12 / 6)
    assert h100.peak_flops("float32", "default") == 495e12
    assert h100.peak_flops("float32", "high") == 495e12  # TF32, three passes or not
    assert h100.peak_flops("float32", "highest") == 67e12


@pytest.mark.parametrize(
    ("kind", "memory"),
    [
        ("NVIDIA A100-SXM4-80GB", 80e9),
        ("NVIDIA H100 80GB HBM3", 80e9),
        ("NVIDIA H200", 141e9),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GH200 480GB", None),
    ],
)
def test_figures_belong_to_exactly_the_named_gpu(kind, memory):
    if memory is None:
        with pytest.raises(ConfigError, match=r"are unknown; dbae_jax/performance/chips\.py"):
            topology.gpu_chip(kind)
    else:
        assert topology.gpu_chip(kind).memory_bytes == memory


def test_collectives_send_what_goes_around_the_ring():
    """A ring of N: an all-reduce of B bytes sends 2 (N-1)/N B, a reduce-scatter to B (N-1) B."""
    chip, nothing = (
        CHIPS["v5e"],
        dict.fromkeys((f.name for f in dataclasses.fields(plan.StepPlan)), 0),
    )

    def seconds(kind):
        some = (hlo.Collective(kind, 1, 4 * 10**9),)
        of = plan.StepPlan(**nothing | {"chip": chip, "num_chips": 4, "collectives": some})
        return of.collective_seconds * chip.interconnect / 1e9

    assert seconds("all-reduce") == pytest.approx(6)
    assert seconds("all-gather") == pytest.approx(3)
    assert seconds("reduce-scatter") == pytest.approx(12)
    assert seconds("collective-permute") == pytest.approx(4)
