"""Parses the text of a compiled program (HLO): instructions, how often they run, collectives."""

import collections
import functools
import logging
import math
import re
from typing import NamedTuple

ENTRY = "ENTRY"
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8, "s4": 4, "u4": 4, "c64": 64}
BITS |= {f"{kind}{n}": n for kind in "fsu" for n in (8, 16, 32, 64)}
# Kind of instruction -> attributes naming the computations that the instruction runs once.
RUN_ONCE = {
    "call": ("to_apply",),
    "async-start": ("calls",),
    "conditional": ("branch_computations", "true_computation", "false_computation"),
}

_HEADER = re.compile(r"^(ENTRY )?(%[\w.\-]+) \(.*\{$", re.MULTILINE)
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
_KNOWN_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LIMIT = re.compile(r"(\d+)\)")

log = logging.getLogger(__name__)


class Collective(NamedTuple):
    """All collectives of one kind in one run of a program: number, and bytes of their results."""

    kind: str
    count: int  # type: ignore[assignment]  # a key of the JSON, and not tuple.count
    num_bytes: int


class Instruction(NamedTuple):
    """A line of a computation, `name = type kind(rest`; `rest` starts with the operands."""

    name: str
    type: str
    kind: str
    rest: str

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the operands."""
        return _operands(self.rest)

    def named(self, attribute: str) -> list[str]:
        """Returns the computations in an attribute such as calls=%f or calls={%f, %g}."""
        found = re.search(rf"\b{attribute}=(%[\w.\-]+|\{{[^}}]*\}})", self.rest)
        return re.findall(r"%[\w.\-]+", found[1]) if found else []


Computations = dict[str, list[Instruction]]


@functools.lru_cache(maxsize=2**16)  # the operands of a large fusion are asked for a thousand times
def _operands(rest: str) -> tuple[str, ...]:
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    return tuple(re.findall(r"%[\w.\-]+", rest[:end]))


def computations(text: str) -> Computations:
    """Returns the instructions of every computation in a program's text, by name.

    The main computation has the name `ENTRY`. The last instruction of a computation is its root.
    """
    found = {}
    for block in re.split(r"\n\}\n?", text):
        header = _HEADER.search(block)
        if header:
            lines = map(_INSTRUCTION.match, block[header.end() :].splitlines())
            name = ENTRY if header[1] else header[2]
            found[name] = [Instruction(*line.groups()) for line in lines if line]
    return found


def runs(program: Computations, name: str = ENTRY, times: int = 1) -> collections.Counter:
    """Returns how often each computation runs in one run of a program.

    All branches of a conditional count. Fused computations and the functions of reductions and
    sorts are left out, because they are part of the instruction that calls them.

    Args:
      program: computations of the program.
      name: computation to start from.
      times: number of runs of that computation.
    """
    counts = collections.Counter({name: times})
    for instruction in program[name]:
        if instruction.kind == "while":
            (body,) = instruction.named("body")
            counts += runs(program, body, times * _trip_count(instruction, program))
        for attribute in RUN_ONCE.get(instruction.kind, ()):
            for called in instruction.named(attribute):
                counts += runs(program, called, times)
    return counts


def _trip_count(loop: Instruction, program: Computations) -> int:
    """Returns the trip count that XLA states, or N of a condition i < N that starts at i = 0."""
    known = _KNOWN_TRIP_COUNT.search(loop.rest)
    if known:
        return int(known[1])
    condition = program[loop.named("condition")[0]]
    compared = condition[-1]
    if compared.kind == "compare" and "direction=LT" in compared.rest:
        limit = next(i for i in condition if i.name == compared.operands[1])
        found = _LIMIT.match(limit.rest)
        if limit.kind == "constant" and limit.type[0] in "su" and found:
            return int(found[1])
    log.warning("The trip count of the loop %s is unknown: its body counts once.", loop.name)
    return 1


def collectives(program: Computations) -> list[Collective]:
    """Returns the collectives in one run of a compiled program, the largest kind first.

    Bytes are those of the result on one device. In an asynchronous pair, the result of "-done"
    counts. A collective in a loop counts as often as the loop runs.
    """
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    for name, times in runs(program).items():
        for instruction in program[name]:
            kind = instruction.kind.removesuffix("-done")
            if kind in KINDS:
                counts[kind] += times
                sizes[kind] += times * array_bytes(instruction.type)
    return [Collective(kind, counts[kind], size) for kind, size in sizes.most_common()]


def parameter_bytes(program: Computations) -> int:
    """Returns the bytes of the program's arguments on one device, without padding."""
    # Large programs have one parameter: a tuple of all arguments.
    return sum(array_bytes(i.type) for i in program[ENTRY] if i.kind == "parameter")


def array_bytes(type_text: str) -> int:
    """Returns the bytes of all arrays in an HLO type such as "(f32[2,3]{1,0}, bf16[4])"."""
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", type_text)
    sizes = (
        BITS.get(kind, 0) * math.prod(map(int, filter(None, n.split(",")))) for kind, n in arrays
    )
    return sum(sizes) // 8
