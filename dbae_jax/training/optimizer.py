"""Learning-rate schedules and optimizers."""

import optax

from dbae_jax.configuration.config import Config


def make_schedule(
    learning_rate: float, *, schedule: str, warmup_steps: int, num_steps: int
) -> optax.Schedule:
    """Returns step -> learning rate: a linear warm-up, then constant or a cosine to 0.

    Args:
      learning_rate: learning rate after the warm-up.
      schedule: "constant" or "cosine".
      warmup_steps: number of warm-up steps; 0 for none.
      num_steps: length of the training; the cosine reaches 0 there.

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
    # The warm-up starts at learning_rate / warmup_steps: a first step at rate 0 would be wasted.
    warmup = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def make_chain(
    name: str, schedule: optax.Schedule, *, grad_clip_norm: float
) -> optax.GradientTransformation:
    """Returns gradient clipping followed by RAdam or Adam.

    Args:
      name: "radam" or "adam".
      schedule: step -> learning rate.
      grad_clip_norm: largest global norm of the gradient; 0 turns clipping off.

    Source: RAdam (Liu et al., 2020), the paper's optimizer, without weight decay.
    """
    optimizer = {"radam": optax.radam, "adam": optax.adam}[name](schedule)
    clip = optax.clip_by_global_norm(grad_clip_norm) if grad_clip_norm else optax.identity()
    return optax.chain(clip, optimizer)


def make_learning_rate(config: Config) -> optax.Schedule:
    """Returns the learning-rate schedule of a config: step -> learning rate."""
    return make_schedule(
        config.optim.learning_rate,
        schedule=config.optim.schedule,
        warmup_steps=config.optim.warmup_steps,
        num_steps=config.train.num_steps,
    )


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """Returns the optax chain that a config names."""
    section = config.optim
    return make_chain(
        section.optimizer, make_learning_rate(config), grad_clip_norm=section.grad_clip_norm
    )


def make_prior_optimizer(config: Config) -> optax.GradientTransformation:
    """Returns the optimizer of the latent prior; its learning rate is constant."""
    schedule = optax.constant_schedule(config.prior.learning_rate)
    return make_chain(config.prior.optimizer, schedule, grad_clip_norm=0.0)
