"""Reads and writes files of named tensors: .safetensors, and .pt or .ckpt with the `torch` extra.

The content of a file decides how it is read, not its name. Pickled code in a file is never run.
"""

import logging
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from dbae_jax.errors import CheckpointError

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_TORCH = (b"PK", b"\x80")  # what files of PyTorch begin with: a zip, or a pickle
# Names of state dicts inside a file of PyTorch, the preferred ones first.
NESTED = ("ema_state_dict", "ema_model", "ema", "state_dict", "model_state_dict", "model")

log = logging.getLogger(__name__)


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a flat state dict: name -> array.

    Raises:
      CheckpointError: if the file is missing, damaged or of a different kind, or if it needs
        PyTorch, which is not installed.
    """
    check_suffix(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; name a file of weights.")
    if _holds_safetensors(path):
        try:
            return safetensors.numpy.load_file(path)
        except Exception as error:  # the library raises errors of many types for damaged files
            raise _incomplete(path, error) from error
    return _read_pt(path)


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """Returns the texts in a .safetensors file that stand beside its arrays; may be empty.

    Raises:
      CheckpointError: if the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            return opened.metadata() or {}
    except Exception as error:  # as above
        raise _incomplete(path, error) from error


def _holds_safetensors(path: pathlib.Path) -> bool:
    """Returns whether a file begins as .safetensors do, or as nothing else and has this suffix."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; check its permissions."
        ) from error
    if start.startswith(_TORCH):
        return False
    return start[8:] == b"{" or path.suffix.lower() == ".safetensors"


def _incomplete(path: pathlib.Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a complete .safetensors file ({_one_line(error)}); copy it again."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def write_state_dict(
    path: pathlib.Path, values: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> None:
    """Writes a flat state dict; the file is complete or missing.

    Args:
      path: .safetensors, .pt or .pth file.
      values: name -> array.
      metadata: texts for `read_metadata`; .safetensors only.
    """
    torch = None if path.suffix.lower() == ".safetensors" else _torch()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.tmp")
    if torch is None:
        safetensors.numpy.save_file(values, fresh, metadata)
    else:
        torch.save({key: torch.tensor(value) for key, value in values.items()}, fresh)
    fresh.replace(path)


def check_suffix(path: pathlib.Path) -> None:
    """Raises CheckpointError if a file name has none of the supported suffixes, in any case."""
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"{path} must end in one of {', '.join(SUFFIXES)}.")


def _read_pt(path: pathlib.Path) -> dict[str, np.ndarray]:
    torch = _torch()
    with path.open("rb") as file:
        start = file.read(16)
    if not start.startswith(_TORCH):
        raise CheckpointError(
            f"{path} is not a complete file of weights: it begins with {start!r}, as neither files "
            "of PyTorch nor .safetensors do; copy it again."
        )
    try:
        _check_not_compressed(path)
        read = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises many types for damaged and for unsafe files
        code = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it names {code[1]}, which is no tensor" if code else _one_line(error)
        raise CheckpointError(
            f"{path} is not a complete file that holds tensors only ({reason}); nothing "
            "in it was run. Save the state dict alone, with torch.save(model.state_dict(), ...), "
            "or copy the file again."
        ) from error
    try:
        found = _flat(path, read, torch.is_tensor)
        return {str(key): _to_numpy(value, torch) for key, value in found.items()}
    except CheckpointError:
        raise
    except Exception as error:  # such as sparse or quantized tensors
        raise CheckpointError(
            f"{path} holds tensors that cannot be read ({_one_line(error)}); save a state dict of "
            "dense tensors."
        ) from error


def _check_not_compressed(path: pathlib.Path) -> None:
    """Refuses a zip whose content is larger than the file: PyTorch does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            content = sum(member.file_size for member in file.infolist())
        if content > path.stat().st_size:
            raise CheckpointError(
                f"{path} is compressed, which files of PyTorch are not: unpacked it has "
                f"{content:,} bytes; save it with torch.save."
            )


def _flat(path: pathlib.Path, read: Any, is_tensor: Any) -> Mapping[str, Any]:
    """Returns the state dict of a file: all of it, or the one that it holds beside other things."""

    def is_state_dict(value: Any) -> bool:
        return isinstance(value, dict) and bool(value) and all(map(is_tensor, value.values()))

    if is_state_dict(read):
        return read
    inside = [k for k, v in read.items() if is_state_dict(v)] if isinstance(read, dict) else []
    known = [name for name in NESTED if name in inside]
    chosen = known[0] if known else inside[0] if len(inside) == 1 else None
    if chosen is None:
        held = ", ".join(map(str, read))[:200] if isinstance(read, dict) else type(read).__name__
        raise CheckpointError(
            f"{path} does not hold a flat state dict (name -> tensor) but {held}; save the state "
            "dict of the model alone."
        )
    log.info("Reading the state dict %r of %s; the file also holds other things.", chosen, path)
    return read[chosen]


def _to_numpy(tensor: Any, torch: Any) -> np.ndarray:
    plain = tensor.detach()
    # numpy lacks bfloat16; float32 holds all its values.
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def _torch() -> Any:
    try:
        import torch  # optional: the extra torch
    except ImportError as error:
        raise CheckpointError(
            "Reading and writing files of PyTorch needs PyTorch: pip install -e '.[torch]', "
            "or use a .safetensors file."
        ) from error
    return torch
