"""How well single dimensions of a latent code represent attributes: TAD, ATTRS, MIG and DCI."""

import dataclasses

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import KFold

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.metrics import checks
from dbae_jax.metrics.attributes import auroc
from dbae_jax.runtime.progress import track

TAD_CAPTURED = 0.75  # smallest AUROC of a dimension that captures an attribute
TAD_REDUNDANT = 0.2  # largest fraction of an attribute's entropy that another may explain
DCI_EPS = 1e-11  # added to importances: the entropy of a row of zeros is then 1


@dataclasses.dataclass(frozen=True)
class TAD:
    """Total AUROC difference of K attributes.

    Attributes:
      best: largest AUROC of a dimension, of either sign, [K]; NaN for constant attributes, also
        below.
      gap: largest minus second largest AUROC, [K].
      redundancy: largest fraction of an attribute's entropy that another attribute explains, [K].
    """

    best: np.ndarray
    gap: np.ndarray
    redundancy: np.ndarray

    @property
    def captured(self) -> np.ndarray:
        """Whether each attribute is captured and not redundant: bool [K]."""
        return (self.best >= TAD_CAPTURED) & (self.redundancy <= TAD_REDUNDANT)

    @property
    def tad(self) -> float:
        """Sum of the gaps of captured attributes."""
        return float(self.gap[self.captured].sum())

    @property
    def attrs(self) -> int:
        """Number of captured attributes."""
        return int(self.captured.sum())

    @property
    def excluded(self) -> int:
        """Number of constant attributes."""
        return int(np.isnan(self.best).sum())


@dataclasses.dataclass(frozen=True)
class DCI:
    """Disentanglement, completeness and informativeness, each in [0, 1].

    Attributes:
      disentanglement: 1 if each dimension predicts a single factor.
      completeness: 1 if each factor is predicted from a single dimension.
      informativeness: mean test accuracy of the predicted factors.
      importance: importance of dimension d for the prediction of factor k, [D, K].
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def tad(z: np.ndarray, attributes: np.ndarray) -> TAD:
    """Measures how much better the best dimension predicts each attribute than the second best.

    The gap is 0 if two dimensions predict an attribute equally well. Codes of many dimensions
    therefore score low unless attributes lie along axes; compare with a random rotation of z.

    Args:
      z: latent codes, [N, D], D at least 2.
      attributes: labels 0 or 1, [N, K].

    Raises:
      DataError: if shapes or labels are wrong, if a code is not finite, or if all attributes are
        constant.

    Source: Yeats et al. (2022), NashAE; here with the exact AUROC instead of 101 thresholds.
    """
    attributes, z = checks.labelled(attributes, z, "codes")
    if z.shape[1] < 2:
        raise DataError("TAD compares dimensions of a code, but this code has a single dimension.")
    areas = auroc(attributes, z)
    areas = np.maximum(areas, 1 - areas)
    if np.isnan(areas).all():
        raise TooFewError(f"all {attributes.shape[1]} attributes are constant; there is no TAD.")
    second, best = np.sort(areas, axis=1)[:, -2:].T
    return TAD(best, best - second, _redundancy(attributes))


def tad_of_folds(
    z: np.ndarray, attributes: np.ndarray, *, folds: int = 5, seed: int = 0
) -> list[TAD]:
    """Returns the TAD of the training part of each fold.

    InfoDiffusion's table has the mean over folds, for the first 10000 codes of CelebA's training
    split. InfoDiffusion standardises the codes first. The AUROC depends only on ranks, so the
    result is the same.

    Args:
      z: latent codes, [N, D].
      attributes: labels 0 or 1, [N, K].
      folds: number of folds; each training part leaves out 1 / folds of the examples.
      seed: random seed of the folds.

    Raises:
      DataError: as for `tad`.
      TooFewError: if there are fewer examples than folds, or fewer than two folds.
    """
    attributes, z = checks.labelled(attributes, z, "codes")
    parts = training_parts(len(z), folds=folds, seed=seed)
    every = track(parts, "Measuring TAD", total=len(parts), unit="folds")
    return [tad(z[kept], attributes[kept]) for kept in every]


def training_parts(count: int, *, folds: int, seed: int) -> list[np.ndarray]:
    """Returns the row numbers of the training part of each fold.

    Raises:
      TooFewError: if there are fewer rows than folds, or fewer than two folds.
    """
    if not 2 <= folds <= count:
        raise TooFewError(f"{count} examples cannot be split into {folds} folds.")
    splits = KFold(folds, shuffle=True, random_state=seed).split(np.empty(count))
    return [kept for kept, _ in splits]


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the plug-in estimate of I(a; b) in nats.

    Args:
      a: discrete values of any type, [N].
      b: discrete values, [N].
    """
    (_, a), (_, b) = (np.unique(values, return_inverse=True) for values in (a, b))
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    joint = counts / len(a)
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float(np.sum(joint[seen] * np.log(joint[seen] / product[seen])))


