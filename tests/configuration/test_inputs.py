"""Wrong commands: exit code 2, one clear sentence on stderr, nothing written."""

import copy
import importlib

import jax
import pytest
from dbae_jax.configs import base

from dbae_jax.commands import describe, train
from dbae_jax.configuration import arguments, build, config_files
from dbae_jax.configuration.config import from_config_dict, from_dict, to_dict, upgrade
from dbae_jax.errors import CheckpointError, ConfigError
from dbae_jax.sampling.plan import Plan
from dbae_jax.workdirs import workdir
from tests.helpers import commands, tiny

PAPER = ("celeba", "ffhq", "celebahq", "horse", "bedroom")


WRONG_COMMANDS = {
    "unknown key": (["--config.model.latent_dm=8"], "did you mean 'latent_dim'? allowed are"),
    "wrong type": (
        ["--config.model.latent_dim=many"],
        "config.model.latent_dim must be an integer",
    ),
    "value below": (["--config.train.batch_size=0"], "config.train.batch_size=0"),
    "no data": (["--config.data.name=mnist"], "config.data.name='mnist' is not prepared in"),
    "misspelled data": (["--config.data.name=digit"], "did you mean 'digits'?"),
    "no flag": (["train"], "'train' is not a flag"),
    "mode": (["--mode=dance"], "'dance' is not a command; the commands are train, "),
    "flag of another mode": (
        ["--seed=3"],
        "--seed is a flag of sample, not of train; leave the flag out, or set the seed",
    ),
    "missing workdir": (["--mode=evaluate"], "does not exist"),
    "suite": (
        ["--mode=evaluate", "--config.eval.suite=fid"],
        "'fid' is not a suite; there are the suites",
    ),
}


