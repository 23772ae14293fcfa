"""Edits of codes: paths between two of them, directions of attributes, shifts along these.

Functions of arrays alone. An attribute's direction is the normal w of a linear probe of it; at
scale s a code moves by s sqrt(D) w / |w|, as the paper has it, so that scales mean about the same
for codes of any width D. With `normalise`, as DiffAE does, the probe is trained on codes of mean 0
and std 1, where the shift is made too.
"""

import dataclasses
import difflib
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from dbae_jax.errors import DataError

MAX_ITERATIONS = 3_000  # of the logistic probe
RIDGE = 1e-7  # penalty of the ridge probe, in units of N times the mean variance of a code
_PARALLEL = 1e-4  # radians below which an arc is a line


@dataclasses.dataclass(frozen=True)
class Directions:
    """Directions of K attributes. steps: [K, D] float32, how far a code moves at scale 1."""

    names: tuple[str, ...]
    steps: np.ndarray

    def step(self, name: str) -> np.ndarray:
        """Returns the step [D] of an attribute.

        Raises:
          DataError: for an unknown name.
        """
        return self.steps[self.names.index(check_name(name, self.names))]


def line(z_0: np.ndarray, z_1: np.ndarray, points: int) -> np.ndarray:
    """Returns evenly spaced codes on the line from z_0 to z_1, both exactly among them.

    Args:
      z_0: [..., D].
      z_1: [..., D].
      points: of each line, 2 or more.

    Returns:
      [..., points, D], float32.

    Raises:
      DataError: for codes of different shapes, or too few points.
    """
    return _between(z_0, z_1, points, _line_weights)


def arc(z_0: np.ndarray, z_1: np.ndarray, points: int) -> np.ndarray:
    """As `line`, on the great arc: the angle grows evenly from z_0 to z_1, and so does the norm.

    Parallel codes are joined by a line, which is the limit of arcs.

    Raises:
      DataError: also for opposite codes, between which no arc is the shortest, and for a code 0.

    Source: slerp (Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985).
    """
    return _between(z_0, z_1, points, _arc_weights)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "linear": line,
    "spherical": arc,
}


def path(z_0: np.ndarray, z_1: np.ndarray, points: int, method: str) -> np.ndarray:
    """Returns `line` ("linear") or `arc` ("spherical") of codes: [..., points, D].

    Raises:
      DataError: as they do, and for an unknown method.
    """
    if method not in METHODS:
        raise DataError(f"method={method!r} is not allowed: it must be {' or '.join(METHODS)}.")
    return METHODS[method](z_0, z_1, points)


