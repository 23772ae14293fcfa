"""The sections of a config: frozen dataclasses that check their own keys.

configs/base.py explains every key. `check` raises ConfigError for a value that is not allowed.
"""

import dataclasses

from dbae_jax.errors import ConfigError

GROUP_NORM_GROUPS = 32
FID_PRESETS = ("diffae", "infodiff10k-clean", "adm")  # the keys of metrics.generation.PRESETS


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set, its folder, and how its images are read."""

    name: str
    data_dir: str
    lmdb: str
    train_split: str
    test_split: str
    crop: str
    image_size: int
    channels: int
    flip: bool
    num_threads: int
    num_workers: int
    prefetch_batches: int

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        size = self.image_size
        require(
            size >= 16 and size & (size - 1) == 0,
            f"{path}.image_size={size}",
            "a power of two, 16 or more",
        )
        require(self.channels >= 1, f"{path}.channels={self.channels}", "at least 1")
        one_of(self.crop, f"{path}.crop", ("center", "d2c", "zoom", "short"))
        for key in ("num_threads", "prefetch_batches"):
            require(getattr(self, key) >= 1, f"{path}.{key}={getattr(self, key)}", "at least 1")
        require(self.num_workers >= 0, f"{path}.num_workers={self.num_workers}", "0 or more")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The size of the encoder; see `models.encoder.Encoder`."""

    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    pool: str

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        _check_tower(self, path)
        one_of(self.pool, f"{path}.pool", ("mean", "flatten"))


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The size of the endpoint decoder; see `models.decoder.Decoder`."""

    base_channels: int

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        width = self.base_channels
        require(
            width >= 4 and width % 4 == 0,
            f"{path}.base_channels={width}",
            "a positive multiple of 4",
        )


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """The size of the U-Net; see `models.unet.UNet`."""

    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    head_channels: int
    dropout: float

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        _check_tower(self, path)
        require(self.head_channels >= 1, f"{path}.head_channels={self.head_channels}", "at least 1")
        require(0 <= self.dropout < 1, f"{path}.dropout={self.dropout}", "in [0, 1)")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The three networks, the latent dimension and the number formats."""

    latent_dim: int
    stochastic: bool
    dtype: str
    param_dtype: str
    matmul_precision: str
    attention: str
    remat: str
    encoder: EncoderConfig
    decoder: DecoderConfig
    unet: UNetConfig

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        require(self.latent_dim >= 1, f"{path}.latent_dim={self.latent_dim}", "at least 1")
        one_of(self.dtype, f"{path}.dtype", ("float32", "bfloat16"))
        # bfloat16 would round away most updates of the weights and of the EMA.
        one_of(self.param_dtype, f"{path}.param_dtype", ("float32",))
        one_of(self.matmul_precision, f"{path}.matmul_precision", ("default", "high", "highest"))
        one_of(self.attention, f"{path}.attention", ("auto", "xla", "cudnn"))
        if self.attention == "cudnn":
            used, width = f"{path}.attention='cudnn'", self.unet.head_channels
            goes_with = f"used with {path}.dtype='bfloat16', not {self.dtype!r}"
            require(self.dtype == "bfloat16", used, goes_with)
            goes_with = f"used with {path}.unet.head_channels of at most 128, not {width}"
            require(width <= 128, used, goes_with)
        one_of(self.remat, f"{path}.remat", ("none", "blocks"))


