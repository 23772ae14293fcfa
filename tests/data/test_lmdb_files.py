"""LMDB files of DiffAE and LSUN: keys, splits, processes, threads, damage and preparation."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from dbae_jax.data import lmdb_files, prepared
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.lfw import Lfw
from dbae_jax.data.builders.listing import Options
from dbae_jax.errors import ConfigError, DataError
from tests.helpers import datasets
from tests.helpers.paths import ROOT


def _files(count, file_format="jpeg", size=40):
    return [
        datasets.encode(datasets.picture(i, size, size), file_format, quality=95)
        for i in range(count)
    ]


def _open(path, name="ffhq", split="train", **kwargs):
    return datasets.read(name, "", split, lmdb=str(path), **kwargs)


@pytest.mark.parametrize("prefix, width", [("256-", 5), ("128-", 5), ("None-", 7), ("", 7)])
@pytest.mark.parametrize("file_format", ["jpeg", "webp", "png"])
def test_all_key_formats_of_diffae_are_read(tmp_path, prefix, width, file_format):
    files = _files(12, file_format)
    path = datasets.diffae_lmdb(tmp_path / "x.lmdb", files, prefix, width)
    images = lmdb_files.open_images(path)
    assert (images.prefix, images.width, len(images)) == (prefix, width, 12)
    assert [images.read(i) for i in range(12)] == files
    source = _open(path)
    assert len(source) == 12 and source[10]["id"] == "10"
    want = datasets.picture(10, 40, 40)
    difference = np.float32(source[10]["image"]) - np.float32(
        want.resize((16, 16), Image.Resampling.BILINEAR)
    )
    assert np.abs(difference).mean() < 3  # lossy files
    assert repr(source) == "ffhq.lmdb(all[0:12], center, 16x16x3)"


def test_named_splits_follow_the_published_numbers(tmp_path, monkeypatch):
    assert prepared.LMDB_SPLITS["ffhq"][70_000] == {
        "test": (0, 10_000),
        "train60k": (10_000, 70_000),
    }
    celeba = prepared.LMDB_SPLITS["celeba"][202_599]
    assert [stop - start for start, stop in celeba.values()] == [162_770, 19_867, 19_962]
    monkeypatch.setitem(prepared.LMDB_SPLITS["celeba"], 6, {"train": (0, 4), "test": (4, 6)})
    path = datasets.diffae_lmdb(tmp_path / "x.lmdb", _files(6), "None-", 7)
    test = _open(path, "celeba", "test")
    assert [test[i]["id"] for i in range(len(test))] == ["4", "5"]
    assert len(_open(path, "celeba")) == 4 and len(_open(path, "other")) == 6
    assert _open(path, "celeba", "train[1:]+test[1:]")[3]["id"] == "5"
    with pytest.raises(ConfigError, match=r"'test' does not fit other, .* train \(6\)"):
        _open(path, "other", "test")


def test_lsun_is_read_in_the_order_of_its_cursor(tmp_path):
    path = datasets.lsun_lmdb(tmp_path / "bedroom", _files(5))
    source = _open(path, "bedroom")
    ids = [source[i]["id"] for i in range(5)]
    assert ids == sorted(ids) and len(set(ids)) == 5


def test_sources_pickle_and_are_shared_by_threads(tmp_path):
    path = datasets.diffae_lmdb(tmp_path / "x.lmdb", _files(30))
    source, other = _open(path), _open(path, split="train[5:]")  # two sources of one file
    again = pickle.loads(pickle.dumps(source))
    assert other[0]["id"] == "5" and repr(again) == repr(source)
    want = [source[i]["image"] for i in range(30)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: again[i % 30]["image"], range(240)))
    for i, image in enumerate(got):
        np.testing.assert_array_equal(image, want[i % 30])


def test_a_forked_process_opens_the_file_itself(tmp_path):
    path = datasets.diffae_lmdb(tmp_path / "x.lmdb", _files(3))
    script = f"""
