"""What is left of a text or a function when its looks are taken away. Pure."""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from selfalign_ray.validation.definitions import parse

_BUILTINS = frozenset(dir(builtins))
_TOKEN = re.compile(r"[^\W_]+")
_ASIDE = re.compile(
    r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|#[^\n]*'
    r"|(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
)
_DOCSTRING = re.compile(r'"""([\s\S]*?)"""|\'\'\'([\s\S]*?)\'\'\'')
# A line that begins an example: so called, or a call with a literal for its first argument.
_EXAMPLE = re.compile(
    r"^[^\w\n]*(?:(?:for\s)?examples?\b|samples?\b|e\.g\.|>>>|assert\b"
    r"|(?:for\s)?\w+\([-\[({)'\"\d])",
    re.IGNORECASE | re.MULTILINE,
)
# Cyrillic and Greek letters that look like Latin ones, of both cases, casefolded
# (https://www.unicode.org/reports/tr39/, confusables).
_LOOK_ALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u051b\u051d\u04bb"
    "\u04cf\u0432\u043a\u043c\u043d\u0442\u0433\u03bf\u03b1\u03bd\u03c1\u03b9\u03ba\u03c4"
    "\u03c5\u03c7\u03b5\u03b7\u03bc\u03b2\u03b6\u03b3\u0261\u0131",
    "aeopcyxsijdqwhlbkmhtroavpiktuxenubzygi",
)
_INVISIBLE = ("Cf", "Mn")  # joiners, direction marks, variation selectors, accents
_Statements = list[ast.stmt]
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
# Fields that a shape leaves out, and those that hold a name.
_LEFT_OUT = {"annotation", "returns", "decorator_list", "type_params", "type_comment", "kind"}
_LEFT_OUT |= {"ctx", "type_ignores"}
_NAMES = {"id", "arg", "name", "asname", "rest"}


class Shape(NamedTuple):
    """A function, or a module's own statements, without names and literals."""

    name: str  # of the function; empty for a module
    nodes: int
    digest: bytes


def plain_tokens(text: str) -> list[str]:
    """Runs of letters and digits in lower case, look-alikes and accents made Latin."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in text if unicodedata.category(c) not in _INVISIBLE)
        return _TOKEN.findall(text.casefold().translate(_LOOK_ALIKES))
    return _TOKEN.findall(text.lower())


def bare(code: str) -> str:
    """The code without comments and without texts in triple quotes, docstrings among them."""
    return _ASIDE.sub(lambda found: found.group(1) or " ", code)


def quoted_blocks(code: str) -> list[str]:
    """The texts in triple quotes."""
    return [one or other for one, other in _DOCSTRING.findall(code)]


def prose(task: str) -> str:
    """The task as far as its first example."""
    found = _EXAMPLE.search(task)
    return task[: found.start()] if found else task


def asserted(test: str) -> str:
    """What a test asserts of calls, an assert a line, without messages and what stands between."""
    test = test.removeprefix("\ufeff")  # which would count among the columns of the first line
    tree = parse(test)
    asserts = [node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)] if tree else []
    lines = [
        f"assert {ast.get_source_segment(test, condition)}"
        for condition in sorted(asserts, key=lambda node: node.lineno)
        if any(isinstance(node, ast.Call) for node in ast.walk(condition))
    ]
    return "\n".join(lines)


def outline(body: _Statements) -> tuple[str, ...]:
    """The kinds of a body's statements: what two equal shapes agree in, at a glance."""
    return tuple(
        type(statement).__name__.removeprefix("Async").removeprefix("Ann")
        for statement in _without_docstring(body)
        if not (isinstance(statement, ast.AnnAssign) and statement.value is None)
    )


def bodies(tree: ast.Module) -> Iterator[tuple[str, ast.AST, _Statements]]:
    """What is compared: each function, nested ones too, and a module that is a script."""
    waiting: list[ast.AST] = [tree]
    while waiting:  # statements alone: expressions are most of a tree and hold no function
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node, node.body
        for field in _BLOCKS:
            waiting += getattr(node, field, ())
    own = [s for s in _without_docstring(tree.body) if not isinstance(s, _DEFINITIONS)]
    if own:
        yield "", ast.Module(own, []), own


def shape_of(name: str, node: ast.AST) -> Shape | None:
    """The shape of one of `bodies`; None where it is nested too deeply.

    Names are numbered as they come, attributes and builtins that the code does not bind apart;
    literals are their type; annotations, docstrings, decorators and the difference of def and
    async def are left out.
    """
    words: list[str] = []
    names: list[tuple[int, bool]] = []
    try:
        _describe(node, words, names)
    except RecursionError:
        return None
    kept = _BUILTINS - {words[place] for place, is_bound in names if is_bound}
    numbers: dict[str, str] = {}
    for place, _ in names:
        if words[place] not in kept:
            words[place] = numbers.setdefault(words[place], f"v{len(numbers)}")
    digest = hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16)
    return Shape(name, words.count("("), digest.digest())


def _describe(node: ast.AST, words: list[str], names: list[tuple[int, bool]]) -> None:
    """Appends the words of a node, and where among them a name is and whether it is bound there."""
    if isinstance(node, ast.AnnAssign):
        if node.value is None:
            return
        node = ast.Assign([node.target], node.value)
    words += ("(", type(node).__name__.removeprefix("Async"))
    if isinstance(node, ast.Constant):
        is_word = isinstance(node.value, bool | None) or node.value is ...
        words.append(repr(node.value) if is_word else type(node.value).__name__)
    else:
        for field, value in ast.iter_fields(node):
            if field not in _LEFT_OUT:
                _describe_field(node, field, value, words, names)
    words.append(")")


def _describe_field(
    node: ast.AST, field: str, value: object, words: list[str], names: list[tuple[int, bool]]
) -> None:
    if isinstance(value, list):
        items = _without_docstring(value) if field == "body" else value
        words.append("[")
        for item in items:
            _describe_field(node, field, item, words, names)
        words.append("]")
    elif isinstance(value, ast.AST):
        _describe(value, words, names)
    elif isinstance(value, str):
        is_name = field in _NAMES and not isinstance(node, ast.keyword | ast.alias)
        is_name |= isinstance(node, ast.Global | ast.Nonlocal)
        if is_name:
            names.append((len(words), not isinstance(getattr(node, "ctx", None), ast.Load)))
        words.append(value)
    else:
        words.append(str(value))


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest]:
            return rest
    return body
