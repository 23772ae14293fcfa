"""What a preparation checks before it writes: other processes, other sources, counts, names."""

import pytest

from dbae_jax.data import prepare
from dbae_jax.data.builders import shards
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.listing import Options
from dbae_jax.errors import DataError
from tests import datasets

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
    """The same numbers as `faces`, other pictures: as a folder or as an LMDB."""
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
def test_another_source_of_the_same_names_is_told(tmp_path, monkeypatch, kind):
    first, other = _source(tmp_path / "a", kind), _other_source(tmp_path / "b", kind)
    assert (
        _builder(first, tmp_path).listing.outline() == _builder(other, tmp_path).listing.outline()
    )
    builder, data = _builder(first, tmp_path / "data"), tmp_path / "data"
    original = builder.listing.store.read

    def read(name):
        if len(list(builder.staging_path.glob("*-of-00004.json"))) == 2:
            raise KeyboardInterrupt
        return original(name)

    monkeypatch.setattr(builder.listing.store, "read", read)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(builder, None)
    with pytest.raises(DataError, match="unfinished preparation from other files or settings"):
        prepare.prepare(_builder(other, data), None)
    prepare.prepare(_builder(first, data), None)
    with pytest.raises(DataError, match="was prepared from other files; delete it first"):
        prepare.prepare(_builder(other, data), None)
    assert prepare.prepare(_builder(first, data), None) == builder.final_path
