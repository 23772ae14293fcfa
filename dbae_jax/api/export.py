"""Functions of a model with the weights inside, as StableHLO that runs without this package.

import pathlib
import jax

decode = jax.export.deserialize(bytearray(pathlib.Path("decode.jax").read_bytes()))
images = decode.call(z)  # float32 [B, D] -> [B, H, W, C]
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
from jax import export as jax_export

from dbae_jax.api.apply import Apply
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.errors import DataError
from dbae_jax.runtime import files
from dbae_jax.sampling.plan import Plan

PLATFORMS = ("cpu", "cuda", "tpu")
FUNCTIONS = ("encode", "endpoint", "decode")


class Model(Protocol):
    """The parts of a model that this module uses; `DBAE` has them."""

    config: Config
    variables: dict

    @property
    def apply(self) -> Apply: ...

    @property
    def gaussian_endpoint(self) -> bool: ...


def export(
    model: Model,
    function: str,
    path: pathlib.Path,
    *,
    batch_size: int | None,
    platforms: Sequence[str],
    plan: Plan,
) -> None:
    """Writes a function of a model into a file; see `DBAE.export`."""
    if function not in FUNCTIONS:
        raise DataError(f"{function!r} is not allowed: export one of {', '.join(FUNCTIONS)}.")
    if importlib.util.find_spec("flatbuffers") is None:
        raise DataError("jax.export needs flatbuffers: pip install -e '.[export]'.")
    if function == "decode" and plan.needs_noise:
        raise DataError(
            "An exported decoder takes no random key: leave out churn, eta and boot, and export "
            "that of a distilled model with steps=1."
        )
    # One program serves all platforms, so its attention must be one that all of them have.
    networks = build.make_networks(model.config)
    apply = dataclasses.replace(model.apply, networks=networks)
    batch: Any = jax_export.symbolic_shape("b")[0] if batch_size is None else batch_size
    images, z = (batch, *apply.image_shape), (batch, model.config.model.latent_dim)
    calls: dict[str, tuple[Callable[..., jax.Array], tuple]] = {
        "encode": (lambda images: apply.encode(model.variables, images), (images,)),
        "endpoint": (lambda z: apply.endpoint(model.variables, z), (z,)),
        "decode": (
            lambda *arrays: apply.decode(model.variables, *arrays, plan=plan, remat=False),
            (z, images) if model.gaussian_endpoint else (z,),
        ),
    }
    call, shapes = calls[function]
    arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    exported = jax_export.export(jax.jit(call), platforms=tuple(platforms))(*arguments)
    files.write_bytes(path, bytes(exported.serialize()))
