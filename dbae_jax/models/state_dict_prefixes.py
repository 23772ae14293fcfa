"""Prefixes that training code in PyTorch puts before the names of a state dict."""

from collections.abc import Collection, Mapping

import numpy as np

# Of DataParallel, torch.compile, and the models in Lightning modules.
PREFIXES = ("module.", "_orig_mod.", "ema_model.", "model.")
EMA = "ema_model."


def without_prefixes(
    state_dict: Mapping[str, np.ndarray], wanted: Collection[str]
) -> tuple[dict[str, np.ndarray], str]:
    """Returns the entries of one model under their own names, and a sentence about the choice.

    Of several models in a state dict, the one with the most wanted entries is taken; of equal ones,
    that of EMA weights. The sentence is empty if no prefix was taken off.

    Args:
      state_dict: name -> array.
      wanted: names that the model has.
    """
    models: dict[str, dict[str, np.ndarray]] = {}
    for name, array in state_dict.items():
        prefix = _prefix(name, wanted)
        models.setdefault(prefix, {})[name.removeprefix(prefix)] = array
    hits = {prefix: len(entries.keys() & set(wanted)) for prefix, entries in models.items()}
    chosen = max(models, key=lambda prefix: (hits[prefix], EMA in prefix, not prefix), default="")
    if not chosen:
        return dict(state_dict), ""
    others = {prefix: len(entries) for prefix, entries in models.items() if prefix != chosen}
    left = "".join(
        f"; {count} entries {f'with the prefix {prefix!r}' if prefix else 'without a prefix'} "
        "were left out"
        for prefix, count in others.items()
    )
    return models[chosen], f"The prefix {chosen!r} was taken off the names{left}."


def _prefix(name: str, wanted: Collection[str]) -> str:
    """Returns all known prefixes at the beginning of a name that is not itself wanted."""
    rest = name
    while rest not in wanted:
        found = next((prefix for prefix in PREFIXES if rest.startswith(prefix)), None)
        if found is None:
            break
        rest = rest.removeprefix(found)
    return name.removesuffix(rest)
