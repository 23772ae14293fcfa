"""Peak rates and memory of one chip (a TPU or a GPU), from the makers' data sheets."""

import dataclasses

GB, TERA = 1e9, 1e12


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
}

# Names that drivers give to exactly these GPUs. There is also an A100 with 40 GB, for example.
GPU_NAMES = {
    "A100": r"A100-SXM4-80GB\b",
    "H100": r"H100 80GB HBM3\b",
    "H200": r"\bH200$",
}

# Example topologies for error messages: chips along the two or three axes of the slice.
TPU_SHAPES = {"v4": "2x2x1", "v5e": "4x4", "v5p": "2x2x4", "v6e": "4x4"}
