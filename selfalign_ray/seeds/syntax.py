"""What stands at the top level of a Python file: its imports, constants, functions and classes.

The parser is tree-sitter's, which finds the whole functions of a file that is broken elsewhere.
Imported by the process that parses: neither Ray nor pyarrow here.
"""

from __future__ import annotations

import ast
import functools as ft
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import tree_sitter_python
from tree_sitter import Language, Node, Parser

FUNCTION, METHOD, CLASS = "function", "method", "class"

# Without a line that begins so there is nothing to find; half of real files have none, and asking
# takes a thousandth of parsing. Python allows a form feed before a statement.
_FUNCTION = ("\ndef", "\nasync", "\n\f")
_CLASS = (*_FUNCTION, "\nclass")
# To Python a string in parentheses is the string.
_MAY_BE_STRING = ("string", "concatenated_string", "parenthesized_expression")
# A docstring that says what it shows, as most do: no escape, no prefix, one string.
_PLAIN_STRING = re.compile(r'("""|\'\'\')((?:(?!\1)[^\\])*+)\1')


class Import(NamedTuple):
    """One import statement."""

    head: str  # "import" or "from ... import"
    names: tuple[tuple[str, str], ...]  # what a name is bound as, and how the statement says it


class Constant(NamedTuple):
    """One assignment."""

    names: tuple[str, ...]  # that it binds
    source: str


class Definition(NamedTuple):
    """One function, method or class."""

    kind: str  # FUNCTION, METHOD or CLASS
    name: str  # of a method with its class's: "Stack.push"
    line: int  # of its first decorator or its `def` or `class`, from 1
    last_line: int
    source: str  # from there to its end, without trailing spaces; a method stands in its class
    lines: int  # of the definition itself that are not blank
    signature: str  # from `def` or `class` to the colon
    docstring: str  # without indentation; empty where there is none
    intact: bool  # the parser found no error in it


class Module(NamedTuple):
    """What the parser finds in a file."""

    imports: list[Import]
    constants: list[Constant]
    definitions: list[Definition]
    intact: bool  # no error was found; a file that defines nothing is not parsed


def parse(content: str, *, methods: bool = False, classes: bool = False) -> Module:
    """What a file's top level holds, in the file's order; nothing where it defines nothing.

    Args:
        content: the file.
        methods: whether the methods of its classes are definitions.
        classes: whether its classes are.
    """
    lines = f"\n{content}"
    if not any(start in lines for start in (_CLASS if methods or classes else _FUNCTION)):
        return Module([], [], [], intact=True)
    root = _parser().parse(content.encode("utf-8", "replace")).root_node
    imports: list[Import] = []
    constants: list[Constant] = []
    bound: set[str] = set()
    found: list[Definition] = []
    for node in root.children:
        kind = node.type
        if kind == "expression_statement":
            for constant in _constants(node, bound):
                constants.append(constant)
                bound.update(constant.names)
        elif kind in ("import_statement", "import_from_statement"):
            imports += _imports(node)
        elif kind == "if_statement":
            imports += _typing_imports(node)
        elif kind in ("function_definition", "class_definition", "decorated_definition"):
            found += _definitions(node, methods=methods, classes=classes)
    return Module(imports, constants, found, intact=not root.has_error)


@ft.cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_python.language()))


def _definitions(node: Node, *, methods: bool, classes: bool) -> Iterator[Definition]:
    inner = _inner(node)
    if inner is None:
        return
    if inner.type == "function_definition":
        yield _definition(node, inner, FUNCTION)
    elif inner.type == "class_definition":
        if classes:
            yield _definition(node, inner, CLASS)
        body = inner.child_by_field_name("body")
        for child in body.children if methods and body else ():
            method = _inner(child)
            if method is not None and method.type == "function_definition":
                yield _definition(child, method, METHOD, inside=inner)


def _inner(node: Node) -> Node | None:
    """The definition below any decorators."""
    return node.child_by_field_name("definition") if node.type == "decorated_definition" else node


