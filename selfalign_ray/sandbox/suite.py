"""The tests of a program as a list of steps, each run and counted by itself. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

_DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.Delete,
    ast.Global,
    ast.Pass,
)
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_RUNNERS = {"main", "TextTestRunner", "TestSuite", "TestLoader", "defaultTestLoader"}


class Step(NamedTuple):
    """One top-level statement."""

    node: ast.stmt
    test: bool  # counted: anything but a definition, an import, an assignment, a print

    def source(self) -> str:
        """The statement on one line of bounded length."""
        try:
            text = ast.unparse(self.node)
        except (RecursionError, ValueError):  # nested thousands deep; an integer of 5,000 digits
            text = type(self.node).__name__
        first, _, rest = text.partition("\n")
        return first[:200] + ("..." if rest or len(first) > 200 else "")


def steps(tree: ast.Module) -> list[Step]:
    """The statements in order, then the calls that a test runner would make.

    Functions named `test...` that nothing calls, classes named `Test...` and TestCase classes
    that no runner is called for get a call of their own, so that they count as tests.
    """
    nodes: list[ast.stmt] = [*tree.body, *_uncalled(tree)]
    return [Step(node, _is_test(node)) for node in nodes]


def future_flags(tree: ast.Module) -> int:
    """The compiler flags of the `from __future__` imports at the top of the tests."""
    import __future__

    flags = 0
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            for alias in node.names:
                feature = getattr(__future__, alias.name, None)
                flags |= getattr(feature, "compiler_flag", 0)
    return flags


def changes_made(tree: ast.Module) -> set[str]:
    """What the tests themselves may replace: attributes they assign, names in their texts."""
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            out.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            out.add(node.value.rpartition(".")[2])
    return out


def _is_test(node: ast.stmt) -> bool:
    if isinstance(node, _DEFINITIONS):
        return False
    if isinstance(node, ast.Expr):
        value = node.value
        printing = (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Name)
            and value.func.id == "print"
        )
        return not (printing or isinstance(value, ast.Constant))
    return True


def _uncalled(tree: ast.Module) -> Iterator[ast.stmt]:
    if not any(isinstance(n, _FUNCTIONS | ast.ClassDef) for n in tree.body):
        return
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    runner = bool((used | attributes) & _RUNNERS)
    for node in tree.body:
        if isinstance(node, _FUNCTIONS):
            if node.name.startswith("test") and node.name not in used and not _needs(node, 0):
                waits = isinstance(node, ast.AsyncFunctionDef)
                yield from _call(f"__import__('asyncio').run({node.name}())" if waits else
                                 f"{node.name}()")  # fmt: skip
        elif isinstance(node, ast.ClassDef):
            yield from _of_class(node, used, runner=runner)


def _of_class(node: ast.ClassDef, used: set[str], *, runner: bool) -> Iterator[ast.stmt]:
    bases = [ast.unparse(base) for base in node.bases]
    if any(base.endswith("TestCase") for base in bases):
        if not runner:
            yield from _call(f"__import__('unittest').main(defaultTest={node.name!r})")
    elif node.name.startswith("Test") and node.name not in used:
        methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
        names = {method.name for method in methods}
        for method in methods:
            if method.name.startswith("test") and not _needs(method, 1) and "__init__" not in names:
                yield from _call(f"{node.name}().{method.name}()")


def _needs(node: ast.FunctionDef | ast.AsyncFunctionDef, given: int) -> bool:
    """Whether the function cannot be called with `given` arguments; fixtures are not ours."""
    spec = node.args
    positional = len(spec.posonlyargs) + len(spec.args) - len(spec.defaults)
    return positional > given or any(default is None for default in spec.kw_defaults)


def _call(source: str) -> list[ast.stmt]:
    return ast.parse(source).body
