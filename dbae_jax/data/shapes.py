"""Shapes: pictures of one object in a room, with nine known factors and unlimited in number.

A picture is a pure function of (seed, split, index), the same on every host, worker and machine:
its factors are integer hashes of those, and `shapes_renderer` draws them in integers. So any
picture can be made at once, without the others and without files.

Splits share no picture, whatever their seeds. Each combination of the eight factors other than the
wall's hue gives eight of its ten walls to "train" and one each to "val" and "test", by a hash, so
that the wall's hue stays uniform and independent of each other factor. "held_out" shows the
combinations of shape and object hue in HELD_OUT, one of each shape, which no other split shows.
"""

from typing import Any

import numpy as np

from dbae_jax.data import shapes_renderer
from dbae_jax.data.shapes_renderer import ANGLES, CENTERS_X, LIGHTS, NUM_HUES, RADII, SHAPES
from dbae_jax.errors import ConfigError, DataError

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
SPLITS = {"train": 50_000, "val": 5_000, "test": 5_000, "held_out": 5_000}  # usual numbers
SAMPLERS = ("balanced", "correlated")
# (shape, object_hue): an orange ellipse, a green square, a blue triangle, a red cross. Without them
# shape and hue still do not correlate, and half of the objects are warm.
HELD_OUT = ((0, 1), (1, 3), (2, 6), (3, 0))

_WALLS = {"train": (0, 8), "val": (8, 1), "test": (9, 1), "held_out": (0, 10)}  # first, count
_COLUMN = {name: column for column, name in enumerate(FACTOR_NAMES)}
_IS_HELD_OUT = np.isin(np.arange(4 * NUM_HUES), [s * NUM_HUES + h for s, h in HELD_OUT])
_FOLLOWS, _BALLOT, _CHANGED = 100, 101, 102  # streams of draws; those below 9 are the factors'


def factors(
    seed: int, indices: Any, *, split: str = "train", sampler: str = "balanced"
) -> np.ndarray:
    """Draws the factors of pictures.

    "balanced" draws all factors uniformly and independently of each other (shape and object hue:
    uniformly over the split's combinations). "correlated" differs in one pair, as a data set may
    by chance of its making: with probability 3/4 the object's x_position // 2 is its scale, so
    their correlation is 0.746.

    Args:
      seed: 0 or more.
      indices: [B] integers, 0 or more.
      split: a key of SPLITS.
      sampler: one of SAMPLERS.

    Returns:
      [B, 9] int32, factor f from 0 to FACTORS[f] - 1, in the order of FACTOR_NAMES.

    Raises:
      ConfigError: for an unknown split or sampler.
    """
    _check(split, SPLITS, "split")
    _check(sampler, SAMPLERS, "sampler")
    picture = _hash(seed, list(SPLITS).index(split), np.asarray(indices))
    drawn = {
        name: _below(count, _hash(picture, column))
        for column, (name, count) in enumerate(FACTORS.items())
    }
    (combinations,) = np.nonzero(_IS_HELD_OUT if split == "held_out" else ~_IS_HELD_OUT)
    chosen = combinations[_below(len(combinations), _hash(picture, _COLUMN["shape"]))]
    drawn["shape"], drawn["object_hue"] = np.divmod(chosen, NUM_HUES)
    if sampler == "correlated":
        follows = _below(4, _hash(picture, _FOLLOWS)) < 3
        near = 2 * drawn["scale"] + drawn["x_position"] % 2
        drawn["x_position"] = np.where(follows, near, drawn["x_position"])
    first, count = _WALLS[split]
    ballot = first + _below(count, _hash(picture, _COLUMN["wall_hue"]))
    drawn["wall_hue"] = np.zeros_like(ballot)
    found = np.stack([drawn[name] for name in FACTOR_NAMES], -1).astype(np.int32)
    found[..., _COLUMN["wall_hue"]] = (ballot - wall_ballot(found)) % NUM_HUES
    return found


