"""Turns the authors' checkpoints into workdirs, and workdirs into the authors' checkpoints.

python -m dbae_jax.convert --checkpoint=ema.pt --config=configs/celeba.py --workdir=DIR
python -m dbae_jax.convert --reverse --checkpoint=ema.safetensors --workdir=DIR

Files are .safetensors, or .pt with the `torch` extra; no pickled code is ever run.
"""

import logging
import pathlib

import jax
from absl import flags

from dbae_jax.configuration import build, command_line
from dbae_jax.configuration.config import Config
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.models import torch_state_dict
from dbae_jax.runtime.tensor_files import check_suffix, read_state_dict, write_state_dict
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.workdirs import checkpoint, workdir

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "State dict: a .pt or .safetensors file.")
REVERSE = flags.DEFINE_bool("reverse", False, "Write the workdir's averaged weights to the file.")

COUNTERS = "torch_counters"  # in a checkpoint's meta: what batch norms counted in PyTorch

log = logging.getLogger("dbae_jax.convert")  # run as a command, __name__ is "__main__"


def to_workdir(path: pathlib.Path, config: Config, directory: pathlib.Path) -> None:
    """Writes a workdir whose raw and averaged weights are those of a state dict.

    Training goes on from there with a fresh optimizer, at step 0.

    Args:
      path: .pt or .safetensors.
      config: of the model that the state dict holds.
      directory: must be empty or missing.

    Raises:
      CheckpointError: if the file or the folder cannot be used; nothing is written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"--workdir={directory} is not empty; name a new folder.")
    read = read_state_dict(path)
    networks = build.make_networks(build.portable(config))
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    variables = torch_state_dict.from_state_dict(read, networks.module, shapes)
    variables = jax.tree.map(jax.numpy.asarray, variables)
    state = state_from_variables(variables, make_optimizer(config))
    meta = workdir.meta(config, **{COUNTERS: torch_state_dict.read_counters(read)})
    with checkpoint.Writer(directory, keep_last=1, keep_every_steps=0) as writer:
        writer.save(state, 0, meta)
    workdir.write_config(directory, config)
    log.info("Converted %s: %s holds a model that loads like any other.", path, directory)


def from_workdir(directory: pathlib.Path, path: pathlib.Path) -> None:
    """Writes a workdir's averaged weights as a state dict.

    Args:
      directory: the workdir.
      path: .pt or .safetensors; must not exist.

    Raises:
      CheckpointError: if the workdir cannot be read, or the file exists.
    """
    if path.exists():
        raise CheckpointError(f"--checkpoint={path} exists already; name a new file.")
    check_suffix(path)
    loaded = workdir.load(directory)
    counters = checkpoint.read_meta(directory, loaded.step).get(COUNTERS)
    written = torch_state_dict.to_state_dict(loaded.variables, loaded.networks.module, counters)
    write_state_dict(path, written)
    log.info("Wrote the averaged weights of step %d to %s.", loaded.step, path)


def main(argv: list[str]) -> None:
    """Converts as the flags say."""
    del argv
    if not CHECKPOINT.value:
        raise ConfigError("--checkpoint is missing; name a .pt or .safetensors file.")
    path, directory = pathlib.Path(CHECKPOINT.value), command_line.read_workdir()
    if REVERSE.value:
        from_workdir(directory, path)
    else:
        to_workdir(path, command_line.read_config(), directory)


if __name__ == "__main__":
    command_line.run(main)
