"""The typed and checked config.

Config files return an `ml_collections.ConfigDict`. It is converted to a `Config` of frozen
dataclasses here, once; all other code uses the `Config`. A wrong key, type, value or combination
raises an error that names the full key and the allowed values.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from ml_collections import ConfigDict

from dbae_jax.configs import base
from dbae_jax.configuration.sections import (
    BridgeConfig,
    CheckpointConfig,
    DataConfig,
    DistillConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    PriorConfig,
    Rule,
    TrainConfig,
    require,
)
from dbae_jax.configuration.suggestions import did_you_mean
from dbae_jax.errors import ConfigError
from dbae_jax.sampling.plan import CONSISTENCY, NAMES, Plan

WITHOUT_SCALINGS = ("vp_simple", "ve_simple")  # their denoiser is the network's output


@dataclasses.dataclass(frozen=True, repr=False)
class Config:
    """The checked config of a model: its data, networks, training, sampling and evaluation."""

    seed: Annotated[int, Rule(lambda value: 0 <= value < 2**31, "in [0, 2**31)")]
    data: DataConfig
    model: ModelConfig
    bridge: BridgeConfig
    optim: OptimConfig
    train: TrainConfig
    distill: DistillConfig
    checkpoint: CheckpointConfig
    prior: PriorConfig
    sample: Plan
    eval: EvalConfig

    def __repr__(self) -> str:
        """Returns the sections, each on a line of its own."""
        sections = (f"  {f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self))
        return "Config(\n" + ",\n".join(sections) + ",\n)"

    def check(self, path: str) -> None:
        """Checks combinations of keys from several sections; `path` is the name of the config."""
        self._check_networks(path)
        model = f"{path}.model"
        for key, value, off in (
            ("prior.sample_codes", self.prior.sample_codes, "False"),
            ("train.tc_weight", self.train.tc_weight, "0"),
            ("eval.sample_codes", self.eval.sample_codes, "False"),
        ):
            require(
                self.model.stochastic or not value,
                f"{path}.{key}={value}",
                f"{off} for a deterministic encoder ({model}.stochastic=False)",
            )
        require(
            not (self.bridge.endpoint == "free" and self.sample.boot),
            f"{path}.sample.boot=True",
            f"False for a Gaussian x_T ({path}.bridge.endpoint='free')",
        )
        require(
            self.bridge.endpoint == "decoded" or self.train.objective == "denoising",
            f"{path}.bridge.endpoint={self.bridge.endpoint!r}",
            "'decoded' for a distillation, because a model with Gaussian x_T cannot be distilled",
        )
        schedule = self.bridge.schedule
        require(
            self.train.objective == "denoising" or schedule not in WITHOUT_SCALINGS,
            f"{path}.bridge.schedule={schedule!r}",
            "'vp' or 've' for a distillation, because other schedules lack its scalings",
        )
        require(
            not (self.train.deterministic and self.model.attention == "cudnn"),
            f"{model}.attention='cudnn'",
            f"'auto' or 'xla' for {path}.train.deterministic=True, because XLA cannot run cuDNN's "
            "attention in a deterministic step",
        )

    def _check_networks(self, path: str) -> None:
        """Checks the networks against the size of the images."""
        size, model = self.data.image_size, f"{path}.model"
        width = self.model.decoder.base_channels
        require(
            128 * width >= size and 128 * width % size == 0,
            f"{model}.decoder.base_channels={width}",
            f"such that 128 times this value is a multiple of {path}.data.image_size={size}",
        )
        for name in ("encoder", "unet"):
            network = getattr(self.model, name)
            levels = len(network.channel_mult)
            require(
                size >> (levels - 1) >= 1,
                f"{model}.{name}.channel_mult={network.channel_mult}",
                f"at most {size.bit_length()} levels for {path}.data.image_size={size}",
            )
            resolutions = [size >> level for level in range(levels)]
            for at in network.attention_resolutions:
                require(
                    at in resolutions,
                    f"{model}.{name}.attention_resolutions={network.attention_resolutions}",
                    f"among the sizes of the network's feature maps, {resolutions}",
                )
        self._check_heads(f"{model}.unet", resolutions)

    def _check_heads(self, path: str, resolutions: list[int]) -> None:
        """Checks that attention heads divide the channels of every attention block."""
        unet = self.model.unet
        attended = [
            unet.base_channels * mult
            for mult, at in zip(unet.channel_mult, resolutions, strict=True)
            if at in unet.attention_resolutions
        ]
        for channels in [*attended, unet.base_channels * unet.channel_mult[-1]]:
            require(
                channels % unet.head_channels == 0,
                f"{path}.head_channels={unet.head_channels}",
                f"a divisor of the {channels} channels of an attention block",
            )


def from_config_dict(config: ConfigDict) -> Config:
    """Converts the config of a config file to a checked `Config`.

    Raises:
      ConfigError: for an unknown or missing key, a wrong type, a value out of range or a
        combination that cannot work. The error names the key and the allowed values.
    """
    return from_dict(config.to_dict())


def from_dict(values: Mapping[str, Any]) -> Config:
    """Converts nested dictionaries, such as those of `to_dict`, to a checked `Config`.

    If `sample.sampler` is the name of a plan, such as "sharp", the section `sample` becomes this
    plan.
    """
    return _build(Config, _with_plan(values), "config")


def _with_plan(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the values with the plan that `sample.sampler` names, if it names one."""
    try:
        name, objective = values["sample"]["sampler"], values["train"]["objective"]
    except (KeyError, TypeError):  # reported with the name of what is missing
        return values
    if name not in NAMES:
        return values
    plan = Plan.named(name, CONSISTENCY if objective == "consistency" else "dbim")
    return {**values, "sample": dataclasses.asdict(plan)}


