"""A trained DBAE (or DiffAE) in Python: encode, endpoint, denoise, decode, reconstruct."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import numpy as np

from dbae_jax.api import edits
from dbae_jax.api.checks import Rng, check_codes, check_images, check_states, check_times, make_key
from dbae_jax.api.programs import Programs
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.data.images import to_float
from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.prior import prior
from dbae_jax.prior.prior import Prior
from dbae_jax.runtime import fingerprint, sharding
from dbae_jax.sampling import integrate, inversion
from dbae_jax.sampling.integrate import Sample
from dbae_jax.sampling.inversion import INVERSION_STEPS
from dbae_jax.sampling.plan import Plan
from dbae_jax.sampling.tables import Table
from dbae_jax.workdirs import workdir

DECODED = "x_T of this model is decoded from z, it is not Gaussian: call endpoint(z)."
GAUSSIAN = (
    "x_T of this model is Gaussian, it is not decoded from z: sample it, with draw_x_T or rng, or "
    "infer it, with invert(images)."
)


class DBAE:
    """Diffusion Bridge AutoEncoder with weights.

    Inputs of any length are worked off in batches of `batch_size` (the last one padded), so each
    method compiles once, and an image's result does not depend on what stands beside it. Images
    are [B, H, W, C], uint8 or float in [-1, 1]; answers are float32 numpy arrays in [-1, 1] (see
    `dbae_jax.to_uint8`). Wrong input raises `DataError` with a sentence that says what is wrong.

    model = DBAE.load("runs/digits")
    z = model.encode(images)                        # [B, D]
    x_T = model.endpoint(z)                         # [B, H, W, C]
    again = model.decode(z)                         # [B, H, W, C]
    """

    def __init__(
        self,
        config: Config,
        variables: dict,
        *,
        networks: Networks | None = None,
        batch_size: int | None = None,
        mesh: jax.sharding.Mesh | None = None,
        step: int | None = None,
        load_prior: Callable[[str], Prior] | None = None,
    ):
        """Wraps variables {"params", "stats"} of the model that a config describes.

        Args:
          config: of the model.
          variables: its weights and running statistics.
          networks: if already built.
          batch_size: images worked on at a time; default config.eval.batch_size. Rounded up to
            a multiple of the mesh's devices.
          mesh: devices that share every batch (`sharding.make_mesh`); the variables must lie on
            all of them. Of several processes, each makes the same calls with the same arrays and
            gets the whole answer. Default: one device.
          step: of training, that the variables are of.
          load_prior: fingerprint of the weights -> the prior of their codes, on the same mesh;
            called when one is needed.
        """
        self.config = config
        self.variables = variables
        self.step = step
        self._load_prior = load_prior
        self.bridge = build.make_bridge(config.bridge)
        device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
        networks = networks or build.make_networks(build.computable(config, device.platform))
        batch_size = batch_size or config.eval.batch_size
        self._programs = Programs(networks, batch_size=batch_size, mesh=mesh)

    @classmethod
    def load(
        cls,
        directory: str | pathlib.Path,
        weights: str = "ema",
        *,
        step: int | None = None,
        batch_size: int | None = None,
        mesh: jax.sharding.Mesh | None = None,
    ) -> Self:
        """Loads a model from a workdir.

        Args:
          directory: the workdir of a training run or of a conversion.
          weights: "ema", the averaged weights, or "raw", those of the last step.
          step: of the checkpoint; default the newest that can be read.
          batch_size: images worked on at a time; default what the run's config says.
          mesh: devices that share the work (`sharding.make_mesh()`: all); default the first.

        Raises:
          CheckpointError: if there is no such workdir, or nothing in it can be read.
        """
        placed = None if mesh is None else sharding.replicated(mesh)
        loaded = workdir.load(pathlib.Path(directory), weights, step, sharding=placed)
        return cls(
            loaded.config,
            loaded.variables,
            networks=loaded.networks,
            batch_size=batch_size,
            mesh=mesh,
            step=loaded.step,
            load_prior=functools.partial(
                prior.load,
                pathlib.Path(directory),
                {"step": loaded.step, "weights": weights},
                mesh=mesh,
            ),
        )

    def with_variables(self, variables: dict) -> Self:
        """Returns the same model with other weights, and no prior; compiled programs are shared."""
        other = object.__new__(type(self))
        other.__dict__ = self.__dict__ | {"variables": variables, "_load_prior": None}
        for name in ("prior", "fingerprint"):  # kept from the first use on
            other.__dict__.pop(name, None)
        return other

    @functools.cached_property
    def fingerprint(self) -> str:
        """A short name of the weights, see `fingerprint.of`."""
        return fingerprint.of(self.variables)

    @property
    def latent_dim(self) -> int:
        """D, the width of z."""
        return self.config.model.latent_dim

    @property
    def batch_size(self) -> int:
        """Images that run at a time."""
        return self._programs.batch_size

    @property
    def gaussian_endpoint(self) -> bool:
        """Whether x_T is Gaussian noise (DiffAE); otherwise it is decoded from z (DBAE)."""
        return self.config.bridge.endpoint == "free"

    def encode(self, images: np.ndarray, rng: Rng = None) -> np.ndarray:
        """Encodes images to z: [B, D], float32.

        A stochastic encoder gives the mean of z, or a draw if `rng` is given; a deterministic one
        gives z itself and takes no `rng`.
        """
        images = self._check_images(images)
        if rng is not None and not self.config.model.stochastic:
            raise DataError("This model's encoder is deterministic: call encode without rng.")
        key = None if rng is None else make_key(rng, len(images))
        return self._programs.encode(self.variables, images, key)

    def posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns mean and scale of q(z | x_0): [B, D] each; the scale None if deterministic."""
        images = self._check_images(images)
        return self._programs.posterior(self.variables, images)

    def endpoint(self, z: np.ndarray) -> np.ndarray:
        """Decodes z: [B, D] to the diffusion's endpoint x_T: [B, H, W, C], unbounded.

        Raises `DataError` where x_T is free: see `draw_x_T` and `invert`.
        """
        if self.gaussian_endpoint:
            raise DataError(GAUSSIAN)
        return self._programs.endpoint(self.variables, check_codes(z, self.latent_dim))

    def draw_x_T(self, num: int, rng: Rng) -> np.ndarray:
        """Samples Gaussian endpoints: [num, H, W, C], standard normal (VE: times T).

        `rng`: a seed, a key, or keys [num]; `decode` samples the same x_T from it.

        Raises:
          DataError: without `rng`, or where x_T is decoded from z.
        """
        if rng is None or not self.gaussian_endpoint:
            raise DataError(GAUSSIAN if self.gaussian_endpoint else DECODED)
        scale, data = inversion.end_scale(self.bridge.schedule), self.config.data
        shape = (data.image_size, data.image_size, data.channels)
        return self._programs.draw_x_T(num, make_key(rng, num), scale, shape)

    def invert(
        self,
        images: np.ndarray,
        z: np.ndarray | None = None,
        *,
        steps: int = INVERSION_STEPS,
        grid: str = "lambda",
    ) -> np.ndarray:
        """Infers Gaussian endpoints by DDIM inversion: x_T, [B, H, W, C].

        The ODE leads from them back to the images, if decoded with the same z and grid; the more
        steps, the more exactly.

        Args:
          images: [B, H, W, C].
          z: [B, D]; by default the latent codes of the images.
          steps: network evaluations, 2 or more.
          grid: "karras", "uniform", "power" or "lambda".

        Raises:
          DataError: where x_T is decoded from z, or for wrong arguments.
        """
        if not self.gaussian_endpoint:
            raise DataError(DECODED)
        images = self._check_images(images)
        z = check_codes(self.encode(images) if z is None else z, self.latent_dim)
        if len(z) != len(images):
            raise DataError(
                f"invert takes one latent code per image, got {len(z)} for {len(images)} images."
            )
        table = inversion.inversion(self.bridge, steps, grid)
        x = inversion.initial_state(np.asarray(to_float(images)), self.bridge.schedule)
        return self._programs.invert(self.variables, x, z, table)

    def denoise(
        self, x_t: np.ndarray, t: float | np.ndarray, x_T: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        """Returns the denoiser's estimate of x_0, unclipped.

        Args:
          x_t: [B, H, W, C], a state of the bridge at time t.
          t: scalar or [B], in [t_min, T] of `self.bridge.schedule`.
          x_T: [B, H, W, C].
          z: [B, D].
        """
        z = check_codes(z, self.latent_dim)
        x_t, x_T = (self._check_states(x, n, len(z)) for x, n in ((x_t, "x_t"), (x_T, "x_T")))
        t = check_times(t, len(z), self.bridge.schedule)
        at = self.bridge.at(np.broadcast_to(t, (len(z),)))
        return self._programs.denoise(self.variables, x_t, at, x_T, z)

    def decode(
        self,
        z: np.ndarray,
        x_T: np.ndarray | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        churn: float = 0.0,
        rho: float = 7.0,
        rng: Rng = None,
        *,
        grid: str | np.ndarray | None = None,
        eta: float = 0.0,
        boot: bool = False,
    ) -> np.ndarray:
        """Decodes z: [B, D] to images: [B, H, W, C], float32 in [-1, 1].

        Args:
          z: codes.
          x_T: endpoint to start from; default `self.endpoint(z)`, or where x_T is free a draw
            from `rng`, which is needed then.
          sampler: "euler", "dbim", "multistep2", "multistep3" (`steps` network evaluations each) or
            "heun" (2 steps - 1). Default: dbim, or heun if churn is given; docs/samplers.md
            says why.
          steps: intervals of the time grid. Default: 5; for euler and heun 50.
          churn: euler and heun: share in [0, 1) of every interval that the reverse SDE walks;
            adds `steps` evaluations and needs `rng`. 0: the ODE, deterministic.
          rho: bend of the karras and power grids.
          rng: of the noise of churn, eta and boot: a seed, a key, or keys [B]. An image depends on
            its own key (from a seed or one key: on its place), not on the others decoded with it.
          grid: "karras", "uniform", "power", "lambda", or times falling to 0 (then `steps` and
            `rho` have no effect). Default: karras for euler and heun, lambda for the others.
          eta: dbim: in [0, 1], 0 deterministic, 1 a Markov bridge; needs `rng` above 0.
          boot: dbim and multistep: draws the noise of the first step, with `rng`; else it is 0.
        """
        plan = Plan.recommended(
            sampler=sampler, steps=steps, grid=grid, rho=rho, churn=churn, eta=eta, boot=boot
        )
        return self._sample(z, x_T, plan, rng, keep_path=False).x_0

    def trajectory(
        self, z: np.ndarray, x_T: np.ndarray | None = None, rng: Rng = None, **plan
    ) -> Sample:
        """As `decode`, also with the states on the way and the number of evaluations.

        Returns:
          x_0: [B, H, W, C]; path: [S, B, H, W, C], x_T first, then the state after every step
          (and every churn), clipped to [-1, 1]; times: [S]; nfe.
        """
        return self._sample(z, x_T, Plan.recommended(**plan), rng, keep_path=True)

    def reconstruct(self, images: np.ndarray, **kwargs) -> np.ndarray:
        """Encodes and decodes images: [B, H, W, C]; `kwargs` as `decode` takes."""
        return self.decode(self.encode(images), **kwargs)

    def interpolate(
        self,
        first: np.ndarray,
        second: np.ndarray,
        points: int = 11,
        method: str = "linear",
        rng: Rng = None,
        *,
        infer_endpoint: bool = False,
        **plan: Any,
    ) -> np.ndarray:
        """Decodes latent codes between those of two images: [B, points, H, W, C].

        Args:
          first: [B, H, W, C].
          second: [B, H, W, C]; the paths end at the reconstructions of both.
          points: number of images on each path, 2 or more.
          method: "linear", or "spherical", along the arc between the codes.
          rng: as for `decode`; the images of a path share their noise.
          infer_endpoint: for Gaussian x_T, as DiffAE interpolates: the endpoints of both images
            are inferred, and the path uses the arc between them. Otherwise the images of a path
            share one sample of x_T.
          **plan: sampler options, as for `decode`.

        Raises:
          DataError: for `infer_endpoint` where x_T is decoded from z, and as `decode`.
        """
        return edits.interpolate(
            self, first, second, points, method, rng, infer_endpoint=infer_endpoint, **plan
        )

    def edit(
        self,
        images: np.ndarray,
        direction: np.ndarray,
        scales: Sequence[float],
        fix_endpoint: bool = False,
        rng: Rng = None,
        **plan: Any,
    ) -> np.ndarray:
        """Decodes latent codes of images moved along a direction: [B, S, H, W, C].

        Args:
          images: [B, H, W, C].
          direction: [D], the step of a code at scale 1; see `dbae_jax.editing.directions`.
          scales: S numbers; 0 gives the reconstruction.
          fix_endpoint: holds x_T at that of the unedited code (a Gaussian x_T is inferred, as
            DiffAE edits). Otherwise x_T is computed from the edited code (a Gaussian one is
            sampled).
          rng: as for `decode`; the edits of an image share their noise and a sampled x_T.
          **plan: sampler options, as for `decode`.
        """
        return edits.edit(self, images, direction, scales, fix_endpoint, rng, **plan)

    @functools.cached_property
    def prior(self) -> Prior:
        """The prior of the codes.

        Raises:
          CheckpointError: if the model has none, or one of other weights.
        """
        if self._load_prior is None:
            raise CheckpointError(
                "This model has no latent prior to sample from: train one in its workdir with "
                "--mode=train_prior, and load the model from there."
            )
        return self._load_prior(self.fingerprint)

    def sample(
        self,
        num: int,
        rng: Rng,
        *,
        prior_sampler: str | None = None,
        prior_steps: int | None = None,
        prior_eta: float = 0.0,
        **plan,
    ) -> np.ndarray:
        """Draws z from the prior, then x_T, then x_0: [num, H, W, C], float32 in [-1, 1].

        Args:
          num: of images.
          rng: a seed, a key, or keys [num]; an image depends on its own key (from a seed or one
            key: on its place), whatever `num` is.
          prior_sampler: "ancestral" or "ddim"; default config.prior.sampler.
          prior_steps: network evaluations a code; default config.prior.sample_steps.
          prior_eta: ddim: noise, from 0 to 1.
          **plan: as `decode` takes it.

        Raises:
          CheckpointError: if the model has no prior.
        """
        z = self.sample_codes(num, rng, sampler=prior_sampler, steps=prior_steps, eta=prior_eta)
        return self.decode(z, rng=rng, **plan)

    def sample_codes(self, num: int, rng: Rng, **how) -> np.ndarray:
        """Draws codes from the prior: [num, D]; `how`: sampler, steps, eta, see `sample`."""
        if rng is None or num < 1:
            raise DataError("To sample, give a number of images, 1 or more, and a seed or a key.")
        return self.prior.sample(num, make_key(rng, num), batch_size=self.batch_size, **how)

    def nfe(self, **plan) -> int:
        """Returns the number of network evaluations that `decode` makes an image."""
        return self._table(Plan.recommended(**plan)).nfe

    def _sample(self, z, x_T, plan: Plan, rng: Rng, *, keep_path: bool) -> Sample:
        z = check_codes(z, self.latent_dim)
        table = self._table(plan)
        if plan.needs_noise and rng is None:
            raise DataError("churn, eta and boot draw noise: pass rng, a seed or a key.")
        if x_T is None:
            x_T = self.draw_x_T(len(z), rng) if self.gaussian_endpoint else self.endpoint(z)
        x_T = self._check_states(x_T, "x_T", len(z))
        key = make_key(rng, len(z))
        decoded = self._programs.decode(self.variables, x_T, z, key, table, keep_path=keep_path)
        if not keep_path:
            return Sample(decoded, None, table.path_times, table.nfe)
        x_0, states = decoded
        path = integrate.path_states(x_T, np.moveaxis(states, 1, 0), table)
        return Sample(x_0, np.asarray(path), table.path_times, table.nfe)

    def _table(self, plan: Plan) -> Table:
        try:
            return plan.table(self.bridge)
        except ValueError as error:
            raise DataError(str(error)) from error

    def _check_images(self, images: np.ndarray) -> np.ndarray:
        return check_images(images, self.config.data.image_size, self.config.data.channels)

    def _check_states(self, x: np.ndarray, name: str, count: int) -> np.ndarray:
        size, channels = self.config.data.image_size, self.config.data.channels
        return check_states(x, name, (count, size, size, channels))
