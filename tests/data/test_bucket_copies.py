"""Prepared data sets in buckets: copied once, checked, and bounded."""

import fcntl
import os

import numpy as np
import pytest

from dbae_jax.configuration import paths
from dbae_jax.data.builders.folder import Folder
from dbae_jax.data.files import bucket_copies, prepared_folders
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.runtime.buckets import access
from tests.helpers import datasets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of prepared data sets on the disk: "a" and "b"."""
    root = tmp_path_factory.mktemp("prepared")
    for name, seeds in (("a", range(4)), ("b", range(9, 13))):
        for seed in seeds:
            image = datasets.encode(datasets.picture(seed, 20, 20))
            datasets.write(root / f"source_{name}" / f"{seed}.png", image)
        datasets.build(Folder, root / f"source_{name}", root / f"built_{name}")
        (root / "data").mkdir(exist_ok=True)
        (root / f"built_{name}" / "folder").rename(root / "data" / name)
    return root / "data"


@pytest.fixture(scope="module")
def url(store, prepared):
    target = paths.read(f"{store}/data", "data_dir", buckets=True)
    access.put_tree(prepared, target)
    return str(target)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test, as if each were a process."""
    monkeypatch.setenv("DBAE_JAX_DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DBAE_JAX_DATA_CACHE_GB", raising=False)
    monkeypatch.setattr(bucket_copies, "_in_use", {})
    return tmp_path / "cache"


def _copies(cache):
    return {path.name.split("-")[1] for path in cache.iterdir() if path.is_dir()}


def _folder(url, name):
    return prepared_folders.find(name, paths.read(url, "data_dir", buckets=True), 16)


def _gb(*folders):
    sizes = [p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file()]
    return sum(sizes) / 1e9


def test_images_from_a_bucket_are_those_of_the_disk(url, prepared, cache, monkeypatch):
    there, here = datasets.read("a", url), datasets.read("a", prepared)
    assert repr(there) == repr(here) and len(there) == len(here)
    for ours, theirs in zip(there, here, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])
        assert ours["id"] == theirs["id"]
    monkeypatch.setattr(bucket_copies, "_in_use", {})
    monkeypatch.setattr(bucket_copies.access, "local_copy", None)
    monkeypatch.setattr(bucket_copies, "_check", lambda *args: pytest.fail("copied again"))
    assert len(datasets.read("a", url)) == len(here)
    with pytest.raises(DataError, match=rf"--data_dir=data, and copy data/c to {url}/c"):
        datasets.read("c", url)


def test_a_damaged_shard_is_refused_and_copied_again_when_it_is_mended(url, cache):
    folder = _folder(url, "b")
    shards = [path for path in folder.iterdir() if "array_record" in path.name]
    shard = max(shards, key=lambda path: path.stat().length)
    whole = shard.read_bytes()
    assert whole[2000:2007] != bytes(7)  # these are of an image, and not between images
    shard.write_bytes(whole[:2000] + b"damaged" + whole[2007:])
    with pytest.raises(DataError, match=r"does not have the sha256 that preparation\.json there"):
        bucket_copies.local(folder)
    assert not [path for path in cache.rglob("*array_record*")]
    shard.write_bytes(whole)
    copy = bucket_copies.local(folder)
    assert (copy / shard.name).read_bytes() == whole


def test_a_copy_that_was_interrupted_is_completed(url, cache, monkeypatch):
    folder = _folder(url, "a")
    copy = bucket_copies.local(folder)
    shard = next(copy.glob("*array_record*"))
    shard.rename(f"{shard}.tmp")
    monkeypatch.setattr(bucket_copies, "_in_use", {})
    checked = []
    monkeypatch.setattr(bucket_copies, "_check", lambda *args: checked.append(args[2]))
    assert bucket_copies.local(folder) == copy and checked == [shard.name]


def test_a_data_set_that_has_changed_is_copied_anew(url, cache, monkeypatch, caplog):
    folder = _folder(url, "a")
    copy = bucket_copies.local(folder)
    (copy / "dataset_info.json").write_text("{}")
    monkeypatch.setattr(bucket_copies, "_in_use", {})
    with caplog.at_level("INFO"):
        bucket_copies.local(folder)
    assert (copy / "dataset_info.json").read_bytes() == (folder / "dataset_info.json").read_bytes()
    assert "has changed since it was copied" in caplog.text


def test_old_copies_make_room_unless_they_are_read(url, prepared, cache, monkeypatch):
    room = _gb(prepared / "a", prepared / "b") - 1e-9
    monkeypatch.setenv("DBAE_JAX_DATA_CACHE_GB", f"{room:.9f}")
    first = bucket_copies.local(_folder(url, "a"))
    with pytest.raises(ConfigError, match="that other processes read leave no room"):
        bucket_copies.local(_folder(url, "b"))
    assert _copies(cache) == {first.name.split("-")[1]}
    bucket_copies._in_use.pop(first).close()  # as when its process ends
    second = bucket_copies.local(_folder(url, "b"))
    assert not first.exists() and second.is_dir()
    monkeypatch.setenv("DBAE_JAX_DATA_CACHE_GB", "0.000000001")
    monkeypatch.setattr(bucket_copies, "_in_use", {})
    with pytest.raises(ConfigError, match=r"DBAE_JAX_DATA_CACHE_GB=1e-09 bounds the copies"):
        bucket_copies.local(_folder(url, "a"))
    for wrong in ("much", "0", "nan"):
        monkeypatch.setenv("DBAE_JAX_DATA_CACHE_GB", wrong)
        with pytest.raises(ConfigError, match=f"DBAE_JAX_DATA_CACHE_GB={wrong} is not allowed"):
            bucket_copies.local(_folder(url, "a"))


def test_a_copy_in_use_is_locked(url, cache):
    copy = bucket_copies.local(_folder(url, "a"))
    with open(bucket_copies._lock_of(copy), "w") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert os.environ["DBAE_JAX_DATA_CACHE"] in str(copy)


def test_a_folder_of_this_machine_is_not_copied(prepared, cache):
    folder = prepared_folders.find("a", prepared, 16)
    assert bucket_copies.local(folder) == folder and not cache.exists()
