"""Trains, evaluates and uses diffusion bridge autoencoders from the command line.

python -m dbae_jax.main --config=digits --workdir=runs/digits
python -m dbae_jax.main --config=digits --workdir=runs/digits --mode=evaluate

--mode=NAME runs dbae_jax/commands/NAME.py. The console script `dbae` is the same command.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from dbae_jax import editing
from dbae_jax.commands import (
    describe,
    edit,
    evaluate,
    interpolate,
    plan,
    report,
    sample,
    train,
    train_prior,
)
from dbae_jax.configuration import command_line
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import sample_files
from dbae_jax.runtime import processes


class Mode(NamedTuple):
    """A mode of the command line."""

    run: Callable[..., Any]  # called as run(config, workdir, **values of the flags)
    about: str  # one sentence for --help
    flags: dict[str, str]  # flag that only this mode has -> parameter of `run`
    saves: bool = False  # whether a SIGTERM saves a checkpoint


MODES = {
    "train": Mode(train.train, "Trains the autoencoder, or resumes its training.", {}, saves=True),
    "train_prior": Mode(
        train_prior.train_prior, "Trains the latent prior of a trained model.", {}, saves=True
    ),
    "evaluate": Mode(
        evaluate.evaluate,
        "Measures the model and writes results.json and figures.",
        {},
    ),
    "sample": Mode(
        sample.sample,
        "Samples images with the latent prior.",
        {"num": "num", "seed": "seed", "format": "file_format", "out": "out"},
    ),
    "interpolate": Mode(
        interpolate.interpolate,
        "Decodes latent codes between those of two images.",
        {
            **{name: name for name in ("first", "second", "points", "method")},
            **{name: name for name in ("infer_endpoint", "out")},
        },
    ),
    "edit": Mode(
        edit.edit,
        "Edits an attribute of images.",
        {name: name for name in ("attribute", "image", "scales", "fix_endpoint", "out")},
    ),
    "report": Mode(report.report, "Writes report.html, a page about the results.", {}),
    "plan": Mode(
        plan.plan,
        "Predicts memory and time of training on other devices, before you pay for hardware. Needs "
        "no workdir.",
        {"topology": "topology", "effort": "effort"},
    ),
}

flags.adopt_module_key_flags(command_line)  # --help shows them
MODE = flags.DEFINE_enum(
    "mode", "train", tuple(MODES), "What the command does; see the list of modes."
)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the config with all overrides, the parameters and the FLOPs, and stop."
)
flags.DEFINE_integer("num", 64, "Number of images to sample.", lower_bound=1)
flags.DEFINE_integer(
    "seed", 0, "Seed of the samples; image i depends on the seed and i alone.", lower_bound=0
)
flags.DEFINE_enum("format", "png", sample_files.FORMATS, "Format of the sampled images.")
flags.DEFINE_string(
    "out", None, "Folder for the images. Default: WORKDIR/samples or WORKDIR/edits."
)
flags.DEFINE_string(
    "first", None, "First images: files, or images of the data set such as test:17, with commas."
)
flags.DEFINE_string("second", None, "Second images, as many as first images.")
flags.DEFINE_integer("points", 11, "Number of images on each path, both ends included.")
flags.DEFINE_enum("method", "linear", editing.METHODS, "Path between two latent codes.")
flags.DEFINE_string("attribute", None, "Name of the attribute or class to edit.")
flags.DEFINE_string(
    "image", None, "Images to edit: files, or images of the data set such as test:17, with commas."
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
flags.DEFINE_string(
    "topology", "v5e:4x4", "Devices to plan for, such as v5e:4x4, h100:8, or gpu:8."
)
flags.DEFINE_enum(
    "effort", "least", ("least", "full"), "Optimization effort of XLA; full takes ten times longer."
)


def main(argv: list[str]) -> None:
    """Runs the mode that --mode names."""
    del argv
    mode, config = MODES[MODE.value], command_line.read_config()
    given = _flags_of(MODE.value)
    if DRY_RUN.value:
        print(describe.describe(config))
        return
    if MODE.value == "plan":
        print(mode.run(config, command_line.json_path(), **given))
        return
    workdir = command_line.read_workdir()
    if MODE.value == "report":
        given["config_path"] = command_line.config_path()
        given["overrides"] = command_line.overrides()
    command_line.start_processes(save_on_sigterm=mode.saves)
    with processes.explaining():
        mode.run(config, workdir, **given)


def run() -> None:
    """Runs the command; the console script `dbae`."""
    command_line.run(main, help_text)


def help_text() -> str:
    """Returns the part of --help about the modes and their flags."""
    lines = ["Modes, and the flags that belong to one mode:"]
    for name, mode in MODES.items():
        lines += ["", f"  --mode={name}: {mode.about}"]
        lines += [f"    --{flag}: {flags.FLAGS[flag].help}" for flag in mode.flags]
    return "\n".join(lines)


def _flags_of(name: str) -> dict[str, Any]:
    """Returns the values of the flags of a mode, by parameter of its function.

    Raises:
      ConfigError: if the user gave a flag of a different mode.
    """
    own = MODES[name].flags
    for other, mode in MODES.items():
        for flag in mode.flags:
            if flag not in own and flags.FLAGS[flag].present:
                raise ConfigError(
                    f"--{flag} belongs to --mode={other}, and the mode is {name!r}; leave the "
                    "flag out or change --mode."
                )
    values = {parameter: flags.FLAGS[flag].value for flag, parameter in own.items()}
    if out := values.get("out"):
        values["out"] = pathlib.Path(out)
    return values


if __name__ == "__main__":
    command_line.run(main, help_text)
