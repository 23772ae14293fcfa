"""Test setup: eight virtual CPU devices; programs compiled quickly, and once for all tests."""

import atexit
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

# Subprocesses that tests start inherit all of these.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Test programs run a few times: optimising them takes longer than running them.
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="dbae_jax-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
# Those that take longest come first, so that nobody waits for them at the end.
LONG = (
    *("test_full_size", "test_golden", "test_kills", "test_processes", "test_train_step"),
    *("test_samplers", "test_system"),
)
# Their cases share nothing: each is dealt out by itself. They hold the most memory, up to 10 GB.
SPLIT = ("test_full_size", "test_golden")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Gives each module (each case of some) whole to one process of pytest-xdist."""
    for item in items:
        name = _module(item)
        item.add_marker(pytest.mark.xdist_group(name + _case(item) if name in SPLIT else name))
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(_module(item), len(order)))


def _module(item) -> str:
    return item.module.__name__.rpartition(".")[2]


def _case(item) -> str:
    return item.name.partition("[")[2]


sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
