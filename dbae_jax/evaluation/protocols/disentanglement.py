"""What single dimensions of a code stand for: TAD and ATTRS, MIG and DCI, each beside a baseline.

The baseline is the same code turned at random: it holds the same information, so the difference is
owed to the directions of the axes alone. Codes are standardised first, as InfoDiffusion does; it
matters to the turned ones only.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.evaluation.results import score
from dbae_jax.metrics import checks
from dbae_jax.metrics import disentanglement as metric
from dbae_jax.metrics.disentanglement import TAD

Entries = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits and seeds.

    rows: codes of TAD and MIG, from the beginning of the training split. folds: of TAD, shuffled by
    seed. rotations: turned codes beside them; at most one a fold. bins: of MIG, a dimension.
    dci_rows: codes of DCI, of the training and of the test split each. trees: of DCI, a class. DCI
    takes time that grows with dci_rows, trees and the width of the code.
    """

    rows: int = 10_000
    folds: int = 5
    seed: int = 0
    rotations: int = 5
    bins: int = 20
    dci_rows: int = 2_000
    trees: int = 20


def attribute_scores(
    z: np.ndarray,
    attributes: np.ndarray,
    names: Sequence[str],
    settings: Settings = Settings(),
) -> Entries:
    """Returns tad and attrs with a value a fold, tad_rotated and attrs_rotated with one a rotation.

    Args:
      z: [N, D], codes of the training split in the order of its file; the first `rows` are used.
        (InfoDiffusion mirrors images at random before.)
      attributes: [N, K], 0 or 1.
      names: of the K attributes.
      settings: see there.

    Raises:
      DataError: for other shapes or labels, codes not finite, a code of one dimension, or fewer
        examples than folds.

    Source: Yeats et al. (2022); folds, rows and standardisation as in InfoDiffusion (2023).
    """
    z, attributes = z[: settings.rows], np.asarray(attributes)[: settings.rows]
    attributes, z = checks.labelled(attributes, z, "codes")
    _check_names(names, attributes, "attributes")
    z = standardised(z)
    folds = metric.tad_of_folds(z, attributes, folds=settings.folds, seed=settings.seed)
    turned = [
        metric.tad(turn(z, settings.seed + 1 + r)[rows], attributes[rows])
        for r, rows in zip(
            range(settings.rotations),
            metric.training_parts(len(z), folds=settings.folds, seed=settings.seed),
            strict=False,
        )
    ]
    details = {"rows": len(z), "dimensions": z.shape[1], "excluded": folds[0].excluded}
    entries = {
        "tad": score(
            [f.tad for f in folds], "higher", attributes=_by_name(folds, names), **details
        ),
        "attrs": score([f.attrs for f in folds], "higher", captured=_captured(folds, names)),
    }
    if turned:
        entries["tad_rotated"] = score([f.tad for f in turned], None)
        entries["attrs_rotated"] = score(
            [f.attrs for f in turned], None, captured=_captured(turned, names)
        )
    return entries


def factor_scores(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
    settings: Settings = Settings(),
) -> Entries:
    """Returns mig, dci_disentanglement, dci_completeness and dci_informativeness, and `_rotated`.

    Factors that are constant in one of the splits are left out and named in the details.

    Args:
      train: codes [N, D] and factors [N, K], discrete.
      test: the same of other images.
      names: of the K factors.
      settings: see there.

    Raises:
      TooFewError: for fewer than two factors that vary.
      DataError: for other shapes, codes not finite, or a code of one dimension.
    """
    (z, factors), (test_z, test_factors) = (
        (checks.feature_matrix(codes, "codes"), np.asarray(known)) for codes, known in (train, test)
    )
    _check_names(names, factors, "factors")
    _check_names(names, test_factors, "factors")
    small, small_test = factors[: settings.dci_rows], test_factors[: settings.dci_rows]
    varies = (small != small[0]).any(axis=0) & (small_test != small_test[0]).any(axis=0)
    if varies.sum() < 2:
        raise TooFewError(
            f"MIG and DCI need two factors that vary, here are {int(varies.sum())} of "
            f"{len(names)} in {len(small)} training and {len(small_test)} test images."
        )
    kept = [name for name, keep in zip(names, varies, strict=True) if keep]
    left_out = [name for name in names if name not in kept] or None
    factors, test_factors = factors[:, varies], test_factors[:, varies]
    z, test_z = _standardised_alike(z, test_z)
    entries: Entries = {}
    for suffix, seed in (("", None), ("_rotated", settings.seed + 1)):
        codes = [some if seed is None else turn(some, seed) for some in (z, test_z)]
        pairs = (codes[0], factors), (codes[1], test_factors)
        found = _mig(*pairs[0], kept, settings) | _dci(*pairs, kept, settings)
        better = "higher" if seed is None else None
        for name, (value, details) in found.items():
            entries[name + suffix] = score(value, better, left_out=left_out, **details)
    return entries


