"""Learning-rate schedule and optax chain."""

import functools

import optax

from dbae_jax.configuration.config import Config
from dbae_jax.configuration.sections import OptimConfig


def make_schedule(
    learning_rate: float, *, schedule: str, warmup_steps: int, num_steps: int
) -> optax.Schedule:
    """Returns step -> learning rate: a linear warm-up, then constant or a cosine to 0.

    Raises:
      KeyError: for a schedule other than "constant" and "cosine".
    """
    decay_steps = max(num_steps - warmup_steps, 1)
    after = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, decay_steps),
    }[schedule]()
    if not warmup_steps:
        return after
    # From 1/warmup_steps, not 0: a first step of nothing would be wasted.
    warmup = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def make_chain(
    name: str, schedule: optax.Schedule, *, grad_clip_norm: float
) -> optax.GradientTransformation:
    """Returns clipping of the global norm (0: none) followed by RAdam or Adam.

    Source: RAdam (Liu et al., 2020), the paper's optimizer, without weight decay.
    """
    optimizer = {"radam": optax.radam, "adam": optax.adam}[name](schedule)
    clip = optax.clip_by_global_norm(grad_clip_norm) if grad_clip_norm else optax.identity()
    return optax.chain(clip, optimizer)


def make_learning_rate(config: Config) -> optax.Schedule:
    """Returns step -> learning rate."""
    # A constant rate does not depend on the length of the run.
    num_steps = 0 if config.optim.schedule == "constant" else config.train.num_steps
    return _learning_rate(config.optim, num_steps)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Returns the optax chain that the config names: for equal settings, the same object."""
    return _optimizer(
        config.optim.optimizer, make_learning_rate(config), config.optim.grad_clip_norm
    )


@functools.lru_cache
def _learning_rate(config: OptimConfig, num_steps: int) -> optax.Schedule:
    return make_schedule(
        config.learning_rate,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        num_steps=num_steps,
    )


@functools.lru_cache
def _optimizer(name: str, rate: optax.Schedule, clip: float) -> optax.GradientTransformation:
    return make_chain(name, rate, grad_clip_norm=clip)


def make_prior_optimizer(config: Config) -> optax.GradientTransformation:
    """Returns the optimizer of the latent prior, its learning rate constant."""
    schedule = optax.constant_schedule(config.prior.learning_rate)
    return make_chain(config.prior.optimizer, schedule, grad_clip_norm=0.0)
