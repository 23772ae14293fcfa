"""Measures edits of an attribute by a classifier's logits before and after the edit.

A good edit changes the target attribute and no other attribute. The classifier is trained on real
images (`evaluation.classifier`). The unit of a logit's change is the logit's standard deviation
over real images, so that the changes of different attributes are comparable.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.metrics import checks


@dataclasses.dataclass(frozen=True)
class EditScores:
    """The scores of an edit of N images at S scales.

    Attributes:
      scales: scales of the edit, [S].
      target: mean change of the target's logit in standard deviations, [S].
      others: mean absolute change of the other attributes' logits in their standard deviations,
        [S].
      flipped: fraction of images whose predicted attribute changes in the direction of the scale,
        [S]. Only images that can change in this direction count; NaN if there are none.
      monotonic: Spearman's correlation of the scale and the target's logit for each image, [N].
        The unedited image counts as scale 0. NaN if the logit does not change.
    """

    scales: np.ndarray
    target: np.ndarray
    others: np.ndarray
    flipped: np.ndarray
    monotonic: np.ndarray


def edit_scores(
    before: np.ndarray,
    after: np.ndarray,
    scales: Sequence[float],
    target: int,
    *,
    real: np.ndarray,
    left_out: Sequence[int] = (),
) -> EditScores:
    """Returns the scores of an edit, computed from a classifier's logits.

    Args:
      before: logits [N, K] of the images that the model decodes without an edit. Reconstruction
        errors therefore do not count as changes.
      after: logits [S, N, K] of the edited images.
      scales: S scales, none of them 0. A positive scale increases the target attribute.
      target: index of the target attribute.
      real: logits [M, K] of real images.
      left_out: indices of attributes that do not count as others, because the target implies or
        excludes them.

    Raises:
      DataError: if shapes are wrong, logits are not finite, a scale is 0, or a logit is the same
        for all real images.
      TooFewError: if there is no other attribute.
    """
    before, after, std = _checked(before, after, scales, real)
    others = np.setdiff1d(np.arange(before.shape[1]), [target, *left_out])
    if not 0 <= target < before.shape[1] or not len(others):
        raise TooFewError(
            f"No other attribute of {before.shape[1]} is left to compare attribute {target} with; "
            f"{list(left_out)} are left out."
        )
    change = (after - before) / std
    has = before[:, target] > 0
    return EditScores(
        scales=np.asarray(scales, np.float64),
        target=change[:, :, target].mean(axis=1),
        others=np.abs(change[:, :, others]).mean(axis=(1, 2)),
        flipped=np.array(
            [
                _flipped(has, row > 0, scale > 0)
                for row, scale in zip(after[:, :, target], scales, strict=True)
            ]
        ),
        monotonic=_monotonic(before[:, target], after[:, :, target], np.asarray(scales)),
    )


def _checked(
    before: np.ndarray, after: np.ndarray, scales: Sequence[float], real: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the logits before and after, and the standard deviations [K] over real images."""
    before, real = checks.feature_pair(before, real, ("logits before", "logits of real images"))
    after = np.asarray(after, np.float64)
    if after.shape != (len(scales), *before.shape) or not len(scales):
        raise DataError(
            f"Logits after an edit must be [{len(scales)}, {len(before)}, {before.shape[1]}] for "
            f"{len(scales)} scales, got {list(after.shape)}."
        )
    if not np.isfinite(after).all():
        raise DataError("Logits after an edit must be finite.")
    if not np.all(scales) or not np.isfinite(scales).all():
        raise DataError(f"Scales of an edit must be finite and not 0, got {list(scales)}.")
    std = real.std(axis=0)
    if not std.all():
        raise DataError(
            f"The logit of attribute {int(np.argmin(std))} is the same for all {len(real)} real "
            "images, so its changes have no unit."
        )
    return before, after, std


def _flipped(before: np.ndarray, after: np.ndarray, more: bool) -> float:
    """Returns the fraction of images that change to `more`, among those that can."""
    could = before != more
    return float((after[could] == more).mean()) if could.any() else float("nan")


def _monotonic(before: np.ndarray, after: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation [N] of scale and logit for each image."""
    logits = rankdata(np.concatenate([before[None], after]), axis=0)
    ranks = rankdata(np.concatenate([[0.0], scales]))
    logits, ranks = logits - logits.mean(axis=0), ranks - ranks.mean()
    norm = np.sqrt((logits**2).sum(axis=0) * (ranks**2).sum())
    product = (ranks[:, None] * logits).sum(axis=0)
    return np.divide(product, norm, out=np.full(len(norm), np.nan), where=norm > 0)
