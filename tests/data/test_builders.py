"""Builders on small copies of the published files: number, order and pixels of images."""

import importlib
import io
import json
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from dbae_jax.configuration.config import from_config_dict
from dbae_jax.data import prepare, prepared, transforms
from dbae_jax.data.builders import emoji
from dbae_jax.data.builders.base import Storage
from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.celebahq import Celebahq
from dbae_jax.data.builders.emoji import Emoji
from dbae_jax.data.builders.ffhq import Ffhq
from dbae_jax.data.builders.lfw import Lfw
from dbae_jax.data.builders.listing import Options
from dbae_jax.data.builders.lsun import Bedroom, Horse
from dbae_jax.errors import ConfigError
from tests.helpers import datasets

BILINEAR, LANCZOS = Image.Resampling.BILINEAR, Image.Resampling.LANCZOS


def _open(path):
    return Image.open(path).convert("RGB")


def _ids(source):
    return [source[i]["id"] for i in range(len(source))]


def _zip(folder, path, inside):
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted(folder.rglob("*")):
            if image.is_file():
                file.write(image, f"{inside}/{image.relative_to(folder)}")
        file.writestr("__MACOSX/._00000.png", b"no image")
    return path


@pytest.mark.parametrize("layout", ["nested", "flat", "zip"])
def test_ffhq_in_every_layout(tmp_path, layout):
    source = nested = datasets.ffhq(tmp_path / "images1024x1024")
    if layout == "flat":
        source = tmp_path / "flat"
        for path in nested.rglob("*.png"):
            datasets.write(source / path.name.lstrip("0"), path.read_bytes())  # 9998.png
    if layout == "zip":
        source = _zip(nested, tmp_path / "ffhq.zip", "images1024x1024")
    datasets.build(Ffhq, source, tmp_path / "data")
    train = datasets.read("ffhq", tmp_path / "data")
    assert _ids(train) == ["09998", "09999", "10000", "10001", "10002"]
    assert _ids(datasets.read("ffhq", tmp_path / "data", "test")) == ["09998", "09999"]
    rest = datasets.read("ffhq", tmp_path / "data", "train60k[1:]+test[:1]")
    assert _ids(rest) == ["10001", "10002", "09998"]
    want = _open(nested / "10000" / "10001.png").resize((16, 16), BILINEAR)
    np.testing.assert_array_equal(rest[0]["image"], want)
    assert set(rest[0]) == {"image", "id"} and rest.attribute_names == ()


def test_images_that_are_small_enough_keep_their_bytes_and_tfds_reads_them(tmp_path):
    source = datasets.ffhq(tmp_path / "ffhq")
    builder = datasets.build(Ffhq, source, tmp_path / "data")
    assert builder.final_path == tmp_path / "data" / "ffhq" / "256" / "1.0.0"
    read = tfds.builder_from_directory(str(builder.final_path)).as_data_source("train")
    assert read[1]["id"] == b"09999"
    np.testing.assert_array_equal(read[1]["image"], _open(source / "09000" / "09999.png"))
    raw = {"image": tfds.decode.SkipDecoding()}
    read = tfds.builder_from_directory(str(builder.final_path)).as_data_source(
        "train", decoders=raw
    )
    assert read[1]["image"] == (source / "09000" / "09999.png").read_bytes()


def test_larger_images_are_stored_smaller(tmp_path):
    source = tmp_path / "in"
    image = datasets.picture(0, 90, 60)
    datasets.write(source / "0.png", datasets.encode(image))
    datasets.build(Ffhq, source, tmp_path / "data", storage=Storage(40))
    datasets.build(Ffhq, source, tmp_path / "data", storage=Storage(20, "webp"))
    datasets.build(Ffhq, source, tmp_path / "data", storage=Storage(0))
    small = image.resize((60, 40), LANCZOS).crop((10, 0, 50, 40))
    want = np.asarray(small.resize((32, 32), BILINEAR))
    np.testing.assert_array_equal(
        datasets.read("ffhq", tmp_path / "data", image_size=32)[0]["image"], want
    )
    # The smallest stored size that is large enough is read.
    assert "ffhq/20_webp" in repr(datasets.read("ffhq", tmp_path / "data", image_size=16))
    assert "ffhq/original" in repr(datasets.read("ffhq", tmp_path / "data", image_size=64))


