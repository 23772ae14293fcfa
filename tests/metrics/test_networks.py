"""Networks of metrics against their originals, and the checks of published weights."""

import dataclasses
import hashlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from dbae_jax.errors import CheckpointError, DataError
from dbae_jax.metrics import perceptual
from dbae_jax.metrics.networks import alexnet_lpips, inception, published, resize
from dbae_jax.metrics.networks.published import Origin, PerceptualNet, WeightFile
from tests.helpers import metric_goldens, peers


@pytest.fixture(scope="module")
def drawn_inception():
    state = metric_goldens.inception_state()
    return published.make_inception(state, Origin("drawn_inception"), "tensorflow_1")


def test_inception_is_torch_fidelitys(drawn_inception):
    golden = metric_goldens.read()
    out = jax.device_get(drawn_inception.apply(metric_goldens.images(64, 2)))
    assert golden["pool"][:, -1].min() > 0.1  # the features are not constant
    for name, values in (("pool", out.pool), ("logits", out.logits)):
        np.testing.assert_allclose(metric_goldens.some(values), golden[name], atol=1e-5)


def test_vgg16_is_torchvisions():
    golden = metric_goldens.read()["vgg16"]
    net = published.make_vgg16(metric_goldens.vgg16_state(), Origin("drawn_vgg16"))
    out = net.apply(metric_goldens.images(64, 2))
    assert out.logits is None and out.pool.shape == (2, 4096)
    assert 0.3 < np.mean(np.asarray(out.pool) > 0) < 0.7 and golden[:, -1].min() > 0.1
    np.testing.assert_allclose(metric_goldens.some(np.asarray(out.pool)), golden, atol=2e-4)


def test_lpips_is_the_originals():
    golden = metric_goldens.read()
    net = PerceptualNet(Origin("drawn_lpips"), metric_goldens.lpips_state())
    for size in (64, 128):
        got = perceptual.perceptual_distances(net, *metric_goldens.pairs(size), batch_size=2)
        np.testing.assert_allclose(got, golden[f"lpips_{size}"], rtol=1e-5)


