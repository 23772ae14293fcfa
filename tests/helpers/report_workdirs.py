"""Workdirs for tests of the report: a model with random weights, its latent prior, its records."""

import base64
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dbae_jax.configuration import build
from dbae_jax.prior import prior
from dbae_jax.prior.step import create_state
from dbae_jax.report import contents
from dbae_jax.runtime import fingerprint
from dbae_jax.training.optimizer import make_prior_optimizer
from dbae_jax.workdirs import checkpoint, workdir
from tests.helpers import tiny

STEP = 7
AMOUNTS = contents.Amounts(
    among=5,
    worst=2,
    pairs=2,
    points=5,
    edited=2,
    scales=3,
    directions=2,
    trajectories=1,
    every=10,
    samples=3,
    dimensions=2,
    values=3,
    coded=40,
    swept=8,
    steps=(2,),
)
# In the format of results.json; every number occurs once on the page.
RESULTS = {
    "reconstruction/digits": {
        "suite": "reconstruction",
        "data": "digits",
        "settings": {"step": STEP, "nfe": 3, "sampler": {"sampler": "dbim", "steps": 3}},
        "counts": {"train": 1437, "test": 360},
        "scores": {
            "mse": {"value": 0.006123, "better": "lower", "details": {}},
            "pca_mse": {"value": 0.0201, "better": "lower", "details": {"components": 8}},
            "psnr": {"value": None, "better": "higher", "details": {"reason": "an image is exact"}},
        },
        "seconds": 12.3,
    },
    "probe/digits": {
        "suite": "probe",
        "data": "digits",
        "settings": {"seeds": 3},
        "counts": {"test": 360},
        "scores": {
            "logistic_accuracy": {
                "value": 0.9512,
                "std": 0.0123,
                "values": [0.94, 0.95, 0.96],
                "better": "higher",
                "details": {"per_attribute": {"round <b>": 0.75, "straight": 0.25}},
            },
        },
        "seconds": 2.0,
    },
    "information/digits": {
        "suite": "information",
        "data": "digits",
        "settings": {"points": 4},
        "counts": {"test": 360},
        "scores": {
            "unexplained_bits_per_dim": {
                "value": 2.345,
                "better": "lower",
                "details": {
                    "standard_error": 0.067,
                    "curves": {
                        "t": [1.0, 0.1, 0.01],
                        "training_loss": [0.2, 0.1, 0.05],
                        "error": [0.3, 0.03, 0.003],
                    },
                },
            },
        },
        "seconds": 5.0,
    },
}
METRICS = [
    {"step": 1, "loss": 1.5, "images_per_second": 90.0, "train_seconds": 1.0},
    {"step": 4, "loss": 0.75, "images_per_second": 100.0, "train_seconds": 200.0},
    {"step": STEP, "loss": 0.5, "eval_loss": 0.625, "train_seconds": 313.0},
]


def pixels(uri):
    """Returns the pixels of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def write_model(directory, config):
    """Writes a workdir with random weights, which do not decode to plain gray."""
    tiny.write_workdir(config, directory, step=STEP)
    rows = "".join(json.dumps(row) + "\n" for row in METRICS)
    (directory / workdir.METRICS).write_text(rows)


def write_prior(directory, config):
    stats = {"mean": jnp.zeros(8), "std": jnp.ones(8)}
    optimizer = make_prior_optimizer(config)
    network = build.make_latent_network(config)
    state = create_state(network, optimizer, jax.random.key(0), stats)
    meta = workdir.meta(config, **{prior.AUTOENCODER: {"step": STEP, "weights": "ema"}})
    with checkpoint.Writer(directory / prior.FOLDER, keep_last=1, keep_every_steps=0) as writer:
        writer.save(state, 4, meta)


def write_results(directory, step=STEP, results=RESULTS):
    weights = fingerprint.of(workdir.load(directory).variables)
    model = {"step": step, "weights": "ema", "fingerprint": weights, "stochastic": False}
    found = {"model": model, "results": results}
    (directory / "results.json").write_text(json.dumps(found))
