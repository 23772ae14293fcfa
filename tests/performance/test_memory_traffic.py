"""Traffic, arguments and collectives of handwritten programs, and the traffic of a loop."""

import importlib.util

import jax
import numpy as np
import pytest

from dbae_jax.performance import hlo, memory_traffic, step_plan, topology

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra: tpu)"
)


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
        compiled = loop.lower(x, weights).compile(compiler_options=step_plan.QUICK)
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
