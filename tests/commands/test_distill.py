"""Distillation: what stays of the teacher, resumption, and the model that results."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

import dbae_jax
from dbae_jax import convert
from dbae_jax.api import directions
from dbae_jax.commands import (
    distill,
    edit,
    evaluate,
    same_codes,
    sample,
    train,
    train_prior,
)
from dbae_jax.configuration.config import from_dict
from dbae_jax.configuration.distillation import distilled as config_of
from dbae_jax.errors import CheckpointError, ConfigError, PreemptedError
from dbae_jax.evaluation import dataset_classifier, results
from dbae_jax.prior import prior
from dbae_jax.runtime import sharding
from dbae_jax.training.jitted_step import make_training
from dbae_jax.workdirs import checkpoint, records, workdir
from tests.helpers import commands, tiny
from tests.helpers.tiny import DISTILL

STEPS = DISTILL["distill.num_steps"]
STEP = np.arange(8, dtype=np.float32)  # the direction of the digit 7


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The workdir of a model with drawn weights, a prior of four steps, and a direction."""
    directory = tmp_path_factory.mktemp("teacher") / "run"
    config = tiny.config(**DISTILL)
    tiny.write_workdir(config, directory, step=3)
    train_prior.train_prior(config, directory)
    whose = dbae_jax.DBAE.load(directory).encoder_fingerprint
    directions.save(directory, "digits", whose, {"7": STEP})
    return directory


@pytest.fixture(scope="module")
def training():
    """The compiled training step, which all runs share."""
    return make_training(config_of(tiny.config(**DISTILL), "teacher"), sharding.make_mesh())


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(training):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "make_training", lambda config, mesh: training)
        yield


@pytest.fixture(scope="module")
def sharp(teacher, tmp_path_factory):
    """The workdir of the distilled model."""
    directory = tmp_path_factory.mktemp("sharp") / "run"
    distill.distill(tiny.config(**DISTILL), directory, str(teacher))
    return directory


@pytest.fixture
def sharp_copy(sharp, tmp_path):
    return shutil.copytree(sharp, tmp_path / "copy")


def _config(directory):
    """The config that commands read without --config."""
    return from_dict(json.loads((directory / "config.json").read_text()))


def _same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def _state(directory, training, step):
    abstract = sharding.placed(
        jax.eval_shape(training.init, jax.random.key(0)), sharding.replicated(training.mesh)
    )
    return checkpoint.read_state(directory, step, abstract)


def test_encoder_and_endpoint_decoder_are_the_teachers_bit_for_bit(teacher, sharp):
    before = workdir.load(teacher).variables
    for which in ("raw", "ema"):
        after = workdir.load(sharp, which).variables
        for part in ("encoder", "decoder"):
            assert _same(before["params"][part], after["params"][part]), (which, part)
        assert _same(before["stats"], after["stats"]), which
        assert not _same(before["params"]["unet"], after["params"]["unet"])
    images = tiny.images(3)
    models = [dbae_jax.DBAE.load(directory) for directory in (teacher, sharp)]
    z, same = (model.encode(images) for model in models)
    np.testing.assert_array_equal(z, same)
    np.testing.assert_array_equal(*(model.endpoint(z) for model in models))
    assert models[0].encoder_fingerprint == models[1].encoder_fingerprint
    assert models[0].fingerprint != models[1].fingerprint


def _stop(monkeypatch, step, *, saved):
    """Stops a run after a step: saved, as by SIGTERM, or not, as by SIGKILL."""
    if saved:
        monkeypatch.setattr(checkpoint.Writer, "preempted", lambda self, at: at == step)
        return PreemptedError

    class Killed(BaseException):
        pass

    def preempted(self, at):
        if at == step:
            raise Killed

    monkeypatch.setattr(checkpoint.Writer, "preempted", preempted)
    return Killed


