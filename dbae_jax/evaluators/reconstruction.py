"""How well images come back through z: errors, the linear baseline, pictures."""

import numpy as np
from sklearn.decomposition import PCA

from dbae_jax.api import DBAE
from dbae_jax.images import to_float
from dbae_jax.metrics.similarity import pixel_mse
from dbae_jax.samplers import Plan
from dbae_jax.sections import SampleConfig


def noise_seed(sample: SampleConfig, *, free: bool = False) -> int | None:
    """Returns the seed of evaluations that draw noise, in the sampler or a free x_T; or None."""
    return 0 if free or Plan(**vars(sample)).needs_noise else None


def reconstruct(model: DBAE, images: np.ndarray, sample: SampleConfig) -> np.ndarray:
    """Returns reconstructions [N, H, W, C] in [-1, 1]."""
    seed = noise_seed(sample, free=model.free)
    return model.reconstruct(images, rng=seed, **vars(sample))


def mse(model: DBAE, images: np.ndarray, sample: SampleConfig) -> float:
    """Returns the mean squared error of reconstructions of uint8 images, pixels in [0, 1]."""
    return pixel_mse(reconstruct(model, images, sample), np.asarray(to_float(images)))


def pca_mse(train: np.ndarray, test: np.ndarray, components: int) -> float:
    """Returns the error of the best linear code: PCA of the training images, pixels in [0, 1].

    Args:
      train: uint8 [N, H, W, C].
      test: uint8 [M, H, W, C].
      components: width of the code; capped at what the data allow.
    """
    flat_train, flat_test = (x.reshape(len(x), -1) / 255.0 for x in (train, test))
    pca = PCA(min(components, *flat_train.shape), random_state=0).fit(flat_train)
    again = pca.inverse_transform(pca.transform(flat_test))
    return float(np.mean((again - flat_test) ** 2))


def picture_rows(model: DBAE, images: np.ndarray, sample: SampleConfig) -> list[np.ndarray]:
    """Returns rows for `images.grid`: inputs, their endpoints x_T, reconstructions."""
    z, seed = model.encode(images), noise_seed(sample, free=model.free)
    x_T = model.draw_x_T(len(z), seed) if model.free else model.endpoint(z)
    again = model.decode(z, x_T, rng=seed, **vars(sample))
    return [np.asarray(to_float(images)), x_T, again]
