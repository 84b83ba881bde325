from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from radon.metrics import mi_visit

from selfalign_ray import schemas
from selfalign_ray.config import conf_dir
from selfalign_ray.validation.config import MetricsConfig
from selfalign_ray.validation.metrics import (
    add_metrics,
    complexity,
    metrics,
    style,
    type_coverage,
)

SOLUTION = '''
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b
'''.strip()
TESTS = "assert add(1, 2) == 3\nassert add(0, 0) == 0"

Row = dict[str, Any]


def gates(**changes: Any) -> MetricsConfig:
    """The default settings with these changes."""
    default = OmegaConf.load(Path(conf_dir()) / "validation" / "default.yaml")["metrics"]
    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(MetricsConfig), default, changes)
    )
    assert isinstance(config, MetricsConfig)
    return config


def sample(code: str | None = SOLUTION, tests: str | None = TESTS, index: int = 0) -> Row:
    return {"sample_index": index, "code": code, "tests": tests}


def row(
    *samples: Row,
    verdicts: list[str] | None = None,
    drop_reason: str | None = None,
    instruction: str | None = "Write a function `add(a, b)`.",
) -> Row:
    named = verdicts or ["passed"] * len(samples)
    judged = zip(samples, named, strict=True)
    return {
        "row_id": "r",
        "instruction": instruction,
        "samples": list(samples),
        "verdicts": [{"sample_index": s["sample_index"], "verdict": v} for s, v in judged],
        "drop_reason": drop_reason,
    }


def table(*rows: Row) -> pa.Table:
    names = ("row_id", "instruction", "samples", "verdicts", "drop_reason")
    return pa.Table.from_pylist(
        list(rows), schema=pa.schema([schemas.EXECUTED.field(name) for name in names])
    )


def measured(code: str, tests: str = TESTS, instruction: str = "", **changes: Any) -> Row:
    one = row(sample(code, tests), instruction=instruction)
    [found] = add_metrics(table(one), gates(**changes))["metrics"].to_pylist()
    assert len(found) == 1
    return dict(found[0])


def test_a_good_sample_has_every_measure() -> None:
    assert measured(SOLUTION, instruction="Write a function `add(a, b)`.") == {
        "sample_index": 0,
        "lines": 3,
        "imports": [],
        "pep8_violations": 0,
        "pep8_per_line": 0.0,
        "type_coverage": 1.0,
        "docstring_coverage": 1.0,
        "docstring_completeness": 0.0,
        "docstring_violations": 0,
        "complexity_max": 1,
        "complexity_mean": 1.0,
        "maintainability": pytest.approx(84.7, abs=0.05),
        "asserts": 2,
        "trivial_asserts": 0,
        "repeated_asserts": 0,
        "asked": ["function add", "parameter a", "parameter b"],
        "unmet": [],
        "gate": None,
    }


@pytest.mark.parametrize(
    ("code", "violations"),
    [
        ("x = 1\n", 0),
        ("x = 1", 0),  # code comes out of its fence without the last newline
        ("x=1", 1),
        ("x = 1;y = 2", 2),
        ("x = 1  \n", 1),
        ("x = '" + "a" * 200 + "'", 1),
        ("def f():\n\treturn 1", 1),
        ("", 0),
    ],
)
def test_style_counts_what_pycodestyle_finds(code: str, violations: int) -> None:
    assert style(code, gates())["pep8_violations"] == violations


def test_style_of_windows_lines_is_that_of_others() -> None:
    assert measured(SOLUTION.replace("\n", "\r\n")) == measured(SOLUTION)


def test_a_byte_order_mark_makes_no_difference() -> None:
    marked = measured(f"\ufeff{SOLUTION}", f"\ufeff{TESTS}")
    assert marked == measured(SOLUTION)
    assert marked["gate"] is None


def test_style_follows_the_settings_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "setup.cfg").write_text("[pycodestyle]\nmax-line-length = 10\n")
    monkeypatch.chdir(tmp_path)
    assert style("x = 'twenty or so'", gates())["pep8_violations"] == 0
    assert style("x = 'twenty or so'", gates(max_line_length=10))["pep8_violations"] == 1
    assert style("x=1", gates(pep8_ignore=["E225"]))["pep8_violations"] == 0
    assert style("x = (1\n     + 2)", gates(pep8_ignore=[]))["pep8_violations"] == 1  # W503


