# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a folder of images to edits
#
# You prepare a folder of images, train a small model on it, and mix and edit images that the
# model has not seen. The images here are drawn by a program, so the notebook downloads nothing.
# To use your own images, set `photos` to a folder whose subfolders are the classes, and leave out
# the cell that draws.

# %% [markdown]
# In Colab, the next cell clones the repository and installs it: write the address of the
# repository into it first. Elsewhere it does nothing, so install the package before, in a clone
# of the repository: `pip install -e .`

# %%
import pathlib
import subprocess
import sys

REPOSITORY = ""  # the address to clone, such as https://github.com/OWNER/dbae_jax

if "google.colab" in sys.modules:
    if not REPOSITORY:
        raise SystemExit("Write the address of the repository into this cell.")
    if not pathlib.Path("repository").exists():
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, "repository"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", "repository"], check=True)
    sys.path.insert(0, "repository")  # an editable installation is found after a restart only

# %%
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

import dbae_jax
from dbae_jax import editing
from dbae_jax.data import registry
from dbae_jax.data.sources import gather

STEPS = 400  # of 32 images
work = pathlib.Path(tempfile.mkdtemp())
photos = work / "photos"

# %% [markdown]
# ## A folder of images
#
# There are 400 discs and 400 squares, in random colours and places.

# %%
random = np.random.default_rng(0)
for kind in ("disc", "square"):
    (photos / kind).mkdir(parents=True)
    for number in range(400):
        image = Image.new("RGB", (48, 48), "white")
        x, y = random.integers(2, 22, 2)
        side = random.integers(14, 24)
        colour = tuple(int(value) for value in random.integers(0, 220, 3))
        pen = ImageDraw.Draw(image)
        draw = pen.ellipse if kind == "disc" else pen.rectangle
        draw((x, y, x + side, y + side), fill=colour)
        image.save(photos / kind / f"{number:03d}.png")


# %% [markdown]
# ## Prepare and train
#
# `prepare` checks the images, splits them into training and test images, and stores them. The
# names of the subfolders become the labels. The config `folder32` is for 32x32 pixels.


# %%
def run(*command):
    """Runs a command of the package, and shows the last lines of its log."""
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    print(*(done.stdout + done.stderr).splitlines()[-6:], sep="\n")
    done.check_returncode()


data = f"{work}/data"
run("dbae_jax.data.prepare", "--dataset=folder", f"--source={photos}", f"--data_dir={data}")

# %%
run(
    *("dbae_jax", "train", "--config=folder32", f"--workdir={work}/run"),
    *(f"--config.data.data_dir={data}", f"--config.train.num_steps={STEPS}"),
    "--config.model.latent_dim=16",
)

# %% [markdown]
# ## Reconstruct
#
# These are test images. Training has not seen them.

# %%
model = dbae_jax.DBAE.load(work / "run")
model


# %%
def show(rows, titles):
    """Shows rows of images; every row is [N, H, W, 3] with values in [-1, 1]."""
    _, axes = plt.subplots(len(rows), 1, figsize=(8, 1.1 * len(rows)), squeeze=False)
    for axis, row, title in zip(axes[:, 0], rows, titles, strict=True):
        axis.imshow(np.clip(np.concatenate(list(row), axis=1) / 2 + 0.5, 0, 1))
        axis.set_ylabel(title, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    plt.show()


images, labels = gather(registry.make_source(model.config.data, "test"))
chosen = [*np.flatnonzero(labels == 0)[:5], *np.flatnonzero(labels == 1)[:5]]
images = images[chosen]  # uint8, [10, 32, 32, 3]
original = images / 127.5 - 1
reconstructions = model.reconstruct(images)
show([original, reconstructions], ["image", "reconstruction"])
print(f"MSE of pixels in [0, 1]: {np.mean((reconstructions - original) ** 2) / 4:.5f}")

# %% [markdown]
# ## Interpolate
#
# Each row goes from a disc to a square, along the line between their latent codes.

# %%
paths = model.interpolate(images[:3], images[5:8], points=10)  # [3, 10, 32, 32, 3]
show(list(paths), ["0 to 5", "1 to 6", "2 to 7"])

# %% [markdown]
# ## Edit
#
# A logistic regression on the latent codes of the training images finds the direction from discs
# (label 0) to squares (label 1). The codes of the test discs move along it; the first column is
# the reconstruction.

# %%
train_images, train_labels = gather(registry.make_source(model.config.data, "train"))
directions = editing.directions(
    model.encode(train_images), (train_labels == 1)[:, None], ["square"]
)
edited = model.edit(images[:3], directions.step("square"), scale=np.linspace(0, 1, 10))
show(list(edited), [f"image {i}, towards square" for i in range(3)])

# %% [markdown]
# The commands `dbae train_prior`, `dbae evaluate` and `dbae report` of this workdir train a latent
# prior, measure the model, and write a page with all results. `dbae app` shows the model in a
# browser.
