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
# classifier on the latent codes. Nothing else is trained: the weights of a small model of
# handwritten digits come with the repository.
#
# Install the package first, in a clone of the repository: `pip install -e .`

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

import dbae_jax
from dbae_jax import editing
from dbae_jax.data.sources import digits

model = dbae_jax.DBAE.load("digits")
model


# %%
def show(rows, titles):
    """Shows rows of images; every row is [N, H, W, 1] with values in [-1, 1]."""
    height = len(rows)
    _, axes = plt.subplots(height, 1, figsize=(8, 1.1 * height), squeeze=False)
    for axis, row, title in zip(axes[:, 0], rows, titles, strict=True):
        axis.imshow(np.concatenate(list(row), axis=1)[..., 0], cmap="gray", vmin=-1, vmax=1)
        axis.set_ylabel(title, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    plt.show()


# %% [markdown]
# ## Encode and reconstruct
#
# The encoder maps an image to z, which has 16 dimensions here. The decoder maps z to x_T, the
# endpoint of the diffusion. The bridge runs from x_T back to an image, in five network
# evaluations.
#
# These images are not among those that the model was trained on. They were enlarged from 8x8
# pixels, so they are blurred themselves.

# %%
test = digits("test", 16)
images = test.images[:10]  # uint8, [10, 16, 16, 1]
z = model.encode(images)  # [10, 16]
x_T = model.endpoint(z)  # [10, 16, 16, 1]
reconstructions = model.decode(z)  # float32 in [-1, 1]
original = images / 127.5 - 1
show([original, np.clip(x_T / 4, -1, 1), reconstructions], ["image", "x_T / 4", "reconstruction"])
print(f"MSE of pixels in [0, 1]: {np.mean((reconstructions - original) ** 2) / 4:.5f}")

# %% [markdown]
# ## Interpolate
#
# Every point on the line between two latent codes can be decoded.

# %%
paths = model.interpolate(images[:3], images[3:6], points=9)  # [3, 9, 16, 16, 1]
show(list(paths), ["0 to 3", "1 to 4", "2 to 5"])

# %% [markdown]
# ## Edit
#
# A logistic regression on the latent codes of the training images finds the direction towards
# each class. The codes of other images move along it.

# %%
train = digits("train", 16)
codes = model.encode(train.images)
classes, targets = editing.one_vs_rest(train.labels)
found = editing.directions(codes, targets, [str(name) for name in classes])
scales = (0.0, 0.5, 1.0, 1.5, 2.0)
edited = model.edit(images[:3], found.step("9"), scale=scales)  # [3, 5, 16, 16, 1]
show(list(edited), [f"image {i}, towards 9" for i in range(3)])

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
# A linear classifier on 16 numbers per image:

# %%
probe = LogisticRegression(max_iter=2000).fit(codes, train.labels)
accuracy = probe.score(model.encode(test.images), test.labels)
print(f"Accuracy of a logistic regression on z: {accuracy:.3f}")
