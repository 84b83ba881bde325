"""The few-shot examples are well formed, and their tests tell a solution from a stub."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

import selfalign_ray
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.pool import Sandbox

PACKAGE = Path(selfalign_ray.__file__).parent
FIELDS = {
    "kind",
    "difficulty",
    "snippet",
    "concepts",
    "instruction",
    "reasoning",
    "solution",
    "explanation",
    "tests",
}
KINDS = {"function", "class", "program"}
DIFFICULTIES = {"easy", "medium", "hard"}
STUBS = ("none", "argument", "zero")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

Example = dict[str, Any]


def load_examples() -> dict[str, Example]:
    paths = sorted((PACKAGE / "hops" / "examples").glob("*.yaml"))
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}


EXAMPLES = load_examples()
SHORT_EXAMPLES = {name: e for name, e in EXAMPLES.items() if name.startswith("short_")}

each_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
each_short_example = pytest.mark.parametrize(
    "example", SHORT_EXAMPLES.values(), ids=SHORT_EXAMPLES.keys()
)


def defined_names(code: str) -> list[str]:
    return [node.name for node in ast.parse(code).body if isinstance(node, DEFINITIONS)]


def top_level_asserts(code: str) -> list[ast.Assert]:
    return [node for node in ast.parse(code).body if isinstance(node, ast.Assert)]


def repeated(values: list[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def outer_functions(body: list[ast.stmt]) -> Iterator[tuple[ast.FunctionDef, bool]]:
    """Functions and methods that lie in no other function, and whether `self` comes first."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            for method, _ in outer_functions(node.body):
                decorators = {d.id for d in method.decorator_list if isinstance(d, ast.Name)}
                yield method, "staticmethod" not in decorators
        elif isinstance(node, ast.FunctionDef):
            yield node, False


def stubbed(solution: str, stub: str) -> str:
    """The solution with the body of each function and method, `__init__` apart, replaced."""
    module = ast.parse(solution)
    for function, bound in outer_functions(module.body):
        if function.name == "__init__":
            continue
        arguments = [a.arg for a in (*function.args.posonlyargs, *function.args.args)][bound:]
        first = arguments[0] if arguments else "0"
        value = {"none": "None", "argument": first, "zero": "0"}[stub]
        function.body = [ast.Return(ast.Name(value))]
    return ast.unparse(ast.fix_missing_locations(module))


def test_there_are_enough_examples_of_every_kind_and_difficulty() -> None:
    assert len(EXAMPLES) >= 20
    assert {e["kind"] for e in EXAMPLES.values()} == KINDS
    assert {e["difficulty"] for e in EXAMPLES.values()} == DIFFICULTIES


def test_no_two_examples_share_an_instruction() -> None:
    assert repeated([e["instruction"] for e in EXAMPLES.values()]) == []


def test_no_name_is_defined_twice_in_any_snippet_or_solution() -> None:
    names = [
        name
        for e in EXAMPLES.values()
        for name in defined_names(e["snippet"]) + defined_names(e["solution"])
    ]
    assert repeated(names) == []


@each_example
def test_an_example_has_exactly_the_known_fields(example: Example) -> None:
    assert set(example) - {"idea"} == FIELDS
    assert example["kind"] in KINDS
    assert example["difficulty"] in DIFFICULTIES
    texts = [example[field] for field in FIELDS - {"concepts"}]
    assert all(isinstance(text, str) and text.strip() for text in texts)


def test_every_long_example_says_its_idea_in_two_or_three_sentences() -> None:
    for name, example in EXAMPLES.items():
        assert ("idea" in example) is not name.startswith(("tiny_", "short_"))
        if "idea" in example:
            assert 20 <= len(example["idea"].split()) <= 60
            assert len(example["idea"].strip().split("\n")) == 1


@each_example
def test_concepts_are_a_few_phrases_without_commas(example: Example) -> None:
    assert 3 <= len(example["concepts"]) <= 5
    assert all(isinstance(c, str) and c.strip() and "," not in c for c in example["concepts"])


