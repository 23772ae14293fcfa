"""The modes interpolate and edit: their files, what they refuse, their flags."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dbae_jax import DBAE
from dbae_jax.commands import edit, edit_files, interpolate
from dbae_jax.data.images import to_uint8
from dbae_jax.errors import CheckpointError, ConfigError, DataError
from tests.helpers import commands, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    tiny.write_workdir(tiny.config(), directory)
    return directory


@pytest.fixture
def run_copy(trained, tmp_path):
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


def test_interpolation_to_files(run_copy, tmp_path):
    Image.fromarray(tiny.images(3)[2, ..., 0]).save(tmp_path / "two_$x$_$.png")
    config = tiny.config()
    path = interpolate.interpolate(
        config,
        run_copy,
        first=f"test:3,{tmp_path / 'two_$x$_$.png'}",
        second="train:5, 1",
        points=4,
    )
    assert path.parent == run_copy / "edits"
    assert re.fullmatch("test-3-and-1-more_train-5-and-1-more_linear_[0-9a-f]{8}.png", path.name)
    with np.load(path.with_suffix(".npz")) as file:
        z, images = file["z"], file["images"]
    model = DBAE.load(run_copy, batch_size=8)
    np.testing.assert_allclose(z[1, 0], model.encode(tiny.images(3)[2:])[0], atol=1e-5)
    again = to_uint8(model.decode(z[0], plan=config.sample))
    assert np.abs(images[0].astype(int) - again).max() <= 1
    settings = json.loads(path.with_suffix(".json").read_text())
    assert settings["points"] == 4 and settings["nfe"] == 3 and settings["step"] == model.step
    # Below and right of the names, the images are enlarged to 64 pixels, pixel by pixel.
    shown = np.asarray(Image.open(path).convert("L"))[-(2 * 66 + 2) :, -(6 * 66 + 2) :]
    np.testing.assert_array_equal(shown[2:66:4, 68:132:4], images[0, 0, ..., 0])


def test_edits_to_files_and_directions_kept(run_copy, caplog, tmp_path):
    config = tiny.config()
    ask = {"attribute": "7", "image": "1,2", "scales": ["-1", "0", "2"]}
    with caplog.at_level("INFO", logger="dbae_jax"):
        path = edit.edit(config, run_copy, **ask, out=tmp_path / "elsewhere")
        assert "Finding the directions of 7" in caplog.text
        caplog.clear()
        fixed = edit.edit(config, run_copy, **ask, fix_endpoint=True)
        assert "Finding" not in caplog.text and "Encoding" not in caplog.text
        other = tiny.config(**{"eval.normalise_codes": True})
        edit.edit(other, run_copy, **ask)
        assert "Finding the directions of 7" in caplog.text
    assert path.parent == tmp_path / "elsewhere"
    assert re.fullmatch("7_1-and-1-more_following_[0-9a-f]{8}.png", path.name)
    with np.load(path.with_suffix(".npz")) as file:
        z, step, images = file["z"], file["step"], file["images"]
    assert z.shape == (2, 3, 8) and images.shape == (2, 3, 16, 16, 1)
    np.testing.assert_allclose(z[:, 2] - z[:, 1], np.tile(2 * step, (2, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(step), np.sqrt(8), rtol=1e-5)
    settings = json.loads(fixed.with_suffix(".json").read_text())
    assert settings["fix_endpoint"] is True and len(settings["fingerprint"]) == 12
    # The same call replaces its files; a call with other scales or images does not.
    assert edit.edit(config, run_copy, **ask, fix_endpoint=True) == fixed
    for changed in ({"scales": ["3"]}, {"image": "1,5"}):
        again = edit.edit(config, run_copy, **ask | changed, fix_endpoint=True)
        assert again != fixed
        assert again.name.rpartition("_")[0] == fixed.name.rpartition("_")[0]
    # A damaged file of directions is computed again.
    kept = run_copy / "evaluation" / "digits_directions.npz"
    kept.write_bytes(kept.read_bytes()[:100])
    edit.edit(other, run_copy, **ask)


def test_other_models_and_data_write_other_files(run_copy, tmp_path):
    """Different weights of the same step, or different data, write other files into a folder."""
    tiny.write_workdir(tiny.config(), tmp_path / "other", seed=1)
    both = {"first": "1", "second": "2", "points": 2, "out": tmp_path / "out"}
    config = tiny.config()
    path = interpolate.interpolate(config, run_copy, **both)
    made = {path, interpolate.interpolate(config, tmp_path / "other", **both)}
    assert len(made) == 2 and interpolate.interpolate(config, run_copy, **both) == path
    settings = json.loads(path.with_suffix(".json").read_text())
    assert settings["fingerprint"] == DBAE.load(run_copy).fingerprint
    for key, value in (
        ("data.test_split", "train"),
        ("data.crop", "short"),
        ("model.matmul_precision", "highest"),
        ("model.dtype", "bfloat16"),
        ("data.lmdb", "some.lmdb"),
    ):
        model = DBAE(tiny.config(**{key: value}), tiny.variables(config), step=1)
        about = edit_files.about(model.config, model, "interpolate")
        changed = {name for name, now in about.items() if now != settings[name]}
        assert changed == {key.partition(".")[2]}


def test_an_interpolation_encodes_each_picture_once(run_copy, monkeypatch):
    counts, encode = [], DBAE.encode
    monkeypatch.setattr(
        DBAE, "encode", lambda self, images: counts.append(len(images)) or encode(self, images)
    )
    interpolate.interpolate(tiny.config(), run_copy, first="1,2", second="3,4", points=2)
    assert sum(counts) == 4


def test_modes_refuse_before_long_work(run_copy, tmp_path):
    config = tiny.config()
    ask = {"attribute": "7", "image": "1", "scales": ["0"]}
    for changed, words in (
        ({"attribute": None}, "needs --attribute"),
        ({"scales": ["1", "a lot"]}, "'a lot' is not a finite number"),
        ({"scales": ["nan"]}, "'nan' is not a finite number"),
        ({"scales": []}, "not a finite number"),
        ({"attribute": "Smiling"}, "classes of digits, which are named by their numbers"),
        ({"attribute": "12"}, "no attribute '12': there are 0, 1, 2"),
        ({"image": "9999"}, "out of range"),
    ):
        with pytest.raises((ConfigError, DataError), match=words):
            edit.edit(config, run_copy, **ask | changed)
    both = {"first": "1", "second": "2"}
    for changed, words in (
        ({"second": ""}, "needs --first and --second"),
        ({"second": "2,3"}, "--first names 1 images and --second 2"),
        ({"points": 1}, "--points=1"),
        ({"out": tmp_path / "run" / "config.json" / "x"}, "is a file"),
    ):
        with pytest.raises(ConfigError, match=words):
            interpolate.interpolate(config, run_copy, **both | changed)
    with pytest.raises(CheckpointError):
        interpolate.interpolate(config, tmp_path / "nothing", **both)
    with pytest.raises(ConfigError, match=r"model\.latent_dim"):
        interpolate.interpolate(tiny.config(**{"model.latent_dim": 4}), run_copy, **both)


def test_command_lines(tmp_path):
    """Flags reach their modes; wrong ones stop with a sentence."""
    run = ("--config=configs/digits.py", f"--workdir={tmp_path}")
    for flags, words in (
        (["--mode=interpolate", "--first=1"], "interpolate needs --first and --second"),
        (["--mode=edit", "--attribute=7", "--image=1", "--scales=-1,x"], "--scales=-1,x is not"),
    ):
        done = commands.run("main", *run, *flags)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert done.stderr.strip().splitlines()[-1].startswith(f"error: {words}")
