"""The config of a distillation, made from the config of its teacher."""

import dataclasses

from dbae_jax.configuration.config import Config
from dbae_jax.sampling.plan import CONSISTENCY, Plan


def default_sampler(config: Config) -> str:
    """Returns the sampler that a model was trained for."""
    return CONSISTENCY if config.train.objective == "consistency" else "dbim"


def distilled(config: Config, teacher: str) -> Config:
    """Returns the config of the training that distils a teacher.

    Args:
      config: checked config of the teacher.
      teacher: name of the teacher.
    """
    section = config.distill
    replaced = dataclasses.replace
    return replaced(
        config,
        optim=replaced(
            config.optim, learning_rate=section.learning_rate, ema_decay=section.ema_decay
        ),
        train=replaced(
            config.train,
            objective="consistency",
            init_from=teacher,
            init_parts=("encoder", "decoder", "unet"),
            frozen=("encoder", "decoder"),
            num_steps=section.num_steps,
            batch_size=section.batch_size,
        ),
        sample=Plan.recommended(sampler=CONSISTENCY),
    )
