"""Tables of scores: order, pairs of columns, spreads, and what is folded."""

import numpy as np

from dbae_jax.evaluation.results import score
from dbae_jax.report import curves, glossary, tables


def _entry(suite, scores):
    return {
        "suite": suite,
        "data": "digits",
        "settings": {},
        "counts": {"test": 9},
        "scores": scores,
        "seconds": 1.0,
    }


def _table(suite, scores):
    (made,) = tables.scores({"x": _entry(suite, scores)})
    return made


def test_edits_with_x_T_recomputed_and_fixed_share_rows():
    names = ("target", "others", "flipped", "monotonic", "ratio")
    ends = {"following": 1.0, "fixed": 2.0}
    values = {
        f"{n}_{e}": score(v + i, "higher") for e, v in ends.items() for i, n in enumerate(names)
    }
    made = _table("editing", values)
    assert made.header == ["score", "x_T recomputed", "x_T fixed"]
    assert [row.name for row in made.rows] == [
        *("Target / others ↑", "Target ↑", "Others ↑", "Flipped ↑", "Monotonic ↑")
    ]
    assert [row.cells for row in made.rows][:2] == [["5.000", "6.000"], ["1.000", "2.000"]]
    assert made.rows[0].meaning == "selectivity of the edits"


def test_the_kernel_distance_shows_its_spread_and_the_floor_has_a_column():
    net = "classifier-digits-d90df15d"
    made = _table(
        "generation",
        {
            f"kd_{net}": score(142.0, "lower", net=net, std=121.9, subset_size=180),
            f"fd_{net}": score(10.17, "lower", net=net),
            f"fd_{net}_floor": score(3.87, None, net=net),
            f"fd_{net}_floor_halves": score(22.36, None, net=net),
        },
    )
    assert made.header == ["score", "value", "real images"]
    frechet, kernel = made.rows
    assert frechet.name == "Fréchet distance ↓" and frechet.cells == ["10.17", "3.870"]
    assert kernel.cells == ["142.0 ± 122", tables.NONE]
    assert kernel.meaning.endswith("± is the standard deviation over subsets of 180 images")
    assert "Judged by classifier-digits-d90df15d." in made.caption
    assert net not in " ".join(row.meaning for row in made.rows)
    (further,) = [part for part in made.folded if part.title == "Further scores"]
    assert [row.name for row in further.rows] == ["Fréchet distance, floor of halves"]
    assert "so few images make it larger" in further.rows[0].meaning


def test_scores_that_matter_come_first_and_versions_of_them_are_folded():
    names = ("ssim_swapped_axes", "mse_8bit", "ssim", "psnr", "ssim_zero_padded", "mse", "pca_mse")
    made = _table("reconstruction", {name: score(1.0, "lower") for name in names})
    assert [row.name for row in made.rows] == ["MSE ↓", "MSE of PCA ↓", "PSNR ↓", "SSIM ↓"]
    assert [part.title for part in made.folded] == ["Further scores", "Settings"]
    assert len(made.folded[0].rows) == 3
    assert glossary.in_order(["unknown", "mse"]) == ["mse", "unknown"]


def test_every_kind_of_spread_is_named():
    kinds = {
        "seeds": {"value": 1.0, "std": 0.1, "values": [1, 2], "better": "higher", "details": {}},
        "images": score(1.0, "lower", standard_error=0.2),
        "none": score(1.0, "lower"),
        "undefined": score(np.nan, "lower", reason="an image is exact"),
    }
    made = _table("other", kinds)
    cells = {row.name.split()[0]: (row.cells[0], row.meaning) for row in made.rows}
    assert cells["seeds"] == ("1.000 ± 0.10", "± is the standard deviation over 2 seeds")
    assert cells["images"] == ("1.000 ± 0.20", "± is the standard error over images")
    assert cells["none"] == ("1.000", "") and cells["undefined"] == (tables.NONE, "")
    assert made.notes == ["undefined is not defined here: an image is exact."]


def _losses(test):
    rows = [{"step": step, "loss": 1.0 / step} for step in (100, 200, 300)]
    return rows + [{"step": s, "eval_loss": v} for s, v in zip((100, 200, 300), test, strict=True)]


def test_the_gap_between_training_and_test_is_said():
    charts = curves.training(_losses((0.5, 0.4, 0.03)))
    (loss,) = charts
    assert loss.chart.y_label == "loss, log scale" and loss.chart.x_label == "training step"
    assert "test loss at step 300 (EMA weights) is 0.03" in loss.caption
    assert "longer training may help" in loss.caption
    (loss,) = curves.training(_losses((0.5, 0.01, 0.02)))
    assert "smallest at step 200 (0.01)" in loss.caption and "overfitting" in loss.caption
    assert "ratio is 6" in loss.caption
    assert [line.value.text for line in loss.chart.lines] == ["0.00333", "0.02"]
    hints = {hint.text for hint in loss.chart.hover}
    assert "training step 200: training 0.005; test 0.01" in hints


def test_speed_is_no_chart():
    rows = [{"step": s, "images_per_second": 9.0 + s} for s in (1, 2, 3)]
    assert curves.training(rows) == []
