"""Variants of the configs in this folder, given as in table2_reconstruction.py:stochastic,sde."""

from typing import Any

from ml_collections import ConfigDict

ENCODERS = {
    "deterministic": {},  # "DBAE-d"
    "stochastic": {"model.stochastic": True},  # "DBAE", measured with the mean of z
    # "DBAE", measured with samples of z, as the authors' scripts do
    "sampled": {
        "model.stochastic": True,
        "eval.sample_codes": True,
        "eval.label": "sampled",  # keeps the results next to those of "stochastic"
    },
}


def apply(c: ConfigDict, words: str, *groups: dict[str, dict[str, Any]]) -> ConfigDict:
    """Sets the keys of the given variants, and of the first variant of every other group.

    The label of the results joins those of the variants: "ode", "sampled", "ode-sampled".

    Args:
      c: config to change.
      words: names of variants, separated by commas, at most one of each group.
      *groups: variants that exclude each other: name -> keys and values.
    """
    given = [word for word in words.split(",") if word]
    known = [word for group in groups for word in group]
    wrong = [word for word in given if word not in known]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a variant; there are {', '.join(known)}")
    labels = []
    for group in groups:
        chosen = [word for word in given if word in group] or [next(iter(group))]
        if len(chosen) > 1:
            raise ValueError(f"{chosen[0]} and {chosen[1]} exclude each other")
        values = dict(group[chosen[0]])
        labels.append(values.pop("eval.label", ""))
        c.update_from_flattened_dict(values)
    c.eval.label = "-".join(label for label in labels if label)
    return c


def evaluate(c: ConfigDict, suite: str, **changes: Any) -> ConfigDict:
    """Sets the suite and other keys of `eval`, and the evaluation of all held-out images."""
    c.eval.suite = suite
    c.eval.num_images = 0
    for key, value in changes.items():
        c.eval[key] = value
    return c
