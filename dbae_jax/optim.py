"""Learning-rate schedule and optax chain."""

import optax


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


def make_optimizer(
    name: str, schedule: optax.Schedule, *, grad_clip_norm: float
) -> optax.GradientTransformation:
    """Returns clipping of the global norm (0: none) followed by RAdam or Adam.

    Source: RAdam (Liu et al., 2020), the paper's optimizer, without weight decay.
    """
    optimizer = {"radam": optax.radam, "adam": optax.adam}[name](schedule)
    clip = optax.clip_by_global_norm(grad_clip_norm) if grad_clip_norm else optax.identity()
    return optax.chain(clip, optimizer)
