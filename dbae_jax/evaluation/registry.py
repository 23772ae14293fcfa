"""The suites of measurements, by name."""

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

# What --config.eval.suite may name, in the order in which they are measured.
SUITES: dict[str, Suite] = {
    "reconstruction": reconstruction.SUITE,
    "information": information.SUITE,
    "probe": probe.SUITE,
    "disentanglement": disentanglement.SUITE,
    "generation": generation.SUITE,
    "editing": editing.SUITE,
}


# Groups of them, of which those are measured that apply.
GROUPS = {"default": ("reconstruction", "information", "probe"), "all": tuple(SUITES)}


def asked_for(suites: str) -> dict[str, bool]:
    """Returns the names of suites in the order of `SUITES`: whether each was named by itself.

    Args:
      suites: names of suites or of groups of them, with commas between.

    Raises:
      ConfigError: for an unknown name, or none.
    """
    words = [word.strip() for word in suites.split(",") if word.strip()]
    for word in words or [suites]:
        if word not in SUITES and word not in GROUPS:
            raise ConfigError(
                f"config.eval.suite={suites!r} is not allowed: {word!r} is no suite; there are "
                f"{', '.join(SUITES)}, and the groups {' and '.join(GROUPS)}."
            )
    grouped = {name for word in words for name in GROUPS.get(word, ())}
    return {name: name in words for name in SUITES if name in words or name in grouped}
