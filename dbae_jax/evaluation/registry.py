"""The suites of measurements by name, and groups of suites."""

from dbae_jax.errors import ConfigError
from dbae_jax.evaluation.context import Suite
from dbae_jax.evaluation.suites import (
    disentanglement,
    editing,
    generation,
    information,
    probe,
    reconstruction,
)

# The names that --config.eval.suite accepts, in the order of measurement.
SUITES: dict[str, Suite] = {
    "reconstruction": reconstruction.SUITE,
    "information": information.SUITE,
    "probe": probe.SUITE,
    "disentanglement": disentanglement.SUITE,
    "generation": generation.SUITE,
    "editing": editing.SUITE,
}


# Groups of suites. Suites of a group that do not apply are left out.
GROUPS = {"default": ("reconstruction", "information", "probe"), "all": tuple(SUITES)}


def asked_for(suites: str) -> dict[str, bool]:
    """Returns the requested suites in the order of `SUITES`.

    Args:
      suites: names of suites or groups, separated by commas.

    Returns:
      Suite name -> whether the suite was named itself rather than through a group.

    Raises:
      ConfigError: if a name is unknown, or there is none.
    """
    words = [word.strip() for word in suites.split(",") if word.strip()]
    for word in words or [suites]:
        if word not in SUITES and word not in GROUPS:
            raise ConfigError(
                f"config.eval.suite={suites!r} is not allowed: {word!r} is not a suite; there are "
                f"the suites {', '.join(SUITES)} and the groups {' and '.join(GROUPS)}."
            )
    grouped = {name for word in words for name in GROUPS.get(word, ())}
    return {name: name in words for name in SUITES if name in words or name in grouped}
