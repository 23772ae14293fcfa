"""Released weights: the EMA weights of a model, and of its latent prior, in one .safetensors file.

The file also holds the config and the directions of attributes, so nothing else is needed to use
the model. Arrays of two or more axes (kernels and directions) are float16, which halves the file;
biases, scales and statistics are float32.
"""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from dbae_jax.configs import base
from dbae_jax.configuration import build, config_files, paths
from dbae_jax.configuration.config import Config, from_dict, to_dict, upgrade
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.configuration.suggestions import did_you_mean
from dbae_jax.errors import CheckpointError, ConfigError, DataError, MissingPriorError
from dbae_jax.prior import prior
from dbae_jax.runtime import tensor_files
from dbae_jax.runtime.buckets import access

FORMAT = "dbae_jax released weights, version 1"
SUFFIX = ".safetensors"
# Keys that a file does not keep: folders of one machine, accounts, where a training began.
LEFT_OUT = {
    "data": ("data_dir", "lmdb"),
    "train": ("init_from", "init_parts", "frozen", "trackers"),
    "eval": ("weights_dir",),
}


class Released(NamedTuple):
    """The content of a file of released weights."""

    config: Config
    variables: dict  # {"params", "stats"} of the autoencoder, float32
    prior: dict | None  # {"params", "stats"} of the latent prior, float32
    steps: dict[str, int]  # training steps of "autoencoder" and "prior"
    directions: dict[str, np.ndarray]  # name of an attribute -> change [D] of z at scale 1


class Model(Protocol):
    """The parts of a model that `save` writes; `DBAE` has them."""

    config: Config
    variables: dict
    step: int | None

    @property
    def prior(self) -> prior.Prior: ...

    @property
    def directions(self) -> dict[str, np.ndarray]: ...


def folder() -> pathlib.Path:
    """Returns the folder of the weights that come with the package."""
    package = pathlib.Path(__file__).parents[1]
    checkout = package.parent / "examples" / "weights"
    return checkout if checkout.is_dir() else package / "weights"  # see setup.py


def names() -> list[str]:
    """Returns the names of the weights that come with the package."""
    return sorted(path.stem for path in folder().glob(f"*{SUFFIX}"))


def find(name: str | pathlib.Path) -> pathlib.Path:
    """Returns the workdir (a folder), or the file of released weights, that a name or path means.

    Raises:
      CheckpointError: if there is neither a workdir nor a file nor a name in the package.
    """
    try:
        path = paths.read(name, "the model", buckets=True)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    if path.is_dir():
        return path
    if access.is_bucket(path):
        raise CheckpointError(
            f"There is no workdir {path}; {paths.nearest(path)}a file of released weights must be "
            "on this machine."
        )
    if path.is_file() or paths.suffix(path) == SUFFIX:
        return _known_file(path)
    if str(name) not in names():
        raise CheckpointError(
            f"There is no workdir {name}, and no weights of this name are in the package; "
            f"{did_you_mean(str(name), names()) or paths.nearest(path)}the names are "
            f"{', '.join(names())}."
        )
    return folder() / f"{name}{SUFFIX}"


def _known_file(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of a file if it may hold released weights."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; {paths.nearest(path)}name a workdir or a file of weights."
        )
    if path.name == config_files.SAVED_NAME:
        raise CheckpointError(f"{path} is the config of a run; name its workdir, {path.parent}.")
    if paths.suffix(path) != SUFFIX:
        raise CheckpointError(
            f"{path} is neither a workdir nor a {SUFFIX} file of released weights. State dicts of "
            "PyTorch are converted with `python -m dbae_jax.convert`."
        )
    return path


def save(model: Model, path: pathlib.Path) -> None:
    """Writes the weights of a model, and its latent prior and directions if it has any.

    Raises:
      CheckpointError: if the file exists, if a value is too large for float16, or if the latent
        prior belongs to other weights or cannot be read.
    """
    steps, config, of_prior = {"autoencoder": model.step or 0}, _portable(model.config), None
    try:
        latent_prior = model.prior
    except MissingPriorError:
        pass
    else:
        steps["prior"], of_prior = latent_prior.step, latent_prior.variables
        config = dataclasses.replace(config, prior=latent_prior.config)
    try:
        found = model.directions
    except DataError:  # none have been found yet
        found = {}
    write(path, Released(config, model.variables, of_prior, steps, found))


