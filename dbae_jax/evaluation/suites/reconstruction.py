"""The suite "reconstruction": errors and similarities of reconstructions, and a PCA baseline."""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.decomposition import PCA

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import dataset_classifier
from dbae_jax.evaluation.context import Context, Suite, always
from dbae_jax.evaluation.protocols import generation, sharpness
from dbae_jax.evaluation.protocols.generation import Entries, ImageSet
from dbae_jax.evaluation.results import Measured, score
from dbae_jax.metrics import similarity
from dbae_jax.metrics.networks import alexnet_lpips
from dbae_jax.metrics.networks.published import FeatureNet
from dbae_jax.metrics.perceptual import perceptual_distances
from dbae_jax.metrics.scores import provenance
from dbae_jax.metrics.similarity import pixel_mse
from dbae_jax.runtime import rngs
from dbae_jax.runtime.progress import Progress
from dbae_jax.sampling.plan import Plan

log = logging.getLogger(__name__)

# Name -> mean over images of a measure of two arrays [N, H, W, C] in [-1, 1].
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mse": pixel_mse,
    "mse_8bit": lambda x, y: pixel_mse(similarity.eight_bit(x), y.astype(np.float64)),
    "psnr": similarity.psnr,
    "ssim": similarity.ssim,
    "ssim_zero_padded": lambda x, y: similarity.ssim(x, y, padding="zero"),
    "ssim_swapped_axes": similarity.ssim_swapped_axes,
}
LOWER_IS_BETTER = ("mse", "mse_8bit", "lpips")
POWER = "power"  # name of the power spectrum among the means of one seed
IMAGES_AT_ONCE = 1024  # images between two updates of the progress


def noise_seed(sample: Plan, *, free: bool = False) -> int | None:
    """Returns a seed if the sampler or a Gaussian x_T draws noise, else None.

    Args:
      sample: the sampler.
      free: whether the model has a Gaussian x_T.
    """
    return 0 if free or sample.needs_noise else None


def reconstruct(model: DBAE, images: np.ndarray, sample: Plan) -> np.ndarray:
    """Returns reconstructions [N, H, W, C] in [-1, 1]."""
    seed = noise_seed(sample, free=model.gaussian_endpoint)
    return model.reconstruct(images, rng=seed, plan=sample)


def mse(model: DBAE, images: np.ndarray, sample: Plan) -> float:
    """Returns the mean squared error of reconstructions of uint8 images, for pixels in [0, 1]."""
    parts, total = [], len(images)
    with Progress("Reconstructing images", total, "images") as progress:
        for start in range(0, total, IMAGES_AT_ONCE):
            part = images[start : start + IMAGES_AT_ONCE]
            error = pixel_mse(reconstruct(model, part, sample), np.asarray(to_float(part)))
            parts.append((len(part), {"mse": error}))
            progress.advance(len(part))
    return _mean_of_parts(parts)["mse"]


def fit_pca(train: np.ndarray, components: int) -> PCA:
    """Returns a PCA of images, the best linear code.

    Args:
      train: uint8 [N, H, W, C]; the PCA is of pixels in [0, 1].
      components: number of components; at most the number of images and of pixels is used.
    """
    flat = _flat(train)
    return PCA(min(components, *flat.shape), random_state=0, copy=False).fit(flat)


def pca_mse(pca: PCA, images: np.ndarray) -> float:
    """Returns the MSE of a PCA on uint8 images [M, H, W, C], for pixels in [0, 1]."""
    flat = _flat(images)
    return float(np.mean((pca.inverse_transform(pca.transform(flat)) - flat) ** 2))


def _flat(images: np.ndarray) -> np.ndarray:
    """Returns pixels in [0, 1], [N, H W C], in float32 because of the memory of large sets."""
    return images.reshape(len(images), -1) / np.float32(255)


def picture_rows(model: DBAE, images: np.ndarray, sample: Plan) -> list[np.ndarray]:
    """Returns rows of images for `save_grid`: inputs, endpoints x_T, reconstructions."""
    z, seed = model.encode(images), noise_seed(sample, free=model.gaussian_endpoint)
    x_T = model.draw_x_T(len(z), seed) if model.gaussian_endpoint else model.endpoint(z)
    decoded = model.decode(z, x_T, rng=seed, plan=sample)
    return [np.asarray(to_float(images)), x_T, decoded]


def settings(context: Context) -> dict[str, Any]:
    """Returns the settings that determine the scores.

    Raises:
      ConfigError: if LPIPS is asked for and does not apply to the images.
      CheckpointError: if the weights of LPIPS are missing.
    """
    config = context.config
    found = {
        "sampler": vars(config.sample),
        "nfe": context.model.nfe(plan=config.sample),
        "seeds": _num_seeds(context),
        "sample_codes": config.eval.sample_codes,
        "train_images": _num_train_images(context),
        "images": context.limit("test"),
        "spectra": "8 bit",
    }
    if dataset_classifier.obstacle(context) is None:
        found["classifier"] = dataset_classifier.settings(context)
        found["kernel_distance"] = "of unpaired images"
    if config.eval.lpips:
        data, least = config.data, alexnet_lpips.SMALLEST
        if data.channels != 3 or data.image_size < least:
            raise ConfigError(
                f"config.eval.lpips=True is not allowed for images of {data.image_size} pixels and "
                f"{data.channels} channels: LPIPS needs {least} pixels or more and 3 channels."
            )
        found["lpips"] = provenance(context.perceptual_net.origin)
    return found