@pytest.mark.parametrize("saved", [True, False], ids=["stopped", "killed"])
def test_a_distillation_resumes_bit_for_bit(teacher, sharp, training, tmp_path, monkeypatch, saved):
    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        error = _stop(patch, 3, saved=saved)
        with pytest.raises(error):
            distill.distill(tiny.config(**DISTILL), directory, str(teacher))
    assert checkpoint.steps(directory) == ([2, 3] if saved else [2])
    # As `dbae distill --workdir=...` does, and with the teacher out of reach.
    monkeypatch.setattr(train.loading, "arguments", None)
    distill.distill(_config(directory), directory)
    whole, resumed = (_state(of, training, STEPS) for of in (sharp, directory))
    assert _same(whole.variables, resumed.variables)
    assert _same(whole.ema, resumed.ema)
    assert _same(whole.opt_state, resumed.opt_state)


def test_a_start_that_was_killed_before_its_first_checkpoint(
    teacher, sharp, training, tmp_path, monkeypatch
):
    """It starts anew, and takes no prior of another model for that of its teacher."""
    directory = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(_stop(patch, 1, saved=False)):
        distill.distill(tiny.config(**DISTILL), directory, str(teacher))
    assert not checkpoint.steps(directory) and checkpoint.steps(directory / prior.FOLDER)
    tiny.write_workdir(tiny.config(**DISTILL), tmp_path / "other", seed=1)
    for data in ({}, {"data.crop": "d2c"}):  # the prior of a model of other data is not copied
        with pytest.raises(CheckpointError, match="has the latent prior of another model"):
            distill.distill(tiny.config(**DISTILL | data), directory, str(tmp_path / "other"))
    distill.distill(tiny.config(**DISTILL), directory, str(teacher))
    whole, resumed = (_state(of, training, STEPS) for of in (sharp, directory))
    assert _same(whole.variables, resumed.variables)


def test_a_start_that_was_killed_while_it_copied(teacher, sharp, training, tmp_path, monkeypatch):
    directory = tmp_path / "run"

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(same_codes, "_copy_directions", killed)
        distill.distill(tiny.config(**DISTILL), directory, str(teacher))
    distill.distill(tiny.config(**DISTILL), directory, str(teacher))
    whole, resumed = (_state(of, training, STEPS) for of in (sharp, directory))
    assert _same(whole.variables, resumed.variables)


def test_a_distillation_writes_finite_diagnostics(sharp):
    (found,) = [row for row in records.read(sharp) if "code_gap" in row]
    assert found["step"] == STEPS and np.isfinite(found["code_gap"])
    assert 0 < found["eval_loss"] < np.inf


