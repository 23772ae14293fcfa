"""The latent space: projections, histograms of dimensions, the prior, and traversals."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from dbae_jax.api import edits
from dbae_jax.api.dbae import DBAE
from dbae_jax.errors import CheckpointError
from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.suites.reconstruction import noise_seed
from dbae_jax.report.charts import Chart
from dbae_jax.report.image_grids import ImageGrid, Panel
from dbae_jax.report.pictures import strip
from dbae_jax.report.plots import outline, scatter
from dbae_jax.sampling.plan import Plan

MOST_POINTS = 600  # of a projection, so that its page stays small
MOST_CLASSES = 10  # with a colour of their own
MOST_DIMENSIONS = 16  # with a histogram
DEAD = 0.01  # a dimension is unused below this share of the largest standard deviation
BINS, WIDTH, HEIGHT = 21, 120, 60  # of the histogram of a dimension
QUANTILES = (0.02, 0.98)  # ends of a traversal


class Dimension(NamedTuple):
    """Histogram of a dimension of z: its number, standard deviation, and outlines as SVG paths."""

    number: int
    std: str
    codes: str
    prior: str  # or ""
    width: int = WIDTH
    height: int = HEIGHT


@dataclasses.dataclass(frozen=True)
class LatentSpace:
    """Charts and images of the latent space.

    Attributes:
      projection: codes of test images on two principal components, by class.
      projection_note: sentences on the projection.
      dimensions: histograms of the dimensions with the largest standard deviations.
      dimensions_note: sentence on all dimensions.
      prior: codes of test images and codes from the prior, in the same plane; None without prior.
      prior_note: sentences on the prior.
      traversals: images along single dimensions.
    """

    projection: Chart | None
    projection_note: str
    dimensions: list[Dimension]
    dimensions_note: str
    prior: Chart | None
    prior_note: str
    traversals: ImageGrid


class Plane(NamedTuple):
    """Two principal components of codes: mean [D], axes [2, D], and shares of the variance [2]."""

    mean: np.ndarray
    axes: np.ndarray
    shares: np.ndarray

    def project(self, z: np.ndarray) -> np.ndarray:
        """Returns the places [N, 2] of codes [N, D]."""
        return (z - self.mean) @ self.axes.T


def plane(z: np.ndarray) -> Plane:
    """Returns the first two principal components of codes [N, D].

    The sign of an axis makes its largest entry positive. A code of one dimension gets a second axis
    of zeros.
    """
    mean = z.mean(axis=0)
    _, values, axes = np.linalg.svd(z - mean, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]
    shares = values[:2] ** 2 / max(float(np.sum(values**2)), 1e-30)
    if len(axes) < 2:
        axes, shares = np.concatenate([axes, 0 * axes]), np.append(shares, 0.0)
    return Plane(mean, axes, shares)


def latent_space(
    context: Context, *, coded: int, dimensions: int, points: int, how: dict[str, Any]
) -> LatentSpace:
    """Draws the latent space of a model.

    Args:
      context: model and data.
      coded: number of test images that are encoded; the first one is traversed.
      dimensions: number of traversals.
      points: number of images of a traversal.
      how: arguments of `DBAE.sample_codes`.
    """
    model = context.model
    images, labels = context.some("test", min(coded, context.limit("test")))
    z = np.asarray(model.encode(images), np.float64)
    found, sampled = plane(z), _sampled(model, min(len(z), MOST_POINTS), how)
    order = np.argsort(-z.std(axis=0), kind="stable")
    chosen = order[:MOST_DIMENSIONS]
    return LatentSpace(
        _projection(context, found, z[:MOST_POINTS], labels),
        _projection_note(found, z, labels),
        [_dimension(i, z[:, i], None if sampled is None else sampled[:, i]) for i in chosen],
        _dimensions_note(z, len(chosen)),
        None if sampled is None else _prior(found, z[:MOST_POINTS], sampled),
        _prior_note(found, z, sampled),
        traversals(model, z, order[:dimensions], points, context.config.sample),
    )


def _sampled(model: DBAE, count: int, how: dict[str, Any]) -> np.ndarray | None:
    """Returns codes of the prior, or None without one."""
    try:
        return np.asarray(model.sample_codes(count, 1, **how), np.float64)
    except CheckpointError:
        return None


def _labels(found: Plane) -> dict[str, str]:
    x, y = (f"{100 * share:.0f}% of the variance" for share in found.shares)
    return {"x_label": f"first principal component, {x}", "y_label": f"second, {y}"}


def _projection(
    context: Context, found: Plane, z: np.ndarray, labels: np.ndarray | None
) -> Chart | None:
    places, title = found.project(z), "Codes of test images"
    if labels is None or labels.ndim > 1 or len(np.unique(labels)) > MOST_CLASSES:
        return scatter({"": places}, title=title, **_labels(found))
    names = getattr(context.splits["test"], "class_names", ())
    there = labels[: len(z)]
    groups = {
        str(names[c]) if names else str(c): places[there == c] for c in np.unique(there).tolist()
    }
    return scatter(groups, title=f"{title}, by class", **_labels(found))


def _projection_note(found: Plane, z: np.ndarray, labels: np.ndarray | None) -> str:
    note = (
        f"The first {min(len(z), MOST_POINTS):,} test images on the first two principal components "
        f"(PCA) of the codes of {len(z):,} test images. The two hold "
        f"{100 * found.shares.sum():.0f}% of the variance."
    )
    if z.shape[1] > 2:
        note += f" Groups that overlap here may be apart in the other {z.shape[1] - 2} dimensions."
    if labels is None:
        note += " The data set has no class labels, so that all points have one colour."
    elif len(np.unique(labels)) > MOST_CLASSES:
        note += f" There are more than {MOST_CLASSES} classes, so that all points have one colour."
    return note


def _prior(found: Plane, z: np.ndarray, sampled: np.ndarray) -> Chart | None:
    groups = {"test images": found.project(z), "latent prior": found.project(sampled)}
    return scatter(groups, title="Latent prior and aggregate posterior", **_labels(found))


def _prior_note(found: Plane, z: np.ndarray, sampled: np.ndarray | None) -> str:
    if sampled is None:
        return "The model has no latent prior, so that the codes cannot be compared with it."
    ratio = sampled.std(axis=0) / np.maximum(z.std(axis=0), 1e-12)
    shift = np.abs(sampled.mean(axis=0) - z.mean(axis=0)) / np.maximum(z.std(axis=0), 1e-12)
    return (
        "A good prior covers the codes of test images and nothing else, in this plane and in each "
        f"dimension. Over the dimensions, its standard deviation is {ratio.min():.2f} to "
        f"{ratio.max():.2f} times that of the codes of test images, and its mean differs by at "
        f"most {shift.max():.2f} of their standard deviations."
    )


def _dimension(index: int, z: np.ndarray, sampled: np.ndarray | None) -> Dimension:
    both = z if sampled is None else np.concatenate([z, sampled])
    edges = np.histogram_bin_edges(both, BINS)
    heights = [np.histogram(v, edges, density=True)[0] for v in (z, sampled) if v is not None]
    top = max(float(h.max()) for h in heights)
    x = np.round(np.linspace(0, WIDTH, BINS + 1), 1).tolist()
    paths = [outline(x, np.round(HEIGHT * (1 - h / top), 1).tolist(), HEIGHT) for h in heights]
    return Dimension(
        int(index), f"{z.std():.2g}", paths[0], paths[1] if sampled is not None else ""
    )


def _dimensions_note(z: np.ndarray, count: int) -> str:
    std = z.std(axis=0)
    unused = int(np.sum(std < DEAD * std.max()))
    which = "all" if count == len(std) else f"the {count} with the largest standard deviations of"
    return (
        f"Histograms over {len(z):,} test images of {which} {len(std)} dimensions of z, each on "
        f"its own axis. The standard deviations are from {std.min():.2g} to {std.max():.2g}. "
        f"{unused or 'No'} dimension{'s are' if unused > 1 else ' is'} unused (below "
        f"{DEAD:.0%} of the largest)."
    )


def traversals(
    model: DBAE,
    z: np.ndarray,
    chosen: np.ndarray,
    points: int,
    sample: Plan,
) -> ImageGrid:
    """Decodes the first code with one dimension replaced, for several dimensions.

    Args:
      model: a trained model.
      z: codes of test images [N, D]: a dimension goes from its 2% to its 98% quantile.
      chosen: indices of dimensions [K].
      points: number of values of each dimension.
      sample: the sampler.
    """
    code, seed = z[:1].astype(np.float32), noise_seed(sample, free=model.gaussian_endpoint)
    paths = np.repeat(code[None], len(chosen), axis=0).repeat(points, axis=1)
    for row, index in enumerate(chosen):
        low, high = np.quantile(z[:, index], QUANTILES)
        paths[row, :, index] = np.linspace(low, high, points)
    flat = paths.reshape(1, -1, code.shape[1])  # one x_T and one noise for all, as for edits
    images = edits.decode_rows(model, flat, rng=seed, plan=sample)[0]
    rows = images.reshape(len(chosen), points, *images.shape[1:])
    groups = tuple(
        (Panel(strip(row), f"Dimension {i} of z changed", f"dimension {i}"),)
        for i, row in zip(chosen, rows, strict=True)
    )
    positions = tuple(f"{100 * q:.0f}%" for q in np.linspace(*QUANTILES, points))
    return ImageGrid("traversals", "quantile of the dimension", positions, points // 2, groups)
