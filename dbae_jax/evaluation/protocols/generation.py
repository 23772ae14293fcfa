"""How good generated images are: scores on Inception's features and on those of a label network.

Images come as batches, from `sample_files.batches` or elsewhere, and scores leave as results.json
holds them. A score that too few images allow is there, without a value and with the reason; images
that will not do at all (features that are not finite, a protocol's wrong number) are errors.
"""

import dataclasses
from collections.abc import Callable, Iterable
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

KID_SUBSET = 1000  # images; fewer images than that have none by this name
SPLITS = 10  # of the inception score


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images of one kind, seen through a network. name: for messages and details."""

    name: str
    statistics: ImageStatistics


def look(
    name: str,
    batches: Iterable[np.ndarray],
    net: FeatureNet,
    *,
    most: int | None = None,
    keep_halves: bool = False,
    batch_size: int = 50,
) -> ImageSet:
    """Takes features of images, which need not be in memory together.

    Args:
      name: of the images: "generated", "real".
      batches: uint8 [n, H, W, C]; grey ones are shown to a network of three channels as grey RGB,
        as the published tools read grey files.
      net: the network.
      most: images of which features are kept, the first ones; None: all. Means and covariances
        are of all.
      keep_halves: for `noise_floor` of these images alone.
      batch_size: images it sees at a time.

    Raises:
      DataError: for other images, none, or features that are not finite.
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
        raise DataError(f"there are no {name} images.")
    return ImageSet(name, statistics)


def inception_scores(generated: ImageSet, real: ImageSet, *, preset: str = "") -> Entries:
    """Returns fid, kid, precision, recall and inception_score.

    Args:
      generated: images seen by the published Inception network.
      real: real ones, of `metric.preset_images` where there is a preset.
      preset: a key of `metric.PRESETS`, whose numbers of images must be there; "": the Frechet
        distance goes by the network's name, `fd_...`, whatever the numbers of images.

    Raises:
      DataError: for another network, preparation or number of images than the preset's.
    """
    if preset:
        entries = {"fid": _entry(metric.fid(generated.statistics, real.statistics, preset))}
    else:
        entries = _distance(generated, real)
    entries |= _comparisons(generated, real)
    name, net = "inception_score", generated.statistics.net
    if not net.origin.published:
        name = f"classifier_score_{net.origin.net}"
    entries |= _or_reason(
        name, "higher", lambda: metric.inception_score(generated.statistics, splits=SPLITS)
    )
    return entries


def precision_recall(generated: ImageSet, real: ImageSet) -> Entries:
    """Returns improved precision and recall, named after the network that saw the images."""
    sets = generated.statistics, real.statistics
    try:
        both = metric.precision_recall_scores(*sets)
    except TooFewError as error:
        names = metric.precision_recall_names(sets[0].net.origin)
        return {name: score(np.nan, "higher", reason=str(error)) for name in names}
    return {found.name: _entry(found, "higher") for found in both}


def classifier_scores(
    generated: ImageSet, real: ImageSet, net: Classifier, images: np.ndarray, labels: np.ndarray
) -> Entries:
    """Returns the scores that a label network can give.

    fd_..., kd_..., precision_..., recall_... on its features; confidence of its answers on
    generated images; class_distance, total variation between frequencies of its answers on
    generated and on real images (of attributes: mean difference of rates).

    Args:
      generated: images seen by `net.features`.
      real: held-out real images seen by it.
      net: the network, trained on other real images.
      images: of `real`: uint8 [N, H, W, C].
      labels: theirs, see `label_net.held_out`.

    Raises:
      DataError: for labels of another kind than the network's.
    """
    entries = _distance(generated, real) | _comparisons(generated, real)
    judged = held_out(net, images, labels)
    made, held = generated.statistics.logits, real.statistics.logits
    confidence = net.confidence(made)
    entries["confidence"] = score(
        float(confidence.mean()),
        "higher",
        net=net.origin.net,
        generated_images=len(made),
        median=float(np.median(confidence)),
        unsure=float((confidence < 0.8).mean()),  # share of images below 0.8
        on_real=judged,
    )
    frequencies = _class_frequencies if net.kind == "classes" else _attribute_rates
    entries["class_distance"] = frequencies(net, made, held)
    return entries


