"""The tests of a program as a list of steps, each run and counted by itself. Pure."""

from __future__ import annotations

import ast
from typing import NamedTuple

from selfalign_ray.sandbox.collect import uncalled, without_runner

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
_GUARD = (ast.Name("__name__", ast.Load()), ast.Constant("__main__"))


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

    Test functions, test classes and fixtures are found as pytest would, so that they count; a
    function with asserts that nothing calls counts too.
    """
    calls = list(uncalled(tree))
    without_runner(tree)
    return [Step(node, _is_test(node)) for node in (*tree.body, *calls)]


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


def main_guard(tree: ast.Module, *, script: bool = False) -> ast.Module | None:
    """Takes what stands under `if __name__ == "__main__"` out of a program.

    Tests take the program as a module: such a part would read input, or leave, and its `else` is
    what counts. A `script` has no use for the `else`.
    """
    rest: list[ast.stmt] = []
    guarded: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.If) and _is_guard(node.test):
            guarded += node.body
            rest += [] if script else node.orelse
        else:
            rest.append(node)
    tree.body = rest
    return ast.Module(guarded, []) if guarded else None


def _is_guard(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = [ast.dump(side) for side in (test.left, *test.comparators)]
    return sorted(sides) == sorted(map(ast.dump, _GUARD))


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
