"""Traffic between a chip and its memory, read from the text of a compiled program (HLO).

XLA's own count, "bytes accessed", adds up operands and results wherever they lie: what is fetched
ahead into on-chip memory counts three times, and the body of a loop once. Here an operand or result
counts where it lies in the chip's main memory, padded as it lies there, loops count by their turns,
and of an array that is cut or written in part the part counts.
"""

import math
import re
from collections.abc import Iterator

from dbae_jax.performance import hlo
from dbae_jax.performance.hlo import BITS, Instruction

ON_CHIP = "S(1)"  # the memory space of a layout that TPUs' compilers give to on-chip memory
# Instructions that move nothing by themselves; what loops and calls run counts there.
FREE = frozenset(
    ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while")
) | frozenset(hlo.RUN_ONCE)
CUTS = ("slice", "dynamic-slice")
WRITES = "dynamic-update-slice"
Array = tuple[str, str, str]  # kind, dimensions, layout
Types = dict[str, str]  # of instructions, by name

_FREE_CALL = re.compile(r'custom_call_target="(?:ConcatBitcast|AllocateBuffer)"')
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"([\d,]*):T\(([\d,]+)\)")


def memory_bytes(program: hlo.Computations) -> int:
    """Returns the bytes that one run of a program moves to and from a device's main memory.

    Of an asynchronous pair the start counts.
    """
    total = 0
    for name, times in hlo.runs(program).items():
        types = {i.name: i.type for i in program[name]}
        total += times * sum(_of_instruction(i, types, program) for i in program[name])
    return total


def _of_instruction(instruction: Instruction, types: Types, program: hlo.Computations) -> int:
    kind, arrays = instruction.kind, _ARRAY.findall(instruction.type)
    if kind in FREE or kind.endswith("-done") or _FREE_CALL.search(instruction.rest):
        return 0
    if kind == "copy-start":  # (where to, where from, context)
        return sum(map(_main_memory, arrays[:2]))
    if kind == "slice-start":  # ((where from), where to, context)
        whole, part = arrays[:2]
        return _part(part, of=whole) + _part(part, of=part)
    if kind == "fusion":
        return _of_fusion(instruction, types, program)
    if kind.endswith("-start") and instruction.type.startswith("("):  # (operands, results)
        return sum(map(_main_memory, arrays))
    operands = [types[name] for name in instruction.operands if name in types]
    if kind in CUTS:
        return _main_memory(arrays[0]) + _part(arrays[0], of=_array(operands[0]))
    if kind == WRITES:
        return _main_memory(_array(operands[1])) + _part(_array(operands[1]), of=arrays[0])
    return sum(map(_main_memory, arrays + _ARRAY.findall(" ".join(operands))))


def _of_fusion(fusion: Instruction, types: Types, program: hlo.Computations) -> int:
    """Returns a fusion's bytes: of operands the parts that it cuts, of results those it writes."""
    fused = program[fusion.named("calls")[0]]
    results, made = _ARRAY.findall(fusion.type), _made(fused)
    made = made if len(made) == len(results) else [None] * len(results)  # as a sort's
    total = 0
    for whole, instruction in zip(results, made, strict=True):
        parts = _updates(instruction, fused, program) if instruction else None
        total += sum(_part(part, of=whole) for part in parts or [whole])
    for place, operand in enumerate(fusion.operands):
        whole = _array(types[operand])
        parts = [part or whole for part in _parts_read(fused, place, program)]
        total += min(_main_memory(whole), sum(_part(part, of=whole) for part in parts))
    return total


def _made(fused: list[Instruction]) -> list[Instruction]:
    """Returns the instructions whose results are those of a fused computation."""
    by_name, root = {i.name: i for i in fused}, fused[-1]
    results = [by_name[name] for name in root.operands] if root.kind == "tuple" else [root]
    return [_unwrapped(result, by_name) for result in results]


def _unwrapped(instruction: Instruction, by_name: dict[str, Instruction]) -> Instruction:
    while instruction.kind == "bitcast":
        instruction = by_name[instruction.operands[0]]
    return instruction


def _updates(
    made: Instruction, fused: list[Instruction], program: hlo.Computations
) -> list[Array] | None:
    """Returns the parts that are written into an array that was there; None: it is all written."""
    by_name, parts = {i.name: i for i in fused}, []
    while made.kind == WRITES:
        parts.append(_array(by_name[made.operands[1]].type))
        made = _unwrapped(by_name[made.operands[0]], by_name)
    if made.kind == "fusion":
        inner = program[made.named("calls")[0]]
        within = _updates(_made(inner)[0], inner, program)
        return parts + within if within else None
    was_there = made.kind == "parameter" or _FREE_CALL.search(made.rest)
    return parts if parts and was_there else None


def _parts_read(
    fused: list[Instruction], place: int, program: hlo.Computations
) -> Iterator[Array | None]:
    """Yields the parts that a fused computation reads of an operand; None: all of it."""
    made = {i.name for i in _made(fused)}
    names, written = {_parameter(fused, place)}, set()  # of the operand, and where it is written
    for user in fused:
        at = {i for i, name in enumerate(user.operands) if name in names}
        over = {i for i, name in enumerate(user.operands) if name in written}
        if user.kind == "fusion":
            inner = program[user.named("calls")[0]]
            for i in at:
                if _parameter(inner, i) == _made(inner)[0].name:  # handed on as it is
                    names.add(user.name)
                else:
                    yield from _parts_read(inner, i, program)
        elif user.kind == "bitcast" and at | over:
            (names if at else written).add(user.name)
        elif at == {0} and user.kind in CUTS:
            yield _array(user.type)
        elif at | over == {0} and user.kind == WRITES:
            written.add(user.name)  # in place: not read
        elif at | over and not (user is fused[-1] and user.kind == "tuple"):
            yield None
    if names & made:
        yield None


def _parameter(fused: list[Instruction], place: int) -> str:
    return next(i.name for i in fused if i.kind == "parameter" and i.rest.startswith(f"{place})"))


def _array(type_text: str) -> Array:
    return _ARRAY.search(type_text).groups(default="")


def _part(part: Array, *, of: Array) -> int:
    """Returns the bytes of a part of an array; 0 if that array lies in on-chip memory."""
    kind, dimensions, layout = part
    return 0 if ON_CHIP in of[2] else _main_memory((kind, dimensions, layout.replace(ON_CHIP, "")))


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
