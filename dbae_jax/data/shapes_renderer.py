"""Pictures of one object in a room, drawn in integers: the same bytes on every machine.

A room is a pale wall above a dark floor; an object (ellipse, square, triangle, cross) stands before
both. Lengths are counted in ticks, 2048 to the width of an image whatever its pixels. Every object
that there can be is drawn once, as the share of each pixel that it covers (64 samples a pixel), in
a square window that holds the largest; a picture blends one of these windows into its room.
"""

import functools
import math

import numpy as np

SIZES = (32, 64, 128)  # pixels

WIDTH = 2048  # ticks
WINDOW = 15 * 64  # ticks: the square that holds every object, moved as a whole
CENTER_Y = 17 * 64 + 32  # ticks from the top
HORIZON = 18 * 64  # ticks from the top: wall above, floor below
RADII = tuple(256 + 32 * k for k in range(8))  # ticks, of the circle around the object
CENTERS_X = tuple(544 + 64 * k for k in range(16))  # ticks: whole pixels apart at every size
ANGLES = tuple(6 * k for k in range(8))  # degrees, clockwise; below the symmetries of all shapes
STRIPE = 128  # ticks: width of a stripe, dark or light, across the object's own horizontal axis
LIGHTS = (136, 176, 216, 256)  # brightness of everything, in 256ths
SHAPES = ("ellipse", "square", "triangle", "cross")
NUM_HUES = 10

_ONE = 1 << 14  # of cosines and sines
_SAMPLES = 8  # a pixel and axis
_STRIPED = 2  # kinds of surface: plain, striped


