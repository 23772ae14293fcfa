"""Drawing a state of training, and moving its averages."""

import jax
import jax.numpy as jnp
import optax

from dbae_jax.models.autoencoder import Networks
from dbae_jax.models.decoder import refresh_spectral_vectors
from dbae_jax.runtime import rngs
from dbae_jax.workdirs.train_state import TrainState


def create_state(
    networks: Networks, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """Draws a new state; pure, so `jax.eval_shape` and `jit` with shardings work on it."""
    return state_from_variables(networks.init(rngs.stream(key, "init")), optimizer)


def state_from_variables(variables: dict, optimizer: optax.GradientTransformation) -> TrainState:
    """Starts at step 0 from given weights, which are the first average too."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        ema=jax.tree.map(jnp.copy, variables),
        opt_state=optimizer.init(variables["params"]),
    )


def update_ema(ema: dict, variables: dict, decay: float) -> dict:
    """Moves the averages: decay * average + (1 - decay) * raw, of weights and statistics alike.

    The singular vectors of the spectral norms then take a step of the power method on the
    averaged kernels, so that the statistics belong to the averaged weights.
    """

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        return (decay * old + (1 - decay) * new).astype(old.dtype)

    averaged = jax.tree.map(average, ema, variables)
    stats = refresh_spectral_vectors(averaged["params"], averaged["stats"])
    return {"params": averaged["params"], "stats": stats}
