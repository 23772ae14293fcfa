"""The config of a distillation, made from the config of its teacher."""

import dataclasses

from dbae_jax.configuration.config import Config, from_dict, to_dict
from dbae_jax.sampling.plan import CONSISTENCY, Plan


def is_distilled(config: Config) -> bool:
    """Returns whether the U-Net of a model is trained to jump to the image, by distillation."""
    return config.train.objective == "consistency"


def default_sampler(config: Config) -> str:
    """Returns the sampler that a model was trained for."""
    return CONSISTENCY if is_distilled(config) else "dbim"


def distilled(config: Config, teacher: str) -> Config:
    """Returns the config of the training that distils a teacher.

    Args:
      config: checked config of the teacher, or of the distillation that resumes.
      teacher: name of the teacher.

    Raises:
      ConfigError: if the section `distill` does not go with the rest, or x_T is Gaussian.
    """
    section = config.distill
    replaced = dataclasses.replace
    whole = replaced(
        config,
        optim=replaced(
            config.optim,
            learning_rate=section.learning_rate,
            schedule=section.schedule,
            ema_decay=section.ema_decay,
        ),
        train=replaced(
            config.train,
            objective="consistency",
            tc_weight=0.0,  # of the codes, which stay as they are
            share_at_T=section.share_at_T,
            init_from=teacher,
            init_parts=("encoder", "decoder", "unet"),
            frozen=("encoder", "decoder"),
            num_steps=section.num_steps,
            batch_size=section.batch_size,
        ),
        sample=config.sample if is_distilled(config) else Plan.recommended(sampler=CONSISTENCY),
    )
    return from_dict(to_dict(whole))  # checked again
