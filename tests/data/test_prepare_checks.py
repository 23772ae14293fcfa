"""Checks before a preparation writes: other processes, other source files, counts and names."""

import dataclasses

import pytest

from dbae_jax.data import prepare, registry, sources
from dbae_jax.data.builders import shards
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.listing import Options
from dbae_jax.data.builders.lsun import Bedroom
from dbae_jax.errors import ConfigError, DataError
from tests.helpers import datasets

NUMBERS = tuple(range(9990, 10010))  # 20 images: shards of 5


@pytest.fixture
def faces(tmp_path):
    return datasets.ffhq(tmp_path / "ffhq", NUMBERS)


def _builder(source, data_dir, **kwargs):
    listing = Ffhq.list_images(source, Options())
    return Ffhq(listing=listing, data_dir=data_dir, images_per_shard=6, num_threads=2, **kwargs)


def test_a_second_process_leaves_the_first_ones_files_alone(tmp_path, faces):
    builder = _builder(faces, tmp_path / "data")
    first = shards.Staging(builder.staging_path, {}, 6)
    written = builder.final_path.with_name(f"incomplete.ABC_{builder.final_path.name}")
    datasets.write(written / "ffhq-train.array_record", b"of the first process")
    with pytest.raises(DataError, match="is being written by another process"):
        prepare.prepare(builder, None)
    assert (written / "ffhq-train.array_record").exists()
    first.close()


def _other_source(folder, kind):
    """Writes different images under the same numbers as `faces`: a folder or an LMDB."""
    images = [datasets.encode(datasets.picture(n + 50, 24, 24)) for n in NUMBERS]
    if kind == "folder":
        for number, image in zip(NUMBERS, images, strict=True):
            datasets.write(folder / f"{number // 1000:02d}000" / f"{number:05d}.png", image)
        return folder
    return datasets.diffae_lmdb(folder, images)


def _source(folder, kind):
    if kind == "folder":
        return datasets.ffhq(folder, NUMBERS)
    images = [datasets.encode(datasets.picture(n, 32, 32)) for n in NUMBERS]
    return datasets.diffae_lmdb(folder, images)


@pytest.mark.parametrize("kind", ["folder", "lmdb"])
def test_different_images_of_the_same_names_are_noticed(tmp_path, monkeypatch, kind):
    first, other = _source(tmp_path / "a", kind), _other_source(tmp_path / "b", kind)
    outlines = {_builder(source, tmp_path).listing.outline_hash() for source in (first, other)}
    assert len(outlines) == 1
    builder, data = _builder(first, tmp_path / "data"), tmp_path / "data"
    original = builder.listing.store.read

    def read(name):
        if len(list(builder.staging_path.glob("*-of-00004.json"))) == 2:
            raise KeyboardInterrupt
        return original(name)

    monkeypatch.setattr(builder.listing.store, "read", read)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(builder, None)
    with pytest.raises(DataError, match="unfinished preparation with different files or settings"):
        prepare.prepare(_builder(other, data), None)
    prepare.prepare(_builder(first, data), None)
    with pytest.raises(DataError, match="was prepared from different files; delete it first"):
        prepare.prepare(_builder(other, data), None)
    assert prepare.prepare(_builder(first, data), None) == builder.final_path


def _bedroom(root, train, validation):
    for folder, seeds in (("bedroom_train_lmdb", train), ("bedroom_val_lmdb", validation)):
        images = [datasets.encode(datasets.picture(i, 20, 20)) for i in seeds]
        datasets.lsun_lmdb(root / folder, images)
    return Bedroom.list_images(root, Options())


def test_counts_are_compared_by_split(tmp_path):
    listing = _bedroom(tmp_path, range(4), range(4, 6))
    prepare.check_count(listing, {"train": 4})
    prepare.check_count(listing, 6)
    for expected in ({"train": 6}, {"train": 4, "test": 0, "validation": 1}):
        with pytest.raises(DataError, match=r"the split '\w+' holds . images, . are expected"):
            prepare.check_count(listing, expected)
    with pytest.raises(DataError, match=r"the source holds 6 images, 0 are expected"):
        prepare.check_count(listing, 0)
    prepare.check_count(listing, {})
    # Images that are left out belong to no split, but count.
    part = dataclasses.replace(listing, left_out=("a", "b"))
    prepare.check_count(part, {"train": 6})
    with pytest.raises(DataError, match=r"the source holds 6 images, 5 are expected"):
        prepare.check_count(part, {"train": 5})


def test_names_of_other_data_sets_are_refused():
    assert set(sources.IN_MEMORY) == set(registry.MADE)
    for name in (*sources.IN_MEMORY, *prepare.BUILDERS, "celeb_a"):
        with pytest.raises(
            ConfigError, match=rf"--name={name} must consist .* none of the other data sets"
        ):
            prepare._named(prepare.Folder, name)
    assert prepare._named(prepare.Folder, "flowers").name == "flowers"


DEFAULTS = {"data_dir": "data", "allow_broken": 0, "threads": 2}
FLAGS = (
    *("dataset", "source", "name", "annotations", "attributes", "store_size", "store_format"),
    *("allow_partial", "expected_count", "skip_checksums", *DEFAULTS),
)


def _run(monkeypatch, **given):
    """Runs the command with these flags and the defaults of the others."""
    for name in FLAGS:
        value = (DEFAULTS | given).get(name)
        monkeypatch.setattr(prepare, name.upper(), _Flag(value))
    prepare.main([])


class _Flag:
    def __init__(self, value):
        self.value = value


def test_the_bedroom_command_also_reads_the_validation_file(tmp_path, monkeypatch):
    _bedroom(tmp_path / "lsun", range(4), range(4, 6))
    monkeypatch.setattr(Bedroom, "EXPECTED", {"train": 4})
    _run(monkeypatch, dataset="bedroom", source=tmp_path / "lsun", data_dir=tmp_path / "data")
    assert len(datasets.read("bedroom", tmp_path / "data", "train+validation")) == 6


def test_store_format_needs_store_size(tmp_path, monkeypatch):
    image = datasets.encode(datasets.picture(0, 20, 20))
    datasets.write(tmp_path / "in" / "a.png", image)
    for size in ({}, {"store_size": 0}):
        flags = {"source": tmp_path / "in", "data_dir": tmp_path / "data", "store_format": "webp"}
        with pytest.raises(ConfigError, match="--store_format=webp needs --store_size=N"):
            _run(monkeypatch, dataset="folder", **flags, **size)
