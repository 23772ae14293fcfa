"""What `api.DBAE` does with codes between and beside those of images: interpolation and edits."""

from collections.abc import Sequence

import numpy as np

from dbae_jax import editing, rngs
from dbae_jax.arguments import Rng, make_key


class Edits:
    """The part of `api.DBAE` that decodes changed codes."""

    def interpolate(
        self,
        first: np.ndarray,
        second: np.ndarray,
        points: int = 11,
        method: str = "linear",
        rng: Rng = None,
        **plan,
    ) -> np.ndarray:
        """Decodes codes on the way from each first image to its second: [B, points, H, W, C].

        Args:
          first: [B, H, W, C].
          second: [B, H, W, C]; the ends of the way are the reconstructions of both.
          points: of each way, 2 or more.
          method: "linear", or "spherical", on the arc between the codes; x_T follows z.
          rng: as `decode` takes it; the points of a way share their noise.
          **plan: as `decode` takes it.
        """
        z = editing.path(self.encode(first), self.encode(second), points, method)
        return self.decode_rows(z, rng=rng, **plan)

    def edit(
        self,
        images: np.ndarray,
        direction: np.ndarray,
        scales: Sequence[float],
        fix_endpoint: bool = False,
        rng: Rng = None,
        **plan,
    ) -> np.ndarray:
        """Decodes the codes of images moved along a direction: [B, S, H, W, C].

        Args:
          images: [B, H, W, C].
          direction: [D], what a code moves at scale 1; see `editing.directions`.
          scales: S numbers; 0 gives the reconstruction.
          fix_endpoint: keeps x_T of the unmoved code; else it follows z.
          rng: as `decode` takes it; the edits of an image share their noise and a free x_T.
          **plan: as `decode` takes it.
        """
        z = self.encode(images)
        there = editing.moved(z, direction, scales)
        keep = fix_endpoint and not self.free  # free, an image's edits share their x_T anyway
        x_T = np.repeat(self.endpoint(z), len(scales), axis=0) if keep else None
        return self.decode_rows(there, x_T, rng, **plan)

    def decode_rows(
        self, z: np.ndarray, x_T: np.ndarray | None = None, rng: Rng = None, **plan
    ) -> np.ndarray:
        """Decodes rows of codes: [B, P, H, W, C], float32 in [-1, 1].

        Args:
          z: [B, P, D].
          x_T: [B P, H, W, C], row by row; default `self.endpoint` of each code.
          rng: a seed, a key, or keys [B], as `decode` takes it; a row shares its noise.
          **plan: as `decode` takes it.
        """
        keys = None
        if rng is not None:
            rows = np.repeat(np.arange(len(z)), z.shape[1])
            keys = rngs.per_example(make_key(rng, len(z)), rows)
        x_0 = self.decode(z.reshape(-1, self.latent_dim), x_T, rng=keys, **plan)
        return x_0.reshape(*z.shape[:2], *x_0.shape[1:])
