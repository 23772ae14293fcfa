"""Preparation: interruptions, full disks, broken images. An incomplete data set is never read."""

import collections
import errno
import itertools
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dbae_jax.data import pipeline, prepare
from dbae_jax.data.builders import shards
from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.listing import Options
from dbae_jax.errors import DataError
from tests.helpers import commands, datasets
from tests.helpers.paths import ROOT

NUMBERS = tuple(range(9990, 10010))  # 20 images, 10 of them "test"


@pytest.fixture
def faces(tmp_path):
    return datasets.ffhq(tmp_path / "ffhq", NUMBERS)


def _builder(source, data_dir, **kwargs):
    listing = Ffhq.list_images(source, Options())
    options = {"images_per_shard": 6, "num_threads": 2} | kwargs
    return Ffhq(listing=listing, data_dir=data_dir, **options)


def _final(tmp_path):
    return tmp_path / "data" / "ffhq" / "256" / "1.0.0"


def _ids(tmp_path, split="train"):
    source = datasets.read("ffhq", tmp_path / "data", split)
    return [int(source[i]["id"]) for i in range(len(source))]


def _stop_after(monkeypatch, builder, count, error=KeyboardInterrupt):
    """Raises `error` after `count` images, and returns the list of the images that are read."""
    store, read = builder.listing.store, []
    original = store.read

    def counted(name):
        if len(read) == count:
            raise error
        read.append(name)
        return original(name)

    monkeypatch.setattr(store, "read", counted)
    return read


def _assert_unreadable(tmp_path):
    assert not _final(tmp_path).exists()
    with pytest.raises(DataError, match=r"is incomplete: .* finish it with python -m"):
        datasets.read("ffhq", tmp_path / "data")


def test_the_same_command_resumes_an_interrupted_preparation(tmp_path, faces, monkeypatch):
    builder = _builder(faces, tmp_path / "data")
    _stop_after(monkeypatch, builder, 14)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(builder, 20)
    _assert_unreadable(tmp_path)
    builder = _builder(faces, tmp_path / "data")
    read = _stop_after(monkeypatch, builder, 1000)
    prepare.prepare(builder, 20)
    # Shards of 5 images: two were finished, and their images are not read again.
    assert sorted(pathlib.Path(name).stem for name in read) == [f"{n:05d}" for n in NUMBERS[10:]]
    assert _ids(tmp_path) == list(NUMBERS) and _ids(tmp_path, "test") == list(NUMBERS[:10])
    assert sorted(p.name for p in _final(tmp_path).parent.iterdir()) == ["1.0.0"]
    uninterrupted = datasets.build(Ffhq, faces, tmp_path / "again", images_per_shard=6)
    for path in sorted(uninterrupted.final_path.iterdir()):
        assert path.read_bytes() == (_final(tmp_path) / path.name).read_bytes(), path.name