def mig(z: np.ndarray, factors: np.ndarray, *, bins: int = 20) -> float:
    """Returns the mutual information gap between the best and the second best dimension.

    The gap of a factor is a fraction of its entropy. The result is the mean over factors. It is 1
    if each factor has a dimension of its own.

    Args:
      z: latent codes, [N, D], D at least 2.
      factors: discrete factors, [N, K].
      bins: number of cells of equal width that each dimension is divided into.

    Raises:
      DataError: if shapes are wrong, if a code is not finite, or if a factor is constant.

    Source: Chen et al. (2018); bins as in Locatello et al. (2019).
    """
    z, factors = _codes_and_factors(z, factors, "codes")
    if z.shape[1] < 2:
        raise DataError("MIG compares dimensions of a code, but this code has a single dimension.")
    cells = [np.digitize(column, np.histogram(column, bins)[1][1:-1]) for column in z.T]
    gaps = []
    for factor in factors.T:
        second, best = np.sort([mutual_information(cell, factor) for cell in cells])[-2:]
        gaps.append((best - second) / mutual_information(factor, factor))
    return float(np.mean(gaps))


def dci(
    train_z: np.ndarray,
    train_factors: np.ndarray,
    test_z: np.ndarray,
    test_factors: np.ndarray,
    *,
    trees: int = 100,
    seed: int = 0,
) -> DCI:
    """Predicts each factor with boosted trees, and measures which dimensions of the code they use.

    Args:
      train_z: training codes, [N, D].
      train_factors: discrete factors of the training codes, [N, K].
      test_z: test codes, [M, D].
      test_factors: factors of the test codes, [M, K].
      trees: number of trees per class of a factor. The time is proportional to N, D, trees and the
        number of classes. For 512 dimensions, 10 to 20 trees and 2000 codes are enough.
      seed: random seed of the order in which the trees try dimensions.

    Raises:
      DataError: if shapes are wrong, if a code is not finite, or if a factor is constant.

    Source: Eastwood and Williams (2018); estimator and constants as in Locatello et al. (2019).
    """
    train_z, train_factors = _codes_and_factors(train_z, train_factors, "training codes")
    test_z, test_factors = _codes_and_factors(test_z, test_factors, "test codes")
    if (train_z.shape[1], train_factors.shape[1]) != (test_z.shape[1], test_factors.shape[1]):
        raise DataError("DCI needs training and test sets with the same dimensions and factors.")
    importance, accuracy = [], []
    for train, test in zip(train_factors.T, test_factors.T, strict=True):
        model = GradientBoostingClassifier(n_estimators=trees, random_state=seed)
        importance.append(np.abs(model.fit(train_z, train).feature_importances_))
        accuracy.append(model.score(test_z, test))
    columns = np.stack(importance, axis=1)
    return DCI(*dci_of_importance(columns), float(np.mean(accuracy)), columns)


def dci_of_importance(importance: np.ndarray) -> tuple[float, float]:
    """Returns disentanglement and completeness for importances [D, K], D and K at least 2."""
    total = importance.sum()
    if min(importance.shape) < 2 or not total > 0:
        raise DataError(
            f"DCI needs at least two dimensions, two factors and an importance above 0, "
            f"got {list(importance.shape)} with sum {total:g}."
        )
    # Each dimension and each factor is weighted by its total importance.
    rows = (1 - _entropy(importance)) @ importance.sum(axis=1)
    columns = (1 - _entropy(importance.T)) @ importance.sum(axis=0)
    return float(rows / total), float(columns / total)


def _entropy(rows: np.ndarray) -> np.ndarray:
    """Returns the entropy of each row, normalised to sum 1, divided by that of a uniform row."""
    p = rows + DCI_EPS
    p = p / p.sum(axis=1, keepdims=True)
    return -np.sum(p * np.log(p), axis=1) / np.log(p.shape[1])


def _redundancy(attributes: np.ndarray) -> np.ndarray:
    """Returns the maximum over j != k of I(k; j) / H(k), [K]; NaN for constant attributes."""
    y = attributes.astype(np.float64)
    information = np.zeros((y.shape[1], y.shape[1]))
    for a in (y, 1 - y):
        for b in (y, 1 - y):
            joint = a.T @ b / len(y)
            product = np.outer(a.mean(axis=0), b.mean(axis=0))
            seen = joint > 0
            information[seen] += joint[seen] * np.log(joint[seen] / product[seen])
    entropy = np.diag(information).copy()
    np.fill_diagonal(information, 0)  # an attribute does not make itself redundant
    constant = attributes.all(axis=0) | ~attributes.any(axis=0)
    entropy[constant] = np.nan
    return information.max(axis=1) / entropy


def _codes_and_factors(
    z: np.ndarray, factors: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    z, factors = checks.feature_matrix(z, name), np.asarray(factors)
    if factors.ndim != 2 or len(factors) != len(z):
        raise DataError(f"factors must be [{len(z)}, K], got {list(factors.shape)}.")
    constant = np.flatnonzero((factors == factors[0]).all(axis=0))
    if len(constant):
        raise DataError(f"factor {constant[0]} of the {name} is constant; leave it out.")
    return z, factors
