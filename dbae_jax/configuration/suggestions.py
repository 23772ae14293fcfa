"""Suggestions for misspelled words."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Returns "did you mean 'evaluate'? " for a word like an allowed one, and otherwise "".

    Args:
      word: the word that is not allowed.
      allowed: the words that are.
    """
    near = difflib.get_close_matches(word, list(allowed), n=1)
    return f"did you mean {near[0]!r}? " if near else ""
