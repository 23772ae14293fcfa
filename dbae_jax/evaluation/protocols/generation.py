"""Measures the quality of generated images with features of Inception or of a classifier.

Images come in batches, for example from `sample_files.batches`. Scores have the form that
results.json holds. If there are too few images for a score, the score has no value and names the
reason. Features that are not finite, or a wrong number of images for a preset, are errors.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.evaluation.classifier.network import Classifier, held_out
from dbae_jax.evaluation.results import score
from dbae_jax.metrics import generation as metric
from dbae_jax.metrics.frechet import frechet_distance
from dbae_jax.metrics.generation import PRESETS, ImageStatistics
from dbae_jax.metrics.networks.published import FeatureNet
from dbae_jax.metrics.scores import Score

Entries = dict[str, dict[str, Any]]

KID_SUBSET = 1000  # images per subset; "kid" is undefined for fewer images
SPLITS = 10  # number of parts of the images for the inception score
SURE = 0.8  # confidence below which a prediction counts as unsure


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """A set of images, represented by the features of a network.

    Attributes:
      name: name of the set for messages and details, such as "generated".
      statistics: features of the images and their moments.
    """

    name: str
    statistics: ImageStatistics


def image_set(
    name: str,
    batches: Iterable[np.ndarray],
    net: FeatureNet,
    *,
    most: int | None = None,
    keep_halves: bool = False,
    batch_size: int = 50,
) -> ImageSet:
    """Returns a set of images with their features; the images need not fit in memory together.

    Args:
      name: name of the set of images, such as "generated" or "real".
      batches: uint8 images [n, H, W, C]. A network of three channels gets gray images as gray RGB,
        as in the published tools.
      net: network that computes the features.
      most: number of first images whose features are kept, or None for all images. Means and
        covariances always include all images.
      keep_halves: whether `noise_floor` can be computed from these images alone.
      batch_size: images per batch of the network.

    Raises:
      DataError: if there are no images, or if images or features are invalid.
    """
    statistics = ImageStatistics(
        net, keep_features=True, most=most, keep_halves=keep_halves, batch_size=batch_size
    )
    count = 0
    for images in batches:
        if images.ndim == 4 and images.shape[-1] == 1 and net.image[-1] == 3:
            images = images.repeat(3, axis=-1)
        statistics.update(images)
        count += len(images)
    if not count:
        raise DataError(f"There are no {name} images.")
    return ImageSet(name, statistics)


def inception_scores(generated: ImageSet, real: ImageSet, *, preset: str = "") -> Entries:
    """Returns "fid", "kid", "precision", "recall" and "inception_score".

    Args:
      generated: generated images, with features of the published Inception network.
      real: real images with features of the same network. With a preset, they are the images of
        `metrics.generation.preset_images`.
      preset: a key of `metrics.generation.PRESETS`, which determines the numbers of images. If the
        preset is "", any number of images is allowed, and the Frechet distance is called
        "fd_<network>".

    Raises:
      DataError: if the network, the preparation or the number of images differs from the preset.
    """
    if preset:
        entries = {"fid": _entry(metric.fid(generated.statistics, real.statistics, preset))}
    else:
        entries = _distance(generated, real)
    entries |= _kernel(generated, real) | precision_recall(generated, real)
    name, net = "inception_score", generated.statistics.net
    if not net.origin.published:
        name = f"classifier_score_{net.origin.net}"
    entries |= _or_reason(
        name, "higher", lambda: metric.inception_score(generated.statistics, splits=SPLITS)
    )
    return entries


def precision_recall(generated: ImageSet, real: ImageSet) -> Entries:
    """Returns improved precision and recall; their names contain the network of the features."""
    sets = generated.statistics, real.statistics
    try:
        both = metric.precision_recall_scores(*sets)
    except TooFewError as error:
        names = metric.precision_recall_names(sets[0].net.origin)
        return {name: score(np.nan, "higher", reason=str(error)) for name in names}
    return {found.name: _entry(found, "higher") for found in both}


def distances(generated: ImageSet, real: ImageSet, *, paired: bool = False) -> Entries:
    """Returns the Frechet distance and the kernel distance, with the name of the network.

    Args:
      generated: samples; or, if `paired`, the reconstructions of all real images in their order.
      real: real images.
      paired: see `metrics.distributions.kernel_distance`.
    """
    return _distance(generated, real) | _kernel(generated, real, paired=paired)


def over_sets(parts: Sequence[Entries]) -> Entries:
    """Returns the scores of several sets of images as one: all values, and the first details.

    A score that is undefined for one of the sets is undefined.
    """
    if len(parts) == 1:
        return dict(parts[0])
    joined = {}
    for name, first in parts[0].items():
        values = [part[name]["value"] for part in parts]
        undefined = [part[name] for part in parts if part[name]["value"] is None]
        if undefined:
            joined[name] = undefined[0]
        else:
            joined[name] = score(values, first["better"], **first["details"])
    return joined


def classifier_scores(
    generated: ImageSet, real: ImageSet, net: Classifier, images: np.ndarray, labels: np.ndarray
) -> Entries:
    """Returns the scores by a classifier of a data set's labels.

    "fd_<name>", "kd_<name>", "precision_<name>" and "recall_<name>" use the classifier's features.
    "confidence" is the mean classifier confidence on generated images. "class_distance" is the
    total variation distance between the frequencies of predicted classes on generated and on real
    images. For attributes it is the mean absolute difference of their rates.

    Args:
      generated: generated images, with features `net.features`.
      real: held-out real images, with the same features.
      net: classifier that was trained on different real images.
      images: images of `real`, uint8 [N, H, W, C].
      labels: labels of these images, see `network.held_out`.

    Raises:
      DataError: if the labels are not of the kind that the classifier was trained on.
    """
    entries = distances(generated, real) | precision_recall(generated, real)
    made, held = generated.statistics.logits, real.statistics.logits
    confidence = net.confidence(made)
    entries["confidence"] = score(
        float(confidence.mean()),
        "higher",
        net=net.origin.net,
        generated_images=len(made),
        median=float(np.median(confidence)),
        unsure=float((confidence < SURE).mean()),
        on_real=held_out(net, images, labels),
    )
    frequencies = _class_frequencies if net.kind == "classes" else _attribute_rates
    entries["class_distance"] = frequencies(net, made, held)
    return entries


def noise_floor(real: ImageSet, other: ImageSet | None = None) -> Entries:
    """Returns the Frechet distance between two sets of real images.

    A generator cannot be expected to have a smaller distance. All images of both sets count, also
    those whose features are not kept. Distances fall with the number of images; the details state
    the number of images of both sets.

    Args:
      real: real images with which generated images are compared.
      other: different real images instead of generated images, as many as are generated; the score
        is called "..._floor". For None, two halves of `real` are compared, which `image_set` must
        have kept; the score is called "..._floor_halves".
    """
    net = real.statistics.net
    name = f"fd_{net.origin.net}_floor" + ("" if other else "_halves")

    def measure() -> Score:
        if other is None:
            first, second = real.statistics.halves
        else:
            first, second = other.statistics.moments, real.statistics.moments
        counts = [first.count, second.count]
        _enough(net, *counts)
        value = frechet_distance(first, second)
        return Score(name, value, {"net": net.origin.net, "images": counts})

    return _or_reason(name, None, measure)


def check_preset(preset: str, generated: int, real: int) -> None:
    """Checks the numbers of images of a preset before any image is sampled.

    Args:
      preset: a key of `metrics.generation.PRESETS`, or "" for no preset.
      generated: number of generated images.
      real: number of images of the training set.

    Raises:
      DataError: if the preset is unknown or needs different numbers of images.
    """
    if not preset:
        return
    if preset not in PRESETS:
        raise DataError(f"There is no FID preset {preset!r}; there are {', '.join(PRESETS)}.")
    wanted = PRESETS[preset]
    if generated != wanted.generated or real < (wanted.real or 0):
        raise DataError(
            f"The FID preset {preset!r} needs {wanted.generated} generated and "
            f"{wanted.real or 'all'} real images, got {generated} and {real}; change "
            "config.eval.num_generated or config.eval.fid_preset."
        )


def _distance(generated: ImageSet, real: ImageSet) -> Entries:
    """Returns the Frechet distance with the name of the network."""
    first, second = generated.statistics, real.statistics

    def measure() -> Score:
        _enough(first.net, first.moments.count, second.moments.count)
        return metric.frechet_score(first, second)

    return _or_reason(f"fd_{first.net.origin.net}", "lower", measure)


def _kernel(generated: ImageSet, real: ImageSet, *, paired: bool = False) -> Entries:
    """Returns the kernel distance with the name of the network."""
    sets = generated.statistics, real.statistics
    origin = sets[0].net.origin
    kernel = "kid" if origin.published else f"kd_{origin.net}"
    fewest = min(len(some.features) for some in sets)
    size = KID_SUBSET if origin.published else max(2, min(KID_SUBSET, fewest // 2))

    def measure() -> Score:
        return metric.kernel_score(*sets, subset_size=size, paired=paired)

    return _or_reason(kernel, "lower", measure)


def _enough(net: FeatureNet, *counts: int) -> None:
    """Checks that covariances of features can have full rank.

    Raises:
      TooFewError: if a set does not have more images than there are features.
    """
    if min(counts) <= net.width:
        raise TooFewError(
            f"The Frechet distance needs more images than features ({net.width}) in each set, "
            f"got {' and '.join(map(str, counts))}."
        )


def _or_reason(name: str, better: str | None, measure: Callable[[], Score]) -> Entries:
    """Returns a score, or a score without a value but with a reason if there are too few images."""
    try:
        found = measure()
    except TooFewError as error:
        return {name: score(np.nan, better, reason=str(error))}
    return {found.name: _entry(found, better)}


def _entry(found: Score, better: str | None = "lower") -> dict[str, Any]:
    """Returns a score in the form of results.json; standard deviations over subsets are details."""
    return score(found.value, better, **found.details)


def _class_frequencies(net: Classifier, made: np.ndarray, held: np.ndarray) -> dict[str, Any]:
    """Returns the distance of the predicted classes of generated images [N, K] and real ones."""
    counts = np.stack(
        [np.bincount(some.argmax(axis=1), minlength=len(net.labels)) for some in (made, held)]
    )
    frequencies = counts / counts.sum(axis=1, keepdims=True)
    seen = counts[:, counts.any(axis=0)]
    test = chi2_contingency(seen) if seen.shape[1] > 1 else None
    return score(
        float(np.abs(frequencies[0] - frequencies[1]).sum() / 2),
        "lower",
        net=net.origin.net,
        generated={name: int(n) for name, n in zip(net.labels, counts[0], strict=True)},
        real={name: int(n) for name, n in zip(net.labels, counts[1], strict=True)},
        chi_square=None if test is None else float(test.statistic),
        degrees_of_freedom=None if test is None else int(test.dof),
        p_value=None if test is None else float(test.pvalue),
    )


def _attribute_rates(net: Classifier, made: np.ndarray, held: np.ndarray) -> dict[str, Any]:
    """Returns the distance of the predicted attributes of generated images [N, K] and real ones."""
    rates = [(some > 0).mean(axis=0) for some in (made, held)]
    return score(
        float(np.abs(rates[0] - rates[1]).mean()),
        "lower",
        net=net.origin.net,
        generated={name: float(rate) for name, rate in zip(net.labels, rates[0], strict=True)},
        real={name: float(rate) for name, rate in zip(net.labels, rates[1], strict=True)},
        images=[len(made), len(held)],
    )
