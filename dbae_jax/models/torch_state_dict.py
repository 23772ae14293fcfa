"""Conversion of the authors' PyTorch state dicts to flax variables, and back.

The conversion maps names, shapes and layouts of arrays. It reads the same lists of stages
(`stages`) as the networks, so every model that a config can describe has a state dict, except for
models without an endpoint decoder or without mean pooling. This file neither reads nor writes
files.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from flax import traverse_util

from dbae_jax.errors import CheckpointError
from dbae_jax.models import stages
from dbae_jax.models.autoencoder import AutoEncoder
from dbae_jax.models.decoder import FIRST_GATED_SIZE
from dbae_jax.models.encoder import Encoder
from dbae_jax.models.unet import UNet

Shape = tuple[int, ...]
StateDict = Mapping[str, np.ndarray]

# A block of released decoders that the authors' code never runs.
UNUSED = re.compile(r"decoder\.feat_256\.")
# PyTorch's counters of the batches that a batch norm has seen. No computation reads them.
COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Layout:
    """The relation between the layout of an array in PyTorch and its layout in flax."""

    torch_shape: Shape
    axes: tuple[int, ...]  # permutation that leads from the PyTorch array to the flax array
    view: Shape | None = None  # shape to which the PyTorch array is reshaped before `axes`

    def to_ours(self, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Returns a PyTorch array in the layout of flax; `shape` is its shape in flax."""
        return array.reshape(self.view or self.torch_shape).transpose(self.axes).reshape(shape)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Returns a flax array in the layout of PyTorch."""
        view = self.view or self.torch_shape
        permuted = array.reshape([view[axis] for axis in self.axes])
        return np.ascontiguousarray(permuted.transpose(np.argsort(self.axes))).reshape(
            self.torch_shape
        )


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of a state dict, and the path of its array in the flax variables."""

    key: str
    path: tuple[str, ...]
    layout: Layout


# Functions of the kinds of arrays: shape in flax -> layout in PyTorch.
Kind = Callable[[Shape], Layout]
# (prefix in PyTorch, path in flax, kind of the kernel or None for a norm) of a layer with weights
LayerNames = Iterator[tuple[str, tuple[str, ...], Kind | None]]


def _same(shape: Shape) -> Layout:
    return Layout(shape, tuple(range(len(shape))))


def _linear(shape: Shape) -> Layout:
    return Layout(shape[::-1], (1, 0))


def _linear_as_conv(shape: Shape) -> Layout:
    return Layout((*shape[::-1], 1, 1), (2, 3, 1, 0))


def _conv(shape: Shape) -> Layout:
    h, w, i, o = shape
    return Layout((o, i, h, w), (2, 3, 1, 0))


def _conv_1d(shape: Shape) -> Layout:
    return Layout((shape[3], shape[2], 1), (2, 1, 0))


def _conv_transposed(shape: Shape) -> Layout:
    h, w, i, o = shape
    return Layout((i, o, h, w), (2, 3, 0, 1))


def entries(module: AutoEncoder, variables: dict) -> list[Entry]:
    """Returns the entries of the state dict of a model.

    Args:
      module: the networks of the model.
      variables: variables of the networks, or their shapes.

    Raises:
      CheckpointError: for a model that the authors' code does not have.
    """
    if module.decoder is None:
        raise CheckpointError(
            "config.bridge.endpoint='free' has no counterpart in the authors' state dicts; only "
            "models with an endpoint decoder can be converted."
        )
    if module.encoder.pool != "mean":
        raise CheckpointError(
            f"config.model.encoder.pool={module.encoder.pool!r} has no counterpart in the "
            "authors' state dicts; only 'mean' can be converted."
        )
    flat = traverse_util.flatten_dict(variables)
    found = []
    for key, path, kind in _modules(module):
        for name in _torch_names(path, flat):
            found.append(_entry(f"{key}.{name}", path, name, kind, flat))
    covered = {entry.path for entry in found}
    assert covered == set(flat), sorted(set(flat) ^ covered)
    return found


def from_state_dict(state_dict: StateDict, module: AutoEncoder, shapes: dict) -> dict:
    """Returns flax variables with the values of a state dict.

    Args:
      state_dict: key -> array, as released by the authors.
      module: the networks of the model.
      shapes: variables of the networks, or `jax.eval_shape` of their initialisation.

    Raises:
      CheckpointError: if entries are missing, unknown, of another shape or not finite (the error
        lists them), or if the authors' code has no such model. The unused block feat_256 and batch
        counters are accepted.
    """
    return _filled(state_dict, entries(module, shapes), shapes)