def noise_floor(real: ImageSet, other: ImageSet | None = None) -> Entries:
    """Returns the Frechet distance between real images: what no generator can be asked to beat.

    It is of all images of the sets, whether or not the features of each are kept. Distances fall
    with the number of images: `images` of the details says of how many each side is.

    Args:
      real: those that generated images are compared with.
      other: other real images, in the place of as many generated ones: `..._floor`. None: two
        halves of `real` are compared, which must have been kept (see `look`): `..._floor_halves`,
        of half as many images a side as `real` has.
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
    """Raises DataError if a protocol wants other numbers of images; before any is drawn.

    Args:
      preset: a key of `metric.PRESETS`, or "" for none.
      generated: images that there are or will be.
      real: images of the training set.
    """
    if not preset:
        return
    if preset not in PRESETS:
        raise DataError(f"no protocol of FID is called {preset!r}; there are {', '.join(PRESETS)}.")
    wanted = PRESETS[preset]
    if generated != wanted.generated or real < (wanted.real or 0):
        raise DataError(
            f"FID by {preset} is of {wanted.generated} generated and {wanted.real or 'all'} real "
            f"images, here are {generated} and {real}: draw as many, or name no preset."
        )


def _distance(generated: ImageSet, real: ImageSet) -> Entries:
    first, second = generated.statistics, real.statistics

    def measure() -> Score:
        _enough(first.net, first.moments.count, second.moments.count)
        return metric.frechet_score(first, second)

    return _or_reason(f"fd_{first.net.origin.net}", "lower", measure)


def _comparisons(generated: ImageSet, real: ImageSet) -> Entries:
    """Kernel distance, precision and recall."""
    sets = generated.statistics, real.statistics
    origin = sets[0].net.origin
    kernel = "kid" if origin.published else f"kd_{origin.net}"
    fewest = min(len(some.features) for some in sets)
    size = KID_SUBSET if origin.published else max(2, min(KID_SUBSET, fewest // 2))
    entries = _or_reason(kernel, "lower", lambda: metric.kernel_score(*sets, subset_size=size))
    return entries | precision_recall(generated, real)


def _enough(net: FeatureNet, *counts: int) -> None:
    if min(counts) <= net.width:
        raise TooFewError(
            f"a Frechet distance of {net.width} features needs more images than features in each "
            f"set, got {' and '.join(map(str, counts))}."
        )


def _or_reason(name: str, better: str | None, measure: Callable[[], Score]) -> Entries:
    try:
        found = measure()
    except TooFewError as error:
        return {name: score(np.nan, better, reason=str(error))}
    return {found.name: _entry(found, better)}


def _entry(found: Score, better: str | None = "lower") -> dict[str, Any]:
    """As results.json holds it; a spread over subsets of one set of images stays a detail."""
    return score(found.value, better, **found.details)


def _class_frequencies(net: Classifier, made: np.ndarray, held: np.ndarray) -> dict[str, Any]:
    counts = np.stack(
        [np.bincount(some.argmax(axis=1), minlength=len(net.labels)) for some in (made, held)]
    )
    shares = counts / counts.sum(axis=1, keepdims=True)
    seen = counts[:, counts.any(axis=0)]
    test = chi2_contingency(seen) if seen.shape[1] > 1 else None
    return score(
        float(np.abs(shares[0] - shares[1]).sum() / 2),
        "lower",
        net=net.origin.net,
        generated={name: int(n) for name, n in zip(net.labels, counts[0], strict=True)},
        real={name: int(n) for name, n in zip(net.labels, counts[1], strict=True)},
        chi_square=None if test is None else float(test.statistic),
        degrees_of_freedom=None if test is None else int(test.dof),
        p_value=None if test is None else float(test.pvalue),
    )


def _attribute_rates(net: Classifier, made: np.ndarray, held: np.ndarray) -> dict[str, Any]:
    rates = [(some > 0).mean(axis=0) for some in (made, held)]
    return score(
        float(np.abs(rates[0] - rates[1]).mean()),
        "lower",
        net=net.origin.net,
        generated={name: float(rate) for name, rate in zip(net.labels, rates[0], strict=True)},
        real={name: float(rate) for name, rate in zip(net.labels, rates[1], strict=True)},
        images=[len(made), len(held)],
    )
