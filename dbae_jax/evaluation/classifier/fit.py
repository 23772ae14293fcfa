"""Trains classifiers of a data set's labels, in a few minutes at most on a CPU.

The same images, labels and settings give the same classifier.
"""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from dbae_jax.errors import DataError, TooFewError
from dbae_jax.evaluation.classifier import network
from dbae_jax.evaluation.classifier.network import Classifier
from dbae_jax.metrics import checks
from dbae_jax.metrics.networks import classifier as layers
from dbae_jax.metrics.networks.layers import Params
from dbae_jax.runtime import kept
from dbae_jax.runtime.progress import Progress

log = logging.getLogger(__name__)

Loss = Callable[[Params, np.ndarray, np.ndarray], jax.Array]


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How a classifier is trained.

    Attributes:
      most_images: largest number of images; the first images are used.
      validation: fraction of the images that is held out. The weights of the epoch with the
        smallest held-out loss are kept.
      epochs: largest number of epochs.
      patience: number of epochs without a smaller held-out loss after which training ends.
      batch_size: images per batch.
      learning_rate: learning rate of Adam in the first step; it falls along a cosine.
      seed: seed of the initial weights, the held-out images and the order of images.
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
        """The smallest number of images that a classifier is trained on."""
        return 2 * self.batch_size


def fit(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    name: str,
    label_names: Sequence[str] | None = None,
    settings: FitSettings = FitSettings(),
) -> Classifier:
    """Trains a classifier on real training images.

    Args:
      images: square images, uint8 [N, H, W, C].
      labels: classes, integers [N]; or attributes, 0 or 1, [N, K].
      name: name of the data set; the classifier is called "classifier-<name>-<hash>".
      label_names: names of the K attributes, by default their indices. The names of classes are
        always their numbers.
      settings: settings of the training.

    Raises:
      DataError: if images or labels have a wrong shape or type, or if the held-out loss is not
        finite.
      TooFewError: if there are too few images, or if all labels are equal.
    """
    images, targets, names = _checked(images, labels, label_names, settings)
    kind = "classes" if np.ndim(labels) == 1 else "attributes"
    wanted = layers.shapes(images.shape[1], images.shape[3], len(names))
    params = layers.draw(jax.random.key(settings.seed), wanted)
    best, smallest, epochs = _train(name, kind, params, images, targets, settings)
    if not np.isfinite(smallest):
        raise DataError(
            f"The training of the classifier of {name} failed, because its loss is not finite. "
            f"Check the images and labels of {name}, or leave out the suites that need the "
            "classifier (config.eval.suite)."
        )
    log.info("Classifier of %s: best of %d epochs, held-out loss %.4f.", name, epochs, smallest)
    trained = dataclasses.asdict(settings) | {"images": len(images), "epochs_made": epochs}
    trained["validation_loss"] = smallest
    return Classifier(f"classifier-{name}", kind, names, images.shape[1:], best, trained)


def load_or_fit(
    path: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    name: str,
    label_names: Sequence[str] | None = None,
    settings: FitSettings = FitSettings(),
) -> Classifier:
    """Returns the classifier in a file, or trains one and writes the file.

    The classifier in the file is used only if it was trained on the same images and labels with the
    same settings. The arguments after `path`, an .npz file, and the errors are those of `fit`.
    """
    identity = {"fingerprint": _fingerprint(images, labels, settings)}

    def make() -> dict[str, np.ndarray]:
        net = fit(images, labels, name=name, label_names=label_names, settings=settings)
        return network.to_arrays(net)

    return network.from_arrays(kept.read_or_make(path, identity, make))


