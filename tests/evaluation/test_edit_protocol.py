"""The scores of edits against closed forms, and refused inputs."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from dbae_jax.errors import DataError
from dbae_jax.evaluation.protocols.edits import edit_scores

SCALES = (-2.0, -1.0, 1.0, 2.0)


@pytest.fixture(scope="module")
def logits():
    rng = np.random.default_rng(0)
    std = np.array([1.0, 4.0, 0.5])
    return rng.standard_normal((40, 3)) * std, rng.standard_normal((5000, 3)) * std


def _edited(before, strength, leak):
    """Changes the target's logit by `strength` per unit of scale, and the others by `leak`."""
    change = np.array([leak, strength, -leak])
    return np.stack([before + scale * change for scale in SCALES])


def test_a_known_edit_has_known_scores(logits):
    before, real = logits
    std = real.std(axis=0)
    found = edit_scores(before, _edited(before, 3.0, 0.25), SCALES, 1, real=real)
    np.testing.assert_allclose(found.target, 3 * np.array(SCALES) / std[1], rtol=1e-12)
    aside = 0.25 * np.mean([1 / std[0], 1 / std[2]]) * np.abs(SCALES)
    np.testing.assert_allclose(found.others, aside, rtol=1e-12)
    np.testing.assert_allclose(found.monotonic, 1)
    lacks, target = before[:, 1] <= 0, before[:, 1]
    assert found.flipped[3] == np.mean(target[lacks] + 6 > 0)
    assert found.flipped[0] == np.mean(target[~lacks] - 6 <= 0)
    alone = edit_scores(before, _edited(before, 3.0, 0.25), SCALES, 1, real=real, left_out=[0])
    np.testing.assert_allclose(alone.others, 0.25 * np.abs(SCALES) / std[2], rtol=1e-12)


def test_an_edit_in_the_wrong_direction_has_low_scores(logits):
    before, real = logits
    found = edit_scores(before, _edited(before, -3.0, 0.25), SCALES, 1, real=real)
    assert (found.target * SCALES < 0).all() and (found.monotonic == -1).all()
    assert found.flipped[3] == 0 == found.flipped[0]


def test_monotonicity_is_spearmans(logits):
    before, real = logits
    after = _edited(before, 0.5, 0) + np.random.default_rng(1).standard_normal((4, 40, 3))
    after[:, 7, 1] = before[7, 1]  # this one does not move
    found = edit_scores(before, after, SCALES, 1, real=real)
    for i in range(40):
        line = [before[i, 1], *after[:, i, 1]]
        want = np.nan if i == 7 else spearmanr([0, *SCALES], line).statistic
        np.testing.assert_allclose(found.monotonic[i], want, rtol=1e-9)


def test_without_images_that_can_change_the_fraction_is_nan(logits):
    before, real = logits
    before = np.abs(before) + 0.1
    found = edit_scores(before, before[None] + 1, [1.0], 1, real=real)
    assert np.isnan(found.flipped).all()


def test_invalid_inputs_are_refused(logits):
    before, real = logits
    after = _edited(before, 1.0, 0.1)
    for arguments, words in (
        ((before, after[:3], SCALES, 1), r"Logits after an edit must be \[4, 40, 3\]"),
        ((before, after * np.nan, SCALES, 1), "must be finite"),
        ((before[:, :2], after, SCALES, 1), "one width"),
        ((before, after, (-2, 0, 1, 2), 1), "must be finite and not 0"),
        ((before, after, SCALES, 3), "No other attribute of 3 is left to compare attribute 3"),
    ):
        with pytest.raises(DataError, match=words):
            edit_scores(*arguments, real=real)
    with pytest.raises(DataError, match=r"attribute 1 with; \[0, 2\] are left out"):
        edit_scores(before, after, SCALES, 1, real=real, left_out=[0, 2])
    with pytest.raises(DataError, match="attribute 2 is the same for all 5000"):
        edit_scores(before, after, SCALES, 1, real=real * np.array([1, 1, 0]))
