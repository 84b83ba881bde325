"""Types that code calls or hands on where no name says which they are. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from selfalign_ray.sandbox.reach import DUNDER, METACLASSES, words

_ASKING = words("isinstance issubclass print repr str hash id format")
_SHOWN = words("__doc__ __module__ __name__ __qualname__")


def unnamed_types(tree: ast.Module, above: Mapping[int, ast.AST]) -> Iterator[str]:
    """Types of objects, and types of types, that are called or handed on: no name says which.

    Args:
        tree: the code.
        above: the node that each one hangs on, by id.
    """
    annotations = {id(part) for node in ast.walk(tree) for part in _annotations(node)}
    for node in ast.walk(tree):
        parent = above.get(id(node))
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name == "__class__" and not _is_shown(node, above):
                yield "calls or hands on a type"
            elif name in METACLASSES and id(node) not in annotations:
                called = isinstance(parent, ast.Call) and parent.func is node and name == "type"
                meta = isinstance(parent, ast.keyword) and parent.arg == "metaclass"
                if not (called or meta or _is_shown(node, above)):
                    yield f"uses {name} as a value"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "type":
            if len(node.args) == 1 and not _is_shown(node, above):
                yield "calls or hands on a type"


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        inner = getattr(node, name, None)
        if isinstance(inner, ast.AST):
            yield from ast.walk(inner)
    if isinstance(node, ast.Subscript):
        yield node.value


def _is_shown(node: ast.AST, above: Mapping[int, ast.AST]) -> bool:
    """Whether a type is only compared, named or asked about."""
    parent = above.get(id(node))
    while isinstance(parent, ast.Tuple | ast.BoolOp):
        parent = above.get(id(parent))
    if isinstance(parent, ast.Attribute):
        return parent.attr in _SHOWN or not DUNDER.fullmatch(parent.attr)
    if isinstance(parent, ast.Call):
        return parent.func is not node and getattr(parent.func, "id", "") in _ASKING
    return isinstance(parent, ast.Compare | ast.Expr | ast.FormattedValue | ast.Subscript)
