"""Classifies images and computes features of images, for data unlike those of Inception.

A classifier belongs to one data set at one image size. Its name ends with the first eight digits of
the SHA-256 hash of its weights. The name is part of the names of its scores, such as
`fd_classifier-digits-1a2b3c4d`, so that nobody takes these scores for FID.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy.special import expit, softmax

from dbae_jax.errors import DataError
from dbae_jax.metrics import checks
from dbae_jax.metrics.attributes import auroc
from dbae_jax.metrics.networks import classifier
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.published import FeatureNet, Origin

BATCH = 256  # images per batch


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Attributes:
      name: name without the hash, such as "classifier-digits".
      kind: "classes", of which an image has exactly one, or "attributes", which are independent.
      labels: names of the K classes or attributes.
      image: shape (H, W, C) of the images.
      params: weights of the network in `metrics.networks.classifier`.
      trained: settings and results of the training, as a record.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    image: tuple[int, int, int]
    params: Mapping[str, np.ndarray]
    trained: Mapping[str, Any]

    @functools.cached_property
    def origin(self) -> Origin:
        """The name with the first digits of the hash of the weights, and the whole hash."""
        found = hashlib.sha256()
        for key in sorted(self.params):
            found.update(key.encode() + np.ascontiguousarray(self.params[key], "<f4").tobytes())
        return Origin(f"{self.name}-{found.hexdigest()[:8]}", (found.hexdigest(),))

    @functools.cached_property
    def features(self) -> FeatureNet:
        """The network in the form that the metrics take."""
        run = functools.partial(_apply, jax.device_put(dict(self.params)))
        return FeatureNet(self.origin, classifier.WIDTH, run, image=self.image)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns the logits [N, K] of images.

        Args:
          images: uint8 [N, H, W, C].

        Raises:
          DataError: if the images have a different type or shape.
        """
        images, found = checks.eight_bit_images(images, self.image), []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            # The last batch is padded, so that one compiled program serves all batches.
            fill = [(0, BATCH - len(part)), (0, 0), (0, 0), (0, 0)]
            found.append(np.asarray(self.features.apply(np.pad(part, fill)).logits)[: len(part)])
        return np.concatenate(found)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns probabilities [N, K]; those of classes have the sum 1 for each image."""
        logits = np.asarray(logits, np.float64)
        return softmax(logits, axis=1) if self.kind == "classes" else expit(logits)

    def confidence(self, logits: np.ndarray) -> np.ndarray:
        """Returns the probability [N] of the predicted class, or the mean over attributes."""
        p = self.probabilities(logits)
        return p.max(axis=1) if self.kind == "classes" else np.maximum(p, 1 - p).mean(axis=1)


def held_out(net: Classifier, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns the accuracy and confidence of a classifier on images that it was not trained on.

    Args:
      net: the classifier.
      images: uint8 [N, H, W, C].
      labels: classes [N] or attributes [N, K].

    Returns:
      "accuracy": fraction of correct predictions, for attributes the mean over attributes.
      "confidence": mean of `Classifier.confidence`. "images": N. For attributes also "accuracies"
      and "auroc" by name; the AUROC is None if the attribute is the same for all images.

    Raises:
      DataError: if the labels are not of the kind that the classifier was trained on.
    """
    logits, labels = net.logits(images), np.asarray(labels)
    shape = (len(images),) if net.kind == "classes" else (len(images), len(net.labels))
    if labels.shape != shape:
        raise DataError(
            f"{net.origin.net} was trained on {len(net.labels)} {net.kind}: labels of {len(images)}"
            f" images must be {list(shape)}, got {list(labels.shape)}."
        )
    found: dict[str, Any] = {
        "images": len(images),
        "confidence": float(net.confidence(logits).mean()),
    }
    if net.kind == "classes":
        named = np.array(net.labels)[logits.argmax(axis=1)]
        return {"accuracy": float(np.mean(named == labels.astype(str)))} | found
    right = ((logits > 0) == labels.astype(bool)).mean(axis=0)
    areas = np.diag(auroc(labels, logits))
    found["accuracies"] = dict(zip(net.labels, map(float, right), strict=True))
    found["auroc"] = {
        name: None if np.isnan(area) else float(area)
        for name, area in zip(net.labels, areas, strict=True)
    }
    return {"accuracy": float(right.mean())} | found


def to_arrays(net: Classifier) -> dict[str, np.ndarray]:
    """Returns a classifier as named arrays for an .npz file."""
    record = dataclasses.asdict(dataclasses.replace(net, params={}))
    params = {f"params/{key}": value for key, value in net.params.items()}
    return {"record": np.array(json.dumps(record)), **params}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Classifier:
    """Returns the classifier of `to_arrays`."""
    record = json.loads(str(arrays["record"]))
    params = {
        key.removeprefix("params/"): value for key, value in arrays.items() if key != "record"
    }
    as_tuples = {key: tuple(record[key]) for key in ("labels", "image")}
    return Classifier(**record | as_tuples | {"params": params})


@jax.jit
def _apply(params: Mapping[str, jax.Array], images: jax.Array) -> Outputs:
    return classifier.apply(params, images)
