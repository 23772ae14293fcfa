"""Command line: python -m dbae_jax.main --config=configs/digits.py --workdir=runs/digits."""

from absl import flags

from dbae_jax import command_line, describe, evaluate, plan, processes, train

MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "plan"], "What to do.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the resolved config, the parameters and the FLOPs, and stop."
)

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
    command_line.start_processes(save_on_sigterm=MODE.value == "train")
    modes = {"train": train.train, "evaluate": evaluate.evaluate}
    with processes.naming_the_lost():
        modes[MODE.value](config, workdir)


if __name__ == "__main__":
    command_line.run(main)
