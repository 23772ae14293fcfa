"""The sections of a config: frozen dataclasses, with the type and the allowed values of each key.

configs/base.py explains every key. A key's annotation holds its rule, such as `Count` (an integer
of at least 1) or `one_of("radam", "adam")`. Rules about several keys of a section are in its method
`check`. Rules about keys of several sections are in `config.Config.check`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
from PIL import ImageColor

from dbae_jax.errors import ConfigError

GROUP_NORM_GROUPS = 32
FID_PRESETS = ("diffae", "infodiff10k-clean", "adm")  # the keys of metrics.generation.PRESETS


class Rule(NamedTuple):
    """Values that a key may have. allowed: their description, such as "0 or more"."""

    holds: Callable[[Any], bool]
    allowed: str


def one_of(*names: str) -> Rule:
    """Returns the rule that a value is one of these names."""
    return Rule(lambda value: value in names, f"one of {', '.join(names)}")


def at_least(least: int, allowed: str = "") -> Rule:
    """Returns the rule that a number has a lower bound."""
    return Rule(lambda value: value >= least, allowed or f"at least {least}")


def require(condition: bool, what: str, allowed: str) -> None:
    """Raises ConfigError unless the condition holds.

    Args:
      condition: whether the value is allowed.
      what: key and value for the error, such as "config.seed=-1".
      allowed: description of the allowed values, such as "0 or more".
    """
    if not condition:
        raise ConfigError(f"{what} is not allowed: it must be {allowed}.")


def is_color(text: str) -> bool:
    """Returns whether a text is an opaque colour: a name such as "white", or "#rrggbb"."""
    try:
        return len(ImageColor.getrgb(text)) == 3
    except ValueError:
        return False


NETWORKS = one_of("encoder", "decoder", "unet")
POSITIVE = Rule(lambda value: value > 0, "positive")
FRACTION = Rule(lambda value: 0 < value < 1, "in (0, 1)")
BELOW_ONE = Rule(lambda value: 0 <= value < 1, "in [0, 1)")
OPTIMIZERS = one_of("radam", "adam")
SCHEDULES = one_of("constant", "cosine")
FINEST_GAP = 2**16  # largest q^stages of a distillation: float32 has 24 bits for t and r

Count = Annotated[int, at_least(1)]
Interval = Annotated[int, at_least(0, "positive, or 0 for never")]  # in steps
NumImages = Annotated[int, Rule(lambda v: v >= 0 and v != 1, "2 or more, or 0 for all")]
OptionalTime = Annotated[float | None, Rule(lambda v: v is None or v > 0, "positive, or None")]
Channels = Annotated[
    int,
    Rule(
        lambda value: value >= 1 and value % GROUP_NORM_GROUPS == 0,
        f"a positive multiple of {GROUP_NORM_GROUPS}, the groups of the group norms",
    ),
]
EditScales = Annotated[
    tuple[float, ...], Rule(lambda v: len(v) >= 1 and all(v), "one or more numbers that are not 0")
]
ChannelMult = Annotated[
    tuple[int, ...],
    Rule(
        lambda value: len(value) >= 1 and all(mult >= 1 for mult in value),
        "one or more integers, each at least 1",
    ),
]


class Section:
    """A part of a config with rules about several of its keys."""

    def check(self, path: str) -> None:
        """Raises ConfigError if keys do not go together; `path` is the full name of the section."""


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """The data set, its folder, and how its images are read."""

    name: str
    data_dir: str
    lmdb: str
    train_split: str
    test_split: str
    crop: Annotated[str, one_of("center", "d2c", "zoom", "short")]
    background: Annotated[str, Rule(is_color, "a colour, such as 'white' or '#ffffff'")]
    image_size: Annotated[
        int,
        Rule(
            lambda v: v >= 16 and v & (v - 1) == 0,
            "a power of two, 16 or more, to which images of other sizes are resized",
        ),
    ]
    channels: Count
    flip: bool
    num_threads: Count
    num_workers: Annotated[int, at_least(0, "0 or more")]
    prefetch_batches: Count


@dataclasses.dataclass(frozen=True)
class EncoderConfig(Section):
    """The size of the encoder; see `models.encoder.Encoder`."""

    base_channels: Channels
    channel_mult: ChannelMult
    num_res_blocks: Count
    attention_resolutions: tuple[int, ...]
    pool: Annotated[str, one_of("mean", "flatten")]


@dataclasses.dataclass(frozen=True)
class DecoderConfig(Section):
    """The size of the endpoint decoder; see `models.decoder.Decoder`."""

    base_channels: Annotated[
        int, Rule(lambda value: value >= 4 and value % 4 == 0, "a positive multiple of 4")
    ]


@dataclasses.dataclass(frozen=True)
class UNetConfig(Section):
    """The size of the U-Net; see `models.unet.UNet`."""

    base_channels: Channels
    channel_mult: ChannelMult
    num_res_blocks: Count
    attention_resolutions: tuple[int, ...]
    head_channels: Count
    dropout: Annotated[float, BELOW_ONE]


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The three networks, the latent dimension and the number formats."""

    latent_dim: Count
    stochastic: bool
    dtype: Annotated[str, one_of("float32", "bfloat16")]
    # bfloat16 would round away most updates of the weights and of the EMA.
    param_dtype: Annotated[str, one_of("float32")]
    matmul_precision: Annotated[str, one_of("default", "high", "highest")]
    attention: Annotated[str, one_of("auto", "xla", "cudnn")]
    remat: Annotated[str, one_of("none", "blocks")]
    encoder: EncoderConfig
    decoder: DecoderConfig
    unet: UNetConfig

    @property
    def precision(self) -> str:
        """Precision of matrix products; "default" leaves it to jax_default_matmul_precision."""
        settings: Any = jax.config  # its attributes are made at run time
        if self.matmul_precision == "default":
            return settings.jax_default_matmul_precision or "default"
        return self.matmul_precision

    def check(self, path: str) -> None:
        if self.attention == "cudnn":
            used, width = f"{path}.attention='cudnn'", self.unet.head_channels
            goes_with = f"used with {path}.dtype='bfloat16', not {self.dtype!r}"
            require(self.dtype == "bfloat16", used, goes_with)
            goes_with = f"used with {path}.unet.head_channels of at most 128, not {width}"
            require(width <= 128, used, goes_with)


