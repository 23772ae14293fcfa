"""Typed config: frozen dataclasses per section, and the checks that guard the border.

`configs/*.py` hold `ml_collections.ConfigDict`s. They become a `Config` once, here; nothing
further in sees a `ConfigDict`. Every wrong key, type, range or combination fails with the key's
full name and what is allowed.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from dbae_jax.errors import ConfigError

GROUP_NORM_GROUPS = 32


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the images are: `name` of the data set, square `image_size`, `channels`, `flip`."""

    name: str
    image_size: int
    channels: int
    flip: bool

    def _check(self, path: str) -> None:
        size = self.image_size
        _require(
            size >= 16 and size & (size - 1) == 0,
            f"{path}.image_size={size}",
            "a power of two, 16 or more",
        )
        _require(self.channels >= 1, f"{path}.channels={self.channels}", "at least 1")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Widths of the encoder: see `models.encoder.Encoder`."""

    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    pool: str

    def _check(self, path: str) -> None:
        _check_tower(self, path)
        _one_of(self.pool, f"{path}.pool", ("mean", "flatten"))


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Width of the endpoint decoder: channels at 128x128, see `models.decoder.Decoder`."""

    base_channels: int

    def _check(self, path: str) -> None:
        width = self.base_channels
        _require(
            width >= 4 and width % 4 == 0,
            f"{path}.base_channels={width}",
            "a positive multiple of 4",
        )


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Widths of the U-Net: see `models.unet.UNet`."""

    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]
    head_channels: int
    dropout: float

    def _check(self, path: str) -> None:
        _check_tower(self, path)
        _require(
            self.head_channels >= 1, f"{path}.head_channels={self.head_channels}", "at least 1"
        )
        _require(0 <= self.dropout < 1, f"{path}.dropout={self.dropout}", "in [0, 1)")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The three networks, the latent width and the number formats they compute in."""

    latent_dim: int
    stochastic: bool
    dtype: str
    param_dtype: str
    matmul_precision: str
    encoder: EncoderConfig
    decoder: DecoderConfig
    unet: UNetConfig

    def _check(self, path: str) -> None:
        _require(self.latent_dim >= 1, f"{path}.latent_dim={self.latent_dim}", "at least 1")
        _one_of(self.dtype, f"{path}.dtype", ("float32", "bfloat16"))
        # Most updates of training and of the average are lost in bfloat16.
        _one_of(self.param_dtype, f"{path}.param_dtype", ("float32",))
        _one_of(self.matmul_precision, f"{path}.matmul_precision", ("default", "high", "highest"))


