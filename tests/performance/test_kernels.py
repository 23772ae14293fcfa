"""Kernels of handwritten programs with known answers, and of a small program for an absent GPU."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest

from dbae_jax.performance import hlo, kernels, memory_traffic, topology
from dbae_jax.performance.chips import CHIPS
from dbae_jax.performance.step_plan import UNTIMED

needs_cuda_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="jax's plugin for CUDA is not installed (extra: plan-gpu)",
)

PROGRAM = """
%half (q: f32[64]) -> f32[64] {
  %q = f32[64]{0} parameter(0)
  ROOT %h = f32[64]{0} negate(%q)
}

%inner (u: bf16[4,6], v: bf16[6,5]) -> f32[4,5] {
  %u = bf16[4,6]{1,0} parameter(0)
  %v = bf16[6,5]{1,0} parameter(1)
  ROOT %uv = f32[4,5]{1,0} dot(%u, %v), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%multiplied (s: bf16[4,6], t: bf16[6,5]) -> f32[4,5] {
  %s = bf16[4,6]{1,0} parameter(0)
  %t = bf16[6,5]{1,0} parameter(1)
  ROOT %st = f32[4,5]{1,0} fusion(%s, %t), kind=kLoop, calls=%inner
}

%below (i: (f32[64])) -> pred[] {
  %i = (f32[64]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%body (p: (f32[64])) -> (f32[64]) {
  %p = (f32[64]{0}) parameter(0)
  %e = f32[64]{0} get-tuple-element(%p), index=0
  %f = f32[64]{0} fusion(%e), kind=kLoop, calls=%half, metadata={op_name="jit(f)/exp"}
  ROOT %o = (f32[64]{0}) tuple(%f)
}

ENTRY %main (x: bf16[2,8,8,4], w: bf16[16,3,3,4], a: f32[7,5], b: f32[5,9]) -> f32[7,9] {
  %x = bf16[2,8,8,4]{3,2,1,0} parameter(0)
  %w = bf16[16,3,3,4]{3,2,1,0} parameter(1)
  %a = f32[7,5]{1,0} parameter(2)
  %b = f32[5,9]{1,0} parameter(3)
  %id = u32[] partition-id()
  %c = (bf16[2,4,4,16]{3,2,1,0}, u8[640]{0}) custom-call(%x, %w), window={size=3x3 stride=2x2}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", \
metadata={op_name="jit(step)/jvp(Net.__call__)/unet/unet._stage/down/conv/conv_general_dilated"}
  %y = bf16[2,4,4,16]{3,2,1,0} get-tuple-element(%c), index=0
  %d = (bf16[2,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%y, %w), window={size=3x3 stride=2x2}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %k = (bf16[16,3,3,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=3x3 stride=2x2}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %g = (bf16[4,3,3,2]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=8x5 rhs_dilate=2x2}, \
dim_labels=f01b_i01o->f01b, custom_call_target="__cudnn$convForward", \
metadata={op_name="jit(step)/transpose(jvp(Net))/up/while/body/transpose(jvp())/conv"}
  %m = (f32[7,9]{1,0}, s8[4096]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %qkv = bf16[2,32,3,8]{3,2,1,0} constant(0)
  %at = (bf16[2,32,3,8]{3,2,1,0}, u8[0]{0}) custom-call(%qkv, %qkv, %qkv), \
custom_call_target="__cudnn$fmhaSoftmax"
  %ab = (bf16[2,32,3,8]{3,2,1,0}, u8[0]{0}) custom-call(%qkv, %qkv, %qkv), \
custom_call_target="__cudnn$fmhaSoftmaxBackward"
  %s = bf16[4,6]{1,0} constant(0)
  %t = bf16[6,5]{1,0} constant(0)
  %st = f32[4,5]{1,0} fusion(%s, %t), kind=kCustom, calls=%multiplied
  %z = f32[64]{0} constant(0)
  %r = f32[64]{0} all-reduce-start(%z), replica_groups={}
  %rd = f32[64]{0} all-reduce-done(%r)
  %v = (f32[64]{0}) tuple(%rd)
  %l = (f32[64]{0}) while(%v), condition=%below, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %last = f32[64]{0} get-tuple-element(%l), index=0
  %copied = f32[64]{0} copy(%last)
  ROOT %out = f32[7,9]{1,0} get-tuple-element(%m), index=0
}
"""
X, W, Y = 2 * 8 * 8 * 4, 16 * 3 * 3 * 4, 2 * 4 * 4 * 16  # entries of the arrays of the convolution
CONVOLUTION = 2 * Y * 3 * 3 * 4
QKV = 2 * 32 * 3 * 8
FUSED_ATTENTION = 2 * (2 * 3) * 32 * 32 * 8  # FLOPs of one of its matrix products, over all heads


@pytest.fixture(scope="module")
def found():
    return kernels.find(hlo.computations(PROGRAM))


@pytest.mark.parametrize(
    ("kind", "flops", "num_bytes"),
    [
        (kernels.INPUT_GRADIENT, CONVOLUTION, 2 * (X + W + Y)),
        (kernels.KERNEL_GRADIENT, CONVOLUTION, 2 * (X + W + Y)),
        (kernels.PRODUCT, 2 * 7 * 5 * 9, 4 * (7 * 5 + 5 * 9 + 7 * 9)),  # without 4,096 of workspace
        (kernels.ATTENTION, 2 * FUSED_ATTENTION, 2 * 4 * QKV),
        (kernels.ATTENTION_GRADIENT, 5 * FUSED_ATTENTION, 2 * 4 * QKV),
        ("fusion with a matrix product", 2 * 4 * 6 * 5, 2 * (4 * 6 + 6 * 5) + 4 * 4 * 5),
        ("copy", 0, 2 * 4 * 64),
    ],
)
def test_work_of_each_kernel(found, kind, flops, num_bytes):
    (kernel,) = [k for k in found if k.kind == kind]
    assert (kernel.flops, kernel.num_bytes, kernel.runs) == (flops, num_bytes, 1)


def test_the_workspace_of_a_convolution_is_no_traffic(found):
    first = next(k for k in found if k.kind == kernels.CONVOLUTION)
    assert (first.flops, first.num_bytes) == (CONVOLUTION, 2 * (X + W + Y))


def test_a_loop_runs_its_kernels_several_times(found):
    (kernel,) = [k for k in found if k.kind == "element-wise fusion"]
    assert (kernel.flops, kernel.num_bytes, kernel.runs) == (0, 2 * 4 * 64, 3)


def test_kernels_and_collectives_together_are_all_of_the_traffic(found):
    program = hlo.computations(PROGRAM)
    of_kernels = sum(k.runs * k.num_bytes for k in found)
    assert memory_traffic.memory_bytes(program) == of_kernels + 2 * 4 * 64
    assert {k.kind for k in found}.isdisjoint({"all-reduce", "all-reduce-start", "partition-id"})


def test_products_have_the_rate_of_their_operands(found):
    formats = {k.kind: k.dtype for k in found}
    assert formats[kernels.CONVOLUTION] == "bfloat16"
    assert formats[kernels.PRODUCT] == "float32"


def test_kernels_with_a_wide_window_are_slow(found):
    assert kernels.slow(found) == [
        kernels.SlowKernel("up, backward", kernels.CONVOLUTION, "8x5", 1)
    ]


@pytest.mark.parametrize(
    ("op_name", "layer"),
    [
        (
            "jit(step)/jvp(Net.f)/unet/unet._stage/unet._block/up_3/conv/dot_general",
            "unet/up_3/conv",
        ),
        ("jit(step)/transpose(jvp(Net))/unet/conv/transpose(jvp())/conv", "unet/conv, backward"),
        ("jit(f)/transpose(jvp(A.b))/unet/attn/while/body/closed_call/mul", "unet/attn, backward"),
        ("jit(f)/jvp(checkpoint)/unet/rematted_computation/skip/add", "unet/skip"),
        ("jit(f)/mul", ""),
        ("w", ""),
    ],
)
def test_layers_have_the_names_of_the_networks(op_name, layer):
    instruction = hlo.Instruction(
        "%a", "f32[]", "add", f'%b, %c), metadata={{op_name="{op_name}"}}'
    )
    assert kernels.layer(instruction) == layer
    assert kernels.layer(instruction._replace(rest="%b, %c)")) == ""


def _kernel(**values):
    return kernels.Kernel(**{**dict.fromkeys(kernels.Kernel._fields, 0), "window": ()} | values)


def test_least_times_are_the_slowest_of_arithmetic_memory_and_launch():
    some = [
        _kernel(kind="a", flops=790 * 10**12, num_bytes=3 * 10**9, dtype="bfloat16", runs=2),
        _kernel(kind="a", flops=0, num_bytes=3 * 10**12, dtype="bfloat16", runs=1),
        _kernel(kind="b", flops=1, num_bytes=1, dtype="bfloat16", runs=5),
        _kernel(kind="c", flops=790 * 10**12, num_bytes=0, dtype="float32", runs=1),
    ]
    c, a, b = kernels.by_kind(some, CHIPS["H100"], "highest")
    assert a[:4] == ("a", 3, 2 * 790 * 10**12, 3 * 10**12 + 6 * 10**9)
    assert a.seconds == pytest.approx(2 * 1 + 1)
    assert c.seconds == pytest.approx(989 / 67)  # 67 TFLOP/s in float32, and the same part of them
    assert b.seconds == pytest.approx(5 * 3e-6)


@needs_cuda_plugin
def test_work_of_a_program_for_an_absent_gpu():
    """XLA's own text: a layer with its gradients, one of which has the window of the map."""
    device = topology.devices("h100:1")[0][0]
    on_gpu = jax.sharding.SingleDeviceSharding(device)

    def loss(x, w, m):
        with jax.named_scope("net"), jax.named_scope("conv"):
            y = jax.lax.conv_general_dilated(
                x, w, (1, 1), [(1, 2)] * 2, (2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return jnp.sum(jnp.sin(y @ m).astype(jnp.float32))

    shapes = (8, 8, 8, 32), (3, 3, 32, 64), (64, 128)
    arguments = [jax.ShapeDtypeStruct(s, jnp.bfloat16, sharding=on_gpu) for s in shapes]
    step = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    compiled = step.lower(*arguments).compile(compiler_options=UNTIMED)
    found = kernels.find(hlo.computations(compiled.as_text()))
    products = [k for k in found if k.kind == kernels.PRODUCT]
    assert sum(k.flops for k in products) == 3 * 2 * 8 * 16 * 16 * 64 * 128
    (wide,) = kernels.slow(found)
    assert wide.layer == "conv, backward"
