"""State dicts as people have them: prefixes, nested files, suffixes, damaged and hostile files."""

import io
import logging
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import dbae_jax
from dbae_jax import convert
from dbae_jax.configuration import build
from dbae_jax.errors import CheckpointError
from dbae_jax.models import torch_state_dict
from dbae_jax.models.state_dict_prefixes import without_prefixes
from dbae_jax.runtime import tensor_files
from tests.helpers import tiny

ONE = {"a.weight": np.ones(2, np.float32), "b": np.zeros(3, np.float32)}


def _prefixed(prefix, values=ONE):
    return {prefix + key: value for key, value in values.items()}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model.module._orig_mod."])
def test_prefixes_are_taken_off(prefix):
    found, said = without_prefixes(_prefixed(prefix), ONE)
    assert found.keys() == ONE.keys() and said == f"The prefix {prefix!r} was taken off the names."


def test_ema_weights_are_preferred_and_the_others_are_named():
    ema = {key: value + 1 for key, value in ONE.items()}
    both = _prefixed("model.") | _prefixed("ema_model.", ema) | {"step": np.zeros(1)}
    found, said = without_prefixes(both, ONE)
    np.testing.assert_array_equal(found["b"], ema["b"])
    assert "'ema_model.' was taken off" in said
    assert "2 entries with the prefix 'model.' were left out" in said
    assert "1 entries without a prefix were left out" in said


def test_names_that_are_wanted_keep_what_looks_like_a_prefix():
    values = {"model.a": np.zeros(1), "b": np.zeros(1)}
    assert without_prefixes(values, values) == (values, "")


@pytest.fixture(scope="module")
def small():
    c = tiny.config(**{"model.encoder.pool": "mean"})
    module = build.make_networks(c).module
    made = torch_state_dict.to_state_dict(tiny.variables(c), module)
    return c, {k: np.array(v, order="C") for k, v in made.items()}


def test_a_lightning_file_of_two_models_converts(small, tmp_path, caplog):
    c, values = small
    other = {k: np.asarray(v + 1) for k, v in values.items()}
    path = tmp_path / "last.CKPT"
    both = _prefixed("model.", other) | _prefixed("ema_model.", values)
    path.write_bytes(safetensors.numpy.save(both))
    with caplog.at_level(logging.INFO, "dbae_jax"):
        convert.to_workdir(path, c, tmp_path / "run")
    assert "The prefix 'ema_model.' was taken off the names" in caplog.text
    want = dbae_jax.DBAE(c, tiny.variables(c)).encode(tiny.images(2))
    model = dbae_jax.DBAE.load(tmp_path / "run")
    np.testing.assert_array_equal(model.encode(tiny.images(2)), want)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(small, tmp_path, value):
    c, values = small
    name = next(k for k, v in values.items() if v.ndim > 1)
    spoilt = values[name].copy()
    spoilt.flat[3] = value
    tensor_files.write_state_dict(tmp_path / "nan.safetensors", values | {name: spoilt})
    with pytest.raises(CheckpointError, match=rf"the tensor {name} of the state dict holds NaN"):
        convert.to_workdir(tmp_path / "nan.safetensors", c, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_content_decides_and_not_the_suffix(tmp_path):
    for name in ("a.SAFETENSORS", "a.ckpt", "a.pt"):
        (tmp_path / name).write_bytes(safetensors.numpy.save(ONE))
        assert tensor_files.read_state_dict(tmp_path / name).keys() == ONE.keys()


def test_files_of_pytorch_in_other_shapes(tmp_path):
    torch = pytest.importorskip("torch", reason="reading .pt needs the torch extra")
    inner = {key: torch.tensor(value) for key, value in ONE.items()}
    for name, values in (
        ("flat.PT", inner),
        ("half.pth", {k: v.bfloat16() for k, v in inner.items()}),
        ("lightning.ckpt", {"epoch": 3, "state_dict": inner, "optimizer_states": [{"a": 1}]}),
        ("two.pt", {"model": {"x": inner["b"]}, "ema": inner}),
    ):
        torch.save(values, tmp_path / name)
        found = tensor_files.read_state_dict(tmp_path / name)
        np.testing.assert_array_equal(found["a.weight"], ONE["a.weight"], err_msg=name)
    sparse = {"a": torch.eye(3).to_sparse()}
    for name, values, words in (
        ("none.pt", {"epoch": 3}, r"does not hold a flat state dict .* but epoch"),
        ("list.pt", [1, 2], "but list"),
        ("sparse.pt", sparse, "holds tensors that cannot be read"),
    ):
        torch.save(values, tmp_path / name)
        with pytest.raises(CheckpointError, match=words):
            tensor_files.read_state_dict(tmp_path / name)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_file_with_code_does_not_run_it(tmp_path, form):
    torch = pytest.importorskip("torch", reason="reading .pt needs the torch extra")
    path, mark = tmp_path / "bomb.pt", tmp_path / "ran"
    bomb = {"a": _Bomb(str(mark))}
    if form == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=r"tensors only .*nothing in it was run"):
        tensor_files.read_state_dict(path)
    assert not mark.exists()
    # The file would have run its code: it is the reader that refuses.
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert mark.exists()


def test_a_zip_that_grows_when_it_is_unpacked_is_refused(tmp_path):
    pytest.importorskip("torch", reason="reading .pt needs the torch extra")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data/0", bytes(10**6))
    (tmp_path / "grows.pt").write_bytes(content.getvalue())
    with pytest.raises(CheckpointError, match="is compressed, which files of PyTorch are not"):
        tensor_files.read_state_dict(tmp_path / "grows.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x10",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 9) + b'{"a": 1}x',
        b"PK\x03\x04" + bytes(50),
        b"\x80\x02garbage",
        b"<html>not found</html>",
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_damaged_files_are_one_sentence(tmp_path, content, suffix):
    if suffix == "pt" or content.startswith((b"PK", b"\x80")):  # taken for files of PyTorch
        pytest.importorskip("torch", reason="reading .pt needs the torch extra")
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"damaged.{suffix} is not a complete") as caught:
        tensor_files.read_state_dict(path)
    assert "\n" not in str(caught.value)