def _checked(
    images: np.ndarray, labels: np.ndarray, label_names: Sequence[str] | None, settings: FitSettings
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns the used images, their targets and the names of the labels.

    Targets are classes, int32 [N], or attributes, float32 [N, K].
    """
    images, labels = checks.eight_bit_images(images), np.asarray(labels)
    if images.shape[1] != images.shape[2]:
        raise DataError(f"A classifier takes square images, got {list(images.shape)}.")
    if labels.ndim not in (1, 2) or len(labels) != len(images):
        raise DataError(
            f"Labels must be [{len(images)}] or [{len(images)}, K], got {list(labels.shape)}."
        )
    images, labels = images[: settings.most_images], labels[: settings.most_images]
    if len(images) < settings.least_images:
        raise TooFewError(
            f"A classifier needs at least {settings.least_images} images, got {len(images)}."
        )
    if labels.ndim == 1:
        found, targets = np.unique(labels, return_inverse=True)
        names = tuple(str(value) for value in found)
        varied = len(found) > 1
    else:
        if not np.isin(labels, (0, 1)).all():
            raise DataError("Attributes must be 0 or 1 (False or True); map -1 to 0 first.")
        targets, varied = labels.astype(np.float32), (labels != labels[0]).any()
        names = tuple(label_names or map(str, range(labels.shape[1])))
        if len(names) != labels.shape[1]:
            raise DataError(f"There are {labels.shape[1]} attributes and {len(names)} names.")
    if not varied:
        raise TooFewError(f"All labels of the {len(images)} training images are equal.")
    return images, targets.astype(np.int32 if labels.ndim == 1 else np.float32), names


def _fingerprint(images: np.ndarray, labels: np.ndarray, settings: FitSettings) -> str:
    """Returns a hash of everything that the weights depend on."""
    layout = layers.shapes(16, 1, 2)  # any size: it changes when the network changes
    found = hashlib.sha256(repr((settings, layout)).encode())
    for array in (images, labels):
        some = np.ascontiguousarray(np.asarray(array)[: settings.most_images])
        found.update(repr((some.shape, some.dtype.str)).encode() + some.tobytes())
    return found.hexdigest()


def _train(
    name: str,
    kind: str,
    params: Params,
    images: np.ndarray,
    targets: np.ndarray,
    settings: FitSettings,
) -> tuple[dict[str, np.ndarray], float, int]:
    """Returns the weights of the best epoch, its held-out loss, and the number of epochs."""
    rng = np.random.default_rng(settings.seed)
    order = rng.permutation(len(images))
    count = max(1, round(settings.validation * len(images)))
    held_out, rows = (images[order[:count]], targets[order[:count]]), order[count:]
    step, loss = _programs(kind, settings, len(rows))
    state = params, _optimizer(settings, len(rows)).init(params)
    best: dict[str, np.ndarray] = {}
    smallest, epochs, since = np.inf, 0, 0  # `since`: number of epochs after the best one
    with Progress(f"Training a classifier of {name}", settings.epochs, "epochs") as progress:
        while epochs < settings.epochs and since < settings.patience:
            for batch in _batches(rng.permutation(rows), settings.batch_size):
                state = step(*state, images[batch], targets[batch])
            epochs, since = epochs + 1, since + 1
            value = _mean_loss(loss, state[0], *held_out, settings.batch_size)
            if value < smallest:
                smallest, since, best = value, 0, jax.device_get(state[0])
            progress.advance(details=f"held-out loss {value:.4f}")
    return best, smallest, epochs


def _optimizer(settings: FitSettings, count: int) -> optax.GradientTransformation:
    steps = settings.epochs * (count // settings.batch_size)
    return optax.adam(optax.cosine_decay_schedule(settings.learning_rate, steps))


def _programs(kind: str, settings: FitSettings, count: int) -> tuple[Callable, Loss]:
    """Returns the jitted training step, and the jitted mean loss of a batch.

    The step takes weights, optimizer state, images and targets. It returns new weights and a new
    optimizer state.
    """
    optimizer = _optimizer(settings, count)

    def loss(params: Params, images: jax.Array, targets: jax.Array) -> jax.Array:
        logits = layers.apply(params, images).logits
        if kind == "classes":
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean()

    def step(
        params: Params, opt_state: Any, images: jax.Array, targets: jax.Array
    ) -> tuple[Params, Any]:
        updates, opt_state = optimizer.update(jax.grad(loss)(params, images, targets), opt_state)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(step, donate_argnums=(0, 1)), jax.jit(loss)


def _batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Returns the full batches of rows; the remaining rows are left out."""
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _mean_loss(
    loss: Loss, params: Params, images: np.ndarray, targets: np.ndarray, size: int
) -> float:
    """Returns the mean loss of all images, which are processed in batches."""
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    values = [float(loss(params, images[p], targets[p])) * len(images[p]) for p in parts]
    return sum(values) / len(images)
