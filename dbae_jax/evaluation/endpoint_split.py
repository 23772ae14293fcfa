"""Measures how much of an image is in z and how much in x_T, by reconstructions.

Images are reconstructed from z alone and from z with the inferred x_T. Draws are K decodings of the
same latent codes, with different x_T (DiffAE) or different noise of the reverse SDE (DBAE). Their
error is the sum of the information that z lost and of the variance that the draws add:
  E|x_hat - x_0|^2 = |mean of the draws - x_0|^2 + variance over the draws.

Source: DBAE, figure 1 and section 3.
"""

from typing import Any, NamedTuple

import numpy as np

from dbae_jax.api.dbae import DBAE
from dbae_jax.data.images import to_float
from dbae_jax.metrics.similarity import pixel_mse, ssim


class Measured(NamedTuple):
    """Reconstructions of images and how they were made.

    Attributes:
      draws: reconstructions [K, N, H, W, C] in [-1, 1].
      how: what they were decoded from, such as `Z_ALONE`.
      plan: sampler arguments of `DBAE.decode`.
      nfe: network evaluations per image, including those that infer x_T.
    """

    draws: np.ndarray
    how: str
    plan: dict[str, Any]
    nfe: int


Z_ALONE = "z alone"
Z_AND_NOISE = "z, SDE noise"
Z_RANDOM_ENDPOINT = "z, random x_T"
Z_INFERRED_ENDPOINT = "z, inferred x_T"


def plan_of(model: DBAE, steps: int) -> dict[str, Any]:
    """Returns the sampler arguments of `DBAE.decode` that suit a model and a number of steps.

    DiffAE uses DDIM on the lambda grid. DBAE uses dbim on the lambda grid for up to 5 steps, and
    Euler on the uniform grid for more steps (docs/results/samplers.md).
    """
    if model.gaussian_endpoint or steps <= 5:
        return {"sampler": "dbim", "grid": "lambda", "steps": steps}
    return {"sampler": "euler", "grid": "uniform", "steps": steps}


def with_decoded_endpoint(
    model: DBAE, images: np.ndarray, *, steps: int, draws: int
) -> list[Measured]:
    """Reconstructs images from z by the ODE, and `draws` times by the Markov bridge.

    Args:
      model: a model that decodes x_T from z.
      images: [N, H, W, C].
      steps: network evaluations per decoding.
      draws: reconstructions per image K, 2 or more.
    """
    z = model.encode(images)
    x_T, plan = model.endpoint(z), plan_of(model, steps)
    noisy: dict[str, Any] = {
        "sampler": "dbim",
        "grid": "lambda",
        "steps": steps,
        "eta": 1.0,
        "boot": True,
    }
    return [
        Measured(model.decode(z, x_T, **plan)[None], Z_ALONE, plan, steps),
        Measured(
            np.stack([model.decode(z, x_T, rng=k, **noisy) for k in range(draws)]),
            *(Z_AND_NOISE, noisy, steps),
        ),
    ]


def with_gaussian_endpoint(
    model: DBAE, images: np.ndarray, *, steps: int, draws: int
) -> list[Measured]:
    """Reconstructs images by DDIM from z with `draws` random x_T, and with the inferred x_T.

    Args:
      model: a model with a Gaussian x_T.
      images: [N, H, W, C].
      steps: network evaluations per decoding, and per inference of x_T.
      draws: reconstructions per image K, 2 or more.
    """
    z, plan = model.encode(images), plan_of(model, steps)
    random = np.stack([model.decode(z, rng=k, **plan) for k in range(draws)])
    x_T = model.invert(images, z, steps=steps, grid=plan["grid"])
    return [
        Measured(random, Z_RANDOM_ENDPOINT, plan, steps),
        Measured(model.decode(z, x_T, **plan)[None], Z_INFERRED_ENDPOINT, plan, 2 * steps),
    ]


def figures(measured: Measured, images: np.ndarray) -> dict[str, Any]:
    """Returns the scores of reconstructions, in JSON types.

    Args:
      measured: reconstructions.
      images: the original images [N, H, W, C].

    Returns:
      mse and ssim: means over the draws, for pixels in [0, 1]. mse_of_mean: unbiased estimate of
      the MSE of the mean over infinitely many draws; equal to mse for one draw. variance_share: see
      `variance_share`. The other entries describe the reconstructions.
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
    """Returns the unbiased estimate of E Var(x_hat | z), the mean over images and pixels.

    Args:
      draws: reconstructions [K, N, ...]; the variance of a single, deterministic one is 0.
    """
    return float(np.var(np.float64(draws), axis=0, ddof=1).mean()) if len(draws) > 1 else 0.0


def variance_share(draws: np.ndarray) -> float:
    """Returns the fraction of the pixels' variance that does not come from z, in [0, 1].

    The fraction is E Var(x_hat | z) / Var x_hat. Var x_hat, over images and draws, is the sum of
    E Var(x_hat | z) and Var E[x_hat | z] for every pixel.

    Args:
      draws: reconstructions [K, N, ...]; the fraction of a single one is 0.
    """
    within = within_variance(draws)
    values = np.float64(draws)
    of_means = np.var(values.mean(axis=0), axis=0, ddof=1).mean()
    # The variance of a mean over K draws includes 1/K of the variance over the draws.
    between = of_means - within / len(draws)
    return float(within / (within + between)) if within else 0.0
