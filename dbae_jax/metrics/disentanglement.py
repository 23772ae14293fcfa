"""How single dimensions of a code stand for single attributes: TAD, ATTRS, MIG and DCI."""

import dataclasses

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import KFold

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.metrics import checks
from dbae_jax.metrics.attributes import auroc

TAD_CAPTURED = 0.75  # AUROC from which a dimension is said to capture an attribute
TAD_REDUNDANT = 0.2  # share of an attribute's entropy that another attribute may explain
DCI_EPS = 1e-11  # added to importances, so that a factor no code explains has full entropy


@dataclasses.dataclass(frozen=True)
class TAD:
    """Total AUROC difference of K attributes. Arrays [K]; NaN where an attribute is constant.

    best: largest AUROC of a dimension, of either sign. gap: best minus second best. redundancy:
    largest share of the attribute's entropy that another attribute explains.
    """

    best: np.ndarray
    gap: np.ndarray
    redundancy: np.ndarray

    @property
    def captured(self) -> np.ndarray:
        """Which attributes are captured and not redundant: bool [K]."""
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
    """Disentanglement, completeness and informativeness (test accuracy), each in [0, 1].

    importance: [D, K], of dimension d for the prediction of factor k.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    importance: np.ndarray


def tad(z: np.ndarray, attributes: np.ndarray) -> TAD:
    """Measures which attributes a single dimension of the code tells, better than any other does.

    Between two dimensions that know an attribute equally there is no gap, so codes of many
    dimensions score low unless attributes lie along axes; compare with a random rotation of z.

    Args:
      z: [N, D], D at least 2.
      attributes: [N, K], 0 or 1.

    Raises:
      DataError: for other shapes or labels, codes not finite, or nothing but constant attributes.

    Source: Yeats et al. (2022), NashAE; AUROC exactly, not by 101 thresholds.
    """
    attributes, z = checks.labelled(attributes, z, "codes")
    if z.shape[1] < 2:
        raise DataError("TAD compares dimensions of the code; this one has a single dimension.")
    areas = auroc(attributes, z)
    areas = np.maximum(areas, 1 - areas)
    if np.isnan(areas).all():
        raise DataError(f"all {attributes.shape[1]} attributes are constant; there is no TAD.")
    second, best = np.sort(areas, axis=1)[:, -2:].T
    return TAD(best, best - second, _redundancy(attributes))


def tad_over_folds(
    z: np.ndarray, attributes: np.ndarray, *, folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Returns mean and standard deviation of TAD and ATTRS over the training parts of folds.

    The protocol of InfoDiffusion's table, which takes the first 10000 codes of CelebA's training
    split. It standardises codes first; AUROC goes by ranks and does not see that.

    Args:
      z: [N, D].
      attributes: [N, K], 0 or 1.
      folds: each leaves out 1 / folds of the examples.
      seed: of the folds.
    """
    measured = tad_of_folds(z, attributes, folds=folds, seed=seed)
    gaps, counts = [m.tad for m in measured], [m.attrs for m in measured]
    return {
        "tad": float(np.mean(gaps)),
        "tad_std": float(np.std(gaps)),
        "attrs": float(np.mean(counts)),
        "attrs_std": float(np.std(counts)),
    }


def tad_of_folds(
    z: np.ndarray, attributes: np.ndarray, *, folds: int = 5, seed: int = 0
) -> list[TAD]:
    """Returns what `tad_over_folds` averages: TAD of the training part of each fold."""
    attributes, z = checks.labelled(attributes, z, "codes")
    parts = training_parts(len(z), folds=folds, seed=seed)
    return [tad(z[kept], attributes[kept]) for kept in parts]


