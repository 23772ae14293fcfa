"""What the app shows of a result: its pictures, its numbers, and links to files."""

import numpy as np

from dbae_jax.app.actions import Decoded, Edited, Encoded
from dbae_jax.app.figures import Figure, archive, below, picture, row
from dbae_jax.app.pictures import stretched
from dbae_jax.data.images import grid, to_float


def of_edit(encoded: Encoded, edited: Edited, how: str) -> str:
    """Returns an image, its x_T, its reconstruction and its edit.

    Args:
      encoded: the image.
      edited: the same after the sliders.
      how: number of evaluations and the time.
    """
    x_T, size = edited.x_T, len(encoded.image)
    shown = row(
        [
            Figure("image", "Image", encoded.image, f"cropped, {size}x{size} pixels"),
            Figure(
                "x_T",
                "x<sub>T</sub>, the endpoint",
                stretched(x_T),
                f"own scale, from {x_T.min():.2f} to {x_T.max():.2f}",
            ),
            Figure("reconstruction", "Reconstruction", encoded.reconstruction, error(encoded)),
            Figure("edited", "After the sliders", edited.image, _distance(encoded.z, edited.z)),
        ],
        "wide",
    )
    arrays = {"z": encoded.z, "z_edited": edited.z, "x_T": x_T, "image": encoded.image}
    save = archive("latent_code", "Save z as .npz", arrays)
    return shown + below(how, save)


def error(encoded: Encoded) -> str:
    """Returns the error of a reconstruction in words."""
    return f"MSE {encoded.mse:.5f}<br>PSNR {encoded.psnr:.1f} dB"


def _distance(z: np.ndarray, moved: np.ndarray) -> str:
    length = float(np.linalg.norm(moved - z))
    return f"z moved by {length:.2f}" if length else "z is unchanged"


def of_mix(mixed: Decoded, method: str, how: str) -> str:
    """Returns the images between two images."""
    shares = np.linspace(0, 100, len(mixed.images))
    figures = [
        Figure(f"mix_{share:.0f}", f"{share:.0f}%", image)
        for share, image in zip(shares, mixed.images, strict=True)
    ]
    arrays = {"z": mixed.z, "images": mixed.images, "method": np.array(method)}
    return row(figures, "strip") + below(
        how, archive("mix", "Save z as .npz", arrays), _all("mix", mixed.images[None])
    )


def of_samples(drawn: Decoded, seed: int, how: str) -> str:
    """Returns sampled images."""
    figures = [Figure(f"sample_{seed}_{i}", f"{i}", image) for i, image in enumerate(drawn.images)]
    arrays = {"z": drawn.z, "images": drawn.images, "seed": np.array(seed)}
    save = archive(f"samples_{seed}", "Save z as .npz", arrays)
    rows = np.array_split(drawn.images, max(1, len(drawn.images) // 8))
    return row(figures, "tiles") + below(how, save, _all(f"samples_{seed}", rows))


def _all(file: str, rows: np.ndarray | list[np.ndarray]) -> str:
    """Returns a link that saves rows of images as one PNG."""
    pixels = grid([np.asarray(to_float(images)) for images in rows])
    return picture(file, "Save all as PNG", pixels)
