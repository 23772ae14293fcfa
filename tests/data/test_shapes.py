"""Shapes: bytes, factors, splits, attributes, pairs, and a comparison with a slow renderer."""

import colorsys
import hashlib
import itertools
import math
import pickle

import numpy as np
import pytest

from dbae_jax.data import shapes
from dbae_jax.data.shapes import FACTOR_NAMES, FACTORS, HELD_OUT, ShapesSource
from dbae_jax.data.shapes_renderer import render
from dbae_jax.errors import ConfigError, DataError

# Hashes of the first 64 images. All machines must make the same bytes, so that results compare.
HASHES = {
    32: "4e55fb5bb3fbe73283b61fa09d017c58cde426764a832552c0d5f0d207be50de",
    64: "b7f3008f938575d6fedb1a2e88c68e1bbc596f2dfa56a8d215dac89970895050",
    128: "1a76633eb725207043443801aa499aa21ebcb9377e6e844316b371ba92b009ce",
}


def _column(factors, name):
    return factors[..., FACTOR_NAMES.index(name)]


def _rows(**columns):
    """Factors [B, 9]: all combinations of the given values, zero elsewhere."""
    choices = [np.atleast_1d(columns.get(name, 0)) for name in FACTOR_NAMES]
    return np.array(list(itertools.product(*choices)))


@pytest.mark.parametrize("size", HASHES)
def test_the_bytes_of_the_first_images_are_the_recorded_ones(size):
    images = ShapesSource("train", size).batch(range(64))["image"]
    assert images.shape == (64, size, size, 3) and images.dtype == np.uint8
    assert hashlib.sha256(images.tobytes()).hexdigest() == HASHES[size]


def test_an_image_depends_on_seed_split_and_index_alone():
    source = ShapesSource("train", 32, num=1000)
    batch = source.batch([7, 999, 0, 7])
    for row, index in enumerate([7, 999, 0, 7]):
        for name, value in source[index].items():
            np.testing.assert_array_equal(value, batch[name][row])
    again = pickle.loads(pickle.dumps(source))
    assert repr(again) == repr(source)
    np.testing.assert_array_equal(again.batch(range(40))["image"], source.batch(range(40))["image"])
    longer = ShapesSource("train", 64, num=2000).factors(range(1000))  # other size and length
    np.testing.assert_array_equal(longer, source.factors(range(1000)))
    for other in (ShapesSource("train", 32, seed=1), ShapesSource("test", 32)):
        same = other.factors(range(100)) == longer[:100]
        same[:, FACTOR_NAMES.index("wall_hue")] = True  # differs between splits in any case
        assert not same.all(1).any()
    assert len(source) == 1000 and len(ShapesSource("val", 32)) == 5000
    assert sum(1 for _ in ShapesSource("val", 32, num=3)) == 3  # iteration ends


def _excess(counts, expected):
    """Chi-square of counts, in standard deviations above its mean."""
    counts, expected = counts[expected > 0], expected[expected > 0]
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


def _joint(found, one, other):
    counts = np.zeros((FACTORS[one], FACTORS[other]))
    np.add.at(counts, (_column(found, one), _column(found, other)), 1)
    return counts


def _expected(split, one, other, count):
    allowed = np.zeros((4, 10))
    allowed[tuple(zip(*HELD_OUT, strict=True))] = 1
    allowed = allowed if split == "held_out" else 1 - allowed
    allowed *= count / allowed.sum()
    if (one, other) == ("shape", "object_hue"):
        return allowed
    rates = {name: np.full(size, 1 / size) for name, size in FACTORS.items()}
    rates |= {"shape": allowed.sum(1) / count, "object_hue": allowed.sum(0) / count}
    return np.outer(rates[one], rates[other]) * count


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_balanced_factors_are_uniform_and_independent(split):
    found = shapes.factors(3, range(40_000), split=split)
    pairs = list(itertools.combinations(FACTORS, 2))
    for one, other in pairs:
        joint, expected = _joint(found, one, other), _expected(split, one, other, 40_000)
        assert joint[expected == 0].sum() == 0, (one, other)
        if (expected > 0).sum() > 1:
            assert abs(_excess(joint, expected)) < 6, (one, other)
        for axis in (0, 1):
            if (expected.sum(axis) > 0).sum() > 1:
                assert _excess(joint.sum(axis), expected.sum(axis)) < 6, (one, other)


