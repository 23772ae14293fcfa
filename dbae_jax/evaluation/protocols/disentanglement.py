"""Measures how single dimensions of a latent code represent attributes and factors.

The scores are TAD, ATTRS, MIG and DCI. The baseline of each score uses randomly rotated codes,
which hold the same information. A difference therefore comes only from the directions of the axes.
Codes are standardised first, as in InfoDiffusion; this changes only the baselines.
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
from dbae_jax.runtime.progress import track

Entries = dict[str, dict[str, Any]]
Found = dict[str, tuple[float, dict[str, Any]]]  # name of a score -> value and details


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of examples, and other settings of the scores.

    Attributes:
      rows: number of codes for TAD and MIG, from the beginning of the training split.
      folds: number of folds of TAD.
      seed: seed of the folds and of DCI; the seeds of the rotations follow it.
      rotations: number of random rotations for TAD, at most one for each fold.
      bins: number of bins per dimension for MIG.
      dci_rows: number of training codes for DCI, and of test codes. The time of DCI grows with
        this number, with `trees` and with the latent dimension.
      trees: number of trees per class for DCI.
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
    """Returns the scores "tad" and "attrs", and "tad_rotated" and "attrs_rotated" as baselines.

    The first two have one value per fold. The baselines have one value per rotation.

    Args:
      z: latent codes [N, D] of the training split in the order of its file. The first
        `settings.rows` codes are used. (InfoDiffusion also mirrors images at random.)
      attributes: attributes [N, K], 0 or 1.
      names: names of the K attributes.
      settings: numbers of examples and other settings.

    Raises:
      DataError: if the shapes are wrong, attributes are not 0 or 1, codes are not finite, or
        codes have a single dimension.
      TooFewError: if there are fewer examples than folds.

    Source: Yeats et al. (2022); folds, rows and standardisation as in InfoDiffusion (2023).
    """
    z, attributes = z[: settings.rows], np.asarray(attributes)[: settings.rows]
    attributes, z = checks.labelled(attributes, z, "codes")
    _check_names(names, attributes, "attributes")
    z = standardised(z)
    of_folds = {"folds": settings.folds, "seed": settings.seed}
    folds = metric.tad_of_folds(z, attributes, **of_folds)
    of_rotations = metric.training_parts(len(z), **of_folds)[: settings.rotations]
    every = track(of_rotations, "Measuring TAD", total=len(of_rotations), unit="rotated codes")
    rotated = [
        metric.tad(rotate(z, settings.seed + 1 + r)[rows], attributes[rows])
        for r, rows in enumerate(every)
    ]
    details = {"rows": len(z), "dimensions": z.shape[1], "excluded": folds[0].excluded}
    entries = {
        "tad": score(
            [f.tad for f in folds], "higher", attributes=_by_name(folds, names), **details
        ),
        "attrs": score([f.attrs for f in folds], "higher", captured=_captured(folds, names)),
    }
    if rotated:
        entries["tad_rotated"] = score([f.tad for f in rotated], None)
        entries["attrs_rotated"] = score(
            [f.attrs for f in rotated], None, captured=_captured(rotated, names)
        )
    return entries


def factor_scores(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
    settings: Settings = Settings(),
) -> Entries:
    """Returns "mig", "dci_disentanglement", "dci_completeness" and "dci_informativeness".

    The baselines with randomly rotated codes have the same names with the ending "_rotated".
    Factors that are constant in one of the splits are left out, and the details name them.

    Args:
      train: latent codes [N, D] and discrete factors [N, K] of training images.
      test: latent codes and factors of test images.
      names: names of the K factors.
      settings: numbers of examples and other settings.

    Raises:
      TooFewError: if fewer than two factors vary.
      DataError: if the shapes are wrong, codes are not finite, or codes have a single dimension.
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
            f"MIG and DCI need two factors that vary; only {int(varies.sum())} of {len(names)} "
            f"do in {len(small)} training and {len(small_test)} test images."
        )
    kept = [name for name, keep in zip(names, varies, strict=True) if keep]
    left_out = [name for name in names if name not in kept] or None
    factors, test_factors = factors[:, varies], test_factors[:, varies]
    z, test_z = _standardised_by_first(z, test_z)
    entries: Entries = {}
    variants = (("", None), ("_rotated", settings.seed + 1))
    for suffix, seed in track(variants, "Measuring MIG and DCI", total=2, unit="codes"):
        codes = [some if seed is None else rotate(some, seed) for some in (z, test_z)]
        pairs = (codes[0], factors), (codes[1], test_factors)
        found = _mig(*pairs[0], kept, settings) | _dci(*pairs, kept, settings)
        better = "higher" if seed is None else None
        for name, (value, details) in found.items():
            entries[name + suffix] = score(value, better, left_out=left_out, **details)
    return entries


def rotate(z: np.ndarray, seed: int) -> np.ndarray:
    """Returns codes [N, D] after a random orthogonal map, uniform over all such maps."""
    width = z.shape[1]
    gaussian = np.random.default_rng(seed).standard_normal((width, width))
    q, r = np.linalg.qr(gaussian)
    return z @ (q * np.sign(np.diag(r)))  # without the signs, the map would not be uniform


def standardised(z: np.ndarray) -> np.ndarray:
    """Returns codes with mean 0 and standard deviation 1; constant dimensions become 0."""
    return _standardised_by_first(z, z)[0]


def _standardised_by_first(z: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both arrays, standardised with mean and standard deviation of the first one."""
    mean, std = z.mean(axis=0), z.std(axis=0)
    scale = np.where(std > 1e-12 * np.maximum(1, np.abs(mean)), std, np.inf)
    return (z - mean) / scale, (other - mean) / scale


def _mig(z: np.ndarray, factors: np.ndarray, names: list[str], settings: Settings) -> Found:
    z, factors = z[: settings.rows], factors[: settings.rows]
    gaps = [metric.mig(z, factors[:, [k]], bins=settings.bins) for k in range(len(names))]
    details: dict[str, Any] = {"rows": len(z), "bins": settings.bins}
    details["factors"] = dict(zip(names, gaps, strict=True))
    return {"mig": (float(np.mean(gaps)), details)}


def _dci(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: list[str],
    settings: Settings,
) -> Found:
    arrays = [values[: settings.dci_rows] for values in (*train, *test)]
    found = metric.dci(*arrays, trees=settings.trees, seed=settings.seed)
    details = {"rows": [len(arrays[0]), len(arrays[2])], "trees": settings.trees}
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
            f"{what} must be [N, {len(names)}], one column per name, got {list(values.shape)}."
        )


def _captured(folds: Sequence[TAD], names: Sequence[str]) -> dict[str, int]:
    """Returns for each captured attribute the number of folds in which it is captured."""
    counts = np.sum([fold.captured for fold in folds], axis=0)
    return {name: int(n) for name, n in zip(names, counts, strict=True) if n}


def _by_name(folds: Sequence[TAD], names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Returns the means over folds for each attribute; None if the attribute is constant."""
    found = {}
    for k, name in enumerate(names):
        means = {
            field: float(np.mean([getattr(fold, field)[k] for fold in folds]))
            for field in ("best", "gap", "redundancy")
        }
        found[name] = {f: None if np.isnan(value) else value for f, value in means.items()}
    return found
