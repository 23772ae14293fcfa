"""Trainings that repeat exactly on GPUs; see `config.train.deterministic`.

A step for CPUs or TPUs gives the same numbers whenever it runs. On GPUs two things differ between
runs, and each has its remedy.

- Some operations add numbers in the order in which threads finish. A compiler option excludes them.
- XLA times several implementations of an operation when it compiles a program. A second compilation
  may choose another one, which rounds differently. So the compiled program is kept in the workdir,
  where a resumed training finds it. XLA's record of its choices is kept there too, but it is not
  complete (openxla/xla#37902).
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from dbae_jax.configuration.config import Config
from dbae_jax.runtime import platforms
from dbae_jax.runtime.buckets import access

FOLDER = "compiled_programs"


def compiler_options(config: Config, mesh: jax.sharding.Mesh) -> dict[str, bool] | None:
    """Returns the options for the training step: no operation whose sums depend on timing."""
    if not config.train.deterministic:
        return None
    return platforms.deterministic_options(platforms.platform_of(mesh.devices.flat[0]))


@contextlib.contextmanager
def programs_kept(config: Config, directory: pathlib.Path) -> Iterator[None]:
    """Keeps the programs that are compiled meanwhile in a workdir, and reads them from there.

    The folder replaces that of JAX_COMPILATION_CACHE_DIR, because other runs change that one. A
    program is compiled anew for another kind of device or another version of JAX.

    Args:
      config: checked config; nothing happens unless `train.deterministic` is set.
      directory: the workdir.
    """
    if not config.train.deterministic:
        yield
        return
    settings: dict[str, Any] = {
        "jax_compilation_cache_dir": str(directory / FOLDER),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    if access.is_bucket(directory):  # XLA writes its record on disks only
        settings["jax_persistent_cache_enable_xla_caches"] = "none"
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        _set(settings)
        yield
    finally:
        _set(before)


def _set(settings: dict) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX reads the folder's name once
