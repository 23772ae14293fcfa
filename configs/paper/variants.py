"""What may follow a config of this folder, as in table2_reconstruction.py:stochastic,sde."""

ENCODERS = {
    "deterministic": {},  # "DBAE-d"
    "stochastic": {"model.stochastic": True},  # "DBAE", measured by the mean of z
    # "DBAE", measured by draws of z, as the authors' scripts do
    "sampled": {"model.stochastic": True, "eval.sample_codes": True},
}


def apply(c, words, *groups):
    """Sets what the words say; of each group of words at most one, else the group's first."""
    given = [word for word in words.split(",") if word]
    known = [word for group in groups for word in group]
    wrong = [word for word in given if word not in known]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no variant; there are {', '.join(known)}")
    for group in groups:
        chosen = [word for word in given if word in group] or [next(iter(group))]
        if len(chosen) > 1:
            raise ValueError(f"{chosen[0]} and {chosen[1]} exclude each other")
        c.update_from_flattened_dict(group[chosen[0]])
    return c


def evaluate(c, suite, **changes):
    """Sets the suite and keys of `eval`; all held-out images are used."""
    c.eval.suite = suite
    c.eval.num_images = 0
    for key, value in changes.items():
        c.eval[key] = value
    return c
