"""Edits latent codes: paths between two codes, and shifts along the direction of an attribute.

A trained model encodes images, and decodes the edited codes:

    import dbae_jax
    from dbae_jax import editing
    from dbae_jax.data import sources

    model = dbae_jax.DBAE.load("runs/digits")
    train = sources.digits("train", 16)
    classes, targets = editing.one_vs_rest(train.labels)
    found = editing.directions(model.encode(train.images), targets, [str(c) for c in classes])
    z = model.encode(sources.digits("test", 16).images[:8])    # latent codes [8, D]
    codes = editing.moved(z, found.step("7"), (-0.3, 0, 0.3))  # [8, 3, D]
    sevens = model.decode(codes[:, 2])                         # images [8, 16, 16, 1]
    path = editing.path(z[:4], z[4:], 11, "linear")            # [4, 11, D]

The direction of an attribute is the normal w of a linear probe that predicts the attribute. At the
scale s, a code moves by s sqrt(D) w / |w| as in the paper. A scale therefore has a similar effect
for every latent dimension D. With `normalise=True`, as in DiffAE, the probe and the shift use codes
with mean 0 and standard deviation 1.
"""

import dataclasses
import difflib
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from dbae_jax.errors import DataError

__all__ = [
    "METHODS",
    "PROBES",
    "Directions",
    "arc",
    "check_name",
    "directions",
    "line",
    "moved",
    "one_vs_rest",
    "path",
]

MAX_ITERATIONS = 3_000  # of the solver of logistic regression
RIDGE = 1e-7  # penalty of ridge regression, in units of N times the mean variance of a dimension
_PARALLEL = 1e-4  # angle in radians below which an arc is replaced by a line

# Function from z_0 [..., D], z_1 [..., D] and positions [P] to the weights [..., P] of z_0 and z_1.
_Weights = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Directions:
    """The directions of K attributes.

    Attributes:
      names: names of the attributes.
      steps: changes of a code at scale 1, float32 [K, D].
    """

    names: tuple[str, ...]
    steps: np.ndarray

    def step(self, name: str) -> np.ndarray:
        """Returns the change [D] of a code at scale 1.

        Args:
          name: name of the attribute.

        Raises:
          DataError: if the name is unknown.
        """
        return self.steps[self.names.index(check_name(name, self.names))]


def line(z_0: np.ndarray, z_1: np.ndarray, points: int) -> np.ndarray:
    """Returns evenly spaced codes on the line from z_0 to z_1.

    Args:
      z_0: first codes [..., D].
      z_1: last codes [..., D].
      points: number of codes on each line including both ends, at least 2.

    Returns:
      Codes [..., points, D], float32. The first and the last code equal z_0 and z_1 exactly.

    Raises:
      DataError: if the shapes differ, or there are fewer than 2 points.
    """
    return _between(z_0, z_1, points, _line_weights)


def arc(z_0: np.ndarray, z_1: np.ndarray, points: int) -> np.ndarray:
    """Returns codes on the great arc from z_0 to z_1.

    The angle and the norm change evenly along the arc. Parallel codes are joined by a line, which
    is the limit of the arcs.

    Args:
      z_0: first codes [..., D].
      z_1: last codes [..., D].
      points: number of codes on each arc including both ends, at least 2.

    Returns:
      Codes [..., points, D], float32. The first and the last code equal z_0 and z_1 exactly.

    Raises:
      DataError: if the shapes differ, there are fewer than 2 points, a code is 0, or two codes
        are opposite, because then no arc is the shortest.

    Source: slerp (Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985).
    """
    return _between(z_0, z_1, points, _arc_weights)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "linear": line,
    "spherical": arc,
}


def path(z_0: np.ndarray, z_1: np.ndarray, points: int, method: str) -> np.ndarray:
    """Returns codes [..., points, D] on a path from z_0 to z_1.

    Args:
      z_0: first codes [..., D].
      z_1: last codes [..., D].
      points: number of codes on each path including both ends, at least 2.
      method: "linear" for `line`, or "spherical" for `arc`.

    Raises:
      DataError: if the method is unknown; also see `line` and `arc`.
    """
    if method not in METHODS:
        raise DataError(f"method={method!r} is not allowed: it must be {' or '.join(METHODS)}.")
    return METHODS[method](z_0, z_1, points)


