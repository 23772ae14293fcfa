"""Linear maps from codes to what is known of images: by Adam, an epoch at a time, and closed form.

Kinds of targets [N, K], float32: "class", one 1 a row; "binary", 0 or 1 each; "real".

Source: the protocol is DiTi's and DBAE's (PyTorch's Linear and Adam, batch means).
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

Params = dict[str, jax.Array]  # {"kernel": [D, K], "bias": [K]}

# Penalties of the closed form, in units of a code's mean variance times the number of codes.
PENALTIES = tuple(10.0**power for power in range(-7, 2))


def _cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return -jnp.sum(targets * jax.nn.log_softmax(outputs), axis=-1)


def _binary_cross_entropy(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(outputs) - targets * outputs, axis=-1)


def _squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean((outputs - targets) ** 2, axis=-1)


# Kind -> loss of each example [B], from outputs and targets [B, K].
LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "class": _cross_entropy,
    "binary": _binary_cross_entropy,
    "real": _squared_error,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a probe is trained. sample: draws z from q(z | x_0) anew each time it is seen."""

    epochs: int
    batch_size: int
    learning_rate: float
    sample: bool = False


class Batch(NamedTuple):
    """Examples of a step. index: [B] into the codes; flip: [B], mirrored or not; weight: [B]."""

    index: jax.Array
    flip: jax.Array
    weight: jax.Array


def initial(dim: int, outputs: int, key: jax.Array) -> Params:
    """Draws weights as PyTorch's Linear does: uniform within 1 / sqrt(dim) of 0."""
    bound = dim**-0.5
    keys = jax.random.split(key)
    draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
    return {"kernel": draw(keys[0], (dim, outputs)), "bias": draw(keys[1], (outputs,))}


def apply(params: Params, z: jax.Array) -> jax.Array:
    """Returns outputs [N, K] of codes [N, D]."""
    return jnp.matmul(z, params["kernel"], precision="highest") + params["bias"]


def update(
    kind: str,
    recipe: Recipe,
    state: tuple[Params, Any],
    z: jax.Array,
    targets: jax.Array,
    weight: jax.Array,
) -> tuple[Params, Any]:
    """Takes one step of Adam on the weighted mean loss of a batch.

    Args:
      kind: of the targets.
      recipe: of the training.
      state: weights, and the optimizer's.
      z: [B, D].
      targets: [B, K].
      weight: [B], 1, or 0 for examples that only fill the batch up.
    """

    def loss_fn(params):
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
      kind: of the targets.
      codes: of N images.
      flipped: of the same, mirrored; then each is seen mirrored or not, at random, each time.
      targets: [N, K].
      recipe: of the training.
      seed: of first weights, order, mirroring and draws of z.
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
    """Returns the batches of an epoch, [S, B] each; the last one is filled up at weight 0."""
    steps = -(-count // size)
    index = np.zeros(steps * size, np.int32)
    index[:count] = rng.permutation(count)
    mirrored = rng.random(index.shape) < 0.5 if flip else np.zeros(index.shape, bool)
    weight = (np.arange(steps * size) < count).astype(np.float32)
    return Batch(*(a.reshape(steps, size) for a in (index, mirrored, weight)))


@functools.partial(jax.jit, static_argnames=("kind", "recipe"))
def _epoch(
    kind: str, recipe: Recipe, state: tuple, arrays: dict, batches: Batch, key: jax.Array
) -> tuple:
    def step(state, row):
        batch, number = row
        z = _drawn(recipe, arrays, batch, jax.random.fold_in(key, number))
        return update(kind, recipe, state, z, arrays["targets"][batch.index], batch.weight), None

    return jax.lax.scan(step, state, (batches, jnp.arange(len(batches.index))))[0]


def _drawn(recipe: Recipe, arrays: dict, batch: Batch, key: jax.Array) -> jax.Array:
    here = jax.tree.map(lambda a: a[batch.index], arrays["codes"])
    if "flipped" in arrays:
        there = jax.tree.map(lambda a: a[batch.index], arrays["flipped"])
        here = jax.tree.map(lambda a, b: jnp.where(batch.flip[:, None], b, a), here, there)
    if not recipe.sample:
        return here["mean"]
    return here["mean"] + here["sigma"] * jax.random.normal(key, here["mean"].shape)


def ridge(
    z: np.ndarray, targets: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> Iterator[tuple[float, Params]]:
    """Yields each penalty, and the weights that minimise |targets - outputs|^2 + penalty |w|^2.

    The bias is not penalised. Float64; one decomposition serves all penalties.

    Args:
      z: [N, D].
      targets: [N, K].
      penalties: in units of N times the mean variance of a code.
    """
    z, targets = np.float64(z), np.float64(targets)
    centre, mean = z.mean(axis=0), targets.mean(axis=0)
    values, vectors = np.linalg.eigh((z - centre).T @ (z - centre))
    values = np.maximum(values, 0)
    product = vectors.T @ ((z - centre).T @ (targets - mean))
    unit = values.mean() or 1.0
    for penalty in penalties:
        kernel = vectors @ (product / (values + penalty * unit)[:, None])
        yield penalty, {"kernel": kernel, "bias": mean - centre @ kernel}
