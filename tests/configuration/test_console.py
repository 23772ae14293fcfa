"""The command `dbae`: its commands, help, configs of workdirs, and quick answers."""

import importlib
import inspect
import json
import os
import shlex
import subprocess
import sys

import pytest

import dbae_jax
from dbae_jax import editing, main
from dbae_jax.commands import describe
from dbae_jax.configuration import arguments, config_files, suggestions
from dbae_jax.configuration.config import from_config_dict, to_dict
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.evaluation import sample_files
from dbae_jax.runtime import files
from dbae_jax.workdirs import workdir
from tests.helpers import commands, tiny
from tests.helpers.paths import ROOT

HEAVY = ("tensorflow_datasets", "sklearn", "scipy", "matplotlib", "orbax", "flax", "grain", "optax")
QUICK = {
    "command": (["trian"], 2, "'trian' is not a command; did you mean 'train'?"),
    "mode": (["--config=digits", "--mode=eval"], 2, "did you mean 'evaluate'?"),
    "flag": (["train", "--wokdir=x"], 2, "Did you mean: workdir ?"),
    "flag of another command": (
        ["edit", "--config=digits", "--infer_endpoint"],
        2,
        "--infer_endpoint is a flag of interpolate, not of edit; leave the flag out.",
    ),
    "config": (["train", "--config=digitz"], 2, "did you mean 'digits'?"),
    "key": (["train", "--config=digits", "--config.sed=1"], 2, "did you mean 'seed'?"),
    "value": (["train", "--config=digits", "--config.seed=-1"], 2, "config.seed=-1"),
    "help": (["sample", "--help"], 0, "Usage: dbae sample [flags]"),
    "version": (["--version"], 0, f"dbae_jax {dbae_jax.__version__}, jax "),
}


@pytest.mark.parametrize("name", QUICK)
def test_wrong_words_and_help_are_answered_without_the_heavy_libraries(name):
    words, code, said = QUICK[name]
    program = (
        "import sys\n"
        f"sys.argv = ['dbae', *{words!r}]\n"
        "from dbae_jax import main\n"
        "code = 0\n"
        "try:\n    main.run()\n"
        "except SystemExit as error:\n    code = error.code\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr
    assert said in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_the_package_imports_its_names_at_their_first_use():
    assert all(getattr(dbae_jax, name) is not None for name in dbae_jax.__all__)
    assert dbae_jax.editing is editing and set(dbae_jax.__all__) <= set(dir(dbae_jax))
    with pytest.raises(AttributeError, match="no attribute 'DBEA'"):
        _ = dbae_jax.DBEA


def test_a_checkout_has_its_own_configs():
    program = "import dbae_jax.configs; print(dbae_jax.configs.__file__)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.strip() == str(ROOT / "configs" / "__init__.py"), done.stderr


def test_flags_agree_with_the_functions_that_they_are_for():
    assert main.FORMATS == sample_files.FORMATS and tuple(editing.METHODS) == main.METHODS
    for name, mode in main.MODES.items():
        module = importlib.import_module(f"dbae_jax.commands.{name}")
        assert set(filter(None, mode.flags.values())) <= set(
            inspect.signature(getattr(module, name)).parameters
        )


def test_a_command_is_its_mode():
    assert main.with_mode(["dbae", "edit", "--image=a"]) == ["dbae", "--mode=edit", "--image=a"]
    assert main.with_mode(["dbae", "--config=digits"]) == ["dbae", "--config=digits"]
    assert main.with_mode(["dbae"]) == ["dbae", "--help"]
    for words, said in (
        (["edti"], "did you mean 'edit'"),
        (["edit", "--mode", "train"], "takes no"),
    ):
        with pytest.raises(ConfigError, match=said):
            main.with_mode(["dbae", *words])


@pytest.mark.parametrize("name", main.MODES)
def test_help_of_a_command_has_its_own_flags_and_examples_that_it_accepts(name):
    text, mode = main.help_text(["dbae", f"--mode={name}"]), main.MODES[name]
    allowed = {*mode.flags, *mode.shared}
    shown = {line.split(":")[0][4:] for line in text.splitlines() if line.startswith("  --")}
    assert shown == {*allowed, "config.KEY=VALUE"}
    assert mode.about in text and mode.examples
    for example in mode.examples:
        assert f"  dbae {name} {example}" in text
        for word in shlex.split(example, comments=True):
            flag = word.removeprefix("--").partition("=")[0]
            assert flag in allowed or flag.startswith("config.")


def test_help_of_all_commands_names_them():
    text = main.help_text(["dbae", "--help"])
    assert all(f"  {name} " in text and mode.about in text for name, mode in main.MODES.items())


def test_a_reader_that_stops_reading_is_not_an_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dbae_jax", "--help"]
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_suggestions():
    assert suggestions.did_you_mean("evalute", main.MODES) == "did you mean 'evaluate'? "
    assert suggestions.did_you_mean("xyz", main.MODES) == ""


@pytest.mark.parametrize("flag", ["--init_from=runs/a", "--init_from runs/a"])
def test_a_short_form_sets_the_key_of_the_config(flag):
    given = ["dbae", *flag.split(), "--config=digits"]
    found = arguments.with_key_of_flag(given, "init_from", main.SHORT_FORMS["init_from"])
    assert found == [*given, "--config.train.init_from=runs/a"]
    assert arguments.with_key_of_flag(["dbae"], "init_from", "train.init_from") == ["dbae"]


@pytest.mark.parametrize("flag", ["--workdir={}", "--workdir {}"])
def test_the_config_of_a_workdir_is_read_where_none_is_given(flag, tmp_path):
    config = tiny.config(**{"model.latent_dim": 12, "seed": 3, "bridge.t_min": 0.01})
    given = ["dbae", *flag.format(tmp_path).split()]
    assert arguments.with_config_of_workdir(given) == given
    files.write_json(tmp_path / "config.json", to_dict(config))
    found = arguments.with_config_of_workdir(given)
    assert found == ["dbae", f"--config={tmp_path}/config.json", *given[1:]]
    _, path = arguments.resolve_configs(found)
    assert from_config_dict(config_files.load(path)) == config
    assert config_files.display(path) == f"{tmp_path}/config.json"
    for own in (["--config=digits"], ["--config", "digits"]):
        assert arguments.with_config_of_workdir([*given, *own]) == [*given, *own]


def test_keys_override_the_config_of_a_workdir(tmp_path):
    files.write_json(tmp_path / "config.json", to_dict(tiny.config(seed=3)))
    keys = ("latent_dim=9", "unet.channel_mult=(1,1)", "matmul_precision=highest")
    overrides = [f"--config.model.{key}" for key in keys] + ["--config.bridge.t_min=0.02"]
    done = commands.run("main", "train", f"--workdir={tmp_path}", "--dry_run", *overrides)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout[done.stdout.index("\n{") :])
    assert printed["model"]["latent_dim"] == 9 and printed["seed"] == 3
    assert printed["model"]["unet"]["channel_mult"] == [1, 1]
    assert printed["bridge"]["t_min"] == 0.02
    done = commands.run("main", "train", f"--workdir={tmp_path}", "--config.model.latent_dm=9")
    assert done.returncode == 2 and "did you mean 'latent_dim'?" in done.stderr


