"""Scores of generated images against real ones: FID, KID, precision, recall and Inception Score.

The functions take images and return named scores, because the name of a score depends on the
network. A score is called "fid" only with published weights, a published protocol and the number of
images of that protocol. Otherwise the Frechet distance is called "fd_<network>".
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
    """A published protocol that defines how FID is measured.

    Attributes:
      name: name of the protocol.
      preparation: a key of `resize.PREPARATIONS`: how images become the input of the network.
      generated: number of generated images.
      real: number of real images, the first ones of the training set; None for all.
      random_flip: whether real images are randomly mirrored, as in training.
    """

    name: str
    preparation: str
    generated: int
    real: int | None
    random_flip: bool = False


PRESETS = {
    preset.name: preset
    for preset in (
        # pytorch-fid on 8-bit files of both sets, at the resolution of the model.
        Preset("diffae", "pytorch", 50_000, 50_000, random_flip=True),
        # clean-fid in its mode "clean". The real images of InfoDiffusion are CelebA at 64 pixels.
        Preset("infodiff10k-clean", "pillow_bicubic", 10_000, None),
        # The evaluation of ADM, with the original TensorFlow graph: the default of this project.
        Preset("adm", "tensorflow_1", 50_000, None),
    )
}


def preset_images(
    batches: Iterable[np.ndarray], preset: str, *, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yields the real images of a protocol, randomly mirrored where the protocol mirrors them.

    Args:
      batches: uint8 [n, H, W, C], the training set from its first image on, as stored.
      preset: a key of PRESETS.
      seed: random seed of the mirroring; image i depends on (seed, i).

    Raises:
      TooFewError: if there are fewer images than the protocol needs.
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
        raise TooFewError(f"The FID preset {preset!r} needs {wanted.real} real images, got {seen}.")


class ImageStatistics:
    """Moments and features of a set of images, which arrive in batches.

    Args:
      net: network that computes the features.
      keep_features: whether to keep the features of single images. All metrics except the Frechet
        distance need them.
      most: number of images, the first ones, whose features are kept; None for all. A million
        images have 8 GB of features, and comparing all pairs takes hours.
      keep_halves: whether to keep the moments of two random halves of the images, for `halves`.
      batch_size: images per batch of the network.
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
        """Adds images: uint8 [N, H, W, C], of a size that the network accepts.

        Raises:
          DataError: if the images have another shape or dtype, or if a feature is not finite.
        """
        images = checks.eight_bit_images(images, self.net.image)
        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            # The last batch is padded, so that one compiled program runs every batch.
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
        """Mean and covariance of the features of all images."""
        return self._moments.result()

    @property
    def halves(self) -> tuple[Moments, Moments]:
        """Moments of two random halves of the images.

        Each pair of consecutive images is split at random, one image to each half. The half of an
        image depends only on its position.

        Raises:
          DataError: if the halves were not kept.
          TooFewError: if there are fewer than four images.
        """
        if not self._halves:
            raise DataError(f"no halves of {self.net.origin.net} were kept: pass keep_halves=True.")
        first, second = self._halves
        return first.result(), second.result()

    def _update_halves(self, pool: np.ndarray) -> None:
        if self._halves:
            chosen = np.array([_half(self._seen + i) for i in range(len(pool))])
            for number, half in enumerate(self._halves):
                if (chosen == number).any():
                    half.update(pool[chosen == number])
        self._seen += len(pool)

    @property
    def features(self) -> np.ndarray:
        """Features of all images, or of the first `most` images: [N, D]."""
        return _joined(self._pool, "features", self.net)

    @property
    def logits(self) -> np.ndarray:
        """Logits of the images whose features are kept: [N, classes]."""
        return _joined(self._logits, "logits", self.net)


