"""Sampled images, each with its class and the nearest training image."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float, to_uint8
from dbae_jax.evaluation import dataset_classifier
from dbae_jax.evaluation.context import Context
from dbae_jax.report.pictures import Strip, in_batches, strips

SEED = 0
MOST_TRAINING_IMAGES = 20_000  # that samples are compared with,
MOST_BYTES = 400e6  # and most bytes of them
MOST_TEST_IMAGES = 256  # whose distances are the yardstick


class Shown(NamedTuple):
    """A sample: the image, its class or "", the nearest training image, and its distance."""

    image: Strip
    label: str
    nearest: Strip
    distance: float


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples without selection.

    Attributes:
      shown: the samples.
      memory_note: sentences on the distances to training images.
      class_note: sentences on the classes.
    """

    shown: list[Shown]
    memory_note: str
    class_note: str


class Nearest(NamedTuple):
    """The nearest of several images: indices [N], and root mean squared differences [N]."""

    indices: np.ndarray
    distance: np.ndarray


def samples(context: Context, count: int, **how: Any) -> Samples:
    """Samples the images 0 ... count - 1 of SEED with the latent prior, as `dbae sample` does.

    Args:
      context: model and data.
      count: number of images.
      **how: arguments of `DBAE.sample`.

    Raises:
      CheckpointError: if the model has no latent prior.
    """
    images = draw(context.model, count, **how)
    most = min(MOST_TRAINING_IMAGES, int(MOST_BYTES / images[0].size))
    training = context.images("train", min(context.limit("train"), most))
    found = nearest(images, training)
    test = context.images("test", min(context.limit("test"), MOST_TEST_IMAGES))
    yardstick = nearest(np.asarray(to_float(test)), training).distance
    labels, class_note = _classes(context, images)
    shown = zip(
        strips(images),
        labels,
        strips(np.asarray(to_float(training[found.indices]))),
        found.distance.tolist(),
        strict=True,
    )
    note = memory_note(found.distance, yardstick, len(training), context.limit("train"))
    if context.overlap("train", "test"):
        note = (
            "The test images are training images too, so that there is no distance to compare "
            "those of the samples with."
        )
    return Samples([Shown(*one) for one in shown], note, class_note)


def draw(model: DBAE, count: int, **how: Any) -> np.ndarray:
    """Returns the sampled images [count, S, S, C]."""

    def sample(indices: np.ndarray, keys: jax.Array | None) -> np.ndarray:
        return model.sample(len(indices), keys, **how)

    return in_batches(sample, count, model.batch_size, "Sampling images", seed=SEED)


def nearest(images: np.ndarray, training: np.ndarray) -> Nearest:
    """Finds the training image that differs least from each image, pixel by pixel.

    Args:
      images: [N, S, S, C] in [-1, 1].
      training: uint8 [M, S, S, C].

    Returns:
      Indices into `training`, and root mean squared differences of pixels in [0, 1].
    """
    flat = (np.clip(images, -1, 1).reshape(len(images), -1) + 1) / 2
    best, index = np.full(len(flat), np.inf), np.zeros(len(flat), int)
    for start in range(0, len(training), 1000):
        other = training[start : start + 1000].reshape(-1, flat.shape[1]) / np.float32(255)
        squares = (flat**2).sum(1)[:, None] + (other**2).sum(1) - 2 * flat @ other.T
        closest = squares.argmin(axis=1)
        value = squares[np.arange(len(flat)), closest]
        better = value < best
        best[better], index[better] = value[better], start + closest[better]
    return Nearest(index, np.sqrt(np.maximum(best, 0) / flat.shape[1]))


def memory_note(samples: np.ndarray, test: np.ndarray, compared: int, all_images: int) -> str:
    """Returns sentences that say whether samples are copies of training images.

    Args:
      samples: distances of samples to their nearest training images [N].
      test: distances of held-out images to theirs [M].
      compared: number of training images that were compared.
      all_images: number of training images.
    """
    closer = int(np.sum(samples < np.quantile(test, 0.01)))
    which = f"the {compared:,} training images"
    if compared < all_images:
        which = f"the first {compared:,} of {all_images:,} training images"
    return (
        f"Below each sample is the nearest of {which} and its distance: the root mean squared "
        f"difference of pixels in [0, 1]. The median distance is {np.median(samples):.3f} for "
        f"samples and {np.median(test):.3f} for held-out test images. {closer} of {len(samples)} "
        "samples are nearer to a training image than 99% of test images are. A copy of a training "
        "image would be nearer."
    )


def _classes(context: Context, images: np.ndarray) -> tuple[list[str], str]:
    """Returns the classes of sampled images, and a sentence; without classes, empty texts."""
    none = [""] * len(images)
    if dataset_classifier.obstacle(context) or "attributes" in context.known:
        return none, ""
    if not dataset_classifier.is_made(context):
        return none, (
            "The classes of the samples are not shown, because no classifier has been trained yet; "
            "the suite generation trains one."
        )
    net = dataset_classifier.make(context)
    probabilities = net.probabilities(net.logits(to_uint8(images)))
    names = getattr(context.splits["test"], "class_names", ())
    best = probabilities.argmax(axis=1)
    labels = [str(names[int(net.labels[c])]) if names else net.labels[c] for c in best]
    unsure = int(np.sum(probabilities.max(axis=1) < 0.9))
    return labels, (
        "The class of each sample is that of a classifier that was trained on the training images; "
        f"it is less than 90% sure of {unsure} of {len(labels)} samples."
    )