def to_state_dict(
    variables: dict, module: AutoEncoder, counters: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """Returns the state dict of flax variables, without the unused block feat_256.

    Args:
      variables: {"params", "stats"}.
      module: the networks of the model.
      counters: key -> number of batches that a batch norm has seen; 0 for missing keys.
    """
    flat = traverse_util.flatten_dict(jax.device_get(variables))
    state_dict = {}
    for entry in entries(module, variables):
        state_dict[entry.key] = entry.layout.to_torch(np.asarray(flat[entry.path]))
        if entry.key.endswith("running_var"):
            key = entry.key.replace("running_var", COUNTER)
            state_dict[key] = np.asarray((counters or {}).get(key, 0), np.int64)
    return state_dict


def prior_from_state_dict(state_dict: StateDict, shapes: dict) -> dict:
    """Returns the weights of the network of a latent prior, with the values of a state dict.

    Args:
      state_dict: key -> array, in the format of DiffAE. `linear_emb` is a second name of
        `cond_layers.1`, and is not read.
      shapes: weights of the network, or `jax.eval_shape` of their initialisation.

    Raises:
      CheckpointError: if entries are missing, unknown or of another shape; the error lists them.
    """
    used = {key: array for key, array in state_dict.items() if ".linear_emb." not in key}
    return _filled(used, prior_entries(shapes), shapes)


def prior_entries(shapes: dict) -> list[Entry]:
    """Returns the entries of the state dict of the network of a latent prior.

    Args:
      shapes: weights of the network, or `jax.eval_shape` of their initialisation.
    """
    found = []
    for name, weight in traverse_util.flatten_dict(shapes):
        key = re.sub(r"^time_0", "time_embed.0", name)
        key = re.sub(r"^time_1", "time_embed.2", key)
        key = re.sub(r"^layer_(\d+)_time", r"layers.\1.cond_layers.1", key)
        key = re.sub(r"^layer_(\d+)_norm", r"layers.\1.norm", key)
        key = re.sub(r"^layer_(\d+)$", r"layers.\1.linear", key)
        shape = tuple(shapes[name][weight].shape)
        kind = _linear if weight == "kernel" else _same
        torch_name = "bias" if weight == "bias" else "weight"
        found.append(Entry(f"{key}.{torch_name}", (name, weight), kind(shape)))
    return found


def read_counters(state_dict: StateDict) -> dict[str, int]:
    """Returns the batch counters of a state dict, without counters of the unused block."""
    return {
        key: int(value)
        for key, value in state_dict.items()
        if key.endswith(COUNTER) and not UNUSED.match(key)
    }


def _filled(state_dict: StateDict, wanted: list[Entry], shapes: dict) -> dict:
    """Returns flax variables of these shapes with the values of the state dict."""
    _refuse_misfits(state_dict, {entry.key: entry for entry in wanted})
    _refuse_infinite(state_dict, [entry.key for entry in wanted])
    flat = traverse_util.flatten_dict(shapes)
    filled = {
        entry.path: entry.layout.to_ours(state_dict[entry.key], flat[entry.path].shape).astype(
            flat[entry.path].dtype
        )
        for entry in wanted
    }
    return traverse_util.unflatten_dict(filled)


def _refuse_infinite(state_dict: StateDict, keys: list[str]) -> None:
    """Raises CheckpointError for a tensor with values that are no finite numbers."""
    wrong = [
        key
        for key in keys
        if state_dict[key].dtype.kind == "c" or not np.isfinite(state_dict[key]).all()
    ]
    if wrong:
        more = f" and {len(wrong) - 1} more tensors" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"the tensor {wrong[0]}{more} of the state dict holds NaN, infinity or complex "
            "numbers; the training has failed, or a number format was too narrow: take an earlier "
            "file, or save it in float32."
        )


