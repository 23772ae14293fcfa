"""Kernel distance, precision and recall of two feature sets, and a score of class logits.

The kernel distance is unbiased. The Frechet distance of a few thousand images, as an evaluation
during training has them, depends mostly on their number. On published Inception features the
kernel distance is KID, which InfoDiffusion reports together with FID.

The network that computed the features decides what the numbers may be called; see `generation`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy.special import log_softmax

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks

NAMES = ("generated features", "real features")
BLOCK = 512  # rows of the distance matrix per block: 200 MB for 50000 columns


@dataclasses.dataclass(frozen=True)
class MeanAndStd:
    """The mean of a score over parts of the data, and its standard deviation between the parts."""

    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """Improved precision and recall, each in [0, 1].

    Attributes:
      precision: fraction of generated images inside the manifold of the real images.
      recall: fraction of real images inside the manifold of the generated images.
    """

    precision: float
    recall: float


def kernel_distance(
    generated: np.ndarray,
    real: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    paired: bool = False,
) -> MeanAndStd:
    """Returns the squared maximum mean discrepancy for the kernel (x.y / D + 1)^3.

    The estimate is unbiased and may be negative. It is the mean over random subsets.

    Args:
      generated: features of generated images, [N, D].
      real: features of real images, [M, D].
      subsets: number of random subsets.
      subset_size: images of each set per subset.
      seed: random seed of the subsets.
      paired: whether rows with the same index belong together, such as an image and its
        reconstruction. Two such rows are never compared with each other, because they are not
        independent: the estimate would be too low.

    Raises:
      DataError: if a set is smaller than a subset (two subsets for paired rows), if the widths
        differ, or if a feature is not finite.

    Source: Binkowski et al. (2018).
    """
    rows = 2 * subset_size if paired else subset_size
    sets = checks.feature_pair(generated, real, NAMES, at_least=max(2, rows))
    rng = np.random.RandomState(seed)  # this generator gives the subsets of torch-fidelity
    values = []
    for _ in range(subsets):
        if paired:
            chosen = list(rng.choice(min(map(len, sets)), rows, replace=False).reshape(2, -1))
        else:
            chosen = [rng.choice(len(s), subset_size, replace=False) for s in sets]
        x, y = (s[indices] for s, indices in zip(sets, chosen, strict=True))
        values.append(_within(x) + _within(y) - 2 * _kernel(x, y).mean())
    return MeanAndStd(float(np.mean(values)), float(np.std(values)))


def precision_recall(generated: np.ndarray, real: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Returns improved precision and recall.

    The manifold of a set is a union of balls, one around each feature. The radius of a ball is the
    distance to the k-th nearest neighbour, and the border belongs to the ball. A feature is not its
    own neighbour. Precision is the fraction of generated features in the manifold of the real ones.
    Recall is the fraction of real features in the manifold of the generated ones.

    Args:
      generated: features of generated images, [N, D].
      real: features of real images, [M, D].
      k: rank of the neighbour that sets the radius.

    Raises:
      DataError: if a set has k members or fewer, if the widths differ, or if a feature is not
        finite.

    Source: Kynkaanniemi et al. (2019).
    """
    if k < 1:
        raise DataError(f"precision and recall need k >= 1, got {k}.")
    generated, real = checks.feature_pair(generated, real, NAMES, at_least=k + 1)
    centre = real.mean(axis=0)  # features far from 0 would lose digits of short distances
    generated, real = generated - centre, real - centre
    return PrecisionRecall(
        precision=_fraction_inside(generated, real, k), recall=_fraction_inside(real, generated, k)
    )


def classifier_score(
    logits: np.ndarray, *, splits: int = 10, shuffle_seed: int | None = 2020
) -> MeanAndStd:
    """Returns exp E KL(p(y|x) || p(y)), as the mean over splits.

    The score is 1 if all images have the same class probabilities. It is the number of classes if
    every image has one certain class and the classes are balanced. For the published Inception
    network's logits without bias, this is the Inception Score.

    Args:
      logits: class logits, [N, classes].
      splits: number of parts of the images; each part has its own p(y).
      shuffle_seed: random seed of a shuffle before the split, as in torch-fidelity. None keeps the
        order, as in ADM's evaluation (which has 5000 images per split).

    Raises:
      DataError: if there are fewer images than splits, or if a logit is not finite.

    Source: Salimans et al. (2016).
    """
    if splits < 1:
        raise DataError(f"the score needs at least one split, got {splits}.")
    logits = checks.feature_matrix(logits, "logits", at_least=splits)
    if shuffle_seed is not None:
        logits = logits[np.random.RandomState(shuffle_seed).permutation(len(logits))]
    log_p = log_softmax(logits, axis=1)
    values = []
    for i in range(splits):
        part = log_p[i * len(log_p) // splits : (i + 1) * len(log_p) // splits]
        p = np.exp(part)
        with np.errstate(divide="ignore"):  # a class whose probability is 0 in every image
            log_q = np.log(p.mean(axis=0))
        divergence = np.sum(p * np.where(p > 0, part - log_q, 0), axis=1)
        values.append(np.exp(divergence.mean()))
    return MeanAndStd(float(np.mean(values)), float(np.std(values)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _within(x: np.ndarray) -> float:
    """Returns the mean kernel value over pairs of different rows."""
    values = _kernel(x, x)
    return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))


def _fraction_inside(x: np.ndarray, manifold: np.ndarray, k: int) -> float:
    """Returns the fraction of the rows of x that lie in a ball around a row of `manifold`."""
    radii = np.empty(len(manifold))
    for start, squares in _squared_distances(manifold, manifold):
        rows = np.arange(len(squares))
        squares[rows, start + rows] = np.inf  # a row is not its own neighbour
        radii[start : start + len(squares)] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    # The border belongs to the ball, but equal distances may differ in their last digits.
    scale = max(np.sum(x * x, axis=1).max(), np.sum(manifold * manifold, axis=1).max())
    limit = radii + 1e-13 * scale
    inside = [(squares <= limit).any(axis=1) for _, squares in _squared_distances(x, manifold)]
    return float(np.concatenate(inside).mean())


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, squared distances [rows, len(y)]) for each block of rows of x."""
    y_squares = np.sum(y * y, axis=1)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        squares = rows @ y.T
        squares *= -2
        squares += y_squares
        squares += np.sum(rows * rows, axis=1)[:, None]
        yield start, squares