@each_example
def test_an_instruction_is_brief_and_names_what_the_tests_use(example: Example) -> None:
    assert len(example["instruction"].split()) <= 200
    named = [name for name in defined_names(example["solution"]) if name in example["instruction"]]
    assert any(name in example["tests"] for name in named)


@each_example
def test_snippet_solution_and_tests_parse_and_fit_a_line(example: Example) -> None:
    for field in ("snippet", "solution", "tests"):
        ast.parse(example[field])
        assert max(map(len, example[field].splitlines())) <= 100, field


@each_example
def test_tests_are_three_to_seven_asserts_at_the_top_level(example: Example) -> None:
    assert 3 <= len(top_level_asserts(example["tests"])) <= 7
    assert defined_names(example["tests"]) == []


@each_example
def test_each_definition_of_a_solution_has_a_docstring_and_return_types(example: Example) -> None:
    module = ast.parse(example["solution"])
    assert all(ast.get_docstring(n) for n in module.body if isinstance(n, DEFINITIONS))
    functions = [function for function, _ in outer_functions(module.body)]
    assert [f.name for f in functions if f.returns is None] == []


def test_ten_short_functions_serve_small_models() -> None:
    assert len(SHORT_EXAMPLES) == 10
    assert {e["kind"] for e in SHORT_EXAMPLES.values()} == {"function"}


@each_short_example
def test_a_short_example_is_short_in_every_field(example: Example) -> None:
    assert re.match(r"Write a Python function `\w+\(.+\) -> .+` that ", example["instruction"])
    assert len(example["instruction"].split()) <= 35
    assert len(example["snippet"].splitlines()) <= 7
    assert len(example["solution"].splitlines()) <= 6
    assert len(example["concepts"]) == 3
    assert len(example["reasoning"].splitlines()) == 1
    assert len(example["explanation"].splitlines()) == 1


@each_short_example
def test_a_short_example_compares_three_calls_with_three_literals(example: Example) -> None:
    comparisons = [node.test for node in top_level_asserts(example["tests"])]
    calls = {ast.unparse(c.left) for c in comparisons if isinstance(c, ast.Compare)}
    values = {ast.unparse(c.comparators[0]) for c in comparisons if isinstance(c, ast.Compare)}
    assert len(comparisons) == len(calls) == len(values) == 3
    assert all(ast.literal_eval(value) is not None for value in values)


def test_a_stub_keeps_classes_and_constructors() -> None:
    solution = (
        "class A:\n"
        "    def __init__(self, n):\n        self.n = n\n"
        "    def get(self, m):\n        return self.n + m\n"
        "    @staticmethod\n    def twice(m):\n        return 2 * m\n"
        "def one():\n    return 1\n"
    )
    names: dict[str, Any] = {}
    exec(stubbed(solution, "argument"), names)  # our own lines, no sandbox needed
    made = names["A"](4)
    assert (made.n, made.get(7), made.twice(5), names["one"]()) == (4, 7, 5, 0)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    settings = OmegaConf.load(PACKAGE.parent / "conf" / "sandbox" / "default.yaml")
    settings.pop("defaults")
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SandboxConfig), settings))
    with Sandbox(config) as pool:
        yield pool


@pytest.mark.sandbox
def test_every_solution_passes_its_tests(sandbox: Sandbox) -> None:
    verdicts = sandbox.judge([(e["solution"], e["tests"]) for e in EXAMPLES.values()])
    failed = {name: v for name, v in zip(EXAMPLES, verdicts, strict=True) if v.verdict != "passed"}
    assert failed == {}


@pytest.mark.sandbox
@pytest.mark.parametrize("stub", STUBS)
def test_no_stub_passes_the_tests(sandbox: Sandbox, stub: str) -> None:
    verdicts = sandbox.judge(
        [(stubbed(e["solution"], stub), e["tests"]) for e in EXAMPLES.values()]
    )
    blamed = {name: v.verdict for name, v in zip(EXAMPLES, verdicts, strict=True)}
    assert {name for name, verdict in blamed.items() if verdict == "passed"} == set()
    assert "infra" not in blamed.values()