def wall_ballot(factors: np.ndarray) -> np.ndarray:
    """Returns which split a combination belongs to: 0 to 7 "train", 8 "val", 9 "test".

    The same for every seed. Combinations of HELD_OUT belong to "held_out", whatever their ballot.

    Args:
      factors: [B, 9] integers.
    """
    others = np.delete(factors, _COLUMN["wall_hue"], axis=-1)
    sizes = [count for name, count in FACTORS.items() if name != "wall_hue"]
    number = np.ravel_multi_index(tuple(np.moveaxis(others, -1, 0)), sizes)
    return (factors[..., _COLUMN["wall_hue"]] + _below(NUM_HUES, _hash(number, _BALLOT))) % NUM_HUES


def values(factors: np.ndarray) -> np.ndarray:
    """Returns the factors in their own units, for regression.

    Args:
      factors: [B, 9] integers.

    Returns:
      [B, 9] float32: shape as it is; hues in turns, 0 (red) to 0.9, a circle; scale and
      x_position as radius and center in widths of the image; orientation in degrees clockwise;
      stripes 0 or 1; light as brightness, to 1.
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

# name -> (its rate among balanced pictures, where it holds). red_wall is made to go with warm_wall:
# they agree on nine pictures of ten. desert is rare.
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
    """Returns the binary attributes [B, len(ATTRIBUTES)], int8, 0 or 1, of factors [B, 9]."""
    named = {name: factors[..., column] for name, column in _COLUMN.items()}
    return np.stack([holds(named) for _, holds in ATTRIBUTES.values()], -1).astype(np.int8)


class ShapesSource:
    """Random access to pictures of one split, with what is known of them.

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
        """Takes a split of SPLITS and how many of its pictures there shall be (None: SPLITS').

        Raises:
          ConfigError: for an unknown split or sampler, or a size that is not drawn.
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

    def batch(self, indices: Any) -> dict[str, np.ndarray]:
        """Returns examples [B, ...]; much faster than one by one.

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

    def factors(self, indices: Any) -> np.ndarray:
        """Returns the factors [B, 9], int32, of pictures, which need not be drawn for it."""
        indices = np.asarray(indices)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num:
            raise IndexError(f"{self!r} has no picture {indices.min()} or {indices.max()}.")
        return factors(self.seed, indices, split=self.split, sampler=self.sampler)

    def pairs(self, indices: Any, factor: str) -> dict[str, np.ndarray]:
        """Returns pictures beside others that differ from them in one factor.

        The other value is drawn uniformly, but never makes a combination of HELD_OUT outside the
        split of that name. (It may make a picture of another split.)

        Args:
          indices: [B] integers.
          factor: one of FACTOR_NAMES.

        Returns:
          {"image": uint8 [B, 2, S, S, 3], "factors": int32 [B, 2, 9]}.

        Raises:
          DataError: for an unknown factor.
        """
        if factor not in FACTORS:
            raise DataError(f"Shapes have no factor {factor!r}, only {', '.join(FACTORS)}.")
        before = self.factors(indices)
        both = np.stack([before, self._changed(np.asarray(indices), before, factor)], 1)
        images = shapes_renderer.render(both.reshape(-1, len(FACTORS)), self.image_size)
        return {"image": images.reshape(*both.shape[:2], *images.shape[1:]), "factors": both}

    def _changed(self, indices: np.ndarray, before: np.ndarray, factor: str) -> np.ndarray:
        column, count = _COLUMN[factor], FACTORS[factor]
        others = np.repeat(before[:, None], count, axis=1)  # [B, values, 9]
        others[:, :, column] = np.arange(count)
        barred = others[:, :, column] == before[:, None, column]
        if self.split != "held_out":
            combination = others[:, :, _COLUMN["shape"]] * NUM_HUES
            barred |= _IS_HELD_OUT[combination + others[:, :, _COLUMN["object_hue"]]]
        picture = _hash(self.seed, list(SPLITS).index(self.split), indices, _CHANGED, column)
        lots = _hash(picture[:, None], np.arange(count)) >> np.uint64(1)
        drawn = np.where(barred, np.uint64(2**64 - 1), lots).argmin(1)
        return others[np.arange(len(others)), drawn]

    def overlaps(self, other: Any) -> bool:
        """Whether the other source may hold the same pictures: those of the same split."""
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
    """Mixes integers, or arrays of them, into 64 bits each.

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
    """Maps 64 random bits to integers from 0 to count - 1, evenly but for one part in 2**32."""
    return ((bits >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.int64)
