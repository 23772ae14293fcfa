"""Trains label networks: minutes at most on a CPU; the same images and seed, the same network."""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.evaluation.classifier import network
from dbae_jax.evaluation.classifier.network import Classifier
from dbae_jax.metrics import checks
from dbae_jax.metrics.networks import classifier as layers

log = logging.getLogger(__name__)

Params = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a label network is trained.

    most_images: so many from the beginning are used. validation: share of them that is held out to
    choose the epoch, that of the smallest loss. epochs: at most; patience: so many without a
    smaller loss end the training.
    """

    most_images: int = 20_000
    validation: float = 0.1
    epochs: int = 40
    patience: int = 6
    batch_size: int = 100
    learning_rate: float = 2e-3
    seed: int = 0

    @property
    def least_images(self) -> int:
        """How many images a network needs."""
        return 2 * self.batch_size


def fit(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    name: str,
    label_names: Sequence[str] | None = None,
    settings: FitSettings = FitSettings(),
) -> Classifier:
    """Trains a network on real training images.

    Args:
      images: uint8 [N, H, W, C], square.
      labels: [N] integers, classes; or [N, K] 0 or 1, attributes.
      name: of the data: the network is called "labelnet-<name>-<hash>".
      label_names: of the K attributes; default their numbers. Classes are called by their numbers.
      settings: see there.

    Raises:
      DataError: for other shapes.
      TooFewError: for labels of a single class, or too few images to hold some out.
    """
    images, targets, names = _checked(images, labels, label_names, settings)
    kind = "classes" if np.ndim(labels) == 1 else "attributes"
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(images))
    held = max(1, round(settings.validation * len(images)))
    chosen, kept = order[:held], order[held:]
    wanted = layers.shapes(images.shape[1], images.shape[3], len(names))
    params = layers.draw(jax.random.key(settings.seed), wanted)
    step, loss = _programs(kind, settings, len(kept))
    state, best, since = (params, _optimizer(settings, len(kept)).init(params)), (np.inf, {}), 0
    for epoch in range(settings.epochs):
        for rows in _batches(rng.permutation(kept), settings.batch_size):
            state = step(*state, images[rows], targets[rows])
        value = _mean_loss(loss, state[0], images[chosen], targets[chosen], settings.batch_size)
        since = 0 if value < best[0] else since + 1
        if value < best[0]:
            best = value, jax.device_get(state[0])
        log.info("label network, epoch %d: loss %.4f on held-out images", epoch + 1, value)
        if since >= settings.patience:
            break
    trained = dataclasses.asdict(settings) | {"images": len(images), "epochs_made": epoch + 1}
    trained |= {"validation_loss": best[0], "fingerprint": _fingerprint(images, labels, settings)}
    if not np.isfinite(best[0]):
        raise DataError(f"the label network of {name} did not learn: its loss is not finite.")
    return Classifier(f"labelnet-{name}", kind, names, images.shape[1:], best[1], trained)


def load_or_fit(
    path: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    name: str,
    label_names: Sequence[str] | None = None,
    settings: FitSettings = FitSettings(),
) -> Classifier:
    """Returns the network in a file if `fit` of these arguments wrote it, else trains and keeps it.

    Raises:
      DataError: as `fit`.
      CheckpointError: if the file holds no label network.
    """
    if path.exists():
        net = network.load(path)
        if net.trained.get("fingerprint") == _fingerprint(images, labels, settings):
            return net
        log.info("%s was trained on other images or with other settings; it is made anew.", path)
    net = fit(images, labels, name=name, label_names=label_names, settings=settings)
    network.save(path, net)
    return net


def _checked(
    images: np.ndarray, labels: np.ndarray, label_names: Sequence[str] | None, settings: FitSettings
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns images, targets (int32 [N] or float32 [N, K]) and the names of the labels."""
    images, labels = checks.eight_bit_images(images), np.asarray(labels)
    if images.shape[1] != images.shape[2]:
        raise DataError(f"label networks see square images, got {list(images.shape)}.")
    if labels.ndim not in (1, 2) or len(labels) != len(images):
        raise DataError(
            f"labels must be [{len(images)}] or [{len(images)}, K], got {list(labels.shape)}."
        )
    images, labels = images[: settings.most_images], labels[: settings.most_images]
    if len(images) < settings.least_images:
        raise TooFewError(
            f"a label network needs {settings.least_images} images or more, got {len(images)}."
        )
    if labels.ndim == 1:
        found, targets = np.unique(labels, return_inverse=True)
        names = tuple(str(value) for value in found)
        varied = len(found) > 1
    else:
        if not np.isin(labels, (0, 1)).all():
            raise DataError("attributes must be 0 or 1 (False or True); map -1 to 0 first.")
        targets, varied = labels.astype(np.float32), (labels != labels[0]).any()
        names = tuple(label_names or map(str, range(labels.shape[1])))
        if len(names) != labels.shape[1]:
            raise DataError(f"{labels.shape[1]} attributes have {len(names)} names.")
    if not varied:
        raise TooFewError(f"the labels of {len(images)} training images are all the same.")
    return images, targets.astype(np.int32 if labels.ndim == 1 else np.float32), names


def _fingerprint(images: np.ndarray, labels: np.ndarray, settings: FitSettings) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    for array in (images, labels):
        some = np.ascontiguousarray(np.asarray(array)[: settings.most_images])
        digest.update(repr((some.shape, some.dtype.str)).encode() + some.tobytes())
    return digest.hexdigest()


def _optimizer(settings: FitSettings, count: int) -> optax.GradientTransformation:
    steps = settings.epochs * (count // settings.batch_size)
    return optax.adam(optax.cosine_decay_schedule(settings.learning_rate, steps))


def _programs(kind: str, settings: FitSettings, count: int):
    """Returns (params, opt_state, images, targets) -> both anew, and the loss of a batch."""
    optimizer = _optimizer(settings, count)

    def loss(params: Params, images: jax.Array, targets: jax.Array) -> jax.Array:
        logits = layers.apply(params, images).logits
        if kind == "classes":
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean()

    def step(params: Params, opt_state: Any, images: jax.Array, targets: jax.Array):
        updates, opt_state = optimizer.update(jax.grad(loss)(params, images, targets), opt_state)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(step, donate_argnums=(0, 1)), jax.jit(loss)


def _batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _mean_loss(loss, params: Params, images: np.ndarray, targets: np.ndarray, size: int) -> float:
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    values = [float(loss(params, images[p], targets[p])) * len(images[p]) for p in parts]
    return sum(values) / len(images)
