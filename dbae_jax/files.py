"""Files that are whole or not there: written beside their name and moved to it."""

import json
import os
import pathlib
from typing import Any


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file in one move; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.write_text(text)
    os.replace(fresh, path)


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes values as indented JSON; not-a-number is refused, for JSON has none."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
