import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.sandbox.bpf import (
    ALLOW,
    ARCHITECTURES,
    ENOSYS,
    EPERM,
    INSTRUCTION,
    KILL,
    OWN_PID,
    Check,
    Rule,
    assemble,
    with_own_pid,
)


def answer(program: bytes, number: int, arguments=(), machine="x86_64") -> int:
    """Runs a filter as the kernel would."""
    words = [a & 0xFFFFFFFFFFFFFFFF for a in (*arguments, *[0] * 6)][:6]
    data = struct.pack("=IIQ6Q", number, ARCHITECTURES[machine], 0, *words)
    code = list(INSTRUCTION.iter_unpack(program))
    register, place = 0, 0
    while True:
        operation, true, false, constant = code[place]
        place += 1
        if operation == 0x20:
            register = struct.unpack_from("=I", data, constant)[0]
        elif operation == 0x54:
            register &= constant
        elif operation == 0x15:
            place += true if register == constant else false
        elif operation == 0x35:
            place += true if register >= constant else false
        elif operation == 0x05:
            place += constant
        else:
            assert operation == 0x06
            return constant


ANSWERS = st.sampled_from([ALLOW, EPERM, ENOSYS, KILL])


@given(st.dictionaries(st.integers(0, 500), ANSWERS), st.integers(0, 600))
def test_every_number_gets_its_own_answer(answers, number):
    program = assemble("x86_64", {n: Rule((), a) for n, a in answers.items()}, ENOSYS)
    assert answer(program, number) == answers.get(number, ENOSYS)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**32 - 1)), max_size=4), st.data())
def test_the_first_check_that_matches_decides(checks, data):
    rule = Rule(tuple(Check(i, 0xFFFFFFFF, value, EPERM) for i, value in checks), ALLOW)
    program = assemble("aarch64", {7: rule}, KILL)
    arguments = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
    if checks and data.draw(st.booleans()):
        index, value = checks[-1]
        arguments[index] = value + (data.draw(st.integers(0, 9)) << 32)
    matches = any(arguments[i] & 0xFFFFFFFF == value for i, value in checks)
    assert answer(program, 7, arguments, "aarch64") == (EPERM if matches else ALLOW)


def test_a_mask_selects_bits():
    program = assemble("x86_64", {1: Rule((Check(0, 0x10, 0x10, KILL),), ALLOW)}, ENOSYS)
    assert answer(program, 1, [0x33]) == KILL
    assert answer(program, 1, [0x2F]) == ALLOW


def test_foreign_call_tables_are_killed():
    program = assemble("x86_64", {39: Rule((), ALLOW)}, ENOSYS)
    assert answer(program, 39) == ALLOW
    assert answer(program, 39, machine="aarch64") == KILL
    assert answer(program, 0x40000000 + 39) == KILL


def test_the_own_process_is_filled_in_at_last():
    program = assemble("x86_64", {62: Rule((Check(0, 0xFFFFFFFF, OWN_PID, ALLOW),), EPERM)}, ENOSYS)
    mine = with_own_pid(program, 4321)
    assert answer(mine, 62, [4321]) == ALLOW
    assert answer(mine, 62, [4322]) == EPERM
    assert answer(mine, 62, [OWN_PID]) == EPERM


@pytest.mark.parametrize("count", [1, 300])
def test_a_filter_fits_the_kernel(count):
    rules = {n: Rule((Check(0, 1, 1, KILL),), ALLOW) for n in range(count)}
    assert len(assemble("x86_64", rules, ENOSYS)) // 8 <= 4096
