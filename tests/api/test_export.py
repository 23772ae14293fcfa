"""Exported functions run in a process that imports jax alone."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from dbae_jax import DBAE
from dbae_jax.api import export
from dbae_jax.data.images import to_float
from dbae_jax.errors import DataError
from tests.helpers import tiny

pytest.importorskip("flatbuffers")

# Importing a module that is None in sys.modules fails.
ALONE = """
import pathlib, sys
sys.modules |= dict.fromkeys(("dbae_jax", "flax", "optax", "orbax", "ml_collections"))
import jax, numpy as np
function = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
arrays = np.load(sys.argv[2])
found = function.call(*(arrays[name] for name in arrays.files))
np.save(sys.argv[3], found)
"""


def _run_alone(folder, path, *arrays):
    np.savez(folder / "in.npz", *arrays)
    command = [sys.executable, "-c", ALONE, path, folder / "in.npz", folder / "out.npy"]
    subprocess.run(list(map(str, command)), cwd=folder, check=True)
    return np.load(folder / "out.npy")


@pytest.fixture(scope="module")
def model():
    c = tiny.config()
    return DBAE(c, tiny.variables(c))


def test_exported_functions_run_with_jax_alone(model, tmp_path):
    images = np.asarray(to_float(tiny.images(3)))
    z = model.encode(images)
    cases = {
        "encode": (images, z, {}),
        "decode": (z, model.decode(z, steps=3), {"steps": 3}),
    }
    for function, (given, wanted, options) in cases.items():
        path = tmp_path / function
        model.export(function, path, **options)
        for count in (1, 3):  # the number of examples is free
            found = _run_alone(tmp_path, path, given[:count])
            np.testing.assert_allclose(found, wanted[:count], atol=1e-4)
        read = jax.export.deserialize(bytearray(path.read_bytes()))
        assert read.platforms == export.PLATFORMS


def test_a_fixed_batch_size_and_one_platform(model, tmp_path):
    model.export("endpoint", tmp_path / "endpoint", batch_size=2, platforms=("cpu",))
    read = jax.export.deserialize(bytearray((tmp_path / "endpoint").read_bytes()))
    assert read.in_avals[0].shape == (2, 8) and read.platforms == ("cpu",)


def test_a_gaussian_endpoint_is_an_argument(tmp_path):
    c = tiny.config(**{"bridge.endpoint": "free", "bridge.beta_d": 19.9})
    model = DBAE(c, tiny.variables(c))
    z, x_T = model.encode(tiny.images(2)), model.draw_x_T(2)
    model.export("decode", tmp_path / "decode", steps=3)
    read = jax.export.deserialize(bytearray((tmp_path / "decode").read_bytes()))
    np.testing.assert_allclose(read.call(z, x_T), model.decode(z, x_T, steps=3), atol=1e-4)


def test_what_cannot_be_exported_gets_a_sentence(model, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="export one of encode, endpoint, decode"):
        model.export("sample", tmp_path / "x")
    with pytest.raises(DataError, match="no random key"):
        model.export("decode", tmp_path / "x", plan=model.config.sample.recommended(eta=1.0))
    model.export("encode", tmp_path / "x", plan="sharp")  # only a decoder needs noise
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="needs flatbuffers"):
        model.export("encode", tmp_path / "x")