@dataclasses.dataclass(frozen=True)
class BridgeConfig:
    """The reference diffusion and the moments that the preconditioning assumes."""

    schedule: str
    t_min: float | None
    t_max: float | None
    beta_d: float
    beta_min: float
    data_std: float
    endpoint_std: float
    covariance: float

    def _check(self, path: str) -> None:
        _one_of(self.schedule, f"{path}.schedule", ("vp", "ve", "vp_simple", "ve_simple"))
        for key in ("t_min", "t_max"):
            value = getattr(self, key)
            _require(value is None or value > 0, f"{path}.{key}={value}", "positive, or None")
        if self.t_min is not None and self.t_max is not None:
            _require(
                self.t_min < self.t_max, f"{path}.t_min={self.t_min}", f"below t_max={self.t_max}"
            )
        _require(self.beta_d >= 0, f"{path}.beta_d={self.beta_d}", "0 or more")
        _require(self.beta_min > 0, f"{path}.beta_min={self.beta_min}", "positive")
        _require(self.data_std > 0, f"{path}.data_std={self.data_std}", "positive")
        _require(self.endpoint_std >= 0, f"{path}.endpoint_std={self.endpoint_std}", "0 or more")
        bound = self.data_std * self.endpoint_std
        _require(
            abs(self.covariance) <= bound,
            f"{path}.covariance={self.covariance}",
            f"at most data_std * endpoint_std = {bound:g} in magnitude",
        )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its learning-rate schedule and the average of the weights."""

    optimizer: str
    learning_rate: float
    schedule: str
    warmup_steps: int
    grad_clip_norm: float
    ema_decay: float

    def _check(self, path: str) -> None:
        _one_of(self.optimizer, f"{path}.optimizer", ("radam", "adam"))
        _require(self.learning_rate > 0, f"{path}.learning_rate={self.learning_rate}", "positive")
        _one_of(self.schedule, f"{path}.schedule", ("constant", "cosine"))
        _require(self.warmup_steps >= 0, f"{path}.warmup_steps={self.warmup_steps}", "0 or more")
        _require(
            self.grad_clip_norm >= 0,
            f"{path}.grad_clip_norm={self.grad_clip_norm}",
            "positive, or 0 for no clipping",
        )
        _require(0 <= self.ema_decay < 1, f"{path}.ema_decay={self.ema_decay}", "in [0, 1)")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of the run and how often it reports."""

    batch_size: int
    num_steps: int
    log_every_steps: int
    diagnose_every_steps: int
    picture_every_steps: int
    evaluate_every_steps: int

    def _check(self, path: str) -> None:
        for key in ("batch_size", "num_steps", "log_every_steps"):
            _require(getattr(self, key) >= 1, f"{path}.{key}={getattr(self, key)}", "at least 1")
        for key in ("diagnose_every_steps", "picture_every_steps", "evaluate_every_steps"):
            value = getattr(self, key)
            _require(value >= 0, f"{path}.{key}={value}", "positive, or 0 for never")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every_steps: int
    keep_last: int
    keep_every_steps: int

    def _check(self, path: str) -> None:
        _require(self.every_steps >= 1, f"{path}.every_steps={self.every_steps}", "at least 1")
        _require(self.keep_last >= 1, f"{path}.keep_last={self.keep_last}", "at least 1")
        value = self.keep_every_steps
        _require(value >= 0, f"{path}.keep_every_steps={value}", "positive, or 0 for none")


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """The sampler of evaluation and of pictures; see `samplers.Plan`."""

    sampler: str
    steps: int
    grid: str
    rho: float
    churn: float
    eta: float
    boot: bool

    def _check(self, path: str) -> None:
        names = ("euler", "heun", "dbim", "multistep2", "multistep3")
        _one_of(self.sampler, f"{path}.sampler", names)
        _one_of(self.grid, f"{path}.grid", ("karras", "uniform", "power", "lambda"))
        _require(self.steps >= 2, f"{path}.steps={self.steps}", "at least 2")
        _require(0 <= self.churn < 1, f"{path}.churn={self.churn}", "in [0, 1)")
        _require(0 <= self.eta <= 1, f"{path}.eta={self.eta}", "in [0, 1]")
        drifts = self.sampler in ("euler", "heun")
        _require(drifts or not self.churn, f"{path}.churn={self.churn}", "0 but for euler and heun")
        _require(not (drifts and self.boot), f"{path}.boot={self.boot}", "False for euler and heun")
        dbim = self.sampler == "dbim"
        _require(dbim or not self.eta, f"{path}.eta={self.eta}", "0 but for dbim")
        _require(self.rho > 0, f"{path}.rho={self.rho}", "positive")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How much is evaluated at a time, and how much is shown."""

    batch_size: int
    num_images: int
    num_pictures: int
    information_points: int

    def _check(self, path: str) -> None:
        for key in ("batch_size", "num_pictures", "information_points"):
            _require(getattr(self, key) >= 1, f"{path}.{key}={getattr(self, key)}", "at least 1")
        _require(
            self.num_images >= 0 and self.num_images != 1,
            f"{path}.num_images={self.num_images}",
            "2 or more, or 0 for all",
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole, checked: what a model is, how it is trained, sampled and evaluated."""

    seed: int
    data: DataConfig
    model: ModelConfig
    bridge: BridgeConfig
    optim: OptimConfig
    train: TrainConfig
    checkpoint: CheckpointConfig
    sample: SampleConfig
    eval: EvalConfig

    def _check(self, path: str) -> None:
        _require(0 <= self.seed < 2**31, f"{path}.seed={self.seed}", "in [0, 2**31)")
        size, model = self.data.image_size, f"{path}.model"
        width = self.model.decoder.base_channels
        _require(
            128 * width >= size and 128 * width % size == 0,
            f"{model}.decoder.base_channels={width}",
            f"such that {path}.data.image_size={size} divides 128 times it",
        )
        for name in ("encoder", "unet"):
            tower = getattr(self.model, name)
            levels = len(tower.channel_mult)
            _require(
                size >> (levels - 1) >= 1,
                f"{model}.{name}.channel_mult={tower.channel_mult}",
                f"at most {size.bit_length()} levels for {path}.data.image_size={size}",
            )
            resolutions = [size >> level for level in range(levels)]
            for at in tower.attention_resolutions:
                _require(
                    at in resolutions,
                    f"{model}.{name}.attention_resolutions={tower.attention_resolutions}",
                    f"among the tower's resolutions {resolutions}",
                )
        self._check_heads(f"{model}.unet", resolutions)

    def _check_heads(self, path: str, resolutions: list[int]) -> None:
        unet = self.model.unet
        attended = [
            unet.base_channels * mult
            for mult, at in zip(unet.channel_mult, resolutions, strict=True)
            if at in unet.attention_resolutions
        ]
        for channels in [*attended, unet.base_channels * unet.channel_mult[-1]]:
            _require(
                channels % unet.head_channels == 0,
                f"{path}.head_channels={unet.head_channels}",
                f"a divisor of the {channels} channels of an attention block",
            )


