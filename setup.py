"""Maps the folder `configs/` to the package `dbae_jax.configs`; pyproject.toml has all the rest."""

from setuptools import find_packages, setup

CONFIGS = "dbae_jax.configs"

setup(
    packages=[
        *find_packages(include=["dbae_jax", "dbae_jax.*"]),
        CONFIGS,
        *(f"{CONFIGS}.{name}" for name in find_packages("configs")),
    ],
    package_dir={CONFIGS: "configs"},
)
