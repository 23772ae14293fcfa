"""Arguments of the wrong type are one sentence; seeds of any size differ; models can be copied."""

import copy
import dataclasses
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dbae_jax
from dbae_jax import editing
from dbae_jax.api import checks
from dbae_jax.api.images import as_batch
from dbae_jax.data.images import to_uint8
from dbae_jax.errors import CheckpointError, ConfigError, DataError
from dbae_jax.runtime import rngs
from dbae_jax.sampling.plan import Plan
from tests.helpers import tiny


def _bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_seeds_of_any_size_draw_different_streams():
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**40 + 1, 2**64, 2**64 + 2**32, 10**30]
    assert len({_bits(rngs.key_of(seed)) for seed in seeds}) == len(seeds)
    for seed in (0, 7, 2**32 - 1):  # as before
        assert _bits(rngs.key_of(seed)) == _bits(jax.random.key(seed))
    assert _bits(checks.make_key(np.int64(2**40), 3)) == _bits(rngs.key_of(2**40))


@pytest.mark.parametrize(
    ("rng", "words"),
    [
        ("0", r"rng must be a seed .* got '0' \(str\)"),
        (0.0, r"got 0.0 \(float\)"),
        (True, r"got True \(bool\)"),
        (-1, "rng=-1 is not allowed"),
        (np.zeros(2), "got an array of float64"),
        ([1, 2], r"got \[1, 2\] \(list\)"),
    ],
)
def test_what_is_no_seed_is_refused(rng, words):
    with pytest.raises(DataError, match=words):
        checks.make_key(rng, 3)
    with pytest.raises(DataError, match=r"got keys of shape \[2\]"):
        checks.make_key(jax.random.split(jax.random.key(0)), 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 5.0}, r"steps=5.0 \(float\) is not allowed: it must be an integer"),
        ({"steps": "5"}, r"steps='5' \(str\)"),
        ({"steps": True}, r"steps=True \(bool\)"),
        (
            {"grid": ["a", "b"]},
            r"grid=\['a', 'b'\] \(list\) is not allowed: it must be a name or an array",
        ),
        ({"grid": [[1, 2], [3]]}, r"grid=\[\[1, 2\], \[3\]\] \(list\) is not allowed"),
        ({"sampler": 3}, r"sampler=3 \(int\) is not allowed: it must be a name"),
        ({"eta": "1"}, r"eta='1' \(str\) is not allowed: it must be a number"),
        ({"boot": 1}, r"boot=1 \(int\) is not allowed: it must be True or False"),
        ({"grid": 7}, r"grid=7 \(int\)"),
    ],
)
def test_sampler_options_of_the_wrong_type_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Plan.recommended(**options).check()


@pytest.fixture(scope="module")
def model():
    c = tiny.config()
    made = dbae_jax.DBAE(c, tiny.variables(c), step=5, source="somewhere", batch_size=4)
    made.directions = {"7": np.ones(8, np.float32)}
    return made


def test_wrong_arguments_of_a_model(model):
    z = np.zeros((2, 8), np.float32)
    for call, words in (
        (lambda: model.decode(z, rng="0"), "rng must be"),
        (lambda: model.decode(z, steps=5.0), "steps=5.0"),
        (lambda: model.sample_codes(2.5), r"num=2.5 \(float\) is not allowed"),
        (lambda: model.sample("2"), r"num='2' \(str\)"),
        (lambda: model.nfe(steps="9"), "steps='9'"),
    ):
        with pytest.raises(DataError, match=words):
            call()


def test_models_can_be_pickled_and_copied(model):
    images = tiny.images(3)
    want = model.encode(images)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        np.testing.assert_array_equal(again.encode(images), want)
        assert repr(again) == repr(model) and again.fingerprint == model.fingerprint
        assert again.batch_size == 4 and again.directions["7"].tolist() == [1] * 8
    other = copy.deepcopy(model)
    other.variables["params"]["encoder"].clear()
    assert model.variables["params"]["encoder"]


def test_images_that_look_like_fractions_are_warned_of_once():
    data = tiny.config().data
    images = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            as_batch(images, data)
        as_batch(2 * images - 1, data)
        as_batch(to_uint8(2 * images - 1), data)
    assert [str(w.message) for w in caught if "[0, 1]" in str(w.message)] == [
        "float images are all in [0, 1], and the model expects [-1, 1]: if they are pixels / 255, "
        "pass 2 * images - 1, or uint8."
    ]
    for wrong, words in (
        (images * 255, r"must lie in \[-1, 1\], got"),
        (images * 4 - 2, r"must lie in \[-1, 1\]"),
        (images.astype(int), "convert values from 0 to 255 with"),
        (images > 0.5, "must be uint8 or float"),
    ):
        with pytest.raises(DataError, match=words):
            as_batch(wrong, data)


def test_to_uint8_takes_what_it_can_convert():
    floats = np.array([-2, -1, 0, 1, np.inf], np.float32)
    np.testing.assert_array_equal(to_uint8(floats), [0, 0, 128, 255, 255])
    np.testing.assert_array_equal(to_uint8(floats.astype(jnp.bfloat16)), [0, 0, 128, 255, 255])
    already = np.array([0, 7, 255], np.uint8)
    np.testing.assert_array_equal(to_uint8(already), already)
    np.testing.assert_array_equal(to_uint8(jnp.asarray(already)), already)
    for wrong, words in (
        (np.array([0.0, np.nan]), "images hold NaN"),
        (np.array([0, 300]), "got int64"),
        (np.array(["a"]), "got <U1"),
    ):
        with pytest.raises(DataError, match=words):
            to_uint8(wrong)


def test_backgrounds_are_colours():
    c = tiny.config()
    assert dataclasses.asdict(c)["data"]["background"] == "white"
    for colour in ("black", "#12ab34", "#fff"):
        assert tiny.config(**{"data.background": colour}).data.background == colour
    for colour in ("", "whitish", "#12", "#11223344"):
        with pytest.raises(ConfigError, match=r"config.data.background=.* must be a colour"):
            tiny.config(**{"data.background": colour})


@pytest.mark.parametrize("given", [None, 3, b"bytes", (image for image in ())])
def test_what_is_no_image_is_refused_by_its_type(given):
    with pytest.raises(DataError, match=f"or a list of these, got {type(given).__name__}"):
        as_batch(given, tiny.config().data)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(DataError, match="the image is 0x5 and has no pixels"):
        as_batch(Image.new("L", (0, 5)), tiny.config().data)


def test_names_of_a_wrong_type_are_refused():
    with pytest.raises(DataError, match=r"plan=3 \(int\) is not allowed: .* accurate, sharp"):
        Plan.recommended(3)
    with pytest.raises(DataError, match=r"The attribute 7 \(int\) must be a name, such as '7'"):
        editing.check_name(7, ("7", "8"))
    for name in (None, b"runs"):
        with pytest.raises(CheckpointError, match=f"the model {name} is not a path"):
            dbae_jax.DBAE.load(name)
