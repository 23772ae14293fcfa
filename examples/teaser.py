"""Draws a picture of reconstructions, edits and samples of a model.

python examples/teaser.py --diffae=runs/emoji32_diffae --out=docs/images/teaser.png

The images are those of examples/images, which no model was trained on. DiffAE is a model of the
same size that was trained as long, with --config.bridge.endpoint=free and
--config.bridge.beta_d=19.9. Without --diffae, the picture has no rows of DiffAE.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np

import dbae_jax

COLUMNS = 12
EDITED = "child"
LABELS = 1.7  # width of the titles in inches


def strips(
    model: dbae_jax.DBAE, diffae: dbae_jax.DBAE | None, attribute: str
) -> dict[str, np.ndarray]:
    """Returns the rows of the picture, each [COLUMNS, H, W, C] in [0, 1], by title.

    Args:
      model: the DBAE.
      diffae: a DiffAE of the same images; None for a picture without it.
      attribute: attribute that the last but one row edits.
    """
    paths = sorted((pathlib.Path(__file__).parent / "images").glob("*.png"))[:COLUMNS]
    z = model.encode(paths)
    x_T = model.endpoint(z)
    low, high = np.percentile(x_T, [1, 99])
    edited = next(path for path in paths if path.stem == EDITED)
    steps = np.linspace(-1, 1, COLUMNS)
    rows = {
        "image": model.preprocess(paths),
        "DBAE:\nx_T = decoder(z)": 2 * (x_T - low) / (high - low) - 1,
        "DBAE:\nfrom x_T, NFE 5": model.decode(z),
    }
    if diffae is not None:
        z_diffae = diffae.encode(paths)
        rows["DiffAE: from z and\nrandom x_T"] = diffae.decode(z_diffae, rng=0)
        rows["DiffAE: from z and\nanother random x_T"] = diffae.decode(z_diffae, rng=1)
    rows |= {
        f"DBAE: edit of\n{attribute}": model.edit(edited, attribute=attribute, scale=steps)[0],
        "DBAE: samples": model.sample(COLUMNS, rng=0),
    }
    return {title: np.clip(row / 2 + 0.5, 0, 1) for title, row in rows.items()}


def draw(rows: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Writes the rows with their titles as a PNG file."""
    height = 0.82
    width = LABELS + COLUMNS * height
    figure, axes = plt.subplots(len(rows), 1, figsize=(width, height * len(rows)))
    for axis, (title, row) in zip(axes, rows.items(), strict=True):
        axis.imshow(np.concatenate(list(row), axis=1), interpolation="nearest")
        axis.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.subplots_adjust(left=LABELS / width, right=1, bottom=0, top=1, hspace=0.04)
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> None:
    """Draws the picture that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="emoji32", help="workdir or name of weights")
    parser.add_argument("--diffae", type=pathlib.Path, help="workdir of a DiffAE")
    parser.add_argument("--attribute", default="dark_skin", help="attribute to edit")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="PNG to write")
    given = parser.parse_args(argv)
    model = dbae_jax.DBAE.load(given.weights)
    diffae = dbae_jax.DBAE.load(given.diffae) if given.diffae else None
    draw(strips(model, diffae, given.attribute), given.out)


if __name__ == "__main__":
    main()
