"""The configs of the paper's evaluations, and its published scores next to those of a model."""

import functools
import importlib
import os
import subprocess
import sys

import pytest
from dbae_jax.configs import celeba, ffhq

from dbae_jax.commands import trained_model
from dbae_jax.configuration.config import from_config_dict, to_dict
from dbae_jax.evaluation import registry
from dbae_jax.evaluation.results import score
from dbae_jax.report import paper
from dbae_jax.workdirs import workdir
from tests.helpers.paths import ROOT

FOLDER = ROOT / "configs" / "paper"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "variants"))
MODELS = {"celeba": celeba, "ffhq": ffhq}  # the file name of a config names its model


def _load(name, variant=""):
    module = importlib.import_module(f"configs.paper.{name}")
    return from_config_dict(module.get_config(variant))


def _trained_on(name):
    return "celeba" if "celeba_" in name or name == "disentanglement" else "ffhq"


@pytest.mark.parametrize("name", NAMES)
def test_every_config_fits_the_model_it_is_for(name):
    """It can evaluate a model of configs/celeba.py or configs/ffhq.py."""
    for variant in ("", "stochastic"):
        config = _load(name, variant)
        trained = MODELS[_trained_on(name)].get_config()
        trained.model.stochastic = config.model.stochastic
        if name == "disentanglement":  # its model has its own latent dimension
            trained.model.latent_dim = 32
        saved = to_dict(from_config_dict(trained))
        assert not workdir.differing(saved, config, trained_model.OF_MODEL), name
        assert set(registry.asked_for(config.eval.suite)) and config.eval.num_images == 0


def test_variants_set_what_their_names_say():
    assert not _load("table1_celeba_attributes").model.stochastic
    sampled = _load("table1_ffhq_lfw", "sampled")
    assert sampled.model.stochastic and sampled.eval.sample_codes and not sampled.data.flip
    means = _load("table1_ffhq_lfw", "stochastic")
    assert (means.eval.label, sampled.eval.label) == ("", "sampled")
    both = _load("table2_reconstruction", "sampled,sde")
    assert both.eval.label == "sde-sampled" and both.eval.sample_codes and both.sample.churn
    ode, sde = (_load("table2_reconstruction", v) for v in ("", "sde,stochastic"))
    assert (ode.sample.sampler, ode.sample.steps, ode.eval.label) == ("euler", 100, "ode")
    assert (sde.sample.churn, sde.eval.label, sde.model.stochastic) == (0.33, "sde", True)
    for variant, words in (
        ("slow", "'slow' is not a variant; there are ode, sde"),
        ("ode,sde", "excl"),
    ):
        with pytest.raises(ValueError, match=words):
            _load("table2_reconstruction", variant)


@pytest.mark.parametrize("variant", ["stochastic,sde", "fast"])
def test_variants_on_the_command_line(variant, tmp_path):
    """Configs import each other when the command runs in a different folder."""
    path = FOLDER / "table2_reconstruction.py"
    command = [sys.executable, "-m", "dbae_jax.main", f"--config={path}:{variant}", "--dry_run"]
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "dbae_jax").symlink_to(ROOT / "dbae_jax")  # the package, without configs
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    if variant == "fast":
        assert done.returncode == 2 and "'fast' is not a variant" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert '"churn": 0.33' in done.stdout and '"stochastic": true' in done.stdout


def test_published_scores():
    found = {(q.trained_on, q.name, q.data): q.published for q in paper.QUANTITIES}
    assert found["celeba", "AP", "celeba"]["DBAE"] == 0.655
    assert found["ffhq", "Pearson r", "lfw"]["DBAE-d"] == 0.638
    assert found["ffhq", "MSE", "lfw"]["DiTi"] == 0.384
    assert found["ffhq", "MSE", "celebahq"]["PDAE, inferred x_T"] == 3.84e-5
    assert found["ffhq", "SSIM", "celebahq"]["DBAE-d"] == 0.953
    assert len(found) == len(paper.QUANTITIES) == 9
    for quantity in paper.QUANTITIES:
        assert set(quantity.published) >= {"DBAE", "DBAE-d", "DiffAE", "PDAE"}


