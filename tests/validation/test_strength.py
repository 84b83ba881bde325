"""strength.py: planted cases end where they should, by the real sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import yaml
from omegaconf import OmegaConf

from selfalign_ray import schemas
from selfalign_ray.config import conf_dir
from selfalign_ray.resume import ERRORS
from selfalign_ray.sandbox.__main__ import settings as sandbox_settings
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.sandbox.verdict import Verdict
from selfalign_ray.validation.config import StrengthConfig
from selfalign_ray.validation.strength import add_strength, gate_of, lookup_gate, strength
from selfalign_ray.watch import tally
from tests.validation.test_metrics import HOSTILE

pytestmark = pytest.mark.sandbox

ADD = "def add(a, b):\n    if a == 0:\n        return b\n    return a + b"
GOOD = "assert add(1, 2) == 3\nassert add(0, 5) == 5\nassert add(-1, 1) == 0"
EXAMPLES = Path(__file__).parents[2] / "selfalign_ray" / "hops" / "examples"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(sandbox_settings({"slots": 2, "assurance": "shared"})) as pool:
        yield pool


def config(**changes: Any) -> StrengthConfig:
    """The default settings with these changes."""
    default = OmegaConf.load(Path(conf_dir()) / "validation" / "default.yaml")["strength"]
    merged = OmegaConf.merge(OmegaConf.structured(StrengthConfig), default, changes)
    made = OmegaConf.to_object(merged)
    assert isinstance(made, StrengthConfig)
    return made


def row(*programs: tuple[str, str], drop_reason: str | None = None) -> Row:
    return {
        "seed_id": "s",
        "instruction": "Add two numbers.",
        "samples": [
            {"sample_index": n, "code": code, "tests": tests}
            for n, (code, tests) in enumerate(programs)
        ],
        "verdicts": [{"sample_index": n, "verdict": "passed"} for n in range(len(programs))],
        "metrics": [],
        "drop_reason": drop_reason,
    }


def table(*rows: Row) -> pa.Table:
    fields = [schemas.EXECUTED.field(name) for name in rows[0]]
    return pa.Table.from_pylist(list(rows), schema=pa.schema(fields))


def measured(sandbox: Sandbox, *programs: tuple[str, str], **changes: Any) -> list[Row]:
    (out,) = add_strength(table(row(*programs)), sandbox, config(**changes), 1).to_pylist()
    found: list[Row] = out["strength"]
    return found


def test_good_tests_are_measured_and_kept(sandbox: Sandbox) -> None:
    (found,) = measured(sandbox, (ADD, GOOD))
    assert found | {"cpu_seconds": 0.0} == {
        "sample_index": 0,
        "assert_kinds": ["equality"],
        "lookup_share": 0.0,
        "stubs": 3,
        "stubs_passed": [],
        "mutants": 6,  # all that there are
        "mutants_killed": 6,
        "killed_share": 1.0,
        "line_coverage": 1.0,
        "branch_coverage": 1.0,
        "runs": 10,
        "cpu_seconds": 0.0,
        "gate": None,
    }


PLANTED = {
    "vacuous": (ADD, "assert add is not None", "weak_tests"),
    "call alone": (ADD, "add(1, 2)", "weak_tests"),
    "assert True": (ADD, "add(1, 2)\nassert True", "weak_tests"),
    "any value": (ADD, "assert add(1, 2) is not None or add(1, 2) is None", "weak_tests"),
    "type alone": (ADD, "assert isinstance(add(1, 2), int)", "weak_tests"),
    "one answer": ("def even(n):\n    return n % 2 == 0", "assert even(2)\nassert even(4)",
                   "weak_tests"),
    "its argument": ("def tidy(s):\n    return s.strip()", "assert tidy('a') == 'a'", "weak_tests"),
    "nothing of it": (ADD, "assert sum([1, 2]) == 3", "weak_tests"),
    "lookup": ("def add(a, b):\n    return {(1, 2): 3, (0, 5): 5, (-1, 1): 0}[a, b]", GOOD,
               "answers_by_lookup"),
    "windows": (ADD.replace("\n", "\r\n"), GOOD.replace("\n", "\r\n"), None),
    "byte order mark": ("\ufeff" + ADD, "\ufeff" + GOOD, None),
    "method": ("class Till:\n    def __init__(self):\n        self.sum = 0\n"
               "    def pay(self, x):\n        self.sum += x\n        return self\n",
               "till = Till()\ntill.pay(2).pay(3)\nassert till.sum == 5", None),
    "method that may do nothing": (
        "class Till:\n    def pay(self, x):\n        return self\n    def total(self):\n"
        "        return 1 + 1\n", "t = Till()\nt.pay(3)\nassert t.total() == 2", "weak_tests"),
    "async": ("async def twice(x):\n    return x * 2",
              "from asyncio import run\nassert run(twice(2)) == 4\nassert run(twice(0)) == 0",
              None),
    "generator": ("def up(n):\n    for i in range(n):\n        yield i",
                  "assert list(up(3)) == [0, 1, 2]\nassert list(up(0)) == []", None),
    "decorated": ("import functools\n@functools.cache\ndef fib(n):\n"
                  "    return n if n < 2 else fib(n - 1) + fib(n - 2)",
                  "assert fib(10) == 55\nassert fib(1) == 1", None),
    "recursion": ("def depth(x):\n    return 1 + max(map(depth, x), default=0) if x else 1",
                  "assert depth([]) == 1\nassert depth([[], [[]]]) == 3", None),
    "test functions": (ADD, "def test_add():\n    assert add(1, 2) == 3\n    assert add(0, 1) == 1",
                       None),
    "unittest": (ADD, "import unittest\nclass T(unittest.TestCase):\n    def test_add(self):\n"
                 "        self.assertEqual(add(1, 2), 3)\n", None),
    "named lambda": ("add = lambda a, b: a + b", GOOD, None),
    "type of a lambda alone": ("add = lambda a, b: a + b", "assert isinstance(add(1, 2), int)",
                               "weak_tests"),
    "lambda in a class": (
        "class Sums:\n    add: object = lambda self, a, b: a + b",
        "assert Sums().add(1, 2) == 3\nassert Sums().add(2, 2) == 4", None),
    "lambda beside a function": ("add = lambda a, b: a + b\ndef other(): pass", GOOD, None),
    "operators": ("class Two:\n    def __add__(self, other):\n        return 2 + other\n",
                  "assert Two() + 3 == 5", None),
    "operators of any value": (
        "class Two:\n    def __add__(self, other):\n        return 2 + other\n",
        "Two() + 3", "unmeasured"),
    "constant": ("primes = [2, 3, 5]", "assert sum(primes) == 10", None),
    "constant of any value": ("primes = [2, 3, 5]", "assert primes", "unmeasured"),
    "function of another module": ("from operator import add", "assert add(1, 2) == 3",
                                   "unmeasured"),
    "too deep": ("x = " + "-" * 9_000 + "1", "assert x", "unmeasured"),
    "too long": (ADD + "\nx = 1" * 5_000, GOOD, "unmeasured"),
    "endless": ("def down(n):\n    while n > 0:\n        n -= 1\n    return n",
                "assert down(3) == 0\nassert down(0) == 0\nassert down(-2) == -2", None),
    "main guard": (ADD + "\nif __name__ == '__main__':\n    add(input(), 1)\n", GOOD, None),
    "20,000 characters": (ADD + "\n" + "y = 1 + 1\n" * 1_980, GOOD, None),
}  # fmt: skip


def test_each_planted_case_ends_where_it_should(sandbox: Sandbox) -> None:
    rows = [row((code, tests)) for code, tests, _ in PLANTED.values()]
    out = add_strength(table(*rows), sandbox, config(), 1).to_pylist()
    ends = {name: r["drop_reason"] for name, r in zip(PLANTED, out, strict=True)}
    assert ends == {name: gate for name, (_, _, gate) in PLANTED.items()}
    found = {name: r["strength"][0] for name, r in zip(PLANTED, out, strict=True)}
    assert found["windows"]["mutants"] == found["main guard"]["mutants"] == 6
    assert found["vacuous"]["stubs_passed"] == ["every function returns None"]
    assert found["windows"]["line_coverage"] == found["test functions"]["line_coverage"] == 1
    assert found["its argument"]["stubs_passed"] == ["tidy returns its first argument"]
    assert "even returns a constant" in found["one answer"]["stubs_passed"]
    assert found["lookup"]["runs"] == found["too deep"]["runs"] == 0
    assert found["endless"]["mutants_killed"] > 0
    assert found["endless"]["cpu_seconds"] < 3, "an endless loop has to cost little"


class Failing:
    """The sandbox, which fails on the programs that are named."""

    def __init__(self, sandbox: Sandbox, fails: Callable[[str], bool]) -> None:
        self._sandbox, self._fails = sandbox, fails

    def judge(self, programs: list[tuple[str, str]], *limits: Any) -> list[Verdict]:
        verdicts = self._sandbox.judge(programs, *limits)
        return [
            replace(verdict, verdict="infra", stderr="") if self._fails(code) else verdict
            for (code, _), verdict in zip(programs, verdicts, strict=True)
        ]


WEAK = "assert isinstance(add(1, 2), int)"
MARKED, STUB = "marks_", "return None"  # what programs with marks, and a stub of ADD, hold


@pytest.mark.parametrize(
    ("fails", "tests", "changes", "gate"),
    [
        (lambda code: True, GOOD, {}, "sandbox_failed"),
        (lambda code: STUB in code, GOOD, {}, "sandbox_failed"),
        (lambda code: STUB in code, WEAK, {}, "weak_tests"),
        (lambda code: MARKED in code, GOOD, {}, None),
        (lambda code: MARKED in code, "assert sum([1, 2]) == 3", {}, "sandbox_failed"),
        (lambda code: MARKED in code, GOOD, {"min_line_coverage": 0.5}, "sandbox_failed"),
        (lambda code: True, GOOD, {"refuse_passing_stubs": False}, None),
        (
            lambda code: MARKED not in code,
            GOOD,
            {"refuse_passing_stubs": False, "min_killed_share": 0.5},
            "sandbox_failed",
        ),
    ],
)
def test_what_the_sandbox_failed_on_has_passed_no_gate(
    sandbox: Sandbox, fails: Callable[[str], bool], tests: str, changes: Row, gate: str | None
) -> None:
    failing: Any = Failing(sandbox, fails)
    (out,) = add_strength(table(row((ADD, tests))), failing, config(**changes), 1).to_pylist()
    assert out["drop_reason"] == out["strength"][0]["gate"] == gate
    assert gate != "sandbox_failed" or gate in ERRORS


def test_a_row_with_a_sample_that_the_sandbox_failed_on_can_be_done_again(sandbox: Sandbox) -> None:
    failing: Any = Failing(sandbox, lambda code: "kept" in code)
    programs = [(ADD, WEAK), (f"{ADD}\nkept = 1", GOOD), (f"{ADD}\n", WEAK)]
    (out,) = add_strength(table(row(*programs)), failing, config(), 1).to_pylist()
    assert [m["gate"] for m in out["strength"]] == ["weak_tests", "sandbox_failed", "weak_tests"]
    assert out["drop_reason"] == "sandbox_failed"


def test_hostile_code_and_tests_are_survived(sandbox: Sandbox) -> None:
    rows = [row((text, GOOD)) for text in HOSTILE.values()]
    rows += [row((ADD, text)) for text in HOSTILE.values()]
    rows += [row((f"{ADD}\n{text}", f"{GOOD}\n{text}")) for text in HOSTILE.values()]
    for changes in ({}, {"refuse_passing_stubs": False, "max_lookup_share": None}):
        out = add_strength(table(*rows), sandbox, config(mutants=2, **changes), 1)
        assert out.num_rows == len(rows)
        assert all(len(found) == 1 for found in out["strength"].to_pylist())


def test_a_solution_can_spoil_its_own_coverage_alone(sandbox: Sandbox) -> None:
    spoilt = f"import os\nos.write(2, b'x' * 70000)\n{ADD}"  # fills what is kept of its errors
    lying = f"{ADD}\nimport sys\nprint('marks_00000000 ff', file=sys.stderr)"
    found, other = (measured(sandbox, (code, GOOD))[0] for code in (spoilt, lying))
    assert (found["line_coverage"], found["stubs_passed"], found["gate"]) == (None, [], None)
    assert (other["line_coverage"], other["gate"]) == (1.0, None)


def test_a_gate_that_is_off_leaves_its_column(sandbox: Sandbox) -> None:
    weak = (ADD, "assert isinstance(add(1, 2), int)")
    (found,) = measured(sandbox, weak, refuse_passing_stubs=False, max_lookup_share=None)
    assert found["gate"] is None
    assert found["stubs_passed"] == ["add returns a constant", "add returns its first argument"]
    assert found["killed_share"] < 0.5
    assert found["line_coverage"] < 1


def test_twins_in_a_row_are_measured_once(sandbox: Sandbox) -> None:
    first, other, twin = measured(sandbox, (ADD, GOOD), (ADD, "add(1, 1)"), (ADD, GOOD))
    assert twin | {"sample_index": 0, "runs": first["runs"]} == first | {"cpu_seconds": 0.0}
    assert (twin["runs"], other["gate"]) == (0, "weak_tests")


def test_what_the_tests_do_not_reach_is_alive_without_a_run(sandbox: Sandbox) -> None:
    code = ADD + "\ndef other(x):\n" + "".join(f"    x += {n}\n" for n in range(40))
    (found,) = measured(sandbox, (code, GOOD))
    assert found["mutants"] == 8
    assert found["runs"] < 1 + 3 + 8
    assert found["killed_share"] < 1


def test_the_same_rows_are_measured_the_same_in_any_block(sandbox: Sandbox) -> None:
    def figures(block: pa.Table) -> list[Row]:
        rows = add_strength(block, sandbox, config(mutants=3), 7).to_pylist()
        return [m | {"cpu_seconds": 0} for r in rows for m in r["strength"]]

    one, two = row((ADD, GOOD)), row(("def f(x):\n    return x * 3 + 1", "assert f(2) == 7"))
    assert figures(table(one, two)) == figures(table(one)) + figures(table(two))


def test_the_examples_that_the_model_sees_are_strong(sandbox: Sandbox) -> None:
    shown = [yaml.safe_load(path.read_text()) for path in sorted(EXAMPLES.glob("*.yaml"))]
    rows = [row((e["solution"], e["tests"])) for e in shown]
    out = add_strength(table(*rows), sandbox, config(), 1).to_pylist()
    refused = {
        e["instruction"]: r["strength"][0]["stubs_passed"]
        for e, r in zip(shown, out, strict=True)
        if r["drop_reason"] is not None
    }
    assert refused == {}


def test_refused_and_dropped_samples_are_not_run(sandbox: Sandbox) -> None:
    refused = row((ADD, GOOD)) | {"metrics": [{"sample_index": 0, "gate": "pep8"}]}
    dropped = row((ADD, GOOD), drop_reason="no_passing_sample")
    out = add_strength(table(refused, dropped), sandbox, config(), 1).to_pylist()
    assert [r["strength"] for r in out] == [[], []]
    assert [r["drop_reason"] for r in out] == [None, "no_passing_sample"]


@pytest.mark.parametrize(
    ("changes", "measures", "gate"),
    [
        ({}, {}, None),
        ({}, {"stubs_passed": ["f returns None"]}, "weak_tests"),
        ({}, {"stubs_passed": None}, "unmeasured"),
        ({"refuse_passing_stubs": False}, {"stubs_passed": None}, None),
        ({"min_killed_share": 0.5}, {}, None),
        ({"min_killed_share": 0.6}, {}, "few_killed"),
        ({"min_killed_share": 0.6}, {"killed_share": None}, "unmeasured"),
        ({"min_line_coverage": 1.0}, {}, "uncovered_lines"),
        ({"min_branch_coverage": 1.0}, {}, "uncovered_branches"),
        ({"min_branch_coverage": 1.0, "min_killed_share": 0.6}, {}, "few_killed"),
    ],
)
def test_each_gate_refuses_by_its_own_reason(changes: Row, measures: Row, gate: str | None) -> None:
    given = {"stubs_passed": [], "killed_share": 0.5, "line_coverage": 0.9, "branch_coverage": 0.5}
    assert gate_of(given | measures, config(**changes)) == gate


@pytest.mark.parametrize(
    ("most", "share", "gate"),
    [(None, 1.0, None), (0.75, 0.75, None), (0.75, 0.8, "answers_by_lookup"),
     (0.75, None, "unmeasured")],
)  # fmt: skip
def test_the_gate_on_lookups(most: float | None, share: float | None, gate: str | None) -> None:
    assert lookup_gate({"lookup_share": share}, config(max_lookup_share=most)) == gate


@pytest.mark.ray
def test_the_stage_measures_and_counts_every_row(ray_local: None, run_config: Any) -> None:
    rows = [
        row((ADD, GOOD)),
        row((ADD, "add(1, 2)")),
        row((ADD, GOOD), drop_reason="no_passing_sample"),
    ]
    ds = ray.data.from_arrow([table(r) for r in rows])
    cfg = run_config("sandbox.assurance=split", "sandbox.output_bytes=0")
    tally.start_tally()
    try:
        found = strength(ds, cfg).take_all()
        assert tally.snapshot()["strength"]["rows"] == len(rows)
    finally:
        tally.stop_tally()
    reasons = sorted(str(r["drop_reason"]) for r in found)
    assert reasons == ["None", "no_passing_sample", "weak_tests"]
    (kept,) = (r for r in found if r["drop_reason"] is None)
    assert kept["strength"][0]["line_coverage"] == 1
