"""The network that judges pictures of a data set: trained on its labels, kept with the codes."""

from dbae_jax.evaluators import label_net_fit
from dbae_jax.evaluators.context import Context
from dbae_jax.evaluators.label_net import LabelNet


def obstacle(context: Context) -> str | None:
    """Returns why no network can be trained, or None."""
    if context.has_binary_attributes() or "label" in context.known:
        return None
    return (
        f"the images of {context.config.data.name} have neither labels nor attributes that are 0 "
        "or 1, which a network could be trained on"
    )


def num_images(context: Context) -> int:
    """Returns on how many training images the network is trained."""
    return min(label_net_fit.FitSettings().most_images, context.limit("train"))


def make(context: Context) -> LabelNet:
    """Returns a network trained on the training images' attributes, or labels if they have none.

    It is read from the context's cache if it is there.
    """
    name, known = context.config.data.name, context.codes("train").known
    images, names = context.images("train", num_images(context)), None
    if context.has_binary_attributes():
        labels, names = known["attributes"], context.attribute_names or None
    else:
        labels = known["label"]
    how = {"name": name, "label_names": names}
    if context.cache is None:
        return label_net_fit.fit(images, labels[: len(images)], **how)
    path = context.cache / f"{name}_judge.npz"
    return label_net_fit.load_or_fit(path, images, labels[: len(images)], **how)