SAMPLER = {"sampler": "heun", "grid": "karras", "steps": 167, "churn": 0.33, "eta": 0.0}
MODEL = {"step": 9, "stochastic": True, "latent_dim": 512, "image_size": 128}


def _entry(suite, data, label="", **scores):
    settings = {"sample_codes": "sampled" in label}
    settings |= {"sampler": SAMPLER, "nfe": 333} if suite == "reconstruction" else {}
    entry = {"suite": suite, "data": data, "scores": scores, "settings": settings}
    entry["counts"] = {"test": 3000}
    return entry | ({"label": label} if label else {})


def test_scores_of_a_model_next_to_published_scores():
    low, celebahq = functools.partial(score, better="lower"), ("reconstruction", "celebahq")
    found = {
        "model": MODEL,
        "results": {
            "probe/lfw": _entry("probe", "lfw", r=score([0.5, 0.7], "higher")),
            "reconstruction/celebahq:sde": _entry(*celebahq, "sde", lpips=low(0.1), mse=low(9)),
            "reconstruction/celebahq": _entry(*celebahq, mse=low(0.5), lpips=low(3)),
        },
    }
    rows = {(r.quantity.name, r.quantity.data, r.score): r for r in paper.compare(found, "ffhq")}
    r = rows["Pearson r", "lfw", "r"]
    assert r.value == pytest.approx(0.6) and r.std == pytest.approx(0.02**0.5)
    assert r.method == "DBAE" and r.quantity.published[r.method] == 0.675
    assert rows["AP", "celeba", "ap"].value is None
    assert rows["LPIPS", "celebahq", "lpips"].value == 0.1  # of the SDE
    assert rows["MSE", "celebahq", "mse"].value == 0.5  # never of the SDE
    assert rows["SSIM", "celebahq", "ssim_swapped_axes"].value is None
    how = rows["LPIPS", "celebahq", "lpips"].how
    assert (
        how
        == "3,000 images, heun on the karras grid, churn 0.33, 333 network evaluations, label sde"
    )
    assert r.how == "3,000 images" and rows["AP", "celeba", "ap"].how == ""
    small = found | {"model": MODEL | {"image_size": 64}}
    assert {r.quantity.trained_on for r in paper.compare(small, "celeba")} == {"celeba"}
    assert paper.compare(found, "digits") == []


def test_sampled_z_comes_first_as_in_the_paper():
    found = {"model": MODEL, "results": {}}
    for label, ode, value in (("", "ode", 0.5), ("sampled", "ode-sampled", 0.6)):
        low, high = score(value, "lower"), score(value, "higher")
        found["results"][label] = _entry("probe", "celeba", label, ap=high)
        found["results"][ode] = _entry("reconstruction", "celebahq", ode, mse=low)
    rows = {(r.quantity.name, r.score): r for r in paper.compare(found, "ffhq")}
    assert rows["AP", "ap"].value == rows["MSE", "mse"].value == 0.6
    assert rows["AP", "ap"].how == "3,000 images, sampled z, label sampled"


def test_a_diffae_is_compared_with_the_papers_diffae():
    entries = {"probe/lfw": _entry("probe", "lfw", r=score(0.5, "higher"))}
    model = MODEL | {"stochastic": False, "endpoint": "free"}
    (row,) = (
        row
        for row in paper.compare({"model": model, "results": entries}, "ffhq")
        if row.value is not None
    )
    assert row.method == "DiffAE" and row.quantity.published[row.method] == 0.606


@pytest.mark.parametrize(
    "other",
    [{"latent_dim": 32}, {"image_size": 64}, {"image_size": None}, {"endpoint": "free"}],
)
def test_models_of_a_different_kind_are_not_compared_with_the_paper(other):
    entries = {"probe/lfw": _entry("probe", "lfw", r=score(0.5, "higher"))}
    assert paper.compare({"model": MODEL, "results": entries}, "ffhq")
    assert paper.compare({"model": MODEL | other, "results": entries}, "ffhq") == []
