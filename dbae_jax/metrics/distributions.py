"""Sets of features compared: kernel distance, precision and recall; the score of class logits.

The kernel distance is here because it is unbiased: at the few thousand images of a run in progress
the Frechet distance mostly measures their number. On published Inception features it is KID, which
InfoDiffusion reports beside FID.

Whose features these are decides what the numbers may be called; see `generation`.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy.special import log_softmax

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks

NAMES = ("generated features", "real features")
BLOCK = 512  # rows of distances at a time: 200 MB beside 50000 columns


@dataclasses.dataclass(frozen=True)
class Spread:
    """A mean over parts of the data, and the standard deviation between parts."""

    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """Shares, in [0, 1], of generated images that are realistic, and of real ones reached."""

    precision: float
    recall: float


def kernel_distance(
    generated: np.ndarray,
    real: np.ndarray,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> Spread:
    """Returns the squared maximum mean discrepancy for the kernel (x.y / D + 1)^3.

    The unbiased estimate, which may be negative, as the mean over random subsets.

    Args:
      generated: [N, D].
      real: [M, D].
      subsets: number of subsets.
      subset_size: images in each, of both sets.
      seed: of the subsets.

    Raises:
      DataError: for sets smaller than a subset, different widths, or features not finite.

    Source: Binkowski et al. (2018).
    """
    sets = checks.feature_pair(generated, real, NAMES, at_least=max(2, subset_size))
    rng = np.random.RandomState(seed)  # its subsets are those of torch-fidelity
    values = []
    for _ in range(subsets):
        x, y = (s[rng.choice(len(s), subset_size, replace=False)] for s in sets)
        values.append(_within(x) + _within(y) - 2 * _kernel(x, y).mean())
    return Spread(float(np.mean(values)), float(np.std(values)))


def precision_recall(generated: np.ndarray, real: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Returns improved precision and recall.

    A set reaches as far as balls around its members, each with the radius of the distance to its
    k-th nearest neighbour (itself not counted, by index; the border belongs to the ball).
    Precision: the share of generated features in a ball of a real one; recall: the other way round.

    Args:
      generated: [N, D].
      real: [M, D].
      k: which neighbour.

    Raises:
      DataError: for sets of k members or fewer, different widths, or features not finite.

    Source: Kynkaanniemi et al. (2019).
    """
    if k < 1:
        raise DataError(f"precision and recall need a neighbour k >= 1, got {k}.")
    generated, real = checks.feature_pair(generated, real, NAMES, at_least=k + 1)
    centre = real.mean(axis=0)  # long vectors would lose digits of short distances
    generated, real = generated - centre, real - centre
    return PrecisionRecall(
        precision=_share_inside(generated, real, k), recall=_share_inside(real, generated, k)
    )


def classifier_score(
    logits: np.ndarray, *, splits: int = 10, shuffle_seed: int | None = 2020
) -> Spread:
    """Returns exp E KL(p(y|x) || p(y)): the mean over splits.

    1 if the classes of all images are alike, the number of classes if they are sure and balanced.
    Of the published Inception network's logits without bias this is the Inception Score.

    Args:
      logits: [N, classes].
      splits: parts of the images, each with a p(y) of its own.
      shuffle_seed: images are shuffled first, as torch-fidelity does; None keeps their order, as
        ADM's evaluation does (with as many splits as there are 5000 images).

    Raises:
      DataError: for fewer images than splits, or logits that are not finite.

    Source: Salimans et al. (2016).
    """
    if splits < 1:
        raise DataError(f"the score needs a split or more, got {splits}.")
    logits = checks.feature_matrix(logits, "logits", at_least=splits)
    if shuffle_seed is not None:
        logits = logits[np.random.RandomState(shuffle_seed).permutation(len(logits))]
    log_p = log_softmax(logits, axis=1)
    values = []
    for i in range(splits):
        part = log_p[i * len(log_p) // splits : (i + 1) * len(log_p) // splits]
        p = np.exp(part)
        with np.errstate(divide="ignore"):  # a class that underflows in every image
            log_q = np.log(p.mean(axis=0))
        divergence = np.sum(p * np.where(p > 0, part - log_q, 0), axis=1)
        values.append(np.exp(divergence.mean()))
    return Spread(float(np.mean(values)), float(np.std(values)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _within(x: np.ndarray) -> float:
    """Mean kernel of two different members."""
    values = _kernel(x, x)
    return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))


def _share_inside(x: np.ndarray, manifold: np.ndarray, k: int) -> float:
    radii = np.empty(len(manifold))
    for start, squares in _squared_distances(manifold, manifold):
        rows = np.arange(len(squares))
        squares[rows, start + rows] = np.inf  # itself, whose distance is not 0 after rounding
        radii[start : start + len(squares)] = np.partition(squares, k - 1, axis=1)[:, k - 1]
    # Equal distances may differ in their last digits: the border belongs to the ball.
    scale = max(np.sum(x * x, axis=1).max(), np.sum(manifold * manifold, axis=1).max())
    limit = radii + 1e-13 * scale
    inside = [(squares <= limit).any(axis=1) for _, squares in _squared_distances(x, manifold)]
    return float(np.concatenate(inside).mean())


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, squared distances [rows, len(y)]), a block of rows of x at a time."""
    y_squares = np.sum(y * y, axis=1)
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK]
        squares = rows @ y.T
        squares *= -2
        squares += y_squares
        squares += np.sum(rows * rows, axis=1)[:, None]
        yield start, squares
