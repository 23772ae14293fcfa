"""Converts workdirs from and to the authors' state dicts, and from and to released weights.

python -m dbae_jax.convert --checkpoint=ema.pt --config=configs/celeba.py --workdir=DIR
python -m dbae_jax.convert --prior=latent.pt --config=configs/celeba.py --workdir=DIR
python -m dbae_jax.convert --reverse --checkpoint=ema.safetensors --workdir=DIR
python -m dbae_jax.convert --pack=model.safetensors --workdir=DIR
python -m dbae_jax.convert --unpack=digits --workdir=DIR

The second command adds DiffAE's latent prior to the model in DIR, for `dbae sample`. Files are
.safetensors, or .pt with the `torch` extra; pickled code is never run.

The fourth command writes the EMA weights of the model and of its latent prior to one small file,
which `DBAE.load` reads. The last one makes a workdir of such a file, or of weights that come with
the package, for commands that need a workdir.
"""

import logging
import pathlib

import jax
import numpy as np
from absl import flags

from dbae_jax.api import directions, released_weights
from dbae_jax.api.dbae import DBAE
from dbae_jax.commands import trained_model
from dbae_jax.configuration import build, command_line, paths
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.models import torch_state_dict
from dbae_jax.models.state_dict_prefixes import without_prefixes
from dbae_jax.prior import prior
from dbae_jax.runtime import fingerprint, processes
from dbae_jax.runtime.tensor_files import check_suffix, read_state_dict, write_state_dict
from dbae_jax.training.optimizer import make_optimizer, make_prior_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.workdirs import checkpoint, workdir
from dbae_jax.workdirs.train_state import TrainState

flags.declare_key_flag("config")  # --help shows it
flags.declare_key_flag("workdir")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "State dict: a .pt or .safetensors file.")
PRIOR = flags.DEFINE_string("prior", None, "State dict of a latent prior for the model in WORKDIR.")
REVERSE = flags.DEFINE_bool("reverse", False, "Write the workdir's EMA weights to --checkpoint.")
PACK = flags.DEFINE_string("pack", None, "File for the EMA weights of model and prior.")
UNPACK = flags.DEFINE_string(
    "unpack", None, "File of released weights, or the name of weights in the package."
)

COUNTERS = "torch_counters"  # in a checkpoint's meta: batches that PyTorch's batch norms have seen
STATISTICS = {"mean": "conds_mean", "std": "conds_std"}  # of the latent codes -> DiffAE's keys

log = logging.getLogger("dbae_jax.convert")  # run as a command, __name__ is "__main__"


def to_workdir(path: pathlib.Path, config: Config, directory: pathlib.Path) -> None:
    """Writes a workdir whose raw and EMA weights are those of a state dict.

    Training can resume from the workdir, at step 0 with a new optimizer state.

    Args:
      path: .pt or .safetensors file.
      config: config of the model in the state dict.
      directory: workdir to write; must be empty or missing.

    Raises:
      CheckpointError: if the file or the folder cannot be used; nothing is written.
    """
    _check_empty(directory)
    networks = build.make_networks(config)
    shapes = jax.eval_shape(networks.init, jax.random.key(0))
    read = _read_model(path, torch_state_dict.entries(networks.module, shapes))
    variables = torch_state_dict.from_state_dict(read, networks.module, shapes)
    variables = jax.tree.map(jax.numpy.asarray, variables)
    state = state_from_variables(variables, make_optimizer(config))
    meta = workdir.meta(config, **{COUNTERS: torch_state_dict.read_counters(read)})
    _write(state, meta, config, directory)
    log.info("Converted %s to the workdir %s.", path, directory)


def prior_to_workdir(path: pathlib.Path, config: Config, directory: pathlib.Path) -> None:
    """Writes the latent prior of a state dict into the workdir of its model.

    Args:
      path: .pt or .safetensors file with the keys of DiffAE's latent network (time_embed.*,
        layers.*) and conds_mean and conds_std, the [D] mean and standard deviation of the codes.
      config: config of the model; its section "prior" must describe the network.
      directory: workdir of the model, without a latent prior.

    Raises:
      CheckpointError: if the file or the workdir cannot be used; nothing is written.
      ConfigError: if the config is not that of the model.
    """
    folder = directory / prior.FOLDER
    if folder.exists():
        raise CheckpointError(
            f"{folder} exists already; move it away to convert a different latent prior."
        )
    read = read_state_dict(path)
    model = trained_model.open_model(config, directory).model
    stats = {name: read.pop(key, np.zeros(0)) for name, key in STATISTICS.items()}
    if any(value.shape != (model.latent_dim,) for value in stats.values()):
        raise CheckpointError(
            f"{path} needs conds_mean and conds_std of shape [{model.latent_dim}]: mean and "
            "standard deviation of the latent codes that the prior was trained on."
        )
    shapes = jax.eval_shape(build.make_latent_network(config).init, jax.random.key(0))
    keys = {entry.key for entry in torch_state_dict.prior_entries(shapes)}
    read, said = without_prefixes(read, keys)
    _say(path, said)
    params = torch_state_dict.prior_from_state_dict(read, shapes)
    variables = jax.tree.map(jax.numpy.float32, {"params": params, "stats": stats})
    state = state_from_variables(variables, make_prior_optimizer(config))
    of_model = prior.identity_of(model.step, model.variables)
    _write(state, workdir.meta(config, **{prior.AUTOENCODER: of_model}), config, folder)
    log.info("Converted %s to the latent prior %s.", path, folder)


