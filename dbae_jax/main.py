"""Trains, evaluates and uses diffusion bridge autoencoders from the command line.

dbae train --config=digits --workdir=runs/digits
dbae evaluate --workdir=runs/digits

`dbae NAME` runs dbae_jax/commands/NAME.py. It is the same as `python -m dbae_jax.main --mode=NAME`.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from absl import flags

from dbae_jax.configuration import arguments, command_line, distillation, paths
from dbae_jax.configuration.suggestions import did_you_mean
from dbae_jax.errors import ConfigError

MODEL_FLAGS = ("config", "workdir")
COMMON_FLAGS = (*MODEL_FLAGS, "dry_run")
PROCESS_FLAGS = ("coordinator", "num_processes", "process_id")


class Mode(NamedTuple):
    """A mode of the command line: a command of `dbae`.

    Attributes:
      about: a sentence or two for --help.
      examples: flags of commands for --help.
      flags: flag that belongs to this mode -> parameter of its function; "" for those that change
        the config instead.
      trains: whether it trains; a SIGTERM or Ctrl-C then saves a checkpoint. If it does not train,
        each CPU core is a device. For a training a CPU is one device, because its batch might not
        divide by the number of cores.
      shared: further flags, which several modes have.
    """

    about: str
    examples: tuple[str, ...]
    flags: Mapping[str, str] = {}
    trains: bool = False
    shared: tuple[str, ...] = (*COMMON_FLAGS, *PROCESS_FLAGS)


def _own(*names: str) -> dict[str, str]:
    return {name: name for name in names}


MODES = {
    "train": Mode(
        "Trains the autoencoder, or resumes its training.",
        (
            "--config=digits --workdir=runs/digits",
            "--config=digits --workdir=runs/wide --config.model.latent_dim=64 --config.seed=1",
            "--workdir=runs/digits  # resumes the run in this workdir",
            "--config=ffhq --dry_run  # parameters, FLOPs and all keys",
            "--config=digits --workdir=runs/more --init_from=runs/digits  # fine-tunes",
        ),
        {"init_from": ""},
        trains=True,
    ),
    "distill": Mode(
        "Distils a trained model: its U-Net learns to decode sharp images in 1 or 2 evaluations.",
        (
            "--teacher=runs/digits --workdir=runs/digits_sharp",
            "--teacher=digits --config=digits --workdir=runs/digits_sharp",
            "--workdir=runs/digits_sharp  # resumes",
        ),
        _own("teacher"),
        trains=True,
    ),
    "train_prior": Mode(
        "Trains the latent prior of a trained model, which `sample` needs.",
        ("--workdir=runs/digits",),
        trains=True,
    ),
    "evaluate": Mode(
        "Measures the model and writes results.json and figures.",
        (
            "--workdir=runs/digits",
            "--workdir=runs/digits --config.eval.suite=all",
            "--workdir=runs/digits --config.eval.suite=probe,generation",
            "--workdir=runs/digits --config.eval.suite=all --report  # writes report.html too",
        ),
        _own("report"),
    ),
    "sample": Mode(
        "Samples images with the latent prior.",
        ("--workdir=runs/digits --num=100", "--workdir=runs/digits --format=npz --out=samples"),
        {"num": "num", "seed": "seed", "format": "file_format", "out": "out"},
    ),
    "interpolate": Mode(
        "Decodes latent codes between those of two images.",
        (
            "--workdir=runs/digits --first=test:17 --second=test:4",
            "--workdir=runs/faces --first=me.png,you.png --second=test:0,test:1 --points=7",
        ),
        _own("first", "second", "points", "method", "infer_endpoint", "out"),
    ),
    "edit": Mode(
        "Edits an attribute of images.",
        (
            "--workdir=runs/digits --attribute=7 --image=test:17,test:4",
            "--workdir=runs/faces --attribute=Smiling --image=me.png --scales=-0.2,0,0.2",
        ),
        _own("attribute", "image", "scales", "fix_endpoint", "out"),
    ),
    "report": Mode(
        "Writes report.html, a page about the model and its results; with --compare, "
        "comparison.html, a page about two runs.",
        ("--workdir=runs/digits", "--workdir=runs/digits --compare=runs/wide"),
        {"compare": "compare"},
    ),
    "app": Mode(
        "Opens a page for the browser: try a trained model with your own pictures.",
        (
            "--workdir=runs/digits",
            "--weights=digits  # weights that come with the package, or a .safetensors file",
            "--workdir=runs/faces --host=0.0.0.0 --port=8000  # other machines reach the page too",
        ),
        _own("weights", "host", "port"),
        shared=MODEL_FLAGS,
    ),
    "plan": Mode(
        "Predicts memory and time of training on other devices, before you pay for hardware.",
        (
            "--config=celeba --topology=h100:1",
            "--config=ffhq --topology=v5e:4x4 --config.model.dtype=bfloat16 --json=plan.json",
            "--config=ffhq --topology=h100:1 --teacher=runs/ffhq  # of its distillation",
        ),
        {"topology": "topology", "effort": "effort", "json": "json_path", "teacher": ""},
        shared=COMMON_FLAGS,
    ),
}
# The flags are defined here, and what they name is imported when its mode runs: a wrong flag is
# then reported within a second.
SHORT_FORMS = {"init_from": "train.init_from"}  # flag -> key of the config
METHODS = ("linear", "spherical")  # of dbae_jax.editing
FORMATS = ("png", "npz")  # of dbae_jax.evaluation.sample_files

MODE = flags.DEFINE_string("mode", "train", "The command, where it is not the first argument.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print parameters, FLOPs, memory and the whole config, and stop."
)
flags.DEFINE_string(
    "init_from",
    None,
    "Model to start from: a workdir, a file of released weights, or the name of weights in the "
    "package. Short for --config.train.init_from.",
)
flags.DEFINE_string(
    "teacher",
    None,
    "Trained model to distil: a workdir, a file of released weights, or the name of weights in the "
    "package. Without --config, the config of the workdir that it names is read.",
)
flags.DEFINE_integer("num", 64, "Number of images to sample.", lower_bound=1)
flags.DEFINE_integer(
    "seed", 0, "Seed of the samples; image i depends on the seed and i alone.", lower_bound=0
)
flags.DEFINE_enum("format", "png", FORMATS, "Format of the sampled images.")
flags.DEFINE_string(
    "out",
    None,
    "Folder for the images. Default: samples (of sample) or edits (of edit and interpolate) in "
    "the workdir.",
)
flags.DEFINE_string(
    "first",
    None,
    "First images: files, or images of the data set such as test:17, separated by commas.",
)
flags.DEFINE_string("second", None, "Second images, as many as first images.")
flags.DEFINE_integer("points", 11, "Number of images on each path, both ends included.")
flags.DEFINE_enum("method", "linear", METHODS, "Path between two latent codes.")
flags.DEFINE_string("attribute", None, "Name of the attribute or class to edit.")
flags.DEFINE_string(
    "image",
    None,
    "Images to edit: files, or images of the data set such as test:17, separated by commas.",
)
flags.DEFINE_list("scales", "-0.3,-0.15,0,0.15,0.3", "Edit strengths; 0 is the reconstruction.")
flags.DEFINE_bool(
    "infer_endpoint", False, "Models with Gaussian x_T: infer x_T of both images by DDIM inversion."
)
flags.DEFINE_bool(
    "fix_endpoint",
    False,
    "Hold the x_T of the unedited image fixed, instead of recomputing x_T from the edited code.",
)
flags.DEFINE_bool("report", False, "Write report.html after the evaluation.")
flags.DEFINE_string("compare", None, "A different workdir to compare the run with.")
flags.DEFINE_string(
    "topology", "v5e:4x4", "Devices to plan for, such as v5e:4x4, h100:8, or gpu:8."
)
flags.DEFINE_enum(
    "effort", "least", ("least", "full"), "Optimization effort of XLA; full takes ten times longer."
)
flags.DEFINE_string(
    "weights", None, "File or name of released weights, such as digits, instead of --workdir."
)
flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on; 0.0.0.0 stands for all addresses of this machine."
)
flags.DEFINE_integer(
    "port", 7860, "Port to listen on; 0 takes any free port.", lower_bound=0, upper_bound=65535
)


def main(argv: list[str]) -> None:
    """Runs the mode that --mode names."""
    del argv
    name = MODE.value
    _check_command(name)
    given = _flags_of(name)
    if name == "app" and _of_weights(given["weights"]):
        _function(name)(None, None, **given)
        return
    if (teacher := flags.FLAGS["teacher"].value) and flags.FLAGS["config"].value is None:
        _refuse_teacher_without_config(teacher)
    config = command_line.read_config()
    distillation.warn_of_sampler(config)
    if name == "distill" or flags.FLAGS["teacher"].present:
        distillation.check_overrides(command_line.overrides())
        config = distillation.distilled(config, teacher)
    if name == "train" and distillation.is_distilled(config):
        raise ConfigError(
            "config.train.objective='consistency' is that of a distillation. `dbae distill "
            "--workdir=WORKDIR` resumes one, and with --teacher=MODEL it starts one."
        )
    if DRY_RUN.value:
        command_line.show(_function("describe")(config))
        return
    if name == "plan":
        command_line.show(_function(name)(config, **given))
        return
    workdir = command_line.read_workdir()
    if name == "report":
        given |= _how_called()
    if set(PROCESS_FLAGS) <= set(MODES[name].shared):
        trains = MODES[name].trains
        command_line.start_processes(save_on_sigterm=trains, device_per_core=not trains)
    if name == "evaluate":  # --report stands for the function that writes the report
        given["report"] = (
            functools.partial(_function("report"), config, workdir, **_how_called())
            if given["report"]
            else None
        )
    _function(name)(config, workdir, **given)


def _how_called() -> dict[str, Any]:
    """Returns what the commands on the report's page repeat: the config file and changed keys.

    The key eval.suite is left out, because these commands name suites themselves.
    """
    changed = command_line.overrides()
    changed.pop("eval.suite", None)
    return {"config_path": command_line.config_path(), "overrides": changed}


def run() -> None:
    """Runs the command; the console script `dbae`."""
    try:
        sys.argv = with_mode(sys.argv)
    except ConfigError as error:
        command_line.stop(error)
    command_line.run(main, help_text, config_of_workdir=True, keys=SHORT_FORMS)


def with_mode(argv: list[str]) -> list[str]:
    """Returns the arguments with --mode=NAME in place of a command NAME at their beginning.

    Raises:
      ConfigError: if there is no such command, or --mode is given too.
    """
    if len(argv) < 2:
        return [*argv, "--help"]
    if argv[1].startswith("-"):
        return argv
    _check_command(argv[1])
    if arguments.value_of(argv, "mode") is not None:
        raise ConfigError(f"The command {argv[1]!r} takes no --mode; leave --mode out.")
    return [argv[0], f"--mode={argv[1]}", *argv[2:]]


def help_text(argv: list[str]) -> str:
    """Returns the text of --help: about the mode that the arguments name, or about all modes."""
    name = arguments.value_of(argv, "mode")
    if name not in MODES:
        return _overview()
    mode, lines = MODES[name], []
    lines += [f"Usage: dbae {name} [flags]", "", mode.about, "", "Examples:"]
    lines += [f"  dbae {name} {example}" for example in mode.examples]
    if mode.flags:
        lines += ["", f"Flags of {name}:", command_line.help_of_flags(mode.flags)]
    return "\n".join([*lines, "", "Shared flags:", command_line.help_of_flags(mode.shared), KEYS])


KEYS = """  --config.KEY=VALUE: Sets a key of the config; configs/base.py explains every key.

