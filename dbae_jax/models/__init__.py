"""The three networks, in flax.linen: the only folder that imports flax's modules."""