def test_correlated_factors_correlate_in_one_pair():
    found = shapes.factors(0, range(40_000), sampler="correlated").astype(float)
    measured = np.corrcoef(found.T)
    where = FACTOR_NAMES.index("scale"), FACTOR_NAMES.index("x_position")
    # Cov(s, x) = 3/4 * 2 Var(s) with variances (n**2 - 1) / 12 of n = 8 and 16 values.
    want = 0.75 * 2 * math.sqrt(63 / 255)
    assert measured[where] == pytest.approx(want, abs=0.01) and want == pytest.approx(
        0.746, abs=1e-3
    )
    measured[where] = measured[where[::-1]] = 0
    assert np.abs(measured - np.eye(9)).max() < 6 / math.sqrt(40_000)
    joint = _joint(found.astype(int), "scale", "x_position")
    for axis in (0, 1):  # each alone stays uniform
        marginal = joint.sum(axis)
        assert _excess(marginal, np.full(marginal.size, 40_000 / marginal.size)) < 6


def test_splits_share_no_combination_for_any_seeds():
    found = {
        split: shapes.factors(seed, range(40_000), split=split, sampler=sampler)
        for seed, (split, sampler) in enumerate(
            zip(shapes.SPLITS, ("correlated", "balanced", "balanced", "correlated"), strict=True)
        )
    }
    seen = {split: set(map(tuple, rows.tolist())) for split, rows in found.items()}
    for one, other in itertools.combinations(seen, 2):
        assert not seen[one] & seen[other], (one, other)
    for split, rows in found.items():
        pairs = set(zip(_column(rows, "shape"), _column(rows, "object_hue"), strict=True))
        assert pairs == set(HELD_OUT) if split == "held_out" else not pairs & set(HELD_OUT)
        assert len(pairs) == (4 if split == "held_out" else 36)
    walls = _rows(wall_hue=range(10), shape=2, x_position=11)  # every hue has its own slot
    assert sorted(shapes.wall_slot(walls)) == list(range(10))


def test_attributes_match_their_names():
    rows = [  # shape, wall, floor, hue, scale, x, orientation, stripes, light
        ([0, 5, 1, 0, 4, 5, 3, 0, 3], "round large left bright warm_object desert"),
        ([2, 2, 2, 3, 3, 6, 4, 1, 0], "pointed tilted striped dim warm_wall matching"),
        (
            [3, 9, 4, 8, 7, 0, 7, 0, 1],
            "cross large left tilted warm_wall red_wall green_floor warm_object",
        ),
        ([1, 6, 0, 7, 0, 15, 0, 0, 2], ""),
    ]
    for row, want in rows:
        found = shapes.attributes(np.array([row]))
        assert found.dtype == np.int8 and found.shape == (1, 15)
        held = {n for n, a in zip(shapes.ATTRIBUTE_NAMES, found[0], strict=True) if a}
        assert held == set(want.split())


