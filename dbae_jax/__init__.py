"""Diffusion Bridge AutoEncoders (Kim et al., ICLR 2025) in JAX and Flax.

Use a model whose weights come with the package, from Python:

    import dbae_jax
    from dbae_jax.data import sources

    model = dbae_jax.DBAE.load("digits")            # or a workdir, such as "runs/mine"
    images = sources.digits("test", 16).images[:8]  # uint8 [8, 16, 16, 1]
    z = model.encode(images)                        # latent codes [8, D]
    x_T = model.endpoint(z)                         # endpoints [8, 16, 16, 1]
    again = model.decode(z)                         # reconstructions, float32 in [-1, 1]
    path = model.interpolate(images[:4], images[4:])  # [4, 11, 16, 16, 1]
    dbae_jax.to_uint8(again)                        # pixels 0..255

Public modules:

    dbae_jax.editing: paths between latent codes, and directions that edit attributes.
    dbae_jax.errors: the errors of this package; all are `DBAEError`.
    dbae_jax.configs: the installed configs; dbae_jax.configs.base explains every key.
    dbae_jax.data.sources: images in memory, and what a data set must provide.

Commands; each explains its flags with --help:

    dbae: train, train_prior, distill, evaluate, sample, interpolate, edit, report, app and plan.
      `python -m dbae_jax` is the same command.
    python -m dbae_jax.data.prepare: prepares a data set.
    python -m dbae_jax.comparison: trains DBAE and DiffAE and compares them.
    python -m dbae_jax.data.loader_speed: measures how fast a data set is read.
    python -m dbae_jax.evaluation.sampler_study: compares samplers on trained models.
    python -m dbae_jax.benchmark: measures speed and memory.
    python -m dbae_jax.convert: converts the authors' checkpoints to workdirs, and back.
"""

import importlib
import pathlib
from typing import TYPE_CHECKING, Any

from dbae_jax.runtime.cuda_plugin import skip_version_check_without_gpu

if TYPE_CHECKING:
    from dbae_jax import editing, errors
    from dbae_jax.api.dbae import DBAE
    from dbae_jax.data.images import to_uint8
    from dbae_jax.sampling.plan import Plan

__all__ = ["DBAE", "Plan", "__version__", "editing", "errors", "to_uint8"]
__version__ = "0.1.0"

# Imported at their first use: they need seconds, and a command with a wrong flag does not use them.
_FUNCTIONS = {
    "DBAE": "dbae_jax.api.dbae",
    "Plan": "dbae_jax.sampling.plan",
    "to_uint8": "dbae_jax.data.images",
}
_MODULES = ("editing", "errors")

# In a checkout that is not installed, `dbae_jax.configs` is the folder configs/ beside the package.
_ROOT = pathlib.Path(__file__).parents[1]
if (_ROOT / "configs").is_dir() and (_ROOT / "setup.py").is_file():
    __path__.append(str(_ROOT))

skip_version_check_without_gpu()


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"dbae_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