If --config is missing, the config.json of the workdir is read."""


def _overview() -> str:
    """Returns the text of --help without a mode."""
    width = max(map(len, MODES))
    commands = "\n".join(f"  {name:<{width}}  {mode.about}" for name, mode in MODES.items())
    return f"""Diffusion bridge autoencoders: train, evaluate and use a model.

Usage: dbae COMMAND [flags]

Commands:
{commands}

`dbae COMMAND --help` has the flags and examples of one command.

Flags of all commands:
{command_line.help_of_flags(COMMON_FLAGS)}
  --version: Prints the versions of dbae_jax and jax.
{KEYS}"""


def _check_command(name: str) -> None:
    """Raises ConfigError unless there is such a command."""
    if name not in MODES:
        raise ConfigError(
            f"{name!r} is not a command; {did_you_mean(name, MODES)}the commands are "
            f"{', '.join(MODES)}."
        )


def _function(name: str) -> Callable[..., Any]:
    """Returns the function of a module of dbae_jax/commands/ that has the module's name."""
    return getattr(importlib.import_module(f"dbae_jax.commands.{name}"), name)


def _of_weights(weights: str | None) -> bool:
    """Returns whether the app is to show released weights, which need no config and no workdir.

    Raises:
      ConfigError: unless the user named either weights or a workdir.
    """
    named = [flag for flag in reversed(MODEL_FLAGS) if flags.FLAGS[flag].value is not None]
    if weights is not None and named:
        raise ConfigError(f"--weights holds the whole model; leave out --{named[0]}.")
    if weights is None and "workdir" not in named:
        raise ConfigError("Name a model: --workdir=WORKDIR, or --weights=digits.")
    return weights is not None