@dataclasses.dataclass(frozen=True)
class BridgeConfig(Section):
    """The reference diffusion, and the moments that the preconditioning assumes."""

    schedule: Annotated[str, one_of("vp", "ve", "vp_simple", "ve_simple")]
    t_min: OptionalTime
    t_max: OptionalTime
    beta_d: Annotated[float, at_least(0, "0 or more")]
    beta_min: Annotated[float, POSITIVE]
    data_std: Annotated[float, POSITIVE]
    endpoint_std: Annotated[float, at_least(0, "0 or more")]
    covariance: float
    endpoint: Annotated[str, one_of("decoded", "free")]

    def check(self, path: str) -> None:
        if self.t_min is not None and self.t_max is not None:
            allowed = f"below t_max={self.t_max}"
            require(self.t_min < self.t_max, f"{path}.t_min={self.t_min}", allowed)
        bound = self.data_std * self.endpoint_std
        require(
            abs(self.covariance) <= bound,
            f"{path}.covariance={self.covariance}",
            f"at most data_std * endpoint_std = {bound:g} in magnitude",
        )


@dataclasses.dataclass(frozen=True)
class OptimConfig(Section):
    """The optimizer, its learning-rate schedule and the EMA of the weights."""

    optimizer: Annotated[str, OPTIMIZERS]
    learning_rate: Annotated[float, POSITIVE]
    schedule: Annotated[str, SCHEDULES]
    warmup_steps: Annotated[int, at_least(0, "0 or more")]
    grad_clip_norm: Annotated[float, at_least(0, "positive, or 0 for no clipping")]
    ema_decay: Annotated[float, BELOW_ONE]