def _read_model(path: pathlib.Path, entries: list[torch_state_dict.Entry]) -> dict:
    """Returns the state dict of a file with the names of these entries."""
    read, said = without_prefixes(read_state_dict(path), {entry.key for entry in entries})
    _say(path, said)
    return read


def _say(path: pathlib.Path, sentence: str) -> None:
    if sentence:
        log.info("%s: %s", path, sentence)


def _write(state: TrainState, meta: dict, config: Config, directory: pathlib.Path) -> None:
    with checkpoint.Writer(directory, keep_last=1, keep_every_steps=0) as writer:
        writer.save(state, 0, meta)
    workdir.write_config(directory, config)


def _check_empty(directory: pathlib.Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"--workdir={directory} is not empty; name a new folder.")


def pack(directory: pathlib.Path, path: pathlib.Path) -> None:
    """Writes the EMA weights of a model, and of its latent prior if it has one, to one file.

    Args:
      directory: workdir of the model.
      path: .safetensors file to write; must not exist.

    Raises:
      CheckpointError: if the workdir cannot be read, or the file cannot be written.
    """
    model = DBAE.load(directory)
    model.save(path)
    log.info("Wrote the EMA weights of %s to %s.", model, path)


def unpack(name: str, directory: pathlib.Path) -> None:
    """Writes a workdir with the model and the latent prior of released weights.

    Training can resume from the workdir, at step 0 with a new optimizer state.

    Args:
      name: file of released weights, or the name of weights in the package.
      directory: workdir to write; must be empty or missing.

    Raises:
      CheckpointError: if the weights or the folder cannot be used; nothing is written.
    """
    _check_empty(directory)
    path = released_weights.find(name)
    if path.is_dir():
        raise CheckpointError(f"--unpack={name} is a folder, not a file of released weights.")
    config, variables, of_prior, steps, found = released_weights.read(path)
    origin = {workdir.RELEASED: path.name, "steps": steps}
    variables = jax.tree.map(jax.numpy.asarray, variables)
    state = state_from_variables(variables, make_optimizer(config))
    _write(state, workdir.meta(config, **origin), config, directory)
    if found:
        directions.save(directory, config.data.name, fingerprint.of_encoder(variables), found)
    if of_prior is not None:
        of_prior = jax.tree.map(jax.numpy.asarray, of_prior)
        state = state_from_variables(of_prior, make_prior_optimizer(config))
        meta = workdir.meta(
            config, **origin, **{prior.AUTOENCODER: prior.identity_of(0, variables)}
        )
        _write(state, meta, config, directory / prior.FOLDER)
    log.info("Wrote the weights of %s to the workdir %s.", path.name, directory)


def from_workdir(directory: pathlib.Path, path: pathlib.Path) -> None:
    """Writes the EMA weights of a workdir as a state dict.

    Args:
      directory: workdir of a model.
      path: .pt or .safetensors file to write; must not exist.

    Raises:
      CheckpointError: if the workdir cannot be read, the file exists, or the model is distilled.
    """
    if path.exists():
        raise CheckpointError(f"--checkpoint={path} exists already; name a new file.")
    check_suffix(path)
    loaded = workdir.load(directory)
    if is_distilled(loaded.config):
        raise CheckpointError(
            f"The model in {directory} is distilled: its U-Net predicts one sharp image, "
            "and not the mean of x_0 given x_t that the samplers of the authors' code need. "
            f"Convert its teacher, {loaded.config.train.init_from}, which has the same encoder "
            "and endpoint decoder."
        )
    counters = checkpoint.read_meta(directory, loaded.step).get(COUNTERS)
    written = torch_state_dict.to_state_dict(loaded.variables, loaded.networks.module, counters)
    write_state_dict(path, written)
    log.info("Wrote the EMA weights of step %d to %s.", loaded.step, path)


def main(argv: list[str]) -> None:
    """Converts the file that the flags name."""
    del argv
    files = [flag.value for flag in (CHECKPOINT, PRIOR, PACK, UNPACK) if flag.value]
    if len(files) != 1 or (REVERSE.value and not CHECKPOINT.value):
        raise ConfigError(
            "Name one file, with --checkpoint, --prior, --pack or --unpack; --reverse goes "
            "with --checkpoint alone."
        )
    directory = command_line.read_workdir()
    flag = next(flag for flag in (CHECKPOINT, PRIOR, PACK, UNPACK) if flag.value)
    path = paths.read(files[0], f"--{flag.name}")
    processes.check_devices()
    if PACK.value:
        pack(directory, path)
    elif UNPACK.value:
        unpack(UNPACK.value, directory)
    elif REVERSE.value:
        from_workdir(directory, path)
    else:
        convert = prior_to_workdir if PRIOR.value else to_workdir
        convert(path, command_line.read_config(), directory)


if __name__ == "__main__":
    command_line.run(main)
