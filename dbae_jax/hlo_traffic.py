"""Traffic between a chip and its memory, read from the text of a compiled program (HLO).

XLA's own count, "bytes accessed", adds up operands and results wherever they lie: what is fetched
ahead into on-chip memory counts three times, and the body of a loop once. Here an operand or result
counts where it lies in the chip's main memory, padded as it lies there, and loops by their turns.
"""

import math
import re

from dbae_jax.hlo import BITS

ON_CHIP = "S(1)"  # the memory space of a layout that TPUs' compilers give to on-chip memory
# Instructions that move nothing by themselves.
FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota")
)
Array = tuple[str, str, str]  # kind, dimensions, layout

_FREE_CALL = re.compile(r'custom_call_target="(?:ConcatBitcast|AllocateBuffer)"')
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"([\d,]*):T\(([\d,]+)\)")
_LOOP = re.compile(r"body=(%[\w.\-]+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def memory_bytes(text: str) -> int:
    """Returns the bytes that one run of a program moves to and from a device's main memory.

    A loop whose turns XLA does not know counts once; of an asynchronous pair the start counts.
    """
    bodies = {}
    for block in re.split(r"\n\}\n?", text):
        header = re.search(r"^(?:ENTRY )?(%[\w.\-]+) \(.*\{$", block, re.MULTILINE)
        if header:
            name = "ENTRY" if header[0].startswith("ENTRY") else header[1]
            bodies[name] = block[header.end() :]
    return _of_body("ENTRY", bodies)


def _of_body(name: str, bodies: dict[str, str]) -> int:
    types, total = {}, 0
    for line in bodies[name].splitlines():
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        result, types[match[1]], kind, rest = match[1], match[2], match[3], match[4]
        if kind in FREE or kind.endswith("-done"):
            continue
        if kind == "while":
            turns = _TURNS.search(rest)
            total += int(turns[1] if turns else 1) * _of_body(_LOOP.search(rest)[1], bodies)
        elif kind == "copy-start":  # (where to, where from, context)
            total += sum(map(_main_memory, _ARRAY.findall(types[result])[:2]))
        elif kind == "slice-start":  # ((where from), where to, context)
            total += _of_slice(*_ARRAY.findall(types[result])[:2])
        elif kind != "custom-call" or not _FREE_CALL.search(rest):
            read = [types.get(operand, "") for operand in _operands(rest)]
            arrays = _ARRAY.findall(" ".join([types[result], *read]))
            total += sum(map(_main_memory, arrays))
    return total


def _of_slice(whole: Array, part: Array) -> int:
    """Returns the bytes of a part that is fetched from, or into, main memory: not the whole's."""
    size = _main_memory((part[0], part[1], part[2].replace(ON_CHIP, "")))
    return size * sum(ON_CHIP not in layout for _, _, layout in (whole, part))


def _operands(rest: str) -> list[str]:
    """Returns the names between an instruction's parentheses."""
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    return re.findall(r"%[\w.\-]+", rest[:end])


def _main_memory(array: Array) -> int:
    """Returns an array's bytes with padding; 0 in on-chip memory."""
    kind, dimensions, layout = array
    if ON_CHIP in layout:
        return 0
    sizes, tile = [int(n) for n in dimensions.split(",") if n], _TILE.match(layout)
    if tile and sizes:
        sizes = [sizes[int(i)] for i in tile[1].split(",")]  # the one that lies closest first
        for place, side in enumerate(reversed([int(n) for n in tile[2].split(",")][-len(sizes) :])):
            sizes[place] = -(-sizes[place] // side) * side
    return math.prod(sizes) * BITS.get(kind, 0) // 8
