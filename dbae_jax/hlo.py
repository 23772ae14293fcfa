"""Collectives of a compiled program, read from its text (HLO)."""

import collections
import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16} | {f"{kind}{n}": n for kind in "fsu" for n in (8, 16, 32, 64)}


class Collective(NamedTuple):
    """All collectives of a kind in a program: how many, and the bytes of their results."""

    kind: str
    count: int
    num_bytes: int


def collectives(text: str) -> list[Collective]:
    """Returns the collectives in the text of a compiled program, the largest kind first.

    Sizes are those of one device's result. Of a pair "-start" and "-done" the result of the
    latter counts. A collective inside a loop counts once.
    """
    names = "|".join(KINDS)
    found = re.compile(rf"= (\(.*?\)|\S+) ({names})(-start|-done)?\(")
    counts, sizes = collections.Counter(), collections.Counter()
    for line in text.splitlines():
        match = found.search(line)
        if not match or match[3] == "-start":
            continue
        counts[match[2]] += 1
        sizes[match[2]] += array_bytes(match[1])
    return [Collective(kind, counts[kind], size) for kind, size in sizes.most_common()]


def parameter_bytes(text: str) -> int:
    """Returns the bytes of the arrays that the program takes on one device, without padding.

    Large programs take all of them as one tuple.
    """
    entry = text[text.index("\nENTRY ") :]
    return sum(map(array_bytes, re.findall(r"= (.+) parameter\(\d+\)", entry)))


def array_bytes(type_text: str) -> int:
    """Returns the bytes of all arrays in an HLO type such as "(f32[2,3]{1,0}, bf16[4])"."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", type_text)
    sizes = (
        BITS.get(kind, 0) * math.prod(map(int, filter(None, n.split(",")))) for kind, n in arrays
    )
    return sum(sizes) // 8
