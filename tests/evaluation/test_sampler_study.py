"""The comparison of samplers: what it covers and how it sums up."""

import numpy as np
import pytest

from dbae_jax.api.dbae import DBAE
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation import pictures, sampler_study
from dbae_jax.metrics import spectra
from dbae_jax.metrics.similarity import eight_bit
from dbae_jax.sampling.plan import Plan
from tests.helpers import tiny


def test_every_sampler_meets_every_grid_and_every_number_of_evaluations():
    plans = sampler_study.plans()
    assert plans[0] == sampler_study.BASELINE
    assert all(plans.count(plan) == 1 for plan in plans)
    model = DBAE(tiny.config(), {})
    sharp = Plan.named("sharp")
    wanted = {name: getattr(sharp, name) for name in ("sampler", "churn", "grid", "steps")}
    assert wanted in plans  # what distilled models are compared with
    counts = {(sampler_study.label(plan), plan["grid"]): set() for plan in plans}
    for plan in plans:
        counts[sampler_study.label(plan), plan["grid"]].add(model.nfe(**plan))
    for sampler in sampler_study.SAMPLERS:
        for grid in sampler_study.GRIDS:
            assert {3, 5} <= counts[sampler, grid], (sampler, grid)
    assert min(counts["dbim", "lambda"]) == 1
    for name, grid in (
        *(("euler churn=0.33", "karras"), ("heun churn=0.33", "karras"), ("heun", "karras")),
        *(("dbim eta=1", "lambda"), ("dbim boot", "lambda"), ("multistep2 boot", "lambda")),
    ):
        found = sorted(counts[name, grid])
        wanted = [nfe for nfe in sampler_study.MANY if nfe >= found[0]]
        assert len(found) == len(wanted), name
        assert set(np.subtract(wanted, found)) <= {0, 1, 2}, name


@pytest.mark.slow
def test_a_study_of_two_models_and_of_those_distilled_from_them(tmp_path, monkeypatch):
    config = tiny.config()
    sharp = tiny.config(**tiny.DISTILLED)
    for seed in (0, 1):
        tiny.write_workdir(config, tmp_path / str(seed), seed=seed)
        tiny.write_workdir(sharp, tmp_path / f"sharp-{seed}", seed=seed)
    monkeypatch.setattr(sampler_study, "EVALUATIONS", (3,))
    monkeypatch.setattr(sampler_study, "MANY", (1, 4))
    monkeypatch.setattr(sampler_study, "BASELINE", sampler_study.BASELINE | {"steps": 4})
    models, distilled = ([tmp_path / f"{s}{i}" for i in (0, 1)] for s in ("", "sharp-"))
    rows = sampler_study.study(models, 8, distilled)
    plans = [*sampler_study.plans(), *sampler_study.plans_of_distilled()]
    assert len(rows) == len(plans)
    assert rows[0]["mse_ratio"] == 1 and rows[0]["nfe"] == 4
    for row in rows:
        assert row["mse_range"][0] <= row["mse"] <= row["mse_range"][1]
        assert np.isfinite(row["ssim"]) and row["seconds_per_image"] > 0
        assert row["sharpness_error"] >= abs(row["sharpness_bias"])
    assert rows[1]["mse_range"][0] < rows[1]["mse_range"][1]  # two models
    assert rows[0]["mse"] == pytest.approx(np.mean(rows[0]["mse_range"]))
    # The same weights here, so that one evaluation is the same answer at T.
    one = {row["sampler"]: row for row in rows if row["nfe"] == 1}
    assert one["consistency"]["mse"] == pytest.approx(one["dbim"]["mse"])
    text = sampler_study.table(rows)
    assert "| 3 | multistep3 |" in text and "| 4 | dbim eta=1 | lambda |" in text
    assert "| 2 | consistency | near_end |" in text and "sharpness error (bias)" in text
    one_model = [row | {"mse_ratio_range": [row["mse_ratio"]] * 2} for row in rows]
    assert " to " in text and " to " not in sampler_study.table(one_model)
    pictures.samplers(tmp_path / "plot.png", rows)
    assert (tmp_path / "plot.png").stat().st_size > 2000
    # Each distilled model is compared with its own teacher, whatever the order and number.
    monkeypatch.setattr(sampler_study, "plans", lambda: [sampler_study.BASELINE])
    first = -len(sampler_study.OF_DISTILLED)
    alone = sampler_study.study(models, 8, distilled[1:])[first]["mse_ratio"]
    assert any(alone == pytest.approx(edge) for edge in rows[first]["mse_ratio_range"])
    with pytest.raises(ConfigError, match="sharp-1 in --distilled was not distilled from a model"):
        sampler_study.study(models[:1], 8, distilled[1:])
    with pytest.raises(ConfigError, match="1 in --distilled is not distilled; name it in --work"):
        sampler_study.study(models, 8, models[1:])
    with pytest.raises(ConfigError, match="sharp-0 in --workdirs is distilled; name it in --dis"):
        sampler_study.study(distilled, 8)


def test_the_page_of_a_study_says_what_was_measured():
    setting = {"device": "cpu", "devices": 2, "models": 3, "distilled": 1, "num_images": 64}
    text = sampler_study.page("digits", setting, [])
    assert text.startswith("# Samplers on digits\n")
    assert "images: 64" in text and "Models: 3; distilled models: 1" in text
    assert "2 x cpu" in text and "| NFE |" in text


def test_sharpness_is_that_of_the_decoded_images(monkeypatch):
    images = eight_bit(np.random.default_rng(0).uniform(-1, 1, size=(4, 16, 16, 1)))
    held_out = sampler_study.HeldOut(images, np.zeros((4, 8)), images)

    class Blurred:
        decode = staticmethod(lambda z, x_T, **plan: images / 2)
        nfe = staticmethod(lambda **plan: 5)

    row = sampler_study.measure(Blurred, held_out, sampler="dbim", grid="lambda", steps=5)
    assert row["sharpness_bias"] == pytest.approx(np.log(1 / 4), abs=1e-3)
    assert row["sharpness_error"] == pytest.approx(np.log(4), abs=1e-3)
    assert spectra.radial_power(images).shape == (9,)
