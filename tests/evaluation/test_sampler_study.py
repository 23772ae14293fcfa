"""The comparison of samplers: what it covers and how it sums up."""

import numpy as np
import pytest

from dbae_jax.evaluation import pictures, sampler_study
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.workdirs import checkpoint, workdir
from tests.helpers import tiny


def _save(config, directory, seed):
    state = state_from_variables(tiny.variables(config, seed), make_optimizer(config))
    with checkpoint.Writer(directory, keep_last=1, keep_every_steps=0) as writer:
        writer.save(state, 0, workdir.meta(config))


def test_every_sampler_meets_every_grid():
    plans = sampler_study.plans()
    assert plans[0] == sampler_study.BASELINE
    count = len(sampler_study.EVALUATIONS)
    assert len(plans) == 1 + 5 * 4 * count + len(sampler_study.NOISY) * (count - 1)
    labels = {sampler_study.label(plan) for plan in plans}
    assert {"heun", "euler churn=0.33", "dbim eta=1", "multistep2 boot"} <= labels


def test_a_study_of_two_models(tmp_path, monkeypatch):
    config = tiny.config()
    for seed in (0, 1):
        _save(config, tmp_path / str(seed), seed)
    monkeypatch.setattr(sampler_study, "EVALUATIONS", (3, 4))
    monkeypatch.setattr(sampler_study, "BASELINE", sampler_study.BASELINE | {"steps": 4})
    rows = sampler_study.study([tmp_path / "0", tmp_path / "1"], 8)
    assert len(rows) == 1 + 40 + 4
    assert rows[0]["mse_ratio"] == 1 and rows[0]["nfe"] == 4
    for row in rows:
        assert row["mse_range"][0] <= row["mse"] <= row["mse_range"][1]
        assert np.isfinite(row["ssim"]) and row["seconds_per_image"] > 0
    assert rows[1]["mse_range"][0] < rows[1]["mse_range"][1]  # two models
    text = sampler_study.table(rows)
    assert "| 3 | multistep3 |" in text and "| 4 | dbim eta=1 | karras |" in text
    pictures.samplers(tmp_path / "plot.png", rows)
    assert (tmp_path / "plot.png").stat().st_size > 2000
    assert rows[0]["mse"] == pytest.approx(np.mean(rows[0]["mse_range"]))
