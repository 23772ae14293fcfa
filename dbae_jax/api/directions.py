"""The directions of attributes that a workdir keeps, for `DBAE.directions`."""

import pathlib

import numpy as np

from dbae_jax.errors import DataError
from dbae_jax.runtime import kept

CACHE = "evaluation"  # folder of a workdir for latent codes and what is derived from them


def file_of(cache: pathlib.Path, data_name: str) -> pathlib.Path:
    """Returns the file that holds the directions of a data set's attributes."""
    return cache / f"{data_name}_directions.npz"


def load(
    directory: pathlib.Path, data_name: str, fingerprint: str, encoder_fingerprint: str
) -> dict[str, np.ndarray]:
    """Reads directions in latent space: name of an attribute -> change [D] of z at scale 1.

    Args:
      directory: workdir of the model.
      data_name: name of the data set, `config.data.name`.
      fingerprint: hash of the model's weights.
      encoder_fingerprint: hash of the weights of its encoder.

    Raises:
      DataError: if the workdir has no directions of this encoder, or the file is damaged.
    """
    path = file_of(directory / CACHE, data_name)
    mend = (
        "`dbae report` and `dbae edit` find directions and keep them there; dbae_jax.editing."
        "directions finds them from latent codes and labels."
    )
    if not path.exists():
        raise DataError(f"There are no directions of attributes in {path}: {mend}")
    try:
        identity, content = kept.load(path)
    except kept.DAMAGE as error:
        raise DataError(f"{path} is damaged: {mend}") from error
    # Older versions have written the fingerprint of all weights alone.
    key, ours = (
        ("encoder", encoder_fingerprint) if "encoder" in identity else ("fingerprint", fingerprint)
    )
    if identity[key] != ours:
        raise DataError(f"The directions in {path} were found with another encoder: {mend}")
    return dict(zip(content["names"].tolist(), content["steps"], strict=True))


def save(
    directory: pathlib.Path, data_name: str, encoder_fingerprint: str, found: dict[str, np.ndarray]
) -> None:
    """Writes directions to a workdir, for `load`; `dbae edit` and `dbae report` find them anew.

    Args:
      directory: workdir of the model.
      data_name: name of the data set, `config.data.name`.
      encoder_fingerprint: hash of the weights of the model's encoder.
      found: name of an attribute -> change [D] of z at scale 1.
    """
    content = {"names": np.array(list(found)), "steps": np.stack(list(found.values()))}
    kept.write(file_of(directory / CACHE, data_name), {"encoder": encoder_fingerprint}, content)
