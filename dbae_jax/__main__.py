"""`python -m dbae_jax` is the command `dbae`."""

from dbae_jax import main

main.run()