def test_the_golden_numbers_are_the_originals():
    torch = peers.torch_with_vision()
    pytest.importorskip("lpips")
    pytest.importorskip("torch_fidelity")
    golden = metric_goldens.read()
    found = metric_goldens.of_inception(torch) | metric_goldens.of_lpips(torch)
    for name, values in found.items():
        np.testing.assert_allclose(values, golden[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_perceptual_distance_of_equal_images_is_zero_and_it_is_symmetric():
    net = PerceptualNet(Origin("drawn_lpips"), metric_goldens.lpips_state())
    x, y = metric_goldens.pairs(64)
    assert not perceptual.perceptual_distances(net, x, x).any()
    there, back = (perceptual.perceptual_distances(net, *p) for p in ((x, y), (y, x)))
    np.testing.assert_allclose(there, back, rtol=1e-6)
    assert (np.diff(there) > 0).all() and there[0] > 0
    score = perceptual.lpips(net, x, y)
    assert score.name == "perceptual_drawn_lpips" and score.value == pytest.approx(there.mean())
    assert score.details["images"] == 3 and score.details["size"] == [64, 64]
    smallest = alexnet_lpips.SMALLEST
    assert perceptual.perceptual_distances(net, x[:, :smallest], y[:, :smallest]).all()
    for a, words in (
        (x[:, : smallest - 1], ">= 31"),
        (x[..., :1], ">= 31"),
        (x + np.nan, "finite"),
    ):
        with pytest.raises(DataError, match=words):
            perceptual.perceptual_distances(net, a, a)


def _resized(images, how):
    """Returns the resized images in 8-bit levels, but not rounded."""
    method = resize.PREPARATIONS[how]
    return np.asarray(resize.prepare(images, how, 299)) * method.scale + method.zero


@pytest.mark.parametrize("size", [32, 64, 128, 400])
def test_bicubic_is_pillows(size):
    (image,) = metric_goldens.images(size, 1)
    bands = [Image.fromarray(np.float32(image[..., c])) for c in range(3)]
    want = np.stack([b.resize((299, 299), Image.Resampling.BICUBIC) for b in bands], axis=-1)
    got = _resized(image[None], "pillow_bicubic")[0]
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert size > 299 or want.max() > 255  # not clipped


def test_bilinear_resizes_differ_by_pixel_positions():
    """A ramp stays a ramp between the outermost pixels and shows the sampled positions."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None], (1, 64, 64, 3))
    pixels = np.arange(299)
    for how, positions in (
        ("tensorflow_1", pixels * 64 / 299),
        ("pytorch", (pixels + 0.5) * 64 / 299 - 0.5),
    ):
        want = positions.clip(0, 63)
        np.testing.assert_allclose(_resized(ramp, how)[0, 7, :, 1], want, atol=1e-4)
        upright = _resized(ramp.swapaxes(1, 2), how)[0, :, 7, 1]
        np.testing.assert_allclose(upright, want, atol=1e-4)
    # Large images are not smoothed: a result depends on at most two neighbouring pixels.
    stripes = np.tile(np.array([0, 255], np.uint8), 299)
    stripes = np.broadcast_to(stripes[None, None, :, None], (1, 4, 598, 3))
    assert not _resized(stripes, "tensorflow_1").any()
    np.testing.assert_allclose(_resized(stripes, "pytorch"), 127.5, atol=1e-3)


def test_bilinear_resize_is_pytorchs():
    torch = pytest.importorskip("torch")
    for size in (32, 128, 400):
        images = metric_goldens.images(size, 1)
        tensor = torch.tensor(np.float32(images)).permute(0, 3, 1, 2)
        want = torch.nn.functional.interpolate(
            tensor, size=(299, 299), mode="bilinear", align_corners=False
        )
        got = _resized(images, "pytorch")
        np.testing.assert_allclose(
            got, want.permute(0, 2, 3, 1), atol=5e-3
        )  # PyTorch computes positions in float32


def test_preparation_maps_levels_as_published():
    levels = np.broadcast_to(np.uint8([0, 128, 255]), (1, 299, 299, 3))
    for how, want in (
        ("tensorflow_1", [-1, 0, 127 / 128]),
        ("pillow_bicubic", [-1, 0, 127 / 128]),
        ("pytorch", [-1, 0.5 / 127.5, 1]),
    ):
        got = np.asarray(resize.prepare(levels, how, 299))
        np.testing.assert_allclose(got, np.broadcast_to(np.float32(want), got.shape), atol=1e-6)


@pytest.fixture
def small_file(tmp_path):
    """Returns a file with a file:// address, the shapes of its arrays, and its hash."""
    origin = tmp_path / "host.safetensors"
    state = {
        "a.weight": np.ones((2, 3), np.float32),
        "a.bias": np.zeros(2, np.float32),
        "a.num_batches_tracked": np.int64(3),
        "classifier.1.weight": np.ones(4, np.float32),
    }
    safetensors.numpy.save_file({k: np.asarray(v) for k, v in state.items()}, origin)
    sha256 = hashlib.sha256(origin.read_bytes()).hexdigest()
    file = WeightFile("net.safetensors", origin.as_uri(), sha256[:8])
    return file, {"a.weight": (2, 3), "a.bias": (2,)}, sha256


def test_weights_are_read_where_name_hash_and_arrays_are_right(small_file, tmp_path):
    file, shapes, file_hash = small_file
    folder = tmp_path / "weights"
    with pytest.raises(CheckpointError, match=rf"net.safetensors is missing; download {file.url}"):
        published.read(file, folder, shapes, ignored="classifier.")
    state, sha256 = published.read(file, folder, shapes, ignored="classifier.", download=True)
    assert sha256 == file_hash and state.keys() == shapes.keys()
    assert [p.name for p in folder.iterdir()] == ["net.safetensors"]
    moved = dataclasses.replace(file, url="file:///nowhere")
    published.read(moved, folder, shapes, ignored="classifier.")  # no second download

    for wanted, words in (
        (shapes, "classifier.1.weight is unknown"),
        ({**shapes, "classifier.1.weight": (4,), "b": (1,)}, "b is missing"),
        (
            {**shapes, "classifier.1.weight": (5,)},
            r"classifier.1.weight is float32 \[4\], not float32 \[5\]",
        ),
    ):
        with pytest.raises(CheckpointError, match=words):
            published.read(file, folder, wanted)


def test_wrong_files_are_refused_and_not_kept(small_file, tmp_path):
    file, shapes, _ = small_file
    other = dataclasses.replace(file, sha256="00000000")
    with pytest.raises(CheckpointError, match=r"a different file: its sha256 .*with 00000000"):
        published.read(other, tmp_path / "weights", shapes, download=True)
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        nowhere = dataclasses.replace(file, url=(tmp_path / "absent").as_uri())
        published.read(nowhere, tmp_path / "weights", shapes, download=True)
    assert not list((tmp_path / "weights").iterdir())
    damaged = tmp_path / "weights" / file.name
    damaged.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged or a different file"):
        published.read(file, tmp_path / "weights", shapes)


def test_arrays_of_a_wrong_type_or_not_finite_are_refused():
    shapes = {"a": (2,)}
    for array, words in (
        (np.zeros(2, np.float16), "float16"),
        (np.array([0, np.nan], np.float32), "NaN"),
    ):
        with pytest.raises(CheckpointError, match=words):
            published.check_arrays({"a": array}, shapes, "here")


def test_errors_of_missing_networks_name_the_download(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"pt_inception.*download https://github.com/mseitzer"
    ):
        published.load_inception(tmp_path, "tensorflow_1")
    with pytest.raises(CheckpointError, match=r"alexnet.*download https://download.pytorch.org"):
        published.load_lpips(tmp_path)
    with pytest.raises(CheckpointError, match=r"vgg16-397923af.pth is missing; download https"):
        published.load_vgg16(tmp_path)


def test_networks_load_from_files_of_pytorch(tmp_path, monkeypatch):
    """Checks features and distances of .pth files that replace the published ones."""
    torch = pytest.importorskip("torch")
    lpips_state = metric_goldens.lpips_state()
    stand_ins = {
        "INCEPTION_FILE": metric_goldens.inception_state(),
        "ALEXNET_FILE": {k: v for k, v in lpips_state.items() if k.startswith("features")}
        | {"classifier.6.weight": np.zeros((10, 4), np.float32)},
        "LPIPS_FILE": {k: v for k, v in lpips_state.items() if k.startswith("lin")},
    }
    files = {}
    for name, state in stand_ins.items():
        path = tmp_path / getattr(published, name).name
        torch.save({k: torch.tensor(v) for k, v in state.items()}, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files[name] = dataclasses.replace(getattr(published, name), sha256=sha256[:8])
        monkeypatch.setattr(published, name, files[name])
    monkeypatch.setitem(published.FILES, published.INCEPTION, (files["INCEPTION_FILE"],))
    monkeypatch.setitem(
        published.FILES, published.LPIPS, (files["ALEXNET_FILE"], files["LPIPS_FILE"])
    )
    net = published.load_inception(tmp_path, "tensorflow_1")
    assert net.origin.published and net.origin.net == published.INCEPTION
    score = perceptual.lpips(published.load_lpips(tmp_path), *metric_goldens.pairs(64))
    assert score.name == "lpips"
    assert score.value == pytest.approx(np.mean(metric_goldens.read()["lpips_64"]), rel=1e-5)


def test_published_names_are_for_published_weights():
    with pytest.raises(DataError, match="published weights alone"):
        Origin(published.INCEPTION)
    with pytest.raises(DataError, match="published weights alone"):
        Origin(published.INCEPTION, ("0" * 64,))
    with pytest.raises(DataError, match="published weights alone"):
        Origin(published.LPIPS, ("7be5be79" + "0" * 56,))  # the trunk alone
    assert not Origin("mine", ("6726825d" + "0" * 56,)).published
    assert Origin(published.INCEPTION, ("6726825d" + "0" * 56,)).published


def test_inception_with_wrong_arrays_is_refused():
    state = {k: np.zeros(s, np.float32) for k, s in inception.state_shapes().items()}
    del state["Mixed_7c.branch1x1.conv.weight"]
    state["AuxLogits.fc.bias"] = np.zeros(1000, np.float32)
    with pytest.raises(CheckpointError, match=r"2 errors.*AuxLogits.*unknown; Mixed_7c.*missing"):
        published.make_inception(state, Origin("mine"), "pytorch")
    with pytest.raises(DataError, match="'lanczos'; there are tensorflow_1"):
        published.make_inception(state, Origin("mine"), "lanczos")
