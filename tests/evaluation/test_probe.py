"""Probes: one step as PyTorch makes it, closed form as scikit-learn's, what is chosen and where."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Ridge

from dbae_jax.data.builders.celeba import Celeba
from dbae_jax.data.builders.lfw import Lfw
from dbae_jax.data.codes import Codes
from dbae_jax.errors import ConfigError, DataError
from dbae_jax.evaluation.protocols import linear_probe
from dbae_jax.evaluation.protocols.linear_probe import Recipe
from dbae_jax.evaluation.suites import probe
from tests.helpers import datasets, stubs

RNG = np.random.default_rng(0)
TARGETS = {
    "class": np.eye(5, dtype=np.float32)[RNG.integers(0, 5, 32)],
    "binary": RNG.integers(0, 2, (32, 5)).astype(np.float32),
    "real": RNG.standard_normal((32, 5)).astype(np.float32),
}


@pytest.mark.parametrize("kind", linear_probe.LOSSES)
def test_three_steps_are_those_of_torch(kind):
    torch = pytest.importorskip("torch")
    z, targets = RNG.standard_normal((32, 7)).astype(np.float32), TARGETS[kind]
    params = linear_probe.initial(7, 5, jax.random.key(0))
    layer = torch.nn.Linear(7, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.array(params["kernel"]).T))
        layer.bias.copy_(torch.tensor(np.array(params["bias"])))
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    losses = {
        "class": torch.nn.CrossEntropyLoss(),
        "binary": torch.nn.BCEWithLogitsLoss(),
        "real": torch.nn.MSELoss(),
    }
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=1e-3)
    state = params, optax.adam(1e-3).init(params)
    for _ in range(3):
        state = linear_probe.update(kind, recipe, state, z, targets, jnp.ones(32))
        optimizer.zero_grad()
        losses[kind](layer(torch.tensor(z)), torch.tensor(targets)).backward()
        optimizer.step()
    np.testing.assert_allclose(state[0]["kernel"], layer.weight.detach().numpy().T, atol=1e-6)
    np.testing.assert_allclose(state[0]["bias"], layer.bias.detach().numpy(), atol=1e-6)


def test_first_weights_are_uniform_within_torchs_bound():
    params = linear_probe.initial(64, 500, jax.random.key(1))
    kernel = np.asarray(params["kernel"])
    assert np.abs(kernel).max() <= 1 / 8 and np.abs(params["bias"]).max() <= 1 / 8
    assert kernel.std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.02)


def test_an_epoch_sees_every_example_once_and_fills_up_at_weight_0():
    batches = linear_probe._batches(10, 4, np.random.default_rng(0), flip=True)
    assert batches.rows.shape == (3, 4)
    counted = batches.rows[batches.weight > 0]
    assert sorted(counted) == list(range(10)) and batches.weight.sum() == 10
    assert 0 < batches.flip.mean() < 1


def test_an_epoch_in_one_scan_is_its_steps_one_by_one():
    z, targets = RNG.standard_normal((10, 3)).astype(np.float32), TARGETS["real"][:10]
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1e-2)
    codes = Codes(z, None)
    *_, scanned = linear_probe.train("real", codes, None, targets, recipe, seed=3)
    rng, params = np.random.default_rng(3), None
    params = linear_probe.initial(3, 5, jax.random.fold_in(jax.random.key(3), 2))
    state = params, optax.adam(1e-2).init(params)
    for _ in range(2):
        batches = linear_probe._batches(10, 4, rng, flip=False)
        for rows, weight in zip(batches.rows, batches.weight, strict=True):
            real = rows[weight > 0]
            state = linear_probe.update(
                "real", recipe, state, z[real], targets[real], jnp.ones(len(real))
            )
    np.testing.assert_allclose(scanned["kernel"], state[0]["kernel"], atol=1e-6)


def test_probes_are_trained_on_mirrored_and_sampled_codes():
    """Mirrored codes give the slope of both halves; noise in sampled codes halves the slope."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((4000, 1)).astype(np.float32)
    recipe = Recipe(epochs=60, batch_size=400, learning_rate=3e-2)

    def slope(flipped, recipe, sigma=None):
        codes = Codes(z, None if sigma is None else np.full_like(z, sigma))
        *_, last = linear_probe.train("real", codes, flipped, z, recipe, seed=0)
        return float(last["kernel"][0, 0])

    assert slope(None, recipe) == pytest.approx(1, abs=0.02)
    assert slope(Codes(-z, None), recipe) == pytest.approx(0, abs=0.1)
    drawn = Recipe(**vars(recipe) | {"sample": True})
    assert slope(None, drawn, sigma=1.0) == pytest.approx(0.5, abs=0.06)


