"""What the page says of x_T, where it is decoded from z and where it is free (DiffAE's)."""

from typing import NamedTuple


class Words(NamedTuple):
    """The sentences and phrases of the page that hold for one kind of x_T."""

    model: str  # what it is called
    decoding: str  # how an image comes back from its code
    networks: str  # that there are
    origin: str  # of x_T
    moving: str  # what x_T does while a slider moves the code
    edit_command: str  # before the command that edits
    walked: str  # what leads from x_T to the image
    sampled: str  # how a sample goes on from its z


DECODED = Words(
    model="A diffusion bridge autoencoder",
    decoding=(
        "A decoder turns them into the end of a diffusion, and a bridge walks from there back to "
        "the image."
    ),
    networks="encoder, decoder and U-Net",
    origin="made of its code alone",
    moving="The endpoint follows the code.",
    edit_command="Any image and scale, the endpoint following or kept:",
    walked="bridge",
    sampled="then x_T made of it, then the bridge walked",
)
FREE = Words(
    model="A diffusion autoencoder",
    decoding=(
        "A diffusion that is told them walks to the image from x_T, which is noise: what z leaves "
        "open of the image, x_T decides."
    ),
    networks="encoder and U-Net",
    origin="drawn at random",
    moving="The endpoint x_T is drawn at random, and stays as it is while the slider moves.",
    edit_command=(
        "Any image and scale, the endpoint drawn, or with --fix_endpoint inferred from the image:"
    ),
    walked="diffusion",
    sampled="x_T at random, and the diffusion is walked from there",
)


def words(*, free: bool) -> Words:
    """Returns what is true of a model, by whether its x_T is free."""
    return FREE if free else DECODED
