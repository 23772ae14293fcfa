"""Published weights: their addresses, the checks of their files, and the networks they make.

A file is used only if its sha256 is the expected one and its arrays have the names, shapes and type
of the network's parameters. No code in a file is executed.
"""

import dataclasses
import functools
import hashlib
import logging
import pathlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

import jax
import numpy as np

from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.metrics.networks import alexnet_lpips, inception, resize, vgg16
from dbae_jax.metrics.networks.layers import Params
from dbae_jax.runtime import tensor_files

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A published file. sha256: the known leading digits of its hash."""

    name: str
    url: str
    sha256: str


INCEPTION_FILE = WeightFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
)
ALEXNET_FILE = WeightFile(
    "alexnet-owt-7be5be79.pth",
    "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "7be5be79",
)
LPIPS_FILE = WeightFile(
    "lpips_v0.1_alex.pth",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/"
    "lpips/weights/v0.1/alex.pth",
    # The hash in the manifest of the release lpips 0.1.4.
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
)

VGG16_FILE = WeightFile(
    "vgg16-397923af.pth",
    "https://download.pytorch.org/models/vgg16-397923af.pth",
    "397923af",
)

INCEPTION, LPIPS = "inception-2015-12-05", "lpips-alex-v0.1"
VGG16 = "vgg16-397923af"
FILES = {
    INCEPTION: (INCEPTION_FILE,),
    LPIPS: (ALEXNET_FILE, LPIPS_FILE),
    VGG16: (VGG16_FILE,),
}


@dataclasses.dataclass(frozen=True)
class Origin:
    """The name of a network and the sha256 of its weight files.

    Only weights that `load_inception`, `load_vgg16` and `load_lpips` have read and verified carry
    the published names. A network with different weights has a different name, and the names of
    its scores contain that name.
    """

    net: str
    sha256: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.net in FILES and not self.published:
            raise DataError(
                f"the name {self.net} is for the published weights alone; "
                "give a network with different weights a different name."
            )

    @property
    def published(self) -> bool:
        """Whether the weights are the published ones."""
        files = FILES.get(self.net, ())
        return len(files) == len(self.sha256) > 0 and all(
            len(whole) == 64 and whole.startswith(file.sha256)
            for whole, file in zip(self.sha256, files, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class FeatureNet:
    """A network that computes features of images.

    Attributes:
      origin: name and weight hashes of the network.
      width: number of features.
      apply: function from uint8 images [B, H, W, C] to `inception.Outputs`; logits may be None.
      preparation: name of the method that prepares images for the network.
      image: required (H, W, C) of images; None for a side of any size.
    """

    origin: Origin
    width: int
    apply: Callable[[np.ndarray], inception.Outputs]
    preparation: str = "own"
    image: tuple[int | None, int | None, int | None] = (None, None, 3)


@dataclasses.dataclass(frozen=True)
class PerceptualNet:
    """A network for perceptual distances. params: parameters for `alexnet_lpips.apply`."""

    origin: Origin
    params: Params


def load_inception(
    directory: pathlib.Path, preparation: str, *, download: bool = False
) -> FeatureNet:
    """Returns the published Inception network.

    Args:
      directory: folder with the file `INCEPTION_FILE.name`.
      preparation: a key of `resize.PREPARATIONS`, such as the preparation of a protocol in
        `generation.PRESETS`.
      download: whether to download the file if it is missing.

    Raises:
      CheckpointError: if the file is missing, or its hash or its arrays are wrong.
    """
    state, sha256 = read(INCEPTION_FILE, directory, inception.state_shapes(), download=download)
    return make_inception(state, Origin(INCEPTION, (sha256,)), preparation)


def make_inception(state: Mapping[str, np.ndarray], origin: Origin, preparation: str) -> FeatureNet:
    """Returns an Inception network with given weights of the shapes of `inception.state_shapes`."""
    if preparation not in resize.PREPARATIONS:
        known = ", ".join(resize.PREPARATIONS)
        raise DataError(f"images have no preparation {preparation!r}; there are {known}.")
    check_arrays(state, inception.state_shapes(), origin.net)
    params = jax.device_put(inception.fold(state))

    @jax.jit
    def run(params: Params, images: jax.Array) -> inception.Outputs:
        return inception.apply(params, resize.prepare(images, preparation, inception.SIZE))

    return FeatureNet(origin, inception.WIDTH, functools.partial(run, params), preparation)


def load_vgg16(directory: pathlib.Path, *, download: bool = False) -> FeatureNet:
    """Returns the published VGG16, for precision and recall.

    Args:
      directory: folder with the file `VGG16_FILE.name`.
      download: whether to download the file if it is missing.

    Raises:
      CheckpointError: if the file is missing, or its hash or its arrays are wrong.
    """
    shapes = vgg16.state_shapes()
    state, sha256 = read(VGG16_FILE, directory, shapes, ignored="classifier.6.", download=download)
    return make_vgg16(state, Origin(VGG16, (sha256,)))


def make_vgg16(state: Mapping[str, np.ndarray], origin: Origin) -> FeatureNet:
    """Returns a VGG16 with given weights of the shapes of `vgg16.state_shapes`."""
    check_arrays(state, vgg16.state_shapes(), origin.net)
    params = jax.device_put(dict(state))

    @jax.jit
    def run(params: Params, images: jax.Array) -> inception.Outputs:
        return vgg16.apply(params, resize.prepare(images, "pytorch", vgg16.SIZE))

    return FeatureNet(origin, vgg16.WIDTH, functools.partial(run, params), "pytorch")


def load_lpips(directory: pathlib.Path, *, download: bool = False) -> PerceptualNet:
    """Returns the published network of LPIPS (alex, version 0.1).

    Args:
      directory: folder with the files `ALEXNET_FILE.name` and `LPIPS_FILE.name`.
      download: whether to download missing files.

    Raises:
      CheckpointError: if a file is missing, or its hash or its arrays are wrong.
    """
    shapes = alexnet_lpips.trunk_shapes()
    trunk, trunk_hash = read(
        ALEXNET_FILE, directory, shapes, ignored="classifier.", download=download
    )
    shapes = alexnet_lpips.linear_shapes()
    linear, linear_hash = read(LPIPS_FILE, directory, shapes, download=download)
    params = jax.device_put({**trunk, **linear})
    return PerceptualNet(Origin(LPIPS, (trunk_hash, linear_hash)), params)


def read(
    file: WeightFile,
    directory: pathlib.Path,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    ignored: str | None = None,
    download: bool = False,
) -> tuple[dict[str, np.ndarray], str]:
    """Returns the arrays of a published file, and its sha256.

    Args:
      file: published file to read.
      directory: folder with the file.
      shapes: expected shapes by name.
      ignored: prefix of the names of arrays to leave out.
      download: whether to download the file if it is missing.

    Raises:
      CheckpointError: if the file is missing, or its hash or its arrays are wrong.
    """
    path = directory / file.name
    if not path.is_file():
        if not download:
            raise CheckpointError(
                f"{path} is missing; download {file.url} and save it under this path, or set "
                "--config.eval.download_weights=True."
            )
        fetch(file, directory)
    sha256 = _verify(path, file)
    state = tensor_files.read_state_dict(path)
    # Some files contain counters of training steps, which the network does not need.
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if ignored is not None:
        state = {k: v for k, v in state.items() if not k.startswith(ignored)}
    check_arrays(state, shapes, str(path))
    return state, sha256


def fetch(file: WeightFile, directory: pathlib.Path) -> None:
    """Downloads a published file, and moves it to its path only if its sha256 is right.

    Raises:
      CheckpointError: if the download fails, or if the hash is wrong.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / file.name
    fresh = path.with_name(f"{path.name}.tmp")
    log.info("Downloading %s to %s.", file.url, path)
    try:
        with urllib.request.urlopen(file.url, timeout=60) as answer, fresh.open("wb") as target:
            shutil.copyfileobj(answer, target)
        _verify(fresh, file)
        fresh.replace(path)
    except (urllib.error.URLError, OSError) as error:
        raise CheckpointError(
            f"{file.url} could not be downloaded ({error}); "
            f"download it on a different machine and save it as {path}."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def check_arrays(
    state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Raises CheckpointError unless the arrays are finite float32 with these names and shapes."""
    wrong = [f"{k} is missing" for k in shapes if k not in state]
    wrong += [f"{k} is unknown" for k in state if k not in shapes]
    for key in shapes.keys() & state.keys():
        array, shape = np.asarray(state[key]), shapes[key]
        if array.shape != shape or array.dtype != np.float32:
            wrong.append(f"{key} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}")
        elif not np.isfinite(array).all():
            wrong.append(f"{key} contains NaN or infinity")
    if wrong:
        raise CheckpointError(
            f"{where} does not contain the weights of this network ({len(wrong)} errors): "
            f"{'; '.join(sorted(wrong)[:3])}."
        )


def _verify(path: pathlib.Path, file: WeightFile) -> str:
    """Returns the sha256 of a downloaded file; raises CheckpointError if the hash is wrong."""
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if not sha256.startswith(file.sha256):
        raise CheckpointError(
            f"{path} is damaged or a different file: its sha256 begins with {sha256[:8]}, "
            f"that of {file.url} with {file.sha256[:8]}; download the file again."
        )
    return sha256
