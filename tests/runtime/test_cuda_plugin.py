"""The settings of jax's plugin for CUDA on machines with and without a GPU."""

import os

import pytest

from dbae_jax.runtime import cuda_plugin


@pytest.mark.parametrize(("files", "value"), [((), "1"), (("/dev",), None)])
def test_versions_are_checked_only_where_there_is_a_gpu(files, value, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(cuda_plugin, "GPU_FILES", ("/nowhere", *files))
    cuda_plugin.skip_version_check_without_gpu()
    assert os.environ.get("JAX_SKIP_CUDA_CONSTRAINTS_CHECK") == value
