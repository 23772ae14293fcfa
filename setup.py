"""Maps `configs/` and `examples/weights/` to packages; pyproject.toml has all the rest."""

from setuptools import find_packages, setup

CONFIGS, WEIGHTS = "dbae_jax.configs", "dbae_jax.weights"

setup(
    packages=[
        *find_packages(include=["dbae_jax", "dbae_jax.*"]),
        CONFIGS,
        *(f"{CONFIGS}.{name}" for name in find_packages("configs")),
        WEIGHTS,
    ],
    package_dir={CONFIGS: "configs", WEIGHTS: "examples/weights"},
)
