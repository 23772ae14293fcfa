"""Generated images against real ones: FID by published protocols, KID, precision, recall, IS.

Images go in and named scores come out, so that the name of a number follows from the network that
made its features: "fid" is said of published weights, a published protocol and its number of images
alone; all else is "fd_<network>".
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.metrics import checks
from dbae_jax.metrics.distributions import classifier_score, kernel_distance, precision_recall
from dbae_jax.metrics.frechet import Moments, MomentsOfBatches, frechet_distance
from dbae_jax.metrics.networks.published import INCEPTION, VGG16, FeatureNet, Origin
from dbae_jax.metrics.scores import Score, named, provenance


@dataclasses.dataclass(frozen=True)
class Preset:
    """A published protocol of FID.

    preparation: of images for the network. generated: how many. real: how many of the training
    set, from its beginning; None for all. random_flip: real images are mirrored at random, as in
    training.
    """

    name: str
    preparation: str
    generated: int
    real: int | None
    random_flip: bool = False


PRESETS = {
    preset.name: preset
    for preset in (
        # pytorch-fid on 8-bit files of both sets, at the model's resolution.
        Preset("diffae", "pytorch", 50_000, 50_000, random_flip=True),
        # clean-fid, mode "clean"; the real images of InfoDiffusion are CelebA at 64 pixels.
        Preset("infodiff10k-clean", "pillow_bicubic", 10_000, None),
        # The evaluation of ADM, on the original graph; the default of this project.
        Preset("adm", "tensorflow_1", 50_000, None),
    )
}


def preset_images(
    batches: Iterable[np.ndarray], preset: str, *, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yields the real images of a protocol: as many as it says, mirrored at random if it says so.

    Args:
      batches: uint8 [n, H, W, C], the training set from its beginning, as it is in files.
      preset: a key of PRESETS.
      seed: of what is mirrored; image i depends on (seed, i).

    Raises:
      TooFewError: if there are fewer images.
    """
    wanted, seen = _preset(preset), 0
    for images in batches:
        images = images[: None if wanted.real is None else wanted.real - seen]
        if not len(images):
            break
        if wanted.random_flip:
            draws = [np.random.default_rng([seed, seen + i]).random() for i in range(len(images))]
            mirrored = np.array(draws)[:, None, None, None] < 0.5
            images = np.where(mirrored, images[:, :, ::-1], images)
        seen += len(images)
        yield images
    if wanted.real is not None and seen < wanted.real:
        raise TooFewError(f"FID by {preset} is of {wanted.real} real images, there are {seen}.")


class ImageStatistics:
    """What the metrics need of a set of images, which come in batches.

    Args:
      net: makes the features.
      keep_features: for metrics other than the Frechet distance, which compare single images.
      most: features are kept of so many images, the first; None: of all. (A million images have
        8 GB of features, and comparing all with all takes hours.)
      keep_halves: also the moments of two halves of all images, for `halves`.
      batch_size: images the network sees at a time.
    """

    def __init__(
        self,
        net: FeatureNet,
        *,
        keep_features: bool = False,
        most: int | None = None,
        keep_halves: bool = False,
        batch_size: int = 50,
    ):
        self.net = net
        self._moments = MomentsOfBatches(net.width)
        self._halves = [MomentsOfBatches(net.width) for _ in range(2 if keep_halves else 0)]
        self._seen = 0
        self._left: float = (math.inf if most is None else most) if keep_features else 0
        self._batch_size = batch_size
        self._pool: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []

    def update(self, images: np.ndarray) -> None:
        """Takes images in: uint8 [N, H, W, C], of the size that the network takes.

        Raises:
          DataError: for other images, or features that are not finite.
        """
        images = checks.eight_bit_images(images, self.net.image)
        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            # The last batch is filled up: one compiled program serves all.
            fill = [(0, self._batch_size - len(part)), (0, 0), (0, 0), (0, 0)]
            out = self.net.apply(np.pad(part, fill))
            pool = np.asarray(out.pool)[: len(part)]
            self._moments.update(pool)
            self._update_halves(pool)
            if kept := int(min(self._left, len(part))):
                self._left -= kept
                self._pool.append(pool[:kept])
                if out.logits is not None:
                    self._logits.append(np.asarray(out.logits)[:kept])

    @property
    def moments(self) -> Moments:
        """Mean and covariance of the features."""
        return self._moments.result()

    @property
    def halves(self) -> tuple[Moments, Moments]:
        """Moments of two halves of the images: of each two that follow each other one, by chance.

        Which image is in which half depends on its place alone.

        Raises:
          DataError: if they were not kept.
          TooFewError: for fewer than four images.
        """
        if not self._halves:
            raise DataError(f"no halves of {self.net.origin.net} were kept: pass keep_halves=True.")
        first, second = self._halves
        return first.result(), second.result()

    def _update_halves(self, pool: np.ndarray) -> None:
        if self._halves:
            places = self._seen + np.arange(len(pool))
            chosen = np.array([_half(place) for place in places.tolist()])
            for number, half in enumerate(self._halves):
                if (chosen == number).any():
                    half.update(pool[chosen == number])
        self._seen += len(pool)

    @property
    def features(self) -> np.ndarray:
        """Features of every image, or of the first `most`: [N, D]."""
        return _joined(self._pool, "features", self.net)

    @property
    def logits(self) -> np.ndarray:
        """Logits of the same images: [N, classes]."""
        return _joined(self._logits, "logits", self.net)