def moved(z: np.ndarray, step: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """Returns the codes z + s step for all scales s, float32 [B, S, D].

    Args:
      z: codes [B, D].
      step: change of a code at scale 1, [D]; see `Directions.step`.
      scales: S scales. The scale 0 leaves a code exactly as it is.

    Raises:
      DataError: if the step does not have D finite values, or the scales are not finite.
    """
    z, step, factors = np.asarray(z), np.asarray(step), np.asarray(scales)
    if step.shape != z.shape[-1:] or not np.isfinite(step).all():
        raise DataError(
            f"A direction must be {z.shape[-1]} finite numbers, like the latent codes, got shape "
            f"{list(step.shape)}."
        )
    real = np.issubdtype(factors.dtype, np.floating) or np.issubdtype(factors.dtype, np.integer)
    if factors.ndim != 1 or not factors.size or not real or not np.isfinite(factors).all():
        raise DataError("Scales must be a list of finite numbers, such as -0.3,0,0.3.")
    return (z[:, None] + factors[:, None] * step).astype(np.float32)


def directions(
    z: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    *,
    probe: str = "logistic",
    normalise: bool = False,
) -> Directions:
    """Returns the directions of attributes, each found by its own linear probe.

    Args:
      z: latent codes [N, D].
      targets: attributes [N, K], 0 or 1, or real numbers. Real numbers use ridge regression
        instead of logistic regression. For class labels see `one_vs_rest`.
      names: names of the K attributes.
      probe: kind of probe. "logistic" is logistic regression with the penalty |w|^2 / 2 added to
        the sum of the losses. "ridge" is least squares on the values 0 and 1, which has the normal
        of Fisher's discriminant. "means" is the difference between the mean codes with and without
        the attribute.
      normalise: whether the probe uses codes with mean 0 and standard deviation 1.

    Raises:
      DataError: if shapes do not match, values are not finite, the probe is unknown, an attribute
        is the same for all images, or a probe finds no direction.
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
            raise DataError(f"The latent codes do not depend on {name!r}, so it has no direction.")
        steps.append(np.sqrt(z.shape[1]) * std * normal / length)
    return Directions(tuple(names), np.array(steps, np.float32))


def one_vs_rest(labels: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns class labels as attributes.

    Args:
      labels: class labels [N].

    Returns:
      The K different classes, and whether each image belongs to each class: int8 [N, K], 0 or 1.
    """
    classes = np.unique(labels)
    return tuple(classes.tolist()), (np.asarray(labels)[:, None] == classes).astype(np.int8)


def check_name(name: str, names: Sequence[str]) -> str:
    """Returns the name of an attribute after a check.

    Args:
      name: name to check.
      names: all names.

    Raises:
      DataError: if the name is unknown. The message lists all names or the most similar ones.
    """
    if name in names:
        return name
    if not isinstance(name, str):
        raise DataError(
            f"The attribute {name!r} ({type(name).__name__}) must be a name, such as {names[0]!r}."
        )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if len(names) <= 20:
        known = f"there are {', '.join(names)}"
    else:
        shown = ", ".join(near or names[:20])
        known = f"the {'most similar' if near else 'first'} of {len(names)} names are {shown}"
    raise DataError(f"There is no attribute {name!r}: {known}.")


def _between(z_0: np.ndarray, z_1: np.ndarray, points: int, weights: _Weights) -> np.ndarray:
    """Returns the codes [..., points, D] with the given weights of z_0 and z_1."""
    z_0, z_1 = (np.asarray(z, np.float32) for z in (z_0, z_1))
    if z_0.shape != z_1.shape or not z_0.ndim:
        raise DataError(
            f"A path joins codes of one shape, got {list(z_0.shape)} and {list(z_1.shape)}."
        )
    if points < 2:
        raise DataError(f"points={points} is not allowed: a path has at least 2 points.")
    a, b = weights(z_0.astype(np.float64), z_1.astype(np.float64), np.linspace(0, 1, points))
    codes = a[..., None] * z_0[..., None, :] + b[..., None] * z_1[..., None, :]
    codes[..., 0, :], codes[..., -1, :] = z_0, z_1
    return codes.astype(np.float32)


def _line_weights(z_0: np.ndarray, z_1: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of z_0 and z_1 at the positions w on a line."""
    shape = (*z_0.shape[:-1], len(w))
    return np.broadcast_to(1 - w, shape), np.broadcast_to(w, shape)


def _arc_weights(z_0: np.ndarray, z_1: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of z_0 and z_1 at the positions w on an arc."""
    norms = [np.linalg.norm(z, axis=-1, keepdims=True) for z in (z_0, z_1)]
    if not all(norm.all() for norm in norms):
        raise DataError('A code is 0 and has no direction; use method="linear".')
    u, v = z_0 / norms[0], z_1 / norms[1]
    # This is also exact near 0 and pi, where the arc cosine of the scalar product is not.
    lengths = [np.linalg.norm(d, axis=-1, keepdims=True) for d in (u - v, u + v)]
    angle = 2 * np.arctan2(*lengths)
    if np.any(np.pi - angle < _PARALLEL):
        raise DataError(
            "Two codes are opposite, so that no arc between them is the shortest; use "
            'method="linear".'
        )
    flat = angle < _PARALLEL
    safe = np.where(flat, 1.0, angle)
    weights = [np.where(flat, x, np.sin(x * safe) / np.sin(safe)) for x in (1 - w, w)]
    norm = (1 - w) * norms[0] + w * norms[1]
    return weights[0] * norm / norms[0], weights[1] * norm / norms[1]


def _checked(
    z: np.ndarray, targets: np.ndarray, names: Sequence[str], probe: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns codes and targets as float64 arrays after checks of all arguments."""
    z, targets = np.asarray(z, np.float64), np.asarray(targets, np.float64)
    if probe not in PROBES:
        raise DataError(f"probe={probe!r} is not allowed: it must be one of {', '.join(PROBES)}.")
    if z.ndim != 2 or targets.shape != (len(z), len(names)):
        raise DataError(
            f"Codes must be [N, D] and targets [N, {len(names)}], got {list(z.shape)} and "
            f"{list(targets.shape)}."
        )
    if not np.isfinite(z).all() or not np.isfinite(targets).all():
        raise DataError("Codes or attributes hold values that are not finite (NaN or infinity).")
    for name, column in zip(names, targets.T, strict=True):
        if column.min() == column.max():
            raise DataError(
                f"The attribute {name!r} is {column[0]:g} for all {len(z)} training images, so its "
                "direction is unknown."
            )
    return z, targets


def _logistic(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return LogisticRegression(max_iter=MAX_ITERATIONS).fit(x, target).coef_[0]


def _ridge(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    gram = x.T @ x  # x has mean 0
    penalty = RIDGE * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), x.T @ (target - target.mean()))


def _means(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return x.T @ (target - target.mean())  # for 0 and 1 a multiple of the difference of means


# Kind of probe -> function from codes [N, D] with mean 0 and targets [N] to the normal [D].
PROBES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "logistic": _logistic,
    "ridge": _ridge,
    "means": _means,
}
