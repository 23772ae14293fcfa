"""The training step, and diagnostics of the latent code, as pure functions of state, batch, key."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.data import images
from dbae_jax.training import consistency, frozen, losses, small_arrays
from dbae_jax.training.accumulation import accumulated_gradient
from dbae_jax.training.state import update_ema
from dbae_jax.workdirs.train_state import TrainState

Batch = dict[str, jax.Array]  # {"image": [B, H, W, C], uint8 or float in [-1, 1]}
Metrics = dict[str, jax.Array]
StepFn = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]
DiagnoseFn = Callable[[TrainState, Batch, jax.Array], Metrics]


def make_train_step(
    networks: losses.Networks,
    bridge: Bridge,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    accumulation_steps: int = 1,
    tc_weight: float = 0.0,
    share_at_T: float = 0.0,
    frozen_parts: tuple[str, ...] = (),
    gaps: consistency.Gaps | None = None,
) -> StepFn:
    """Returns train_step(state, batch, key) -> (state, metrics), to be jitted by the caller.

    The batch is the global batch. `key` is the root key of the run; the step count is folded in
    here. The metrics are scalars: loss, x_0_mse (mean squared error of the denoised images, for
    pixels in [-1, 1]), grad_norm (before clipping), and param_norm after the step.

    Args:
      networks: the networks, as functions of variables.
      bridge: schedule and scalings.
      optimizer: optax transformation of the gradients.
      ema_decay: decay of the EMA weights.
      accumulation_steps: number of microbatches that the batch is processed in, see
        `accumulation`.
      tc_weight: factor of the total correlation of the latent codes (in nats), which is added to
        the loss. If it is not 0, total_correlation is a further metric.
      share_at_T: share of the images that are denoised at t = T, see `losses.draw`.
      frozen_parts: networks that are not trained, see `frozen`.
      gaps: set the earlier times r of consistency training. None: the denoising loss is trained.
    """
    networks = frozen.freeze(networks, frozen_parts)
    gradient = _make_gradient(
        networks,
        bridge,
        accumulation_steps=accumulation_steps,
        tc_weight=tc_weight,
        loss_fn=_loss_fn(gaps),
    )

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        # The networks set their precision themselves, but custom backward passes are traced after
        # the networks return: the whole step needs the precision.
        with jax.default_matmul_precision(networks.precision):
            return step(state, batch, key)

    def step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        x_0 = images.to_float(batch["image"])
        draws = _draw(networks, bridge, x_0, jax.random.fold_in(key, state.step), share_at_T)
        if gaps is not None:
            draws = consistency.with_earlier_times(draws, bridge, gaps, state.step)

        terms, grads = gradient(state.variables, x_0, draws)
        grads = small_arrays.joined(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.variables["params"])
        params = optax.apply_updates(state.variables["params"], updates)
        variables = {"params": params, "stats": terms.stats}
        variables = frozen.keep(state.variables, variables, frozen_parts)
        ema = frozen.keep(state.ema, update_ema(state.ema, variables, ema_decay), frozen_parts)
        metrics = _metrics(terms, grads, variables["params"], tc_weight)
        return TrainState(state.step + 1, variables, ema, opt_state), metrics

    return train_step


def _metrics(terms: losses.LossTerms, grads: dict, params: dict, tc_weight: float) -> Metrics:
    metrics = {
        "loss": _objective(terms, tc_weight),
        "x_0_mse": terms.x_0_error.mean(),
        "grad_norm": small_arrays.norm(grads),
        "param_norm": small_arrays.norm(params),
    }
    if terms.total_correlation is not None:
        metrics["total_correlation"] = terms.total_correlation
    return metrics


def make_diagnose(
    networks: losses.Networks, bridge: Bridge, gaps: consistency.Gaps | None = None
) -> DiagnoseFn:
    """Returns diagnose(state, batch, key) -> metrics of the latent code, with EMA weights.

    The metrics are scalars:
      z_variance: variance of z over the batch, averaged over the D entries.
      eval_loss: the loss in evaluation mode, without dropout.
      code_gap: the loss with each image given the latent code of a different image, minus
        eval_loss, at the same times and noise. Near 0, the denoiser ignores the latent code.

    Args:
      networks: the networks, as functions of variables.
      bridge: schedule and scalings.
      gaps: see `make_train_step`; the loss is that of the training, for images that are not at T.
    """

    def diagnose(state: TrainState, batch: Batch, key: jax.Array) -> Metrics:
        x_0 = images.to_float(batch["image"])
        draws = _draw(networks, bridge, x_0, key)._replace(dropout_key=None)
        if gaps is not None:
            draws = consistency.with_earlier_times(draws, bridge, gaps, state.step)

        def loss(*, shuffle_codes: bool) -> losses.LossTerms:
            return losses.bridge_loss(
                *(networks, bridge, state.ema, x_0, draws),
                train=False,
                shuffle_codes=shuffle_codes,
                loss_fn=_loss_fn(gaps),
            )

        own = loss(shuffle_codes=False)
        shuffled = loss(shuffle_codes=True).weighted.mean()
        return {
            "z_variance": jnp.var(own.z, axis=0).mean(),
            "eval_loss": own.weighted.mean(),
            "code_gap": shuffled - own.weighted.mean(),
        }

    return diagnose


def _make_gradient(
    networks: losses.Networks,
    bridge: Bridge,
    *,
    accumulation_steps: int,
    tc_weight: float,
    loss_fn: losses.LossFn,
) -> Callable[[dict, jax.Array, losses.Draws], tuple[losses.LossTerms, dict]]:
    """Returns gradient(variables, x_0, draws) -> (loss terms, gradient of the mean loss)."""

    def gradient(variables, x_0, draws):
        if accumulation_steps > 1:
            return accumulated_gradient(
                *(networks, bridge, variables, x_0, draws, accumulation_steps),
                tc_weight=tc_weight,
                loss_fn=loss_fn,
            )

        def objective(params):
            full = {"params": params, "stats": variables["stats"]}
            terms = losses.bridge_loss(
                *(networks, bridge, full, x_0, draws),
                train=True,
                with_total_correlation=tc_weight > 0,
                loss_fn=loss_fn,
            )
            return _objective(terms, tc_weight), terms

        grads, terms = jax.grad(objective, has_aux=True)(variables["params"])
        return terms, grads

    return gradient


def _loss_fn(gaps: consistency.Gaps | None) -> losses.LossFn:
    return losses.denoising_loss if gaps is None else consistency.consistency_loss


def _objective(terms: losses.LossTerms, tc_weight: float) -> jax.Array:
    loss, correlation = terms.weighted.mean(), terms.total_correlation
    return loss if correlation is None else loss + tc_weight * correlation


def _draw(
    networks: losses.Networks,
    bridge: Bridge,
    x_0: jax.Array,
    key: jax.Array,
    share_at_T: float = 0.0,
) -> losses.Draws:
    return losses.draw(key, x_0.shape, networks.latent_dim, bridge, share_at_T=share_at_T)
