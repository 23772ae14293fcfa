"""Trains a classifier of images on top of a model's encoder, with few labels.

First the head alone learns on fixed latent codes. Then head and encoder learn together: gradients
go through `model.apply.encode` into the encoder's weights.

    python examples/downstream_head.py --workdir=runs/digits --labels=100
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dbae_jax import DBAE
from dbae_jax.data import images, sources


def train(model: DBAE, x_0: jax.Array, labels: np.ndarray, *, updates: int, tune: bool) -> dict:
    """Returns {"weights": [D, K], "biases": [K], "encoder": weights}.

    Args:
      model: a trained model.
      x_0: images [N, H, W, C] in [-1, 1].
      labels: their classes, [N], 0 ... K - 1.
      updates: full-batch updates of Adam.
      tune: whether the encoder's weights learn too.
    """
    classes, dim = int(labels.max()) + 1, model.latent_dim
    head = {"weights": jnp.zeros((dim, classes)), "biases": jnp.zeros(classes)}
    learned = {**head, "encoder": model.variables["params"]["encoder"]}
    rates = {"weights": optax.adam(0.05), "biases": optax.adam(0.05)}
    rates["encoder"] = optax.adam(3e-4) if tune else optax.set_to_zero()
    optimizer = optax.multi_transform(rates, {name: name for name in learned})

    def loss(learned: dict) -> jax.Array:
        logits = classify(model, learned, x_0)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def update(learned: dict, state: optax.OptState):
        change, state = optimizer.update(jax.grad(loss)(learned), state)
        return optax.apply_updates(learned, change), state

    state = optimizer.init(learned)
    for _ in range(updates):
        learned, state = update(learned, state)
    return learned


def classify(model: DBAE, learned: dict, x_0: jax.Array) -> jax.Array:
    """Returns logits [N, K] of images [N, H, W, C]."""
    params = model.variables["params"] | {"encoder": learned["encoder"]}
    z = model.apply.encode(model.variables | {"params": params}, x_0)
    return z @ learned["weights"] + learned["biases"]


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Returns the test accuracy with the fixed and with the tuned encoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="a trained model of the digits")
    parser.add_argument("--labels", type=int, default=100, help="number of labelled images")
    parser.add_argument("--test_images", type=int, default=300, help="number of test images")
    parser.add_argument("--updates", type=int, default=100, help="optimizer steps")
    args = parser.parse_args(argv)

    model = DBAE.load(args.workdir)
    size, accuracies = model.image_shape[0], []
    few, test = sources.digits("train", size), sources.digits("test", size)
    x_0 = images.to_float(jnp.asarray(few.images[: args.labels]))
    unseen = images.to_float(jnp.asarray(test.images[: args.test_images]))
    for tune in (False, True):
        labels = few.labels[: args.labels]
        learned = train(model, x_0, labels, updates=args.updates, tune=tune)
        found = np.argmax(classify(model, learned, unseen), axis=-1)
        accuracies.append(float(np.mean(found == test.labels[: args.test_images])))
    print(f"Test accuracy: {accuracies[0]:.1%} with the fixed encoder, {accuracies[1]:.1%} tuned.")
    return accuracies[0], accuracies[1]


if __name__ == "__main__":
    main()
