"""Distils a trained model: its U-Net learns to decode sharp images in one or two evaluations."""

import pathlib

from dbae_jax.api import released_weights
from dbae_jax.commands import train
from dbae_jax.configuration import paths
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.distillation import distilled
from dbae_jax.errors import ConfigError
from dbae_jax.workdirs import checkpoint
from dbae_jax.workdirs.train_state import TrainState


def distill(config: Config, directory: pathlib.Path, teacher: str | None = None) -> TrainState:
    """Trains until `config.distill.num_steps`, or resumes.

    The new model keeps encoder and endpoint decoder of its teacher, bit for bit. So latent codes,
    probes, directions and the latent prior of the teacher are those of the new model too.

    Args:
      config: checked config of the teacher, or of the distillation; its section `distill` applies.
      directory: the workdir of the new model, made if missing.
      teacher: a workdir, a file of released weights, or the name of weights in the package. A
        distillation that resumes needs none.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: if no teacher is named, or it is the workdir itself.
      CheckpointError: if the teacher does not exist.
      DBAEError: as `train.train` raises.
    """
    config = distilled(config, teacher)
    teacher = config.train.init_from
    # Also for the name of weights in the package, which a later start would take for the workdir.
    if paths.read(teacher, "--teacher", buckets=True).resolve() == directory.resolve():
        raise ConfigError(
            f"--teacher={teacher} is the workdir itself; name another --workdir for the new model."
        )
    if not checkpoint.steps(directory):  # a distillation that resumes needs no teacher
        released_weights.find(teacher)  # or says that it is missing, before any long work
    return train.train(config, directory)
