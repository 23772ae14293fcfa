"""Command line: python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits."""

import pathlib

from absl import flags
from ml_collections import config_flags

from dbae_jax import config as config_lib
from dbae_jax import describe, evaluate, train
from dbae_jax.command_line import run
from dbae_jax.errors import ConfigError

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, such as configs/digits.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, the parameters and the FLOPs, and stop."
)


def main(argv: list[str]) -> None:
    """Dispatches on --mode."""
    if len(argv) > 1:
        raise ConfigError(f"{argv[1]!r} is no flag; see --help.")
    if CONFIG.value is None:
        raise ConfigError("--config is missing; name a file such as configs/digits.py.")
    config = config_lib.from_config_dict(CONFIG.value)
    if DRY_RUN.value:
        print(describe.describe(config))
        return
    if WORKDIR.value is None:
        raise ConfigError("--workdir is missing; name the folder of the run.")
    modes = {"train": train.train, "evaluate": evaluate.evaluate}
    modes[MODE.value](config, pathlib.Path(WORKDIR.value))


if __name__ == "__main__":
    run(main)
