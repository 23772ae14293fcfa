"""The benchmark: its FLOPs, its ratios and its errors. No test depends on the real clock."""

import json

import jax
import numpy as np
import pytest

from dbae_jax import benchmark
from dbae_jax.commands import describe
from dbae_jax.configuration import build
from dbae_jax.errors import ConfigError
from dbae_jax.performance import timing, workloads
from dbae_jax.performance.flops import count_flops
from dbae_jax.runtime import sharding
from tests.helpers import commands, tiny
from tests.helpers.paths import ROOT


class Machine:
    """A clock that programs move forward; `speed` is the machine's speed at a time."""

    def __init__(self, speed=lambda now: 1.0):
        self.now, self.speed = 0.0, speed

    def clock(self):
        return self.now

    def program(self, seconds):
        def run(calls):
            for _ in range(20 * calls):
                self.now += seconds / 20 / self.speed(self.now)

        return run


def test_pairs_hold_the_seconds_of_program_and_reference():
    machine = Machine()
    pairs = timing.interleave(
        machine.program(2.0), machine.program(0.03), seconds=100, clock=machine.clock
    )
    np.testing.assert_allclose(pairs, [(2.0, 0.03)] * len(pairs))
    # Seven calls of the reference, a tenth of a sample: 2.21 a sample until 100 s are over.
    assert len(pairs) == 46


@pytest.mark.parametrize(("seconds", "repeats"), [(0, timing.MIN_REPEATS), (1e9, 100)])
def test_the_number_of_samples_is_bounded(seconds, repeats):
    machine = Machine()
    run = machine.program(0.001)
    assert len(timing.interleave(run, run, seconds=seconds, clock=machine.clock)) == repeats


def test_a_drifting_machine_moves_seconds_but_not_their_ratio():
    machine = Machine(speed=lambda now: 1 / (1 + now / 100))
    pairs = timing.interleave(
        machine.program(1.0), machine.program(0.1), seconds=50, clock=machine.clock
    )
    assert pairs[-1].seconds > 1.3 * pairs[0].seconds
    ratios = [pair.seconds / pair.reference for pair in pairs]
    np.testing.assert_allclose(ratios, 10, rtol=0.002)


def test_the_spread_has_median_and_quartiles():
    assert timing.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == timing.Spread(3.0, 2.0, 4.0, 5)


def test_rates_and_fractions_of_the_matmul_rate(monkeypatch):
    """A program of 6 GFLOP on 3 images in 2 s, and a product of 4 GFLOP in half a second."""
    machine = Machine()
    fake = workloads.Program(machine.program(2.0), 3, 6e9, 0.25, 7.0, None)
    monkeypatch.setattr(workloads, "make", lambda name, config: fake)
    matmul = timing.Matmul(512, 4e9, machine.program(0.5))
    monkeypatch.setattr(timing, "make_matmul", lambda *args, **kwargs: matmul)
    result = benchmark.benchmark(tiny.config(), ["encode"], seconds=0, clock=machine.clock)
    row = result["parts"]["encode"]
    wanted = {
        "seconds": 2.0,
        "images_per_second": 1.5,
        "flops_per_second": 3e9,
        "share_of_matmul": 0.375,
    }
    for name, value in wanted.items():
        assert row[name] == pytest.approx(
            {"median": value, "lower": value, "upper": value, "repeats": timing.MIN_REPEATS}
        )
    assert row["flops_per_image"] == 2e9
    assert result["matmul"]["flops_per_second"]["median"] == pytest.approx(8e9)
    line = (
        "| encode | 3 | 1.50 [1.50, 1.50] | 2 | 3 [3, 3] | 0.375 [0.375, 0.375] | 7.0 | unknown |"
    )
    assert line in benchmark.table(result)


def test_the_fastest_product_is_the_reference():
    matmul = timing.make_matmul(
        sharding.make_mesh(), dtype="bfloat16", precision="default", sizes=(8, 128)
    )
    assert matmul.size == 128  # 4096 times the work for the same dispatch
    assert matmul.flops == 8 * 2 * 128**3  # one on each of the eight devices


def test_flops_of_the_endpoint_decoder_are_those_of_the_textbook():
    """z [8] -> 4x4 -> 8x8 -> 16x16 -> [16, 16, 1]; widths 64, 32, 16, doubled for the gates."""
    config = tiny.config()
    layers = [(1, 16 * 8, 128), (64, 9 * 64, 64), (256, 9 * 32, 32), (256, 16, 1)]
    products = sum(2 * places * taps * out for places, taps, out in layers)
    # Each kernel's largest singular value: W v, then times u'. The first one's rows are taps 8.
    matrices = [(128, 16 * 8), (64, 9 * 64), (32, 9 * 32), (1, 16)]
    sigmas = sum(2 * rows * columns + 2 * rows for rows, columns in matrices)
    for batch in (8, 16):
        sized = benchmark.with_batch_size(config, batch)
        assert workloads.count("endpoint", sized) == batch * products + sigmas


