"""The config of a distillation, made from the config of its teacher."""

import dataclasses
import logging
from collections.abc import Iterable

from dbae_jax.configuration.config import Config, from_dict, to_dict
from dbae_jax.errors import ConfigError
from dbae_jax.sampling.plan import CONSISTENCY, Plan

log = logging.getLogger(__name__)

# Keys that a distillation sets itself, and what to set instead.
REPLACED = {
    "optim.learning_rate": "--config.distill.learning_rate",
    "optim.schedule": "--config.distill.schedule",
    "optim.ema_decay": "--config.distill.ema_decay",
    "train.num_steps": "--config.distill.num_steps",
    "train.batch_size": "--config.distill.batch_size",
    "train.share_at_T": "--config.distill.share_at_T",
    "train.init_from": "--teacher",
}
FIXED = ("train.objective", "train.tc_weight", "train.init_parts", "train.frozen")


def is_distilled(config: Config) -> bool:
    """Returns whether the U-Net of a model is trained to jump to the image, by distillation."""
    return config.train.objective == "consistency"


def default_sampler(config: Config) -> str:
    """Returns the sampler that a model was trained for."""
    return CONSISTENCY if is_distilled(config) else "dbim"


def warn_of_sampler(config: Config) -> None:
    """Warns of a distilled model whose images another sampler is to compute."""
    if is_distilled(config) and config.sample.sampler != CONSISTENCY:
        log.warning(
            "The U-Net of this model was distilled for the sampler %s. The sampler %s assumes that "
            "a U-Net predicts the mean of images, which this one does not.",
            *(CONSISTENCY, config.sample.sampler),
        )


def check_overrides(keys: Iterable[str]) -> None:
    """Refuses keys of the command line that a distillation sets itself.

    Args:
      keys: names of keys that the command line sets, such as "train.num_steps".

    Raises:
      ConfigError: naming the key, and what to set instead.
    """
    for key in keys:
        if key in REPLACED:
            raise ConfigError(
                f"--config.{key} cannot be set for a distillation. Set {REPLACED[key]} instead."
            )
        if key in FIXED:
            raise ConfigError(
                f"--config.{key} cannot be set: a distillation sets it itself. Leave it out."
            )
        if key.startswith("sample."):
            raise ConfigError(
                f"--config.{key} cannot be set for a distillation, whose model has a sampler of "
                "its own. Set it when you decode, as in `dbae evaluate`."
            )


def distilled(config: Config, teacher: str | None = None) -> Config:
    """Returns the config of the training that distils a teacher.

    Args:
      config: checked config of the teacher, or of the distillation that resumes.
      teacher: name of the teacher; a distillation that resumes needs none.

    Raises:
      ConfigError: if the teacher is missing, the section `distill` does not go with the rest, or
        x_T is Gaussian.
    """
    if not teacher and is_distilled(config):
        teacher = config.train.init_from
    if not teacher:
        raise ConfigError(
            "--teacher is missing; name a trained model: a workdir, a file of released weights, or "
            "weights of the package such as digits. To resume a distillation, leave --config out."
        )
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