def fid(generated: ImageStatistics, real: ImageStatistics, preset: str) -> Score:
    """Returns the Frechet Inception distance of a published protocol, called "fid".

    Args:
      generated: generated images, exactly as many as the protocol has, and the published network.
      real: real images, with the same conditions.
      preset: a key of PRESETS.

    Raises:
      DataError: if the network, its preparation or a number of images is not the protocol's.
        `frechet_score` measures these sets under a different name.
    """
    net, wanted = _one_net(generated, real), _preset(preset)
    if not (net.origin.published and net.origin.net == INCEPTION):
        raise DataError(
            f"FID uses features of the published Inception network alone, not of {net.origin.net}; "
            "frechet_score measures other networks."
        )
    if net.preparation != wanted.preparation:
        raise DataError(
            f"The FID preset {preset!r} prepares images as {wanted.preparation!r}, "
            f"but these images were prepared as {net.preparation!r}."
        )
    counts = generated.moments.count, real.moments.count
    if counts[0] != wanted.generated or wanted.real not in (None, counts[1]):
        raise DataError(
            f"The FID preset {preset!r} needs {wanted.generated} generated and "
            f"{wanted.real or 'all'} real images, got {counts[0]} and {counts[1]}; "
            "frechet_score measures other numbers of images."
        )
    score = frechet_score(generated, real)
    return Score("fid", score.value, score.details | {"preset": preset})


def frechet_score(generated: ImageStatistics, real: ImageStatistics) -> Score:
    """Returns the Frechet distance of features, called "fd_<network>" for every network.

    The distance depends on the numbers of images, so compare it only between equal numbers.
    """
    net = _one_net(generated, real)
    x, y = generated.moments, real.moments
    details = provenance(net.origin) | _counts(net, x.count, y.count)
    return Score(f"fd_{net.origin.net}", frechet_distance(x, y), details)


def kernel_score(
    generated: ImageStatistics,
    real: ImageStatistics,
    *,
    subset_size: int = 1000,
    paired: bool = False,
) -> Score:
    """Returns the kernel distance: "kid" for published weights, otherwise "kd_<network>"."""
    net, x, y = _one_net(generated, real), generated.features, real.features
    found = kernel_distance(x, y, subset_size=subset_size, paired=paired)
    details = _counts(net, len(x), len(y)) | {"std": found.std, "subset_size": subset_size}
    if paired:
        details["paired"] = True
    return named(found.mean, "kid", "kd", net.origin, **details)


def precision_recall_scores(
    generated: ImageStatistics, real: ImageStatistics, *, k: int = 3
) -> tuple[Score, Score]:
    """Returns improved precision and recall.

    With the published Inception network, as in ADM's evaluation, they are "precision" and "recall".
    With the published VGG16, as in the original paper, they are "precision_vgg16" and
    "recall_vgg16". With other networks they end in the name of the network.
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
    """Returns the names of precision and recall for the features of a network."""
    suffixes = {INCEPTION: "", VGG16: "_vgg16"} if origin.published else {}
    suffix = suffixes.get(origin.net, f"_{origin.net}")
    return f"precision{suffix}", f"recall{suffix}"


def inception_score(
    generated: ImageStatistics, *, splits: int = 10, shuffle_seed: int | None = 2020
) -> Score:
    """Returns `classifier_score`, called "inception_score" only for published weights."""
    net, logits = generated.net, generated.logits
    found = classifier_score(logits, splits=splits, shuffle_seed=shuffle_seed)
    details = {"preparation": net.preparation, "images": len(logits), "splits": splits}
    details["std"] = found.std
    return named(found.mean, "inception_score", "classifier_score", net.origin, **details)


def _half(position: int) -> int:
    """Returns the half, 0 or 1, of the image at a position; its partner gets the other half."""
    pair, which = divmod(position, 2)
    return (which + int(np.random.default_rng([0, pair]).integers(2))) % 2


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise DataError(f"There is no FID preset {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]


def _one_net(generated: ImageStatistics, real: ImageStatistics) -> FeatureNet:
    first, second = generated.net, real.net
    if (first.origin, first.preparation) != (second.origin, second.preparation):
        raise DataError(
            f"features of generated images come from {first.origin.net} ({first.preparation}), "
            f"features of real images from {second.origin.net} ({second.preparation}); "
            "use one network."
        )
    return first


def _counts(net: FeatureNet, generated: int, real: int) -> dict[str, Any]:
    counts = {"generated_images": generated, "real_images": real}
    return {"preparation": net.preparation} | counts


def _joined(parts: list[np.ndarray], what: str, net: FeatureNet) -> np.ndarray:
    if not parts:
        raise DataError(
            f"no {what} of {net.origin.net} were kept: pass keep_features=True, add images, "
            f"and use a network that has {what}."
        )
    return np.concatenate(parts)
