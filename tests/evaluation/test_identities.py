"""Kept files are valid for one model: its step, weights, number format and precision."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.evaluation import attribute_directions
from dbae_jax.runtime import fingerprint
from tests.helpers import stubs

LABELS = np.arange(40) % 2


def test_fingerprints_are_of_names_shapes_types_and_values():
    tree = {"params": {"a": np.ones(4, np.float32)}, "stats": {"b": np.zeros((2, 2), np.float32)}}
    found = {
        fingerprint.of(some)
        for some in (
            tree,
            tree | {"stats": {"b": np.zeros((4, 1), np.float32)}},
            tree | {"stats": {"c": np.zeros((2, 2), np.float32)}},
            tree | {"stats": {"b": np.eye(2, dtype=np.float32)}},
            tree | {"stats": {"b": np.zeros((2, 2), np.int32)}},
        )
    }
    assert len(found) == 5 and {len(name) for name in found} == {fingerprint.LENGTH}
    assert fingerprint.of({"a": jnp.arange(3)}) == fingerprint.of({"a": np.arange(3, dtype="i4")})


CHANGES = {
    "step": ("step", 8),
    "weights": ("fingerprint", "f" * 12),
    "encoder": ("encoder_fingerprint", "f" * 12),
    "dtype": {"model.dtype": "bfloat16"},
    "precision": {"model.matmul_precision": "highest"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_codes_and_directions_of_other_encoders_are_not_taken(name, tmp_path):
    """They depend on the encoder and on how it computes, and on no other weights."""
    change = CHANGES[name]
    codes = np.stack([2.0 * LABELS - 1, np.linspace(-1, 1, 40)], axis=1) / 2
    splits = {s: stubs.Data(stubs.images(codes), label=LABELS) for s in ("train", "test")}

    def make(change=None):
        context = stubs.context(
            splits, cache=tmp_path, **(change if isinstance(change, dict) else {})
        )
        if isinstance(change, tuple):
            setattr(context.model, *change)
        return context

    def identity():
        with np.load(tmp_path / "digits_directions.npz") as file:
            return json.loads(str(file["identity"]))

    first, again, other = make(), make(), make(change)
    attribute_directions.find(first, ["1"])
    before = identity()
    attribute_directions.find(again, ["1"])
    assert (first.model.calls > 0, again.model.calls) == (True, 0) and identity() == before
    assert (other.settings() == first.settings()) == (name == "encoder")
    attribute_directions.find(other, ["1"])
    same = name in ("step", "weights")
    assert (other.model.calls == 0, identity() == before) == (same, same)
