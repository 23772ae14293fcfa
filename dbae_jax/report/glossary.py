"""What the scores of results.json are, in words."""

from typing import NamedTuple


class Term(NamedTuple):
    """A score: its name for people, and what it is, with its unit."""

    name: str
    meaning: str


# Score of a suite, or of any. Names may carry "ridge_" in front and "_best_on_test" behind.
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
        "Information, lower bound", "of I(x_0; z) less the entropy of the images, nats an image"
    ),
    "unexplained_bits_per_dim": Term(
        "Left open, upper bound", "what z does not tell of an 8-bit pixel value, bits"
    ),
    "accuracy": Term("Accuracy", "share of labels that a linear probe of z gets right"),
    "logistic_accuracy": Term("Accuracy, logistic regression", "as accuracy, of codes at std 1"),
    "ap": Term("AP", "average precision of a linear probe of z, mean over attributes"),
    "auroc": Term("AUROC", "area under the ROC curve of a linear probe, mean over attributes"),
    "r": Term("Pearson r", "of a linear probe's predictions, mean over attributes"),
    "probe/mse": Term("MSE of attributes", "of a linear probe, in the attributes' own units"),
    "tad": Term("TAD", "total AUROC difference: attributes told by one dimension of z alone"),
    "attrs": Term("ATTRS", "number of attributes that a dimension of z captures"),
    "mig": Term("MIG", "mutual information gap, 0 to 1"),
    "dci_disentanglement": Term("DCI disentanglement", "0 to 1"),
    "dci_completeness": Term("DCI completeness", "0 to 1"),
    "dci_informativeness": Term("DCI informativeness", "accuracy, 0 to 1"),
    "fid": Term("FID", "Fréchet distance of Inception features"),
    "kid": Term("KID", "kernel distance of Inception features"),
    "precision": Term("Precision", "share of samples within the real images' manifold"),
    "recall": Term("Recall", "share of real images within the samples' manifold"),
    "inception_score": Term("IS", "inception score"),
}


def explain(suite: str, name: str) -> Term:
    """Returns what a score of results.json is; of one not listed, its name."""
    bare = name.removeprefix("ridge_").removesuffix("_best_on_test")
    term = _TERMS.get(f"{suite}/{bare}") or _TERMS.get(bare) or Term(bare.replace("_", " "), "")
    if name.startswith("ridge_"):
        term = Term(f"{term.name}, ridge", f"{term.meaning}; closed form".lstrip("; "))
    if name.endswith("_best_on_test"):
        term = Term(
            f"{term.name}, best on test",
            f"{term.meaning}; its epoch chosen on the test images, as published figures are",
        )
    return term