def test_celeba_splits_attributes_and_crop(tmp_path):
    source = datasets.celeba(tmp_path / "celeba")
    builder = datasets.build(Celeba, source, tmp_path / "data", expected=10)
    as_tfds = tfds.builder_from_directory(str(builder.final_path))
    assert tuple(as_tfds.info.metadata["attribute_names"]) == datasets.CELEBA_NAMES
    starts = {"train": (1, 5), "validation": (6, 2), "test": (8, 3)}
    for split, (first, count) in starts.items():
        part = datasets.read("celeba", tmp_path / "data", split, crop="d2c")
        assert _ids(part) == [f"{first + i:06d}" for i in range(count)]
        assert part.attribute_names == datasets.CELEBA_NAMES
        for i in range(count):
            key = f"{first + i:06d}.jpg"
            example = part[i]
            assert example["attributes"].dtype == np.int8
            want = np.maximum(datasets.signs(key), 0)
            np.testing.assert_array_equal(example["attributes"], want)
            pixels = np.asarray(_open(source / "img_align_celeba" / key))[57:185, 25:153]
            want = Image.fromarray(pixels).resize((16, 16), BILINEAR)
            np.testing.assert_array_equal(example["image"], want)


def test_celeba_is_the_same_from_its_zip_and_from_a_diffae_lmdb(tmp_path):
    source = datasets.celeba(tmp_path / "celeba")
    zipped = tmp_path / "zipped"
    for name in ("Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"):
        datasets.write(zipped / pathlib.Path(name).name, (source / name).read_bytes())
    _zip(source / "img_align_celeba", zipped / "img_align_celeba.zip", "img_align_celeba")
    images = sorted((source / "img_align_celeba").glob("*.jpg"))
    packed = datasets.diffae_lmdb(
        tmp_path / "lmdb", [path.read_bytes() for path in images], "None-", 7
    )
    given = Options(annotations=zipped, check=False)
    datasets.build(Celeba, source, tmp_path / "data")
    datasets.build(Celeba, zipped, tmp_path / "from_zip")
    datasets.build(Celeba, packed, tmp_path / "from_lmdb", given)
    for split in ("train", "validation", "test"):
        want = datasets.read("celeba", tmp_path / "data", split, crop="d2c")
        for other in ("from_zip", "from_lmdb"):
            got = datasets.read("celeba", tmp_path / other, split, crop="d2c")
            assert len(got) == len(want) and _ids(got) == _ids(want)
            for i in range(len(want)):
                for key in ("image", "attributes"):
                    np.testing.assert_array_equal(got[i][key], want[i][key])


def test_celebahq_attributes_are_joined_by_file_name(tmp_path):
    source = datasets.celebahq(tmp_path / "CelebAMask-HQ")
    masks = datasets.encode(datasets.picture(0, 8, 8, "L"))
    datasets.write(source / "CelebAMask-HQ-mask-anno" / "0" / "00000_hair.png", masks)
    zipped = _zip(source, tmp_path / "CelebAMask-HQ.zip", "CelebAMask-HQ")
    for place, root in (("data", source), ("from_zip", zipped)):
        datasets.build(Celebahq, root, tmp_path / place, expected=12)
        train = datasets.read("celebahq", tmp_path / place)
        assert _ids(train) == [str(i) for i in range(12)]  # 10 after 9, not after 1
        for i in range(12):
            want = np.maximum(datasets.signs(f"{i}.jpg"), 0)
            np.testing.assert_array_equal(train[i]["attributes"], want)
            image = _open(source / "CelebA-HQ-img" / f"{i}.jpg").resize((16, 16), BILINEAR)
            np.testing.assert_array_equal(train[i]["image"], image)