@dataclasses.dataclass(frozen=True)
class BridgeConfig:
    """The reference diffusion, and the moments that the preconditioning assumes."""

    schedule: str
    t_min: float | None
    t_max: float | None
    beta_d: float
    beta_min: float
    data_std: float
    endpoint_std: float
    covariance: float
    endpoint: str

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        one_of(self.schedule, f"{path}.schedule", ("vp", "ve", "vp_simple", "ve_simple"))
        for key in ("t_min", "t_max"):
            value = getattr(self, key)
            require(value is None or value > 0, f"{path}.{key}={value}", "positive, or None")
        if self.t_min is not None and self.t_max is not None:
            require(
                self.t_min < self.t_max, f"{path}.t_min={self.t_min}", f"below t_max={self.t_max}"
            )
        require(self.beta_d >= 0, f"{path}.beta_d={self.beta_d}", "0 or more")
        require(self.beta_min > 0, f"{path}.beta_min={self.beta_min}", "positive")
        require(self.data_std > 0, f"{path}.data_std={self.data_std}", "positive")
        require(self.endpoint_std >= 0, f"{path}.endpoint_std={self.endpoint_std}", "0 or more")
        bound = self.data_std * self.endpoint_std
        require(
            abs(self.covariance) <= bound,
            f"{path}.covariance={self.covariance}",
            f"at most data_std * endpoint_std = {bound:g} in magnitude",
        )
        one_of(self.endpoint, f"{path}.endpoint", ("decoded", "free"))


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its learning-rate schedule and the EMA of the weights."""

    optimizer: str
    learning_rate: float
    schedule: str
    warmup_steps: int
    grad_clip_norm: float
    ema_decay: float

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        one_of(self.optimizer, f"{path}.optimizer", ("radam", "adam"))
        require(self.learning_rate > 0, f"{path}.learning_rate={self.learning_rate}", "positive")
        one_of(self.schedule, f"{path}.schedule", ("constant", "cosine"))
        require(self.warmup_steps >= 0, f"{path}.warmup_steps={self.warmup_steps}", "0 or more")
        require(
            self.grad_clip_norm >= 0,
            f"{path}.grad_clip_norm={self.grad_clip_norm}",
            "positive, or 0 for no clipping",
        )
        require(0 <= self.ema_decay < 1, f"{path}.ema_decay={self.ema_decay}", "in [0, 1)")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The batch, the length of the training, and the intervals of its log."""

    batch_size: int
    accumulation_steps: int
    tc_weight: float
    num_steps: int
    log_every_steps: int
    diagnose_every_steps: int
    picture_every_steps: int
    evaluate_every_steps: int

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        for key in ("batch_size", "accumulation_steps", "num_steps", "log_every_steps"):
            require(getattr(self, key) >= 1, f"{path}.{key}={getattr(self, key)}", "at least 1")
        require(
            self.batch_size % self.accumulation_steps == 0,
            f"{path}.accumulation_steps={self.accumulation_steps}",
            f"a divisor of batch_size={self.batch_size}",
        )
        require(self.tc_weight >= 0, f"{path}.tc_weight={self.tc_weight}", "positive, or 0: off")
        for key in ("diagnose_every_steps", "picture_every_steps", "evaluate_every_steps"):
            value = getattr(self, key)
            require(value >= 0, f"{path}.{key}={value}", "positive, or 0 for never")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written, and which ones are kept."""

    every_steps: int
    keep_last: int
    keep_every_steps: int

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        require(self.every_steps >= 1, f"{path}.every_steps={self.every_steps}", "at least 1")
        require(self.keep_last >= 1, f"{path}.keep_last={self.keep_last}", "at least 1")
        value = self.keep_every_steps
        require(value >= 0, f"{path}.keep_every_steps={value}", "positive, or 0 for none")


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """The latent prior: its network, diffusion, training and sampler."""

    num_layers: int
    width: int
    timesteps: int
    beta: float
    sample_codes: bool
    optimizer: str
    learning_rate: float
    ema_decay: float
    batch_size: int
    num_steps: int
    log_every_steps: int
    evaluate_every_steps: int
    checkpoint_every_steps: int
    bound_points: int
    sampler: str
    sample_steps: int

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        require(self.num_layers >= 2, f"{path}.num_layers={self.num_layers}", "at least 2")
        require(self.timesteps >= 2, f"{path}.timesteps={self.timesteps}", "at least 2")
        require(0 < self.beta < 1, f"{path}.beta={self.beta}", "in (0, 1)")
        one_of(self.optimizer, f"{path}.optimizer", ("radam", "adam"))
        require(self.learning_rate > 0, f"{path}.learning_rate={self.learning_rate}", "positive")
        require(0 <= self.ema_decay < 1, f"{path}.ema_decay={self.ema_decay}", "in [0, 1)")
        for key in (
            *("width", "batch_size", "num_steps", "log_every_steps"),
            *("checkpoint_every_steps", "bound_points"),
        ):
            require(getattr(self, key) >= 1, f"{path}.{key}={getattr(self, key)}", "at least 1")
        value = self.evaluate_every_steps
        require(value >= 0, f"{path}.evaluate_every_steps={value}", "positive, or 0 for never")
        one_of(self.sampler, f"{path}.sampler", ("ancestral", "ddim"))
        require(
            1 <= self.sample_steps <= self.timesteps,
            f"{path}.sample_steps={self.sample_steps}",
            f"1 to timesteps={self.timesteps}",
        )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The evaluation: its suites, images, probes and published networks."""

    batch_size: int
    num_images: int
    num_train_images: int
    num_pictures: int
    information_points: int
    suite: str
    label: str
    seeds: int
    sample_codes: bool
    lpips: bool
    weights_dir: str
    download_weights: bool
    validation_split: str
    validation_share: float
    num_probe_images: int
    normalise_codes: bool
    probe_epochs: int
    probe_batch_size: int
    probe_learning_rate: float
    num_generated: int
    generated_sets: int
    inception: bool
    vgg16: bool
    fid_preset: str

    def check(self, path: str) -> None:
        """Checks the keys of the section; `path` is its full name."""
        for key in (
            *("batch_size", "num_pictures", "information_points"),
            *("seeds", "probe_epochs", "probe_batch_size", "num_generated", "generated_sets"),
        ):
            require(getattr(self, key) >= 1, f"{path}.{key}={getattr(self, key)}", "at least 1")
        for key in ("num_images", "num_train_images", "num_probe_images"):
            value = getattr(self, key)
            require(value >= 0 and value != 1, f"{path}.{key}={value}", "2 or more, or 0 for all")
        fraction, rate = self.validation_share, self.probe_learning_rate
        require(0 < fraction < 1, f"{path}.validation_share={fraction}", "in (0, 1)")
        require(rate > 0, f"{path}.probe_learning_rate={rate}", "positive")
        one_of(self.fid_preset, f"{path}.fid_preset", ("", *FID_PRESETS))
        require(
            self.inception or not self.fid_preset,
            f"{path}.fid_preset={self.fid_preset!r}",
            f"empty unless {path}.inception is True",
        )


