"""coverage.py: marks say what ran, and change nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.sandbox.__main__ import settings as sandbox_settings
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.validation.coverage import Coverage, instrument
from tests.validation.programs import benign, human_eval

SIGN = """\
def sign(x):
    if x < 0:
        return -1
    elif x > 0:
        return 1
    return 0
"""


def covered(code: str, tests: str) -> Coverage:
    """What a run of trusted programs of this file reaches, here in this process."""
    marked = instrument(code)
    assert marked is not None
    scope: dict[str, object] = {}
    exec(f"{marked.code}\n{tests}", scope)  # our own program
    marks = scope[marked.name]
    assert isinstance(marks, bytearray)
    found = marked.read(f"noise\n{marked.name} {marks.hex()}\n")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("tests", "lines", "branches"),
    [
        ("", 0, 0),
        ("sign(-1)", 2 / 5, 1 / 4),
        ("sign(0)", 3 / 5, 2 / 4),
        ("sign(-1), sign(1)", 4 / 5, 3 / 4),
        ("sign(-1), sign(1), sign(0)", 1, 1),
    ],
)
def test_shares_of_statements_and_of_sides(tests: str, lines: float, branches: float) -> None:
    found = covered(SIGN, tests)
    assert (found.lines, found.branches) == (pytest.approx(lines), pytest.approx(branches))


@pytest.mark.parametrize(
    ("body", "half", "whole"),
    [
        ("for i in range(x):\n        if i == 1: break", "f(0)", "f(1), f(2)"),
        ("while x > 0:\n        x -= 1", "f(0)", "f(1)"),
        ("try:\n        return 1 // x\n    except ZeroDivisionError:\n        return 0", "f(0)",
         "f(0), f(1)"),
        ("try:\n        y = 1 // x\n    except ZeroDivisionError:\n        y = 0", "f(1)",
         "f(0), f(1)"),
        ("while True:\n        try:\n            y = 1 // x\n            break\n"
         "        except ZeroDivisionError:\n            x += 1", "f(1)", "f(0)"),
        ("match x:\n        case 0: return 0\n        case 1: return 1", "f(0)",
         "f(0), f(1), f(2)"),
        ("match x:\n        case 0: return 0\n        case y: return 1", "f(0)", "f(0), f(1)"),
    ],
)  # fmt: skip
def test_each_side_of_a_branch_has_to_be_taken(body: str, half: str, whole: str) -> None:
    code = f"def f(x):\n    {body}\n"
    assert covered(code, half).branches < 1
    assert covered(code, whole).branches == 1


def test_what_is_reached_is_told_by_place() -> None:
    found = covered(SIGN + "def other():\n    return 1\n", "sign(-1)")
    assert found.reached == {(1, 0), (2, 4), (3, 8)}  # not the elif, not the other function


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        ("async def f(x):\n    if x:\n        return 1\n    return 2",
         "import asyncio\nasyncio.run(f(0)), asyncio.run(f(1))"),
        ("def f(n):\n    for i in range(n):\n        yield i", "list(f(2))"),
        ("class A:\n    '''Doc.'''\n    x = 1\n    @property\n    def f(self):\n        return 1",
         "A().f"),
        ("import functools\n@functools.cache\ndef f(n):\n    'Doc.'\n    global z\n    z = n\n"
         "    return f(n - 1) if n else 0", "f(3)"),
        ("from __future__ import annotations\ndef f(n: int) -> X:\n    return n", "f(3)"),
        ("'Doc.'\nfrom __future__ import annotations\ndef f(n: X):\n    def g():\n"
         "        nonlocal n\n        n += 1\n        return n\n    return g()", "f(3)"),
        ("x = 1\nif x:\n    y = 2\nelse:\n    z = 3", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_any_form_of_function_is_marked(code: str, tests: str) -> None:
    found = covered(code, tests)
    assert found.lines == (0.75 if "z = 3" in code else 1)
    assert covered(code.replace("\n", "\r\n"), tests) == found


def test_what_a_main_guard_holds_is_left_out() -> None:
    guarded = "\nif __name__ == '__main__':\n    sign(1)\n    1 / 0\n"
    assert covered(SIGN + guarded, "sign(0)") == covered(SIGN, "sign(0)")


@pytest.mark.parametrize(
    "code",
    ["def f(:", "x = " + "-" * 9_000 + "1", "x = " + "9" * 5_000, "x = 1\0", "return 1",
     "if x:\n    pass\n" + "elif x:\n    pass\n" * 2_000],
    ids=["cut", "deep", "digits", "nul", "return", "elif"],
)  # fmt: skip
def test_what_cannot_be_read_or_written_is_not_marked(code: str) -> None:
    assert instrument(code) is None


def test_code_of_20_000_characters_is_marked() -> None:
    code = "def f(x):\n" + "    x += 1\n" * 1_800 + "    return x\n"
    assert covered(code, "f(1)").lines == 1


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_no_text_that_a_program_prints_raises(text: str) -> None:
    marked = instrument(SIGN)
    assert marked is not None
    assert marked.read(text) is None
    assert marked.read(f"{marked.name} {text}\n") is None


@pytest.mark.sandbox
def test_marks_change_neither_verdict_nor_output_of_real_programs() -> None:
    programs = [*benign(), *human_eval()[::4]]
    marked = [(instrument(code), tests) for code, tests in programs]
    assert sum(found is not None for found, _ in marked) > 0.9 * len(programs)
    with Sandbox(sandbox_settings({"slots": 2, "assurance": "shared"})) as sandbox:
        before = sandbox.judge(programs)
        after = sandbox.judge([(m.code, tests + m.report) for m, tests in marked if m])
    kept = [b for b, (m, _) in zip(before, marked, strict=True) if m]
    codes = [m for m, _ in marked if m]
    for one, other, found in zip(kept, after, codes, strict=True):
        assert (one.verdict, one.stdout) == (other.verdict, other.stdout), found.code
        assert one.asserts_total == other.asserts_total
        if other.verdict == "passed":
            assert found.read(other.stderr) is not None, found.code
