"""Models and data that cost nothing, for suites: what a suite must find is known."""

import numpy as np

from dbae_jax.data.images import to_float
from dbae_jax.evaluation.context import Context
from tests.helpers import tiny


class Model:
    """A model whose code is the first `latent_dim` pixels, and whose images are what went in."""

    batch_size, step, gaussian_endpoint, fingerprint = 8, 7, False, "0123456789ab"
    encoder_fingerprint = "cdef01234567"

    def __init__(self, config, *, error=0.0, scale=None):
        self.config, self.error, self.scale = config, error, scale
        self.latent_dim = config.model.latent_dim
        self.calls = 0

    def posterior(self, images):
        self.calls += 1
        flat = np.asarray(to_float(images)).reshape(len(images), -1)
        z = flat[:, : self.latent_dim]
        return z, None if self.scale is None else np.full_like(z, self.scale)

    def encode(self, images, rng=None):
        return np.asarray(to_float(images)).reshape(len(images), -1)

    def decode(self, z, rng=None, **plan):
        size, channels = self.config.data.image_size, self.config.data.channels
        noise = 0.0
        if "plan" in plan and plan["plan"].boot:
            import jax

            noise = np.asarray(jax.vmap(jax.random.normal)(rng))[:, None, None, None] * 0.01
        return np.clip(z.reshape(-1, size, size, channels) + self.error + noise, -1, 1)

    def nfe(self, *, plan):
        return plan.steps


class Data:
    """Images whose first pixels carry what is known of them; ids as given."""

    def __init__(self, images, attribute_names=(), **known):
        self.images, self.known, self.attribute_names = images, known, attribute_names

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index]} | {k: v[index] for k, v in self.known.items()}

    def __repr__(self):
        return f"Data({len(self)})"

    def overlaps(self, other):
        return other is self


def images(codes):
    """Returns uint8 images [N, 16, 16, 1] that `Model` encodes to (about) codes [N, D]."""
    flat = np.zeros((len(codes), 256))
    flat[:, : codes.shape[1]] = codes
    return np.uint8(np.round((flat + 1) * 127.5)).reshape(-1, 16, 16, 1)


def context(splits, *, cache=None, model=None, **overrides):
    """Returns a Context of a stub model and sources by split."""
    config = tiny.config(**{"eval.num_images": 0} | overrides)
    return Context(model or Model(config), config, splits, cache=cache)
