"""`DBAE.apply`: a model as pure functions (variables, arrays, key) -> arrays.

They work under jit, grad, vmap and shard_map. Arrays have a batch axis B. `key` is one key, which
is folded with the place of each example, or one key per example, [B]. Inside shard_map give one key
per example: there a place counts from the beginning of a device's part. All options are static.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from dbae_jax.api import checks, functions
from dbae_jax.bridge.marginals import has_gaussian_endpoint
from dbae_jax.bridge.preconditioning import Bridge
from dbae_jax.errors import DataError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.prior.prior import Prior
from dbae_jax.runtime import rngs
from dbae_jax.sampling import inversion
from dbae_jax.sampling.plan import Plan

if TYPE_CHECKING:  # the package runs without jaxtyping; tests/api/test_apply.py checks the shapes
    from jaxtyping import Array, Float, Key, UInt8

_NOISE = "this sampler draws noise: pass key, such as jax.random.key(0), or one key per example."


@dataclasses.dataclass(frozen=True, eq=False)
class Apply:
    """The pure functions of a model; get them as `model.apply`.

    `variables` is the tree `model.variables`: {"params", "stats"}. Gradients with respect to it
    work for every function. Samplers clip the denoiser's estimates and the image to [-1, 1]; where
    a pixel is clipped, its gradient is 0.

    Attributes:
      networks: networks of the model.
      bridge: schedule and preconditioning.
      image_shape: (H, W, C).
      prior: returns the model's latent prior, whose network `sample` uses.
      sampler: the sampler that the model was trained for.
    """

    networks: Networks
    bridge: Bridge
    image_shape: tuple[int, int, int]
    prior: Callable[[], Prior]
    sampler: str = "dbim"

    def encode(
        self,
        variables: dict,
        images: Float[Array, "B H W C"] | UInt8[Array, "B H W C"],
        key: Key[Array, ""] | Key[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Returns latent codes z: [B, D], float32.

        Args:
          variables: weights and running statistics.
          images: [B, H, W, C], float in [-1, 1], or uint8, which has no gradient.
          key: for a stochastic encoder: z is a sample of q(z | x_0). Without it, z is the mean.

        Raises:
          DataError: for a key if the encoder is deterministic.
        """
        if key is None:
            return functions.posterior(self.networks, variables, images)[0]
        if not self.networks.module.encoder.stochastic:
            raise DataError("This model's encoder is deterministic: call encode without a key.")
        places = np.arange(len(images))
        return functions.encode(self.networks, variables, images, key, places, sample=True)

    def endpoint(self, variables: dict, z: Float[Array, "B D"]) -> Float[Array, "B H W C"]:
        """Decodes z to the endpoint x_T of the diffusion: [B, H, W, C], float32, unbounded.

        Args:
          variables: weights and running statistics.
          z: latent codes [B, D], float32.

        Raises:
          DataError: if x_T is Gaussian noise.
        """
        if self._gaussian:
            raise DataError(checks.GAUSSIAN)
        return functions.endpoint(self.networks, variables, z)

    def denoise(
        self,
        variables: dict,
        x_t: Float[Array, "B H W C"],
        t: float | Float[Array, ""] | Float[Array, " B"],
        x_T: Float[Array, "B H W C"],
        z: Float[Array, "B D"],
    ) -> Float[Array, "B H W C"]:
        """Returns the denoiser's estimate of x_0: [B, H, W, C], unclipped.

        Args:
          variables: weights and running statistics.
          x_t: [B, H, W, C], a state of the bridge at time t.
          t: scalar or [B], in [t_min, T]; this is not checked. Scalings of a Python number or
            numpy array are computed in float64; those of a jax array in float32, which is
            inaccurate within 1e-3 of T.
          x_T: [B, H, W, C].
          z: [B, D].
        """
        times = t if isinstance(t, jax.Array) else np.asarray(t, np.float64)
        at = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), self.bridge.at(times))
        return functions.denoise(self.networks, variables, x_t, at, x_T, z)

    def decode(
        self,
        variables: dict,
        z: Float[Array, "B D"],
        x_T: Float[Array, "B H W C"] | None = None,
        key: Key[Array, ""] | Key[Array, " B"] | None = None,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        plan: Plan | str | None = None,
        remat: bool = True,
    ) -> Float[Array, "B H W C"]:
        """Decodes z: [B, D] to images: [B, H, W, C], float32 in [-1, 1].

        Args:
          variables: weights and running statistics.
          z: latent codes.
          x_T: endpoints to start from. Default: `endpoint(variables, z)`; where x_T is Gaussian,
            a sample drawn with `key`.
          key: for samplers that draw noise, and for a Gaussian x_T that is not given.
          sampler: "euler", "heun", "dbim", "multistep2", "multistep3" or "consistency". Default:
            dbim, for a distilled model consistency.
          steps: intervals of the time grid. Default: 5, for euler and heun 50, for consistency 2.
          plan: all sampler options at once, such as `Plan.recommended(churn=0.3)`; or "accurate"
            or "sharp".
          remat: whether a gradient computes activations again, one network evaluation at a time.
            Its memory then hardly grows with the number of evaluations.

        Raises:
          DataError: if a key is missing, or options do not go together.
        """
        plan = Plan.recommended(plan, sampler=sampler, steps=steps, default=self.sampler)
        table = checks.table_of(plan, self.bridge)
        if key is None and plan.needs_noise:
            raise DataError(_NOISE)
        if x_T is None:
            x_T = self._draw_x_T(len(z), key) if self._gaussian else self.endpoint(variables, z)
        key = jax.random.key(0) if key is None else key
        keys = rngs.per_example(key, jnp.arange(z.shape[0]))
        return functions.decode(self.networks, variables, x_T, z, keys, table, remat=remat)[0]

    def sample(
        self,
        variables: dict,
        prior_variables: dict,
        key: Key[Array, ""] | Key[Array, " B"],
        num: int | None = None,
        *,
        prior_sampler: str | None = None,
        prior_steps: int | None = None,
        prior_eta: float = 0.0,
        sampler: str | None = None,
        steps: int | None = None,
        plan: Plan | str | None = None,
        remat: bool = True,
    ) -> Float[Array, "B H W C"]:
        """Draws z from the latent prior and decodes it: [B, H, W, C], float32 in [-1, 1].

        Args:
          variables: weights and running statistics.
          prior_variables: those of the latent prior, `model.prior.variables`.
          key: one key, or keys [B].
          num: B, for one key. Default: 1.
          prior_sampler: "ancestral" or "ddim". Default: that of the prior's config.
          prior_steps: network evaluations per latent code. Default: that of the prior's config.
          prior_eta: ddim: from 0, deterministic, to 1.
          sampler: as for `decode`, like the next three.
          steps: see `decode`.
          plan: see `decode`.
          remat: see `decode`.

        Raises:
          CheckpointError: if the model has no latent prior.
          DataError: if options do not go together, or `num` comes with keys [B].
        """
        if key.ndim and num is not None:
            raise DataError("Give either one key and num, or one key per image without num.")
        places = np.arange(len(key) if key.ndim else 1 if num is None else num)
        keys = rngs.per_example(key, places)
        with jax.ensure_compile_time_eval():  # the first call reads the weights of the prior
            prior = self.prior()
        table = prior.table(prior_sampler, prior_steps, prior_eta)
        z = prior.sample_batch(prior_variables, keys, places, table)
        return self.decode(
            variables, z, None, keys, sampler=sampler, steps=steps, plan=plan, remat=remat
        )

    @property
    def _gaussian(self) -> bool:
        return has_gaussian_endpoint(self.bridge.schedule)

    def _draw_x_T(self, count: int, key: jax.Array | None) -> jax.Array:
        if key is None:
            raise DataError(checks.GAUSSIAN.replace("rng", "key"))
        scale = inversion.end_scale(self.bridge.schedule)
        return functions.draw_x_T(key, np.arange(count), scale, image_shape=self.image_shape)
