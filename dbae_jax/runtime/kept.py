"""Keeps results of long computations in files, and computes invalid files again.

A file holds named arrays (.npz) or JSON values (.json), and its identity: everything that the
content depends on, such as the weights of a model. A file with a different identity or a damaged
file is computed again. With several processes, either all of them read the file or none does,
because all processes may be needed to compute the content.
"""

import json
import logging
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from dbae_jax.runtime import files, processes

# Errors of reading a damaged file.
DAMAGE = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)

log = logging.getLogger(__name__)


def read_or_make(
    path: pathlib.Path, identity: dict[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Returns the content of a file; makes the content and writes the file if it is not valid.

    Args:
      path: the file, .npz or .json.
      identity: everything that the content depends on, in JSON types.
      make: returns the content, name -> value; called on every process or on none.
    """
    content = read(path, identity)
    if content is None:
        content = make()
        write(path, identity, content)
    return content


def read(path: pathlib.Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the content of a file, or None on every process if it is not valid on each."""
    stored, content = None, None
    if path.exists():
        try:
            stored, content = load(path)
        except DAMAGE as error:
            log.info("%s is damaged (%s); it is computed again.", path, type(error).__name__)
        if stored is not None and stored != identity:
            names = [k for k in {**stored, **identity} if stored.get(k) != identity.get(k)]
            log.info(
                "%s was computed with a different %s; it is computed again.", path, ", ".join(names)
            )
            content = None
    return content if processes.agree(int(content is not None)) else None


def write(path: pathlib.Path, identity: dict[str, Any], content: dict[str, Any]) -> None:
    """Writes a file that `read` reads."""
    if path.suffix == ".npz":
        files.write_npz(path, {"identity": np.array(json.dumps(identity)), **content})
    else:
        files.write_json(path, {"identity": identity, **content})


def load(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the identity and the content of a file.

    Raises:
      OSError, ValueError and others of `DAMAGE`: if it is damaged.
    """
    if path.suffix != ".npz":
        content = json.loads(path.read_text(encoding="utf-8"))
        return content.pop("identity"), content
    with path.open("rb") as opened, np.load(opened) as file:
        content = dict(file)
    return json.loads(str(content.pop("identity"))), content
