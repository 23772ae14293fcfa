"""Training with some networks frozen: their weights and statistics stay the same, bit for bit."""

import dataclasses

import jax

from dbae_jax.training import losses

ENCODER, DECODER, UNET = "encoder", "decoder", "unet"


@dataclasses.dataclass(frozen=True)
class FrozenNetworks:
    """Networks whose frozen parts get no gradient; see `losses.Networks` for the methods.

    A frozen endpoint decoder normalises with its running statistics, as in evaluation. So x_T of an
    image is the endpoint that a trained model decodes.
    """

    networks: losses.Networks
    parts: tuple[str, ...]  # names of the frozen networks

    @property
    def latent_dim(self) -> int:
        return self.networks.latent_dim

    @property
    def precision(self) -> str:
        return self.networks.precision

    def encode(self, variables: dict, x_0: jax.Array) -> losses.Code:
        return self.networks.encode(self._held(variables), x_0)

    def endpoint(self, variables: dict, z: jax.Array) -> jax.Array:
        return self.networks.endpoint(self._held(variables), z)

    def endpoint_train(self, variables: dict, z: jax.Array) -> tuple[jax.Array, dict]:
        if DECODER in self.parts:
            return self.endpoint(variables, z), variables["stats"]
        return self.networks.endpoint_train(self._held(variables), z)

    def network(
        self,
        variables: dict,
        x: jax.Array,
        c_noise: jax.Array,
        z: jax.Array,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        return self.networks.network(self._held(variables), x, c_noise, z, dropout_key)

    def _held(self, variables: dict) -> dict:
        params = {
            name: jax.lax.stop_gradient(tree) if name in self.parts else tree
            for name, tree in variables["params"].items()
        }
        return variables | {"params": params}


def freeze(networks: losses.Networks, parts: tuple[str, ...]) -> losses.Networks:
    """Returns networks whose parts ("encoder", "decoder", "unet") are not trained."""
    return FrozenNetworks(networks, parts) if parts else networks


def keep(before: dict, after: dict, parts: tuple[str, ...]) -> dict:
    """Returns variables `after` a step, with the frozen parts as they were `before`.

    Without gradient the weights do not change, but their EMA would change by rounding, and the
    singular vectors of the endpoint decoder's spectral norms by the power method.
    """
    kept = {name: before["params"][name] for name in parts}
    stats = before["stats"] if DECODER in parts else after["stats"]
    return {"params": after["params"] | kept, "stats": stats}
