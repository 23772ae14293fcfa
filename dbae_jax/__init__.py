"""Diffusion Bridge AutoEncoders (Kim et al., ICLR 2025) in JAX and Flax."""

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_uint8

__all__ = ["DBAE", "to_uint8"]
__version__ = "0.1.0"
