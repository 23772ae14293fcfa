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
# # A diffusion bridge autoencoder in ten minutes
#
# You encode images, decode them again, mix them, edit them, sample new ones, and train a
# classifier on latent codes. Nothing else is trained: the weights of two small models, of emoji
# and of handwritten digits, come with the repository.

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
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

import dbae_jax
from dbae_jax.data.sources import digits

model = dbae_jax.DBAE.load("emoji32")
model


# %%
def show(rows, titles):
    """Shows rows of images; every row is [N, H, W, 3] with values in [-1, 1]."""
    height = len(rows)
    _, axes = plt.subplots(height, 1, figsize=(8, 1.1 * height), squeeze=False)
    for axis, row, title in zip(axes[:, 0], rows, titles, strict=True):
        axis.imshow(np.clip(np.concatenate(list(row), axis=1) / 2 + 0.5, 0, 1))
        axis.set_ylabel(title, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    plt.show()


# %% [markdown]
# ## Encode and reconstruct
#
# The encoder maps an image to z, which has 64 dimensions here. The decoder maps z to x_T, the
# endpoint of the diffusion. The bridge runs from x_T back to an image, in five network
# evaluations.
#
# The model has not been trained on these images. It is small, and trains for about an hour on
# two CPU cores, so it keeps outlines and colours, and loses details.

# %%
folder = pathlib.Path(dbae_jax.__file__).parents[1] / "examples" / "images"
files = sorted(folder.glob("*.png"))[:10]
images = model.preprocess(files)  # float32 in [-1, 1], [10, 32, 32, 3]
z = model.encode(images)  # [10, 64]
x_T = model.endpoint(z)  # [10, 32, 32, 3]
reconstructions = model.decode(z)  # float32 in [-1, 1]
show([images, np.clip(x_T / 4, -1, 1), reconstructions], ["image", "x_T / 4", "reconstruction"])
print(f"MSE of pixels in [0, 1]: {np.mean((reconstructions - images) ** 2) / 4:.5f}")

# %% [markdown]
# ## Interpolate
#
# Every point on the line between two latent codes can be decoded.

# %%
paths = model.interpolate(images[:3], images[3:6], points=9)  # [3, 9, 32, 32, 3]
show(list(paths), ["0 to 3", "1 to 4", "2 to 5"])

# %% [markdown]
# ## Edit
#
# The file of weights has a direction of latent space for each attribute and class of the data.
# The latent code of an image moves along it. The middle column is the reconstruction.

# %%
print(", ".join(model.directions))
people = model.preprocess([folder / f"{name}.png" for name in ("child", "princess", "santa")])
scales = np.linspace(-1, 1, 9)
edited = model.edit(people, attribute="dark_skin", scale=scales)  # [3, 9, 32, 32, 3]
show(list(edited), [f"image {i}, dark skin" for i in range(3)])

# %% [markdown]
# ## Sample
#
# The latent prior draws latent codes, and the bridge decodes them.

# %%
samples = model.sample(20, rng=0)
show([samples[:10], samples[10:]], ["samples", ""])

# %% [markdown]
# ## Use z as features
#
# This part uses the model of digits, because their images come with scikit-learn. A linear
# classifier reads the digit from 16 numbers per image:

# %%
model = dbae_jax.DBAE.load("digits")
train, test = digits("train", 16), digits("test", 16)
probe = LogisticRegression(max_iter=2000).fit(model.encode(train.images), train.labels)
accuracy = probe.score(model.encode(test.images), test.labels)
print(f"Accuracy of a logistic regression on z: {accuracy:.3f}")
