"""Reads and writes files of named tensors: .safetensors, and .pt or .pth with the `torch` extra.

Pickled code in a file is never run.
"""

import pathlib
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from dbae_jax.errors import CheckpointError


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a flat state dict: name -> array.

    Raises:
      CheckpointError: if the file is missing, damaged or of a different kind, or if it needs
        PyTorch, which is not installed.
    """
    check_suffix(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    if path.suffix == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} is not a complete .safetensors file ({error})."
            ) from error
    return _read_pt(path)


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """Returns the texts in a .safetensors file that stand beside its arrays; may be empty.

    Raises:
      CheckpointError: if the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete .safetensors file ({error}).") from error


def write_state_dict(
    path: pathlib.Path, values: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes a flat state dict; the file is complete or missing.

    Args:
      path: .safetensors, .pt or .pth file.
      values: name -> array.
      metadata: texts for `read_metadata`; .safetensors only.
    """
    torch = None if path.suffix == ".safetensors" else _torch()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    if torch is None:
        safetensors.numpy.save_file(values, fresh, metadata)
    else:
        torch.save({key: torch.tensor(value) for key, value in values.items()}, fresh)
    fresh.replace(path)


def check_suffix(path: pathlib.Path) -> None:
    """Raises CheckpointError if a file name has none of the supported suffixes."""
    if path.suffix not in (".pt", ".pth", ".safetensors"):
        raise CheckpointError(f"{path} must end in .pt, .pth or .safetensors.")


def _read_pt(path: pathlib.Path) -> dict[str, np.ndarray]:
    torch = _torch()
    try:
        read = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged and for unsafe files
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path} is not a complete file that holds tensors only ({reason})."
        ) from error
    if not isinstance(read, dict) or not all(torch.is_tensor(v) for v in read.values()):
        raise CheckpointError(f"{path} does not hold a flat state dict: name -> tensor.")
    # numpy lacks bfloat16; float32 holds all its values.
    half = torch.bfloat16
    plain = {k: v.detach().float() if v.dtype == half else v.detach() for k, v in read.items()}
    return {key: value.numpy() for key, value in plain.items()}


def _torch() -> Any:
    try:
        import torch  # optional: the extra torch
    except ImportError as error:
        raise CheckpointError(
            "Reading and writing .pt needs PyTorch: pip install -e '.[torch]', "
            "or use a .safetensors file."
        ) from error
    return torch
