"""Finds and loads config files: a file of the user, of a workdir, or of the installed package.

A config file is a Python file with a function `get_config() -> ConfigDict`. With
--config=FILE:ARGUMENT it is called as `get_config(argument)`. The config file saved_config.py loads
the config.json of a workdir; its argument is the path.
"""

import importlib.util
import pathlib
import runpy
import sys

from ml_collections import ConfigDict

from dbae_jax.configuration import paths
from dbae_jax.configuration.suggestions import did_you_mean
from dbae_jax.errors import ConfigError
from dbae_jax.runtime.buckets import access

PACKAGE = "dbae_jax.configs"  # the repository's folder configs/, see setup.py
SAVED_NAME = "config.json"  # in a workdir
SAVED_LOADER = pathlib.Path(__file__).with_name("saved_config.py")


def resolve(value: str) -> str:
    """Returns the value of --config with the path of the file instead of a name.

    Args:
      value: a file such as "configs/ffhq.py" or "runs/digits/config.json", or the name of an
        installed config, "ffhq" or "paper/generation". A Python file and a name may end with
        ":ARGUMENT".

    Raises:
      ConfigError: if there is no such file and no such config.
    """
    name, colon, argument = value.partition(":")
    # The argument of a Python file may look like anything, such as a URL.
    whole = paths.read(name if paths.suffix(name) == ".py" else value, "--config", buckets=True)
    if whole.name.lower() == SAVED_NAME:
        if not whole.is_file():
            hint = paths.nearest(whole)
            raise ConfigError(f"--config={value} does not exist; {hint}name a file.")
        return f"{SAVED_LOADER}:{whole}"
    if (whole / SAVED_NAME).is_file():
        raise ConfigError(f"--config={value} is a workdir; write --config={whole / SAVED_NAME}.")
    if access.is_bucket(whole):
        raise ConfigError(
            f"--config={value} is in a bucket, where only the {SAVED_NAME} of a workdir is read; "
            "copy the file to this machine."
        )
    path = paths.read(name, "--config")
    if not path.is_file():
        installed = folder() / f"{name}.py"
        if not installed.is_file() or path.suffix:
            raise ConfigError(
                f"--config={value} does not exist: it is neither a file nor the name of an "
                f"installed config; {did_you_mean(name, names()) or paths.nearest(path)}name a "
                f"file, or one of {', '.join(names())}."
            )
        path = installed
    return f"{path}{colon}{argument}"


def display(value: str) -> str:
    """Returns the value of --config as a user types it, for a resolved value."""
    name, colon, argument = value.partition(":")
    path = pathlib.Path(name)
    if path == SAVED_LOADER:
        return argument
    if path.is_absolute() and path.is_relative_to(folder()):
        name = path.relative_to(folder()).with_suffix("").as_posix()
    return f"{name}{colon}{argument}"


def load(value: str) -> ConfigDict:
    """Runs a config file and returns its config.

    Args:
      value: resolved value of --config.

    Raises:
      ConfigError: if the file fails or has no `get_config`.
    """
    name, _, argument = value.partition(":")
    _add_folder(pathlib.Path(name))
    try:
        get_config = runpy.run_path(name).get("get_config")
        if get_config is not None:
            return get_config(argument) if argument else get_config()
    except Exception as error:  # a config file may raise anything
        reason, hint = " ".join(str(error).split()).rstrip("."), ""
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "configs":
            hint = f" The configs of this package are imported from {PACKAGE}."
        raise ConfigError(
            f"--config={display(value)} cannot be loaded: {type(error).__name__}: {reason}.{hint}"
        ) from error
    raise ConfigError(
        f"--config={display(value)} has no function get_config; it must have one that returns a "
        "ConfigDict, as configs/digits.py has."
    )


def _add_folder(config: pathlib.Path) -> None:
    """Lets a config file of the user import the files beside it, wherever the command runs.

    The folder comes last, so that no file in it takes the place of an installed package.
    """
    beside = str(config.resolve().parent)
    if config != SAVED_LOADER and config.parent != folder() and beside not in sys.path:
        sys.path.append(beside)


def names() -> list[str]:
    """Returns the names of the installed configs of data sets and baselines."""
    return sorted(
        p.stem for p in folder().glob("*.py") if p.stem not in ("__init__", "base", "small")
    )


def folder() -> pathlib.Path:
    """Returns the folder of the installed configs.

    Raises:
      ConfigError: if the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"The package {PACKAGE} is missing; install dbae_jax with pip (from a clone: "
            "pip install -e .)."
        )
    return pathlib.Path(spec.origin).parent