def test_ridge_is_scikit_learns():
    z, targets = RNG.standard_normal((50, 6)), RNG.standard_normal((50, 3)) + 2
    centred = z - z.mean(axis=0)
    unit = np.trace(centred.T @ centred) / 6
    for penalty, params in linear_probe.ridge(z, targets, (1e-4, 0.1, 10.0)):
        peer = Ridge(alpha=penalty * unit).fit(z, targets)
        np.testing.assert_allclose(params["kernel"], peer.coef_.T, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(params["bias"], peer.intercept_, rtol=1e-8)


def _splits(count=(200, 60), *, names=("a", "b", "never"), real=False, label=False, seed=0):
    """Train and test images whose first two code dimensions carry the attributes."""
    rng, splits = np.random.default_rng(seed), {}
    for split, n in zip(("train", "test"), count, strict=True):
        codes = rng.uniform(-0.9, 0.9, (n, 8))
        known = {"id": np.array([f"person_{i // 7}_{i % 7:04d}" for i in range(n)])}
        if real:
            known["attributes"] = np.float32(3 * codes[:, :2])
        else:
            columns = [codes[:, 0] > 0, codes[:, 1] > 0.2, np.zeros(n, bool)]
            known["attributes"] = np.stack(columns, 1).astype(np.int8)
        if label:
            known["label"] = np.int64(codes[:, 0] > 0) + np.int64(codes[:, 1] > 0)
        splits[split] = stubs.Data(stubs.images(codes), names[: 2 if real else 3], **known)
    return splits


FAST = {"eval.seeds": 2, "eval.probe_epochs": 20, "eval.probe_learning_rate": 0.05}
FAST |= {"eval.probe_batch_size": 32}


def test_binary_attributes_are_found_and_constant_ones_named():
    measured = probe.measure(stubs.context(_splits(), **FAST))
    assert measured.counts == {"train": 180, "validation": 20, "test": 60}
    ap = measured.scores["ap"]
    assert ap["value"] > 0.95 and ap["better"] == "higher" and len(ap["values"]) == 2
    assert ap["details"]["excluded"] == ["never"] and set(ap["details"]["per_attribute"]) == set(
        "ab"
    )
    assert ap["value"] == pytest.approx(np.mean(list(ap["details"]["per_attribute"].values())))
    assert len(ap["details"]["epochs"]) == 2
    for name in ("auroc", "ridge_ap", "ridge_auroc"):
        assert measured.scores[name]["value"] > 0.95
    assert not {"accuracy", "r"} & set(measured.scores)


def test_labels_are_found_by_three_probes():
    measured = probe.measure(stubs.context(_splits(label=True), **FAST))
    for name in ("accuracy", "ridge_accuracy", "logistic_accuracy"):
        assert measured.scores[name]["value"] > 0.7, name


def test_real_attributes_and_the_figure_chosen_on_test_images():
    measured = probe.measure(stubs.context(_splits(real=True), **FAST))
    scores = measured.scores
    assert scores["r"]["value"] > 0.99 and scores["mse"]["value"] < 0.2
    assert scores["mse"]["better"] == "lower"
    assert scores["ridge_r"]["value"] == pytest.approx(1, abs=1e-4)
    assert scores["r_best_on_test"]["value"] >= scores["r"]["value"]
    assert scores["r_best_on_test"]["details"]["chosen_on"] == "test"


def test_the_epoch_is_chosen_on_validation_images_alone():
    """Test targets that say the opposite change the scores, and not what is chosen."""
    splits = _splits(real=True)
    honest = probe.measure(stubs.context(splits, **FAST)).scores["r"]
    turned = _splits(real=True)
    turned["test"].known["attributes"] = -turned["test"].known["attributes"]
    upside = probe.measure(stubs.context(turned, **FAST)).scores["r"]
    assert upside["details"]["epochs"] == honest["details"]["epochs"]
    assert upside["value"] == pytest.approx(-honest["value"], rel=1e-6)


def test_a_validation_split_and_mirrored_codes_are_used():
    splits = _splits() | {"validation": _splits((50, 50), seed=3)["train"]}
    context = stubs.context(splits, **FAST, **{"data.flip": True})
    measured = probe.measure(context)
    assert measured.counts == {"train": 200, "validation": 50, "test": 60}
    mirrored = splits["train"].images[:, :, ::-1]
    np.testing.assert_array_equal(
        probe._parts(context).flipped.mean, context.model.posterior(mirrored)[0]
    )
    plain = probe.measure(stubs.context(splits, **FAST))
    assert plain.scores["auroc"]["values"] != measured.scores["auroc"]["values"]
    assert "validation_share" not in probe.settings(context)


def test_sampled_codes_have_lower_scores_than_their_means():
    splits, stochastic = _splits(), {"model.stochastic": True}
    values = []
    for sample in (False, True):
        context = stubs.context(splits, **FAST, **stochastic, **{"eval.sample_codes": sample})
        context.model.scale = 1.0
        values.append(probe.measure(context).scores["ap"]["value"])
    assert values[1] < values[0] - 0.05


def test_normalised_codes_have_mean_0_and_std_1_of_training():
    context = stubs.context(_splits(), **FAST, **{"eval.normalise_codes": True})
    parts = probe._parts(context)
    np.testing.assert_allclose(parts.train.mean.std(axis=0), 1, rtol=1e-5)
    raw = context.codes("test").mean
    moved = (raw[0] - raw[1]) / (parts.test.mean[0] - parts.test.mean[1])
    again = context.codes("train").part(0, 180).mean.std(axis=0)
    np.testing.assert_allclose(moved, again, rtol=1e-4)


def test_persons_are_not_split():
    persons = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    assert probe.validation_start(10, 0.3) == 7
    assert probe.validation_start(10, 0.3, persons) == 6
    assert probe.validation_start(10, 0.4, persons) == 6
    with pytest.raises(ConfigError, match="leaves 0 to train probes on"):
        probe.validation_start(10, 0.3, np.zeros(10))
    context = stubs.context(_splits(real=True), **FAST, **{"data.name": "lfw"})
    parts = probe._parts(context)
    sets = [{i.rpartition("_")[0] for i in p.known["id"]} for p in (parts.train, parts.validation)]
    assert not sets[0] & sets[1] and len(parts.validation.mean) >= 20


def test_bad_inputs_are_refused():
    bare = {name: stubs.Data(stubs.images(np.zeros((4, 8)))) for name in ("train", "test")}
    assert "neither labels nor attributes" in probe.obstacle(stubs.context(bare))
    lmdb = stubs.context(bare, **{"data.lmdb": "faces.lmdb"})
    assert "in faces.lmdb (LMDB files hold none)" in probe.obstacle(lmdb)
    few = probe.obstacle(stubs.context(_splits((4, 10))))
    assert "leaves 4 to train probes on and 0 to choose them on" in few
    with pytest.raises(ConfigError, match="leaves 4 to train probes on and 0 to choose them on"):
        probe.validation_start(4, 0.1, np.zeros(4))
    broken = _splits(real=True)
    broken["test"].known["attributes"][3, 1] = np.nan
    with pytest.raises(DataError, match="test images of digits hold NaN"):
        probe.measure(stubs.context(broken, **FAST))
    splits = _splits()
    splits["train"].known["attributes"][180:] = 0
    with pytest.raises(DataError, match="probe's validation images: none of the 3 attributes has"):
        probe.measure(stubs.context(splits, **FAST))
    with pytest.raises(DataError, match="the test split, holds 1 images"):
        stubs.context(_splits((20, 1)))


def _prepared(name, data_dir, splits, crop, **overrides):
    sources = {split: datasets.read(name, data_dir, split, crop=crop) for split in splits}
    colour = {"data.channels": 3, "data.name": name, "data.crop": crop}
    return stubs.context(sources, **FAST | colour | overrides)


def test_prepared_celeba_is_probed_by_its_official_splits(tmp_path):
    source = datasets.celeba(tmp_path / "celeba", counts=(40, 12, 12))
    datasets.build(Celeba, source, tmp_path / "data", expected=64)
    splits = ("train", "validation", "test")
    context = _prepared("celeba", tmp_path / "data", splits, "d2c", **{"data.flip": True})
    assert probe.obstacle(context) is None
    measured = probe.measure(context)
    assert measured.counts == {"train": 40, "validation": 12, "test": 12}
    details = measured.scores["ap"]["details"]
    assert {*details["per_attribute"], *details["excluded"]} == set(datasets.CELEBA_NAMES)
    assert context.codes("test").known["id"][0] == "000053"


def test_prepared_lfw_is_probed_by_whole_persons(tmp_path, monkeypatch):
    people = {"Train": {f"Person_{c}": 3 for c in "ABCDE"}, "Test": {"Zico": 4, "Xi_Yu": 3}}
    files = {f"peopleDev{part}.txt": found for part, found in people.items()}
    monkeypatch.setattr(datasets, "LFW_PEOPLE", files)
    source = datasets.lfw(tmp_path / "lfw", without=("Person_B_0002",))
    datasets.build(Lfw, source, tmp_path / "data", expected=22)
    share = {"eval.validation_share": 0.3}
    context = _prepared("lfw", tmp_path / "data", ("train", "test"), "zoom", **share)
    parts = probe._parts(context)
    persons = [{name[:-5] for name in part.known["id"]} for part in (parts.train, parts.validation)]
    assert persons == [{f"Person_{c}" for c in "ABC"}, {"Person_D", "Person_E"}]
    measured = probe.measure(context)
    assert measured.counts == {"train": 8, "validation": 6, "test": 7}
    assert set(measured.scores["r"]["details"]["per_attribute"]) == {
        "Male",
        "Asian",
        "Wearing Necklace",
    }