def test_lsun_from_its_lmdb(tmp_path):
    photos = [datasets.picture(i, 300 + 10 * i, 256) for i in range(6)]
    files = [datasets.encode(photo, "webp", lossless=True) for photo in photos]
    datasets.lsun_lmdb(tmp_path / "lsun" / "bedroom_train_lmdb", files[:4])
    datasets.lsun_lmdb(tmp_path / "lsun" / "bedroom_val_lmdb", files[4:])
    datasets.build(Bedroom, tmp_path / "lsun", tmp_path / "data", storage=Storage(0))
    train = datasets.read("bedroom", tmp_path / "data", image_size=128)
    assert len(train) == 4 and len(datasets.read("bedroom", tmp_path / "data", "validation")) == 2
    assert _ids(train) == sorted(_ids(train)) and len(train[0]["id"]) == 40
    by_key = {e["id"]: e["image"] for e in (train[i] for i in range(4))}
    for i, photo in enumerate(photos[:4]):
        left = round((photo.width - 256) / 2)
        want = photo.crop((left, 0, left + 256, 256)).resize((128, 128), BILINEAR)
        key = next(k for k in by_key if (by_key[k] == np.asarray(want)).all())
        assert by_key.pop(key) is not None, i
    # As DiffAE stores them: 256x256, WebP of quality 90.
    builder = datasets.build(Horse, tmp_path / "lsun" / "bedroom_train_lmdb", tmp_path / "data")
    assert builder.final_path.parent.name == "256_webp"
    raw = {"image": tfds.decode.SkipDecoding()}
    stored = tfds.builder_from_directory(str(builder.final_path)).as_data_source(
        "train", decoders=raw
    )
    image = Image.open(io.BytesIO(stored[0]["image"]))
    assert (image.size, image.format) == ((256, 256), "WEBP")


def test_lfw_splits_by_person_and_leaves_out_images_without_attributes(tmp_path):
    source = datasets.lfw(tmp_path / "lfw")
    datasets.build(Lfw, source, tmp_path / "data", expected=6)
    train = datasets.read("lfw", tmp_path / "data", crop="zoom", image_size=64)
    assert _ids(train) == ["Aaron_Eckhart_0001"] + [
        f"Jean-Claude_Van_Damme_{i:04d}" for i in (1, 2, 3)
    ]
    test = datasets.read("lfw", tmp_path / "data", "test", crop="zoom")
    assert _ids(test) == ["Zico_0001"]
    assert train.attribute_names == ("Male", "Asian", "Wearing Necklace")
    for i, key in enumerate(_ids(train)):
        assert train[i]["attributes"].dtype == np.float32
        np.testing.assert_array_equal(train[i]["attributes"], datasets.lfw_values(key))
    want = _jpeg_twin(datasets.picture(2, 250, 250)).resize((70, 70), BILINEAR)
    np.testing.assert_array_equal(train[0]["image"], want.crop((3, 3, 67, 67)))
    report = (tmp_path / "data/lfw/original/1.0.0/preparation.json").read_text()
    assert '"Zico_0002"' in report


@pytest.mark.parametrize("unpacked", [False, True])
def test_emoji_keep_skin_tones_and_genders_together(tmp_path, unpacked):
    source = datasets.emoji(tmp_path / "npm")
    if unpacked:
        with tarfile.open(source) as file:
            file.extractall(tmp_path / "npm", filter="data")
        source = tmp_path / "npm" / "package"
    datasets.build(Emoji, source, tmp_path / "data", expected=34)
    splits = {s: datasets.read("emoji", tmp_path / "data", s) for s in ("train", "test")}
    train = splits["train"]
    assert train.class_names == ("People & Body", "Smileys & Emotion")
    found = {split: {read[i]["id"] for i in range(len(read))} for split, read in splits.items()}
    runners = {name for ids in found.values() for name in ids if name.startswith("1f3c3")}
    cooks = {name for ids in found.values() for name in ids if name.endswith("1f373")}
    assert len(runners) == len(cooks) == 6
    for together in (runners, cooks):
        assert sum(bool(together & ids) for ids in found.values()) == 1
    example = train[_ids(train).index("1f3c3-1f3ff-200d-2640-fe0f")]
    assert train.class_names[example["label"]] == "People & Body"
    assert example["attributes"].tolist() == [0, 0, 0, 0, 1]
    assert train.attribute_names[4] == "dark_skin"
    assert (example["image"][0, 0] == 255).all()  # transparent


