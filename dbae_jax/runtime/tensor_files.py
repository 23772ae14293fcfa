"""Files of named tensors: .safetensors, and .pt or .pth with the `torch` extra.

No pickled code is ever run.
"""

import pathlib
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from dbae_jax.errors import CheckpointError


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a flat state dict, running no pickled code.

    Raises:
      CheckpointError: if it is missing, torn, of another kind, or needs PyTorch and there is none.
    """
    check_suffix(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    if path.suffix == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole .safetensors file ({error}).") from error
    return _read_pt(path)


def write_state_dict(path: pathlib.Path, values: dict[str, np.ndarray]) -> None:
    """Writes a flat state dict, whole or not at all."""
    torch = None if path.suffix == ".safetensors" else _torch()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    if torch is None:
        safetensors.numpy.save_file(values, fresh)
    else:
        torch.save({key: torch.tensor(value) for key, value in values.items()}, fresh)
    fresh.replace(path)


def check_suffix(path: pathlib.Path) -> None:
    """Raises CheckpointError if a file name tells of no kind that can be read and written."""
    if path.suffix not in (".pt", ".pth", ".safetensors"):
        raise CheckpointError(f"{path} must end in .pt, .pth or .safetensors.")


def _read_pt(path: pathlib.Path) -> dict[str, np.ndarray]:
    torch = _torch()
    try:
        read = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for torn and for unsafe files
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{path} is no whole file of tensors alone ({reason}).") from error
    if not isinstance(read, dict) or not all(torch.is_tensor(v) for v in read.values()):
        raise CheckpointError(f"{path} holds no flat state dict of key -> tensor.")
    # bfloat16, which numpy lacks, fits in float32.
    half = torch.bfloat16
    plain = {k: v.detach().float() if v.dtype == half else v.detach() for k, v in read.items()}
    return {key: value.numpy() for key, value in plain.items()}


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            "Reading and writing .pt needs PyTorch: pip install -e '.[torch]', "
            "or use a .safetensors file."
        ) from error
    return torch
