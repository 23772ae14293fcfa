"""A trained DBAE (or DiffAE) in Python: from a workdir to codes, images, samples and edits."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import numpy as np

from dbae_jax.api import checks, edits, loading, released_weights, summaries
from dbae_jax.api import export as exports
from dbae_jax.api.apply import Apply
from dbae_jax.api.checks import Rng, make_key
from dbae_jax.api.images import Images
from dbae_jax.api.trained_autoencoder import TrainedAutoencoder
from dbae_jax.configuration import build, paths
from dbae_jax.configuration.config import Config
from dbae_jax.configuration.distillation import default_sampler
from dbae_jax.errors import CheckpointError, DataError, MissingPriorError
from dbae_jax.models.autoencoder import Networks
from dbae_jax.prior.prior import Prior
from dbae_jax.runtime.batching import ProgressFn
from dbae_jax.sampling.plan import Plan


class DBAE(TrainedAutoencoder):
    """A trained diffusion bridge autoencoder: networks, weights and the bridge.

    Images are [B, H, W, C], uint8 or float in [-1, 1]; PIL images, paths of image files and lists
    of these work too, and a single image is a batch of one. Results are float32 numpy arrays,
    images in [-1, 1] (see `dbae_jax.to_uint8`). Inputs of any length run in padded batches of at
    most `batch_size`: up to rounding, a result does not depend on the other images. Wrong input
    raises `DataError`. `apply` has the same model as pure functions of jax arrays.

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
        whole_batches: bool = False,
        mesh: jax.sharding.Mesh | None = None,
        step: int | None = None,
        source: str = "weights in memory",
        load_prior: Callable[[str, str], Prior] | None = None,
        load_directions: Callable[[str, str], dict[str, np.ndarray]] | None = None,
    ):
        """Combines a config with weights; `DBAE.load` reads both from a workdir.

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
          step: number of training steps that the weights have taken.
          source: where the weights come from, for `repr`.
          load_prior: fingerprints of all weights and of the encoder -> latent prior; called at the
            first use.
          load_directions: the same -> directions of attributes; called at the first use.
        """
        how: dict[str, Any] = {"whole_batches": whole_batches, "mesh": mesh}
        super().__init__(config, variables, networks=networks, batch_size=batch_size, **how)
        self.step, self._source = step, source if step is None else f"step {step}, {source}"
        self._load_prior, self._load_directions = load_prior, load_directions

    @classmethod
    def load(
        cls,
        directory: str | pathlib.Path,
        weights: str = "ema",
        *,
        step: int | None = None,
        batch_size: int | None = None,
        whole_batches: bool = False,
        mesh: jax.sharding.Mesh | None = None,
    ) -> Self:
        """Loads a model from a workdir, or from a file of released weights.

        Args:
          directory: the workdir of a training run or of a conversion, the file, or the name of
            weights that come with the package, such as "digits".
          weights: "ema", the EMA weights, or "raw", the weights of the last training step.
          step: step of the checkpoint. Default: the newest checkpoint that can be read.
          batch_size: most images per batch. Default: config.eval.batch_size of the run.
          whole_batches: whether smaller inputs are padded to `batch_size`, see the constructor.
          mesh: devices that share the work, such as `sharding.make_mesh()`. Default: the first one.

        Raises:
          CheckpointError: if there is no such workdir, or no checkpoint that can be read.
        """
        found = loading.arguments(directory, weights, step=step, mesh=mesh)
        return cls(**found, batch_size=batch_size, whole_batches=whole_batches, mesh=mesh)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a pickle or a copy holds: the model, its prior and directions if it has any.

        It holds no devices: an unpickled model runs on the first device.
        """
        prior = _or_none(lambda: self.prior)
        return {
            "config": self.config,
            "variables": jax.device_get(self.variables),
            "batch_size": self.batch_size,
            "whole_batches": self.whole_batches,
            "step": self.step,
            "source": self._source,
            "prior": prior and (prior.config, jax.device_get(prior.variables), prior.step),
            "directions": _or_none(lambda: self.directions),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        config, variables = state["config"], jax.device_put(state["variables"], jax.devices()[0])
        size = {name: state[name] for name in ("batch_size", "whole_batches")}
        super().__init__(config, variables, **size)
        self.step, self._source = state["step"], state["source"]
        self._load_prior = self._load_directions = None
        if state["prior"] is not None:
            section, of_prior, step = state["prior"]
            of_prior = jax.device_put(of_prior, jax.devices()[0])
            whole = dataclasses.replace(config, prior=section)
            network = build.make_latent_network(whole)
            self.prior = Prior(whole, network, of_prior, step=step)
        if state["directions"] is not None:
            self.directions = state["directions"]

    def __repr__(self) -> str:
        return f"DBAE({summaries.describe(self.config, self.variables)}, {self._source})"

    def summary(self) -> str:
        """Returns the model in a few lines: its networks with their sizes, bridge and prior."""
        latent_prior = _or_none(lambda: self.prior)
        return f"{self!r}\n{summaries.table(self.config, self.variables, latent_prior)}"

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the model into one file, which `DBAE.load` reads.

        The file holds the weights and directions of attributes (kernels and directions in float16),
        the config, and the latent prior if the model has any.

        Args:
          path: a new .safetensors file.

        Raises:
          CheckpointError: if the file exists or has another suffix, if a value is too large for
            float16, or if the latent prior belongs to other weights.
        """
        released_weights.save(self, paths.read(path, "path"))

    def with_variables(self, variables: dict) -> Self:
        """Returns the same model with other weights, without a latent prior and directions.

        Args:
          variables: {"params", "stats"}, with the shapes of `self.variables`.
        """
        other = object.__new__(type(self))
        of_weights = ("apply", "directions", "encoder_fingerprint", "fingerprint", "prior")
        same = {k: v for k, v in self.__dict__.items() if k not in of_weights}
        unknown = {"step": None, "_source": "weights in memory"}
        unknown |= {"_load_prior": None, "_load_directions": None}
        other.__dict__ = same | unknown | {"variables": variables}
        return other

    @functools.cached_property
    def apply(self) -> Apply:
        """The model as pure functions (variables, arrays, key) -> arrays, for jit, grad and vmap.

        This is a gradient with respect to z:

            grad = jax.grad(lambda z: loss(model.apply.decode(model.variables, z)))
        """
        networks, bridge = self.networks, self.bridge
        sampler = default_sampler(self.config)
        return Apply(networks, bridge, self.image_shape, lambda: self.prior, sampler)

    @functools.cached_property
    def prior(self) -> Prior:
        """The latent prior, p(z).

        Raises:
          CheckpointError: if the model has none, or one that was trained with other weights.
        """
        if self._load_prior is None:
            raise MissingPriorError(checks.NO_PRIOR)
        return self._load_prior(self.fingerprint, self.encoder_fingerprint)

    @functools.cached_property
    def directions(self) -> dict[str, np.ndarray]:
        """The directions of attributes: name -> change of z at scale 1, [D] float32.

        Raises:
          DataError: if the workdir has no directions of these weights.
        """
        if self._load_directions is None:
            raise DataError(checks.NO_DIRECTIONS)
        return self._load_directions(self.fingerprint, self.encoder_fingerprint)

    def interpolate(
        self,
        first: Images,
        second: Images,
        points: int = 11,
        method: str = "linear",
        *,
        infer_endpoint: bool = False,
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
        """Decodes latent codes between those of two images: [B, points, H, W, C], in [-1, 1].

        The options that are not listed are those of `decode`.

        Args:
          first: [B, H, W, C], at one end of each path.
          second: [B, H, W, C], at the other end.
          points: number of images on each path, 2 or more.
          method: "linear", or "spherical", along the arc between the codes.
          infer_endpoint: for Gaussian x_T, as DiffAE interpolates: both endpoints are inferred,
            and the path uses the arc between them.
          rng: as for `decode`; the images of a path share their noise and a sampled x_T.

        Raises:
          DataError: for wrong options or shapes; for `infer_endpoint` if x_T is decoded from z.
        """
        plan = self._plan(plan, sampler, steps, grid, rho, churn, eta, boot)
        paths = edits.latent_paths(self, first, second, points, method, infer_endpoint)
        return edits.decode_rows(self, *paths, rng, plan=plan, progress=progress)

    def edit(
        self,
        images: Images,
        direction: np.ndarray | None = None,
        scale: float | Sequence[float] = 0.3,
        *,
        attribute: str | None = None,
        fix_endpoint: bool = False,
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
        """Decodes latent codes of images moved along a direction: [B, H, W, C] or [B, S, H, W, C].

        The options that are not listed are those of `decode`.

        Args:
          images: [B, H, W, C].
          direction: [D], the step of a code at scale 1; see `dbae_jax.editing.directions`.
          scale: a number, or S numbers; 0 gives the reconstruction.
          attribute: name of a direction in `self.directions`, instead of `direction`.
          fix_endpoint: hold x_T at that of the unedited code (a Gaussian x_T is inferred, as
            DiffAE edits), instead of computing it from the edited one (or sampling it).
          rng: as for `decode`; the edits of an image share their noise and a sampled x_T.

        Raises:
          DataError: for wrong options, images or direction, or if there is no such attribute.
        """
        plan = self._plan(plan, sampler, steps, grid, rho, churn, eta, boot)
        step = edits.direction_of(lambda: self.directions, direction, attribute)
        paths = edits.moved_codes(self, images, step, scale, fix_endpoint=fix_endpoint)
        edited = edits.decode_rows(self, *paths, rng, plan=plan, progress=progress)
        return edited[:, 0] if np.ndim(scale) == 0 else edited

    def sample(
        self,
        num: int,
        rng: Rng = 0,
        *,
        prior_sampler: str | None = None,
        prior_steps: int | None = None,
        prior_eta: float = 0.0,
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
        """Samples images with the latent prior: [num, H, W, C], float32 in [-1, 1].

        The options that are not listed are those of `decode`.

        Args:
          num: number of images.
          rng: a seed, a key, or keys [num].
          prior_sampler: "ancestral" or "ddim". Default: config.prior.sampler.
          prior_steps: network evaluations per latent code. Default: config.prior.sample_steps.
          prior_eta: ddim: from 0, deterministic, to 1.

        Raises:
          CheckpointError: if the model has no latent prior.
          DataError: if options do not go together.
        """
        plan = self._plan(plan, sampler, steps, grid, rho, churn, eta, boot)
        z = self.sample_codes(num, rng, sampler=prior_sampler, steps=prior_steps, eta=prior_eta)
        return self.decode(z, rng=rng, plan=plan, progress=progress)

    def sample_codes(
        self,
        num: int,
        rng: Rng = 0,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        eta: float = 0.0,
        progress: ProgressFn | None = None,
    ) -> np.ndarray:
        """Samples latent codes from the prior: [num, D], float32.

        `sampler`, `steps` and `eta` are `prior_sampler`, `prior_steps` and `prior_eta` of `sample`.
        The other arguments and the errors are those of `sample`.
        """
        num = checks.check_count(num, "num")
        return self.prior.sample(
            num,
            make_key(rng, num),
            batch_size=self.batch_size,
            sampler=sampler,
            steps=steps,
            eta=eta,
            progress=progress,
        )

    def export(
        self,
        function: str,
        path: str | pathlib.Path,
        *,
        batch_size: int | None = None,
        platforms: Sequence[str] = exports.PLATFORMS,
        sampler: str | None = None,
        steps: int | None = None,
        plan: Plan | str | None = None,
    ) -> None:
        """Writes "encode", "endpoint" or "decode" as StableHLO, with the weights inside.

        The file runs in any process that has jax and flatbuffers, without this package:
        `jax.export.deserialize(bytearray(path.read_bytes())).call(z)`. Arrays are float32, images
        in [-1, 1]. "encode" gives the mean of q(z | x_0); "decode" takes z, and x_T too where it
        is Gaussian.

        Args:
          function: name of the function.
          path: the file.
          batch_size: number of examples of a call. Default: any number.
          platforms: platforms that the file runs on.
          sampler: sampler of "decode", as for `decode`, like the next two.
          steps: see `decode`.
          plan: see `decode`.

        Raises:
          DataError: for another function, noise in "decode", a Gaussian x_T, or no flatbuffers.
        """
        plan = self._plan(plan, sampler, steps)
        exports.export(
            *(self, function, paths.read(path, "path")),
            batch_size=batch_size,
            platforms=platforms,
            plan=plan,
        )


def _or_none(read: Callable[[], Any]) -> Any:
    """Returns what a function reads, or None if the model has no such part."""
    try:
        return read()
    except (CheckpointError, DataError):
        return None
