"""The suite "probe": linear probes of labels and attributes on latent codes.

Labels are scored by accuracy. Binary attributes are scored by average precision and AUROC, and real
attributes by Pearson r and mean squared error, each as the mean over attributes. One kind of probe
is trained with Adam for several seeds; the epoch is chosen on validation images. The other kind is
ridge regression in closed form (`ridge_`); its penalty is chosen on validation images.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dbae_jax.data.codes import Codes
from dbae_jax.errors import ConfigError, DataError, TooFewError
from dbae_jax.evaluation.context import Context, Suite
from dbae_jax.evaluation.protocols import linear_probe
from dbae_jax.evaluation.protocols.linear_probe import Params, Recipe
from dbae_jax.evaluation.results import Measured, score
from dbae_jax.metrics.attributes import AttributeScores, auroc, average_precision, pearson
from dbae_jax.metrics.attributes import squared_error as attribute_errors
from dbae_jax.runtime.progress import track

# Data sets with named persons -> person of an image id. A person's images stay in one part.
PERSONS: dict[str, Callable[[str], str]] = {"lfw": lambda name: name.rpartition("_")[0]}

log = logging.getLogger(__name__)

# Name of a score -> its value for each column of targets (NaN if undefined).
Columns = Mapping[str, np.ndarray]


def accuracy(
    train_z: np.ndarray, train_labels: np.ndarray, test_z: np.ndarray, test_labels: np.ndarray
) -> float:
    """Returns the test accuracy of logistic regression on standardised latent codes.

    Args:
      train_z: training codes [N, D]; mean and standard deviation are taken from them.
      train_labels: integers [N].
      test_z: test codes [M, D].
      test_labels: integers [M].
    """
    found = predicted(train_z, train_labels, test_z)
    return float(np.mean(found == test_labels))


def predicted(train_z: np.ndarray, train_labels: np.ndarray, test_z: np.ndarray) -> np.ndarray:
    """Returns the labels [M] that logistic regression on standardised codes predicts.

    The arguments are those of `accuracy`.
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return probe.fit(train_z, train_labels).predict(test_z)


@dataclasses.dataclass(frozen=True)
class Parts:
    """Latent codes of the three parts of a data set.

    Attributes:
      train: training images.
      flipped: mirrored training images, or None.
      validation: images on which probes are chosen.
      test: images on which probes are scored.
    """

    train: Codes
    flipped: Codes | None
    validation: Codes
    test: Codes

    def sampled(self, seed: int | None) -> dict[str, np.ndarray]:
        """Returns the validation and test codes: samples for a seed, or means for None."""
        parts = {"validation": self.validation, "test": self.test}
        if seed is None:
            return {name: codes.mean for name, codes in parts.items()}
        samples = {}
        for i, (name, codes) in enumerate(parts.items()):
            assert codes.sigma is not None  # eval.sample_codes requires a stochastic encoder
            noise = np.random.default_rng([seed, i]).standard_normal(codes.mean.shape, np.float32)
            samples[name] = codes.mean + codes.sigma * noise
        return samples


@dataclasses.dataclass(frozen=True)
class Task:
    """Targets of one kind.

    Attributes:
      kind: "class", "binary" or "real".
      names: names of the K columns.
      targets: part -> values [N, K], float32.
    """

    kind: str
    names: tuple[str, ...]
    targets: Mapping[str, np.ndarray]

    def columns(self, outputs: np.ndarray, part: str) -> Columns:
        """Returns the scores of outputs [N, K] on a part; probes are chosen by the first score."""
        try:
            return _COLUMNS[self.kind](self.targets[part], outputs.astype(np.float64))
        except DataError as error:
            raise DataError(f"The probe's {part} images: {error}") from error

    def choose(
        self, candidates: Iterable[tuple[Any, Params]], codes: Mapping[str, np.ndarray], part: str
    ) -> tuple[Any, Columns]:
        """Returns the name of the candidate that is best on `part`, and its scores on test codes.

        Args:
          candidates: pairs (name, parameters of a probe).
          codes: part -> latent codes.
          part: part on which the candidates are compared.
        """

        def value(candidate: tuple[Any, Params]) -> float:
            columns = self.columns(_apply(candidate[1], codes[part]), part)
            return _mean(next(iter(columns.values())))

        name, params = max(candidates, key=value)  # the first one of equal candidates
        return name, self.columns(_apply(params, codes["test"]), "test")


def _class_columns(targets: np.ndarray, outputs: np.ndarray) -> Columns:
    return {"accuracy": np.mean([outputs.argmax(axis=1) == targets.argmax(axis=1)], axis=1)}


def _binary_columns(targets: np.ndarray, outputs: np.ndarray) -> Columns:
    varies = targets.min(axis=0) < targets.max(axis=0)
    precision = average_precision(targets, outputs).values
    pairs = zip(targets.T[:, :, None], outputs.T[:, :, None], strict=True)
    areas = np.array([auroc(labels, scores).item() for labels, scores in pairs])
    return {"ap": np.where(varies, precision, np.nan), "auroc": areas}


