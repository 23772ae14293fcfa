"""Traffic between a chip and its device memory (HBM), counted from a compiled program (HLO).

XLA's own count, "bytes accessed", adds up all operands and results, also those in on-chip memory.
An array that is prefetched into on-chip memory counts three times there, and a loop body counts
once. Here:

- an operand or result counts only if it lies in device memory, with its padding;
- a loop body counts as often as the loop runs;
- if an instruction reads or writes only a slice of an array, only the slice counts;
- the workspace of a call of cuBLAS or cuDNN does not count: it is room that the call may use.
"""

import math
import re
from collections.abc import Iterator

from dbae_jax.performance import hlo
from dbae_jax.performance.hlo import BITS, Instruction

ON_CHIP = "S(1)"  # how layouts mark on-chip memory (TPU compilers)
# Instructions that move no bytes themselves. The bodies of loops and calls count on their own.
FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while"),
        *("partition-id", "replica-id"),
    )
) | frozenset(hlo.RUN_ONCE)
SLICES = ("slice", "dynamic-slice")
UPDATE = "dynamic-update-slice"
Array = tuple[str, str, str]  # kind, dimensions, layout
Types = dict[str, str]  # name of an instruction -> its type

_FREE_CALL = re.compile(r'custom_call_target="(?:ConcatBitcast|AllocateBuffer)"')
_LIBRARY_CALL = re.compile(r'custom_call_target="__cu(?:blas|dnn)')
_WORKSPACE = re.compile(r"[su]8\[\d+\]")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"([\d,]*):T\(([\d,]+)\)")


def memory_bytes(program: hlo.Computations) -> int:
    """Returns the bytes that one run of a program reads from and writes to device memory.

    In an asynchronous pair, "-start" counts.
    """
    total = 0
    for name, times in hlo.runs(program).items():
        types = {i.name: i.type for i in program[name]}
        total += times * sum(instruction_bytes(i, types, program) for i in program[name])
    return total


def instruction_bytes(instruction: Instruction, types: Types, program: hlo.Computations) -> int:
    """Returns the bytes that one run of an instruction reads from and writes to device memory.

    Args:
      instruction: instruction of a computation that `hlo.runs` counts.
      types: types of all instructions of that computation.
      program: computations of the program.
    """
    num_bytes = _of_instruction(instruction, types, program)
    if instruction.kind == "custom-call" and _LIBRARY_CALL.search(instruction.rest):
        num_bytes -= hlo.array_bytes(" ".join(_WORKSPACE.findall(instruction.type)))
    return num_bytes


def _of_instruction(instruction: Instruction, types: Types, program: hlo.Computations) -> int:
    kind, arrays = instruction.kind, _ARRAY.findall(instruction.type)
    if kind in FREE or kind.endswith("-done") or _FREE_CALL.search(instruction.rest):
        return 0
    if kind == "copy-start":  # (target, source, context)
        return sum(map(_device_bytes, arrays[:2]))
    if kind == "slice-start":  # ((source), target, context)
        whole, part = arrays[:2]
        return _part(part, of=whole) + _part(part, of=part)
    if kind == "fusion":
        return _of_fusion(instruction, types, program)
    if kind.endswith("-start") and instruction.type.startswith("("):  # (operands, results)
        return sum(map(_device_bytes, arrays))
    operands = [types[name] for name in instruction.operands if name in types]
    if kind in SLICES:
        return _device_bytes(arrays[0]) + _part(arrays[0], of=_array(operands[0]))
    if kind == UPDATE:
        return _device_bytes(_array(operands[1])) + _part(_array(operands[1]), of=arrays[0])
    return sum(map(_device_bytes, arrays + _ARRAY.findall(" ".join(operands))))


def _of_fusion(fusion: Instruction, types: Types, program: hlo.Computations) -> int:
    """Returns the bytes of the operand parts that a fusion reads and the result parts it writes."""
    fused = program[fusion.named("calls")[0]]
    results = _ARRAY.findall(fusion.type)
    made: list[Instruction | None] = [*_made(fused)]
    if len(made) != len(results):  # one instruction with several results, such as a sort
        made = [None] * len(results)
    total = 0
    for whole, instruction in zip(results, made, strict=True):
        parts = _updates(instruction, fused, program) if instruction else None
        total += sum(_part(part, of=whole) for part in parts or [whole])
    for place, operand in enumerate(fusion.operands):
        whole = _array(types[operand])
        parts = [part or whole for part in _parts_read(fused, place, program)]
        total += min(_device_bytes(whole), sum(_part(part, of=whole) for part in parts))
    return total


def _made(fused: list[Instruction]) -> list[Instruction]:
    """Returns the instructions that make the results of a fused computation."""
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
    """Returns the parts written into an existing array, or None if the whole array is written."""
    by_name, parts = {i.name: i for i in fused}, []
    while made.kind == UPDATE:
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
    """Yields the parts that a fused computation reads of an operand; None stands for all of it."""
    made = {i.name for i in _made(fused)}
    # Names of the operand, and names of the operand after something was written into it.
    names, written = {_parameter(fused, place)}, set[str]()
    for user in fused:
        at = {i for i, name in enumerate(user.operands) if name in names}
        over = {i for i, name in enumerate(user.operands) if name in written}
        if user.kind == "fusion":
            inner = program[user.named("calls")[0]]
            for i in at:
                if _parameter(inner, i) == _made(inner)[0].name:  # returned unchanged
                    names.add(user.name)
                else:
                    yield from _parts_read(inner, i, program)
        elif user.kind == "bitcast" and at | over:
            (names if at else written).add(user.name)
        elif at == {0} and user.kind in SLICES:
            yield _array(user.type)
        elif at | over == {0} and user.kind == UPDATE:
            written.add(user.name)  # updated in place, so not read
        elif at | over and not (user is fused[-1] and user.kind == "tuple"):
            yield None
    if names & made:
        yield None


def _parameter(fused: list[Instruction], place: int) -> str:
    return next(i.name for i in fused if i.kind == "parameter" and i.rest.startswith(f"{place})"))


def _array(type_text: str) -> Array:
    found = _ARRAY.search(type_text)
    assert found is not None  # every operand has the type of an array
    number_format, shape, layout = found.groups(default="")
    return number_format, shape, layout


def _part(part: Array, *, of: Array) -> int:
    """Returns the bytes of a part of an array, or 0 if the array lies in on-chip memory."""
    kind, dimensions, layout = part
    return 0 if ON_CHIP in of[2] else _device_bytes((kind, dimensions, layout.replace(ON_CHIP, "")))


def _device_bytes(array: Array) -> int:
    """Returns the bytes of an array with its padding, or 0 if it lies in on-chip memory."""
    kind, dimensions, layout = array
    if ON_CHIP in layout:
        return 0
    sizes, tile = [int(n) for n in dimensions.split(",") if n], _TILE.match(layout)
    if tile and sizes:
        sizes = [sizes[int(i)] for i in tile[1].split(",")]  # the fastest axis first
        for place, side in enumerate(reversed([int(n) for n in tile[2].split(",")][-len(sizes) :])):
            sizes[place] = -(-sizes[place] // side) * side
    return math.prod(sizes) * BITS.get(kind, 0) // 8