def training_parts(count: int, *, folds: int, seed: int) -> list[np.ndarray]:
    """Returns the rows of each fold's training part.

    Raises:
      TooFewError: for fewer rows than folds, or fewer than two folds.
    """
    if not 2 <= folds <= count:
        raise TooFewError(f"{count} examples cannot be cut into {folds} folds.")
    splits = KFold(folds, shuffle=True, random_state=seed).split(np.empty(count))
    return [kept for kept, _ in splits]


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the plug-in estimate of I(a; b) in nats.

    Args:
      a: [N], any discrete values.
      b: [N].
    """
    (_, a), (_, b) = (np.unique(values, return_inverse=True) for values in (a, b))
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    joint = counts / len(a)
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float(np.sum(joint[seen] * np.log(joint[seen] / product[seen])))


def mig(z: np.ndarray, factors: np.ndarray, *, bins: int = 20) -> float:
    """Returns the mutual information gap: how much more the best dimension knows than the second.

    In parts of each factor's entropy, the mean over factors; 1 if each has a dimension to itself.

    Args:
      z: [N, D], D at least 2; each dimension is cut into `bins` cells of equal width.
      factors: [N, K], discrete.

    Raises:
      DataError: for other shapes, codes not finite, or a constant factor.

    Source: Chen et al. (2018); bins as in Locatello et al. (2019).
    """
    z, factors = _codes_and_factors(z, factors, "codes")
    if z.shape[1] < 2:
        raise DataError("MIG compares dimensions of the code; this one has a single dimension.")
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
    """Predicts each factor from the code with boosted trees, and asks which dimensions they use.

    Args:
      train_z: [N, D].
      train_factors: [N, K], discrete.
      test_z: [M, D].
      test_factors: [M, K].
      trees: a class, of each factor; the time grows with N D trees and the number of classes. For
        512 dimensions 10 to 20 trees and 2000 codes do.
      seed: of the order in which the trees try dimensions.

    Raises:
      DataError: for other shapes, codes not finite, or a constant factor.

    Source: Eastwood and Williams (2018); estimator and constants as in Locatello et al. (2019).
    """
    train_z, train_factors = _codes_and_factors(train_z, train_factors, "training codes")
    test_z, test_factors = _codes_and_factors(test_z, test_factors, "test codes")
    if (train_z.shape[1], train_factors.shape[1]) != (test_z.shape[1], test_factors.shape[1]):
        raise DataError("DCI needs training and test sets of the same dimensions and factors.")
    importance, accuracy = [], []
    for train, test in zip(train_factors.T, test_factors.T, strict=True):
        model = GradientBoostingClassifier(n_estimators=trees, random_state=seed)
        importance.append(np.abs(model.fit(train_z, train).feature_importances_))
        accuracy.append(model.score(test_z, test))
    columns = np.stack(importance, axis=1)
    return DCI(*dci_of_importance(columns), float(np.mean(accuracy)), columns)


def dci_of_importance(importance: np.ndarray) -> tuple[float, float]:
    """Returns disentanglement and completeness of importances [D, K], D and K at least 2."""
    total = importance.sum()
    if min(importance.shape) < 2 or not total > 0:
        raise DataError(
            f"DCI needs two dimensions, two factors and an importance above 0, "
            f"got {list(importance.shape)} with sum {total:g}."
        )
    # A dimension counts as much as it is used, a factor as much as it is explained.
    rows = (1 - _entropy(importance)) @ importance.sum(axis=1)
    columns = (1 - _entropy(importance.T)) @ importance.sum(axis=0)
    return float(rows / total), float(columns / total)


def _entropy(rows: np.ndarray) -> np.ndarray:
    """Entropies of rows made to sum to 1, in units of that of a uniform row."""
    p = rows + DCI_EPS
    p = p / p.sum(axis=1, keepdims=True)
    return -np.sum(p * np.log(p), axis=1) / np.log(p.shape[1])


def _redundancy(attributes: np.ndarray) -> np.ndarray:
    """max over j != k of I(k; j) / H(k), [K]."""
    y = attributes.astype(np.float64)
    information = np.zeros((y.shape[1], y.shape[1]))
    for a in (y, 1 - y):
        for b in (y, 1 - y):
            joint = a.T @ b / len(y)
            product = np.outer(a.mean(axis=0), b.mean(axis=0))
            seen = joint > 0
            information[seen] += joint[seen] * np.log(joint[seen] / product[seen])
    entropy = np.diag(information).copy()
    np.fill_diagonal(information, 0)  # of an attribute with itself
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
        raise DataError(f"factor {constant[0]} is constant beside the {name}; leave it out.")
    return z, factors