def _refuse_teacher_without_config(name: str) -> None:
    """Raises an error about a teacher from which no config could be read.

    Raises:
      CheckpointError: if there is no such model.
      ConfigError: if it is one without a config.json.
    """
    path = importlib.import_module("dbae_jax.api.released_weights").find(name)
    if path.is_dir():
        raise ConfigError(f"The teacher {path} holds no config.json of a run; name another model.")
    raise ConfigError(
        f"--config is missing, which the teacher {name} needs, because it is a file of released "
        "weights; name the config that it was trained with, such as --config=digits."
    )


def _flags_of(name: str) -> dict[str, Any]:
    """Returns the values of the flags of a mode, by parameter of its function.

    Raises:
      ConfigError: if the user gave a flag that the mode does not have.
    """
    own = MODES[name].flags
    for flag in {
        *COMMON_FLAGS,
        *PROCESS_FLAGS,
        *(flag for mode in MODES.values() for flag in mode.flags),
    }:
        modes = [other for other, mode in MODES.items() if flag in (*mode.flags, *mode.shared)]
        if name not in modes and flags.FLAGS[flag].present:
            raise ConfigError(
                f"--{flag} is a flag of {', '.join(modes)}, not of {name}; leave the flag out"
                + ("." if flag != "seed" else ", or set the seed of a training by --config.seed.")
            )
    values = {parameter: flags.FLAGS[flag].value for flag, parameter in own.items() if parameter}
    for parameter in ("out", "compare"):
        if path := values.get(parameter):
            values[parameter] = paths.read(path, f"--{parameter}", buckets=True)
    if "json_path" in values:
        values["json_path"] = command_line.json_path()
    return values


if __name__ == "__main__":
    run()