def upgrade(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a saved config, with missing keys taken from configs/base.py.

    Keys are missing if a newer version of the package added them.
    """
    return _with_missing(saved, base.get_config().to_dict())


def _with_missing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested values, with defaults for missing keys."""
    filled = dict(values)
    for key, default in defaults.items():
        if isinstance(default, dict):
            filled[key] = _with_missing(values.get(key, {}), default)
        else:
            filled.setdefault(key, default)
    return filled


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested dictionaries of JSON types."""
    return _listed(dataclasses.asdict(config))


def _listed(value: Any) -> Any:
    """Returns nested values with lists instead of tuples."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _build(cls: type, values: Any, path: str) -> Any:
    """Returns a checked section; `path` is its full name."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a section with keys, got {values!r}.")
    hints = typing.get_type_hints(cls, include_extras=True)
    for key in values:
        if key not in hints:
            meant = did_you_mean(key, hints)
            raise ConfigError(f"{path}.{key} is not a key; {meant}allowed are {', '.join(hints)}.")
    missing = [key for key in hints if key not in values]
    if missing:
        raise ConfigError(
            f"{path}.{missing[0]} is missing; begin the config with "
            "dbae_jax.configs.base.get_config(), which sets every key."
        )
    built = cls(**{k: _typed(values[k], hint, f"{path}.{k}") for k, hint in hints.items()})
    built.check(path)
    return built


def _typed(value: Any, hint: Any, path: str) -> Any:
    """Returns a value as the type hint of its key asks, or raises ConfigError."""
    if typing.get_origin(hint) is Annotated:
        hint, *rules = typing.get_args(hint)
        value = _typed(value, hint, path)
        for rule in rules:
            require(rule.holds(value), f"{path}={value!r}", rule.allowed)
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, (list, tuple)):
            item = typing.get_args(hint)[0]
            return tuple(_typed(v, item, f"{path}[{i}]") for i, v in enumerate(value))
        example = {int: (1, 2), float: (0.15, 0.3)}.get(typing.get_args(hint)[0], ("encoder",))
        raise ConfigError(f"{path} must be a tuple, such as {example}, got {value!r}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(
            f"{path} must be {hint.__name__}, got {value!r} ({type(value).__name__})."
        )
    return value