def _check_tower(tower: EncoderConfig | UNetConfig, path: str) -> None:
    """Checks the widths and levels of the encoder or the U-Net."""
    base, mult = tower.base_channels, tower.channel_mult
    require(
        base >= 1 and base % GROUP_NORM_GROUPS == 0,
        f"{path}.base_channels={base}",
        f"a positive multiple of {GROUP_NORM_GROUPS}, the groups of the group norms",
    )
    require(
        len(mult) >= 1 and all(m >= 1 for m in mult),
        f"{path}.channel_mult={mult}",
        "one or more integers, each at least 1",
    )
    require(tower.num_res_blocks >= 1, f"{path}.num_res_blocks={tower.num_res_blocks}", "1 or more")


def one_of(value: str, path: str, allowed: tuple[str, ...]) -> None:
    """Raises ConfigError unless a value is allowed; `path` is the full name of its key."""
    require(value in allowed, f"{path}={value!r}", f"one of {', '.join(allowed)}")


def require(condition: bool, what: str, allowed: str) -> None:
    """Raises ConfigError unless the condition holds.

    Args:
      condition: whether the value is allowed.
      what: key and value for the error, such as "config.seed=-1".
      allowed: description of the allowed values, such as "0 or more".
    """
    if not condition:
        raise ConfigError(f"{what} is not allowed: it must be {allowed}.")
