"""A seccomp filter as bytes: which system call gets which answer.

Our own assembler rather than libseccomp: the same bytes on every machine (they are part of the
policy's hash), and nothing to install. Pure; the tests run the bytes in a small interpreter.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# linux/seccomp.h
KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS: the kernel's own SIGSYS, which nobody can forge
ALLOW = 0x7FFF0000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS

# linux/audit.h
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Stands in an argument check for the process's own id, which only the process knows:
# `with_own_pid` puts it in.
OWN_PID = 0x7FFFFFF1

_X32_BIT = 0x40000000  # the x32 ABI shares x86_64's architecture word
_LOAD, _AND, _EQUAL, _AT_LEAST, _JUMP, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x05, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

INSTRUCTION = struct.Struct("=HBBI")  # code, jump if true, jump if false, constant


class Check(NamedTuple):
    """If `argument & mask == value`, the answer is `answer`.

    Only the low 32 bits count: every argument that is checked here is an `int` to the kernel.
    """

    argument: int
    mask: int
    value: int
    answer: int


class Rule(NamedTuple):
    """The checks in order, then the answer when none matched."""

    checks: tuple[Check, ...]
    otherwise: int


Instruction = tuple[int, int, int, int]


def assemble(machine: str, rules: Mapping[int, Rule], default: int) -> bytes:
    """The filter that answers each call number by its rule, and any other by `default`.

    A call of a foreign ABI is answered with KILL.
    """
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, KILL)]
    program += _search(_ranges(rules, default))
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in program)


def with_own_pid(program: bytes, pid: int) -> bytes:
    """The filter with `OWN_PID` replaced by `pid`."""
    out = bytearray(program)
    for offset in range(0, len(out), INSTRUCTION.size):
        code, true, false, constant = INSTRUCTION.unpack_from(out, offset)
        if code == _EQUAL and constant == OWN_PID:
            INSTRUCTION.pack_into(out, offset, code, true, false, pid)
    return bytes(out)


def _ranges(rules: Mapping[int, Rule], default: int) -> list[tuple[int, Rule]]:
    """(first number, rule) of each run of numbers with one answer, the whole line covered."""
    otherwise = Rule((), default)
    starts: list[tuple[int, Rule]] = [(0, otherwise)]
    for number in sorted({n for rule in rules for n in (rule, rule + 1)}):
        rule = rules.get(number, otherwise)
        if starts[-1][0] == number:
            starts[-1] = (number, rule)
        elif rule != starts[-1][1] or rule.checks:
            starts.append((number, rule))
    return starts


def _search(ranges: Sequence[tuple[int, Rule]]) -> list[Instruction]:
    """A binary search: about 7 comparisons where a list would take 150."""
    if len(ranges) == 1:
        return _answer(ranges[0][1])
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    # A conditional jump reaches 255 instructions only, so it just skips the long jump.
    return [(_AT_LEAST, 0, 1, ranges[middle][0]), (_JUMP, 0, 0, len(low)), *low, *high]


def _answer(rule: Rule) -> list[Instruction]:
    out: list[Instruction] = []
    for check in rule.checks:
        out.append((_LOAD, 0, 0, _ARGUMENTS + 8 * check.argument))
        if check.mask != 0xFFFFFFFF:
            out.append((_AND, 0, 0, check.mask))
        out += [(_EQUAL, 0, 1, check.value), (_RETURN, 0, 0, check.answer)]
    return [*out, (_RETURN, 0, 0, rule.otherwise)]
