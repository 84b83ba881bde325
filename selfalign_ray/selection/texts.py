"""Responses as text: fences, the tests section, comments, stubs. Pure."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

from selfalign_ray.validation.definitions import Function, definitions, last_name, parse

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[ \t]*$", re.MULTILINE)
_PYTHON = ("", "py", "python", "python3")
_BODILESS = ("abstractmethod", "overload")  # decorators of functions that need no body


class Block(NamedTuple):
    """What is inside a fence, or the prose between two."""

    content: str
    language: str | None  # of the fence, empty where it says none; None: prose

    @property
    def is_python(self) -> bool:
        return self.language is not None and self.language.lower() in _PYTHON

    @property
    def text(self) -> str:
        """The block in its fence, Python tagged as such."""
        if self.language is None:
            return self.content
        tag = "python" if self.is_python else self.language
        content = self.content.rstrip().lstrip("\n")
        return f"```{tag}\n{content}\n```"


def unix_lines(text: str) -> str:
    r"""The text with `\n` for `\r\n` and `\r`."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def blocks_of(text: str) -> Iterator[Block]:
    """Prose and fences in turn; a fence that is left open ends with the text."""
    start, language = 0, None
    for mark in _FENCE.finditer(text):
        yield Block(text[start : mark.start()], language)
        start, language = mark.end() + 1, mark.group(1) if language is None else None
    yield Block(text[start:], language)


def without_tests(
    text: str, heading: re.Pattern[str] | None, *, cut: bool
) -> tuple[str, str | None]:
    """The text above the tests, its fences closed, and what is wrong with the whole.

    The heading may stand above the tests' fence or in it, or in the solution's. That the tests
    leave a fence open is nothing wrong, unless the text was cut: a recipe may stop there. Without
    a heading the whole text is above. Reasons: no_tests, two_test_sections, bad_fence.
    """
    if heading is None:
        is_open = len(_FENCE.findall(text)) % 2 == 1
        if _has_bad_fence(text) or (cut and is_open):
            return "", "bad_fence"
        return (text.rstrip() + "\n```" if is_open else text).strip("\n"), None
    places = list(heading.finditer(text))
    if len(places) != 1:
        return "", "two_test_sections" if places else "no_tests"
    above, below = text[: places[0].start()], text[places[0].end() :]
    marks = list(_FENCE.finditer(above))
    is_open = len(marks) % 2 == 1
    sections = blocks_of("```\n" + below if is_open else below)
    if sum(block.is_python and bool(block.content.strip()) for block in sections) > 1:
        return "", "two_test_sections"
    if _has_bad_fence(text) or (cut and len(_FENCE.findall(text)) % 2):
        return "", "bad_fence"
    if is_open and not above[marks[-1].end() :].strip():  # the tests' own fence
        above = above[: marks[-1].start()]
    elif is_open:
        above = above.rstrip() + "\n```"
    return above.strip("\n"), None


def comments_of(code: str) -> list[str]:
    """The comments; none where the code cannot be tokenised."""
    return [token.string for token in _comment_tokens(code)]


def remove_comments(code: str) -> str:
    """The code without its comments, and without the lines that hold nothing else.

    Code that cannot be read stays as it is; what is removed never changes the syntax tree.
    """
    lines = io.StringIO(code).readlines()
    for token in _comment_tokens(code):
        row, column = token.start
        line = lines[row - 1]
        kept = line[:column].rstrip()
        lines[row - 1] = kept + line[column + len(token.string) :] if kept else ""
    result = "".join(lines)
    return result if result == code or _same_tree(code, result) else code


def has_stub(code: str) -> bool:
    """Whether a function is left to be written.

    Its whole body, its docstring apart, is `pass` or `...`, or outside of classes
    `raise NotImplementedError`. Functions in functions, methods of protocols, abstract methods
    and methods with names like `__init__` may be empty.
    """
    tree = parse(code)
    if tree is None:
        return False
    found = [d for d in definitions(tree) if not d.local]
    protocols = [d.node for d in found if isinstance(d.node, ast.ClassDef) and _is_protocol(d.node)]
    exempt = {id(child) for node in protocols for child in node.body}
    for node, method, _ in found:
        if isinstance(node, ast.ClassDef) or id(node) in exempt or _may_be_empty(node):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if all(_does_nothing(statement, method=method) for statement in body):
            return True
    return False


def _has_bad_fence(text: str) -> bool:
    """Whether a fence begins where another is open."""
    marks = _FENCE.finditer(text)
    return any(index % 2 and mark.group(1) for index, mark in enumerate(marks))


def _comment_tokens(code: str) -> list[tokenize.TokenInfo]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError, ValueError):
        return []
    return [token for token in tokens if token.type == tokenize.COMMENT]


def _same_tree(code: str, other: str) -> bool:
    tree, other_tree = parse(code), parse(other)
    if tree is None or other_tree is None:
        return False
    try:
        return ast.dump(tree) == ast.dump(other_tree)
    except (RecursionError, ValueError):  # too deep; an integer of thousands of digits
        return False


def _is_protocol(node: ast.ClassDef) -> bool:
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return any(last_name(base) == "Protocol" for base in bases)


def _may_be_empty(function: Function) -> bool:
    is_special = function.name.startswith("__") and function.name.endswith("__")
    return is_special or any(last_name(d) in _BODILESS for d in function.decorator_list)


def _does_nothing(statement: ast.stmt, *, method: bool) -> bool:
    match statement:
        case ast.Pass() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Raise(exc=ast.Call(func=raised)) | ast.Raise(exc=raised):
            return not method and last_name(raised) == "NotImplementedError"
    return False