def _information(a, b):
    """Returns the mutual information of a and b as a fraction of the entropy of binary a."""
    joint = np.array([[np.mean((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)])
    rate = joint.sum(1)
    information = np.sum(joint * np.log(np.maximum(joint, 1e-12) / np.outer(rate, joint.sum(0))))
    return information / -np.sum(rate * np.log(rate))


def test_attributes_have_their_rates_and_red_wall_predicts_warm_wall():
    count = 100_000
    table = shapes.attributes(shapes.factors(1, range(count)))
    for name, column in zip(shapes.ATTRIBUTE_NAMES, table.T, strict=True):
        rate, _ = shapes.ATTRIBUTES[name]
        assert 0.02 <= rate <= 0.6
        assert column.mean() == pytest.approx(rate, abs=5 * math.sqrt(rate / count)), name
    named = dict(zip(shapes.ATTRIBUTE_NAMES, table.T, strict=True))
    assert np.mean(named["red_wall"] == named["warm_wall"]) == pytest.approx(0.9, abs=0.005)
    redundant = {
        frozenset(pair)
        for pair in itertools.permutations(named, 2)
        if _information(named[pair[0]], named[pair[1]]) > 0.2  # the threshold of TAD
    }
    assert redundant == {frozenset({"warm_wall", "red_wall"})}


@pytest.mark.parametrize("split", ["test", "held_out"])
@pytest.mark.parametrize("factor", FACTORS)
def test_pairs_differ_in_one_factor(split, factor):
    source = ShapesSource(split, 32, num=2000)
    pairs = source.pairs(range(2000), factor)
    before, after = pairs["factors"][:, 0], pairs["factors"][:, 1]
    np.testing.assert_array_equal(before, source.factors(range(2000)))
    assert ((before != after) == (np.array(FACTOR_NAMES) == factor)).all()
    assert (pairs["image"][:, 0] != pairs["image"][:, 1]).any((1, 2, 3)).all()
    np.testing.assert_array_equal(pairs["image"][:, 1], render(after, 32))
    values = np.bincount(_column(after, factor), minlength=FACTORS[factor])
    assert (values > 0).all()
    if split == "test":
        combinations = zip(_column(after, "shape"), _column(after, "object_hue"), strict=True)
        assert not set(combinations) & set(HELD_OUT)
    some = source.pairs([1999, 5], factor)["factors"]  # a pair does not depend on the others
    np.testing.assert_array_equal(some, pairs["factors"][[1999, 5]])


def _color(hue, low, high, light):
    rgb = colorsys.hsv_to_rgb(hue / 10, 1 - low / high, high / 255)
    return np.array(rgb) * 255 * (136 + 40 * light) / 256


def _corners(shape):
    """Returns the corners of an upright polygon in the unit circle, with y pointing down."""
    if shape == 1:
        return [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)]
    if shape == 2:
        return [(0, -1), (math.sqrt(3) / 2, 0.5), (-math.sqrt(3) / 2, 0.5)]
    quarter = [(0.3, -0.95), (0.3, -0.3), (0.95, -0.3)]
    turns = [1, 1j, -1, -1j]
    return [((complex(*p) * t).real, (complex(*p) * t).imag) for t in turns for p in quarter]


def _in_polygon(points, corners):
    """Returns whether points lie in a polygon, by the even-odd rule."""
    inside = np.zeros(points.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            crossing = x0 + (points.imag - y0) * (x1 - x0) / (y1 - y0)
            inside ^= ((y0 <= points.imag) != (y1 <= points.imag)) & (points.real < crossing)
    return inside


def _slow_pixel(row, column, size, factors, samples):
    shape, wall, floor, hue, scale, x, orientation, stripes, light = factors
    y, x_at = np.mgrid[:samples, :samples] / samples + 0.5 / samples
    points = (column + x_at + 1j * (row + y)) / size  # in widths of the image
    colors = np.where(
        (points.imag < 18 / 32)[..., None],
        _color(wall, 130, 210, light),
        _color(floor, 60, 160, light),
    )
    rotated = points - complex(8.5 + x, 17.5) / 32
    rotated *= np.exp(-1j * math.radians(6 * orientation))
    unit = rotated / ((4 + scale / 2) / 32)
    if shape == 0:
        inside = unit.real**2 + (unit.imag / 0.6) ** 2 < 1
    else:
        inside = _in_polygon(unit, _corners(shape))
    dark = stripes & (np.floor(rotated.real * 16).astype(int) % 2)
    object_color = _color(hue, 30, 250, light) * np.where(dark, 0.5, 1)[..., None]
    return np.where(inside[..., None], object_color, colors).mean((0, 1))


@pytest.mark.parametrize(
    ("size", "factors"),
    [
        (32, [0, 0, 5, 3, 7, 15, 5, 1, 3]),
        (32, [1, 7, 2, 9, 6, 0, 0, 0, 2]),
        (32, [2, 3, 8, 0, 4, 6, 2, 0, 1]),
        (32, [3, 9, 1, 6, 6, 9, 7, 1, 3]),
        (32, [3, 1, 6, 2, 0, 4, 3, 0, 0]),
        (64, [2, 4, 6, 8, 7, 3, 7, 1, 3]),
    ],
)
def test_images_match_a_slow_renderer(size, factors):
    slow = np.array(
        [[_slow_pixel(r, c, size, factors, samples=32) for c in range(size)] for r in range(size)]
    )
    off = np.abs(render(np.array([factors]), size)[0] - slow)
    # With 64 samples per pixel, the covered fraction has an error of 1/8 at worst, 1/64 usually.
    assert off.max() < 250 / 8 and off.mean() < 0.6
    assert np.mean(off > 250 / 32) < 0.02


def test_values_are_the_lengths_and_angles_in_the_images():
    size = 128
    found = _rows(shape=0, floor_hue=5, object_hue=2, scale=range(8), x_position=range(0, 16, 5),
                  orientation=range(8), light=3)  # fmt: skip
    values = shapes.values(found)
    assert values.dtype == np.float32
    images = render(found, size).astype(float)
    room = render(_rows(floor_hue=5, light=3, scale=0, x_position=15), size)[0].astype(float)
    room[:] = room[:, :1]  # the first column shows the room alone
    object_color = _color(2, 30, 250, 3)
    covered = np.abs(images - room).sum(-1) / np.abs(object_color - room).sum(-1)
    area = covered.sum((1, 2))
    radius = _column(values, "scale") * size
    np.testing.assert_allclose(area, 0.6 * math.pi * radius**2, rtol=0.02)
    at = np.arange(size) + 0.5
    center = (covered.sum(1) @ at) / area
    np.testing.assert_allclose(center, _column(values, "x_position") * size, atol=0.1)
    x, y = at - center[:, None], at - 17.5 / 32 * size
    xx, yy = np.einsum("bij,bj->b", covered, x**2), np.einsum("bij,i->b", covered, y**2)
    xy = np.einsum("bij,bj,i->b", covered, x, y)
    angle = np.degrees(np.arctan2(2 * xy, xx - yy)) / 2
    np.testing.assert_allclose(angle, _column(values, "orientation"), atol=1.5)


def test_values_of_colors_and_light():
    values = shapes.values(np.array([[3, 9, 4, 1, 0, 0, 0, 1, 0]]))[0]
    np.testing.assert_allclose(_column(values, "light"), 136 / 256)
    np.testing.assert_allclose(values[:4], [3, 0.9, 0.4, 0.1], rtol=1e-6)
    assert _column(values, "stripes") == 1


def test_errors_name_the_wrong_argument_and_its_values():
    with pytest.raises(ConfigError, match=r"no split 'train\[:10\]'.*train, val, test, held_out"):
        ShapesSource("train[:10]", 32)
    with pytest.raises(ConfigError, match="image_size 48: it must be one of 32, 64, 128"):
        ShapesSource("train", 48)
    with pytest.raises(ConfigError, match="sampler 'even'"):
        ShapesSource("train", 32, sampler="even")
    source = ShapesSource("test", 32, num=10)
    with pytest.raises(DataError, match="no factor 'size', only shape, wall_hue"):
        source.pairs([0], "size")
    for wrong in ([10], [-1, 3]):
        with pytest.raises(IndexError, match="num=10"):
            source.batch(wrong)
