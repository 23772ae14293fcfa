"""Guides samples of a model by a classifier of latent codes.

A linear classifier p(y | u) is trained on u, the standardised codes of the digits. Codes drawn
from the latent prior then climb log p(y | u) - |u - u_0|^2 / (2 width^2), with jax.grad, and are
decoded. The samples are encoded again, and the classifier says how often they show the class.

    python examples/classifier_guidance.py --workdir=runs/digits --label=7 --out=guided.png
"""

import argparse
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression

from dbae_jax import DBAE
from dbae_jax.data import images, sources


class Classifier(NamedTuple):
    """A linear classifier of standardised codes: mean and std [D], weights [D, K], biases [K]."""

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    biases: np.ndarray

    def logits(self, u: jax.Array) -> jax.Array:
        """Returns logits [B, K] of standardised codes [B, D]."""
        return u @ self.weights + self.biases


def fit_classifier(model: DBAE, count: int) -> Classifier:
    """Returns a classifier that is trained on `count` training images."""
    train = sources.digits("train", model.image_shape[0])
    z = model.encode(train.images[:count])
    mean, std = z.mean(axis=0), z.std(axis=0)
    probe = LogisticRegression(max_iter=1000).fit((z - mean) / std, train.labels[:count])
    return Classifier(mean, std, *(a.astype(np.float32) for a in (probe.coef_.T, probe.intercept_)))


def main(argv: list[str] | None = None) -> tuple[float, float]:
    """Writes unguided (above) and guided samples; returns the fraction that shows the class."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--workdir", required=True, help="a trained model of the digits, with prior"
    )
    parser.add_argument("--label", type=int, default=7, help="digit to sample")
    parser.add_argument("--num", type=int, default=8, help="number of samples")
    parser.add_argument("--climbs", type=int, default=100, help="number of gradient steps on z")
    parser.add_argument(
        "--width", type=float, default=3.0, help="largest change of z, in standard deviations"
    )
    parser.add_argument("--rate", type=float, default=0.05, help="size of a gradient step")
    parser.add_argument("--train_images", type=int, default=1000, help="of the classifier")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("guided.png"), help="PNG to write"
    )
    args = parser.parse_args(argv)

    model = DBAE.load(args.workdir)
    classifier = fit_classifier(model, args.train_images)
    drawn_codes = jnp.asarray(model.sample_codes(args.num, rng=0))
    u_0 = (drawn_codes - classifier.mean) / classifier.std

    def goal(u: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(classifier.logits(u))[:, args.label]
        return jnp.sum(log_p - jnp.sum((u - u_0) ** 2, axis=-1) / (2 * args.width**2))

    u = jax.lax.fori_loop(0, args.climbs, lambda _, u: u + args.rate * jax.grad(goal)(u), u_0)
    guided_codes = u * classifier.std + classifier.mean
    decode = jax.jit(model.apply.decode)
    drawn = [decode(model.variables, codes) for codes in (drawn_codes, guided_codes)]
    fractions = []
    for x_0 in drawn:
        again = (model.encode(x_0) - classifier.mean) / classifier.std
        classes = np.argmax(classifier.logits(again), axis=-1)
        fractions.append(float(np.mean(classes == args.label)))
    images.save_grid(args.out, [np.asarray(x_0) for x_0 in drawn])
    before, after = fractions
    print(f"Samples that show {args.label}: {before:.0%} unguided, {after:.0%} guided.")
    return before, after


if __name__ == "__main__":
    main()
