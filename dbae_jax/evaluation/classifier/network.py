"""A network trained on the labels of real images: features and a judge where Inception is neither.

It stands for one data set at one size. Its name holds the beginning of its weights' sha256, so that
scores made with it say so (`fd_labelnet-digits-1a2b3c4d`) and are never taken for FID.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy.special import expit, softmax

from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.metrics import checks
from dbae_jax.metrics.attributes import auroc
from dbae_jax.metrics.networks import classifier
from dbae_jax.metrics.networks.inception import Outputs
from dbae_jax.metrics.networks.published import FeatureNet, Origin, check_arrays
from dbae_jax.runtime import files

KINDS = ("classes", "attributes")
BATCH = 256


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained network.

    name: without the hash, "labelnet-digits". kind: "classes", one of which an image has, or
    "attributes", each of which it has or not. labels: their names, K. image: (H, W, C). params: of
    `metrics.networks.label_net`. trained: with what, for the record.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    image: tuple[int, int, int]
    params: Mapping[str, np.ndarray]
    trained: Mapping[str, Any]

    @functools.cached_property
    def origin(self) -> Origin:
        """Its name with the beginning of the hash of its weights, and the hash."""
        digest = hashlib.sha256()
        for key in sorted(self.params):
            digest.update(key.encode() + np.ascontiguousarray(self.params[key], "<f4").tobytes())
        return Origin(f"{self.name}-{digest.hexdigest()[:8]}", (digest.hexdigest(),))

    @functools.cached_property
    def features(self) -> FeatureNet:
        """The network as the metrics want it."""
        run = functools.partial(_apply, jax.device_put(dict(self.params)))
        return FeatureNet(self.origin, classifier.WIDTH, run, image=self.image)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [N, K] of images: uint8 [N, H, W, C].

        Raises:
          DataError: for images of another kind or size.
        """
        images, found = checks.eight_bit_images(images, self.image), []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            # The last batch is filled up: one compiled program serves all.
            fill = [(0, BATCH - len(part)), (0, 0), (0, 0), (0, 0)]
            found.append(np.asarray(self.features.apply(np.pad(part, fill)).logits)[: len(part)])
        return np.concatenate(found)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns probabilities [N, K]: of classes they add to 1, of attributes they do not."""
        logits = np.asarray(logits, np.float64)
        return softmax(logits, axis=1) if self.kind == "classes" else expit(logits)

    def confidence(self, logits: np.ndarray) -> np.ndarray:
        """Returns the probability given to the answer, [N]; of attributes, their mean."""
        p = self.probabilities(logits)
        return p.max(axis=1) if self.kind == "classes" else np.maximum(p, 1 - p).mean(axis=1)


def held_out(net: Classifier, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns what the network can do on images it has not been trained on.

    accuracy: share of right answers; of attributes the mean, with `auroc` (None where the attribute
    is constant here) and `accuracies` by name. confidence: mean, see `Classifier.confidence`.

    Args:
      net: the network.
      images: uint8 [N, H, W, C].
      labels: [N] classes, or [N, K] attributes.

    Raises:
      DataError: for labels of another kind than the network's.
    """
    logits, labels = net.logits(images), np.asarray(labels)
    shape = (len(images),) if net.kind == "classes" else (len(images), len(net.labels))
    if labels.shape != shape:
        raise DataError(
            f"{net.origin.net} was trained on {len(net.labels)} {net.kind}: labels of {len(images)}"
            f" images must be {list(shape)}, got {list(labels.shape)}."
        )
    found = {"images": len(images), "confidence": float(net.confidence(logits).mean())}
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


def save(path: pathlib.Path, net: Classifier) -> None:
    """Writes a network into one .npz file."""
    record = {
        "name": net.name,
        "kind": net.kind,
        "labels": net.labels,
        "image": net.image,
        "trained": dict(net.trained),
    }
    arrays = {f"params/{key}": value for key, value in net.params.items()}
    files.write_npz(path, {"record": np.array(json.dumps(record)), **arrays})


def load(path: pathlib.Path) -> Classifier:
    """Reads what `save` wrote; nothing in it is executed.

    Raises:
      CheckpointError: if the file is missing, torn, or without the right arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(str(file["record"]))
            keys = [key for key in file.files if key.startswith("params/")]
            params = {key.removeprefix("params/"): file[key] for key in keys}
        image, labels = tuple(record["image"]), tuple(record["labels"])
        net = Classifier(record["name"], record["kind"], labels, image, params, record["trained"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} holds no label network ({type(error).__name__}); delete it to train another."
        ) from error
    check_arrays(params, classifier.shapes(image[0], image[2], len(labels)), str(path))
    return net


@jax.jit
def _apply(params: Mapping[str, jax.Array], images: jax.Array) -> Outputs:
    return classifier.apply(params, images)