def from_config_dict(config: ConfigDict) -> Config:
    """Checks an `ml_collections` config and returns it typed.

    Raises:
      ConfigError: for an unknown or missing key, a wrong type, a value out of range or a
        combination that cannot work; the sentence names the key and what is allowed.
    """
    return from_dict(config.to_dict())


def from_dict(values: Mapping[str, Any]) -> Config:
    """As `from_config_dict`, for plain nested dictionaries such as `to_dict` gives."""
    return _build(Config, values, "config")


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested dictionaries of JSON types."""
    return _listed(dataclasses.asdict(config))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _build(cls: type, values: Any, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a section with keys, got {values!r}.")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"{path}.{key} is no key; {meant}allowed are {', '.join(hints)}.")
    missing = [key for key in hints if key not in values]
    if missing:
        raise ConfigError(f"{path}.{missing[0]} is missing; configs/base.py says what it means.")
    built = cls(**{k: _typed(values[k], hint, f"{path}.{k}") for k, hint in hints.items()})
    built._check(path)
    return built


def _typed(value: Any, hint: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = (option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)):
            item = typing.get_args(hint)[0]
            return tuple(_typed(v, item, f"{path}[{i}]") for i, v in enumerate(value))
        raise ConfigError(f"{path} must be a tuple of integers, got {value!r}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(
            f"{path} must be {hint.__name__}, got {value!r} ({type(value).__name__})."
        )
    return value


def _check_tower(tower: EncoderConfig | UNetConfig, path: str) -> None:
    base, mult = tower.base_channels, tower.channel_mult
    _require(
        base >= 1 and base % GROUP_NORM_GROUPS == 0,
        f"{path}.base_channels={base}",
        f"a positive multiple of {GROUP_NORM_GROUPS}, the groups of the group norms",
    )
    _require(
        len(mult) >= 1 and all(m >= 1 for m in mult),
        f"{path}.channel_mult={mult}",
        "one or more integers, each at least 1",
    )
    _require(
        tower.num_res_blocks >= 1, f"{path}.num_res_blocks={tower.num_res_blocks}", "1 or more"
    )


def _one_of(value: str, path: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{path}={value!r}", f"one of {', '.join(allowed)}")


def _require(condition: bool, what: str, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{what} is not allowed: it must be {allowed}.")
