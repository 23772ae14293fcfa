"""Copies the latent prior and the directions of a model to a workdir with the same encoder.

Both belong to latent codes, which depend on the encoder alone. The classifier of the data set, by
which models are compared, is copied too if the model was evaluated: it depends on the data alone.
"""

import dataclasses
import logging
import pathlib

import jax

from dbae_jax.api import directions, released_weights
from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.evaluation import dataset_classifier
from dbae_jax.prior import prior
from dbae_jax.runtime import files, kept, sharding
from dbae_jax.training.optimizer import make_prior_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.workdirs import checkpoint, workdir

COPIED = "copied_from"  # key in the meta of a latent prior's checkpoint

log = logging.getLogger(__name__)


def copy(name: str, config: Config, directory: pathlib.Path, mesh: jax.sharding.Mesh) -> None:
    """Copies what a model has of the three. Nothing is copied from a model whose data differ.

    Args:
      name: the model: a workdir, a file of released weights, or the name of released weights.
      config: config of the workdir.
      directory: the workdir. Its encoder must have the weights of the model's.
      mesh: devices of the run.

    Raises:
      CheckpointError: if the workdir has the latent prior of another model.
    """
    model = DBAE.load(name, mesh=mesh)
    _check_prior(model, directory / prior.FOLDER)
    if other := workdir.differing(to_dict(model.config), config, ("data.",), where=f"in {name}"):
        log.info(
            "No latent prior, directions or classifier of %s is copied, since its data differ: %s.",
            name,
            ", ".join(other),
        )
        return
    # First, because a later start refuses a folder that has other files and no config.
    workdir.write_config(directory, config)
    _copy_classifier(name, config.data.name, directory)
    try:
        _copy_prior(model, name, config, directory / prior.FOLDER, mesh)
    except CheckpointError as error:
        log.info("No latent prior is copied. %s", error)
    try:
        _copy_directions(model, name, directory)
    except DataError as error:
        log.info("No directions of attributes are copied. %s", error)


def _check_prior(model: DBAE, folder: pathlib.Path) -> None:
    """Refuses a folder with the prior of another model, of a start that was killed early."""
    if steps := checkpoint.steps(folder):
        of = checkpoint.read_meta(folder, steps[-1]).get(prior.AUTOENCODER)
        if of != prior.identity_of(model.step, model.variables):
            raise CheckpointError(
                f"{folder} has the latent prior of another model, but its workdir has no "
                "checkpoint of the autoencoder. Delete this folder, or name another --workdir."
            )


def _copy_prior(
    model: DBAE, name: str, config: Config, folder: pathlib.Path, mesh: jax.sharding.Mesh
) -> None:
    """Writes the EMA weights of the model's latent prior as a checkpoint with a new optimizer."""
    latent_prior = model.prior
    config = dataclasses.replace(config, prior=latent_prior.config)
    whose = prior.identity_of(model.step, model.variables)
    meta = workdir.meta(config, **{prior.AUTOENCODER: whose, COPIED: name})
    optimizer = make_prior_optimizer(config)
    state = jax.jit(
        lambda variables: state_from_variables(variables, optimizer),
        out_shardings=sharding.replicated(mesh),
    )(latent_prior.variables)
    with checkpoint.Writer(folder, keep_last=1, keep_every_steps=0) as writer:
        writer.save(state, latent_prior.step, meta)
    workdir.write_config(folder, config)
    log.info("The latent prior of %s is copied, because the encoder is the same.", name)


def _copy_directions(model: DBAE, name: str, directory: pathlib.Path) -> None:
    found, data_name = model.directions, model.config.data.name
    path = directions.file_of(released_weights.find(name) / directions.CACHE, data_name)
    if path.is_file():  # with all that they depend on, so that commands need not find them anew
        identity, content = kept.load(path)
        identity |= {"encoder": model.encoder_fingerprint}
        kept.write(directions.file_of(directory / directions.CACHE, data_name), identity, content)
    else:
        directions.save(directory, data_name, model.encoder_fingerprint, found)
    log.info("The directions of %s are copied, because the encoder is the same.", name)


def _copy_classifier(name: str, data_name: str, directory: pathlib.Path) -> None:
    path = dataset_classifier.file_of(released_weights.find(name) / directions.CACHE, data_name)
    if path.is_file():
        copied = dataset_classifier.file_of(directory / directions.CACHE, data_name)
        files.write_bytes(copied, path.read_bytes())
        log.info("The classifier of %s is copied from %s.", data_name, name)
