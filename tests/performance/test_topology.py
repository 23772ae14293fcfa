"""Devices to compile for, figures of chips, and the sentences about what is missing."""

import importlib.util

import pytest

from dbae_jax.errors import ConfigError
from dbae_jax.performance import topology
from dbae_jax.performance.chips import CHIPS

needs_cuda_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="jax's plugin for CUDA is not installed (extra: plan-gpu)",
)


@needs_cuda_plugin
@pytest.mark.parametrize("name", ["a100", "h200", "b200"])
def test_every_gpu_has_the_figures_of_its_name(name):
    devices, chip = topology.devices(f"{name}:8")
    assert len(devices) == 8 and chip == topology.gpu_chip(devices[0].device_kind)
    assert chip.name.lower() == name


def test_gpus_of_two_machines_are_an_error():
    with pytest.raises(ConfigError, match="use at most h100:8"):
        topology.devices("h100:16")


@pytest.mark.parametrize(
    ("versions", "sentence"),
    [
        ({"jax": "0.10.2"}, r"needs jax-cuda13-plugin.*\.\[plan-gpu\]"),
        (
            {"jax": "0.9.1", "jax-cuda13-plugin": "0.10.2"},
            r"found are jax 0\.9\.1, jax-cuda13-plugin 0\.10\.2 and Python 3.*upgrade both",
        ),
    ],
)
def test_a_missing_or_old_plugin_is_one_sentence(versions, sentence, monkeypatch):
    monkeypatch.setattr(topology, "_version", versions.get)
    with pytest.raises(ConfigError, match=sentence):
        topology.devices("h100:8")


def test_what_jax_refuses_is_one_sentence(monkeypatch):
    def refuse(**options):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(topology, "_version", lambda name: "0.10.0")
    monkeypatch.setattr(topology.topologies, "get_topology_desc", refuse)
    with pytest.raises(
        ConfigError, match=r"refused by jax 0\.10\.0.*not implemented for cuda\. Pl"
    ):
        topology.devices("h100:8")


@pytest.mark.parametrize("name", ["v9:2x2", "v5e", "v5e:4", "gpu", "gpu:0", "h100", "h100:0"])
def test_errors_for_unknown_topologies_list_the_known_ones(name):
    with pytest.raises(
        ConfigError, match=r"v5e:4x4, v5p:2x2x4, v6e:4x4, a GPU .* h100:8, .* or gpu:8"
    ):
        topology.devices(name)


def test_gpus_that_are_not_there(monkeypatch):
    with pytest.raises(ConfigError, match=r"gpu:2 .* jax finds 0.* such as h100:2\."):
        topology.devices("gpu:2")


def test_a_missing_compiler_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\.\[tpu\]"):
        topology.devices("v5e:2x2")


def test_peaks_depend_on_the_format():
    v5e, h100 = CHIPS["v5e"], CHIPS["H100"]
    assert v5e.peak_flops("bfloat16", "highest") == v5e.peak_flops("float32", "default") == 197e12
    assert v5e.peak_flops("float32", "high") == pytest.approx(197e12 / 3)
    assert v5e.peak_flops("float32", "highest") == pytest.approx(197e12 / 6)
    assert h100.peak_flops("float32", "default") == 495e12
    assert h100.peak_flops("float32", "high") == 495e12  # TF32, three passes or not
    assert h100.peak_flops("float32", "highest") == 67e12


@pytest.mark.parametrize(
    ("kind", "memory"),
    [
        ("NVIDIA A100-SXM4-80GB", 80e9),
        ("NVIDIA H100 80GB HBM3", 80e9),
        ("NVIDIA H200", 141e9),
        ("NVIDIA B200", 180e9),
        ("NVIDIA A100-SXM4-40GB", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA GH200 480GB", None),
    ],
)
def test_figures_belong_to_exactly_the_named_gpu(kind, memory):
    if memory is None:
        with pytest.raises(ConfigError, match=r"are unknown; dbae_jax/performance/chips\.py"):
            topology.gpu_chip(kind)
    else:
        assert topology.gpu_chip(kind).memory_bytes == memory
