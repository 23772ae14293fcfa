"""Configs: typed sections with their checks, and the objects that are built from them."""

import pathlib

import dbae_jax

_ROOT = pathlib.Path(__file__).parents[2]

# In a checkout that is not installed, `dbae_jax.configs` is the folder configs/ beside the package.
if (_ROOT / "configs").is_dir() and (_ROOT / "setup.py").is_file():
    dbae_jax.__path__.append(str(_ROOT))
