"""index.py: attacks on every item of the real HumanEval, and what must not be hit."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.decontamination.benchmarks import Text
from selfalign_ray.decontamination.index import Content, Index, build_index, find
from tests.decontamination.conftest import ConfigOf, config

CFG = config()


def without_docstrings(code: str) -> ast.Module:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


class Renamed(ast.NodeTransformer):
    """Every name but builtins becomes another."""

    def __init__(self, taken: set[str], others: Iterable[str]) -> None:
        self.names: dict[str, str] = {}
        self.taken = taken
        self.others = iter(others)

    def other(self, name: str) -> str:
        if name in dir(builtins) or name in self.taken:
            return name
        if name not in self.names:
            self.names[name] = next(self.others)
        return self.names[name]

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.other(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.other(node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name, node.returns = self.other(node.name), None
        self.generic_visit(node)
        return node


def renamed(code: str, others: Sequence[str] = ()) -> str:
    tree = without_docstrings(code)
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {alias.name for node in imports for alias in node.names}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = [name for name in others if name not in used]
    names += [f"renamed_{n}" for n in range(100)]
    return ast.unparse(Renamed(imported, names).visit(tree))


def renamed_like_builtins(code: str) -> str:
    return renamed(code, [name for name in dir(builtins) if name.isalpha() and name.islower()])


class Declared(ast.NodeTransformer):
    """Every function begins with a bare declaration; it and its loops are async."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.body.insert(0, ast.parse("declared: list[int]").body[0])
        return ast.AsyncFunctionDef(**dict(ast.iter_fields(node)))

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        return ast.AsyncFor(**dict(ast.iter_fields(node)))


def declared(code: str) -> str:
    return ast.unparse(ast.fix_missing_locations(Declared().visit(ast.parse(renamed(code)))))


def commented(code: str) -> str:
    lines = ast.unparse(without_docstrings(code)).split("\n")
    return "\n".join(f"{line}  # remark {n} on this" for n, line in enumerate(lines))


def redocumented(code: str) -> str:
    plain = ast.unparse(without_docstrings(code))
    return plain.replace(":\n", ':\n    """Say something else, in words of another."""\n', 1)


def look_alikes(text: str) -> str:
    return text.translate(str.maketrans("aeocp", "\u0430\u0435\u043e\u0441\u0440"))


def told(prompt: str) -> str:
    """The task of a prompt as an instruction, without its examples."""
    block = re.findall(r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'', prompt)[-1].strip("\"'")
    task = re.split(r">>>|\n\s*(?:e\.g|for example|examples?\b)", block, flags=re.IGNORECASE)[0]
    return f"Write a Python function for this.\n\n{task.strip()}\n\nKeep it short."


def hits_of(code: str, index: Index, item: str) -> list[dict[str, Any]]:
    found = find([Content((code,), code)], index, CFG)[0]
    return [hit for hit in found if hit["item"] == item and not hit["near"]]


@pytest.mark.parametrize(
    ("part", "attack", "least"),
    [
        ("solution", str, 164),
        ("solution", lambda code: ast.unparse(ast.parse(code)), 164),
        ("prompt", str, 164),
        ("prompt", str.upper, 164),
        ("prompt", look_alikes, 164),
        # Eight tasks are of fewer words than an n-gram.
        ("prompt", told, 156),
        ("test", str, 164),
        # Ten solutions are of one short line without their docstring.
        ("solution", redocumented, 154),
        ("solution", commented, 154),
        # These and 15 more are trivial by tree.
        ("solution", renamed, 139),
        ("solution", declared, 139),
        # One more calls a function that only its module defines.
        ("solution", renamed_like_builtins, 138),
        ("solution", lambda code: re.sub(r"\b2\b", "7", renamed(code)), 139),
    ],
)
def test_an_attack_on_every_item(
    humaneval: list[Text], index: Index, part: str, attack: Callable[[str], str], least: int
) -> None:
    texts = [text for text in humaneval if text.part == part]
    found = {text.item for text in texts if hits_of(attack(text.text), index, text.item)}
    assert len({text.item for text in texts}) == 164
    assert len(found) >= least


def test_asserts_that_call_the_function_by_its_name_are_found(
    humaneval: list[Text], index: Index
) -> None:
    names = {t.item: re.findall(r"def (\w+)", t.text)[-1] for t in humaneval if t.part == "prompt"}
    found = set()
    for text in humaneval:
        if text.part == "test" and "candidate" in text.text:
            asserts = [
                node for node in ast.walk(ast.parse(text.text)) if isinstance(node, ast.Assert)
            ]
            lines = [f"assert {ast.unparse(node.test)}" for node in asserts]
            tests = "\n".join(lines).replace("candidate", names[text.item])
            if hits_of(f"import math\n\n{tests}", index, text.item):
                found.add(text.item)
    assert len(found) >= 160  # the others assert next to nothing beside a loop or a name


COMMON = [
    "def add(a: int, b: int) -> int:\n    return a + b",
    "def read_all(path: str) -> str:\n    with open(path) as file:\n        return file.read()",
    "def main():\n    for i in range(10):\n        for j in range(10):\n            print(i, j)",
    "def total(values: list[int]) -> int:\n    found = 0\n    for value in values:\n"
    "        found += value\n    return found",
    "class Point:\n    def __init__(self, x: int, y: int) -> None:\n        self.x = x\n"
    "        self.y = y\n",
    'def f(a, b):\n    """Returns the sum of the two given numbers, as an integer number."""\n'
    "    return a + b",
    "from typing import List, Optional, Tuple, Dict, Any\nimport math\nimport re\nimport sys\n",
    "",
    "def f(:",
]