def test_flops_of_a_training_step_are_its_own():
    """Three times forward, less what no gradient reaches: images, and the sinusoids of time."""
    config = tiny.config()

    def slope(count):
        return (count(32) - count(16)) / 16

    counted = tiny.config(**{"model.attention": "xla"})  # as `workloads.count` does it
    networks = build.make_networks(counted)
    variables = jax.eval_shape(networks.init, jax.random.key(0))

    def forward(batch):
        x = jax.ShapeDtypeStruct((batch, 16, 16, 1), np.float32)
        return count_flops(
            networks.module.apply, variables, x, jax.ShapeDtypeStruct((batch,), np.float32)
        )

    model = config.model
    unneeded = 2 * 9 * 16 * 16 * 1 * model.encoder.base_channels
    unneeded += 2 * model.unet.base_channels * 4 * model.unet.base_channels
    step = slope(
        lambda batch: workloads.count("train_step", benchmark.with_batch_size(config, batch))
    )
    assert step == 3 * slope(forward) - unneeded
    told = describe.forward_flops(config, networks, variables)
    assert slope(forward) == pytest.approx(told, rel=0.1)


def test_flops_of_decoding_are_those_of_its_network_evaluations():
    config = tiny.config()
    counts = {name: workloads.count(name, config) for name in ("denoise", "decode")}
    assert counts["decode"] == config.sample.steps * counts["denoise"]


@pytest.mark.parametrize("name", workloads.NAMES)
def test_the_number_format_does_not_change_the_flops_of_the_model(name):
    """bfloat16 convolves an upsampled map another way, with zeros that no product needs."""
    wide = tiny.config(**tiny.TWO_LEVELS)
    narrow = tiny.config(**tiny.TWO_LEVELS, **{"model.dtype": "bfloat16"})
    assert workloads.count(name, narrow) == workloads.count(name, wide)


def test_recomputing_adds_no_flops_of_the_model():
    config = tiny.config()
    again = tiny.config(**{"model.remat": "blocks", "train.accumulation_steps": 2})
    assert workloads.count("train_step", again) == workloads.count("train_step", config)


@pytest.mark.slow
def test_the_benchmark_of_a_tiny_model_is_complete(tmp_path):
    config = tiny.config()
    kept: list[dict] = []
    result = benchmark.benchmark(
        config,
        ["train_step", "decode"],
        seconds=0,
        matmul_sizes=(64,),
        profile=tmp_path / "trace",
        keep=kept.append,
    )
    assert [list(figures["parts"]) for figures in kept] == [["decode"], ["decode", "train_step"]]
    assert kept[0]["parts"]["decode"] == result["parts"]["decode"]
    json.dumps(result, allow_nan=False)
    assert result["devices"] == 8 and result["backend"] == "cpu" and result["dtype"] == "float32"
    assert result["jax"] == jax.__version__ and len(result["date"]) == 10
    assert result["host_peak_bytes"] > 1e8
    assert list(result["parts"]) == ["decode", "train_step"]
    for name, row in result["parts"].items():
        assert row["batch_size"] == (16 if name == "train_step" else 8)
        assert row["flops_per_image"] > 1e5 and row["compile_seconds"] > 0
        for spread in ("seconds", "images_per_second", "flops_per_second", "share_of_matmul"):
            values = row[spread]
            assert 0 < values["lower"] <= values["median"] <= values["upper"]
            assert values["repeats"] >= timing.MIN_REPEATS
        assert (row["compiled_bytes"]["alias"] > 0) == (name == "train_step")  # donation
    assert len(benchmark.table(result).splitlines()) == 5 + 2
    assert [path for path in (tmp_path / "trace").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parts": ["encode", "deconde"]}, "--parts=deconde is not allowed: it must be one of enc"),
        ({"parts": []}, "--parts is empty: name some of encode"),
        ({"batch_size": 12}, r"config.eval.batch_size=12 cannot be shared .* 8 devices; use 8 or"),
        ({"profile": ROOT}, "--profile records training steps"),
        ({"parts": ["train_step"], "profile": ROOT / "README.md"}, "README.md is a file"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_timed(changes, sentence, monkeypatch):
    monkeypatch.setattr(timing, "make_matmul", lambda *args, **kwargs: pytest.fail("too late"))
    settings = {"parts": ["encode"], "profile": None, "batch_size": 8} | changes
    config = benchmark.with_batch_size(tiny.config(), settings.pop("batch_size"))
    with pytest.raises(ConfigError, match=sentence):
        benchmark.benchmark(config, settings.pop("parts"), seconds=0, **settings)


def _command(*given, cold=False):
    one_device = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return commands.run("benchmark", "--config=configs/digits.py", *given, cold=cold, **one_device)


@pytest.mark.slow
def test_the_command_writes_figures_and_a_table(tmp_path):
    path = tmp_path / "figures.json"
    changes = ("decoder.base_channels=4", "latent_dim=4", "encoder.channel_mult=(1,)")
    changes += ("unet.channel_mult=(1,)", "unet.attention_resolutions=()")
    narrow = [f"--config.model.{change}" for change in changes]
    done = _command("--parts=endpoint", "--batch_size=3", "--seconds=0", f"--json={path}", *narrow)
    assert done.returncode == 0, done.stderr
    assert "| endpoint | 3 |" in done.stdout
    assert json.loads(path.read_text())["parts"]["endpoint"]["batch_size"] == 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--parts=deconde"], "error: --parts=deconde is not allowed"),
        (["--json=docs"], "error: --json=docs cannot be written: docs is a folder."),
    ],
)
def test_the_command_prints_errors_as_one_sentence(given, sentence):
    done = _command(*given, cold=True)
    assert done.returncode == 2 and done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
