"""A new state of the latent prior, and its training step."""

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
    """Draws the state that training a prior starts from; `stats`: mean and std of the codes."""
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
    """Returns step(state, batch, key) -> (state, metrics), as `train_step.make_train_step`.

    The batch is {"mean"[, "sigma"]: [B, D]}; z is drawn anew every step if `sample_codes`, and
    its mean otherwise.
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

        before = state.variables["params"]
        loss, grads = jax.value_and_grad(loss_fn)(before)
        updates, opt_state = optimizer.update(grads, state.opt_state, before)
        params = optax.apply_updates(before, updates)
        ema = optax.incremental_update(params, state.ema["params"], 1 - ema_decay)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(params),
        }
        variables, averaged = ({"params": p, "stats": stats} for p in (params, ema))
        return TrainState(state.step + 1, variables, averaged, opt_state), metrics

    return step