@dataclasses.dataclass(frozen=True)
class TrainConfig(Section):
    """The batch, the length of the training, and the intervals of its log."""

    batch_size: Count
    accumulation_steps: Count
    deterministic: bool
    tc_weight: Annotated[float, at_least(0, "positive, or 0: off")]
    share_at_T: Annotated[float, BELOW_ONE]
    init_from: str
    init_parts: tuple[Annotated[str, NETWORKS], ...]
    frozen: tuple[Annotated[str, NETWORKS], ...]
    objective: Annotated[str, one_of("denoising", "consistency")]
    num_steps: Count
    trackers: tuple[Annotated[str, one_of("tensorboard", "wandb", "trackio")], ...]
    log_every_steps: Count
    diagnose_every_steps: Interval
    picture_every_steps: Interval
    evaluate_every_steps: Interval

    def check(self, path: str) -> None:
        require(
            self.batch_size % self.accumulation_steps == 0,
            f"{path}.accumulation_steps={self.accumulation_steps}",
            f"a divisor of batch_size={self.batch_size}",
        )
        require(
            set(self.frozen) <= set(self.init_parts if self.init_from else ()),
            f"{path}.frozen={self.frozen}",
            f"among {path}.init_parts, and {path}.init_from must name a trained model",
        )
        require(
            not {"encoder", "decoder", "unet"} <= set(self.frozen),
            f"{path}.frozen={self.frozen}",
            "at most two of the three networks, so that something is trained",
        )
        require(
            self.objective == "denoising" or set(self.frozen) == {"encoder", "decoder"},
            f"{path}.frozen={self.frozen}",
            f"('encoder', 'decoder') for {path}.objective='consistency', which `dbae distill` sets",
        )


@dataclasses.dataclass(frozen=True)
class DistillConfig(Section):
    """The distillation of a trained model: its length, and the earlier time r of every t.

    See `training.consistency`.
    """

    num_steps: Count
    batch_size: Count
    learning_rate: Annotated[float, POSITIVE]
    schedule: Annotated[str, SCHEDULES]
    ema_decay: Annotated[float, BELOW_ONE]
    q: Annotated[float, Rule(lambda value: value > 1, "above 1")]
    k: Annotated[float, at_least(0, "0 or more")]
    b: Annotated[float, POSITIVE]
    stages: Count
    share_at_T: Annotated[float, BELOW_ONE]

    def check(self, path: str) -> None:
        """Refuses gaps t - r that float32 cannot hold, and stages that no step belongs to."""
        require(
            self.stages * math.log2(self.q) <= math.log2(FINEST_GAP),
            f"{path}.stages={self.stages} with {path}.q={self.q:g}",
            f"such that q^stages is at most {FINEST_GAP}; the times t and r would coincide",
        )
        require(
            self.stages <= self.num_steps and self.stages * self.num_steps < 2**31,
            f"{path}.stages={self.stages} with {path}.num_steps={self.num_steps}",
            "at most num_steps, and their product below 2^31, which is counted in 32 bits",
        )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Section):
    """When checkpoints are written, and which ones are kept."""

    every_steps: Count
    keep_last: Count
    keep_every_steps: Annotated[int, at_least(0, "positive, or 0 for none")]


@dataclasses.dataclass(frozen=True)
class PriorConfig(Section):
    """The latent prior: its network, diffusion, training and sampler."""

    num_layers: Annotated[int, at_least(2)]
    width: Count
    timesteps: Annotated[int, at_least(2)]
    beta: Annotated[float, FRACTION]
    sample_codes: bool
    optimizer: Annotated[str, OPTIMIZERS]
    learning_rate: Annotated[float, POSITIVE]
    ema_decay: Annotated[float, BELOW_ONE]
    batch_size: Count
    num_steps: Count
    log_every_steps: Count
    evaluate_every_steps: Interval
    checkpoint_every_steps: Count
    bound_points: Count
    sampler: Annotated[str, one_of("ancestral", "ddim")]
    sample_steps: Count

    def check(self, path: str) -> None:
        require(
            self.sample_steps <= self.timesteps,
            f"{path}.sample_steps={self.sample_steps}",
            f"1 to timesteps={self.timesteps}",
        )


@dataclasses.dataclass(frozen=True)
class EvalConfig(Section):
    """The evaluation: its suites, images, probes and published networks."""

    batch_size: Count
    num_images: NumImages
    num_train_images: NumImages
    num_pictures: Count
    edited_images: Count
    edit_scales: EditScales
    information_points: Count
    suite: str
    label: str
    seeds: Count
    sample_codes: bool
    lpips: bool
    weights_dir: str
    download_weights: bool
    validation_split: str
    validation_share: Annotated[float, FRACTION]
    num_probe_images: NumImages
    normalise_codes: bool
    probe_epochs: Count
    probe_batch_size: Count
    probe_learning_rate: Annotated[float, POSITIVE]
    num_generated: Count
    generated_sets: Count
    inception: bool
    vgg16: bool
    fid_preset: Annotated[str, one_of("", *FID_PRESETS)]

    def check(self, path: str) -> None:
        require(
            self.inception or not self.fid_preset,
            f"{path}.fid_preset={self.fid_preset!r}",
            f"empty unless {path}.inception is True",
        )
