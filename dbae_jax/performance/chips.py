"""What a chip can do at most, from its maker's tables; all figures are for one chip."""

import dataclasses

GB, TERA = 1e9, 1e12


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of a chip: rates a second, sizes in bytes.

    `interconnect` counts one direction of all links between the chips of a slice or a box, where
    every link of a chip leads to another: in a small slice of a TPU some do not.
    """

    name: str
    bfloat16_flops: float
    float32_flops: float  # of true float32 products; on TPUs six bfloat16 passes make one
    high_float32_flops: float  # at jax's "high" precision: three passes on TPUs, TF32 on GPUs
    default_float32_flops: float  # at jax's default precision
    memory_bytes: float
    memory_bandwidth: float
    interconnect: float
    source: str

    def peak_flops(self, dtype: str, precision: str) -> float:
        """Returns the peak of products in `dtype` at jax's matmul `precision`."""
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


# Memory of TPUs in GiB, of GPUs in GB as their makers count. Read 2026-11-20.
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

# What drivers call the GPUs whose figures these are, and no others: an A100 has 40 GB too.
GPU_NAMES = {
    "A100": r"A100-SXM4-80GB\b",
    "H100": r"H100 80GB HBM3\b",
    "H200": r"\bH200$",
}

# Shapes to show in messages: chips along the two or three axes of the slice.
TPU_SHAPES = {"v4": "2x2x1", "v5e": "4x4", "v5p": "2x2x4", "v6e": "4x4"}