def moved(z: np.ndarray, step: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """Returns codes shifted along a step: z + s step, [B, S, D], float32.

    Args:
      z: [B, D].
      step: [D], as `Directions.step` gives it.
      scales: S numbers; 0 gives the code back exactly.

    Raises:
      DataError: for a step of another width, or scales that are not finite numbers.
    """
    z, step, scales = np.asarray(z), np.asarray(step), np.asarray(scales)
    if step.shape != z.shape[-1:] or not np.isfinite(step).all():
        raise DataError(
            f"a direction of this model's codes is {z.shape[-1]} finite numbers, got "
            f"shape {list(step.shape)}."
        )
    real = np.issubdtype(scales.dtype, np.floating) or np.issubdtype(scales.dtype, np.integer)
    if scales.ndim != 1 or not scales.size or not real or not np.isfinite(scales).all():
        raise DataError("scales must be a list of finite numbers, such as -0.3,0,0.3.")
    return (z[:, None] + scales[:, None] * step).astype(np.float32)


def directions(
    z: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    *,
    probe: str = "logistic",
    normalise: bool = False,
) -> Directions:
    """Finds the directions of attributes by linear probes, each by itself.

    Args:
      z: [N, D], codes.
      targets: [N, K], 0 or 1; or real numbers, for which ridge regression stands in for logistic.
        Class labels: see `one_vs_rest`.
      names: of the K attributes.
      probe: "logistic", logistic regression with the penalty |w|^2 / 2 beside the sum of the
        losses; "ridge", the normal of least squares on 0 and 1, which is that of Fisher's
        discriminant; or "means", from the mean of codes without the attribute to that with it.
      normalise: whether the probe sees codes of mean 0 and std 1.

    Raises:
      DataError: for shapes that do not fit, values that are not finite, an unknown probe, or an
        attribute that is the same for all images.
    """
    z, targets = _checked(z, targets, names, probe)
    std = np.ones(z.shape[1])
    if normalise:
        found = z.std(axis=0)
        std = np.where(found > 0, found, 1.0)
    x = (z - z.mean(axis=0)) / std
    steps = []
    for name, target in zip(names, targets.T, strict=True):
        real = not np.isin(target, (0, 1)).all()
        normal = PROBES["ridge" if real and probe == "logistic" else probe](x, target)
        length = np.linalg.norm(normal)
        if length == 0:
            raise DataError(f"the codes know nothing of {name!r}: it has no direction.")
        steps.append(np.sqrt(z.shape[1]) * std * normal / length)
    return Directions(tuple(names), np.array(steps, np.float32))


def one_vs_rest(labels: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the K classes among labels [N], and whether each image is of each: [N, K], 0 or 1."""
    classes = np.unique(labels)
    return tuple(classes.tolist()), (np.asarray(labels)[:, None] == classes).astype(np.int8)


def check_name(name: str, names: Sequence[str]) -> str:
    """Returns the name, if it is one of an attribute.

    Raises:
      DataError: if not, with the nearest names, or all if they are few.
    """
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if len(names) <= 20:
        known = f"there are {', '.join(names)}"
    else:
        shown = ", ".join(near or names[:20])
        known = f"of {len(names)}, the {'nearest' if near else 'first'} are {shown}"
    raise DataError(f"There is no attribute {name!r}: {known}.")


def _between(z_0: np.ndarray, z_1: np.ndarray, points: int, weights: Callable) -> np.ndarray:
    z_0, z_1 = (np.asarray(z, np.float32) for z in (z_0, z_1))
    if z_0.shape != z_1.shape or not z_0.ndim:
        raise DataError(
            f"a path joins codes of one shape, got {list(z_0.shape)} and {list(z_1.shape)}."
        )
    if points < 2:
        raise DataError(f"points={points} is not allowed: a path has 2 or more.")
    a, b = weights(np.float64(z_0), np.float64(z_1), np.linspace(0, 1, points))
    codes = a[..., None] * z_0[..., None, :] + b[..., None] * z_1[..., None, :]
    codes[..., 0, :], codes[..., -1, :] = z_0, z_1
    return codes.astype(np.float32)


def _line_weights(z_0: np.ndarray, z_1: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    shape = (*z_0.shape[:-1], len(w))
    return np.broadcast_to(1 - w, shape), np.broadcast_to(w, shape)


def _arc_weights(z_0: np.ndarray, z_1: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, ...]:
    norms = [np.linalg.norm(z, axis=-1, keepdims=True) for z in (z_0, z_1)]
    if not all(norm.all() for norm in norms):
        raise DataError('a code is 0 and has no direction: take method="linear".')
    u, v = z_0 / norms[0], z_1 / norms[1]
    # Exact near 0 and pi too, where the arc cosine of the product is not.
    lengths = [np.linalg.norm(d, axis=-1, keepdims=True) for d in (u - v, u + v)]
    angle = 2 * np.arctan2(*lengths)
    if np.any(np.pi - angle < _PARALLEL):
        raise DataError(
            'two codes are opposite, and no arc between them is the shortest: take method="linear".'
        )
    flat = angle < _PARALLEL
    safe = np.where(flat, 1.0, angle)
    turned = [np.where(flat, x, np.sin(x * safe) / np.sin(safe)) for x in (1 - w, w)]
    norm = (1 - w) * norms[0] + w * norms[1]
    return turned[0] * norm / norms[0], turned[1] * norm / norms[1]


def _checked(
    z: np.ndarray, targets: np.ndarray, names: Sequence[str], probe: str
) -> tuple[np.ndarray, np.ndarray]:
    z, targets = np.asarray(z, np.float64), np.asarray(targets, np.float64)
    if probe not in PROBES:
        raise DataError(f"probe={probe!r} is not allowed: it must be one of {', '.join(PROBES)}.")
    if z.ndim != 2 or targets.shape != (len(z), len(names)):
        raise DataError(
            f"directions take codes [N, D] and targets [N, {len(names)}], got {list(z.shape)} and "
            f"{list(targets.shape)}."
        )
    if not np.isfinite(z).all() or not np.isfinite(targets).all():
        raise DataError("codes or attributes hold values that are not finite (NaN or infinity).")
    for name, column in zip(names, targets.T, strict=True):
        if column.min() == column.max():
            raise DataError(
                f"the attribute {name!r} is {column[0]:g} for all {len(z)} training images: "
                "nothing shows its direction."
            )
    return z, targets


def _logistic(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return LogisticRegression(max_iter=MAX_ITERATIONS).fit(x, target).coef_[0]


def _ridge(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    gram = x.T @ x  # x has mean 0
    penalty = RIDGE * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), x.T @ (target - target.mean()))


def _means(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return x.T @ (target - target.mean())  # of 0 and 1: a multiple of the means' difference


# Normals of probes: (x [N, D] of mean 0, target [N]) -> [D].
PROBES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "logistic": _logistic,
    "ridge": _ridge,
    "means": _means,
}
