"""The network of the latent prior against DiffAE's, at full size, on the case of `golden`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbae_jax.errors import CheckpointError
from dbae_jax.models import torch_state_dict
from dbae_jax.models.latent_net import LatentNet, LatentNetwork
from tests.helpers import golden


@pytest.fixture(scope="module")
def case():
    """Returns (outputs, network, state dict, weights, z_t)."""
    outputs = dict(np.load(golden.FOLDER / "latent_prior_10layers.npz"))
    meta, manifest = (json.loads(str(outputs[name])) for name in ("meta", "manifest"))
    module = LatentNet(meta["latent_dim"], meta["layers"], meta["hidden"])
    network = LatentNetwork(module, "highest")
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    drawn = golden.make_state_dict(manifest)
    params = torch_state_dict.prior_from_state_dict(drawn, shapes)
    yield outputs, network, drawn, params, golden.draw("z_t", (meta["batch"], meta["latent_dim"]))
    jax.clear_caches()


def test_prediction_and_gradients(case):
    outputs, network, _, params, z_t = case
    target = golden.draw("target", z_t.shape)

    def loss_fn(params):
        prediction = network.predict(params, z_t, jnp.asarray(outputs["t"], jnp.int32))
        return jnp.abs(prediction - target).mean(), prediction

    grads, prediction = jax.jit(jax.grad(loss_fn, has_aux=True))(params)
    assert golden.distance(np.asarray(prediction), outputs["prediction"], "prediction") < 1e-5
    names = {name.removeprefix("grad/") for name in outputs if name.startswith("grad/")}
    entries = torch_state_dict.prior_entries(grads)
    assert {e.key.replace("cond_layers.1", "linear_emb") for e in entries} == names
    for entry in entries:
        module, kind = entry.path
        got = entry.layout.to_torch(np.asarray(grads[module][kind]))
        key = entry.key.replace("cond_layers.1", "linear_emb")
        assert golden.distance(got, outputs[f"grad/{key}"], key) < 5e-5, key


def test_state_dicts_that_do_not_fit_are_refused(case):
    _, _, drawn, params, _ = case
    missing = {key: array for key, array in drawn.items() if key != "layers.3.norm.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing: layers\.3\.norm\.bias"):
        torch_state_dict.prior_from_state_dict(missing, params)
    with pytest.raises(CheckpointError, match="1 unknown: surplus"):
        torch_state_dict.prior_from_state_dict(drawn | {"surplus": np.zeros(1)}, params)


def test_every_layer_but_the_first_also_reads_z_t():
    module = LatentNet(latent_dim=3, num_layers=4, width=8)
    params = LatentNetwork(module, "default").init(jax.random.key(0))
    widths = [params[f"layer_{i}"]["kernel"].shape for i in range(4)]
    assert widths == [(3, 8), (11, 8), (11, 8), (11, 3)]
