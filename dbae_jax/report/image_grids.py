"""Rows of images over a position, such as the scale of an edit: shown whole, or by a slider."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float
from dbae_jax.editing import Directions
from dbae_jax.evaluation.suites.reconstruction import noise_seed
from dbae_jax.report.pictures import Strip, in_batches, scale_of, strip
from dbae_jax.runtime.progress import track
from dbae_jax.sampling.plan import Plan


class Panel(NamedTuple):
    """A strip with an image for every position, or a single image next to it.

    Attributes:
      strip: the images.
      alt: description of the images for screen readers.
      caption: name of the images, or "".
    """

    strip: Strip
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class ImageGrid:
    """Strips over the same positions. Each is a row of a grid; a slider shows one position.

    Attributes:
      name: id, unique on the page.
      label: what the positions are.
      positions: text for each position.
      start: position that the slider shows first.
      groups: panels that belong together, such as those of one test image.
    """

    name: str
    label: str
    positions: tuple[str, ...]
    start: int
    groups: tuple[tuple[Panel, ...], ...]


def interpolation(
    model: DBAE,
    images: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    sample: Plan,
    *,
    points: int,
) -> ImageGrid:
    """Decodes codes on the line between the codes of two images, for each pair.

    Args:
      model: a trained model.
      images: uint8 [N, S, S, C].
      pairs: indices of images.
      sample: the sampler.
      points: number of codes on a line, including both ends.
    """
    left, right = (images[list(side)] for side in zip(*pairs, strict=True))

    def decode(indices: np.ndarray, keys: jax.Array | None) -> np.ndarray:
        return model.interpolate(left[indices], right[indices], points, rng=keys, plan=sample)

    decoded = in_batches(
        decode,
        len(pairs),
        max(1, model.batch_size // points),
        "Interpolating between test images",
        unit="pairs",
        seed=noise_seed(sample, free=model.gaussian_endpoint),
    )
    groups = tuple(
        (
            Panel(strip(_real(left[[i]])), f"Pair {i + 1}: test image on the left"),
            Panel(strip(row), f"Pair {i + 1}: image decoded from a code between both codes"),
            Panel(strip(_real(right[[i]])), f"Pair {i + 1}: test image on the right"),
        )
        for i, row in enumerate(decoded)
    )
    positions = tuple(f"{100 * w:.0f}%" for w in np.linspace(0, 1, points))
    return ImageGrid("interpolation", "From left to right", positions, points // 2, groups)


def edits(
    model: DBAE,
    images: np.ndarray,
    directions: Directions,
    scales: Sequence[float],
    sample: Plan,
) -> list[ImageGrid]:
    """Moves codes along directions and decodes them; returns a grid per direction.

    x_T is recomputed from each code. A Gaussian x_T is sampled once per image.

    Args:
      model: a trained model.
      images: uint8 [N, S, S, C].
      directions: directions of attributes.
      scales: scale of the edit at each position, in increasing order.
      sample: the sampler.
    """
    positions = tuple(f"{scale:+.2g}" if scale else "0" for scale in scales)
    start = int(np.argmin(np.abs(scales)))
    seed = noise_seed(sample, free=model.gaussian_endpoint)
    named = list(zip(directions.names, directions.steps, strict=True))
    grids: list[ImageGrid] = []
    for name, step in track(
        named, "Editing test images", total=len(named), unit="attributes or classes"
    ):
        decoded = model.edit(images, step, scales, rng=seed, plan=sample)
        groups = tuple(
            (Panel(strip(row), f"Test image {j + 1}, edited towards {name}"),)
            for j, row in enumerate(decoded)
        )
        label = f"{'class ' * name.isdigit()}{name.replace('_', ' ')}"
        grids.append(ImageGrid(f"edit-{len(grids)}", label, positions, start, groups))
    return grids


def trajectories(model: DBAE, images: np.ndarray, *, steps: int, every: int) -> ImageGrid:
    """Integrates the bridge from x_T to x_0 with its ODE and with its SDE, and shows the states.

    Times are evenly spaced. The SDE is the Markov bridge (dbim with eta = 1). The states of each
    time are divided by `scale_of` them, so that none is clipped to black and white.

    Args:
      model: a trained model.
      images: uint8 [N, S, S, C].
      steps: number of steps of the sampler.
      every: steps between two positions; it divides `steps`.
    """
    z, plan = model.encode(images), Plan("dbim", steps, "uniform")
    noisy = dataclasses.replace(plan, eta=1.0, boot=not model.gaussian_endpoint)
    options = {"ODE": plan, "SDE": noisy}
    runs = {
        name: model.trajectory(z, rng=0, plan=options[name], clip_path=False)
        for name in track(options, "Computing trajectories", total=len(options), unit="samplers")
    }
    states = {name: _scaled(np.asarray(run.path)[::every]) for name, run in runs.items()}
    groups = tuple(
        (
            *(
                Panel(
                    strip(scaled[:, i]),
                    f"Test image {i + 1}: {name} state",
                    name,
                )
                for name, scaled in states.items()
            ),
            Panel(strip(_real(images[[i]])), f"Test image {i + 1}", "test image"),
        )
        for i in range(len(images))
    )
    positions = tuple(f"t = {time:.3g}" for time in runs["ODE"].times[::every])
    return ImageGrid("trajectory", "Diffusion time", positions, 0, groups)


def _scaled(path: np.ndarray) -> np.ndarray:
    """Returns states [K, N, S, S, C], each time divided by its scale."""
    return np.stack([states / scale_of(states) for states in path])


def _real(images: np.ndarray) -> np.ndarray:
    return np.asarray(to_float(images))


def different(labels: np.ndarray | None, count: int, pairs: int) -> list[tuple[int, int]]:
    """Returns up to `pairs` pairs of indices below `count`, with different labels if known."""
    if labels is None:
        return [(i, i + 1) for i in range(0, min(2 * pairs, count - 1), 2)]
    chosen: list[tuple[int, int]] = []
    used: set[int] = set()
    for first in range(count):
        for second in range(first + 1, count):
            if labels[first] != labels[second] and not used & {first, second}:
                chosen.append((first, second))
                used |= {first, second}
                break
    return chosen[:pairs]
