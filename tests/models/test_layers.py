"""Linear maps: several of them as one matrix product."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.models.layers import Linear, linear_maps

FEATURES = (3, 5, 2)


class Several(nn.Module):
    """Linear maps of one array, joined or one after another."""

    joined: bool

    @nn.compact
    def __call__(self, x):
        maps = [Linear(4, features, name=f"map_{features}") for features in FEATURES]
        if self.joined:
            return linear_maps(x, maps)
        return [x @ m.kernel + m.bias for m in maps]


def test_several_maps_as_one_product():
    x = jax.random.normal(jax.random.key(0), (6, 4))
    weights = [jax.random.normal(jax.random.key(i), (6, f)) for i, f in enumerate(FEATURES)]
    variables = Several(joined=True).init(jax.random.key(1), x)
    shapes = {k: v["kernel"].shape for k, v in variables["params"].items()}
    assert shapes == {f"map_{features}": (4, features) for features in FEATURES}

    def loss(variables, x, joined):
        results = Several(joined=joined).apply(variables, x)
        return sum(jnp.sum(w * r) for w, r in zip(weights, results, strict=True))

    got, want = (jax.value_and_grad(loss, (0, 1))(variables, x, joined) for joined in (True, False))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
