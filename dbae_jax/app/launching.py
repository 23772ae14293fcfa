"""Starts the app: checks what can be wrong before anything takes time."""

import importlib
import importlib.util
import os
import socket

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.sources import Source
from dbae_jax.errors import ConfigError

ANYWHERE = ("0.0.0.0", "::")  # hosts that stand for all addresses of the machine


def check_installed() -> None:
    """Checks that gradio is installed.

    Raises:
      ConfigError: if gradio is missing.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("The app needs gradio: pip install -e '.[app]'.")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Args:
      host: address or name of this machine.
      port: port, or 0 for any that is free.

    Raises:
      ConfigError: if the host is not this machine, or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"The app cannot listen on --host={host} --port={port}: {error.strerror}. --port=0 "
            "takes a free port."
        ) from error


def address(host: str, listener: socket.socket) -> str:
    """Returns the URL of the page."""
    name = socket.gethostname() if host in ANYWHERE else f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def launch(model: DBAE, source: Source | None, host: str, listener: socket.socket) -> None:
    """Serves the page of a model until Ctrl-C.

    Args:
      model: a trained model.
      source: test images that a visitor can choose from, or None.
      host: address or name of this machine that `listener` listens at.
      listener: the socket.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it when it is imported
    server = importlib.import_module("dbae_jax.app.server")
    server.serve(model, source, listener, address(host, listener))