@pytest.mark.parametrize(
    ("code", "share"),
    [
        ("x = 1", 1.0),
        ("def f(a, b): ...", 0.0),
        ("def f(a: int, b) -> int: ...", 2 / 3),
        ("def f(a: int, /, *b: int, c: int, **d: int) -> int: ...", 1.0),
        ("class A:\n    def f(self, a: int): ...", 0.5),
        ("class A:\n    def __init__(self): ...", 1.0),
        ("class A:\n    @staticmethod\n    def f(a, b: int) -> int: ...", 2 / 3),
        ("def f() -> int:\n    def g(a): ...", 1 / 3),
        ("async def f() -> int: ...", 1.0),
    ],
)
def test_type_coverage(code: str, share: float) -> None:
    assert type_coverage(ast.parse(code)) == pytest.approx(share)


def test_complexity_is_of_the_worst_function_inner_ones_too() -> None:
    code = "def f(a):\n    def g(b):\n        return 1 if b else 2 if a else 3\n    return g"
    found = complexity(code, ast.parse(code))
    assert (found["complexity_max"], found["complexity_mean"]) == (3, 2.0)
    module = "if x:\n    pass"
    assert complexity(module, ast.parse(module))["complexity_max"] == 2


def test_maintainability_is_radon_s_own_figure() -> None:
    library = Path(ast.__file__).parent.glob("*.py")
    paths = sorted(path for path in library if path.stat().st_size < 5_000)
    for code in (path.read_text(encoding="utf-8") for path in paths):
        found = complexity(code, ast.parse(code))["maintainability"]
        assert found == pytest.approx(mi_visit(code, multi=True))


@pytest.mark.parametrize(
    ("tests", "gate"),
    [
        (TESTS, None),
        ("add(1, 2)", "trivial_tests"),
        ("add(1, 2)\nassert True", "trivial_tests"),
        ("assert True\nassert add(1, 2) == 3", None),
        ("", "trivial_tests"),
    ],
)
def test_a_vacuous_test_is_refused(tests: str, gate: str | None) -> None:
    assert measured(SOLUTION, tests)["gate"] == gate
    assert measured(SOLUTION, tests, refuse_trivial_tests=False)["gate"] is None


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"min_asserts": 2}, None),
        ({"min_asserts": 3}, "few_asserts"),
        ({"max_pep8_per_line": 0.5}, None),
        ({"max_pep8_per_line": 0.4}, "pep8"),
        ({"min_type_coverage": 0.6}, None),
        ({"min_type_coverage": 0.7}, "untyped"),
        ({"min_docstring_coverage": 0.0}, None),
        ({"min_docstring_coverage": 0.1}, "undocumented"),
        ({"max_complexity": 2}, None),
        ({"min_docstring_completeness": 0.0}, None),
        ({"min_docstring_completeness": 0.1}, "undescribed"),
        ({"max_complexity": 1}, "complex"),
        ({"refuse_unmet": False}, None),
        ({"refuse_unmet": True}, "misaligned"),
        ({"max_complexity": 1, "min_asserts": 3}, "few_asserts"),
    ],
)
def test_each_gate_refuses_by_its_own_reason(changes: Row, gate: str | None) -> None:
    code = "def add(a: int, b: int):\n    return a+ b if a else b"
    tests = TESTS + "\nassert add(0, 0) == 0"
    assert measured(code, tests, "Write a function named plus.", **changes)["gate"] == gate


def test_what_cannot_be_measured_passes_no_gate() -> None:
    unreadable = measured("def f(:", "assert f() == 1")
    assert unreadable["gate"] == "unmeasured"
    assert unreadable["complexity_max"] is None
    assert unreadable["pep8_violations"] > 0
    assert unreadable["docstring_violations"] is None
    assert measured("def f(:", refuse_trivial_tests=False)["gate"] is None


def test_code_that_is_too_long_is_not_measured() -> None:
    long = measured(SOLUTION + "\nx = 1" * 100, max_chars=200)
    assert (long["lines"], long["pep8_violations"], long["asserts"]) == (103, None, None)
    assert long["gate"] == "unmeasured"


