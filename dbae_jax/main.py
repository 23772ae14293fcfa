"""Command line: python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits."""

import functools
import pathlib

from absl import flags

from dbae_jax import command_line, describe, evaluate, plan, processes, sample, train, train_prior
from dbae_jax.report import report

TRAINING = ("train", "train_prior")
MODES = (*TRAINING, "evaluate", "sample", "report", "plan")
flags.adopt_module_key_flags(command_line)  # --help shows them
MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, the parameters and the FLOPs, and stop."
)
NUM = flags.DEFINE_integer("num", 64, "sample: number of images.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "sample: image i depends on (seed, i).", lower_bound=0)
FORMAT = flags.DEFINE_enum("format", "png", sample.FORMATS, "sample: of the files.")
OUT = flags.DEFINE_string("out", None, "sample: folder of the files; default WORKDIR/samples.")
TOPOLOGY = flags.DEFINE_string("topology", "v5e:4x4", "Chips of --mode=plan, or gpu:8.")


def main(argv: list[str]) -> None:
    """Dispatches on --mode."""
    del argv
    config = command_line.read_config()
    if DRY_RUN.value:
        print(describe.describe(config))
        return
    if MODE.value == "plan":
        print(plan.plan(config, TOPOLOGY.value, command_line.json_path()))
        return
    workdir = command_line.read_workdir()
    command_line.start_processes(save_on_sigterm=MODE.value in TRAINING)
    modes = {
        "train": train.train,
        "train_prior": train_prior.train_prior,
        "evaluate": evaluate.evaluate,
        "sample": functools.partial(
            sample.sample,
            num=NUM.value,
            out=pathlib.Path(OUT.value) if OUT.value else None,
            file_format=FORMAT.value,
            seed=SEED.value,
        ),
        "report": functools.partial(report.report, config_path=command_line.config_path()),
    }
    with processes.explaining():
        modes[MODE.value](config, workdir)


if __name__ == "__main__":
    command_line.run(main)
