"""Small data sets in the formats of their publishers, made of smooth random images."""

import csv
import hashlib
import io
import json
import pathlib
import tarfile

import lmdb
import numpy as np
from PIL import Image

from dbae_jax.data import prepare, prepared
from dbae_jax.data.builders.listing import Options

CELEBA_NAMES = ("5_o_Clock_Shadow", "Arched_Eyebrows", "Male", "Young")


def picture(seed, width, height, mode="RGB"):
    """A smooth image, so that lossy files and resizing keep it recognisable."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def encode(image, file_format="png", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def ffhq(root, numbers=(9998, 9999, 10000, 10001, 10002), size=32):
    """images1024x1024/09000/09998.png and so on, and the licence file next to them."""
    for number in numbers:
        folder = root / f"{number - number % 1000:05d}"
        write(folder / f"{number:05d}.png", encode(picture(number, size, size)))
    write(root / "LICENSE.txt", "Creative Commons")
    return root


def signs(key):
    """Attributes of an image that only its name decides."""
    digest = hashlib.sha256(key.encode()).digest()
    return [1 if byte % 2 else -1 for byte in digest[: len(CELEBA_NAMES)]]


def attribute_file(keys, names=CELEBA_NAMES):
    """As published: the count, names with a space at the end, columns padded with spaces."""
    rows = [f"{key} " + " ".join(f"{v:2d}" for v in signs(key)) + " \n" for key in keys]
    return f"{len(keys)}\n{' '.join(names)} \n" + "".join(rows)


def celeba(root, counts=(5, 2, 3)):
    """img_align_celeba/000001.jpg ..., the attributes in another order, and the partition."""
    keys = [f"{i + 1:06d}.jpg" for i in range(sum(counts))]
    for i, key in enumerate(keys):
        image = encode(picture(i, 178, 218), "jpeg", quality=95)
        write(root / "img_align_celeba" / key, image)
    shuffled = list(np.random.default_rng(0).permutation(keys))
    write(root / "Anno" / "list_attr_celeba.txt", attribute_file(shuffled))
    split = np.repeat([0, 1, 2], counts)
    partition = "".join(f"{key} {part}\n" for key, part in zip(keys, split, strict=True))
    write(root / "Eval" / "list_eval_partition.txt", partition)
    return root


def celebahq(root, count=12, size=48):
    """CelebA-HQ-img/0.jpg ... 11.jpg, and their attributes in another order."""
    keys = [f"{i}.jpg" for i in range(count)]
    for i, key in enumerate(keys):
        write(root / "CelebA-HQ-img" / key, encode(picture(i, size, size), "jpeg"))
    shuffled = list(np.random.default_rng(0).permutation(keys))
    write(root / "CelebAMask-HQ-attribute-anno.txt", attribute_file(shuffled))
    return root


LFW_PEOPLE = {
    "peopleDevTrain.txt": {"Aaron_Eckhart": 1, "Jean-Claude_Van_Damme": 3},
    "peopleDevTest.txt": {"Zico": 2},
}


def lfw_values(key):
    return np.random.default_rng(list(key.encode())).normal(size=3).astype(np.float32)


def lfw(root, without=("Zico_0002",)):
    """lfw-funneled.tgz, lfw_attributes.txt without the rows of some images, the people files."""
    root.mkdir(parents=True, exist_ok=True)
    rows = ["# lfw_attributes.txt - header", "#\tperson\timagenum\tMale\tAsian\tWearing Necklace"]
    with tarfile.open(root / "lfw-funneled.tgz", "w:gz") as tar:
        _add(tar, "lfw_funneled/pairs_01.txt", b"10\n")
        for file, people in LFW_PEOPLE.items():
            lines = [f"{person}\t{count}" for person, count in people.items()]
            write(root / file, "\n".join([str(len(lines)), *lines]) + "\n")
            for person, count in people.items():
                for i in range(1, count + 1):
                    key = f"{person}_{i:04d}"
                    image = encode(picture(len(rows), 250, 250), "jpeg")
                    _add(tar, f"lfw_funneled/{person}/{key}.jpg", image)
                    if key not in without:
                        values = "\t".join(str(v) for v in lfw_values(key))
                        rows.append(f"{person.replace('_', ' ')}\t{i}\t{values}")
    write(root / "lfw_attributes.txt", "\n".join([*rows[:2], *reversed(rows[2:])]) + "\n")
    return root


def emoji_rows():
    """Rows of emoji.json: faces, runners and cooks in genders and skin tones, two families."""

    def row(unified, category, subcategory, tones=()):
        variants = {t: _emoji_files(f"{unified[:5]}-{t}{unified[5:]}") for t in tones}
        names = {"category": category, "subcategory": subcategory}
        return _emoji_files(unified) | names | ({"skin_variations": variants} if tones else {})

    people, tones = "People & Body", ("1F3FB", "1F3FF")
    return [
        *(row(f"1F6{n:02X}", "Smileys & Emotion", "face-smiling") for n in range(20)),
        row("1F3C3", people, "person-activity", tones),
        row("1F3C3-200D-2640-FE0F", people, "person-activity", tones),
        row("1F468-200D-1F373", people, "person-role", tones),
        row("1F469-200D-1F373", people, "person-role", tones),
        row("1F468-200D-1F469-200D-1F466", people, "family"),
        row("1F468-200D-1F468-200D-1F466", people, "family"),
    ]


def _emoji_files(unified):
    return {"unified": unified, "image": f"{unified.lower()}.png", "has_img_google": True}


def emoji(root):
    """The package as npm distributes it: a tgz of images, larger sheets, and the table."""
    root.mkdir(parents=True, exist_ok=True)
    rows = emoji_rows()
    path = root / "emoji-datasource-google-16.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        _add(tar, "package/emoji.json", json.dumps(rows).encode())
        _add(tar, "package/img/google/sheets/64.png", encode(picture(0, 99, 99)))
        variants = [v for row in rows for v in (row, *row.get("skin_variations", {}).values())]
        for seed, variant in enumerate(variants):
            image = picture(seed, 64, 64).convert("RGBA")
            image.paste((0, 0, 0, 0), (0, 0, 8, 8))  # black, but transparent
            _add(tar, f"package/img/google/64/{variant['image']}", encode(image))
    return path


def _add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_lmdb(path, entries):
    path.mkdir(parents=True)
    environment = lmdb.open(str(path), map_size=2**26)
    with environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)
    environment.close()
    return path


def diffae_lmdb(path, images, prefix="256-", width=5):
    """As DiffAE writes them: numbered keys, and "length"."""
    entries = {f"{prefix}{i:0{width}d}": image for i, image in enumerate(images)}
    return write_lmdb(path, entries | {"length": str(len(images)).encode()})


def lsun_lmdb(path, images):
    """As LSUN gives them out: keys are hashes."""
    return write_lmdb(path, {hashlib.sha1(image).hexdigest(): image for image in images})


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def build(kind, source, data_dir, options=None, expected=None, **kwargs):
    """Lists and prepares a data set as the command does."""
    listing = kind.list_images(pathlib.Path(source), options or Options(check=False))
    builder = kind(listing=listing, data_dir=pathlib.Path(data_dir), **kwargs)
    prepare.prepare(builder, expected)
    return builder


def read(name, data_dir, split="train", **kwargs):
    """Opens a split as `registry.make_source` does."""
    view = {"lmdb": "", "crop": "center", "image_size": 16, "channels": 3} | kwargs
    return prepared.open_source(name, data_dir=str(data_dir), split=split, **view)