@pytest.mark.parametrize("code", COMMON)
def test_common_code_is_not_hit(index: Index, code: str) -> None:
    assert find([Content((code,), code)], index, CFG) == [[]]


def test_a_paraphrased_task_is_not_found(index: Index) -> None:
    text = "Tell whether any two of the given numbers lie nearer to each other than a threshold."
    assert find([Content((text,), "")], index, CFG) == [[]]


def test_a_task_inside_other_text_is_found_with_its_evidence(
    humaneval: list[Text], index: Index
) -> None:
    prompt = next(t for t in humaneval if t.item == "HumanEval/0" and t.part == "prompt").text
    told = prompt.split('"""')[1]
    text = f"Here is a task for you.\n{told}\nDo it well, and without imports."
    hit = find([Content((text,), "")], index, CFG)[0][0]
    assert (hit["benchmark"], hit["item"], hit["part"]) == ("humaneval", "HumanEval/0", "prompt")
    assert (hit["method"], hit["share"], hit["near"]) == ("substring", 1.0, False)
    assert hit["text"].startswith("check if in given list of numbers are any two")


def test_a_short_task_is_found_whole_and_is_else_a_near_miss(index: Index) -> None:
    text = "Return {} greatest common divisor of two integers a and b"
    for word, near in (("a", False), ("the", True)):
        hit, *_ = find([Content((text.format(word),), "")], index, CFG)[0]
        assert (hit["item"], hit["near"]) == ("HumanEval/13", near)


LONG = " ".join(f"w{n}" for n in range(48))


def grams_index(config_of: ConfigOf, *overrides: str) -> tuple[Index, Any]:
    cfg = config_of(*overrides)
    return build_index([Text("b", "1", "prompt", LONG)], cfg), cfg


@pytest.mark.parametrize(
    ("tokens", "share", "near"), [(48, 1.0, False), (29, 22 / 41, False), (19, 12 / 41, True)]
)
def test_a_share_of_the_grams_is_a_hit_or_a_near_miss(
    config_of: ConfigOf, tokens: int, share: float, *, near: bool
) -> None:
    index, cfg = grams_index(config_of)
    text = "before " + " ".join(LONG.split()[:tokens]) + " after"
    (hit,) = find([Content((text,), "")], index, cfg)[0]
    assert hit["share"] == pytest.approx(share)
    assert hit["near"] is near
    assert hit["text"].split() == LONG.split()[: min(tokens, 40)]


def test_too_small_a_share_is_nothing(config_of: ConfigOf) -> None:
    index, cfg = grams_index(config_of)
    assert find([Content((" ".join(LONG.split()[:15]),), "")], index, cfg) == [[]]


def test_methods_are_switches(config_of: ConfigOf, humaneval: list[Text]) -> None:
    code = next(t for t in humaneval if t.item == "HumanEval/0" and t.part == "solution").text
    for on, method in (("by_substring", "substring"), ("by_grams", "grams"), ("by_tree", "tree")):
        switches = [f"{name}={name == on}" for name in ("by_substring", "by_grams", "by_tree")]
        cfg = config_of(*switches)
        hits = find([Content((code,), code)], build_index(humaneval, cfg), cfg)[0]
        assert {hit["method"] for hit in hits} == {method}
    cfg = config_of("by_substring=false", "by_grams=false", "by_tree=false")
    assert find([Content((code,), code)], build_index(humaneval, cfg), cfg) == [[]]


def test_an_allowed_solution_may_stand_but_not_its_task(
    config_of: ConfigOf, humaneval: list[Text]
) -> None:
    cfg = config_of("allow=['humaneval/HumanEval/0']")
    index = build_index(humaneval, cfg)
    texts = {t.part: t.text for t in humaneval if t.item == "HumanEval/0"}
    body = ast.unparse(without_docstrings(texts["solution"]))
    assert find([Content((body,), body)], index, cfg) == [[]]
    assert find([Content((texts["prompt"],), "")], index, cfg)[0]


def test_rows_are_judged_apart(humaneval: list[Text], index: Index) -> None:
    codes = [text.text for text in humaneval if text.part == "solution"][:20]
    rows = [
        Content((code,), code) for pair in zip(codes, COMMON * 3, strict=False) for code in pair
    ]
    together = find(rows, index, CFG)
    assert together == [find([row], index, CFG)[0] for row in rows]
    assert any(together[::2])
    assert not any(together[1::2])


def test_without_a_benchmark_nothing_is_found() -> None:
    index = build_index([], CFG)
    assert find([Content((LONG,), LONG)], index, CFG) == [[]]
    assert find([], index, CFG) == []


@settings(deadline=None)
@given(st.lists(st.text(max_size=200), max_size=4))
def test_no_row_raises(texts: list[str]) -> None:
    index = build_index([Text("b", "1", "solution", "def f(a):\n    " + "a += 1\n    " * 9)], CFG)
    assert len(find([Content((text,), text) for text in texts], index, CFG)) == len(texts)
