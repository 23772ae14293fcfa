"""Command line: python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags

from dbae_jax import editing
from dbae_jax.api import sample_files
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
from dbae_jax.configuration.config import Config
from dbae_jax.runtime import processes

TRAINING = ("train", "train_prior")
MODES = (*TRAINING, "evaluate", "sample", "interpolate", "edit", "report", "plan")
flags.adopt_module_key_flags(command_line)  # --help shows them
MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, the parameters and the FLOPs, and stop."
)
NUM = flags.DEFINE_integer("num", 64, "sample: number of images.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "sample: image i depends on (seed, i).", lower_bound=0)
FORMAT = flags.DEFINE_enum("format", "png", sample_files.FORMATS, "sample: of the files.")
OUT = flags.DEFINE_string("out", None, "Folder of the files; default WORKDIR/samples or edits.")
FIRST = flags.DEFINE_string("first", None, "interpolate: file, or item such as test:17; or more.")
SECOND = flags.DEFINE_string("second", None, "interpolate: as many.")
POINTS = flags.DEFINE_integer("points", 11, "interpolate: images of each way.")
METHOD = flags.DEFINE_enum("method", "linear", editing.METHODS, "interpolate: way between codes.")
ATTRIBUTE = flags.DEFINE_string("attribute", None, "edit: name of an attribute, or of a class.")
IMAGE = flags.DEFINE_string("image", None, "edit: files, or items such as test:17.")
SCALES = flags.DEFINE_list("scales", "-0.3,-0.15,0,0.15,0.3", "edit: how far codes move.")
INFER_ENDPOINT = flags.DEFINE_bool(
    "infer_endpoint", False, "interpolate: of a free x_T, infer both ends' instead of drawing one."
)
FIX_ENDPOINT = flags.DEFINE_bool("fix_endpoint", False, "edit: keep x_T of the unmoved code.")
TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "Chips of --mode=plan, or gpu:8.")
EFFORT = flags.DEFINE_enum(
    "effort", "least", ("least", "full"), "plan: of XLA; full takes ten times as long."
)


def main(argv: list[str]) -> None:
    """Dispatches on --mode."""
    del argv
    config = command_line.read_config()
    if DRY_RUN.value:
        print(describe.describe(config))
        return
    if MODE.value == "plan":
        path, quick = command_line.json_path(), EFFORT.value == "least"
        print(plan.plan(config, TOPOLOGY.value, path, quick=quick))
        return
    workdir = command_line.read_workdir()
    command_line.start_processes(save_on_sigterm=MODE.value in TRAINING)
    with processes.explaining():
        _of_mode()(config, workdir)


def _of_mode() -> Callable[[Config, pathlib.Path], Any]:
    """Returns what --mode does, with its flags."""
    out = pathlib.Path(OUT.value) if OUT.value else None
    modes = {
        "train": train.train,
        "train_prior": train_prior.train_prior,
        "evaluate": evaluate.evaluate,
        "sample": functools.partial(
            sample.sample,
            num=NUM.value,
            out=out,
            file_format=FORMAT.value,
            seed=SEED.value,
        ),
        "report": functools.partial(
            report.report,
            config_path=command_line.config_path(),
            overrides=command_line.overrides(),
        ),
        "interpolate": functools.partial(
            interpolate.interpolate,
            first=FIRST.value,
            second=SECOND.value,
            points=POINTS.value,
            method=METHOD.value,
            infer_endpoint=INFER_ENDPOINT.value,
            out=out,
        ),
        "edit": functools.partial(
            edit.edit,
            attribute=ATTRIBUTE.value,
            image=IMAGE.value,
            scales=SCALES.value,
            fix_endpoint=FIX_ENDPOINT.value,
            out=out,
        ),
    }
    return modes[MODE.value]


if __name__ == "__main__":
    command_line.run(main)