def test_subcategories_of_many_images_are_attributes():
    row = {"category": "Flags", "subcategory": "country-flag", "has_img_google": True}
    rows = [
        row | {"image": f"{i:x}.png", "unified": f"{i:X}"} for i in range(emoji.MIN_SUBCATEGORY)
    ]
    assert emoji.large_subcategories(emoji.read_table(json.dumps(rows))) == ["country-flag"]
    assert emoji.large_subcategories(emoji.read_table(json.dumps(rows[1:]))) == []


def _jpeg_twin(image):
    return Image.open(io.BytesIO(datasets.encode(image, "jpeg"))).convert("RGB")


def test_celeb_a_prepared_by_tfds_is_read_as_celeba(tmp_path):
    names = datasets.CELEBA_NAMES

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "celeb_a"
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg"),
                    "attributes": {name: np.bool_ for name in names},
                    "landmarks": {"lefteye_x": np.int64},
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(range(4)),
                "test": self._generate_examples([9]),
            }

        def _generate_examples(self, seeds):
            for seed in seeds:
                image = datasets.encode(datasets.picture(seed, 178, 218), "jpeg", quality=95)
                yield (
                    str(seed),
                    {
                        "image": io.BytesIO(image),
                        "attributes": {n: bool((seed >> i) % 2) for i, n in enumerate(names)},
                        "landmarks": {"lefteye_x": 1},
                    },
                )

    Builder(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    test = datasets.read("celeba", tmp_path, "test", crop="d2c")
    assert test.attribute_names == names and test[0]["id"] == "test/0"
    np.testing.assert_array_equal(test[0]["attributes"], [1, 0, 0, 1])
    image = datasets.encode(datasets.picture(9, 178, 218), "jpeg", quality=95)
    pixels = np.asarray(Image.open(io.BytesIO(image)))[57:185, 25:153]
    want = Image.fromarray(pixels).resize((16, 16), BILINEAR)
    np.testing.assert_array_equal(test[0]["image"], want)
    attributes = [tuple(e["attributes"]) for e in datasets.read("celeba", tmp_path, crop="d2c")]
    assert sorted(attributes) == sorted((s % 2, s // 2, 0, 0) for s in range(4))


@pytest.mark.parametrize("name", [n for n in prepare.BUILDERS if n != "folder"])
def test_configs_name_existing_splits_and_crops(name):
    data = from_config_dict(importlib.import_module(f"configs.{name}").get_config()).data
    assert data.name == name and data.crop in transforms.CROPS
    stored = {split: (split, 0, n) for split, n in prepare.BUILDERS[name].EXPECTED.items()}
    named = {part: ("train", *edges) for part, edges in NAMED.get(name, {}).items()}
    for split in (data.train_split, data.test_split):
        assert prepared.resolve(split, stored | named, name)


NAMED = {"ffhq": {"test": (0, 10_000), "train60k": (10_000, 70_000)}}


def test_allow_partial_prepares_a_part_of_celeba(tmp_path):
    source = datasets.celeba(tmp_path / "celeba")
    for number in (3, 6, 7):
        (source / "img_align_celeba" / f"{number:06d}.jpg").unlink()
    datasets.build(Celeba, source, tmp_path / "data", Options(check=False, allow_partial=True))
    train = datasets.read("celeba", tmp_path / "data", crop="d2c")
    assert _ids(train) == ["000001", "000002", "000004", "000005"]
    want = np.maximum(datasets.signs("000004.jpg"), 0)
    np.testing.assert_array_equal(train[2]["attributes"], want)
    with pytest.raises(ConfigError, match=r"'validation' does not fit .* train \(4\), test \(3\)"):
        datasets.read("celeba", tmp_path / "data", "validation", crop="d2c")
