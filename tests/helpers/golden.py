"""Golden cases: outputs of the authors' networks, recorded in files, to compare ours with.

The files hold outputs only. Inputs and weights are pseudo-random functions of their names: `draw`,
`image` and `make_state_dict` compute the same inputs and weights again. Arrays are channels-first,
[B, C, H, W], as in PyTorch.
"""

import functools
import json
import zlib

import jax
import numpy as np
from dbae_jax.configs import celeba, ffhq

from dbae_jax.configuration import build, config
from dbae_jax.models import torch_state_dict
from tests.helpers.paths import RECORDINGS

FOLDER = RECORDINGS / "golden"


def draw(name: str, shape, seed: int = 0) -> np.ndarray:
    """Returns a standard normal float32 array, which depends only on shape, name and seed."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.standard_normal(tuple(shape), dtype=np.float32)


def draw_last(name: str, shape) -> np.ndarray:
    """Returns `draw` for a channels-first `shape`, as a channels-last array."""
    return channels_last(draw(name, shape))


def image(batch: int, size: int) -> np.ndarray:
    """Returns smooth images [batch, 3, size, size] in (-1, 1): blurred noise plus fine noise."""
    x = draw("x0", (batch, 3, 8, 8))
    x = x.repeat(size // 8, axis=2).repeat(size // 8, axis=3)
    for axis in (2, 3):
        for _ in range(3):
            x = (np.roll(x, 1, axis) + x + np.roll(x, -1, axis)) / np.float32(3)
    fine = np.float32(0.1) * draw("x0/fine", x.shape)
    return np.tanh(x + fine).astype(np.float32)


def _matrix(key: str, weight: np.ndarray) -> np.ndarray:
    if key == "decoder.init.init.0.":  # transposed convolution: output channels on axis 1
        weight = np.moveaxis(weight, 1, 0)
    return weight.reshape(weight.shape[0], -1).astype(np.float64)


def _weight(key: str, shape) -> np.ndarray:
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    drawn = draw(key, shape)
    if key.endswith("running_var"):
        return 0.5 + np.abs(drawn)
    if key.endswith("running_mean"):
        return (0.1 * drawn).astype(np.float32)
    if key.endswith("bias"):
        return np.float32(0.05) * drawn
    if len(shape) == 1:
        return 1 + np.float32(0.1) * drawn
    return drawn / np.float32(np.sqrt(np.prod(shape[1:])))


def make_state_dict(manifest: dict) -> dict[str, np.ndarray]:
    """Returns a random state dict for {key: shape} of a released model; no layer is zero."""
    out = {
        key: _weight(key, shape)
        for key, shape in manifest.items()
        if not key.endswith(("weight_u", "weight_v"))
    }
    for key in [key for key in manifest if key.endswith("weight_u")]:
        base = key.removesuffix("weight_u")
        matrix = _matrix(base, out[base + "weight_orig"])
        u = draw(key, matrix.shape[:1]).astype(np.float64)
        for _ in range(8):
            v = matrix.T @ u
            v /= np.linalg.norm(v)
            u = matrix @ v
            u /= np.linalg.norm(u)
        out[base + "weight_u"], out[base + "weight_v"] = u.astype(np.float32), v.astype(np.float32)
    return out


def checksum(name: str, array: np.ndarray) -> np.ndarray:
    """Returns [L2 norm, dot product with a random array / sqrt(size)], float64."""
    flat = np.asarray(array, np.float64).ravel()
    probe = draw("probe/" + name, flat.shape).astype(np.float64)
    return np.array([np.linalg.norm(flat), probe @ flat / np.sqrt(flat.size)])


def distance(got: np.ndarray, want: np.ndarray, name: str) -> float:
    """Returns the relative L2 distance of an array to a golden entry, an array or a checksum."""
    if want.shape == (2,) and got.shape != (2,):
        norm, dot = np.abs(checksum(name, got) - want) / want[0]
        return float(max(norm, dot * np.sqrt(got.size)))
    return float(np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want))


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def channels_first(x) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


class Case:
    """A golden file with its model, which is built from the configs of this repository."""

    def __init__(self, name: str):
        self.outputs = dict(np.load(FOLDER / f"{name}.npz"))
        self.meta = json.loads(str(self.outputs["meta"]))
        self.manifest = json.loads(str(self.outputs["manifest"]))
        c = {"celeba": celeba, "ffhq": ffhq}[self.meta["dataset"]].get_config()
        c.bridge.schedule = self.meta["pred_mode"]
        c.model.stochastic = self.meta["stochastic_encoder"]
        c.model.matmul_precision = "highest"
        self.config = config.from_config_dict(c)
        self.networks = build.make_networks(self.config)
        self.bridge = build.make_bridge(self.config.bridge)
        self.batch, size = self.meta["batch"], self.meta["image_size"]
        self.shape = (self.batch, 3, size, size)
        self.x_0 = channels_last(image(self.batch, size))
        self.noise = draw_last("noise", self.shape)

    @functools.cached_property
    def state_dict(self) -> dict[str, np.ndarray]:
        return make_state_dict(self.manifest)

    @functools.cached_property
    def shapes(self) -> dict:
        return jax.eval_shape(self.networks.init, jax.random.key(0))

    @functools.cached_property
    def variables(self) -> dict:
        return torch_state_dict.from_state_dict(self.state_dict, self.networks.module, self.shapes)

    def distance(self, entry: str, got, name: str | None = None) -> float:
        """Returns the distance of channels-last images, or of other arrays, to a golden entry."""
        got = np.asarray(got)
        got = channels_first(got) if got.ndim == 4 else got
        return distance(got, self.outputs[entry], name or entry)
