"""Shapes: an unlimited number of images of one object in a room, with nine known factors.

An image is a pure function of (seed, split, index), the same on every host, worker and machine. Its
factors are integer hashes of (seed, split, index), and `shapes_renderer` renders them in integers.
Each image can therefore be made alone, without files and without the other images.

No two splits have an image in common, with any seeds. For each combination of the other eight
factors, a hash assigns eight of the ten hues of the wall to "train", one to "val" and one to
"test". The wall's hue therefore stays uniform and independent of every other factor. The split
"held_out" holds the combinations of shape and object hue in HELD_OUT, one for each shape. No other
split has these combinations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dbae_jax.data import shapes_renderer
from dbae_jax.data.shapes_renderer import ANGLES, CENTERS_X, LIGHTS, NUM_HUES, RADII, SHAPES
from dbae_jax.errors import ConfigError, DataError

Indices = Sequence[int] | np.ndarray

FACTORS = {  # name -> number of values
    "shape": len(SHAPES),
    "wall_hue": NUM_HUES,
    "floor_hue": NUM_HUES,
    "object_hue": NUM_HUES,
    "scale": len(RADII),
    "x_position": len(CENTERS_X),
    "orientation": len(ANGLES),
    "stripes": 2,
    "light": len(LIGHTS),
}
FACTOR_NAMES = tuple(FACTORS)
# split -> default number of images
SPLITS = {"train": 50_000, "val": 5_000, "test": 5_000, "held_out": 5_000}
SAMPLERS = ("balanced", "correlated")
# (shape, object_hue): an orange ellipse, a green square, a blue triangle, a red cross. In the other
# combinations, shape and hue do not correlate either, and half of the objects are warm.
HELD_OUT = ((0, 1), (1, 3), (2, 6), (3, 0))

# Slots of the wall's hue that a split owns: (first, number); see `wall_slot`.
_WALL_SLOTS = {"train": (0, 8), "val": (8, 1), "test": (9, 1), "held_out": (0, 10)}
_COLUMN = {name: column for column, name in enumerate(FACTOR_NAMES)}
_IS_HELD_OUT = np.isin(np.arange(4 * NUM_HUES), [s * NUM_HUES + h for s, h in HELD_OUT])
# Streams of random numbers; the streams 0 to 8 are those of the nine factors.
_CORRELATION_STREAM, _WALL_STREAM, _PAIR_STREAM = 100, 101, 102


def factors(
    seed: int, indices: Indices, *, split: str = "train", sampler: str = "balanced"
) -> np.ndarray:
    """Draws the factors of images.

    The sampler "balanced" draws all factors uniformly and independently; shape and object hue are
    uniform over the combinations of the split. The sampler "correlated" imitates a data set with an
    accidental correlation: with probability 3/4, the object's x_position // 2 equals its scale.
    The correlation of x_position and scale is then 0.746.

    Args:
      seed: seed of the data set, 0 or more.
      indices: [B] integers, 0 or more.
      split: a key of SPLITS.
      sampler: one of SAMPLERS.

    Returns:
      int32 [B, 9] in the order of FACTOR_NAMES; the factor f has values 0 to FACTORS[f] - 1.

    Raises:
      ConfigError: if the split or sampler is unknown.
    """
    _check(split, SPLITS, "split")
    _check(sampler, SAMPLERS, "sampler")
    image_hash = _hash(seed, list(SPLITS).index(split), np.asarray(indices))
    drawn = {
        name: _below(count, _hash(image_hash, column))
        for column, (name, count) in enumerate(FACTORS.items())
    }
    (combinations,) = np.nonzero(_IS_HELD_OUT if split == "held_out" else ~_IS_HELD_OUT)
    chosen = combinations[_below(len(combinations), _hash(image_hash, _COLUMN["shape"]))]
    drawn["shape"], drawn["object_hue"] = np.divmod(chosen, NUM_HUES)
    if sampler == "correlated":
        is_correlated = _below(4, _hash(image_hash, _CORRELATION_STREAM)) < 3
        near_scale = 2 * drawn["scale"] + drawn["x_position"] % 2
        drawn["x_position"] = np.where(is_correlated, near_scale, drawn["x_position"])
    first, count = _WALL_SLOTS[split]
    slot = first + _below(count, _hash(image_hash, _COLUMN["wall_hue"]))
    drawn["wall_hue"] = np.zeros_like(slot)
    found = np.stack([drawn[name] for name in FACTOR_NAMES], -1).astype(np.int32)
    found[..., _COLUMN["wall_hue"]] = (slot - wall_slot(found)) % NUM_HUES
    return found


def wall_slot(factors: np.ndarray) -> np.ndarray:
    """Returns the slot of the wall's hue, which decides the split of a combination of factors.

    Slots 0 to 7 belong to "train", 8 to "val" and 9 to "test", for every seed. Combinations in
    HELD_OUT belong to "held_out" in every slot.

    Args:
      factors: [B, 9] integers.

    Returns:
      int64 [B], 0 to 9.
    """
    others = np.delete(factors, _COLUMN["wall_hue"], axis=-1)
    sizes = [count for name, count in FACTORS.items() if name != "wall_hue"]
    number = np.ravel_multi_index(tuple(np.moveaxis(others, -1, 0)), sizes)
    shift = _below(NUM_HUES, _hash(number, _WALL_STREAM))
    return (factors[..., _COLUMN["wall_hue"]] + shift) % NUM_HUES


def values(factors: np.ndarray) -> np.ndarray:
    """Returns the factors in physical units, for regression.

    Args:
      factors: [B, 9] integers.

    Returns:
      float32 [B, 9]. The shape keeps its number. Hues are positions on the colour circle from 0
      (red) to 0.9. Scale and x_position are radius and centre in widths of the image. The
      orientation is in degrees clockwise, stripes are 0 or 1, and light is a brightness up to 1.
    """
    hues = np.arange(NUM_HUES) / NUM_HUES
    units = {
        "wall_hue": hues,
        "floor_hue": hues,
        "object_hue": hues,
        "scale": np.array(RADII) / shapes_renderer.WIDTH,
        "x_position": np.array(CENTERS_X) / shapes_renderer.WIDTH,
        "orientation": np.array(ANGLES),
        "light": np.array(LIGHTS) / 256,
    }
    columns = [
        units.get(name, np.arange(count))[factors[..., column]]
        for column, (name, count) in enumerate(FACTORS.items())
    ]
    return np.stack(columns, -1).astype(np.float32)


_WARM = (0, 1, 2, 8, 9)  # hues: red, orange, yellow-green; magenta, rose

# name -> (its rate among balanced images, function from factors to where it holds). red_wall and
# warm_wall correlate on purpose: they agree on nine images of ten. desert is rare on purpose.
ATTRIBUTES = {
    "round": (1 / 4, lambda f: f["shape"] == 0),
    "pointed": (1 / 4, lambda f: f["shape"] == 2),
    "cross": (1 / 4, lambda f: f["shape"] == 3),
    "large": (1 / 2, lambda f: f["scale"] >= 4),
    "left": (3 / 8, lambda f: f["x_position"] < 6),
    "tilted": (1 / 2, lambda f: f["orientation"] >= 4),
    "striped": (1 / 2, lambda f: f["stripes"] == 1),
    "bright": (1 / 4, lambda f: f["light"] == 3),
    "dim": (1 / 4, lambda f: f["light"] == 0),
    "warm_wall": (1 / 2, lambda f: np.isin(f["wall_hue"], _WARM)),
    "red_wall": (2 / 5, lambda f: np.isin(f["wall_hue"], (0, 1, 8, 9))),
    "green_floor": (1 / 5, lambda f: np.isin(f["floor_hue"], (3, 4))),
    "warm_object": (1 / 2, lambda f: np.isin(f["object_hue"], _WARM)),
    "matching": (1 / 10, lambda f: f["wall_hue"] == f["floor_hue"]),
    "desert": (1 / 50, lambda f: np.isin(f["wall_hue"], (5, 6)) & (f["floor_hue"] == 1)),
}
ATTRIBUTE_NAMES = tuple(ATTRIBUTES)


def attributes(factors: np.ndarray) -> np.ndarray:
    """Returns the binary attributes, int8 [B, len(ATTRIBUTES)], of factors [B, 9]."""
    named = {name: factors[..., column] for name, column in _COLUMN.items()}
    return np.stack([holds(named) for _, holds in ATTRIBUTES.values()], -1).astype(np.int8)


class ShapesSource:
    """Random access to the images of one split, with their labels, attributes and factors.

    An example holds "image" (uint8 [S, S, 3]), "label" (the shape, 0 to 3), "attributes" (int8, in
    the order of `attribute_names`) and "factors" (int32 [9], in the order of `factor_names`).
    """

    factor_names = FACTOR_NAMES
    attribute_names = ATTRIBUTE_NAMES

    def __init__(
        self,
        split: str,
        image_size: int,
        *,
        num: int | None = None,
        seed: int = 0,
        sampler: str = "balanced",
    ):
        """Chooses the images.

        Args:
          split: a key of SPLITS.
          image_size: side of the images in pixels, one of `shapes_renderer.SIZES`.
          num: number of images; None: the number in SPLITS.
          seed: seed of the data set, 0 or more.
          sampler: one of SAMPLERS.

        Raises:
          ConfigError: if the split, sampler or image size is unknown.
        """
        _check(split, SPLITS, "split")
        _check(sampler, SAMPLERS, "sampler")
        _check(image_size, shapes_renderer.SIZES, "image_size")
        self.split, self.image_size, self.seed, self.sampler = split, image_size, seed, sampler
        self.num = SPLITS[split] if num is None else num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: value[0] for name, value in self.batch([index]).items()}

    def batch(self, indices: Indices) -> dict[str, np.ndarray]:
        """Returns the examples of `indices` [B] as arrays [B, ...], faster than one at a time.

        Raises:
          IndexError: if an index is not in [0, len).
        """
        found = self.factors(indices)
        return {
            "image": shapes_renderer.render(found, self.image_size),
            "label": found[:, _COLUMN["shape"]],
            "attributes": attributes(found),
            "factors": found,
        }

    def factors(self, indices: Indices) -> np.ndarray:
        """Returns the factors, int32 [B, 9], of images `indices` [B] without rendering the images.

        Raises:
          IndexError: if an index is not in [0, len).
        """
        indices = np.asarray(indices)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num:
            raise IndexError(
                f"{self!r} has images 0 to {self.num - 1}; the indices must lie in this range, and "
                f"are {indices.min()} to {indices.max()}."
            )
        return factors(self.seed, indices, split=self.split, sampler=self.sampler)

    def pairs(self, indices: Indices, factor: str) -> dict[str, np.ndarray]:
        """Returns pairs of an image and an image that differs from it in one factor.

        The new value is drawn uniformly from the other values. Outside the split "held_out", it
        never gives a combination in HELD_OUT. The second image may belong to a different split.

        Args:
          indices: [B] integers.
          factor: one of FACTOR_NAMES.

        Returns:
          {"image": uint8 [B, 2, S, S, 3], "factors": int32 [B, 2, 9]}.

        Raises:
          DataError: if the factor is unknown.
          IndexError: if an index is not in [0, len).
        """
        if factor not in FACTORS:
            raise DataError(
                f"Shapes have no factor {factor!r}, only {', '.join(FACTORS)}; name one of these."
            )
        before = self.factors(indices)
        both = np.stack([before, self._change_factor(np.asarray(indices), before, factor)], 1)
        images = shapes_renderer.render(both.reshape(-1, len(FACTORS)), self.image_size)
        return {"image": images.reshape(*both.shape[:2], *images.shape[1:]), "factors": both}

    def _change_factor(self, indices: np.ndarray, before: np.ndarray, factor: str) -> np.ndarray:
        """Returns `before` [B, 9] with a different random value of one factor."""
        column, count = _COLUMN[factor], FACTORS[factor]
        others = np.repeat(before[:, None], count, axis=1)  # [B, values, 9]
        others[:, :, column] = np.arange(count)
        forbidden = others[:, :, column] == before[:, None, column]
        if self.split != "held_out":
            combination = others[:, :, _COLUMN["shape"]] * NUM_HUES
            forbidden |= _IS_HELD_OUT[combination + others[:, :, _COLUMN["object_hue"]]]
        image_hash = _hash(self.seed, list(SPLITS).index(self.split), indices, _PAIR_STREAM, column)
        random = _hash(image_hash[:, None], np.arange(count)) >> np.uint64(1)
        chosen = np.where(forbidden, np.uint64(2**64 - 1), random).argmin(1)
        return others[np.arange(len(others)), chosen]

    def overlaps(self, other: Any) -> bool:
        """Returns whether another source may hold the same images: Shapes of the same split."""
        return isinstance(other, ShapesSource) and self.split == other.split

    def __repr__(self) -> str:
        return (
            f"ShapesSource({self.split!r}, {self.image_size}, num={self.num}, seed={self.seed}, "
            f"sampler={self.sampler!r})"
        )


def _check(value: Any, allowed: Any, name: str) -> None:
    if value not in allowed:
        known = ", ".join(str(v) for v in allowed)
        raise ConfigError(f"Shapes have no {name} {value!r}: it must be one of {known}.")


def _hash(*words: Any) -> np.ndarray:
    """Hashes integers, or integer arrays that broadcast, to uint64.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
    generators, OOPSLA 2014), chained over the words.
    """
    state = np.zeros(1, np.uint64)
    for word in words:
        state = (state ^ np.asarray(word).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def _below(count: int, bits: np.ndarray) -> np.ndarray:
    """Maps uniform uint64 to integers from 0 to count - 1, uniform up to one part in 2**32."""
    return ((bits >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)