def render(factors: np.ndarray, size: int) -> np.ndarray:
    """Draws pictures.

    Args:
      factors: [B, 9] integers, in the order of `shapes.FACTOR_NAMES`.
      size: pixels of a side, one of SIZES.

    Returns:
      [B, size, size, 3] uint8.
    """
    pixels = np.empty((len(factors), size, 3 * size), np.uint8)
    step = max(1, (1 << 17) // size**2)  # pictures whose windows fit into a core's cache
    for start in range(0, len(factors), step):
        _draw(np.asarray(factors[start : start + step]), size, pixels[start : start + step])
    return pixels.reshape(-1, size, size, 3)


def _draw(factors: np.ndarray, size: int, pixels: np.ndarray) -> None:
    """Fills pixels: [B, size, 3 * size] uint8, channels within rows."""
    shape, wall, floor, hue, scale, x, orientation, stripes, light = factors.T
    room, ink = _paints(size)
    uncovered, covered = _atlas(size)
    per_tick = size / WIDTH  # a power of two: products below are whole
    width, horizon = round(WINDOW * per_tick), round(HORIZON * per_tick)
    top = round((CENTER_Y - WINDOW // 2) * per_tick)
    backs = room[0, wall, light], room[1, floor, light]
    for rows, back in zip((slice(horizon), slice(horizon, None)), backs, strict=True):
        pixels[:, rows] = back[:, None]
    window = np.empty((len(factors), width, 3 * width), np.uint16)
    window[:, : horizon - top] = backs[0][:, None, : 3 * width]
    window[:, horizon - top :] = backs[1][:, None, : 3 * width]
    window *= uncovered[shape, scale, orientation]
    window += covered[shape, scale, orientation, stripes] * ink[hue, light][:, None, : 3 * width]
    # v / 255, rounded: exact for v to 255 * 255, and nothing leaves 16 bits.
    window += 128
    window += window >> 8
    window >>= 8
    left = (np.array(CENTERS_X)[x] - WINDOW // 2) * size // WIDTH
    places = np.lib.stride_tricks.sliding_window_view(pixels, 3 * width, axis=2, writeable=True)
    places[np.arange(len(factors)), top : top + width, 3 * left] = window


@functools.lru_cache(maxsize=len(SIZES))
def _paints(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows of one colour: [2 (wall, floor), hue, light, 3 * size] and [hue, light, ...]."""
    wall, floor, ink = colors(130, 210), colors(60, 160), colors(30, 250)
    rows = [np.tile(kind, (1, 1, size)) for kind in (wall, floor, ink)]
    return np.stack(rows[:2]).astype(np.uint8), rows[2].astype(np.uint16)


def colors(low: int, high: int) -> np.ndarray:
    """Returns hues around the circle, red first, under every light.

    Args:
      low: weakest channel of a fully lit hue; low to high is a multiple of 5.
      high: strongest channel.

    Returns:
      [NUM_HUES, len(LIGHTS), 3] integers, 0 to 255.
    """
    # HSV in fifths of a sixth of the circle: red, green and blue are 20, 10 and 0 fifths away.
    fifths = (np.array([25, 15, 5]) + 3 * np.arange(NUM_HUES)[:, None]) % 30
    fall = np.clip(np.minimum(fifths, 20 - fifths), 0, 5)
    hues = high - (high - low) // 5 * fall
    return (hues[:, None] * np.array(LIGHTS)[:, None] + 128) // 256


@functools.lru_cache(maxsize=len(SIZES))
def _atlas(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns how every object fills its window, in 255ths of a pixel, thrice for the channels.

    Returns:
      The share of each pixel that the object leaves free, [shape, scale, orientation, W, 3 W],
      and the share that it paints, [shape, scale, orientation, stripes, W, 3 W] (a dark stripe
      paints half); uint16.
    """
    width = WINDOW * size // WIDTH
    free = np.empty((len(SHAPES), len(RADII), len(ANGLES), width, width), np.uint16)
    paint = np.empty((*free.shape[:3], _STRIPED, width, width), np.uint16)
    for orientation, angle in enumerate(ANGLES):
        u, v = _object_frame(width, angle)
        light = 2 - u // (STRIPE * _ONE) % 2  # half-shares: 1 in dark stripes, else 2
        for shape, name in enumerate(SHAPES):
            for scale, radius in enumerate(RADII):
                inside = _inside(name, u, v, radius * _ONE)
                at = shape, scale, orientation
                free[at] = 255 - _share(inside, 1)
                paint[(*at, 0)] = _share(inside, 1)
                paint[(*at, 1)] = _share(inside * light, 2)
    return free.repeat(3, -1), paint.repeat(3, -1)


def _object_frame(width: int, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a window's samples along the axes of an object turned clockwise.

    Returns:
      u (to the object's right) and v (down), [width * _SAMPLES] squared, int64, ticks * _ONE.
    """
    count = width * _SAMPLES
    at = (2 * np.arange(count) + 1) * (WINDOW // 2) // count - WINDOW // 2
    # As integers, no machine rounds them differently: none lies near a half.
    cos, sin = (round(_ONE * f(math.radians(angle))) for f in (math.cos, math.sin))
    return cos * at + sin * at[:, None], cos * at[:, None] - sin * at


def _inside(name: str, u: np.ndarray, v: np.ndarray, radius: int) -> np.ndarray:
    """Returns where samples (u, v) lie in an upright shape within a circle of this radius."""
    right, down = abs(u), abs(v)
    if name == "ellipse":  # half axes 1 and 0.6
        return 9 * right**2 + 25 * down**2 <= 9 * radius**2
    if name == "square":  # half side 0.7
        return 10 * np.maximum(right, down) <= 7 * radius
    if name == "triangle":  # equilateral, one corner up
        half_root_3 = round(_ONE * math.sqrt(3) / 2)
        sloped = half_root_3 * right - _ONE // 2 * v <= _ONE // 2 * radius
        return sloped & (2 * v <= radius)
    # Cross: bars 1.9 long and 0.6 wide.
    return (20 * np.maximum(right, down) <= 19 * radius) & (
        20 * np.minimum(right, down) <= 6 * radius
    )


def _share(samples: np.ndarray, full: int) -> np.ndarray:
    """Returns the rounded mean over each pixel's samples, 0 to `full`, as 0 to 255."""
    width = len(samples) // _SAMPLES
    blocks = samples.reshape(width, _SAMPLES, width, _SAMPLES)
    total = full * _SAMPLES**2
    return (blocks.sum((1, 3), dtype=np.int64) * 255 + total // 2) // total
