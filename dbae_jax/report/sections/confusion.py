"""The confusion matrix of a linear probe: which classes the latent codes mix up."""

from typing import NamedTuple

import numpy as np

from dbae_jax.evaluation.context import Context
from dbae_jax.evaluation.suites import probe
from dbae_jax.report.tables import Missing

MOST_CLASSES = 20  # of a matrix that fits the page
MOST_CODES = 10_000  # that the probe is trained on


class Cell(NamedTuple):
    """A cell of the matrix: number of test images, and their share of the images of the class."""

    images: int
    share: float


class Confusion(NamedTuple):
    """A confusion matrix.

    Attributes:
      classes: names of the classes.
      rows: true class -> cell of each predicted class.
      note: sentences on the probe and its errors.
    """

    classes: list[str]
    rows: dict[str, list[Cell]]
    note: str


def confusion(context: Context) -> Confusion | Missing:
    """Returns the confusion matrix of logistic regression on the codes of training images."""
    if "label" not in context.known:
        return Missing("There is no confusion matrix: the images have no class labels.")
    obstacle = probe.obstacle(context)
    if obstacle:
        return Missing(f"There is no confusion matrix: {obstacle}.")
    train, test = context.codes("train"), context.codes("test")
    z, labels = train.mean[:MOST_CODES], train.known["label"][:MOST_CODES]
    truth = test.known["label"]
    classes = np.unique(np.concatenate([labels, truth]))
    if len(np.unique(labels)) < 2:
        return Missing(
            f"There is no confusion matrix: the {len(labels):,} training images that were encoded "
            "have one class."
        )
    if len(classes) > MOST_CLASSES:
        return Missing(
            f"There is no confusion matrix: the data have {len(classes)} classes, and a matrix of "
            f"at most {MOST_CLASSES} fits the page."
        )
    guessed = probe.predicted(z, labels, test.mean)
    counts = (truth[:, None] == classes).astype(int).T @ (guessed[:, None] == classes)
    class_names = getattr(context.splits["test"], "class_names", ())
    names = [str(class_names[c]) if class_names else str(c) for c in classes.tolist()]
    rows = {
        name: [Cell(int(n), float(n / max(row.sum(), 1))) for n in row]
        for name, row in zip(names, counts, strict=True)
    }
    return Confusion(names, rows, _note(names, counts, len(z)))


def _note(names: list[str], counts: np.ndarray, trained_on: int) -> str:
    right, total = int(np.trace(counts)), int(counts.sum())
    note = (
        f"Logistic regression on the latent codes of {trained_on:,} training images predicts the "
        f"class of {right:,} of {total:,} test images correctly ({right / total:.1%}). Rows are "
        "true classes, columns are predicted ones; each number counts test images."
    )
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    if wrong.max():
        a, b = np.unravel_index(wrong.argmax(), wrong.shape)
        note += f" The most frequent error: {names[a]} taken for {names[b]} ({wrong[a, b]} images)."
    return note
