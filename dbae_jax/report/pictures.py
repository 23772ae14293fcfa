"""Images of the page, as `data:` URIs."""

import base64
import io
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from dbae_jax.data.images import to_uint8
from dbae_jax.runtime import rngs
from dbae_jax.runtime.progress import Progress

# Larger images are JPEG, so that a page of 128-pixel images has a few megabytes.
JPEG_FROM, JPEG_QUALITY = 64, 92
SMALL, LARGE = 80, 96  # approximate width of an image on the screen, pixels
WITHIN = 99.5  # percentage of the values of a state that its scale shows unclipped


class Strip(NamedTuple):
    """Images of one size next to each other in one file; a slider shows one of them.

    Attributes:
      uri: the file, as a `data:` URI.
      count: number of images.
      size: height and width of each image, in its own pixels.
    """

    uri: str
    count: int  # type: ignore[assignment]  # read by the templates, and not tuple.count
    size: int


def strip(images: np.ndarray) -> Strip:
    """Returns images [N, S, S, C] as a strip; values are clipped to [-1, 1].

    Images that have neither 1 nor 3 channels show their first channel.
    """
    pixels = to_uint8(images)
    count, size = pixels.shape[:2]
    joined = np.concatenate(list(pixels), axis=1)
    image = Image.fromarray(joined if joined.shape[-1] == 3 else joined[..., 0])
    content = io.BytesIO()
    if is_lossless(size):
        image.save(content, "png", optimize=True)
    else:  # chroma at full size, so that neighbouring images do not bleed into each other
        image.save(content, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    kind = "png" if is_lossless(size) else "jpeg"
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Strip(f"data:image/{kind};base64,{encoded}", count, size)


def strips(images: np.ndarray) -> list[Strip]:
    """Returns a strip of a single image for each image [N, S, S, C]."""
    return [strip(image[None]) for image in images]


def scale_of(states: np.ndarray) -> float:
    """Returns the scale on which to show states of the bridge, such as x_T: at least 1.

    States divided by it lie in [-1, 1], but for the largest half of a percent of their values.
    """
    return max(1.0, float(np.percentile(np.abs(states), WITHIN)))


def is_lossless(size: int) -> bool:
    """Returns whether images of this size are stored without loss."""
    return size < JPEG_FROM


def shown_size(size: int, target: int) -> int:
    """Returns the width of an image on the screen: a multiple of its size, about `target`."""
    return size * max(1, round(target / size))


def in_batches(
    compute: Callable[[np.ndarray, jax.Array | None], np.ndarray],
    count: int,
    batch_size: int,
    what: str,
    *,
    unit: str = "images",
    seed: int | None = None,
) -> np.ndarray:
    """Computes an array batch by batch and shows the progress.

    Args:
      compute: (indices [n], keys [n]) -> array [n, ...]; the keys are None without a seed.
      count: length of the array.
      batch_size: largest n, at least 1.
      what: the work, see `Progress`.
      unit: what `count` counts, in the plural.
      seed: seed of the keys; each depends on the seed and the index, not on the batch.

    Returns:
      [count, ...].
    """
    size, parts = min(batch_size, count), []
    with Progress(what, count, unit) as progress:
        for done in range(0, count, size):
            # The last batch repeats earlier ones, so that all have one shape and compile once.
            indices = np.arange(size) + min(done, count - size)
            keys = None if seed is None else rngs.per_example(jax.random.key(seed), indices)
            parts.append(compute(indices, keys)[indices >= done])
            progress.advance(len(parts[-1]))
    return np.concatenate(parts)