def turn(z: np.ndarray, seed: int) -> np.ndarray:
    """Returns codes [N, D] in axes turned at random, all directions being equally likely."""
    width = z.shape[1]
    drawn = np.random.default_rng(seed).standard_normal((width, width))
    q, r = np.linalg.qr(drawn)
    return z @ (q * np.sign(np.diag(r)))  # without the signs not all turns are equally likely


def standardised(z: np.ndarray) -> np.ndarray:
    """Returns codes of mean 0 and deviation 1 in each dimension; constant ones become 0."""
    return _standardised_alike(z, z)[0]


def _standardised_alike(z: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, std = z.mean(axis=0), z.std(axis=0)
    scale = np.where(std > 1e-12 * np.maximum(1, np.abs(mean)), std, np.inf)
    return (z - mean) / scale, (other - mean) / scale


def _mig(z: np.ndarray, factors: np.ndarray, names: list[str], settings: Settings):
    z, factors = z[: settings.rows], factors[: settings.rows]
    gaps = [metric.mig(z, factors[:, [k]], bins=settings.bins) for k in range(len(names))]
    details = {"rows": len(z), "bins": settings.bins}
    details["factors"] = dict(zip(names, gaps, strict=True))
    return {"mig": (float(np.mean(gaps)), details)}


def _dci(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: list[str],
    settings: Settings,
):
    train, test = (tuple(a[: settings.dci_rows] for a in pair) for pair in (train, test))
    found = metric.dci(*train, *test, trees=settings.trees, seed=settings.seed)
    details = {"rows": [len(train[0]), len(test[0])], "trees": settings.trees}
    best = found.importance.argmax(axis=0)
    strongest = {
        name: {"dimension": int(d), "importance": float(found.importance[d, k])}
        for k, (name, d) in enumerate(zip(names, best, strict=True))
    }
    return {
        "dci_disentanglement": (found.disentanglement, details | {"strongest": strongest}),
        "dci_completeness": (found.completeness, details),
        "dci_informativeness": (found.informativeness, details),
    }


def _check_names(names: Sequence[str], values: np.ndarray, what: str) -> None:
    if values.ndim != 2 or values.shape[1] != len(names):
        raise DataError(
            f"{what} must be [N, {len(names)}], as many as names: {list(values.shape)}."
        )


def _captured(folds: Sequence[TAD], names: Sequence[str]) -> dict[str, int]:
    """Returns in how many folds each attribute is captured, of those that ever are."""
    counts = np.sum([fold.captured for fold in folds], axis=0)
    return {name: int(n) for name, n in zip(names, counts, strict=True) if n}


def _by_name(folds: Sequence[TAD], names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Returns means over folds, an attribute each; None where it is constant."""
    found = {}
    for k, name in enumerate(names):
        means = {
            field: float(np.mean([getattr(fold, field)[k] for fold in folds]))
            for field in ("best", "gap", "redundancy")
        }
        found[name] = {f: None if np.isnan(value) else value for f, value in means.items()}
    return found
