"""Explanations of the scores of results.json."""

from collections.abc import Iterable
from typing import NamedTuple


class Term(NamedTuple):
    """The name of a score for readers, and its meaning with the unit."""

    name: str
    meaning: str


# Keys are the name of a score in any suite, or "suite/name".
_TERMS = {
    "mse": Term("MSE", "mean squared error of pixels in [0, 1]"),
    "mse_8bit": Term("MSE, 8 bit", "MSE after rounding to 256 levels"),
    "psnr": Term("PSNR", "peak signal-to-noise ratio, dB"),
    "ssim": Term("SSIM", "structural similarity, at most 1"),
    "ssim_zero_padded": Term("SSIM, zero-padded", "SSIM with zeros around the image, as in DiffAE"),
    "ssim_swapped_axes": Term(
        "SSIM, axes swapped", "SSIM as the authors' code computes it, only to compare with theirs"
    ),
    "lpips": Term("LPIPS", "perceptual distance of AlexNet features, 8-bit images"),
    "sharpness_error": Term(
        "Sharpness error",
        "mean |ln of the ratio of power to that of the images| over the upper half of frequencies",
    ),
    "pca_mse": Term("MSE of PCA", "MSE of PCA with as many components as z has dimensions"),
    "information_bound_nats": Term(
        "Information, lower bound", "I(x_0; z) minus the entropy of x_0, nats per image"
    ),
    "unexplained_bits_per_dim": Term(
        "H(x_0 given z), upper bound", "entropy of an 8-bit pixel value given z, in bits, at most"
    ),
    "accuracy": Term("Accuracy", "fraction of labels that a linear probe of z predicts correctly"),
    "logistic_accuracy": Term(
        "Accuracy, logistic regression",
        "accuracy of logistic regression on standardised latent codes",
    ),
    "ap": Term("AP", "average precision of a linear probe of z, mean over attributes"),
    "auroc": Term("AUROC", "area under the ROC curve of a linear probe, mean over attributes"),
    "r": Term("Pearson r", "correlation of a linear probe with the truth, mean over attributes"),
    "probe/mse": Term("MSE of attributes", "MSE of a linear probe, in the attributes' own units"),
    "tad": Term(
        "TAD", "AUROC gap of the two best dimensions of z, summed over captured attributes"
    ),
    "attrs": Term("ATTRS", "number of attributes that a single dimension of z captures"),
    "mig": Term("MIG", "mutual information gap, from 0 to 1"),
    "dci_disentanglement": Term(
        "DCI disentanglement",
        "from 0 to 1; the value 1 means that each dimension of z predicts a single factor",
    ),
    "dci_completeness": Term(
        "DCI completeness",
        "from 0 to 1; the value 1 means that a single dimension of z predicts each factor",
    ),
    "dci_informativeness": Term("DCI informativeness", "accuracy of the predicted factors"),
    "fid": Term("FID", "Fréchet distance to real images, published Inception features"),
    "kid": Term("KID", "kernel distance to real images, published Inception features"),
    "inception_score": Term("IS", "inception score"),
    "confidence": Term("Confidence", "mean classifier confidence on sampled images"),
    "class_distance": Term(
        "Class frequencies", "total variation distance between sampled and real images, from 0 to 1"
    ),
    "target": Term(
        "Target", "change of the edited attribute's logit, in its standard deviation on real images"
    ),
    "others": Term(
        "Others", "mean absolute change of the uncorrelated attributes, in the same unit"
    ),
    "ratio": Term("Target / others", "selectivity of the edits"),
    "flipped": Term(
        "Flipped",
        "fraction of images that the classifier assigns to the intended class only after the edit",
    ),
    "monotonic": Term("Monotonic", "rank correlation of the scale and the attribute's logit"),
}
# Scores on the features of a trained classifier: "fd_NETWORK".
_OF_FEATURES = {
    "fd": Term("Fréchet distance", "to real images"),
    "kd": Term("Kernel distance", "to real images"),
    "precision": Term("Precision", "fraction of sampled images within the set of real images"),
    "recall": Term("Recall", "fraction of real images within the set of sampled images"),
    "classifier_score": Term("Classifier score", "inception score with another network"),
}
# Endings of names -> what they add to the name and to the meaning.
_ENDINGS = {
    "_best_on_test": ("best on test", "epoch chosen on the test images, as in published values"),
    "_rotated": ("rotated", "baseline: randomly rotated latent codes"),
    "_following": ("x_T recomputed", "x_T decoded from the edited code; Gaussian x_T: sampled"),
    "_fixed": ("x_T fixed", "x_T of the unedited code; Gaussian x_T: inferred from the image"),
    "_floor_halves": (
        "floor of halves",
        "between two halves of the real images; so few images make it larger than other distances",
    ),
    "_floor": ("floor", "real training images instead of sampled images"),
}


# Scores that few readers need: versions of others, for comparison with published values.
_MINOR = (
    *("mse_8bit", "ssim_zero_padded", "ssim_swapped_axes", "information_bound_nats"),
    *("ridge_", "confidence", "_rotated", "_floor_halves", "_best_on_test"),
)
# Beginnings of names in the order of a table; what is not named follows in its own order.
_ORDER = (
    *("mse", "pca_mse", "psnr", "ssim", "lpips", "unexplained", "logistic", "accuracy", "ap"),
    *("fid", "fd", "kid", "kd", "precision", "recall", "inception", "class_distance"),
    *("ratio", "target", "others", "flipped", "monotonic"),
)


def is_minor(name: str) -> bool:
    """Returns whether a score belongs below the fold of its table."""
    return name.startswith(_MINOR) or name.endswith(_MINOR)


def in_order(names: Iterable[str]) -> list[str]:
    """Returns the names of scores, what matters most first."""
    places = {name: _place(name) for name in names}
    return sorted(places, key=lambda name: places[name])


def _place(name: str) -> int:
    whole = [i for i, start in enumerate(_ORDER) if name == start or name.startswith(f"{start}_")]
    return whole[0] if whole else len(_ORDER)


def explain(suite: str, name: str) -> Term:
    """Explains a score of results.json; an unknown score keeps its name and has no meaning."""
    if name.startswith("ridge_"):
        term = explain(suite, name.removeprefix("ridge_"))
        return Term(f"{term.name}, ridge", _joined(term.meaning, "fitted in closed form"))
    for ending, (short, long) in _ENDINGS.items():
        if name.endswith(ending):
            term = explain(suite, name.removesuffix(ending))
            return Term(f"{term.name}, {short}", _joined(term.meaning, long))
    known = _TERMS.get(f"{suite}/{name}") or _TERMS.get(name)
    if known:
        return known
    for kind, term in _OF_FEATURES.items():
        network = name.removeprefix(kind).replace("_", " ").strip()
        if name == kind or name.startswith(f"{kind}_"):
            features = f"features of {network}" if network else "published Inception features"
            if network.startswith("classifier-"):
                features = "features of the classifier"
            return Term(term.name, _joined(term.meaning, features))
    return Term(name.replace("_", " "), "")


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
