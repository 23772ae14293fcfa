"""Networks with weights in Python, on arrays of any length: encode, endpoint, denoise, decode."""

import functools

import jax
import numpy as np

from dbae_jax.api import checks, gaussian_endpoint
from dbae_jax.api.checks import Rng, make_key
from dbae_jax.api.images import Images, as_batch
from dbae_jax.api.programs import Programs
from dbae_jax.configuration import build
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.distillation import default_sampler
from dbae_jax.data.images import to_float
from dbae_jax.errors import DataError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.runtime import fingerprint, platforms
from dbae_jax.runtime.batching import ProgressFn
from dbae_jax.sampling.integrate import Sample
from dbae_jax.sampling.inversion import INVERSION_STEPS
from dbae_jax.sampling.plan import Plan


class TrainedAutoencoder:
    """The part of `DBAE` that needs the networks, their weights and the bridge alone.

    Images are [B, H, W, C], uint8 or float in [-1, 1]; PIL images, paths of image files and lists
    of these work too, and a single image is a batch of one. Results are float32 numpy arrays.
    """

    def __init__(
        self,
        config: Config,
        variables: dict,
        *,
        networks: Networks | None = None,
        batch_size: int | None = None,
        whole_batches: bool = False,
        mesh: jax.sharding.Mesh | None = None,
    ):
        """Combines a config with weights.

        Args:
          config: config of the model.
          variables: {"params", "stats"}, its weights and running statistics.
          networks: networks of the config, if they are built already.
          batch_size: most images per batch, rounded up for the mesh. Default:
            config.eval.batch_size.
          whole_batches: whether inputs smaller than a batch are padded to `batch_size`, and
            not to a power of four. The networks then compile for one size, which saves time where
            compiling takes longer than the added images. Trajectories and the latent prior keep the
            powers of four.
          mesh: devices that share every batch (`sharding.make_mesh`) and hold the variables. With
            several processes, each process makes the same calls and gets the whole result.
        """
        self.config, self.variables = config, variables
        self.bridge = build.make_bridge(config.bridge)
        if networks is None:
            device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
            networks = build.make_networks(config, platforms.platform_of(device))
        self.networks = networks
        self.programs = Programs(
            networks, batch_size or config.eval.batch_size, mesh, whole_batches=whole_batches
        )

    @property
    def latent_dim(self) -> int:
        """D, the width of z."""
        return self.config.model.latent_dim

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        data = self.config.data
        return data.image_size, data.image_size, data.channels

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights; see `fingerprint.of`."""
        return fingerprint.of(self.variables)

    @functools.cached_property
    def encoder_fingerprint(self) -> str:
        """Hash of the encoder's weights: models with the same one have the same latent codes."""
        return fingerprint.of_encoder(self.variables)

    @property
    def batch_size(self) -> int:
        """Most images per batch."""
        return self.programs.batch_size

    @property
    def whole_batches(self) -> bool:
        """Whether smaller inputs are padded to `batch_size`."""
        return self.programs.whole_batches

    @property
    def gaussian_endpoint(self) -> bool:
        """Whether x_T is Gaussian noise (DiffAE); otherwise it is decoded from z (DBAE)."""
        return self.config.bridge.endpoint == "free"

    def preprocess(self, images: Images) -> np.ndarray:
        """Returns images as the encoder gets them: [B, H, W, C], float32 in [-1, 1].

        PIL images and files are cropped and resized like the data set of the model.

        Args:
          images: arrays, PIL images or paths, see the class.

        Raises:
          DataError: if the images do not fit the model.
        """
        return to_float(as_batch(images, self.config.data))

    def encode(
        self, images: Images, rng: Rng = None, *, progress: ProgressFn | None = None
    ) -> np.ndarray:
        """Encodes images to latent codes z: [B, D], float32.

        Args:
          images: arrays, PIL images or paths, see the class.
          rng: for a stochastic encoder: z is a sample of q(z | x_0). None: z is its mean.
          progress: as for `decode`.

        Raises:
          DataError: if the images do not fit the model, or for `rng` if the encoder is
            deterministic.
        """
        batch = as_batch(images, self.config.data)
        if rng is not None and not self.config.model.stochastic:
            raise DataError("This model's encoder is deterministic: call encode without rng.")
        key = None if rng is None else make_key(rng, len(batch))
        return self.programs.encode(self.variables, batch, key, progress)

    def posterior(self, images: Images) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns mean and standard deviation (deterministic: None) of q(z | x_0).

        Args:
          images: arrays, PIL images or paths, see the class.

        Returns:
          Arrays [B, D], float32.

        Raises:
          DataError: if the images do not fit the model.
        """
        batch = as_batch(images, self.config.data)
        return self.programs.posterior(self.variables, batch)

    def endpoint(self, z: np.ndarray) -> np.ndarray:
        """Decodes latent codes to endpoints x_T of the diffusion: [B, H, W, C], float32, unbounded.

        Args:
          z: latent codes [B, D].

        Raises:
          DataError: if the codes do not fit the model, or x_T is Gaussian; then `draw_x_T` samples
            it and `invert` infers it.
        """
        if self.gaussian_endpoint:
            raise DataError(checks.GAUSSIAN)
        return self.programs.endpoint(self.variables, checks.check_codes(z, self.latent_dim))

    def draw_x_T(self, num: int, rng: Rng = 0) -> np.ndarray:
        """Samples Gaussian endpoints: [num, H, W, C], float32, standard normal (VE: times T).

        Args:
          num: number of endpoints.
          rng: a seed, a key, or keys [num]; `decode` samples the same x_T from it.

        Raises:
          DataError: if x_T is decoded from z.
        """
        return gaussian_endpoint.draw_x_T(self, num, rng)

    def invert(
        self,
        images: Images,
        z: np.ndarray | None = None,
        *,
        steps: int = INVERSION_STEPS,
        grid: str = "lambda",
        progress: ProgressFn | None = None,
    ) -> np.ndarray:
        """Infers Gaussian endpoints by DDIM inversion: x_T, [B, H, W, C], float32.

        Decoding them with the same z and grid gives the images back, the better the more steps.

        Args:
          images: [B, H, W, C].
          z: [B, D]; by default the latent codes of the images.
          steps: network evaluations, 2 or more.
          grid: one of `grids.GRIDS`.
          progress: as for `decode`.

        Raises:
          DataError: if x_T is decoded from z, if images and codes do not fit the model, or for
            an unknown grid or too few steps.
        """
        return gaussian_endpoint.invert(self, images, z, steps=steps, grid=grid, progress=progress)

    def denoise(
        self, x_t: np.ndarray, t: float | np.ndarray, x_T: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        """Returns the denoiser's estimate of x_0: [B, H, W, C], float32, unclipped.

        Args:
          x_t: [B, H, W, C], a state of the bridge at time t.
          t: scalar or [B], in [t_min, T] of `self.bridge.schedule`.
          x_T: [B, H, W, C].
          z: [B, D].

        Raises:
          DataError: if an array does not fit the model, or a time lies outside [t_min, T].
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
        *,
        rng: Rng = 0,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | np.ndarray | None = None,
        rho: float = 7.0,
        churn: float = 0.0,
        eta: float = 0.0,
        boot: bool = False,
        plan: Plan | str | None = None,
        progress: ProgressFn | None = None,
    ) -> np.ndarray:
        """Decodes latent codes z: [B, D] to images: [B, H, W, C], float32 in [-1, 1].

        Args:
          z: [B, D].
          x_T: [B, H, W, C], endpoints to start from. Default: `self.endpoint(z)`; where x_T is
            Gaussian, a sample drawn with `rng`.
          rng: a seed, a key, or keys [B], for churn, eta, boot, consistency and a Gaussian x_T.
            The noise of an image depends on its own key, or on its place; not on the other images.
          sampler: "euler", "dbim", "multistep2", "multistep3" or "consistency" (`steps` network
            evaluations), or "heun" (2 steps - 1). Default: dbim, or heun with churn
            (docs/results/samplers.md); consistency for a distilled model.
          steps: intervals of the time grid. Default: 5, for euler and heun 50, for consistency 2.
          grid: "karras", "uniform", "power", "lambda", "near_end" (see `sampling.grids`), or times
            falling to 0, for which `steps` has no effect. Default: karras for euler and heun,
            near_end for consistency, lambda for the others.
          rho: exponent of the karras and power grids.
          churn: euler and heun: fraction in [0, 1) of every interval that is integrated with the
            reverse SDE; adds `steps` evaluations. 0: the ODE, deterministic.
          eta: dbim: from 0, deterministic, to 1, a Markov bridge.
          boot: dbim and multistep: whether the first step adds noise.
          plan: all sampler options at once, such as `config.sample`, instead of the above; or
            "accurate" or "sharp", see `Plan.named`.
          progress: called after every batch with the numbers of finished and of all images.

        Raises:
          DataError: if an array does not fit the model, or options do not go together.
        """
        plan = self._plan(plan, sampler, steps, grid, rho, churn, eta, boot)
        return np.asarray(self._sample(z, x_T, plan, rng, progress=progress).x_0)

    def trajectory(
        self,
        z: np.ndarray,
        x_T: np.ndarray | None = None,
        *,
        rng: Rng = 0,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | np.ndarray | None = None,
        rho: float = 7.0,
        churn: float = 0.0,
        eta: float = 0.0,
        boot: bool = False,
        plan: Plan | str | None = None,
        clip_path: bool = True,
    ) -> Sample:
        """Decodes as `decode` does and keeps the states of the sampler.

        The options that are not listed are those of `decode`.

        Args:
          z: [B, D].
          x_T: [B, H, W, C]; see `decode`.
          clip_path: whether the states are clipped to [-1, 1], as images are.

        Returns:
          x_0: [B, H, W, C]; path: [S, B, H, W, C], x_T and the state after every step; times: [S];
          nfe, the number of network evaluations.

        Raises:
          DataError: as for `decode`.
        """
        plan = self._plan(plan, sampler, steps, grid, rho, churn, eta, boot)
        return self._sample(z, x_T, plan, rng, keep_path=True, clip_path=clip_path)

    def reconstruct(
        self,
        images: Images,
        *,
        rng: Rng = 0,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | np.ndarray | None = None,
        rho: float = 7.0,
        churn: float = 0.0,
        eta: float = 0.0,
        boot: bool = False,
        plan: Plan | str | None = None,
        progress: ProgressFn | None = None,
    ) -> np.ndarray:
        """Encodes images and decodes them: [B, H, W, C], float32 in [-1, 1].

        The options are those of `decode`.

        Args:
          images: arrays, PIL images or paths, see the class.

        Raises:
          DataError: as for `encode` and `decode`.
        """
        plan = self._plan(plan, sampler, steps, grid, rho, churn, eta, boot)
        return self.decode(self.encode(images), rng=rng, plan=plan, progress=progress)

    def nfe(
        self,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | np.ndarray | None = None,
        rho: float = 7.0,
        churn: float = 0.0,
        eta: float = 0.0,
        boot: bool = False,
        plan: Plan | str | None = None,
    ) -> int:
        """Returns the network evaluations per image of `decode` with these options.

        Raises:
          DataError: if options do not go together.
        """
        plan = self._plan(plan, sampler, steps, grid, rho, churn, eta, boot)
        return checks.table_of(plan, self.bridge).nfe

    def _plan(
        self,
        plan: Plan | str | None,
        sampler: str | None,
        steps: int | None,
        grid: str | np.ndarray | None = None,
        rho: float = 7.0,
        churn: float = 0.0,
        eta: float = 0.0,
        boot: bool = False,
    ) -> Plan:
        """Returns `Plan.recommended`, with the sampler that the model was trained for."""
        return Plan.recommended(
            *(plan, default_sampler(self.config)),
            sampler=sampler,
            steps=steps,
            grid=grid,
            rho=rho,
            churn=churn,
            eta=eta,
            boot=boot,
        )

    def _sample(
        self,
        z: np.ndarray,
        x_T: np.ndarray | None,
        plan: Plan,
        rng: Rng,
        *,
        keep_path: bool = False,
        clip_path: bool = True,
        progress: ProgressFn | None = None,
    ) -> Sample:
        z = checks.check_codes(z, self.latent_dim)
        table, key = checks.table_of(plan, self.bridge), make_key(rng, len(z))
        if x_T is None:
            x_T = self.draw_x_T(len(z), rng) if self.gaussian_endpoint else self.endpoint(z)
        x_T = checks.check_states(x_T, "x_T", len(z), self.config.data)
        kept = {"keep_path": keep_path, "clip_path": clip_path}
        return self.programs.decode(self.variables, x_T, z, key, table, progress=progress, **kept)
