"""What the scores of results.json are, in words."""

from typing import NamedTuple


class Term(NamedTuple):
    """A score: its name for people, and what it is, with its unit."""

    name: str
    meaning: str


# "score" of any suite, or "suite/score".
_TERMS = {
    "mse": Term("MSE", "mean squared error of pixels in [0, 1]"),
    "mse_8bit": Term("MSE, 8 bit", "as MSE, after rounding to 256 levels"),
    "psnr": Term("PSNR", "peak signal-to-noise ratio, dB"),
    "ssim": Term("SSIM", "structural similarity, at most 1"),
    "ssim_zero_padded": Term("SSIM, zero-padded", "as SSIM, borders filled with zeros (DiffAE's)"),
    "ssim_swapped_axes": Term(
        "SSIM, axes swapped", "what the authors' code computes; only for comparison with theirs"
    ),
    "lpips": Term("LPIPS", "perceptual distance by AlexNet, of 8-bit images"),
    "pca_mse": Term("MSE of PCA", "of the best linear code with as many numbers"),
    "information_bound_nats": Term(
        "Information, lower bound", "I(x; z) less the entropy of the images x, nats an image"
    ),
    "unexplained_bits_per_dim": Term(
        "Left open, upper bound", "what z does not tell of an 8-bit pixel value, bits"
    ),
    "accuracy": Term("Accuracy", "share of labels that a linear probe of z gets right"),
    "logistic_accuracy": Term(
        "Accuracy, logistic regression", "as accuracy, trained to the end on codes of std 1"
    ),
    "ap": Term("AP", "average precision of a linear probe of z, mean over attributes"),
    "auroc": Term("AUROC", "area under the ROC curve of a linear probe, mean over attributes"),
    "r": Term("Pearson r", "of a linear probe's predictions with the truth, mean over attributes"),
    "probe/mse": Term("MSE of attributes", "of a linear probe, in the attributes' own units"),
    "tad": Term("TAD", "sum of AUROC gaps: attributes that one number of z tells, and no other"),
    "attrs": Term("ATTRS", "number of attributes that single numbers of z capture"),
    "mig": Term("MIG", "mutual information gap, 0 to 1"),
    "dci_disentanglement": Term("DCI disentanglement", "0 to 1: a number of z tells one factor"),
    "dci_completeness": Term("DCI completeness", "0 to 1: a factor is told by one number of z"),
    "dci_informativeness": Term("DCI informativeness", "accuracy of predicted factors"),
    "fid": Term("FID", "Fréchet distance to real images, of published Inception features"),
    "kid": Term("KID", "kernel distance to real images, of published Inception features"),
    "inception_score": Term("IS", "inception score"),
    "confidence": Term(
        "Confidence", "of a classifier of real images in its answers on generated ones, mean"
    ),
    "class_distance": Term(
        "Class frequencies", "distance of generated from real ones: total variation, 0 to 1"
    ),
    "target": Term("Target", "change of the edited attribute, in std of its logit on real images"),
    "others": Term(
        "Others", "mean absolute change of attributes not correlated with it, in the same unit"
    ),
    "ratio": Term("Target / others", "how selective edits are"),
    "flipped": Term(
        "Flipped",
        "of pictures judged otherwise before: share judged as asked for after the edit",
    ),
    "monotonic": Term("Monotonic", "rank correlation of scale and the attribute's logit"),
}
# Scores on features of a network of ours: "fd_NETWORK". "_floor" compares real images with real.
_OF_NETWORKS = {
    "fd": Term("Fréchet distance", "to real images"),
    "kd": Term("Kernel distance", "to real images"),
    "precision": Term("Precision", "share of generated images among the real ones"),
    "recall": Term("Recall", "share of real images among the generated ones"),
    "classifier_score": Term("Classifier score", "as the inception score, of another network"),
}
# Endings: what they add to the name, and to the meaning.
_ENDINGS = {
    "_best_on_test": ("best on test", "its epoch chosen on the test images, as published ones are"),
    "_rotated": ("turned", "the same of codes in axes turned at random, to hold it against"),
    "_following": ("x_T not kept", "it is decoded from the moved code; a free x_T is drawn"),
    "_fixed": ("x_T kept", "it is that of the unmoved code; a free x_T is inferred"),
    "_floor_halves": ("floor of halves", "between two halves of the real images, which are fewer"),
    "_floor": ("floor", "with real training images in place of the generated ones"),
}


def explain(suite: str, name: str) -> Term:
    """Returns what a score of results.json is; of one that is not listed, its name."""
    if name.startswith("ridge_"):
        term = explain(suite, name.removeprefix("ridge_"))
        return Term(f"{term.name}, ridge", _joined(term.meaning, "in closed form"))
    for ending, (short, long) in _ENDINGS.items():
        if name.endswith(ending):
            term = explain(suite, name.removesuffix(ending))
            return Term(f"{term.name}, {short}", _joined(term.meaning, long))
    term = _TERMS.get(f"{suite}/{name}") or _TERMS.get(name)
    if term:
        return term
    for kind, term in _OF_NETWORKS.items():
        network = name.removeprefix(kind).replace("_", " ").strip()
        if name == kind or name.startswith(f"{kind}_"):
            of = f"features of {network}" if network else "published Inception features"
            return Term(term.name, _joined(term.meaning, of))
    return Term(name.replace("_", " "), "")


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