def measure(context: Context) -> Measured:
    """Returns the scores of the reconstructed test images, for each seed if there is noise."""
    real = None
    if dataset_classifier.obstacle(context) is None:
        net = dataset_classifier.make(context).features
        real = _image_set("real", context.chunks("test"), net, context)
    by_seed = [_of_seed(context, seed, real) for seed in range(_num_seeds(context))]
    scores = {}
    for name in by_seed[0].means:
        better = "lower" if name in LOWER_IS_BETTER else "higher"
        reason = "the MSE of an image is 0" if name == "psnr" else ""
        scores[name] = score([found.means[name] for found in by_seed], better, reason=reason)
    scores["sharpness_error"] = sharpness.score_of(
        [found.power for found in by_seed], sharpness.mean_power(context.chunks("test"))
    )
    scores |= generation.over_sets([found.distances for found in by_seed])
    if "lpips" in scores:
        scores["lpips"]["details"] |= provenance(context.perceptual_net.origin) | {"of": "8 bit"}
    scores["pca_mse"], counts = _baseline(context)
    return Measured(scores, counts | {"test": context.limit("test")})


SUITE = Suite(always, settings, measure)


def _num_seeds(context: Context) -> int:
    section = context.config.eval
    seed = noise_seed(context.config.sample, free=context.model.gaussian_endpoint)
    return section.seeds if seed is not None or section.sample_codes else 1


def _num_train_images(context: Context) -> int:
    count = len(context.splits["train"])
    return min(context.config.eval.num_train_images or count, count)


def _baseline(context: Context) -> tuple[dict[str, Any], dict[str, int]]:
    """Returns the score of PCA, and the number of its training images by split.

    PCA has no score if training and test images overlap.
    """
    if leak := context.leak("train", "test"):
        return score(math.nan, "lower", reason=leak), {}
    train = context.images("train", _num_train_images(context))
    components = context.model.latent_dim
    log.info("Fitting a PCA with %d components to %d training images.", components, len(train))
    pca = fit_pca(train, components)
    found = _mean_of_parts(
        (len(images), {"mse": pca_mse(pca, images)}) for images in context.chunks("test")
    )
    return score(found["mse"], "lower", components=int(pca.n_components_)), {"train": len(train)}


class _OfSeed(NamedTuple):
    """Means over the test images."""

    means: dict[str, float]
    power: np.ndarray  # of reconstructions, by frequency
    distances: Entries  # by features of the data set's classifier


def _of_seed(context: Context, seed: int, real: ImageSet | None) -> _OfSeed:
    """Returns the means of all measures over the test images.

    The random numbers of an image depend on the seed and its index alone.

    Args:
      context: model and data.
      seed: seed of codes and samplers.
      real: the test images by the data set's classifier; None: there is no classifier.
    """
    model, config, done = context.model, context.config, 0
    key, parts, rounded = jax.random.key(seed), [], []
    with Progress("Reconstructing images", context.limit("test"), "images") as progress:
        for images in context.chunks("test"):
            indices = np.arange(done, done + len(images))
            done += len(images)
            code_keys = rngs.per_example(rngs.stream(key, "code"), indices)
            z = model.encode(images, rng=code_keys if config.eval.sample_codes else None)
            noise = rngs.per_example(key, indices)
            decoded = model.decode(z, rng=noise, plan=config.sample)
            eight_bit = to_uint8(decoded)
            found = _measured(context, decoded, np.asarray(to_float(images)))
            # Of 8-bit images, as the test images are: rounding has power at high frequencies.
            parts.append((len(images), found | {POWER: sharpness.mean_power([eight_bit])}))
            if real is not None:
                rounded.append(eight_bit)
            progress.advance(len(images))
    means = _mean_of_parts(parts)
    power = means.pop(POWER)
    if real is None:
        return _OfSeed(means, power, {})
    decoded_set = _image_set("reconstructed", rounded, real.statistics.net, context)
    return _OfSeed(means, power, generation.distances(decoded_set, real, paired=True))


def _image_set(
    name: str, images: Iterable[np.ndarray], net: FeatureNet, context: Context
) -> ImageSet:
    return generation.image_set(name, images, net, batch_size=context.config.eval.batch_size)


def _measured(context: Context, decoded: np.ndarray, images: np.ndarray) -> dict[str, float]:
    found = {name: measure(decoded, images) for name, measure in MEASURES.items()}
    if context.config.eval.lpips:  # the authors measure it on 8-bit images
        rounded = similarity.eight_bit(decoded).astype(np.float32)
        found["lpips"] = float(
            perceptual_distances(context.perceptual_net, rounded, images).mean(dtype=np.float64)
        )
    return found


def _mean_of_parts(parts: Iterable[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Returns the means over all images from pairs (number of images, means over them)."""
    parts = list(parts)
    total = sum(count for count, _ in parts)
    return {
        name: sum(count * means[name] for count, means in parts) / total for name in parts[0][1]
    }
