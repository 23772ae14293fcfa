"""FLOPs counted on traced programs."""

import jax
import jax.numpy as jnp
import pytest

from dbae_jax.performance.flops import count_flops, repeated

A = jax.ShapeDtypeStruct((4, 4), jnp.float32)
PRODUCT = 2 * 4**3


def test_convolutions_and_products_are_those_of_the_textbook():
    def layers(x, kernel, matrix):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x, _ = jax.lax.scan(lambda c, _: (jax.jit(jnp.matmul)(c, matrix), None), x, length=3)
        return x

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 8, 8, 3), (3, 3, 3, 5), (5, 5))]
    assert count_flops(layers, *shapes) == 2 * (2 * 64 * 5 * 27) + 3 * 2 * (2 * 64 * 5 * 5)


def test_what_no_result_needs_is_not_counted():
    def product(a, b):
        jnp.tanh(a @ a)
        return jax.vjp(lambda b: a @ b, b)[1](b)  # nothing uses the value of the product itself

    assert count_flops(product, A, A) == PRODUCT


def test_of_several_platforms_the_one_with_the_most_flops_counts():
    def powers(a):
        return jax.lax.platform_dependent(a, cpu=lambda a: a @ a, default=lambda a: a @ a @ a)

    assert count_flops(powers, A) == 2 * PRODUCT


def _powers(a, lengths):
    """a times itself, once and then in loops within loops."""
    if not lengths:
        return a @ a
    iteration = lambda c, _: (_powers(c, lengths[1:]), None)  # noqa: E731
    return jax.lax.scan(iteration, a, length=lengths[0])[0]


@pytest.mark.parametrize(("lengths", "repeats"), [((), 0), ((5,), 4), ((5, 3), 14)])
def test_repeated_flops_are_those_of_all_iterations_but_the_first(lengths, repeats):
    traced = jax.jit(_powers, static_argnums=1).trace(A, lengths)
    assert repeated(traced.jaxpr.jaxpr) == repeats * PRODUCT
    assert count_flops(lambda a: _powers(a, lengths), A) == (repeats + 1) * PRODUCT
