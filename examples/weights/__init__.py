"""Released weights, which `dbae_jax.DBAE.load` reads by name; the .md files describe them."""
