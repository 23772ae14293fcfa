"""Renderer of images of one object in a room, in integers: the same bytes on every machine.

A room is a pale wall above a dark floor, and an object (ellipse, square, triangle, cross) stands in
front of both. Lengths are measured in ticks; the width of an image is 2048 ticks at every image
size. Every possible object is rendered once into a square window: the fraction of each pixel that
the object covers, from 64 samples per pixel. An image blends one of these windows into its room.
"""

import functools
import math

import numpy as np

SIZES = (32, 64, 128)  # sides of images in pixels

WIDTH = 2048  # ticks per image width
WINDOW = 15 * 64  # ticks: side of the window, which is large enough for every object
CENTER_Y = 17 * 64 + 32  # ticks from the top to the centre of the object
HORIZON = 18 * 64  # ticks from the top to the edge between wall and floor
RADII = tuple(256 + 32 * k for k in range(8))  # ticks: radius of the circle around the object
CENTERS_X = tuple(544 + 64 * k for k in range(16))  # ticks; whole pixels at every size
ANGLES = tuple(6 * k for k in range(8))  # degrees, clockwise; no two give the same image
STRIPE = 128  # ticks: width of a stripe, which is perpendicular to the object's horizontal axis
LIGHTS = (136, 176, 216, 256)  # brightness of the whole image, in 256ths
SHAPES = ("ellipse", "square", "triangle", "cross")
NUM_HUES = 10

_ONE = 1 << 14  # the integer that stands for 1 in cosines and sines
_SAMPLES = 8  # samples per pixel along each axis
_SURFACES = 2  # kinds of surface: plain, striped


