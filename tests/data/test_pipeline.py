"""Sources, batches of the pipeline, images, grids, PCA and probe."""

import itertools
import json
import os
import subprocess
import sys
import threading
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from dbae_jax.data import images, pipeline, sources
from dbae_jax.errors import DataError
from dbae_jax.evaluation.suites import probe, reconstruction
from tests.helpers.paths import ROOT


def test_digits_are_split_by_index_and_resized_as_pil_does():
    train, test = sources.digits("train", 16), sources.digits("test", 16)
    assert (len(train), len(test)) == (1437, 360)
    scans = load_digits()
    for i, index in ((0, 0), (9, 9), (17, 57)):
        want = Image.fromarray(scans.images[index].astype(np.float32)).resize((16, 16), 2)
        np.testing.assert_allclose(test[i]["image"][..., 0], np.array(want) * 255 / 16, atol=0.51)
        assert test[i]["label"] == scans.target[index]
    assert train[0]["image"].dtype == np.uint8 and train[0]["image"].shape == (16, 16, 1)
    assert train[3]["label"] == scans.target[13]
    assert np.bincount(test.labels).min() >= 34


def _numbered(count, width=4):
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return sources.ArraySource(np.tile(pixels, (1, width, width, 1)))


def _marked(count):
    """Returns numbered images that are not symmetric, so that flips change them."""
    source = _numbered(count)
    source.images[:, :, 0] = 255
    return source


def _take(source, steps, **kwargs):
    with pipeline.train_batches(source, seed=kwargs.pop("seed", 0), **kwargs) as batches:
        return [batch["image"] for batch in itertools.islice(batches, steps)]


def test_the_order_is_a_function_of_seed_and_step():
    source = _numbered(50)
    whole = _take(source, 20, batch_size=8)
    np.testing.assert_array_equal(_take(source, 20, batch_size=8), whole)
    np.testing.assert_array_equal(_take(source, 8, batch_size=8, start_step=12), whole[12:])
    assert not np.array_equal(_take(source, 20, batch_size=8, seed=1), whole)
    seen = np.concatenate(whole)[:, 0, 0, 0]
    assert sorted(seen[:50]) == list(range(50))  # an epoch holds every image once
    assert list(seen[:50]) != list(seen[50:100])  # and the next is in another order


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_read_disjoint_parts_of_the_same_global_batch(count):
    source = _marked(50)
    whole = _take(source, 8, batch_size=8, flip=True)
    parts = [
        _take(source, 8, batch_size=8, flip=True, process_index=i, process_count=count)
        for i in range(count)
    ]
    for step in range(8):
        np.testing.assert_array_equal(np.concatenate([part[step] for part in parts]), whole[step])


def test_threads_and_prefetching_do_not_change_the_order():
    source = _marked(50)
    whole = _take(source, 12, batch_size=8, flip=True)
    for reading in ({"num_threads": 1, "prefetch_batches": 1}, {"num_threads": 16}):
        np.testing.assert_array_equal(_take(source, 12, batch_size=8, flip=True, **reading), whole)
    resumed = _take(source, 5, batch_size=8, flip=True, start_step=7, num_threads=8)
    np.testing.assert_array_equal(resumed, whole[7:])


def test_batched_sources_are_read_in_batches():
    class Batched(sources.ArraySource):
        sizes: ClassVar[list[int]] = []

        def batch(self, indices):
            self.sizes.append(len(indices))
            return {"image": self.images[indices]}

        def __getitem__(self, index):
            raise AssertionError

    source = Batched(_marked(50).images)
    want = _take(_marked(50), 6, batch_size=8, flip=True)
    np.testing.assert_array_equal(_take(source, 6, batch_size=8, flip=True), want)
    assert set(source.sizes) == {8}
    np.testing.assert_array_equal(_take(source, 6, batch_size=8, flip=True, num_threads=8), want)
    assert set(source.sizes) == {8, 2}  # eight threads read four chunks of two batches


