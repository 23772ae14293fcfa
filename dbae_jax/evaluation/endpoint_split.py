"""What z and x_T each hold of an image: reconstructions from z alone, and with x_T inferred.

Draws are K decodings of the same codes, from other x_T (DiffAE) or other noises of the reverse SDE
(DBAE). Their error splits exactly,
  E|x_hat - x_0|^2 = |mean of the draws - x_0|^2 + variance over the draws:
what z lost, and what the draws add.

Source: DBAE, figure 1 and section 3.
"""

from typing import Any, NamedTuple

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float
from dbae_jax.metrics.similarity import pixel_mse, ssim


class Measured(NamedTuple):
    """Reconstructions [K, N, H, W, C] in [-1, 1], made from z alone or not, and their price."""

    draws: np.ndarray
    how: str
    plan: dict[str, Any]  # of `DBAE.decode`
    nfe: int  # network evaluations an image, those of inferring x_T included


Z_ALONE = "z alone"
Z_AND_NOISE = "z, SDE noise"
Z_RANDOM_END = "z, random x_T"
Z_INFERRED_END = "z, inferred x_T"


def plan_of(model: DBAE, steps: int) -> dict[str, Any]:
    """Returns what suits a model at a number of evaluations: arguments of `DBAE.decode`.

    DDIM on the grid even in lambda where x_T is free. Where it is decoded, dbim on that grid for 5
    evaluations or fewer, Euler on the uniform grid for more: docs/samplers.md.
    """
    if model.gaussian_endpoint or steps <= 5:
        return {"sampler": "dbim", "grid": "lambda", "steps": steps}
    return {"sampler": "euler", "grid": "uniform", "steps": steps}


def from_decoded_end(model: DBAE, images: np.ndarray, *, steps: int, draws: int) -> list[Measured]:
    """Reconstructs through z by the ODE, and `draws` times by the Markov bridge.

    Args:
      model: whose x_T is decoded from z.
      images: [N, H, W, C].
      steps: network evaluations.
      draws: K, 2 or more.
    """
    z = model.encode(images)
    x_T, plan = model.endpoint(z), plan_of(model, steps)
    noisy = {"sampler": "dbim", "grid": "lambda", "steps": steps, "eta": 1.0, "boot": True}
    return [
        Measured(model.decode(z, x_T, **plan)[None], Z_ALONE, plan, steps),
        Measured(
            np.stack([model.decode(z, x_T, rng=k, **noisy) for k in range(draws)]),
            *(Z_AND_NOISE, noisy, steps),
        ),
    ]


def from_free_end(model: DBAE, images: np.ndarray, *, steps: int, draws: int) -> list[Measured]:
    """Reconstructs by DDIM from z and `draws` random x_T, and from z and the inferred x_T.

    Takes what `from_decoded_end` does, for a model whose x_T is free.
    """
    z, plan = model.encode(images), plan_of(model, steps)
    random = np.stack([model.decode(z, rng=k, **plan) for k in range(draws)])
    x_T = model.invert(images, z, steps=steps, grid=plan["grid"])
    return [
        Measured(random, Z_RANDOM_END, plan, steps),
        Measured(model.decode(z, x_T, **plan)[None], Z_INFERRED_END, plan, 2 * steps),
    ]


def figures(measured: Measured, images: np.ndarray) -> dict[str, Any]:
    """Returns the figures of reconstructions, of JSON types.

    mse, ssim: means over draws (pixels in [0, 1]). mse_of_mean: of what an average over endlessly
    many draws would leave, estimated without bias; mse where there is one draw. variance_share:
    see `variance_share`; 0 for one draw.
    """
    x_0, draws = np.asarray(to_float(images)), measured.draws
    error = float(np.mean([pixel_mse(draw, x_0) for draw in draws]))
    added = within_variance(draws) / 4  # pixels in [0, 1]
    return {
        "how": measured.how,
        "plan": measured.plan,
        "nfe": measured.nfe,
        "draws": len(draws),
        "mse": error,
        "mse_of_mean": error - added,
        "ssim": float(np.mean([ssim(draw, x_0) for draw in draws])),
        "variance_share": variance_share(draws),
    }


def within_variance(draws: np.ndarray) -> float:
    """Returns E Var(x_hat | z): over the draws, unbiased; the mean over images and pixels.

    draws: [K, N, ...]; of one draw 0, for it came without chance.
    """
    return float(np.var(np.float64(draws), axis=0, ddof=1).mean()) if len(draws) > 1 else 0.0


def variance_share(draws: np.ndarray) -> float:
    """Returns the share of the pixels' variance that does not come from z, from 0 to 1.

    E Var(x_hat | z) / Var x_hat; the latter, pixel by pixel over images and draws, is the sum of
    the former and of Var E[x_hat | z].

    draws: [K, N, ...].
    """
    within = within_variance(draws)
    values = np.float64(draws)
    of_means = np.var(values.mean(axis=0), axis=0, ddof=1).mean()
    # The variance of a mean of K draws holds a K-th of theirs.
    between = of_means - within / len(draws)
    return float(within / (within + between)) if within else 0.0
