"""Trees of many small arrays: joining them and their norm, in the forms for all platforms."""

import jax
import numpy as np
import optax
import pytest

from dbae_jax.training import small_arrays


@pytest.fixture
def tree():
    shapes = {"kernel": (3, 3, 40, 60), "bias": (60,), "norm": {"scale": (7,), "shift": (7, 2)}}
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [jax.random.normal(k, s) for k, s in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_values_and_norms_are_those_of_the_tree(tree, on_gpu, monkeypatch):
    if on_gpu:
        monkeypatch.setattr(small_arrays, "by_gpu", lambda on_cuda, _, *args: on_cuda(*args))
    jax.tree.map(np.testing.assert_array_equal, small_arrays.joined(tree), tree)
    want = optax.tree.norm(tree)
    np.testing.assert_allclose(small_arrays.norm(tree), want, rtol=1e-6)
    only_large = {"kernel": tree["kernel"]}
    want = optax.tree.norm(only_large)
    np.testing.assert_allclose(small_arrays.norm(only_large), want, rtol=1e-6)
