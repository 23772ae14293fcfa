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