def test_the_name_of_a_plan_stands_for_the_whole_section():
    flags = ("--config=digits", "--dry_run", "--config.sample.sampler=sharp")
    done = commands.run("main", "evaluate", *flags)
    assert done.returncode == 0, done.stderr
    sample = json.loads(done.stdout[done.stdout.index("\n{") :])["sample"]
    assert (sample["sampler"], sample["steps"], sample["churn"]) == ("euler", 333, 0.33)
    done = commands.run("main", "evaluate", *flags, "--config.sample.steps=9")
    assert done.returncode == 2 and "leave out --config.sample.steps, or name" in done.stderr


def test_a_damaged_config_of_a_workdir_is_reported(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config.json cannot be loaded: JSONDecodeError"):
        arguments.resolve_configs(["dbae", f"--config={tmp_path}/config.json"])
    with pytest.raises(CheckpointError, match=r"config.json is no valid config"):
        workdir.changes(tmp_path, tiny.config())
    with pytest.raises(ConfigError, match="does not exist"):
        config_files.resolve(f"{tmp_path}/none/config.json")


def test_keys_that_change_between_two_starts_are_named(tmp_path):
    assert workdir.changes(tmp_path, tiny.config()) == []
    workdir.write_config(tmp_path, tiny.config())
    assert workdir.changes(tmp_path, tiny.config()) == []
    (change,) = workdir.changes(tmp_path, tiny.config(**{"optim.learning_rate": 0.5}))
    assert change.startswith("optim.learning_rate (") and "0.5 in this command" in change


def test_a_dry_run_begins_with_a_summary(tmp_path):
    lines = describe.describe(tiny.config()).splitlines()
    assert [line.partition(":")[0] for line in lines[:6]] == [
        *("Model", "Images", "Parameters", "FLOPs per image", "Training", "Memory")
    ]
    assert " steps per epoch of " in lines[4]
    absent = {"data.name": "celeba", "data.data_dir": str(tmp_path)}
    assert "steps per epoch unknown" in describe.describe(tiny.config(**absent))


def test_flags_of_the_processes_are_not_flags_of_a_plan():
    done = commands.run("main", "plan", "--config=digits", "--num_processes=2")
    assert done.returncode == 2 and "--num_processes is a flag of train, " in done.stderr
