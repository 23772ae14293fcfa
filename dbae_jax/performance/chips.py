"""Peak rates and memory of one chip (a TPU or a GPU), from the makers' data sheets."""

import dataclasses

GB, TERA = 1e9, 1e12
# The parts of their published peaks that an H100 reaches: 790 TFLOP/s in large matrix products of
# bfloat16, and 3.0 TB/s in large copies. Others measured both; this project has measured no GPU.
# For other GPUs and other number formats, the same parts are an assumption.
REACHED_FLOPS = 790 / 989
REACHED_BANDWIDTH = 3.0 / 3.35
KERNEL_SECONDS = 3e-6  # least time of a kernel on any GPU, however small its work


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates of a chip per second, and its memory in bytes.

    `interconnect` counts one direction of all links of a chip to the other chips of its slice or
    machine. In a small TPU slice, some of these links are not connected.
    """

    name: str
    bfloat16_flops: float
    float32_flops: float  # precision "highest"; TPUs need six bfloat16 passes for it
    high_float32_flops: float  # precision "high": three bfloat16 passes on TPUs, TF32 on GPUs
    default_float32_flops: float  # precision "default"
    memory_bytes: float
    memory_bandwidth: float
    interconnect: float
    source: str

    def peak_flops(self, dtype: str, precision: str) -> float:
        """Returns the peak rate of matrix products in `dtype` at jax's matmul `precision`."""
        if dtype == "bfloat16" or precision == "default":
            return self.bfloat16_flops if dtype == "bfloat16" else self.default_float32_flops
        return self.high_float32_flops if precision == "high" else self.float32_flops

    def kernel_seconds(self, flops: float, num_bytes: float, dtype: str, precision: str) -> float:
        """Returns the least time of one kernel of a GPU.

        Args:
          flops: FLOPs of its matrix products.
          num_bytes: bytes that it reads from and writes to device memory.
          dtype: number format of the products, "bfloat16" or "float32".
          precision: jax's matmul precision.
        """
        arithmetic = flops / (REACHED_FLOPS * self.peak_flops(dtype, precision))
        return max(
            arithmetic, num_bytes / (REACHED_BANDWIDTH * self.memory_bandwidth), KERNEL_SECONDS
        )


def _tpu(name: str, *, tflops: float, memory: float, bandwidth: float, links: float) -> Chip:
    bfloat16 = tflops * TERA
    return Chip(
        name,
        bfloat16_flops=bfloat16,
        float32_flops=bfloat16 / 6,
        high_float32_flops=bfloat16 / 3,
        default_float32_flops=bfloat16,
        memory_bytes=memory * 2**30,
        memory_bandwidth=bandwidth * GB,
        interconnect=links * GB,
        source=f"https://docs.cloud.google.com/tpu/docs/{name}",
    )


# TPU makers state memory in GiB, GPU makers in GB. Data sheets read on 2026-11-20.
CHIPS = {
    "v4": _tpu("v4", tflops=275, memory=32, bandwidth=1228, links=300),
    "v5e": _tpu("v5e", tflops=197, memory=16, bandwidth=819, links=200),
    "v5p": _tpu("v5p", tflops=459, memory=95, bandwidth=2765, links=600),
    "v6e": _tpu("v6e", tflops=918, memory=32, bandwidth=1638, links=400),
    "A100": Chip(
        "A100",
        312e12,
        19.5e12,
        156e12,
        156e12,
        80e9,
        2039e9,
        300e9,
        "NVIDIA A100 80GB SXM datasheet",
    ),
    "H100": Chip(
        "H100",
        989e12,
        67e12,
        495e12,
        495e12,
        80e9,
        3350e9,
        450e9,
        "NVIDIA H100 SXM datasheet, dense",
    ),
    "H200": Chip(
        "H200",
        989e12,
        67e12,
        495e12,
        495e12,
        141e9,
        4800e9,
        450e9,
        "NVIDIA H200 SXM datasheet, dense",
    ),
    "B200": Chip(
        "B200",
        2250e12,
        80e12,
        1125e12,
        1125e12,
        180e9,
        8000e9,
        900e9,
        "NVIDIA HGX B200 datasheet and Blackwell architecture brief, dense",
    ),
}

# Names that drivers give to exactly these GPUs. There is also an A100 with 40 GB, for example.
GPU_NAMES = {
    "A100": r"A100-SXM4-80GB\b",
    "H100": r"H100 80GB HBM3\b",
    "H200": r"\bH200$",
    "B200": r"NVIDIA B200$",
}

# Example topologies for error messages: chips along the two or three axes of the slice.
TPU_SHAPES = {"v4": "2x2x1", "v5e": "4x4", "v5p": "2x2x4", "v6e": "4x4"}
MOST_GPUS = 8  # in one machine, where `interconnect` holds between any two of them
