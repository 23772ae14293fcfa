"""How well an edit does what it is asked for and nothing else: a judge's logits before and after.

The judge is a network trained on real images (`label_net`). Logits are measured in units of their
standard deviation over real images, so that attributes can be compared. What a perfect edit scores
is known on shapes, whose sources give pairs of pictures that differ in one factor.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.metrics import checks


@dataclasses.dataclass(frozen=True)
class EditScores:
    """Scores of an edit at S scales, of N images.

    target: [S], mean change of the target's logit, in standard deviations. others: [S], mean
    absolute change of the other attributes' logits, in theirs. flipped: [S], share of the images
    that the judge gives another answer than before, in the direction that the scale asks for, of
    those that could change so; NaN where there are none. monotonic: [N], Spearman's correlation of
    scale and target's logit along each image's edits (unedited image included); NaN where the logit
    does not change.
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
    """Scores edits by logits of a judge.

    Args:
      before: [N, K], of the images to be edited, as the model gives them back without an edit: so
        errors of reconstruction do not count as changes.
      after: [S, N, K], of the edited images.
      scales: S of them, none 0; a positive one asks for more of the target, a negative for less.
      target: index of the attribute.
      real: [M, K], of real images.
      left_out: attributes that the target implies or excludes, and that do not count as others.

    Raises:
      DataError: for other shapes, logits that are not finite, a scale of 0, an attribute whose
        logit is the same on all real images.
      TooFewError: if there is no other attribute.
    """
    before, after, std = _checked(before, after, scales, real)
    scales = np.asarray(scales, np.float64)
    others = np.setdiff1d(np.arange(before.shape[1]), [target, *left_out])
    if not 0 <= target < before.shape[1] or not len(others):
        raise TooFewError(
            f"of {before.shape[1]} attributes, attribute {target} cannot be judged against others "
            f"without {list(left_out)}."
        )
    change = (after - before) / std
    moved = np.abs(change[:, :, others]).mean(axis=(1, 2))
    held = before[:, target] > 0
    return EditScores(
        scales=scales,
        target=change[:, :, target].mean(axis=1),
        others=moved,
        flipped=np.array(
            [
                _flipped(held, row > 0, scale > 0)
                for row, scale in zip(after[:, :, target], scales, strict=True)
            ]
        ),
        monotonic=_monotonic(before[:, target], after[:, :, target], scales),
    )


def _checked(
    before: np.ndarray, after: np.ndarray, scales: Sequence[float], real: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    before, real = checks.feature_pair(before, real, ("logits before", "logits of real images"))
    after = np.asarray(after, np.float64)
    if after.shape != (len(scales), *before.shape) or not len(scales):
        raise DataError(
            f"logits after must be [{len(scales)}, {len(before)}, {before.shape[1]}], a part for "
            f"each scale, got {list(after.shape)}."
        )
    if not np.isfinite(after).all():
        raise DataError("logits after an edit hold values that are not finite.")
    if not np.all(scales) or not np.isfinite(scales).all():
        raise DataError(f"scales of an edit must be finite and not 0, got {list(scales)}.")
    std = real.std(axis=0)
    if not std.all():
        raise DataError(
            f"the logit of attribute {int(np.argmin(std))} is the same on all {len(real)} real "
            "images; changes of it have no unit."
        )
    return before, after, std


def _flipped(before: np.ndarray, after: np.ndarray, more: bool) -> float:
    could = before != more
    return float((after[could] == more).mean()) if could.any() else float("nan")


def _monotonic(before: np.ndarray, after: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns Spearman's correlation of scale and logit, an image each, [N]."""
    logits = rankdata(np.concatenate([before[None], after]), axis=0)
    places = rankdata(np.concatenate([[0.0], scales]))
    logits, places = logits - logits.mean(axis=0), places - places.mean()
    norm = np.sqrt((logits**2).sum(axis=0) * (places**2).sum())
    product = (places[:, None] * logits).sum(axis=0)
    return np.divide(product, norm, out=np.full(len(norm), np.nan), where=norm > 0)