def fid(generated: ImageStatistics, real: ImageStatistics, preset: str) -> Score:
    """Returns the Frechet Inception distance of a published protocol, called "fid".

    Args:
      generated: of exactly as many images as the preset says, with the published network.
      real: the same.
      preset: a key of PRESETS.

    Raises:
      DataError: for another network, preparation or number of images; `frechet_score` measures
        those under another name.
    """
    net, wanted = _one_net(generated, real), _preset(preset)
    if not (net.origin.published and net.origin.net == INCEPTION):
        raise DataError(
            f"FID is said of the published Inception network alone, not of {net.origin.net}; "
            "frechet_score names its network."
        )
    if net.preparation != wanted.preparation:
        raise DataError(
            f"FID by {preset} prepares images as {wanted.preparation!r}, "
            f"these were prepared as {net.preparation!r}."
        )
    counts = generated.moments.count, real.moments.count
    if counts[0] != wanted.generated or wanted.real not in (None, counts[1]):
        raise DataError(
            f"FID by {preset} is of {wanted.generated} generated and "
            f"{wanted.real or 'all'} real images, got {counts[0]} and {counts[1]}; "
            "frechet_score measures other numbers of images."
        )
    score = frechet_score(generated, real)
    return Score("fid", score.value, score.details | {"preset": preset})


def frechet_score(generated: ImageStatistics, real: ImageStatistics) -> Score:
    """Returns the Frechet distance of features, called "fd_<network>" whatever the network.

    It depends on the numbers of images: compare equal numbers alone.
    """
    net = _one_net(generated, real)
    x, y = generated.moments, real.moments
    details = provenance(net.origin) | _counts(net, x.count, y.count)
    return Score(f"fd_{net.origin.net}", frechet_distance(x, y), details)


def kernel_score(
    generated: ImageStatistics, real: ImageStatistics, *, subset_size: int = 1000
) -> Score:
    """Returns the kernel distance: "kid" for published weights, "kd_<network>" for others."""
    net, x, y = _one_net(generated, real), generated.features, real.features
    found = kernel_distance(x, y, subset_size=subset_size)
    details = _counts(net, len(x), len(y)) | {"std": found.std, "subset_size": subset_size}
    return named(found.mean, "kid", "kd", net.origin, **details)


def precision_recall_scores(
    generated: ImageStatistics, real: ImageStatistics, *, k: int = 3
) -> tuple[Score, Score]:
    """Returns improved precision and recall.

    "precision" and "recall" are of the published Inception, as ADM's evaluation has them;
    "precision_vgg16" and "recall_vgg16" of the published VGG16, as they were introduced; names of
    other networks follow theirs.
    """
    net, x, y = _one_net(generated, real), generated.features, real.features
    found = precision_recall(x, y, k=k)
    details = _counts(net, len(x), len(y)) | {"k": k}
    names = precision_recall_names(net.origin)
    origin = provenance(net.origin)
    return (
        Score(names[0], found.precision, origin | details),
        Score(names[1], found.recall, origin | details),
    )


def precision_recall_names(origin: Origin) -> tuple[str, str]:
    """Returns what precision and recall on a network's features are called."""
    suffixes = {INCEPTION: "", VGG16: "_vgg16"} if origin.published else {}
    suffix = suffixes.get(origin.net, f"_{origin.net}")
    return f"precision{suffix}", f"recall{suffix}"


def inception_score(
    generated: ImageStatistics, *, splits: int = 10, shuffle_seed: int | None = 2020
) -> Score:
    """Returns `classifier_score`: "inception_score" for published weights alone."""
    net, logits = generated.net, generated.logits
    found = classifier_score(logits, splits=splits, shuffle_seed=shuffle_seed)
    details = {"preparation": net.preparation, "images": len(logits), "splits": splits}
    details["std"] = found.std
    return named(found.mean, "inception_score", "classifier_score", net.origin, **details)


def _half(place: int) -> int:
    """Returns the half, 0 or 1, that an image belongs to; its neighbour belongs to the other."""
    pair, which = divmod(place, 2)
    return (which + int(np.random.default_rng([0, pair]).integers(2))) % 2


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise DataError(f"no protocol of FID is called {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


def _one_net(generated: ImageStatistics, real: ImageStatistics) -> FeatureNet:
    first, second = generated.net, real.net
    if (first.origin, first.preparation) != (second.origin, second.preparation):
        raise DataError(
            f"generated images went through {first.origin.net} ({first.preparation}), "
            f"real ones through {second.origin.net} ({second.preparation}); use one network."
        )
    return first


def _counts(net: FeatureNet, generated: int, real: int) -> dict[str, Any]:
    counts = {"generated_images": generated, "real_images": real}
    return {"preparation": net.preparation} | counts


def _joined(parts: list[np.ndarray], what: str, net: FeatureNet) -> np.ndarray:
    if not parts:
        raise DataError(
            f"no {what} of {net.origin.net} were kept: pass keep_features=True, images, "
            "and a network that has them."
        )
    return np.concatenate(parts)
