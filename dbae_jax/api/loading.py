"""Finds the weights of a model: in a workdir, in a file, or in the package."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np

from dbae_jax.api import directions, released_weights
from dbae_jax.configuration import build
from dbae_jax.errors import CheckpointError, DataError, MissingPriorError
from dbae_jax.prior import prior
from dbae_jax.prior.prior import Prior
from dbae_jax.runtime import sharding
from dbae_jax.workdirs import workdir


def arguments(
    name: str | pathlib.Path, weights: str, *, step: int | None, mesh: jax.sharding.Mesh | None
) -> dict[str, Any]:
    """Returns arguments of the constructor of `DBAE`: config, weights, step, source and prior.

    Args:
      name: a workdir, a file of released weights, or the name of released weights.
      weights: "ema" or "raw"; released weights are EMA weights.
      step: step of the checkpoint. None: the newest one that can be read.
      mesh: devices that hold the weights. None: one device.

    Raises:
      CheckpointError: if there are no such weights, or they cannot be read.
    """
    path = released_weights.find(name)
    if path.is_dir():
        return _of_workdir(path, weights, step, mesh)
    if weights != "ema" or step is not None:
        raise CheckpointError(
            f"{path} holds the EMA weights of one step: leave out `weights` and `step`."
        )
    return _of_file(path, mesh)


def _of_workdir(
    directory: pathlib.Path, weights: str, step: int | None, mesh: jax.sharding.Mesh | None
) -> dict[str, Any]:
    placed = None if mesh is None else sharding.replicated(mesh)
    loaded = workdir.load(directory, weights, step, sharding=placed)
    whose = {"step": loaded.step, "weights": weights}
    return {
        "config": loaded.config,
        "variables": loaded.variables,
        "networks": loaded.networks,
        "step": loaded.step,
        "source": f"{weights.replace('ema', 'EMA')} weights of {directory}",
        "load_prior": functools.partial(prior.load, directory, whose, mesh=mesh),
        "load_directions": functools.partial(directions.load, directory, loaded.config.data.name),
    }


def _of_file(path: pathlib.Path, mesh: jax.sharding.Mesh | None) -> dict[str, Any]:
    released = released_weights.read(path)
    devices = sharding.make_mesh(jax.local_devices()[:1]) if mesh is None else mesh
    everywhere = sharding.replicated(devices)

    def load_prior(*fingerprints: str) -> Prior:
        if released.prior is None:
            raise MissingPriorError(
                f"The model in {path} has no latent prior to sample from. Make a workdir of it "
                f"with python -m dbae_jax.convert --unpack={path} --workdir=DIR, and train a prior "
                "there with dbae train_prior."
            )
        network = build.make_latent_network(released.config)
        variables = sharding.replicate(released.prior, everywhere)
        return Prior(released.config, network, variables, step=released.steps["prior"], mesh=mesh)

    def load_directions(*fingerprints: str) -> dict[str, np.ndarray]:
        if not released.directions:
            raise DataError(
                f"{path} has no directions of attributes. Find them with "
                "dbae_jax.editing.directions, from latent codes and labels."
            )
        return released.directions

    return {
        "config": released.config,
        "variables": sharding.replicate(released.variables, everywhere),
        "step": released.steps["autoencoder"],
        "source": f"EMA weights in {path.name}",
        "load_prior": load_prior,
        "load_directions": load_directions,
    }