def _real_columns(targets: np.ndarray, outputs: np.ndarray) -> Columns:
    r = pearson(outputs, targets).values
    errors = attribute_errors(outputs, targets).values
    return {"r": r, "mse": np.where(targets.std(axis=0) > 0, errors, np.nan)}


_COLUMNS: dict[str, Callable[[np.ndarray, np.ndarray], Columns]] = {
    "class": _class_columns,
    "binary": _binary_columns,
    "real": _real_columns,
}
_LOWER_IS_BETTER = ("mse",)


def obstacle(context: Context) -> str | None:
    """Returns why there are no targets or too few images, or None."""
    if context.known & {"label", "attributes"}:
        return context.leak("train", "test", "validation") or _too_few(context)
    data = context.config.data
    where = f"in {data.lmdb} (LMDB files hold none)" if data.lmdb else f"of {data.name}"
    if context.only_class is not None:
        return (
            f"all images {where} are of one class, {context.only_class!r}, and there is nothing to "
            "tell apart"
        )
    return (
        f"the images {where} have neither labels nor attributes; docs/reference/data_sets.md lists "
        "the data sets that have them"
    )


def settings(context: Context) -> dict[str, Any]:
    """Returns the settings that determine the scores."""
    section = context.config.eval
    keys = (
        *("seeds", "sample_codes", "normalise_codes", "validation_split"),
        *("probe_epochs", "probe_batch_size", "probe_learning_rate"),
    )
    found = {key: getattr(section, key) for key in keys} | {"flip": context.config.data.flip}
    if "validation" not in context.splits:
        found["validation_share"] = section.validation_share
    return found | {"images": {name: context.limit(name) for name in sorted(context.splits)}}


def measure(context: Context) -> Measured:
    """Returns the scores of the probes of all labels and attributes."""
    section, parts = context.config.eval, _parts(context)
    recipe = Recipe(
        section.probe_epochs,
        section.probe_batch_size,
        section.probe_learning_rate,
        section.sample_codes,
    )
    scores: dict[str, Any] = {}
    tasks = _tasks(context, parts)
    for task in tasks:
        scores |= _by_adam(task, parts, recipe, section.seeds) | _by_ridge(task, parts)
    if any(task.kind == "class" for task in tasks):
        whole = [context.codes("train"), context.codes("test")]
        columns = [array for codes in whole for array in (codes.mean, codes.known["label"])]
        scores["logistic_accuracy"] = score(accuracy(*columns), "higher", standardised=True)
    sizes = {f.name: getattr(parts, f.name) for f in dataclasses.fields(parts)}
    counts = {name: len(codes.mean) for name, codes in sizes.items() if name != "flipped"}
    return Measured(scores, counts)


SUITE = Suite(obstacle, settings, measure)


def validation_start(count: int, share: float, persons: np.ndarray | None = None) -> int:
    """Returns the index at which the validation part of the training images begins.

    Args:
      count: number of training images.
      share: fraction of the images in the validation part, in (0, 1).
      persons: person of each image [count], grouped by person; no person is in both parts.

    Raises:
      ConfigError: if a part would hold fewer than two images.
    """
    start = _cut(count, share)
    while persons is not None and 0 < start < count and persons[start] == persons[start - 1]:
        start -= 1
    problem = _too_small(start, count, share)
    if problem:
        raise ConfigError(f"{problem}.")
    return start


def _cut(count: int, share: float) -> int:
    return count - round(count * share)


def _too_few(context: Context) -> str | None:
    """Returns why one of the parts would have too few images, or None."""
    if "validation" in context.splits:
        return None
    count, share = context.limit("train"), context.config.eval.validation_share
    return _too_small(_cut(count, share), count, share)


def _too_small(start: int, count: int, share: float) -> str | None:
    if min(start, count - start) >= 2:
        return None
    return (
        f"config.eval.validation_share={share:g} of {count} training images leaves {start} to "
        f"train probes on and {count - start} to choose them on; each part needs 2 or more; "
        "change config.eval.validation_share, raise config.eval.num_probe_images, or set "
        "config.eval.validation_split"
    )


def _parts(context: Context) -> Parts:
    train, test = context.codes("train"), context.codes("test")
    flipped = context.codes("train", flip=True) if context.config.data.flip else None
    if "validation" in context.splits:
        validation = context.codes("validation")
    else:
        count, person_of = len(train.mean), PERSONS.get(context.config.data.name)
        persons = None
        if person_of is not None and "id" in train.known:
            persons = np.array([person_of(name) for name in train.known["id"]])
        start = validation_start(count, context.config.eval.validation_share, persons)
        train, validation = train.part(0, start), train.part(start, count)
        flipped = None if flipped is None else flipped.part(0, start)
    parts = Parts(train, flipped, validation, test)
    if not context.config.eval.normalise_codes:
        return parts
    stats = train.statistics()
    if flipped is not None:
        flipped = _normalised(flipped, **stats)
    train, validation, test = (_normalised(part, **stats) for part in (train, validation, test))
    return Parts(train, flipped, validation, test)


