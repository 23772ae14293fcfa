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
        *,
        infer_endpoint: bool = False,
        **plan,
    ) -> np.ndarray:
        """Decodes codes on the way from each first image to its second: [B, points, H, W, C].

        Args:
          first: [B, H, W, C].
          second: [B, H, W, C]; the ends of the way are the reconstructions of both.
          points: of each way, 2 or more.
          method: "linear", or "spherical", on the arc between the codes; x_T follows z.
          rng: as `decode` takes it; the points of a way share their noise.
          infer_endpoint: of a free x_T, as DiffAE interpolates: both images' are inferred, and the
            points lie on the arc between them. Else a way shares one that is drawn.
          **plan: as `decode` takes it.

        Raises:
          DataError: for `infer_endpoint` where x_T is decoded from z, and as `decode`.
        """
        z, x_T = self.way(first, second, points, method, infer_endpoint=infer_endpoint)
        return self.decode_rows(z, x_T, rng, **plan)

    def way(
        self,
        first: np.ndarray,
        second: np.ndarray,
        points: int,
        method: str,
        *,
        infer_endpoint: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns what `interpolate` decodes, for `decode_rows`.

        Returns:
          z: [B, points, D]; x_T: [B points, H, W, C] if they are inferred, else None.
        """
        images = (first, second)
        ends = [self.encode(some) for some in images]
        z = editing.path(*ends, points, method)
        if not infer_endpoint:
            return z, None
        inferred = [self.invert(some, code) for some, code in zip(images, ends, strict=True)]
        flat = (x_T.reshape(len(x_T), -1) for x_T in inferred)
        arcs = editing.path(*flat, points, "spherical")
        return z, arcs.reshape(-1, *inferred[0].shape[1:])

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
          fix_endpoint: keeps x_T of the unmoved code, a free one being inferred, as DiffAE edits;
            else it follows z, and a free one is drawn.
          rng: as `decode` takes it; the edits of an image share their noise and a free x_T.
          **plan: as `decode` takes it.
        """
        z = self.encode(images)
        there = editing.moved(z, direction, scales)
        x_T = self.own_x_T(images, z) if fix_endpoint else None
        return self.decode_rows(there, x_T, rng, **plan)

    def own_x_T(self, images: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns the x_T that edits of images keep, [B, H, W, C]: of z, a free one inferred.

        Args:
          images: [B, H, W, C].
          z: [B, D], their codes.
        """
        return self.invert(images, z) if self.free else self.endpoint(z)

    def decode_rows(
        self, z: np.ndarray, x_T: np.ndarray | None = None, rng: Rng = None, **plan
    ) -> np.ndarray:
        """Decodes rows of codes: [B, P, H, W, C], float32 in [-1, 1].

        Args:
          z: [B, P, D].
          x_T: [B, H, W, C], which a row shares, or [B P, H, W, C], row by row; default
            `self.endpoint` of each code, a free one drawn, which a row shares.
          rng: a seed, a key, or keys [B], as `decode` takes it; a row shares its noise.
          **plan: as `decode` takes it.
        """
        keys = None
        if rng is not None:
            rows = np.repeat(np.arange(len(z)), z.shape[1])
            keys = rngs.per_example(make_key(rng, len(z)), rows)
        if x_T is not None and len(x_T) == len(z):
            x_T = np.repeat(x_T, z.shape[1], axis=0)
        x_0 = self.decode(z.reshape(-1, self.latent_dim), x_T, rng=keys, **plan)
        return x_0.reshape(*z.shape[:2], *x_0.shape[1:])
