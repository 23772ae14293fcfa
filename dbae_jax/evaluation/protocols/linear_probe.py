"""Trains linear probes, which predict known values of images from their latent codes.

A probe is trained with Adam or computed in closed form (ridge regression). Targets [N, K] are
float32 and have one of three kinds: "class" (one-hot rows), "binary" (0 or 1) or "real".

Source: the training follows the protocol of DiTi and DBAE, with PyTorch's Linear and Adam.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dbae_jax.data.codes import Codes

Params = dict[str, Any]  # arrays of jax or numpy: {"kernel": [D, K], "bias": [K]}

# Penalties of ridge regression, in units of N times the mean variance of a code's dimensions.
PENALTIES = tuple(10.0**power for power in range(-7, 2))


def _cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return -jnp.sum(targets * jax.nn.log_softmax(outputs), axis=-1)


def _binary_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(outputs) - targets * outputs, axis=-1)


def _squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean((outputs - targets) ** 2, axis=-1)


# Kind of targets -> loss of each example [B], computed from outputs and targets [B, K].
LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "class": _cross_entropy,
    "binary": _binary_cross_entropy,
    "real": _squared_error,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a probe is trained.

    Attributes:
      epochs: number of epochs.
      batch_size: codes per batch.
      learning_rate: learning rate of Adam.
      sample: whether each step samples z from q(z | x_0); otherwise z is the mean.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    sample: bool = False


class Batch(NamedTuple):
    """The examples of one step, or of all steps [S, B] of an epoch.

    Attributes:
      rows: rows of the examples in the arrays of codes, [B].
      flip: whether the code of the mirrored image is used, [B].
      weight: weight of each example in the loss, [B].
    """

    rows: jax.Array
    flip: jax.Array
    weight: jax.Array


def initial(dim: int, outputs: int, key: jax.Array) -> Params:
    """Returns random weights as in PyTorch's Linear, uniform within 1 / sqrt(dim) of 0.

    Args:
      dim: latent dimension D.
      outputs: number of outputs K.
      key: random key.
    """
    bound = dim**-0.5
    keys = jax.random.split(key)
    draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
    return {"kernel": draw(keys[0], (dim, outputs)), "bias": draw(keys[1], (outputs,))}


def apply(params: Params, z: jax.Array) -> jax.Array:
    """Returns the outputs [N, K] of a probe for codes [N, D]."""
    return jnp.matmul(z, params["kernel"], precision="highest") + params["bias"]


def update(
    kind: str,
    recipe: Recipe,
    state: tuple[Params, Any],
    z: jax.Array,
    targets: jax.Array,
    weight: jax.Array,
) -> tuple[Params, Any]:
    """Returns weights and optimizer state after one step of Adam on the weighted mean loss.

    Args:
      kind: kind of the targets.
      recipe: settings of the training.
      state: weights and optimizer state.
      z: latent codes [B, D].
      targets: targets [B, K].
      weight: weights [B] of the examples: 1, or 0 for examples that only pad the batch.
    """

    def loss_fn(params: Params) -> jax.Array:
        losses = LOSSES[kind](apply(params, z), targets)
        return jnp.sum(weight * losses) / jnp.sum(weight)

    params, moments = state
    grads = jax.grad(loss_fn)(params)
    updates, moments = optax.adam(recipe.learning_rate).update(grads, moments)
    return optax.apply_updates(params, updates), moments


def train(
    kind: str,
    codes: Codes,
    flipped: Codes | None,
    targets: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
) -> Iterator[Params]:
    """Yields the weights after each epoch.

    Args:
      kind: kind of the targets.
      codes: latent codes of N images.
      flipped: latent codes of the mirrored images, or None. If they are given, each step chooses
        at random between the codes of an image and of its mirror image.
      targets: targets [N, K].
      recipe: settings of the training.
      seed: seed of the initial weights, the order, the mirroring and the samples of z.
    """
    arrays = jax.tree.map(jnp.asarray, {"codes": codes.at(np.arange(len(targets)))})
    if flipped is not None:
        arrays["flipped"] = jax.tree.map(jnp.asarray, flipped.at(np.arange(len(targets))))
    arrays["targets"] = jnp.asarray(targets, jnp.float32)
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    params = initial(codes.mean.shape[1], targets.shape[1], jax.random.fold_in(key, recipe.epochs))
    state = params, optax.adam(recipe.learning_rate).init(params)
    for epoch in range(recipe.epochs):
        batches = _batches(len(targets), recipe.batch_size, rng, flip=flipped is not None)
        state = _epoch(kind, recipe, state, arrays, batches, jax.random.fold_in(key, epoch))
        yield state[0]


def _batches(count: int, size: int, rng: np.random.Generator, *, flip: bool) -> Batch:
    """Returns the batches [S, B] of an epoch; padding in the last batch has the weight 0."""
    steps = -(-count // size)
    rows = np.zeros(steps * size, np.int32)
    rows[:count] = rng.permutation(count)
    mirrored = rng.random(rows.shape) < 0.5 if flip else np.zeros(rows.shape, bool)
    weight = (np.arange(steps * size) < count).astype(np.float32)
    return Batch(*(jnp.asarray(a.reshape(steps, size)) for a in (rows, mirrored, weight)))


@functools.partial(jax.jit, static_argnames=("kind", "recipe"))
def _epoch(
    kind: str,
    recipe: Recipe,
    state: tuple[Params, Any],
    arrays: dict[str, Any],
    batches: Batch,
    key: jax.Array,
) -> tuple[Params, Any]:
    """Returns weights and optimizer state after all batches of an epoch."""

    def step(
        state: tuple[Params, Any], inputs: tuple[Batch, jax.Array]
    ) -> tuple[tuple[Params, Any], None]:
        batch, number = inputs
        z = _codes(recipe, arrays, batch, jax.random.fold_in(key, number))
        return update(kind, recipe, state, z, arrays["targets"][batch.rows], batch.weight), None

    return jax.lax.scan(step, state, (batches, jnp.arange(len(batches.rows))))[0]


def _codes(recipe: Recipe, arrays: dict[str, Any], batch: Batch, key: jax.Array) -> jax.Array:
    """Returns the latent codes [B, D] of a batch, sampled or their means."""
    chosen = jax.tree.map(lambda a: a[batch.rows], arrays["codes"])
    if "flipped" in arrays:
        mirrored = jax.tree.map(lambda a: a[batch.rows], arrays["flipped"])
        chosen = jax.tree.map(lambda a, b: jnp.where(batch.flip[:, None], b, a), chosen, mirrored)
    if not recipe.sample:
        return chosen["mean"]
    return chosen["mean"] + chosen["sigma"] * jax.random.normal(key, chosen["mean"].shape)


def ridge(
    z: np.ndarray, targets: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> Iterator[tuple[float, Params]]:
    """Yields each penalty with the weights that minimise |targets - outputs|^2 + penalty |w|^2.

    The bias has no penalty. The weights are float64. One eigendecomposition serves all penalties.

    Args:
      z: latent codes [N, D].
      targets: targets [N, K].
      penalties: penalties in units of N times the mean variance of a code's dimensions.
    """
    z, targets = np.asarray(z, np.float64), np.asarray(targets, np.float64)
    centre, mean = z.mean(axis=0), targets.mean(axis=0)
    values, vectors = np.linalg.eigh((z - centre).T @ (z - centre))
    values = np.maximum(values, 0)
    product = vectors.T @ ((z - centre).T @ (targets - mean))
    unit = values.mean() or 1.0
    for penalty in penalties:
        kernel = vectors @ (product / (values + penalty * unit)[:, None])
        yield penalty, {"kernel": kernel, "bias": mean - centre @ kernel}