def _normalised(codes: Codes, mean: np.ndarray, std: np.ndarray) -> Codes:
    sigma = None if codes.sigma is None else codes.sigma / std
    return Codes((codes.mean - mean) / std, sigma, codes.known)


def _tasks(context: Context, parts: Parts) -> list[Task]:
    """Returns the targets that all splits have.

    Raises:
      DataError: if attributes are not finite.
      TooFewError: if the training images are of one class, and there are no attributes.
    """
    known = {name: getattr(parts, name).known for name in ("train", "validation", "test")}
    tasks = []
    if "label" in context.known and _has_classes(context, known):
        classes = np.unique(np.concatenate([part["label"] for part in known.values()]))
        one_hot = {
            name: (part["label"][:, None] == classes).astype(np.float32)
            for name, part in known.items()
        }
        tasks.append(Task("class", tuple(map(str, classes)), one_hot))
    if "attributes" in context.known:
        targets = {name: part["attributes"].astype(np.float32) for name, part in known.items()}
        for name, values in targets.items():
            if not np.isfinite(values).all():
                raise DataError(
                    f"Attributes of {name} images of {context.config.data.name} "
                    "hold NaN or infinity; fix the attribute file and prepare the data again."
                )
        binary = all(np.isin(values, (0, 1)).all() for values in targets.values())
        width = targets["test"].shape[1]
        names = context.attribute_names or tuple(f"attribute {i}" for i in range(width))
        tasks.append(Task("binary" if binary else "real", names, targets))
    return tasks


def _has_classes(context: Context, known: Mapping[str, Mapping[str, np.ndarray]]) -> bool:
    """Returns whether the training images have several classes.

    Raises:
      TooFewError: if they have one, and there are no attributes either.
    """
    if len(np.unique(known["train"]["label"])) > 1:
        return True
    count = len(known["train"]["label"])
    problem = (
        f"the {count} training images of {context.config.data.name} that are used are all of one "
        "class, and there is nothing to tell apart; use more images (config.data.train_split, "
        "config.eval.num_probe_images)"
    )
    if "attributes" not in context.known:
        raise TooFewError(f"{problem}.")
    log.warning("The probe of labels does not apply: %s.", problem)
    return False


def _by_adam(task: Task, parts: Parts, recipe: Recipe, seeds: int) -> dict[str, Any]:
    chosen, found, best_on_test = [], [], []
    targets = task.targets["train"]
    for seed in range(seeds):
        codes = parts.sampled(seed if recipe.sample else None)
        trained = linear_probe.train(
            task.kind, parts.train, parts.flipped, targets, recipe, seed=seed
        )
        what = f"Training a probe of {task.kind} targets, seed {seed}"
        epochs = list(enumerate(track(trained, what, total=recipe.epochs, unit="epochs"), start=1))
        epoch, columns = task.choose(epochs, codes, "validation")
        chosen.append(epoch)
        found.append(columns)
        if task.kind == "real":  # the published results on LFW are chosen on test images
            best_on_test.append(task.choose(epochs, codes, "test")[1])
        log.info("Probe of %s targets, seed %d: epoch %d is best.", task.kind, seed, epoch)
    scores = _scores(task, found, "", epochs=chosen)
    if best_on_test:
        scores |= _scores(task, best_on_test, "_best_on_test", chosen_on="test")
    return scores


def _by_ridge(task: Task, parts: Parts) -> dict[str, Any]:
    z, targets = parts.train.mean, task.targets["train"]
    if parts.flipped is not None:
        z, targets = np.concatenate([z, parts.flipped.mean]), np.concatenate([targets, targets])
    candidates = linear_probe.ridge(z, targets)
    penalty, columns = task.choose(candidates, parts.sampled(None), "validation")
    scores = _scores(task, [columns], "", penalty=penalty)
    return {f"ridge_{name}": value for name, value in scores.items()}


def _scores(task: Task, found: list[Columns], suffix: str, **details: Any) -> dict[str, Any]:
    """Returns scores of several seeds; each is the mean over the columns with a defined score."""
    scores = {}
    for name in found[0]:
        by_seed = np.stack([columns[name] for columns in found])  # [seeds, K]
        better = "lower" if name in _LOWER_IS_BETTER else "higher"
        values, more = [_mean(row) for row in by_seed], dict(details)
        if task.kind != "class":
            excluded = np.isnan(by_seed).any(axis=0)
            columns = zip(task.names, by_seed.mean(axis=0), excluded, strict=True)
            more["per_attribute"] = {n: float(v) for n, v, out in columns if not out}
            more["excluded"] = [n for n, out in zip(task.names, excluded, strict=True) if out]
            if more["excluded"]:
                log.info("The score %s is undefined for %s.", name, ", ".join(more["excluded"]))
        scores[name + suffix] = score(values, better, **more)
    return scores


def _mean(columns: np.ndarray) -> float:
    return AttributeScores(columns).mean


def _apply(params: Params, z: np.ndarray) -> np.ndarray:
    return np.asarray(linear_probe.apply(params, jnp.asarray(z)))
