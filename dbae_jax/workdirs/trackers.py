"""Experiment trackers: TensorBoard, Weights & Biases and Trackio, each an optional package."""

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Protocol

from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.errors import ConfigError
from dbae_jax.runtime import processes
from dbae_jax.runtime.buckets import access

log = logging.getLogger(__name__)

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
PROJECT = "dbae_jax"


class Tracker(Protocol):
    """A place that the scalars of a run are sent to, besides metrics.jsonl."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends the scalars of a step."""

    def close(self) -> None:
        """Sends what is left."""


def check(config: Config, folder: pathlib.Path) -> None:
    """Checks that the packages of the config's trackers are installed and can write.

    Args:
      config: checked config.
      folder: folder of the run.

    Raises:
      ConfigError: if a package is missing, or cannot write into the folder.
    """
    if "tensorboard" in config.train.trackers and access.is_bucket(folder):
        raise ConfigError(
            f"config.train.trackers names 'tensorboard', which appends to its files, and {folder} "
            "is in a bucket, where this is impossible; name a workdir on this machine, or another "
            "tracker."
        )
    for name in config.train.trackers:
        package = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"config.train.trackers names {name!r}, which needs the package {package}: "
                f"pip install {package}."
            )


@contextlib.contextmanager
def opened(config: Config, folder: pathlib.Path, start_step: int) -> Iterator[list[Tracker]]:
    """Opens the trackers that a config names; only the process that writes files has any.

    Args:
      config: checked config.
      folder: folder of the run, or of its latent prior.
      start_step: step that the run starts or resumes from.
    """
    names = config.train.trackers if processes.is_writer() else ()
    with contextlib.ExitStack() as stack:
        trackers = []
        for name in names:
            tracker = _MAKERS[name](_package(name), config, folder, start_step)
            stack.callback(_close, name, tracker)
            trackers.append(tracker)
        yield trackers


def _close(name: str, tracker: Tracker) -> None:
    """Closes a tracker; a failure does not hide how the training ended."""
    try:
        tracker.close()
    except Exception as error:
        log.warning("The tracker %s could not be closed (%s).", name, error)


def _package(name: str) -> ModuleType:
    return importlib.import_module(PACKAGES[name])


class _TensorBoard:
    """Event files in the folder of the run. Events after the step of a resumption are hidden."""

    def __init__(self, package: Any, config: Config, folder: pathlib.Path, start_step: int):
        del config
        self._writer = package.SummaryWriter(str(folder), purge_step=start_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Online:
    """Weights & Biases, or Trackio, which has the same functions.

    A run that resumes goes on under its name. The name has the folder, the folder above it and a
    hash of the path, so that runs of the same name in other places stay apart.
    """

    def __init__(self, package: Any, config: Config, folder: pathlib.Path, start_step: int):
        del start_step
        path = folder.resolve()
        name = (
            f"{path.parent.name}-{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        )
        identity = {"id": name} if package.__name__ == "wandb" else {}
        package.init(project=PROJECT, name=name, config=to_dict(config), resume="allow", **identity)
        self._package = package

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        self._package.log(dict(scalars), step=step)

    def close(self) -> None:
        self._package.finish()


_MAKERS: dict[str, Callable[..., Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Online,
    "trackio": _Online,
}