def _refuse_misfits(state_dict: StateDict, wanted: Mapping[str, Entry]) -> None:
    """Raises CheckpointError if the state dict does not have exactly the wanted entries."""
    missing = [key for key in wanted if key not in state_dict]
    unknown = [
        key
        for key in state_dict
        if key not in wanted and not UNUSED.match(key) and not key.endswith(COUNTER)
    ]
    misshapen = [
        f"{key} is {list(state_dict[key].shape)}, should be {list(entry.layout.torch_shape)}"
        for key, entry in wanted.items()
        if key in state_dict and state_dict[key].shape != entry.layout.torch_shape
    ]
    problems = [
        f"{len(keys)} {name}: {', '.join(keys[:20])}{', ...' if len(keys) > 20 else ''}"
        for name, keys in (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"The state dict does not fit the model of --config ({'; '.join(problems)}). Name the "
            "config that the weights were trained with."
        )


def _torch_names(path: tuple[str, ...], flat: Mapping) -> list[str]:
    """Returns the names that the arrays of a flax module have in PyTorch."""
    if ("stats", *path, "u") in flat:
        return ["weight_orig", "weight_u", "weight_v"]
    names = ["weight", "bias"]
    if ("stats", *path, "mean") in flat:
        names += ["running_mean", "running_var"]
    return names


def _entry(key: str, path: tuple[str, ...], name: str, kind: Kind | None, flat: Mapping) -> Entry:
    """Returns the entry of the PyTorch array `name` of the flax module at `path`."""
    is_norm = ("params", *path, "scale") in flat
    collection, flax_name = {
        "weight": ("params", "scale" if is_norm else "kernel"),
        "weight_orig": ("params", "kernel"),
        "bias": ("params", "bias"),
        "weight_u": ("stats", "u"),
        "weight_v": ("stats", "v"),
        "running_mean": ("stats", "mean"),
        "running_var": ("stats", "var"),
    }[name]
    full_path = (collection, *path, flax_name)
    shape = tuple(flat[full_path].shape)
    if name == "weight_v":  # ordered [in][h][w] in PyTorch, [h][w][in] in flax
        h, w, i, _ = flat[("params", *path, "kernel")].shape
        return Entry(key, full_path, Layout(shape, (1, 2, 0), view=(i, h, w)))
    convert = kind if kind is not None and flax_name == "kernel" else _same
    return Entry(key, full_path, convert(shape))


def _modules(module: AutoEncoder) -> LayerNames:
    """Yields the names and the kind of every layer with weights."""
    yield from _unet(module)
    yield from _encoder(module)
    yield from _decoder(module)


def _unet(module: AutoEncoder) -> LayerNames:
    unet = ("unet",)
    for key, name in (
        ("time_embed.0", "time_0"),
        ("time_embed.2", "time_1"),
        ("label_emb", "code"),
    ):
        yield key, (*unet, name), _linear
    yield from _down_path_and_middle("", unet, module.unet, two_halves=True)
    for stage in stages.up_path(module.unet):
        key, path = f"output_blocks.{stage.index}", f"up_{stage.index}"
        # The input [h, skip] always has more channels than h.
        yield from _block(f"{key}.0", (*unet, path), skip=True, two_halves=True)
        if stage.attention:
            yield from _attention(f"{key}.1", (*unet, f"{path}_attention"), _conv)
        if stage.upsample_after:
            last = 2 if stage.attention else 1
            path = f"{path}_upsample"
            yield from _block(f"{key}.{last}", (*unet, path), skip=False, two_halves=True)
    yield "out.0", (*unet, "norm_out"), None
    yield "out.2", (*unet, "conv_out"), _conv


def _encoder(module: AutoEncoder) -> LayerNames:
    path = ("encoder",)
    yield from _down_path_and_middle("encoder.", path, module.encoder, two_halves=False)
    yield "encoder.out.0", (*path, "norm_out"), None
    yield "encoder.out.3", (*path, "project"), _linear_as_conv


def _down_path_and_middle(
    prefix: str, root: tuple[str, ...], network: Encoder | UNet, *, two_halves: bool
) -> LayerNames:
    """Yields the layers of first convolution, down path and middle of encoder or U-Net.

    `two_halves`: whether residual blocks have the second half of the U-Net's blocks.
    """
    attention_kind = _conv if two_halves else _conv_1d
    yield f"{prefix}input_blocks.0.0", (*root, "conv_in"), _conv
    channels = network.base_channels
    for stage in stages.down_path(network):
        key, path = f"{prefix}input_blocks.{stage.index}", f"down_{stage.index}"
        skip = stage.channels != channels
        yield from _block(f"{key}.0", (*root, path), skip=skip, two_halves=two_halves)
        if stage.attention:
            yield from _attention(f"{key}.1", (*root, f"{path}_attention"), attention_kind)
        channels = stage.channels
    middle = f"{prefix}middle_block"
    yield from _block(f"{middle}.0", (*root, "middle_0"), skip=False, two_halves=two_halves)
    yield from _attention(f"{middle}.1", (*root, "middle_attention"), attention_kind)
    yield from _block(f"{middle}.2", (*root, "middle_1"), skip=False, two_halves=two_halves)


def _block(key: str, path: tuple[str, ...], *, skip: bool, two_halves: bool) -> LayerNames:
    yield f"{key}.in_layers.0", (*path, "norm_in"), None
    yield f"{key}.in_layers.2", (*path, "conv_in"), _conv
    if two_halves:
        yield f"{key}.emb_layers.1", (*path, "embedding"), _linear
        yield f"{key}.out_layers.0", (*path, "norm_out"), None
        yield f"{key}.out_layers.3", (*path, "conv_out"), _conv
    if skip:
        yield f"{key}.skip_connection", (*path, "skip"), _conv


def _attention(key: str, path: tuple[str, ...], kind: Kind) -> LayerNames:
    yield f"{key}.norm", (*path, "norm"), None
    yield f"{key}.qkv", (*path, "qkv"), kind
    yield f"{key}.proj_out", (*path, "out"), kind


def _decoder(module: AutoEncoder) -> LayerNames:
    assert module.decoder is not None  # `entries` has refused other models
    root, image_size = ("decoder",), module.decoder.image_size
    yield "decoder.init.init.0", (*root, "up_4", "conv"), _conv_transposed
    yield "decoder.init.init.1", (*root, "up_4", "norm"), None
    size = 8
    while size <= image_size:
        yield f"decoder.feat_{size}.1", (*root, f"up_{size}", "conv"), _conv
        yield f"decoder.feat_{size}.2", (*root, f"up_{size}", "norm"), None
        if size >= FIRST_GATED_SIZE:
            yield f"decoder.se_{size}.main.1", (*root, f"gate_{size}", "conv_0"), _conv
            yield f"decoder.se_{size}.main.3", (*root, f"gate_{size}", "conv_1"), _conv
        size *= 2
    yield f"decoder.to_{image_size}", (*root, "conv_out"), _conv
