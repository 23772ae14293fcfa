"""What XLA must know of a GPU to compile for it on a machine without one."""

from typing import NamedTuple


class Target(NamedTuple):
    """Properties of a GPU that the compiler uses."""

    description: str  # name of the GPU as its driver reports it
    capability: tuple[int, int]  # CUDA's compute capability, major and minor
    core_count: int  # streaming multiprocessors
    fpus_per_core: int
    clock_rate_ghz: float
    memory_bandwidth: int  # bytes per second
    device_memory_size: int  # bytes that the driver reports
    l2_cache_size: int
    shared_memory_per_core: int
    shared_memory_per_block_optin: int


# Source: https://github.com/openxla/xla, xla/backends/gpu/target_config/specs, as of 2026.
TARGETS = {
    "a100": Target(
        "NVIDIA A100-SXM4-80GB",
        *((8, 0), 108, 64, 1.41, 2039040000000, 85100068864, 41943040, 167936, 166912),
    ),
    "h100": Target(
        "NVIDIA H100 80GB HBM3",
        *((9, 0), 132, 128, 1.98, 3352320000000, 84942979072, 52428800, 233472, 232448),
    ),
    "h200": Target(
        "NVIDIA H200",
        *((9, 0), 132, 128, 1.98, 4800000000000, 151397597184, 52428800, 233472, 232448),
    ),
    "b200": Target(
        "NVIDIA B200",
        *((10, 0), 148, 128, 1.965, 7672320000000, 191514411008, 132644864, 233472, 232448),
    ),
}
# Limits that all of these GPUs share.
SHARED = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49152,
    "threads_per_core_limit": 2048,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
}
CUDA, CUDNN = (12, 9, 0), (9, 8, 0)  # versions of the libraries that the program is compiled for


def target_config(name: str) -> str:
    """Returns a GPU of `TARGETS` as the text of XLA's message `GpuTargetConfigProto`."""
    values = TARGETS[name]._asdict()
    description, (major, minor) = values.pop("description"), values.pop("capability")
    values["cuda_compute_capability"] = _message(major=major, minor=minor)
    lines = [
        f"gpu_device_info {_message(**SHARED, **values)}",
        'platform_name: "CUDA"',
        f"dnn_version_info {_version(CUDNN)}",
        f"runtime_version {_version(CUDA)}",
        f'device_description_str: "{description}"',
    ]
    return "\n".join(lines)


def _version(numbers: tuple[int, int, int]) -> str:
    return _message(**dict(zip(("major", "minor", "patch"), numbers, strict=True)))


def _message(**fields: object) -> str:
    """Returns fields in the text format of protocol buffers."""
    return "{ " + " ".join(f"{name}: {value}" for name, value in fields.items()) + " }"