class _Lazy:
    """A source of a thousand images, which are made when they are read."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        self.count()
        return {"image": np.array([index % 256, index // 256] * 2, np.uint8).reshape(2, 2, 1)}


class _CountedByThreads(_Lazy):
    def __init__(self):
        self.reads, self.changed = 0, threading.Condition()

    def count(self):
        with self.changed:
            self.reads += 1
            self.changed.notify_all()


class _CountedByProcesses(_Lazy):
    def __init__(self, path):
        self.path = path

    def count(self):
        with open(self.path, "ab", buffering=0) as file:
            file.write(b".")


@pytest.mark.parametrize(
    ("reading", "ahead"),
    [
        ({"prefetch_batches": 1, "num_threads": 1}, 1),
        ({"prefetch_batches": 3, "num_threads": 2}, 3),
        ({"prefetch_batches": 2, "num_threads": 8}, 2),
        ({"prefetch_batches": 2, "to_device": lambda batch: batch}, 2 + 3),
    ],
)
def test_prefetch_batches_bounds_how_much_is_read_ahead(reading, ahead):
    source = _CountedByThreads()
    with pipeline.train_batches(source, batch_size=8, seed=0, **reading) as batches:
        for step in range(6):
            enough = (step + ahead) * 8
            with source.changed:
                assert source.changed.wait_for(lambda n=enough: source.reads >= n, timeout=60)
                assert source.reads == enough
            next(batches)
    assert source.reads <= enough + 8


def test_workers_keep_the_order_and_read_a_bounded_number_ahead(tmp_path):
    part = {"batch_size": 16, "flip": True, "process_index": 1, "process_count": 2}
    whole = _take(_CountedByThreads(), 20, **part)
    source = _CountedByProcesses(tmp_path / "reads")
    reading = {"prefetch_batches": 2, "num_threads": 2, "num_workers": 2, "start_step": 3}
    with pipeline.train_batches(source, seed=0, **part, **reading) as batches:
        for step in range(3, 20):
            np.testing.assert_array_equal(next(batches)["image"], whole[step])
            # In addition, each worker and its queues hold five chunks of half a batch.
            given = step - 3 + 1
            assert given * 8 <= source.path.stat().st_size <= (given + 2 + 5) * 8


def test_batches_go_to_the_device_in_the_background():
    threads = []

    def to_device(batch):
        threads.append(threading.current_thread())
        if len(threads) == 4:
            raise DataError("the fourth batch is broken")
        return jnp.asarray(batch["image"])

    source = _marked(50)
    with pipeline.train_batches(source, batch_size=8, seed=0, to_device=to_device) as batches:
        found = [next(batches) for _ in range(3)]
        assert all(isinstance(batch, jax.Array) for batch in found)
        np.testing.assert_array_equal(found, _take(source, 3, batch_size=8))
        with pytest.raises(DataError, match="the fourth batch is broken"):
            next(batches)
    assert set(threads) == {threads[0]} and threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_closed_batches_end_their_threads_and_refuse_reads():
    before = set(threading.enumerate())
    batches = pipeline.train_batches(_marked(50), batch_size=8, seed=0, to_device=lambda b: b)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    batches.close()
    batches.close()
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()
    with pytest.raises(DataError, match="closed"):
        next(batches)


def test_batches_that_are_not_closed_print_nothing_at_exit(tmp_path):
    script = tmp_path / "forget.py"
    script.write_text(
        "from dbae_jax.data import pipeline, shapes\n"
        "if __name__ == '__main__':\n"
        "    source = shapes.ShapesSource('train', 32)\n"
        "    kept = [\n"
        "        pipeline.train_batches(source, batch_size=8, seed=0, **more)\n"
        "        for more in ({'to_device': lambda b: b}, {'num_workers': 1})\n"
        "    ]\n"
        "    print([next(batches)['image'].shape for batches in kept])\n"
    )
    root = ROOT
    ran = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{[(8, 32, 32, 3)] * 2}\n"


def test_empty_sources_and_uneven_batches_are_refused():
    with pytest.raises(DataError, match="holds no images"):
        pipeline.train_batches(_marked(0), batch_size=8, seed=0)
    with pytest.raises(DataError, match="8 images cannot be divided between 3 processes"):
        pipeline.train_batches(_marked(9), batch_size=8, seed=0, process_count=3)


def test_loader_speed_writes_and_prints_its_measurement(tmp_path):
    command = [sys.executable, "-m", "dbae_jax.data.loader_speed", "--config=configs/digits.py"]
    root = ROOT
    file = tmp_path / "speed.json"
    flags = ["--measure_seconds=0.1", f"--json={file}", "--config.data.num_threads=3"]
    ran = subprocess.run([*command, *flags], cwd=root, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(file.read_text())
    assert found["images"] % 32 == 0 and found["seconds"] >= 0.1
    assert found["images_per_second"] == pytest.approx(found["images"] / found["seconds"])
    assert found["memory_mib"] >= found["memory_rise_mib"] >= 0 == found["worker_memory_mib"]
    assert found["batch_size"] == 32 and found["data"]["num_threads"] == 3
    assert "digits at 16 pixels, batches of 32, num_threads=3, num_workers=0" in ran.stdout
    assert f"{found['images_per_second']:,.0f} images/s" in ran.stdout
    ran = subprocess.run(
        [*command, "--measure_seconds=0"], cwd=root, capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert ran.stderr == "error: --measure_seconds=0.0 is not allowed: it must be positive.\n"


def test_flips_mirror_half_of_the_images():
    pixels = np.tile(np.arange(4, dtype=np.uint8), (400, 4, 1))[..., None]
    source = sources.ArraySource(pixels)
    (plain,) = _take(source, 1, batch_size=400)
    (flipped,) = _take(source, 1, batch_size=400, flip=True)
    np.testing.assert_array_equal(plain, pixels)
    mirrored = flipped[:, 0, 0, 0] == 3
    assert 150 < mirrored.sum() < 250  # five standard errors around 200
    np.testing.assert_array_equal(flipped[mirrored], pixels[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~mirrored], pixels[~mirrored])


def test_uint8_and_float_images_round_trip():
    levels = np.arange(256, dtype=np.uint8)
    floats = images.to_float(jnp.asarray(levels))
    assert float(floats.min()) == -1 and float(floats.max()) == 1
    np.testing.assert_array_equal(images.to_uint8(floats), levels)
    np.testing.assert_array_equal(images.to_uint8(floats + 0.9 / 255), levels)  # rounded to nearest


def test_grids_place_images_in_rows():
    rows = [np.full((3, 4, 4, 1), v, np.float32) for v in (-1.0, 1.0)]
    canvas = images.grid(rows, scale=2, gap=1)
    assert canvas.shape == (2 * 9 + 1, 3 * 9 + 1, 3)
    assert (canvas[1:9, 1:9] == 0).all() and (canvas[10:18, 10:18] == 255).all()
    assert (canvas[0] == 255).all()


def test_pca_is_the_best_linear_code():
    rng = np.random.default_rng(0)
    flat = rng.uniform(40, 60, (200, 3)) @ rng.uniform(0, 1, (3, 16))
    pixels = flat.reshape(200, 4, 4, 1)
    train, test = pixels[:150].astype(np.uint8), pixels[150:].astype(np.uint8)

    def error(components):
        return reconstruction.pca_mse(reconstruction.fit_pca(train, components), test)

    assert error(3) == pytest.approx(1 / 12 / 255**2, rel=0.5)  # only the error of rounding
    assert error(1) > 3 * error(3)
    assert error(1000) < 1e-12


def test_probe_separates_separable_classes_only():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    codes = np.eye(3)[labels] * [1, 100, 0.01] + rng.normal(0, [0.1, 10, 0.001], (300, 3))
    assert probe.accuracy(codes[:200], labels[:200], codes[200:], labels[200:]) > 0.95
    shuffled = rng.permutation(labels)
    assert probe.accuracy(codes[:200], shuffled[:200], codes[200:], shuffled[200:]) < 0.6
