"""Shows a page in the browser to try a model with."""

import contextlib
import logging
import pathlib

from dbae_jax.api.dbae import DBAE
from dbae_jax.app import launching
from dbae_jax.commands import trained_model
from dbae_jax.commands.trained_model import OF_MODEL
from dbae_jax.configuration.config import Config
from dbae_jax.data import registry
from dbae_jax.data.images import to_uint8
from dbae_jax.data.sources import ArraySource, Source
from dbae_jax.errors import DBAEError
from dbae_jax.runtime import processes

# In a clone of the repository; an installed package has none.
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "images"

log = logging.getLogger(__name__)


def app(
    config: Config | None,
    directory: pathlib.Path | None,
    *,
    weights: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
) -> None:
    """Serves the page of a model until Ctrl-C.

    Args:
      config: config that fits the model of the workdir; its data give the test images. None for
        released weights, whose file has the config.
      directory: the workdir, or None.
      weights: file or name of released weights, or None.
      host: address or name of this machine.
      port: port, or 0 for any that is free.

    Raises:
      CheckpointError: if there is no such model.
      ConfigError: if gradio is missing, or the port cannot be used.
      DeviceError: if the devices that JAX_PLATFORMS asks for are not there.
    """
    launching.check_installed()
    processes.check_devices()
    with contextlib.closing(launching.listen(host, port)) as listener:
        if weights is not None:
            model = DBAE.load(weights)
        else:
            assert config is not None and directory is not None
            model = trained_model.open_model(config, directory, OF_MODEL).model
        launching.launch(model, pictures_for(model), host, listener)


def pictures_for(model: DBAE) -> Source | None:
    """Returns pictures to try a model with.

    These are the test images; or, if they are not on this machine, the example pictures of the
    repository for a model of colour images; or None.
    """
    try:
        return registry.make_source(model.config.data, "test")
    except DBAEError as error:
        examples = sorted(EXAMPLES.glob("*.png"))
        if model.config.data.channels != 3 or not examples:
            log.info("The app has no pictures of the test set: %s", error)
            return None
        log.info(
            "The app offers the pictures in %s, because it has no test set: %s", EXAMPLES, error
        )
        return ArraySource(to_uint8(model.preprocess(examples)))
