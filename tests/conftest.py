"""Test setup: eight virtual CPU devices; programs compiled quickly, and once for all tests."""

import atexit
import ctypes
import gc
import importlib.metadata
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

# Test programs run a few times: optimising them takes longer than running them.
FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if importlib.metadata.version("jax").startswith("0.10."):  # later ones end at unknown flags
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
# Subprocesses that tests start inherit all of these.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="dbae_jax-programs-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

MOST_MEMORY = 3 * 2**30  # bytes; with more, a process forgets a module's programs after it
# Those that take longest come first, so that nobody waits for them at the end.
LONG = (
    *("test_golden", "test_processes", "test_step", "test_system", "test_total_correlation"),
    *("test_knobs", "test_convert", "test_wheel", "test_kills", "test_evaluate", "test_plan"),
    "test_distill",
)


def pytest_addoption(parser):
    """Adds --slow."""
    parser.addoption("--slow", action="store_true", help="Also run the tests marked as slow.")


def pytest_collection_modifyitems(config, items):
    """Begins with the modules that take longest, and skips slow tests that nobody asked for."""
    if not config.getoption("--slow"):
        skip = pytest.mark.skip(reason="slow: runs with `pytest --slow` or `make test SLOW=1`")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(_module(item), len(order)))


def pytest_runtest_teardown(item, nextitem):
    """Bounds the memory: jax keeps every compiled program until its caches are cleared."""
    last = nextitem is None or _module(nextitem) != _module(item)
    if last and _memory() > MOST_MEMORY:
        import jax  # not before the environment is set, which it reads at import

        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def emulator_of():
    """Starts each emulated store once: libraries keep its address as long as the process runs."""
    from tests.helpers import emulators  # not before the path is set

    started = {}

    def of(scheme):
        if scheme not in started:
            started[scheme] = emulators.Emulator(scheme)
        return started[scheme]

    yield of
    for emulator in started.values():
        emulator.stop()


@pytest.fixture(scope="session", params=["gs", "s3"])
def store(request, emulator_of):
    """The URL of a bucket in an emulated store, which this process and its children find."""
    from tests.helpers import emulators  # not before the path is set

    if packages := emulators.missing(request.param):
        pytest.skip(f"not installed: {packages} (extras cloud and emulators)")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator_of(request.param).environment.items():
            patch.setenv(name, value)
        yield f"{request.param}://{emulators.BUCKET}"


def _module(item) -> str:
    return item.module.__name__.rpartition(".")[2]


def _memory() -> int:
    """Returns the bytes that this process holds; 0 on systems without /proc."""
    statm = pathlib.Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