HOSTILE = {
    "brackets": "(" * 9_000,
    "deep": "x = " + "-" * 9_000 + "1",
    "wide": "x = 1" + " + 1" * 4_000,
    "chain": "x = a" + ".b()" * 4_000,
    "decorated": "@a\n" * 5_000 + "def f(): pass",
    "elif": "if a:\n    pass\n" + "elif a:\n    pass\n" * 900,
    "digits": "x = 0x" + "f" * 9_000,
    "escapes": r"x = '\d'",
    "nul": "x = 1\0",
    "form feed": "x = 1\x0c\ny = 2\u2028z = 3",
    "byte order mark": "\ufeffx = 1",
    "cut string": "x = '''" + "\n" * 9_000,
    "noise": "\\\n" * 9_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_code_and_tests_are_survived(text: str) -> None:
    for found in (measured(text), measured(SOLUTION, text)):
        assert found["lines"] is not None
        pa.array([found], schemas.METRICS)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_no_text_raises(code: str, tests: str) -> None:
    measured(code, tests, min_type_coverage=1.0, max_complexity=1)


_STATEMENTS = st.sampled_from(
    [
        "assert x",
        "assert add(1, 2) == x",
        "assert add(1, 2) == add(1, 2)",
        "assert (x, *y)[0] or {}",
        "x = y = add(x, 1)",
        "x.y[0], *z = 1, 2",
        "x: int",
        "x += (y := 1)",
        "del x",
        "def add(a, /, *b, c=1, **d): return a",
        "async def f():\n    async with x as y: assert y",
        "class C(x):\n    def f(self, a): self.assertEqual(a, add())",
        "try:\n    add()\n    assert False\nexcept (A, B) as e:\n    x = e\nelse:\n    assert 0",
        "try:\n    pass\nexcept* E as e:\n    raise",
        "for x, y in add(): assert x",
        "while x: x.append([z for z in y if z])",
        "with pytest.raises(E): add(-1)",
        "with open(x) as (y, z), y: assert z",
        "match x:\n    case {'a': 1, **y}: assert y\n    case _: pass",
        "lambda: (yield)",
        "x.assert_called()",
        "x().assertTrue()",
    ]
)
_PROGRAMS = st.lists(_STATEMENTS, max_size=8).map("\n".join)


@settings(max_examples=100, deadline=None)
@given(_PROGRAMS, _PROGRAMS)
def test_every_program_is_measured(code: str, tests: str) -> None:
    found = measured(code, tests)
    assert [name for name in schemas.METRICS.names if found[name] is None] in ([], ["gate"])
    assert 0 <= found["trivial_asserts"] + found["repeated_asserts"] <= found["asserts"]


def test_only_samples_that_passed_are_measured() -> None:
    judged = row(
        *(sample(index=index) for index in range(3)), verdicts=["assertion", "passed", "timeout"]
    )
    found = add_metrics(table(judged), gates()).to_pylist()[0]
    assert [m["sample_index"] for m in found["metrics"]] == [1]
    assert found["drop_reason"] is None


def test_a_dropped_row_stays_as_it_is() -> None:
    dropped = row(sample(), drop_reason="no_passing_sample")
    found = add_metrics(table(dropped), gates()).to_pylist()[0]
    assert found["metrics"] == []
    assert found["drop_reason"] == "no_passing_sample"


def test_a_row_stops_when_every_sample_is_refused_by_the_reason_of_most() -> None:
    vacuous, cut = sample(tests="assert True"), sample("def f(:")
    rows = table(row(vacuous, cut, vacuous), row(cut, vacuous), row(vacuous, sample(index=1)))
    reasons = add_metrics(rows, gates())["drop_reason"].to_pylist()
    assert reasons == ["trivial_tests", "unmeasured", None]


@pytest.mark.ray
def test_the_stage_measures_every_row(ray_local: None, run_config: Any) -> None:
    rows = [
        row(sample()),
        row(sample(tests="assert True")),
        row(sample(), drop_reason="no_passing_sample"),
    ]
    ds = ray.data.from_arrow([table(r) for r in rows])
    found = metrics(ds, run_config()).take_all()
    reasons = sorted(str(r["drop_reason"]) for r in found)
    assert reasons == ["None", "no_passing_sample", "trivial_tests"]
