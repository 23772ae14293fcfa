"""The initial train state, and the update of its EMA weights."""

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
    """Returns a train state at step 0 with random weights.

    The function is pure: it can be used with `jax.eval_shape`, and with `jax.jit` and shardings.
    """
    return state_from_variables(networks.init(rngs.stream(key, "init")), optimizer)


def state_from_variables(variables: dict, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns a train state at step 0 whose weights and EMA weights are the given variables."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        ema=jax.tree.map(jnp.copy, variables),
        opt_state=optimizer.init(variables["params"]),
    )


def update_ema(ema: dict, variables: dict, decay: float) -> dict:
    """Returns updated EMA weights and statistics: decay * ema + (1 - decay) * variables.

    Then the singular vectors of the spectral norms take one step of the power method on the EMA
    kernels, so that the statistics fit the EMA weights.

    Args:
      ema: EMA variables {"params", "stats"}.
      variables: raw variables {"params", "stats"} after the training step.
      decay: decay of the EMA weights.
    """

    def update(old: jax.Array, new: jax.Array) -> jax.Array:
        return (decay * old + (1 - decay) * new).astype(old.dtype)

    updated = jax.tree.map(update, ema, variables)
    stats = refresh_spectral_vectors(updated["params"], updated["stats"])
    return {"params": updated["params"], "stats": stats}
