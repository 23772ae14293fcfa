"""Training of the latent prior: the initial train state and the training step."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dbae_jax.models.latent_net import LatentNetwork
from dbae_jax.prior import prior
from dbae_jax.prior.diffusion import LatentDiffusion
from dbae_jax.prior.prior import first_variables
from dbae_jax.runtime import rngs
from dbae_jax.workdirs.train_state import TrainState


def create_state(
    network: LatentNetwork, optimizer: optax.GradientTransformation, key: jax.Array, stats: dict
) -> TrainState:
    """Returns the initial train state of a latent prior, with random weights.

    Args:
      network: the network that estimates eps.
      optimizer: optax transformation of the gradients.
      key: random key.
      stats: {"mean": [D], "std": [D]} of the training codes.
    """
    variables = first_variables(network, rngs.stream(key, "prior_init")) | {"stats": stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        variables=variables,
        ema=jax.tree.map(jnp.copy, variables),
        opt_state=optimizer.init(variables["params"]),
    )


def make_step(
    network: LatentNetwork,
    diffusion: LatentDiffusion,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    sample_codes: bool,
) -> Callable[[TrainState, dict, jax.Array], tuple[TrainState, dict]]:
    """Returns step(state, batch, key) -> (state, metrics), to be jitted by the caller.

    The batch is {"mean": [B, D]} of q(z | x_0), with "sigma": [B, D] for stochastic codes. `key` is
    the root key of the run; the step count is folded in here. The metrics are scalars: loss,
    grad_norm, and param_norm after the step.

    Args:
      network: the network that estimates eps.
      diffusion: the latent diffusion.
      optimizer: optax transformation of the gradients.
      ema_decay: decay of the EMA weights.
      sample_codes: whether z is sampled from q(z | x_0) in every step; otherwise z is the mean.
    """

    def step(state: TrainState, batch: dict, key: jax.Array):
        key = jax.random.fold_in(key, state.step)
        z, stats = batch["mean"], state.variables["stats"]
        if sample_codes:
            z = z + batch["sigma"] * jax.random.normal(rngs.stream(key, "code"), z.shape)
        z_0 = prior.normalised(stats, z)
        t = jax.random.randint(rngs.stream(key, "t"), z.shape[:1], 0, diffusion.timesteps)
        eps = jax.random.normal(rngs.stream(key, "noise"), z.shape)

        def loss_fn(params):
            eps_fn = functools.partial(network.predict, params)
            return diffusion.loss(eps_fn, z_0, t, eps).mean()

        old_params = state.variables["params"]
        loss, grads = jax.value_and_grad(loss_fn)(old_params)
        updates, opt_state = optimizer.update(grads, state.opt_state, old_params)
        params = optax.apply_updates(old_params, updates)
        ema = optax.incremental_update(params, state.ema["params"], 1 - ema_decay)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(params),
        }
        variables, ema_variables = ({"params": p, "stats": stats} for p in (params, ema))
        return TrainState(state.step + 1, variables, ema_variables, opt_state), metrics

    return step