def _portable(config: Config) -> Config:
    """Returns the config with default values for the keys of `LEFT_OUT`.

    A distilled model keeps the name of its teacher, without the folder.
    """
    values, defaults = to_dict(config), base.get_config().to_dict()
    for section, keys in LEFT_OUT.items():
        values[section] |= {key: defaults[section][key] for key in keys}
    if is_distilled(config):
        kept = ("init_from", "init_parts", "frozen")
        values["train"] |= {key: getattr(config.train, key) for key in kept}
        values["train"]["init_from"] = pathlib.Path(config.train.init_from).name
    return from_dict(values)


def write(path: pathlib.Path, released: Released) -> None:
    """Writes released weights; the file is complete or missing.

    Raises:
      CheckpointError: if the file exists, or a value is too large for float16.
    """
    if path.exists():
        raise CheckpointError(f"{path} exists already; name a new file.")
    if paths.suffix(path) != SUFFIX:
        raise CheckpointError(f"{path} must end in {SUFFIX}.")
    trees: dict[str, Any] = {"autoencoder": released.variables}
    if released.prior is not None:
        trees["prior"] = released.prior
    if released.directions:
        trees["directions"] = np.stack(list(released.directions.values()))
    values = {name: _narrowed(name, np.asarray(leaf)) for name, leaf in _named(trees).items()}
    about = {
        "format": FORMAT,
        "config": json.dumps(to_dict(released.config)),
        "steps": json.dumps(released.steps),
        "directions": json.dumps(list(released.directions)),
    }
    tensor_files.write_state_dict(path, values, about)


def read(path: pathlib.Path) -> Released:
    """Reads released weights.

    Raises:
      CheckpointError: if the file is missing, damaged, of a different kind, or does not fit its
        config.
    """
    values = tensor_files.read_state_dict(path)
    about = tensor_files.read_metadata(path)
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} does not hold released weights of this version ({FORMAT!r}). State dicts of "
            "PyTorch are converted with `python -m dbae_jax.convert`."
        )
    try:
        config = from_dict(upgrade(json.loads(about["config"])))
        attributes, steps = json.loads(about["directions"]), json.loads(about["steps"])
    except Exception as error:  # texts that are missing or no JSON, values that are no config
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} has a damaged header ({type(error).__name__}: {reason}); copy it again."
        ) from error
    key = jax.random.key(0)
    wanted = {"autoencoder": jax.eval_shape(build.make_networks(config).init, key)}
    if any(name.startswith("prior/") for name in values):
        network = build.make_latent_network(config)
        wanted["prior"] = jax.eval_shape(lambda key: prior.first_variables(network, key), key)
    if attributes:
        shape = (len(attributes), config.model.latent_dim)
        wanted["directions"] = jax.ShapeDtypeStruct(shape, np.float32)
    trees = _filled(path, wanted, values)
    return Released(
        config,
        trees["autoencoder"],
        trees.get("prior"),
        steps,
        dict(zip(attributes, trees.get("directions", ()), strict=True)),
    )


def _narrowed(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim < 2:
        return array.astype(np.float32)
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise CheckpointError(f"{name} has a value that float16 cannot hold.")
    return narrow


def _named(trees: dict[str, Any]) -> dict[str, Any]:
    """Returns the leaves of a tree by names such as "autoencoder/params/unet/.../kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _filled(path: pathlib.Path, wanted: dict[str, Any], values: dict[str, np.ndarray]) -> dict:
    """Returns the tree `wanted`, with arrays instead of shapes."""
    named = _named(wanted)
    wrong = sorted(named.keys() ^ values.keys()) + [
        name for name in named.keys() & values.keys() if named[name].shape != values[name].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit its config, first at {wrong[0]}. The file is damaged, or "
            "another version of dbae_jax wrote it: copy it again."
        )
    leaves = [np.float32(values[name]) for name in named]
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)
