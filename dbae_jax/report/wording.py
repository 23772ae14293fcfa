"""Sentences of the page that depend on the kind of model.

x_T is decoded from z (DBAE, distilled or not) or Gaussian (DiffAE). The config value
bridge.endpoint="free" stands for a Gaussian x_T.
"""

from typing import NamedTuple

from dbae_jax.api.dbae import DBAE
from dbae_jax.configuration.distillation import is_distilled


class Words(NamedTuple):
    """The sentences and phrases for one kind of model.

    Attributes:
      model: name of the kind of model.
      decoding: sentences that explain how an image is decoded from its latent code.
      networks: names of the networks, for the number of parameters.
      origin: where the x_T of a reconstruction comes from.
      moving: sentence on x_T while a slider changes the code.
      edit_command: introduction of the command that edits.
      process: name of the diffusion between x_T and the image.
      sampling: sentence on the way from a sampled code to an image.
    """

    model: str
    decoding: str
    networks: str
    origin: str
    moving: str
    edit_command: str
    process: str
    sampling: str


DECODED = Words(
    model="A diffusion bridge autoencoder",
    decoding=(
        "A decoder maps z to the endpoint x_T of a diffusion bridge. A sampler integrates the "
        "bridge from x_T back to the image."
    ),
    networks="encoder, decoder and U-Net",
    origin="decoded from z alone",
    moving="The endpoint x_T is recomputed from each code.",
    edit_command="To edit any image at any scale, with x_T recomputed or held fixed:",
    process="bridge",
    sampling=(
        "The endpoint x_T is decoded from z, and the sampler integrates the bridge from x_T to the "
        "image."
    ),
)
DISTILLED = DECODED._replace(
    decoding=(
        "A decoder maps z to the endpoint x_T of a diffusion bridge. The U-Net is distilled: it "
        "predicts an image from x_T, and again from a noisy state between this image and x_T."
    ),
    sampling=(
        "The endpoint x_T is decoded from z, and the distilled U-Net predicts the image from it."
    ),
)
GAUSSIAN = Words(
    model="A diffusion autoencoder",
    decoding=(
        "A sampler integrates a diffusion that is conditioned on z, from x_T to the image. "
        "x_T is Gaussian noise that is independent of z. It determines the details that z lacks."
    ),
    networks="encoder and U-Net",
    origin="sampled as Gaussian noise",
    moving="The endpoint x_T is sampled once per image and held fixed while the slider moves.",
    edit_command=(
        "To edit any image at any scale, with x_T sampled, or inferred from the image with "
        "--fix_endpoint:"
    ),
    process="diffusion",
    sampling=(
        "The endpoint x_T is sampled as Gaussian noise, and the sampler integrates the diffusion "
        "from x_T to the image."
    ),
)


def words(model: DBAE) -> Words:
    """Returns the sentences for a model."""
    if model.gaussian_endpoint:
        return GAUSSIAN
    return DISTILLED if is_distilled(model.config) else DECODED
