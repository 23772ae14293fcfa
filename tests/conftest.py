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
# Modules whose tests hold up to 18 GB: the Makefile runs them alone.
LARGE = ("test_train_step", "test_golden", "test_models")
# Those that take longest come first, so that nobody waits for them at the end.
LONG = ("test_kills", "test_processes", "test_samplers", "test_system")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Marks the large modules, and gives each module whole to one process of pytest-xdist."""
    for item in items:
        name = item.module.__name__.rpartition(".")[2]
        item.add_marker(pytest.mark.xdist_group(name))
        if name in LARGE:
            item.add_marker(pytest.mark.large)
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.module.__name__.rpartition(".")[2], len(order)))


sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