def render(factors: np.ndarray, size: int) -> np.ndarray:
    """Renders images.

    Args:
      factors: [B, 9] integers, in the order of `shapes.FACTOR_NAMES`.
      size: side of the images in pixels, one of SIZES.

    Returns:
      uint8 [B, size, size, 3].
    """
    pixels = np.empty((len(factors), size, 3 * size), np.uint8)
    step = max(1, (1 << 17) // size**2)  # images whose windows fit into a core's cache
    for start in range(0, len(factors), step):
        _render_batch(np.asarray(factors[start : start + step]), size, pixels[start : start + step])
    return pixels.reshape(-1, size, size, 3)


def _render_batch(factors: np.ndarray, size: int, pixels: np.ndarray) -> None:
    """Writes images into pixels, uint8 [B, size, 3 * size], with the channels within the rows."""
    shape, wall, floor, hue, scale, x, orientation, stripes, light = factors.T
    room, object_color = _color_rows(size)
    uncovered, covered = _coverage(size)
    per_tick = size / WIDTH  # a power of two, so the products below are whole numbers
    width, horizon = round(WINDOW * per_tick), round(HORIZON * per_tick)
    top = round((CENTER_Y - WINDOW // 2) * per_tick)
    wall_row, floor_row = room[0, wall, light], room[1, floor, light]
    pixels[:, :horizon] = wall_row[:, None]
    pixels[:, horizon:] = floor_row[:, None]
    window = np.empty((len(factors), width, 3 * width), np.uint16)
    window[:, : horizon - top] = wall_row[:, None, : 3 * width]
    window[:, horizon - top :] = floor_row[:, None, : 3 * width]
    window *= uncovered[shape, scale, orientation]
    color_row = object_color[hue, light][:, None, : 3 * width]
    window += covered[shape, scale, orientation, stripes] * color_row
    # v / 255, rounded: exact for v up to 255 * 255, and no value exceeds 16 bits.
    window += 128
    window += window >> 8
    window >>= 8
    left = (np.array(CENTERS_X)[x] - WINDOW // 2) * size // WIDTH
    places = np.lib.stride_tricks.sliding_window_view(pixels, 3 * width, axis=2, writeable=True)
    places[np.arange(len(factors)), top : top + width, 3 * left] = window


@functools.lru_cache(maxsize=len(SIZES))
def _color_rows(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of one colour.

    Returns:
      Rows of wall and floor, uint8 [2, hue, light, 3 * size], and of objects, uint16 [hue, light,
      3 * size].
    """
    wall, floor, objects = colors(130, 210), colors(60, 160), colors(30, 250)
    rows = [np.tile(kind, (1, 1, size)) for kind in (wall, floor, objects)]
    return np.stack(rows[:2]).astype(np.uint8), rows[2].astype(np.uint16)


def colors(low: int, high: int) -> np.ndarray:
    """Returns the colours of all hues around the colour circle, red first, under every light.

    Args:
      low: weakest channel of a hue at full light; high - low must be a multiple of 5.
      high: strongest channel of a hue at full light.

    Returns:
      [NUM_HUES, len(LIGHTS), 3] integers, 0 to 255.
    """
    # HSV in units of 1/30 of the circle: red, green and blue lie 10 units apart.
    units = (np.array([25, 15, 5]) + 3 * np.arange(NUM_HUES)[:, None]) % 30
    fall = np.clip(np.minimum(units, 20 - units), 0, 5)
    hues = high - (high - low) // 5 * fall
    return (hues[:, None] * np.array(LIGHTS)[:, None] + 128) // 256


@functools.lru_cache(maxsize=len(SIZES))
def _coverage(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights of the room and of every object in its window, in 255ths, per channel.

    Returns:
      The weight of the room: uncovered fraction of each pixel, [shape, scale, orientation, W, 3 W].
      The weight of the object's colour: covered fraction, [shape, scale, orientation, stripes, W,
      3 W], where dark stripes count half. Both are uint16.
    """
    width = WINDOW * size // WIDTH
    uncovered = np.empty((len(SHAPES), len(RADII), len(ANGLES), width, width), np.uint16)
    covered = np.empty((*uncovered.shape[:3], _SURFACES, width, width), np.uint16)
    for orientation, angle in enumerate(ANGLES):
        u, v = _object_frame(width, angle)
        light = 2 - u // (STRIPE * _ONE) % 2  # halves: 1 in dark stripes, else 2
        for shape, name in enumerate(SHAPES):
            for scale, radius in enumerate(RADII):
                inside = _inside(name, u, v, radius * _ONE)
                at = shape, scale, orientation
                uncovered[at] = 255 - _pixel_mean(inside, 1)
                covered[(*at, 0)] = _pixel_mean(inside, 1)
                covered[(*at, 1)] = _pixel_mean(inside * light, 2)
    return uncovered.repeat(3, -1), covered.repeat(3, -1)


def _object_frame(width: int, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coordinates of a window's samples along the axes of an object rotated clockwise.

    Returns:
      u (to the object's right) and v (down): int64 [width * _SAMPLES, width * _SAMPLES], in
      ticks * _ONE.
    """
    count = width * _SAMPLES
    at = (2 * np.arange(count) + 1) * (WINDOW // 2) // count - WINDOW // 2
    # No value lies near a half, so every machine rounds to the same integers.
    cos, sin = (round(_ONE * f(math.radians(angle))) for f in (math.cos, math.sin))
    return cos * at + sin * at[:, None], cos * at[:, None] - sin * at


def _inside(name: str, u: np.ndarray, v: np.ndarray, radius: int) -> np.ndarray:
    """Returns whether samples (u, v) lie in a shape, whose circumscribed circle has this radius."""
    right, down = abs(u), abs(v)
    if name == "ellipse":  # half axes 1 and 0.6 radii
        return 9 * right**2 + 25 * down**2 <= 9 * radius**2
    if name == "square":  # half side 0.7 radii
        return 10 * np.maximum(right, down) <= 7 * radius
    if name == "triangle":  # equilateral, with one corner at the top
        half_root_3 = round(_ONE * math.sqrt(3) / 2)
        sloped = half_root_3 * right - _ONE // 2 * v <= _ONE // 2 * radius
        return sloped & (2 * v <= radius)
    # Cross: two bars, 1.9 radii long and 0.6 radii wide.
    return (20 * np.maximum(right, down) <= 19 * radius) & (
        20 * np.minimum(right, down) <= 6 * radius
    )


def _pixel_mean(samples: np.ndarray, full: int) -> np.ndarray:
    """Returns the mean of each pixel's samples, scaled from [0, full] to [0, 255] and rounded."""
    width = len(samples) // _SAMPLES
    blocks = samples.reshape(width, _SAMPLES, width, _SAMPLES)
    total = full * _SAMPLES**2
    return (blocks.sum((1, 3), dtype=np.int64) * 255 + total // 2) // total