def test_a_killed_process_leaves_no_readable_data_set(tmp_path, faces):
    script = f"""
import os, pathlib
from dbae_jax.data import prepare
from tests.data import test_prepare
data = pathlib.Path({str(tmp_path / "data")!r})
builder = test_prepare._builder(pathlib.Path({str(faces)!r}), data)
original, left = builder.listing.store.read, iter(range(8))
def read(name):
    if next(left, None) is None:
        os._exit(9)
    return original(name)
builder.listing.store.read = read
prepare.prepare(builder, None)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 9
    _assert_unreadable(tmp_path)
    left = {p.name.partition(".")[0] for p in _final(tmp_path).parent.iterdir()}
    assert "incomplete" in left  # a folder of TFDS
    prepare.prepare(_builder(faces, tmp_path / "data"), 20)
    assert _ids(tmp_path) == list(NUMBERS)
    assert [p.name for p in _final(tmp_path).parent.iterdir()] == ["1.0.0"]


def test_damaged_shards_are_written_again(tmp_path, faces, monkeypatch):
    builder = _builder(faces, tmp_path / "data")
    _stop_after(monkeypatch, builder, 17)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(builder, None)
    first, second, third = sorted(builder.staging_path.glob("*-of-00004"))
    first.write_bytes(first.read_bytes()[:2000])  # cut off
    data = bytearray(second.read_bytes())
    data[data.index(b"IDAT") + 50] ^= 1  # one bit
    second.write_bytes(data)
    builder = _builder(faces, tmp_path / "data")
    read = _stop_after(monkeypatch, builder, 1000)
    prepare.prepare(builder, None)
    assert len(read) == 15 and third.name.endswith("00002-of-00004")
    assert _ids(tmp_path) == list(NUMBERS)


def test_an_unfinished_preparation_refuses_other_files(tmp_path, faces, monkeypatch):
    builder = _builder(faces, tmp_path / "data")
    _stop_after(monkeypatch, builder, 14)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(builder, None)
    datasets.ffhq(faces, (10_020,))
    with pytest.raises(DataError, match="unfinished preparation with different files or settings"):
        prepare.prepare(_builder(faces, tmp_path / "data"), None)


def test_one_process_at_a_time(tmp_path, faces):
    builder = _builder(faces, tmp_path / "data")
    other = shards.Staging(builder.staging_path, {}, 6)
    with pytest.raises(DataError, match="is being written by another process"):
        prepare.prepare(builder, None)
    other.close()


def test_broken_images_are_reported_and_never_dropped_silently(tmp_path, faces):
    cut, wrong = faces / "09000" / "09993.png", faces / "10000" / "10004.png"
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    wrong.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 of 20 images are broken, .*09993.*--allow_broken=2"):
        prepare.prepare(_builder(faces, tmp_path / "data", allow_broken=1), 20)
    _assert_unreadable(tmp_path)
    report = json.loads(
        _final(tmp_path).with_name("1.0.0.partial").joinpath("broken.json").read_text()
    )
    assert [entry["name"] for entry in report] == ["09000/09993.png", "10000/10004.png"]
    assert "cannot be decoded" in report[0]["reason"]
    cut.write_bytes(whole)  # fixed: only the other image is left out
    prepare.prepare(_builder(faces, tmp_path / "data", allow_broken=1), 20)
    assert _ids(tmp_path) == [n for n in NUMBERS if n != 10_004]
    kept = json.loads((_final(tmp_path) / "preparation.json").read_text())
    assert [entry["name"] for entry in kept["broken"]] == ["10000/10004.png"]


def test_named_splits_skip_broken_images(tmp_path, faces):
    for number in (9991, 9992, 10_003):
        next(faces.rglob(f"*{number}.png")).write_bytes(b"no image")
    prepare.prepare(_builder(faces, tmp_path / "data", allow_broken=3), 20)
    assert _ids(tmp_path, "test") == [9990, *range(9993, 10_000)]
    assert _ids(tmp_path, "train60k") == [10_000, 10_001, 10_002, *range(10_004, 10_010)]


def test_a_source_of_broken_images_is_refused(tmp_path):
    for number in NUMBERS:
        datasets.write(tmp_path / "in" / f"{number}.png", b"no image")
    with pytest.raises(
        DataError,
        match=r"none of 20 sampled images of --source can be decoded. The .*10009.png",
    ):
        _builder(tmp_path / "in", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_colour_among_gray_images_is_reported(tmp_path):
    for i in range(40):
        mode = "RGB" if i == 4 else "L"  # 4 is not among the 32 sampled images
        image = datasets.encode(datasets.picture(i, 16, 16, mode))
        datasets.write(tmp_path / "in" / f"{i}.png", image)
    with pytest.raises(DataError, match=r"1 of 40 images are broken, such as 4.png"):
        prepare.prepare(_builder(tmp_path / "in", tmp_path / "data"), None)


def test_too_little_space_is_reported_before_anything_is_written(tmp_path, faces, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(DataError, match=r"has 0.00 GB free, and ffhq needs about .* --data_dir"):
        prepare.prepare(_builder(faces, tmp_path / "data"), None)
    assert not (tmp_path / "data").exists()


def test_the_size_of_the_data_set_is_estimated(tmp_path, faces):
    builder = _builder(faces, tmp_path / "data")
    images = sum(path.stat().st_size for path in faces.rglob("*.png"))
    assert images < builder.expected_bytes() < 1.1 * images + 100


@pytest.mark.parametrize("where", ["records", "close"])
def test_a_full_disk_is_reported_and_the_preparation_resumes(tmp_path, faces, monkeypatch, where):
    class Full(shards.ArrayRecordWriter):
        written = 0

        def write(self, record):
            Full.written += 1
            if where == "records" and Full.written > 12:
                raise RuntimeError(f"write() failed: {os.strerror(errno.ENOSPC)}; at byte 9")
            super().write(record)

        def close(self):
            super().close()
            if where == "close" and Full.written > 12:
                raise RuntimeError(f"close() failed: {os.strerror(errno.ENOSPC)}")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "ArrayRecordWriter", Full)
        with pytest.raises(DataError, match="is full; free some space and run the same command"):
            prepare.prepare(_builder(faces, tmp_path / "data"), None)
    _assert_unreadable(tmp_path)
    staging = _final(tmp_path).with_name("1.0.0.partial")
    assert len(list(staging.glob("*-of-00004"))) == 2 and not list(staging.glob("*.tmp"))
    prepare.prepare(_builder(faces, tmp_path / "data"), None)
    assert _ids(tmp_path) == list(NUMBERS)


def test_a_faulty_disk_is_reported(tmp_path, faces, monkeypatch):
    original = shards._write_records

    def faulty(path, records):
        written = original(path, records)
        path.write_bytes(path.read_bytes()[:-100])
        return written

    monkeypatch.setattr(shards, "_write_records", faulty)
    with pytest.raises(DataError, match=r"reads back differently than written|cannot be read"):
        prepare.prepare(_builder(faces, tmp_path / "data"), None)
    _assert_unreadable(tmp_path)


@pytest.mark.parametrize(
    ("stop", "kind", "words"),
    [
        (KeyboardInterrupt, KeyboardInterrupt, "^run the same command again to resume$"),
        (PermissionError(13, "no", "data/x"), DataError, "data/x cannot be used: no;"),
    ],
)
def test_interruptions_and_system_errors_are_one_sentence(monkeypatch, stop, kind, words):
    def builder():
        raise stop

    monkeypatch.setattr(prepare, "_builder", builder)
    monkeypatch.setattr(prepare, "DATASET", _Flag("ffhq"))
    monkeypatch.setattr(prepare, "SOURCE", _Flag("x"))
    monkeypatch.setattr(prepare, "DATA_DIR", _Flag("data"))
    with pytest.raises(kind, match=words):
        prepare.main([])


def test_the_number_of_images_is_checked(tmp_path, faces):
    with pytest.raises(DataError, match=r"20 images, 70,000 are expected; .* --allow_partial"):
        prepare.prepare(_builder(faces, tmp_path / "data"), sum(Ffhq.EXPECTED.values()))
    assert not (tmp_path / "data").exists()
    assert sum(Celeba.EXPECTED.values()) == 202_599


def test_a_prepared_data_set_is_checked_and_not_written_again(tmp_path, faces, monkeypatch):
    prepare.prepare(_builder(faces, tmp_path / "data"), None)
    with monkeypatch.context() as patch:
        patch.setattr(Ffhq, "prepare", lambda self: pytest.fail("written again"))
        assert prepare.prepare(_builder(faces, tmp_path / "data"), None) == _final(tmp_path)
    shard = next(_final(tmp_path).glob("*00001-of-00004"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1000])
    with pytest.raises(DataError, match=r"00001-of-00004 is missing or changed; delete"):
        prepare.prepare(_builder(faces, tmp_path / "data"), None)
    shard.unlink()
    with pytest.raises(DataError, match=r"is incomplete: ffhq-train.*00001-of-00004 is missing"):
        datasets.read("ffhq", tmp_path / "data")
    shard.write_bytes(whole)
    datasets.ffhq(faces, (10_020,))
    with pytest.raises(DataError, match="was prepared from different files; delete it first"):
        prepare.prepare(_builder(faces, tmp_path / "data"), None)


def test_missing_and_incomplete_data_sets_are_reported(tmp_path, faces):
    with pytest.raises(DataError, match=r"'ffhq' is not prepared in .* --dataset=ffhq --source="):
        datasets.read("ffhq", tmp_path / "data")
    with pytest.raises(DataError, match=r"--dataset=folder --name=cats --source="):
        datasets.read("cats", tmp_path / "data")
    prepare.prepare(_builder(faces, tmp_path / "data"), None)
    info = _final(tmp_path) / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(DataError, match="was prepared as tfrecord, which has no random access"):
        datasets.read("ffhq", tmp_path / "data")
    info.unlink()
    with pytest.raises(DataError, match=r"1.0.0 is incomplete"):
        datasets.read("ffhq", tmp_path / "data")


def test_prepared_sources_work_with_pickle_threads_and_the_pipeline(tmp_path, faces):
    prepare.prepare(_builder(faces, tmp_path / "data"), None)
    source = datasets.read("ffhq", tmp_path / "data", "train[2:]+test[:3]")
    again = pickle.loads(pickle.dumps(source))
    assert (
        repr(again) == repr(source) == ("ffhq/256/1.0.0(train[2:20]+train[0:3], center, 16x16x3)")
    )
    want = [source[i]["image"] for i in range(len(source))]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: again[i % 21]["image"], range(210)))
    for i, image in enumerate(got):
        np.testing.assert_array_equal(image, want[i % 21])
    for index in (21, -22):
        with pytest.raises(IndexError):
            source[index]
    batches = pipeline.train_batches(source, batch_size=7, seed=0)
    epoch = np.concatenate([batch["image"] for batch in itertools.islice(batches, 3)])
    order = [image.tobytes() for image in epoch]
    assert sorted(order) == sorted(image.tobytes() for image in want)


def test_the_command_prepares_and_checks_its_flags(tmp_path, faces):
    flags = ("--dataset=ffhq", f"--source={faces}", f"--data_dir={tmp_path / 'data'}")
    done = commands.run(
        "data.prepare", *flags, "--allow_partial", "--store_size=16", "--store_format=webp"
    )
    assert done.returncode == 0, done.stderr
    assert "Writing 20 images" in done.stderr and "is complete" in done.stderr
    assert done.stdout == "" and "W1" not in done.stderr
    assert (tmp_path / "data" / "ffhq" / "16_webp" / "1.0.0" / "preparation.json").exists()
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["ffhq"]
    done = commands.run("data.prepare", *flags, cold=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the split 'train' holds 20 images, 70,000 are expected;")


WRONG_FLAGS = {
    "no data set": ([], "--dataset is missing"),
    "no source": (["--dataset=ffhq"], "--source is missing"),
    "published": (
        ["--dataset=ffhq", "--source=x", "--name=x"],
        "is for --dataset=folder",
    ),
    "bad name": (
        ["--dataset=folder", "--source=x", "--name=a/b"],
        "consist of letters, digits",
    ),
    "table": (["--dataset=ffhq", "--source=x", "--attributes=x"], "is for --dataset=folder"),
    "nothing there": (["--dataset=lfw", "--source=nowhere"], "--source=nowhere does not exist"),
}


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_wrong_flags(name, monkeypatch):
    flags, words = WRONG_FLAGS[name]
    given = dict(flag.removeprefix("--").split("=") for flag in flags)
    for flag in ("dataset", "source", "name", "attributes"):
        monkeypatch.setattr(prepare, flag.upper(), _Flag(given.get(flag)))
    for flag in (
        "data_dir",
        "annotations",
        "store_size",
        "store_format",
        "skip_checksums",
        "allow_partial",
        "expected_count",
        "allow_broken",
        "threads",
    ):
        monkeypatch.setattr(prepare, flag.upper(), _Flag(None))
    with pytest.raises(ValueError, match=words):
        prepare.main([])


class _Flag:
    def __init__(self, value):
        self.value = value


def test_a_named_folder_is_read_by_its_name(tmp_path, monkeypatch):
    for i in range(30):
        image = datasets.encode(datasets.picture(i, 20, 20))
        datasets.write(tmp_path / "in" / f"{i}.png", image)
    kind = prepare._named(prepare.Folder, "flowers")
    datasets.build(kind, tmp_path / "in", tmp_path / "data")
    assert "flowers/original/1.0.0" in repr(datasets.read("flowers", tmp_path / "data"))
