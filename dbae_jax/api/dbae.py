"""A trained DBAE (or DiffAE) in Python: encode, endpoint, denoise, decode, reconstruct."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import numpy as np

from dbae_jax import editing
from dbae_jax.api import checks, edits, gaussian_endpoint
from dbae_jax.api.checks import Rng, make_key
from dbae_jax.api.programs import Programs
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.errors import CheckpointError, ConfigError, DataError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.prior import prior
from dbae_jax.prior.prior import Prior
from dbae_jax.runtime import fingerprint, platforms, sharding
from dbae_jax.sampling.integrate import Sample
from dbae_jax.sampling.inversion import INVERSION_STEPS
from dbae_jax.sampling.plan import Plan
from dbae_jax.sampling.tables import Table
from dbae_jax.workdirs import workdir


class DBAE:
    """A trained diffusion bridge autoencoder: networks, weights and the bridge.

    Images are [B, H, W, C], uint8 or float in [-1, 1]; results are float32 numpy arrays, images in
    [-1, 1] (see `dbae_jax.to_uint8`). Inputs of any length run in batches of `batch_size`, the last
    one padded: a result does not depend on the other images. Wrong input raises `DataError`.

    model = DBAE.load("runs/digits")
    z = model.encode(images)                        # [B, D]
    x_T = model.endpoint(z)                         # [B, H, W, C]
    reconstructions = model.decode(z)               # [B, H, W, C]
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
        source: str = "weights in memory",
        load_prior: Callable[[str], Prior] | None = None,
    ):
        """Combines a config with weights; `DBAE.load` reads both from a workdir.

        Args:
          config: config of the model.
          variables: {"params", "stats"}, its weights and running statistics.
          networks: networks of the config, if they are built already.
          batch_size: images per batch, rounded up for the mesh. Default: config.eval.batch_size.
          mesh: devices that share every batch (`sharding.make_mesh`) and hold the variables. With
            several processes, each process makes the same calls and gets the whole result.
          step: number of training steps that the weights have taken.
          source: where the weights come from, for `repr`.
          load_prior: fingerprint of the weights -> latent prior; called at the first use.
        """
        self.config, self.variables = config, variables
        self.step, self._source = step, source if step is None else f"step {step}, {source}"
        self._load_prior = load_prior
        self.bridge = build.make_bridge(config.bridge)
        if networks is None:
            device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
            networks = build.make_networks(config, platforms.platform_of(device))
        self.programs = Programs(networks, batch_size or config.eval.batch_size, mesh)

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
        """Loads a model from the workdir of a training run or of a conversion.

        Args:
          directory: the workdir.
          weights: "ema", the EMA weights, or "raw", the weights of the last training step.
          step: step of the checkpoint. Default: the newest checkpoint that can be read.
          batch_size: images per batch. Default: config.eval.batch_size of the run.
          mesh: devices that share the work, such as `sharding.make_mesh()`. Default: the first one.

        Raises:
          CheckpointError: if there is no such workdir, or no checkpoint that can be read.
        """
        directory = pathlib.Path(directory)
        placed = None if mesh is None else sharding.replicated(mesh)
        loaded = workdir.load(directory, weights, step, sharding=placed)
        whose = {"step": loaded.step, "weights": weights}
        return cls(
            loaded.config,
            loaded.variables,
            networks=loaded.networks,
            batch_size=batch_size,
            mesh=mesh,
            step=loaded.step,
            source=f"{weights.replace('ema', 'EMA')} weights of {directory}",
            load_prior=functools.partial(prior.load, directory, whose, mesh=mesh),
        )

    def __repr__(self) -> str:
        data, model = self.config.data, self.config.model
        size = sum(leaf.size for leaf in jax.tree.leaves(self.variables.get("params", {})))
        encoder = "stochastic" if model.stochastic else "deterministic"
        return (
            f"DBAE({data.name} {data.image_size}x{data.image_size}x{data.channels}, "
            f"{self.latent_dim}-dimensional z, {encoder} encoder, "
            f"{'Gaussian' if self.gaussian_endpoint else 'decoded'} x_T, "
            f"{size / 1e6:.3g}M parameters, {self._source})"
        )

    def with_variables(self, variables: dict) -> Self:
        """Returns the same model with other weights and without a latent prior."""
        other = object.__new__(type(self))
        same = {k: v for k, v in self.__dict__.items() if k not in ("prior", "fingerprint")}
        unknown = {"step": None, "_source": "weights in memory", "_load_prior": None}
        other.__dict__ = same | unknown | {"variables": variables}
        return other

    @property
    def latent_dim(self) -> int:
        """D, the width of z."""
        return self.config.model.latent_dim

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights; see `fingerprint.of`."""
        return fingerprint.of(self.variables)

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self.programs.batch_size

    @property
    def gaussian_endpoint(self) -> bool:
        """Whether x_T is Gaussian noise (DiffAE); otherwise it is decoded from z (DBAE)."""
        return self.config.bridge.endpoint == "free"

    def encode(self, images: np.ndarray, rng: Rng = None) -> np.ndarray:
        """Encodes images to latent codes z: [B, D], float32.

        A stochastic encoder gives the mean of q(z | x_0), or with `rng` a sample of it. A
        deterministic encoder takes no `rng`.
        """
        images = checks.check_images(images, self.config.data)
        if rng is not None and not self.config.model.stochastic:
            raise DataError("This model's encoder is deterministic: call encode without rng.")
        key = None if rng is None else make_key(rng, len(images))
        return self.programs.encode(self.variables, images, key)

    def posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns mean and standard deviation (deterministic: None) of q(z | x_0): [B, D] each."""
        images = checks.check_images(images, self.config.data)
        return self.programs.posterior(self.variables, images)

    def endpoint(self, z: np.ndarray) -> np.ndarray:
        """Decodes z: [B, D] to the endpoint x_T of the diffusion: [B, H, W, C], unbounded.

        Raises:
          DataError: if x_T is Gaussian; `draw_x_T` samples it and `invert` infers it.
        """
        if self.gaussian_endpoint:
            raise DataError(checks.GAUSSIAN)
        return self.programs.endpoint(self.variables, checks.check_codes(z, self.latent_dim))

    def draw_x_T(self, num: int, rng: Rng) -> np.ndarray:
        """Samples Gaussian endpoints: [num, H, W, C], standard normal (VE: times T).

        `rng` is a seed, a key, or keys [num]; `decode` samples the same x_T from it.

        Raises:
          DataError: without `rng`, or if x_T is decoded from z.
        """
        return gaussian_endpoint.draw_x_T(self, num, rng)

    def invert(
        self,
        images: np.ndarray,
        z: np.ndarray | None = None,
        *,
        steps: int = INVERSION_STEPS,
        grid: str = "lambda",
    ) -> np.ndarray:
        """Infers Gaussian endpoints by DDIM inversion: x_T, [B, H, W, C].

        Decoding them with the same z and grid gives the images back, the better the more steps.

        Args:
          images: [B, H, W, C].
          z: [B, D]; by default the latent codes of the images.
          steps: network evaluations, 2 or more.
          grid: "karras", "uniform", "power" or "lambda".

        Raises:
          DataError: if x_T is decoded from z.
        """
        return gaussian_endpoint.invert(self, images, z, steps=steps, grid=grid)

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
        z, data = checks.check_codes(z, self.latent_dim), self.config.data
        x_t = checks.check_states(x_t, "x_t", len(z), data)
        x_T = checks.check_states(x_T, "x_T", len(z), data)
        t = checks.check_times(t, len(z), self.bridge.schedule)
        at = self.bridge.at(np.broadcast_to(t, (len(z),)))
        return self.programs.denoise(self.variables, x_t, at, x_T, z)

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
        plan: Plan | None = None,
    ) -> np.ndarray:
        """Decodes latent codes z: [B, D] to images: [B, H, W, C], float32 in [-1, 1].

        Args:
          z: [B, D].
          x_T: [B, H, W, C], endpoints to start from. Default: `self.endpoint(z)`; where x_T is
            Gaussian, a sample drawn with `rng`.
          sampler: "euler", "dbim", "multistep2" or "multistep3" (`steps` network evaluations),
            or "heun" (2 steps - 1). Default: dbim; heun with churn (docs/results/samplers.md).
          steps: intervals of the time grid. Default: 5, for euler and heun 50.
          churn: euler and heun: fraction in [0, 1) of every interval that is integrated with the
            reverse SDE; adds `steps` evaluations. 0: the ODE, deterministic.
          rho: exponent of the karras and power grids.
          rng: a seed, a key, or keys [B], for churn, eta, boot and a Gaussian x_T. The noise of
            an image depends on its own key, or on its place; not on the other images.
          grid: "karras", "uniform", "power", "lambda" (uniform in log-SNR), or times falling to
            0. Default: karras for euler and heun, lambda for the others.
          eta: dbim: from 0, deterministic, to 1, a Markov bridge.
          boot: dbim and multistep: whether the first step adds noise.
          plan: all sampler options at once, such as `config.sample`, instead of the above.
        """
        more: dict[str, Any] = {"grid": grid, "rho": rho, "churn": churn, "eta": eta, "boot": boot}
        plan = Plan.recommended(plan, sampler=sampler, steps=steps, **more)
        return np.asarray(self._sample(z, x_T, plan, rng, keep_path=False).x_0)

    def trajectory(
        self, z: np.ndarray, x_T: np.ndarray | None = None, rng: Rng = None, **plan: Any
    ) -> Sample:
        """Decodes as `decode` does and keeps the states of the sampler.

        Returns:
          x_0: [B, H, W, C]; path: [S, B, H, W, C], x_T and the state after every step, clipped to
          [-1, 1]; times: [S]; nfe, the number of network evaluations.
        """
        return self._sample(z, x_T, Plan.recommended(**plan), rng, keep_path=True)

    def reconstruct(self, images: np.ndarray, **kwargs: Any) -> np.ndarray:
        """Encodes and decodes images: [B, H, W, C]; `kwargs` are those of `decode`."""
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
          first: [B, H, W, C], at one end of each path.
          second: [B, H, W, C], at the other end.
          points: number of images on each path, 2 or more.
          method: "linear", or "spherical", along the arc between the codes.
          rng: as for `decode`; the images of a path share their noise and a sampled x_T.
          infer_endpoint: for Gaussian x_T, as DiffAE interpolates: both endpoints are inferred,
            and the path uses the arc between them.
          **plan: sampler options, as for `decode`.

        Raises:
          DataError: for `infer_endpoint` if x_T is decoded from z, and as for `decode`.
        """
        paths = edits.latent_paths(self, first, second, points, method, infer_endpoint)
        return edits.decode_rows(self, *paths, rng, **plan)

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
          fix_endpoint: hold x_T at that of the unedited code (a Gaussian x_T is inferred, as
            DiffAE edits), instead of computing it from the edited one (or sampling it).
          rng: as for `decode`; the edits of an image share their noise and a sampled x_T.
          **plan: sampler options, as for `decode`.
        """
        z = self.encode(images)
        x_T = edits.endpoint_before_edit(self, images, z) if fix_endpoint else None
        return edits.decode_rows(self, editing.moved(z, direction, scales), x_T, rng, **plan)

    @functools.cached_property
    def prior(self) -> Prior:
        """The latent prior, p(z).

        Raises:
          CheckpointError: if the model has none, or one that was trained with other weights.
        """
        if self._load_prior is None:
            raise CheckpointError(checks.NO_PRIOR)
        return self._load_prior(self.fingerprint)

    def sample(
        self,
        num: int,
        rng: Rng,
        *,
        prior_sampler: str | None = None,
        prior_steps: int | None = None,
        prior_eta: float = 0.0,
        **plan: Any,
    ) -> np.ndarray:
        """Samples images with the latent prior: [num, H, W, C], float32 in [-1, 1].

        Args:
          num: number of images.
          rng: a seed, a key, or keys [num].
          prior_sampler: "ancestral" or "ddim". Default: config.prior.sampler.
          prior_steps: network evaluations per latent code. Default: config.prior.sample_steps.
          prior_eta: ddim: from 0, deterministic, to 1.
          **plan: sampler options, as for `decode`.

        Raises:
          CheckpointError: if the model has no latent prior.
        """
        z = self.sample_codes(num, rng, sampler=prior_sampler, steps=prior_steps, eta=prior_eta)
        return self.decode(z, rng=rng, **plan)

    def sample_codes(self, num: int, rng: Rng, **how: Any) -> np.ndarray:
        """Samples latent codes from the prior: [num, D]; `how`: sampler, steps, eta."""
        if rng is None or num < 1:
            raise DataError("To sample, give a number of images, 1 or more, and a seed or a key.")
        return self.prior.sample(num, make_key(rng, num), batch_size=self.batch_size, **how)

    def nfe(self, **plan: Any) -> int:
        """Returns the network evaluations per image of `decode` with these options."""
        return self._table(Plan.recommended(**plan)).nfe

    def _sample(
        self, z: np.ndarray, x_T: np.ndarray | None, plan: Plan, rng: Rng, *, keep_path: bool
    ) -> Sample:
        z = checks.check_codes(z, self.latent_dim)
        table, key = self._table(plan), make_key(rng, len(z))
        if plan.needs_noise and rng is None:
            raise DataError("churn, eta and boot draw noise: pass rng, a seed or a key.")
        if x_T is None:
            x_T = self.draw_x_T(len(z), rng) if self.gaussian_endpoint else self.endpoint(z)
        x_T = checks.check_states(x_T, "x_T", len(z), self.config.data)
        return self.programs.decode(self.variables, x_T, z, key, table, keep_path=keep_path)

    def _table(self, plan: Plan) -> Table:
        try:
            return plan.table(self.bridge)
        except (ConfigError, ValueError) as error:
            raise DataError(str(error)) from error
