"""Pictures that a slider moves: interpolations, edits of attributes, walks of the bridge."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float
from dbae_jax.editing import Directions
from dbae_jax.evaluation.suites.reconstruction import noise_seed
from dbae_jax.report.pictures import Strip, strip
from dbae_jax.sampling.plan import Plan


class Picture(NamedTuple):
    """A strip that a slider moves, or a picture that stands still beside it.

    alt: what it shows, for those who do not see it. caption: below it; "": none.
    """

    strip: Strip
    alt: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Film:
    """A slider and the pictures that it moves together.

    name: unique on the page. label: of the slider. places: what the slider says at each frame.
    start: the frame that is shown first. groups: pictures that belong together stand together.
    """

    name: str
    label: str
    places: tuple[str, ...]
    start: int
    groups: tuple[tuple[Picture, ...], ...]


def interpolation(
    model: DBAE,
    images: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    sample: Plan,
    *,
    points: int,
) -> Film:
    """Decodes codes on the line between those of two images, a group a pair.

    Args:
      model: whose codes.
      images: uint8 [N, S, S, C].
      pairs: indices of images.
      sample: the sampler.
      points: codes on a line, its ends among them.
    """
    ends = (images[[pair[i] for pair in pairs]] for i in range(2))
    seed = noise_seed(sample, free=model.gaussian_endpoint)
    decoded = model.interpolate(*ends, points, rng=seed, plan=sample)
    groups = []
    for i, frames in enumerate(decoded):
        first, second = (strip(_real(images[[j]])) for j in pairs[i])
        groups.append(
            (
                Picture(first, f"Pair {i + 1}: image on the left"),
                Picture(strip(frames), f"Pair {i + 1}: decoded from between their codes"),
                Picture(second, f"Pair {i + 1}: image on the right"),
            )
        )
    places = tuple(f"{100 * w:.0f}% of the way" for w in np.linspace(0, 1, points))
    return Film("interpolation", "From left to right", places, points // 2, tuple(groups))


def edits(
    model: DBAE,
    images: np.ndarray,
    directions: Directions,
    scales: Sequence[float],
    sample: Plan,
) -> list[Film]:
    """Moves codes along directions, a film each; x_T follows, and a free one stays as drawn.

    Args:
      model: whose codes.
      images: uint8 [N, S, S, C].
      directions: of attributes.
      scales: of the frames, rising.
      sample: the sampler.
    """
    places = tuple(f"scale {scale:+.2g}" if scale else "scale 0" for scale in scales)
    start = int(np.argmin(np.abs(scales)))
    seed = noise_seed(sample, free=model.gaussian_endpoint)
    films = []
    for i, (name, step) in enumerate(zip(directions.names, directions.steps, strict=True)):
        decoded = model.edit(images, step, scales, rng=seed, plan=sample)
        moved = tuple(
            Picture(strip(frames), f"Test image {j + 1}, edited towards {name}")
            for j, frames in enumerate(decoded)
        )
        label = f"Towards {'class ' * name.isdigit()}{name.replace('_', ' ')}"
        films.append(Film(f"edit-{i}", label, places, start, (moved,)))
    return films


def trajectories(model: DBAE, images: np.ndarray, *, steps: int, every: int) -> Film:
    """Walks the bridge from x_T to x_0 twice an image: by its ODE, and by its SDE.

    Every state is at an evenly spaced time; the SDE is the Markov bridge (dbim with eta = 1).

    Args:
      model: which walks.
      images: uint8 [N, S, S, C].
      steps: of the walk.
      every: so many steps a frame is kept; it divides `steps`.
    """
    z, grid = model.encode(images), {"steps": steps, "grid": "uniform", "sampler": "dbim"}
    walks = {
        "ODE": model.trajectory(z, rng=0, **grid),
        "SDE": model.trajectory(z, rng=0, eta=1.0, boot=not model.gaussian_endpoint, **grid),
    }
    groups = tuple(
        (
            *(
                Picture(strip(walk.path[::every, i]), f"Image {i + 1}: state of the {name}", name)
                for name, walk in walks.items()
            ),
            Picture(strip(_real(images[[i]])), f"Image {i + 1} itself", "image"),
        )
        for i in range(len(images))
    )
    times = walks["ODE"].times[::every]
    places = tuple(f"t = {time:.3g}" for time in times)
    return Film("trajectory", "Time", places, 0, groups)


def _real(images: np.ndarray) -> np.ndarray:
    return np.asarray(to_float(images))


def different(labels: np.ndarray | None, count: int, pairs: int) -> list[tuple[int, int]]:
    """Returns up to `pairs` pairs of indices below `count`, of different labels where known."""
    if labels is None:
        return [(i, i + 1) for i in range(0, min(2 * pairs, count - 1), 2)]
    chosen, used = [], set()
    for first in range(count):
        for second in range(first + 1, count):
            if labels[first] != labels[second] and not used & {first, second}:
                chosen.append((first, second))
                used |= {first, second}
                break
    return chosen[:pairs]