def _definition(node: Node, inner: Node, kind: str, inside: Node | None = None) -> Definition:
    name_node = inner.child_by_field_name("name")
    body = inner.child_by_field_name("body")
    name = _text(name_node)
    lines = [line.rstrip() for line in _text(node).split("\n")]
    source = "\n".join(lines).strip("\n")
    if inside is not None:
        name = f"{_text(inside.child_by_field_name('name'))}.{name}"
        source = f"{_head(inside)}:\n{' ' * node.start_point.column}{source}"
    return Definition(
        kind=kind,
        name=name,
        line=node.start_point.row + 1,
        last_line=node.end_point.row + 1,
        source=source,
        lines=sum(1 for line in lines if line),
        signature=_head(inner),
        docstring=_docstring(body),
        intact=not node.has_error,
    )


def _head(node: Node) -> str:
    """The text of a definition up to its colon."""
    colon = next((child for child in node.children if child.type == ":"), None)
    text = node.text or b""
    head = text[: colon.start_byte - node.start_byte] if colon else text
    return head.decode("utf-8", "replace").rstrip()


def _docstring(body: Node | None) -> str:
    first = body.named_child(0) if body is not None and body.named_child_count else None
    if first is None or first.type != "expression_statement" or first.named_child_count != 1:
        return ""
    string = first.named_child(0)
    if string is None or string.type not in _MAY_BE_STRING:
        return ""
    text = _text(string)
    if plain := _PLAIN_STRING.fullmatch(text):
        return _dedented(plain[2])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            value = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):  # an f-string, say
        return ""
    return _dedented(value) if isinstance(value, str) else ""


def _dedented(text: str) -> str:
    """As `inspect.cleandoc`, which also takes the first line's and the last ones' blanks."""
    if "\n" not in text and "\t" not in text:
        return text.strip()
    first, *others = text.expandtabs().split("\n")
    margin = min((len(x) - len(x.lstrip()) for x in others if x.strip()), default=0)
    return "\n".join([first.lstrip(), *(line[margin:].rstrip() for line in others)]).strip()


def _constants(node: Node, bound: set[str]) -> Iterator[Constant]:
    """`A = 1`, `A: int = 1`, `A = B = 1`, `A, B = 1, 2`; `A += 1` where A is bound before.

    Not what sets a part of A, nor `A: int`, which leaves it without a value.
    """
    part = node.named_child(0) if node.named_child_count else None
    changes = part is not None and part.type == "augmented_assignment"
    targets: list[Node] = []
    while part is not None and part.type in ("assignment", "augmented_assignment"):
        left = part.child_by_field_name("left")
        several = left and left.type in ("pattern_list", "tuple_pattern", "list_pattern")
        targets += left.named_children if left and several else [left] if left else []
        part = part.child_by_field_name("right")
    names = tuple(_text(target) for target in targets if target.type == "identifier")
    whole = part is not None and len(names) == len(targets) and not node.has_error
    if names and whole and (not changes or bound.issuperset(names)):
        yield Constant(names, _text(node))


def _imports(node: Node) -> Iterator[Import]:
    if node.has_error:
        return
    module = node.child_by_field_name("module_name")
    head = f"from {_text(module)} import" if module else "import"
    names = tuple(
        _bound(name, whole=module is not None) for name in node.children_by_field_name("name")
    )
    if names:  # none in `from x import *`
        yield Import(head, names)


def _bound(node: Node, *, whole: bool) -> tuple[str, str]:
    alias = node.child_by_field_name("alias")
    text = _text(node)
    if alias:
        return _text(alias), text
    return (text if whole else text.split(".")[0].strip()), text


def _typing_imports(node: Node) -> Iterator[Import]:
    """The imports below `if TYPE_CHECKING:`, which annotations need."""
    condition = node.child_by_field_name("condition")
    body = node.child_by_field_name("consequence")
    if condition and body and _text(condition).split(".")[-1] == "TYPE_CHECKING":
        for child in body.children:
            if child.type in ("import_statement", "import_from_statement"):
                yield from _imports(child)


def _text(node: Node | None) -> str:
    text = node.text if node is not None else None
    return text.decode("utf-8", "replace") if text is not None else ""
