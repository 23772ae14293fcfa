"""The scripts of examples/ run on a small model, and do what they say."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dbae_jax import DBAE
from dbae_jax.api import directions
from dbae_jax.configuration import build
from dbae_jax.prior import prior
from dbae_jax.training.optimizer import make_optimizer
from dbae_jax.training.state import state_from_variables
from dbae_jax.workdirs import checkpoint, workdir
from tests.helpers import tiny

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return _workdir(tiny.config(), tmp_path_factory.mktemp("workdir"))


def _workdir(c, directory):
    """Returns the workdir of a model with drawn weights and a prior."""
    tiny.write_workdir(c, directory)
    whose = {"step": 1, "weights": "ema", "fingerprint": DBAE.load(directory).fingerprint}
    variables = prior.first_variables(build.make_latent_network(c), jax.random.key(0))
    variables["stats"] = {"mean": jnp.zeros(8), "std": jnp.full(8, 0.5)}
    state = state_from_variables(variables, make_optimizer(c))
    folder = directory / prior.FOLDER
    with checkpoint.Writer(folder, keep_last=1, keep_every_steps=0) as writer:
        writer.save(state, 1, workdir.meta(c, **{prior.AUTOENCODER: whose}))
    return directory


def _main(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_every_example_is_tested():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"classifier_guidance", "inversion", "downstream_head", "teaser"}


def test_inversion_lowers_the_error(directory, tmp_path):
    options = ["--num=2", "--updates=5", "--steps=2", f"--out={tmp_path / 'x.png'}"]
    before, after = _main("inversion")([f"--workdir={directory}", *options])
    assert 0 < after < before and (tmp_path / "x.png").stat().st_size > 100


def test_heads_learn_on_fixed_and_on_tuned_encoders(directory):
    options = ["--labels=32", "--test_images=64", "--updates=20"]
    fixed, tuned = _main("downstream_head")([f"--workdir={directory}", *options])
    assert fixed > 0.2 and tuned > 0.2 and fixed != tuned  # chance is 0.1


def test_the_teaser_is_drawn(tmp_path):
    colour = {"data.channels": 3}
    model = _workdir(tiny.config(**colour), tmp_path / "model")
    diffae = tmp_path / "diffae"
    free = {"bridge.endpoint": "free", "bridge.beta_d": 19.9}
    tiny.write_workdir(tiny.config(**colour | free), diffae)
    found = {"round": np.ones(8, np.float32)}
    directions.save(model, "digits", DBAE.load(model).encoder_fingerprint, found)
    sizes = []
    for of_diffae in ([f"--diffae={diffae}"], []):
        options = [f"--weights={model}", *of_diffae, "--attribute=round"]
        _main("teaser")([*options, f"--out={tmp_path / 'x.png'}"])
        sizes.append(Image.open(tmp_path / "x.png").size)
    (width, height), (other_width, less) = sizes
    assert width == other_width > 1100 and less < height


def test_guided_samples_are_drawn(directory, tmp_path):
    options = ["--num=2", "--climbs=5", "--train_images=64", f"--out={tmp_path / 'x.png'}"]
    fractions = _main("classifier_guidance")([f"--workdir={directory}", *options])
    assert all(0 <= fraction <= 1 for fraction in fractions)
    assert (tmp_path / "x.png").stat().st_size > 100