import os
from dbae_jax.data import lmdb_files
images, second = lmdb_files.open_images({str(path)!r}), lmdb_files.LmdbFile({str(path)!r})
first = images.read(1)
child = os.fork()
if child == 0:
    same = images.read(1) == first and second.get(b"256-00001") == first
    own = images.file._local.pid == os.getpid()
    os._exit(0 if same and own else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert images.read(1) == first
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="nothing does not exist"):
        _open(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"not an LMDB file: it has no data.mdb"):
        lmdb_files.open_images(tmp_path)
    (tmp_path / "text.lmdb").write_text("no database " * 1000)
    with pytest.raises(DataError, match="cannot be read as LMDB"):
        lmdb_files.open_images(tmp_path / "text.lmdb")
    whole = datasets.diffae_lmdb(tmp_path / "whole", _files(20))
    data = (whole / "data.mdb").read_bytes()
    cut = datasets.write(tmp_path / "cut" / "data.mdb", data[: len(data) // 2])
    with pytest.raises(DataError, match=r"data.mdb is cut off: .* copy it again"):
        lmdb_files.open_images(cut.parent)
    with pytest.raises(DataError, match="is empty"):
        lmdb_files.open_images(datasets.write_lmdb(tmp_path / "empty", {}))


def test_files_with_a_wrong_number_of_images_are_refused(tmp_path):
    files = _files(3)
    entries = {f"256-{i:05d}": image for i, image in enumerate(files)}
    for name, more, words in (
        ("short", {"length": b"4"}, "states 4 images but contains 3"),
        ("gap", {"length": b"4", "256-00009": files[0]}, "has no image '256-00003'"),
        ("sizes", {"length": b"3", "128-00000": files[0]}, "or holds several sizes"),
        ("other", {"length": b"3", "0 a": files[0]}, "must be like '256-00000'"),
    ):
        path = datasets.write_lmdb(tmp_path / name, entries | more)
        with pytest.raises(DataError, match=words):
            lmdb_files.open_images(path)


@pytest.mark.parametrize("prefix, width", [("256-", 5), ("None-", 7), ("", 7)])
def test_an_unfinished_diffae_file_is_not_mistaken_for_an_lsun_file(tmp_path, prefix, width):
    entries = {f"{prefix}{i:0{width}d}": image for i, image in enumerate(_files(3))}
    path = datasets.write_lmdb(tmp_path / "half", entries)
    with pytest.raises(
        DataError, match=r'is unfinished: .* no key "length", which is written last'
    ):
        lmdb_files.open_images(path)
    digits = datasets.write_lmdb(
        tmp_path / "lsun", {"0123456789" * 4: b"image"}
    )  # such a hash exists
    assert lmdb_files.open_images(digits).keys() == ["0123456789" * 4]


def test_the_channels_of_the_config_must_match_the_images(tmp_path):
    gray = [datasets.encode(datasets.picture(i, 16, 16, "L")) for i in range(3)]
    path = datasets.diffae_lmdb(tmp_path / "x.lmdb", gray)
    assert _open(path, channels=1)[2]["image"].shape == (16, 16, 1)
    with pytest.raises(ConfigError, match=r"channels=3 is not allowed: .* ffhq have 1"):
        _open(path)


def test_preparing_a_diffae_lmdb_keeps_the_bytes_of_images(tmp_path):
    files = _files(14)
    path = datasets.diffae_lmdb(tmp_path / "ffhq256.lmdb", files)
    builder = datasets.build(Ffhq, path, tmp_path / "data", expected=14)
    raw = {"image": tfds.decode.SkipDecoding()}
    stored = tfds.builder_from_directory(str(builder.final_path)).as_data_source(
        "train", decoders=raw
    )
    assert [stored[i]["image"] for i in range(14)] == files
    assert [stored[i]["id"] for i in (0, 13)] == [b"00000", b"00013"]
    with pytest.raises(DataError, match="is a DiffAE LMDB; this data set is not read from one"):
        Lfw.list_images(path, Options(check=False))


def test_damaged_pages_do_not_end_the_process(tmp_path, monkeypatch):
    image = datasets.encode(datasets.picture(0, 40, 30))
    path = datasets.diffae_lmdb(tmp_path / "x.lmdb", [image] * 3)
    whole = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(whole[:8192] + b"\xff" * 4096 + whole[12288:])
    with pytest.raises(DataError, match=r"is damaged as an LMDB file .*; copy it again"):
        lmdb_files.open_images(path)
    (path / "data.mdb").write_bytes(whole)
    # A page that leads out of the file kills the process that follows it.
    monkeypatch.setattr(lmdb_files, "_READ_ALL", "import os; os.kill(os.getpid(), 7)")
    with pytest.raises(DataError, match=r"\(its pages lead out of the file\); copy it again"):
        lmdb_files.open_images(path)


def test_a_file_is_checked_once_until_it_changes(tmp_path, monkeypatch):
    image = datasets.encode(datasets.picture(0, 40, 30))
    path = datasets.diffae_lmdb(tmp_path / "x.lmdb", [image] * 3)
    checks, run = [], subprocess.run

    def counted(*words, **how):
        checks.append(words)
        return run(*words, **how)

    monkeypatch.setattr(subprocess, "run", counted)
    for _ in range(3):
        lmdb_files.open_images(path)
    assert len(checks) == 1
    os.utime(path / "data.mdb", ns=(1, 1))
    lmdb_files.open_images(path)
    assert len(checks) == 2
