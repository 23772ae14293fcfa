"""Paths: one place reads them all; near misses are answered with what was meant."""

import copy
import pathlib
import pickle
import unicodedata

import pytest

import dbae_jax
from dbae_jax.api import images, released_weights
from dbae_jax.configuration import config_files, paths
from dbae_jax.errors import CheckpointError, ConfigError, DataError
from dbae_jax.runtime.buckets import access
from dbae_jax.workdirs import checkpoint
from tests.helpers import commands, datasets, tiny


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BUCKET", "gs://bucket")
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_home_and_variables_are_expanded(home):
    for text in ("~/runs/a", "$RUNS/a", "${RUNS}/a", "~/runs/a/", str(home / "runs" / "a")):
        assert paths.read(text, "--x") == home / "runs" / "a"
    assert paths.read(pathlib.Path("~/a"), "--x") == home / "a"
    assert paths.read("a b/c,d", "--x") == pathlib.Path("a b/c,d")
    (home / "a$NOT_SET.png").write_text("x")  # a name that is there is no variable
    assert paths.read("a$NOT_SET.png", "--x") == pathlib.Path("a$NOT_SET.png")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--x='' is not a path"),
        ("  ", "is not a path"),
        ("a\0b", "is not a path"),
        ("gs://bucket/run", "--x=gs://bucket/run is in a bucket, and buckets are not read"),
        ("S3://bucket/run", "is in a bucket"),
        ("gs:/bucket/run", "is in a bucket"),  # pathlib takes a slash away
        ("$BUCKET/run", "is in a bucket"),
        ("https://host/a.png", "is a URL"),
        ("file:///a.png", "is a URL"),
        ("$NOT_SET/a", r"--x=\$NOT_SET/a names the variable \$NOT_SET, which is not set"),
        ("${NOT_SET}", r"names the variable \$\{NOT_SET\}"),
        ("~nobody-of-this-name/a", "there is no such user"),
    ],
)
def test_what_is_no_path_of_this_machine_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        paths.read(text, "--x")


@pytest.fixture
def without_cloud(monkeypatch):
    """As where the extra `cloud` is not installed."""
    found = access.importlib.util.find_spec
    monkeypatch.setattr(
        access.importlib.util,
        "find_spec",
        lambda name: None if name in access.PACKAGES.values() else found(name),
    )


def test_buckets_need_an_extra(home, without_cloud):
    for text, package in (
        ("gs://bucket/run", "gcsfs"),
        ("S3:/bucket/run", "s3fs"),
        ("$BUCKET/run", "gcsfs"),
    ):
        words = rf"is in a bucket, which needs the package {package}: pip install -e ..\[cloud"
        with pytest.raises(ConfigError, match=words):
            paths.read(text, "--x", buckets=True)
    for text in ("gs://", "s3:/"):
        with pytest.raises(ConfigError, match=r"names no bucket; write .*://BUCKET/FOLDER"):
            paths.read(text, "--x", buckets=True)
    with pytest.raises(ConfigError, match="is a URL"):
        paths.read("https://host/run", "--x", buckets=True)


def test_paths_in_buckets(home, monkeypatch):
    monkeypatch.setattr(access, "obstacle", lambda path: None)
    for text in ("gs://b/a/run", "gs:/b/a/run/", "GS://b/a/run", pathlib.Path("gs://b/a/run")):
        path = paths.read(text, "--x", buckets=True)
        assert str(path) == "gs://b/a/run" == str(path.absolute()) == str(path.resolve())
        assert access.is_bucket(path) and access.scheme_of(path) == "gs"
        assert str(path / "x") == "gs://b/a/run/x" == str(path.with_name("run") / "x")
        assert str(path.parent.parent) == "gs://b" == str(path.parent.parent.parent)
        assert copy.deepcopy(path) == pickle.loads(pickle.dumps(path)) == path
    monkeypatch.setenv("BUCKET", "s3://b")
    assert access.scheme_of(paths.read("$BUCKET/a", "--x", buckets=True)) == "s3"
    (home / "gs:" / "b").mkdir(parents=True)  # a folder that is there is no bucket
    assert paths.read("gs:/b", "--x", buckets=True) == pathlib.Path("gs:/b")
    assert access.scheme_of(pathlib.Path("gs:/b")) == ""