def test_the_model_says_what_it_is_and_decodes_with_its_own_sampler(teacher, sharp):
    model = dbae_jax.DBAE.load(sharp)
    assert f"teacher {teacher}" in model.summary()
    origin = checkpoint.read_meta(sharp, STEPS)[workdir.ORIGIN]
    assert origin["name"] == str(teacher) and origin["step"] == 3
    assert origin["fingerprint"] == dbae_jax.DBAE.load(teacher).fingerprint
    assert model.config.sample.sampler == "consistency" and model.config.train.batch_size == 8
    assert model.nfe() == 2 and model.nfe(steps=1) == 1 and model.nfe(sampler="dbim") == 5
    z = model.encode(tiny.images(2))
    first, again, other = (model.decode(z, rng=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(model.decode(z, rng=1, steps=1), model.decode(z, steps=1))
    assert dbae_jax.DBAE.load(teacher).nfe() == 5


def test_the_prior_and_the_directions_of_the_teacher_serve(teacher, sharp_copy, tmp_path, caplog):
    config = _config(sharp_copy)
    meta = checkpoint.read_meta(sharp_copy / prior.FOLDER, 4)
    variables = dbae_jax.DBAE.load(teacher).variables
    assert meta["autoencoder"] == prior.identity_of(3, variables)
    assert meta["copied_from"] == str(teacher)
    out = sample.sample(config, sharp_copy, num=3, out=tmp_path / "samples")
    assert len(list(out.glob("0*.png"))) == 3
    ours, theirs = (dbae_jax.DBAE.load(directory) for directory in (sharp_copy, teacher))
    np.testing.assert_array_equal(ours.sample_codes(3, 5), theirs.sample_codes(3, 5))
    np.testing.assert_array_equal(ours.directions["7"], STEP)
    with caplog.at_level("INFO", logger="dbae_jax"):
        train_prior.train_prior(config, sharp_copy)
    assert "has taken 4 steps already" in caplog.text


def test_the_classifier_of_the_data_is_copied(teacher, tmp_path, caplog):
    evaluated = shutil.copytree(teacher, tmp_path / "evaluated")
    kept = dataset_classifier.file_of(evaluated / directions.CACHE, "digits")
    kept.write_bytes(b"a classifier")
    with caplog.at_level("INFO", logger="dbae_jax"):
        distill.distill(tiny.config(**DISTILL), tmp_path / "run", str(evaluated))
    copied = dataset_classifier.file_of(tmp_path / "run" / directions.CACHE, "digits")
    assert copied.read_bytes() == b"a classifier"
    assert "The classifier of digits is copied" in caplog.text


def test_a_resumed_distillation_takes_its_teacher_in_any_spelling(teacher, sharp_copy, caplog):
    with caplog.at_level("INFO", logger="dbae_jax"):
        state = distill.distill(_config(sharp_copy), sharp_copy, f"{teacher}/../{teacher.name}")
    assert int(state.step) == STEPS
    assert "has taken 4 steps already. To distil longer, name a new workdir" in caplog.text
    assert "has no effect on it" not in caplog.text


def test_directions_are_not_found_again(teacher, tmp_path, caplog):
    told, directory = shutil.copytree(teacher, tmp_path / "told"), tmp_path / "run"
    (told / directions.CACHE / "digits_directions.npz").unlink()
    config, ask = tiny.config(**DISTILL), {"attribute": "7", "image": "1", "scales": ["1"]}
    edit.edit(config, told, **ask)
    distill.distill(config, directory, str(told))
    caplog.clear()
    with caplog.at_level("INFO", logger="dbae_jax"):
        path = edit.edit(_config(directory), directory, **ask)
    assert path.exists() and "Finding" not in caplog.text
    found = [dbae_jax.DBAE.load(each).directions["7"] for each in (told, directory)]
    np.testing.assert_array_equal(*found)


def test_a_teacher_with_neither_and_one_of_other_images(teacher, tmp_path, caplog):
    bare, other = tmp_path / "bare", tmp_path / "other"
    tiny.write_workdir(tiny.config(**DISTILL), bare)
    with caplog.at_level("INFO", logger="dbae_jax"):
        distill.distill(tiny.config(**DISTILL), tmp_path / "run", str(bare))
    assert "No latent prior is copied. The model in" in caplog.text
    assert "No directions of attributes are copied. There are no" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", logger="dbae_jax"):
        changed = tiny.config(**DISTILL, **{"data.crop": "d2c"})
        distill.distill(changed, other, str(teacher))
    assert "is copied, since its data differ: data.crop (" in caplog.text
    assert not (other / prior.FOLDER).exists()
    with pytest.raises(CheckpointError, match="no latent prior to sample from"):
        sample.sample(_config(other), other, num=1)


def test_evaluation_measures_the_sampler_of_the_model(sharp_copy):
    config = _config(sharp_copy)
    evaluation = dataclasses.replace(config.eval, suite="reconstruction", seeds=2)
    evaluate.evaluate(dataclasses.replace(config, eval=evaluation), sharp_copy)
    found = results.read(sharp_copy)["results"]["reconstruction/digits"]
    assert found["settings"]["sampler"]["sampler"] == "consistency"
    assert found["settings"]["nfe"] == 2 and found["settings"]["seeds"] == 2
    assert found["scores"]["mse"]["std"] > 0
    with pytest.raises(ConfigError, match=r"is distilled, and .* Leave --config out"):
        evaluate.evaluate(tiny.config(**DISTILL, **{"train.batch_size": 8}), sharp_copy)


def test_conversion_to_the_authors_format_is_refused_and_packing_is_not(teacher, sharp, tmp_path):
    with pytest.raises(CheckpointError, match=rf"is distilled: .* its teacher, {teacher}, which"):
        convert.from_workdir(sharp, tmp_path / "ema.safetensors")
    assert not list(tmp_path.iterdir())
    convert.pack(sharp, tmp_path / "sharp.safetensors")
    packed = dbae_jax.DBAE.load(tmp_path / "sharp.safetensors")
    assert packed.nfe() == 2 and packed.sample(2, 0).shape == (2, 16, 16, 1)
    assert "teacher run\n" in packed.summary() + "\n"  # the name of the folder alone
    again = tmp_path / "again"
    convert.unpack(str(tmp_path / "sharp.safetensors"), again)
    assert dbae_jax.DBAE.load(again).nfe() == 2
    with pytest.raises(ConfigError, match=r"is not the teacher of the run in .* from run\. "):
        distill.distill(_config(again), again, str(sharp))
    distill.distill(_config(again), again)  # from step 0, with a new optimizer
    assert checkpoint.steps(again)[-1] == STEPS


def test_released_weights_are_distilled(teacher, tmp_path):
    path, directory = tmp_path / "teacher.safetensors", tmp_path / "run"
    convert.pack(teacher, path)
    distill.distill(tiny.config(**DISTILL), directory, str(path))
    model, released = (dbae_jax.DBAE.load(each) for each in (directory, path))
    np.testing.assert_array_equal(model.encode(tiny.images(2)), released.encode(tiny.images(2)))
    np.testing.assert_array_equal(model.sample_codes(2, 0), released.sample_codes(2, 0))
    np.testing.assert_allclose(model.directions["7"], STEP, atol=1e-2)


def test_a_converted_model_with_the_ve_bridge_is_distilled_in_bfloat16(tmp_path, monkeypatch):
    other = {"bridge.schedule": "ve", "model.dtype": "bfloat16", "model.encoder.pool": "mean"}
    config = tiny.config(**DISTILL | other | {"distill.num_steps": 2})
    tiny.write_workdir(config, tmp_path / "ours")
    convert.from_workdir(tmp_path / "ours", tmp_path / "theirs.safetensors")
    convert.to_workdir(tmp_path / "theirs.safetensors", config, tmp_path / "converted")
    monkeypatch.setattr(train, "make_training", make_training)  # of this config
    distill.distill(config, tmp_path / "run", str(tmp_path / "converted"))
    before, after = (workdir.load(tmp_path / name).variables for name in ("ours", "run"))
    for part in ("encoder", "decoder"):
        assert _same(before["params"][part], after["params"][part])
    unets = [jax.tree.leaves(tree["params"]["unet"]) for tree in (before, after)]
    assert all(np.isfinite(leaf).all() for leaf in unets[1])
    assert not all(map(np.array_equal, *unets))
    model = dbae_jax.DBAE.load(tmp_path / "run")
    decoded = model.decode(model.encode(tiny.images(2)), rng=0)
    assert model.nfe() == 2 and np.isfinite(decoded).all()


def test_what_cannot_be_distilled_is_refused(teacher, sharp, tmp_path, monkeypatch):
    config = tiny.config(**DISTILL)
    with pytest.raises(ConfigError, match="--teacher is missing"):
        distill.distill(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="is the workdir itself"):
        distill.distill(config, teacher, str(teacher))
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="is the workdir itself"):
        patch.chdir(tmp_path)  # where no folder has the name of the weights yet
        distill.distill(config, tmp_path / "digits", "digits")
    free = tiny.config(**DISTILL, **{"bridge.endpoint": "free", "bridge.beta_d": 19.9})
    with pytest.raises(ConfigError, match="a model with Gaussian x_T cannot be distilled"):
        distill.distill(free, tmp_path / "run", str(teacher))
    for flag, words in (
        ({"bridge.schedule": "vp_simple"}, "'vp' or 've' for a distillation, because"),
        ({"distill.stages": 24}, r"stages=24 with config.distill.q=2 is not .* at most 65536"),
        ({"distill.stages": 2500}, r"stages=2500 with config.distill.q=2 is not .* at most 65536"),
        ({"distill.stages": 5}, "stages=5 with config.distill.num_steps=4 is not .* at most num"),
    ):
        with pytest.raises(ConfigError, match=words):
            distill.distill(tiny.config(**DISTILL | flag), tmp_path / "run", str(teacher))
    with pytest.raises(ConfigError, match=f"is a distilled model itself. Name .* from, {teacher}"):
        distill.distill(config, tmp_path / "run", str(sharp))
    with pytest.raises(ConfigError, match=f"is not the teacher of the run in .* from {teacher}"):
        distill.distill(_config(sharp), sharp, "digits")
    with pytest.raises(ConfigError, match="a divisor of batch_size=8"):
        distill.distill(
            tiny.config(**DISTILL, **{"train.accumulation_steps": 16}),
            tmp_path / "run",
            str(teacher),
        )
    with pytest.raises(ConfigError, match=r"train.objective \('consistency' in the workdir"):
        train.train(tiny.config(**DISTILL, **{"train.batch_size": 8}), sharp)
    with pytest.raises(ConfigError, match=r"distill.batch_size \(8 in the workdir, 4 in this"):
        distill.distill(tiny.config(**DISTILL | {"distill.batch_size": 4}), sharp, str(teacher))
    for flag in ({"bridge.beta_d": 1.0}, {"model.latent_dim": 4}):
        with pytest.raises(
            ConfigError, match=rf"teacher {teacher} is another one: {next(iter(flag))} \(.* of the"
        ):
            distill.distill(tiny.config(**DISTILL, **flag), tmp_path / "run", str(teacher))
    with pytest.raises(CheckpointError, match="There is no workdir nowhere"):
        distill.distill(config, tmp_path / "run", "nowhere")
    assert not list(tmp_path.iterdir())


def test_commands(teacher, sharp, tmp_path):
    flags = [f"--teacher={teacher}", "--config.distill.num_steps=7"]
    said = commands.run("main", "--mode=distill", *flags, "--dry_run")
    assert said.returncode == 0 and "Training: 7 steps of 8 images" in said.stdout, said.stderr
    assert '"objective": "consistency"' in said.stdout
    said = commands.run("main", "--mode=distill", *flags, "--config.train.num_steps=7")
    assert said.returncode == 2 and "Set --config.distill.num_steps instead" in said.stderr
    new = ("main", "--mode=distill", f"--workdir={tmp_path / 'run'}")
    for flag, words in (
        ([], "--config is missing"),
        (["--teacher=digit"], "There is no workdir digit, .* did you mean 'digits'"),
        (["--teacher=digits"], "--config is missing, which the teacher digits needs"),
        ([f"--teacher={tmp_path}"], "holds no config.json of a run; name another model"),
    ):
        said = commands.run(*new, *flag)
        assert said.returncode == 2 and re.search(words, said.stderr), said.stderr
    said = commands.run("main", "--mode=plan", *flags[:1], "--topology=nowhere")
    assert said.returncode == 2 and "nowhere" in said.stderr
    said = commands.run("main", "--mode=train", f"--workdir={sharp}")
    assert said.returncode == 2 and "`dbae distill --workdir=WORKDIR` resumes" in said.stderr
    said = commands.run("main", "--mode=train", "--config=digits", f"--teacher={teacher}")
    assert said.returncode == 2 and "--teacher is a flag of distill, plan, not" in said.stderr
