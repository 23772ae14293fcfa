"""Inverts the decoder: finds the latent code whose decoding is closest to an image.

The encoder gives a first z in one evaluation. Adam then lowers |decode(z) - x_0|^2, with jax.grad
through all steps of the sampler.

    python examples/inversion.py --workdir=runs/digits --out=inverted.png
"""

import argparse
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dbae_jax import DBAE
from dbae_jax.data import images, sources


def invert(
    model: DBAE, x_0: jax.Array, *, updates: int, learning_rate: float, steps: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the first and the last codes, [B, D] each.

    Args:
      model: a trained model that decodes x_T from z.
      x_0: images [B, H, W, C] in [-1, 1].
      updates: updates of Adam.
      learning_rate: its learning rate.
      steps: steps of the sampler.
    """
    optimizer = optax.adam(learning_rate)
    decode = functools.partial(model.apply.decode, steps=steps)

    def loss(z: jax.Array, variables: dict) -> jax.Array:
        # A sum over images, so that the codes do not depend on each other.
        return jnp.sum(jnp.mean((decode(variables, z) - x_0) ** 2, axis=(1, 2, 3)))

    @jax.jit
    def update(z: jax.Array, state: optax.OptState, variables: dict):
        change, state = optimizer.update(jax.grad(loss)(z, variables), state)
        return optax.apply_updates(z, change), state

    first = z = model.apply.encode(model.variables, x_0)
    state = optimizer.init(z)
    for _ in range(updates):
        z, state = update(z, state, model.variables)
    return first, z


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Writes images, reconstructions and inversions; returns the errors of the last two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="a trained model of the digits")
    parser.add_argument("--num", type=int, default=8, help="number of test images")
    parser.add_argument("--updates", type=int, default=100, help="optimizer steps on z")
    parser.add_argument("--learning_rate", type=float, default=0.01, help="of these steps")
    parser.add_argument("--steps", type=int, default=5, help="steps of the sampler")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("inverted.png"), help="PNG to write"
    )
    args = parser.parse_args(argv)

    model = DBAE.load(args.workdir)
    test = sources.digits("test", model.image_shape[0])
    x_0 = np.asarray(images.to_float(test.images[: args.num]))
    options = {"updates": args.updates, "learning_rate": args.learning_rate, "steps": args.steps}
    codes = invert(model, jnp.asarray(x_0), **options)
    rows = [x_0, *(model.decode(np.asarray(z), steps=args.steps) for z in codes)]
    images.save_grid(args.out, rows)
    errors = [float(np.mean((row - x_0) ** 2)) / 4 for row in rows[1:]]  # pixels in [0, 1]
    before, after = errors
    print(f"Mean squared error: {before:.5f} encoded, {after:.5f} after {args.updates} updates.")
    return before, after


if __name__ == "__main__":
    main()