def test_names_in_either_unicode_form_are_found(home):
    composed, decomposed = (unicodedata.normalize(form, "grün/ü.png") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for stored, asked in ((composed, decomposed), (decomposed, composed)):
        folder = home / stored.partition("/")[0]
        folder.mkdir()
        (home / stored).write_text("x")
        assert paths.read(asked, "--x").read_text() == "x"
        assert paths.read(str(home / asked), "--x") == home / stored
        (home / stored).unlink()
        folder.rmdir()
    assert paths.read(composed, "--x") == pathlib.Path(composed)  # a new name stays as it is


def test_lists_with_commas_in_names(home):
    (home / "a,b.png").write_text("x")
    (home / "c d,.png").write_text("x")
    assert paths.split("a,b.png") == ["a,b.png"]
    assert paths.split("test:17, a,b.png ,~/c d,.png,z.png,,") == [
        *("test:17", "a,b.png", "~/c d,.png", "z.png")
    ]
    assert paths.split("a,b.jpg") == ["a", "b.jpg"]


def test_what_is_near_is_named(home):
    (home / "Runs" / "digits").mkdir(parents=True)
    for text, words in (
        ("runs", "did you mean 'Runs'? "),
        ("Runs/digit", "did you mean 'digits'? "),
        ("Rums/digits", "did you mean 'Runs'? "),
        ("Runs/digits", ""),
    ):
        assert paths.nearest(pathlib.Path(text)) == words
    assert "has no folder 'nothing'" in paths.nearest(home / "nothing" / "like" / "it")


def test_suffixes_in_any_case():
    assert paths.suffix("a/B.PnG") == ".png" == paths.suffix(pathlib.Path("b.png"))


def test_models_are_found_and_near_misses_named(home, without_cloud):
    (home / "runs" / "a" / checkpoint.FOLDER / "3").mkdir(parents=True)
    for name in ("~/runs/a", "$RUNS/a", pathlib.Path("runs/a").resolve()):
        assert released_weights.find(name) == home / "runs" / "a"
    for name, words in (
        ("~/runs", r"holds no checkpoint; did you mean '.*runs/a'\?"),
        ("~/runs/a/checkpoints", r"holds no checkpoint; did you mean '.*runs/a'\?"),
        ("runs/b", "There is no workdir runs/b"),
        ("gs://bucket/run", "the model gs://bucket/run is in a bucket, which needs the package"),
        (pathlib.Path("gs://bucket/run"), "is in a bucket"),
        ("a.safetensors", "does not exist; "),
        ("runs/a/config.json", "name its workdir"),
    ):
        (home / "runs" / "a" / "config.json").touch()
        with pytest.raises(CheckpointError, match=words):
            dbae_jax.DBAE.load(name)


def test_folders_of_prepared_data_near_by_are_named(home, without_cloud):
    (home / "data" / "flowers" / "original" / "1.0.0").mkdir(parents=True)
    for folder, name, words in (
        ("~/data/flowers", "flowers", r"did you mean config.data.data_dir='.*data'\?"),
        ("~", "flowers", r"did you mean config.data.data_dir='.*data'\?"),
        ("$HOME/data", "flower", "did you mean 'flowers'"),
        ("~/dat", "flowers", "this folder does not exist; did you mean"),
    ):
        with pytest.raises(DataError, match=words):
            datasets.read(name, folder)
    with pytest.raises(ConfigError, match=r"data.data_dir=s3://b is in a bucket, which needs"):
        datasets.read("flowers", "s3://b")
    with pytest.raises(DataError, match=r"config.data.lmdb=.*x.lmdb does not exist"):
        datasets.read("flowers", ".", lmdb="~/x.lmdb")


def test_image_files(home):
    data = tiny.config(**{"data.channels": 3}).data
    datasets.write(home / "Ü b,c.PNG", datasets.encode(datasets.picture(0, 20, 20)))
    for name in ("~/Ü b,c.PNG", unicodedata.normalize("NFD", "Ü b,c.PNG"), "$HOME/Ü b,c.PNG"):
        assert images.read_file(name, data).shape == (16, 16, 3)
    for name, words in (
        ("~/ü b,c.PNG", r"There is no image file ~/ü b,c.PNG; did you mean '.*Ü b,c.PNG'"),
        ("~", "~: it is a folder"),
        ("gs://b/c.png", "is in a bucket"),
        ("$NOT_SET.png", "names the variable"),
    ):
        with pytest.raises(DataError, match=words):
            images.read_file(name, data)


def test_configs_of_ones_own(home, without_cloud):
    """Beside a package called configs, in another folder, with a file beside it."""
    (home / "configs").mkdir()
    (home / "configs" / "__init__.py").write_text("digits = None\n")
    (home / "mine").mkdir()
    (home / "mine" / "width_of_mine.py").write_text("D = 7\n")
    own = "from dbae_jax.configs import digits\nimport width_of_mine\n\n"
    own += "def get_config():\n    c = digits.get_config()\n"
    own += "    c.model.latent_dim = width_of_mine.D\n    return c\n"
    (home / "mine" / "config.py").write_text(own)
    for name in ("mine/config.py", "~/mine/config.py", "$HOME/mine/config.py"):
        assert config_files.load(config_files.resolve(name)).model.latent_dim == 7
    (home / "mine" / "other.py").write_text("from configs import none_of_this_name\n")
    with pytest.raises(ConfigError, match=r"are imported from dbae_jax\.configs"):
        config_files.load(config_files.resolve("mine/other.py"))
    (home / "runs" / "a").mkdir(parents=True)
    (home / "runs" / "a" / "config.json").write_text("{}")
    assert config_files.resolve("~/runs/a/config.json").endswith(f":{home}/runs/a/config.json")
    for name, words in (
        ("~/runs/a", r"is a workdir; write --config=.*runs/a/config.json"),
        ("~/runs/b/config.json", "does not exist; "),
        ("mine", "is neither a file nor"),
        ("gs://b/config.py", "is in a bucket, which needs the package gcsfs"),
    ):
        with pytest.raises(ConfigError, match=words):
            config_files.resolve(name)


def test_the_argument_of_a_config_may_look_like_a_url(home):
    (home / "mine.py").write_text("def get_config(argument):\n    return argument\n")
    for argument in ("/abs/file", "gs://bucket/run"):
        found = config_files.resolve(f"{home}/mine.py:{argument}")
        assert found == f"{home}/mine.py:{argument}"


def test_commands_expand_their_paths(home):
    flags = ("--workdir=~/runs/none", "--out=$RUNS/x", "--config=digits")
    done = commands.run("main", "--mode=sample", *flags, HOME=str(home), RUNS=str(home / "runs"))
    assert done.returncode == 2
    assert f"The workdir {home}/runs/none does not exist" in done.stderr
    done = commands.run("main", "--mode=train", "--workdir=gs://", "--config=digits")
    assert done.returncode == 2 and "error: --workdir=gs:// names no bucket" in done.stderr
    assert not (home / "~").exists() and not (home / "gs:").exists()