@pytest.mark.parametrize("name", WRONG_COMMANDS)
def test_wrong_commands_stop_with_a_sentence(name, tmp_path):
    flags, words = WRONG_COMMANDS[name]
    done = commands.run(
        "main", "--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", *flags
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_missing_flags_and_files(tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:")
    (tmp_path / "empty.py").write_text("")
    for flags, words in (
        ([f"--config={tmp_path / 'broken.py'}"], "cannot be loaded: SyntaxError"),
        ([f"--config={tmp_path / 'empty.py'}"], "has no function get_config"),
        (["--config", "configs/digits.py", "--config.sed=1"], "did you mean 'seed'?"),
        ([f"--workdir={tmp_path / 'run'}"], f"and --workdir={tmp_path}/run does not exist; name a"),
        ([f"--workdir={tmp_path / 'a' / 'b'}"], "/a/b does not exist; name a file such as"),
        ([f"--workdir={tmp_path / 'Broken.py'}"], f"(did you mean '{tmp_path}/broken.py'?); name"),
        ([f"--workdir={tmp_path}"], f"--config is missing, and {tmp_path} holds no config.json"),
        ([f"--workdir={tmp_path / 'empty.py'}"], "empty.py is a file; name a file such as"),
        (["--config=configs/digits.py"], "--workdir is missing"),
        (["--config=configs/nothing.py", f"--workdir={tmp_path / 'run'}"], "does not exist"),
        (["--config=celebb"], "name a file, or one of bedroom, celeba, celebahq"),
        (["--config=paper/generation:sharp"], "ValueError: 'sharp' is not a variant"),
    ):
        done = commands.run("main", *flags)
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    run = ("--config=configs/digits.py", f"--workdir={tmp_path / 'run'}")
    done = commands.run("convert", *run, cold=True)
    assert done.returncode == 2 and "Name one file, with --checkpoint" in done.stderr


def test_configs_by_name_and_in_any_folder(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from dbae_jax.configs import digits\n"
        "def get_config(width='3'):\n"
        "    c = digits.get_config()\n"
        "    c.model.latent_dim = int(width)\n"
        "    return c\n"
    )
    values = (("digits", 16), ("configs/digits.py", 16), (f"{own}", 3), (f"{own}:5", 5))
    for value, width in values:
        for flags in ([f"--config={value}"], ["--config", value]):
            found = arguments.resolve_configs(flags)[1]
            assert config_files.load(found).model.latent_dim == width
            assert config_files.display(found) == value
    assert "small" not in config_files.names() and "ffhq" in config_files.names()


WRONG_CONFIGS = {
    "size not a power of two": ({"data.image_size": 24}, "image_size=24 .* a power of two"),
    "size too small": ({"data.image_size": 8}, "16 or more"),
    "no channels": ({"data.channels": 0}, "channels=0"),
    "schedule": ({"bridge.schedule": "vpp"}, "one of vp, ve, vp_simple, ve_simple"),
    "negative time": ({"bridge.t_min": -1.0}, "t_min=-1.0 .* positive"),
    "times crossed": ({"bridge.t_min": 0.5, "bridge.t_max": 0.4}, "below t_max=0.4"),
    "covariance": ({"bridge.covariance": 0.5}, "data_std \\* endpoint_std = 0.25"),
    "latent width": ({"model.latent_dim": 0}, "latent_dim=0"),
    "dtype": ({"model.dtype": "float16"}, "float32, bfloat16"),
    "widths": ({"model.unet.base_channels": 40}, "multiple of 32"),
    "decoder width": ({"model.decoder.base_channels": 6}, "multiple of 4"),
    "pool": ({"model.encoder.pool": "max"}, "mean, flatten"),
    "attention at a size that no level has": (
        {"model.unet.attention_resolutions": (32,)},
        r"attention_resolutions=\(32,\) .* \[16\]",
    ),
    "cuDNN in float32": (
        {"model.attention": "cudnn"},
        "attention='cudnn' .* with config.model.dtype='bfloat16', not 'float32'",
    ),
    "heads too wide for cuDNN": (
        {"model.attention": "cudnn", "model.dtype": "bfloat16", "model.unet.head_channels": 256},
        "attention='cudnn' .*head_channels of at most 128, not 256",
    ),
    "too many levels": ({"model.unet.channel_mult": (1,) * 6}, "at most 5 levels"),
    "heads": ({"model.unet.head_channels": 24}, "head_channels=24 .* divisor of the 32 channels"),
    "dropout": ({"model.unet.dropout": 1.0}, r"dropout=1.0 .* \[0, 1\)"),
    "optimizer": ({"optim.optimizer": "sgd"}, "one of radam, adam"),
    "learning rate": ({"optim.learning_rate": 0.0}, "learning_rate=0.0 .* positive"),
    "clipping": ({"optim.grad_clip_norm": -1.0}, "0 for no clipping"),
    "ema": ({"optim.ema_decay": 1.0}, r"ema_decay=1.0 .* \[0, 1\)"),
    "checkpoints": ({"checkpoint.every_steps": 0}, "checkpoint.every_steps=0"),
    "sampler": ({"sample.sampler": "ddim"}, "one of euler, heun, dbim"),
    "steps": ({"sample.steps": 0}, "sample.steps=0"),
    "churn": ({"sample.churn": 1.0}, r"churn=1.0 .* \[0, 1\)"),
    "grid": ({"sample.grid": "cosine"}, "one of karras, uniform"),
    "churn of dbim": (
        {"sample.sampler": "dbim", "sample.churn": 0.3},
        "0 except for euler and heun",
    ),
    "eta of heun": ({"sample.sampler": "heun", "sample.eta": 0.3}, "0 except for dbim"),
    "boot of heun": ({"sample.sampler": "heun", "sample.boot": True}, "boot=True"),
    "one image": ({"eval.num_images": 1}, "2 or more, or 0 for all"),
    "weights in bfloat16": ({"model.param_dtype": "bfloat16"}, "one of float32"),
    "decoder too narrow": (
        {"data.image_size": 1024, "model.decoder.base_channels": 4},
        "a multiple of .*image_size=1024",
    ),
    "seed": ({"seed": -1}, "seed=-1"),
    "prior layers": ({"prior.num_layers": 1}, "prior.num_layers=1"),
    "prior beta": ({"prior.beta": 1.0}, r"prior.beta=1.0 .* \(0, 1\)"),
    "prior sampler": ({"prior.sampler": "euler"}, "one of ancestral, ddim"),
    "no seeds": ({"eval.seeds": 0}, "eval.seeds=0"),
    "validation share": ({"eval.validation_share": 1.0}, r"validation_share=1.0 .* \(0, 1\)"),
    "probe's rate": ({"eval.probe_learning_rate": 0.0}, "probe_learning_rate=0.0 .* positive"),
    "draws of z": ({"eval.sample_codes": True}, "sample_codes=True .* False for a deterministic"),
    "cuDNN in deterministic steps": (
        {"model.attention": "cudnn", "model.dtype": "bfloat16", "train.deterministic": True},
        "attention='cudnn' .* 'auto' or 'xla' for config.train.deterministic=True",
    ),
    "preset": ({"eval.fid_preset": "best"}, "one of , diffae, infodiff10k-clean, adm"),
    "preset alone": ({"eval.fid_preset": "adm"}, "empty unless .*inception is True"),
    "prior steps": ({"prior.sample_steps": 21}, "1 to timesteps=20"),
}


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_wrong_configs_name_the_key_and_what_is_allowed(name):
    overrides, words = WRONG_CONFIGS[name]
    with pytest.raises(ConfigError, match=words) as caught:
        tiny.config(**overrides)
    assert str(caught.value).startswith("config.") and "\n" not in str(caught.value)


def test_the_default_precision_is_that_of_jax():
    """Users set it with JAX_DEFAULT_MATMUL_PRECISION. A config's own value comes before it."""
    config = tiny.config()
    assert config.model.precision == build.make_networks(config).precision == "default"
    with jax.default_matmul_precision("highest"):
        assert config.model.precision == build.make_networks(config).precision == "highest"
        assert tiny.config(**{"model.matmul_precision": "high"}).model.precision == "high"


def test_unknown_missing_and_mistyped_keys_in_a_config_file():
    good = to_dict(tiny.config())
    assert to_dict(from_dict(good)) == good
    with pytest.raises(ConfigError, match=r"config\.model\.depth is not a key"):
        from_dict(good | {"model": good["model"] | {"depth": 3}})
    with pytest.raises(ConfigError, match=r"config\.seed is missing"):
        from_dict({key: value for key, value in good.items() if key != "seed"})
    with pytest.raises(ConfigError, match=r"config\.seed must be int, got '0' \(str\)"):
        from_dict(good | {"seed": "0"})
    with pytest.raises(ConfigError, match=r"config\.train must be a section"):
        from_dict(good | {"train": 3})
    mult = good["model"]["unet"] | {"channel_mult": (1, 2.5)}
    with pytest.raises(ConfigError, match=r"channel_mult\[1\] must be int"):
        from_dict(good | {"model": good["model"] | {"unet": mult}})


def test_the_plan_that_a_name_means_depends_on_the_training():
    assert tiny.config(**{"sample.sampler": "sharp"}).sample == Plan("euler", 333, churn=0.33)
    assert tiny.config(**{"sample.sampler": "accurate"}).sample == Plan("dbim", 5, "lambda")
    assert tiny.config(**tiny.DISTILLED).sample == Plan("consistency", 2, "near_end")


def test_overrides_are_explained():
    config = tiny.config_dict()

    def explain(flag):
        return arguments.explain_overrides(["prog", flag], config)

    assert explain("--config.model.latent_dim=3") is None
    assert explain("--config.model.unet.channel_mult=(1,2)") is None
    assert "config.modle is not a key; did you mean 'model'?" in explain("--config.modle.x=3")
    assert "config.seed is a value" in explain("--config.seed.x=3")
    assert "is a section" in explain("--config.model=3")
    assert "must be True or False" in explain("--config.model.stochastic=maybe")
    assert "must be a tuple" in explain("--config.model.unet.channel_mult=(1,")
    assert explain("--config.train.trackers=tensorboard") is None
    assert explain("--config.model.stochastic") is None
    assert arguments.explain_overrides(["--config.seed", "3"], config) is None


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"batch_size=12 .* by 8 devices; use 8 or 16"):
        train.train(tiny.config(**{"train.batch_size": 12}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workdirs_that_are_none(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    wrong = (("file", "is a file"), ("file/run", "is a file"), ("mine", "no run of dbae_jax"))
    for name, words in wrong:
        with pytest.raises(CheckpointError, match=words):
            train.train(tiny.config(), tmp_path / name)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_workdir_whose_run_was_killed_at_its_first_file_is_one(tmp_path):
    (tmp_path / "config.json.tmp").write_text("{")
    assert workdir.check_usable(tmp_path) is None
    (tmp_path / "config.json.tmp").rename(tmp_path / "other.json.tmp")
    with pytest.raises(CheckpointError, match=r"other files, such as other.json.tmp; .*/run"):
        workdir.check_usable(tmp_path)


def test_a_new_workdir_may_hold_logs_and_hidden_files(tmp_path):
    for name in ("slurm-12.out", "train.log", "nohup.err", ".lock", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / "logs").mkdir()
    assert workdir.check_usable(tmp_path) is None


def test_a_file_for_figures_that_cannot_be_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "f.json", "is a file")):
        done = commands.run("main", "--config=configs/digits.py", "--mode=plan", f"--json={path}")
        assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_channels_that_the_data_do_not_have(tmp_path):
    with pytest.raises(ConfigError, match=r"data.channels=3 .* digits has 1"):
        train.train(tiny.config(**{"data.channels": 3}), tmp_path / "run")


def test_dry_run_prints_and_writes_nothing(tmp_path):
    done = commands.run(
        "main", "--config=configs/digits.py", "--dry_run", f"--workdir={tmp_path / 'run'}"
    )
    assert done.returncode == 0, done.stderr
    assert '"latent_dim": 16' in done.stdout and "unet/conv_in/kernel" in done.stdout
    assert not (tmp_path / "run").exists()


def _config(name):
    return from_config_dict(importlib.import_module(f"configs.{name}").get_config())


def test_the_papers_models_of_128_pixels_are_the_same():
    assert {_config(name).model for name in PAPER[1:]} == {_config("ffhq").model}
    assert {_config(name).data.image_size for name in PAPER[1:]} == {128}


@pytest.mark.parametrize("name", PAPER[:2])
def test_the_papers_models_have_its_parameters_and_cost(name):
    text = describe.describe(_config(name))
    celeba = name == "celeba"
    # The unused block of released checkpoints (0.04M) aside, as published.
    assert f"Parameters: {'120.6M' if celeba else '162.4M'}" in text
    assert f"{'40.0 G' if celeba else '186.6 G'} for one forward pass" in text
    assert f'"name": "{name}"' in text


def test_from_config_dict_reads_what_command_lines_override():
    c = tiny.config_dict()
    c.update_from_flattened_dict({"model.unet.channel_mult": [1, 1], "bridge.t_max": 2})
    config = from_config_dict(c)
    assert config.model.unet.channel_mult == (1, 1)
    assert config.bridge.t_max == 2.0


def test_configs_saved_before_a_key_was_added_are_read():
    whole, defaults = to_dict(tiny.config()), to_dict(from_config_dict(base.get_config()))
    older = copy.deepcopy(whole)
    del older["prior"], older["bridge"]["endpoint"], older["model"]["encoder"]["pool"]
    with pytest.raises(ConfigError, match="is missing"):
        from_dict(older)
    upgraded = to_dict(from_dict(upgrade(older)))
    assert upgraded["prior"] == defaults["prior"] != whole["prior"]
    assert upgraded["bridge"]["endpoint"] == "decoded"
    assert upgraded["model"]["encoder"] == whole["model"]["encoder"] | {"pool": "mean"}
    assert "endpoint" not in older["bridge"]
    assert upgrade(whole) == whole


def test_overrides_with_odd_characters_are_explained():
    loaded = config_files.load(config_files.resolve("digits"))
    for text, words in (
        ("seed=1\nx", "config.seed must be an integer, got '1\\nx'."),
        ("=1", "config. is not a key;"),
        ("data\n.name=a", "config.data\n is not a key;"),
        ("model.latent_dim", "config.model.latent_dim must be an integer, got no value."),
    ):
        assert words in arguments.explain_overrides([f"--config.{text}"], loaded)
