"""The calls that a test runner would make for tests that nothing calls. Pure.

Enough of pytest's rules that a file written for it is judged without it: test functions, test
classes, `parametrize`, fixtures of the file itself, and its marks for skipping.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
DEFINITIONS = FUNCTIONS | ast.ClassDef
_RUNNERS = {"unittest.main", "unittest.TextTestRunner"}
_SKIPPING = {"skip", "skipif", "xfail"}
_GIVEN = {
    "tmp_path": "__import__('pathlib').Path(__import__('tempfile').mkdtemp())",
    "monkeypatch": "__import__('pytest').MonkeyPatch()",
}


def uncalled(tree: ast.Module) -> Iterator[ast.stmt]:
    """Calls of what looks like a test and is named nowhere else."""
    if not any(isinstance(n, DEFINITIONS) for n in tree.body):
        return
    idle = list(_idle_calls(tree))
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n not in idle]
    runner = _runs_unittest(tree, set(names))
    fixtures = {n.name: n for n in tree.body if isinstance(n, FUNCTIONS) and _marks(n, "fixture")}
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and node.name not in names and node.name not in fixtures:
            is_test = node.name.startswith("test") or any(n.id == node.name for n in idle)
            if not (is_test or node.decorator_list or _arguments(node) or _yields(node)):
                is_test = _asserts(node)
            if is_test:
                yield from _of_function(node, node.name, 0, fixtures)
        elif isinstance(node, ast.ClassDef):
            yield from _of_class(node, set(names), fixtures, runner=runner)


def _idle_calls(tree: ast.Module) -> Iterator[ast.Name]:
    """What statements call that only makes a coroutine or a generator of it, and runs nothing."""
    idle = {
        node.name
        for node in tree.body
        if isinstance(node, FUNCTIONS) and (isinstance(node, ast.AsyncFunctionDef) or _yields(node))
    }
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = node.value.func
            if isinstance(called, ast.Name) and called.id in idle:
                yield called


def asserts(tree: ast.Module) -> bool:
    """Whether tests assert anything, be it by a method of a test case."""
    return any(
        isinstance(n, ast.Assert) or (isinstance(n, ast.Attribute) and n.attr.startswith("assert"))
        for n in ast.walk(tree)
    )


def without_runner(tree: ast.Module) -> None:
    """Takes calls of `pytest.main` out, alone or under a main guard, and fixtures' decorators.

    The calls are made one by one instead, and a fixture called as the function that it is.
    """
    tree.body = [node for node in tree.body if not _starts_pytest(node)]
    for node in tree.body:
        if isinstance(node, FUNCTIONS) and _marks(node, "fixture"):
            node.decorator_list = [d for d in node.decorator_list if _mark(d) != "fixture"]


def _runs_unittest(tree: ast.Module, names: set[str]) -> bool:
    """Whether unittest's runner is called: `main` of it, or a text runner's `run`.

    A function or class that nothing names runs nothing.
    """
    bound = {"unittest": "unittest"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bound.update({a.asname or a.name: a.name for a in node.names})
        elif isinstance(node, ast.ImportFrom):
            bound.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, DEFINITIONS) and node.name not in names:
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            if f"{bound.get(first, first)}.{rest}".rstrip(".") in _RUNNERS:
                return True
    return False


def _starts_pytest(node: ast.stmt) -> bool:
    if isinstance(node, ast.If) and not node.orelse:
        starts = [_starts_pytest(n) for n in node.body if not isinstance(n, ast.Import)]
        return bool(starts) and all(starts)
    return isinstance(node, ast.Expr) and "pytest.main(" in ast.unparse(node)


def _of_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    target: str,
    given: int,
    fixtures: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef],
) -> Iterator[ast.stmt]:
    """Calls of one test, one for each of its cases; a step that fails where they run nothing."""
    if any(_mark(d) in _SKIPPING for d in node.decorator_list):
        return
    if _yields(node):
        yield from _parsed(f"raise TypeError('{node.name} yields: a call of it runs nothing')")
        return
    loops, known = [], {}
    for number, decorator in enumerate(node.decorator_list):
        if _mark(decorator) == "parametrize" and isinstance(decorator, ast.Call):
            names, values, in_rows = _parameters(decorator)
            case = f"case_{number}"
            if values:
                loops.append((case, f"[*({values})] or {{}}['no case']"))
            of_param = f"{case}.values if type({case}).__name__ == 'ParameterSet' else "
            row = f"({of_param}{case})" if in_rows else f"({of_param}[{case}])"
            known.update({name: f"{row}[{index}]" for index, name in enumerate(names)})
    wanted = [name for name in _arguments(node)[given:] if name in known or name in fixtures
              or name in _GIVEN]  # fmt: skip
    made: set[str] = set()
    named = ", ".join(f"{n}={known.get(n) or _fixture(n, fixtures, made)}" for n in wanted)
    source = _awaited(node, f"{target}({named})")
    for case, values in reversed(loops):
        source = f"for {case} in {values}:\n" + "\n".join(
            f"    {line}" for line in source.split("\n")
        )
    yield from _parsed(source)


def _parameters(decorator: ast.Call) -> tuple[list[str], str, bool]:
    """Names, the expression of the cases, and whether a case is a row of values.

    Empty where they cannot be read: the test is called without, and fails for want of them.
    """
    given: dict[str | None, ast.expr] = {k.arg: k.value for k in decorator.keywords}
    given.update(zip(("argnames", "argvalues"), decorator.args, strict=False))
    if not given.keys() >= {"argnames", "argvalues"} or any(
        isinstance(argument, ast.Starred) for argument in decorator.args
    ):
        return [], "", True
    values = ast.unparse(given["argvalues"])
    try:
        names = ast.literal_eval(given["argnames"])
    except ValueError:
        return [], values, True
    if isinstance(names, str):
        split = [name.strip() for name in names.split(",")]
        return split, values, len(split) > 1
    return [str(name) for name in names], values, True


def _fixture(
    name: str, fixtures: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef], made: set[str]
) -> str:
    """The expression that makes it, or names it where the call of the same test has made it.

    One that yields is kept besides, or it would be taken down before the test.
    """
    if name in made:
        return f"made_{name}"
    made.add(name)
    value, node = _GIVEN.get(name, "None"), fixtures.get(name)
    if node:
        named = ", ".join(f"{n}={_fixture(n, fixtures, made)}" for n in _arguments(node))
        value = f"{name}({named})"
        if _yields(node):
            value = f"next(kept_{name} := {value})"
    return f"(made_{name} := {value})"


def _of_class(
    node: ast.ClassDef,
    names: set[str],
    fixtures: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef],
    *,
    runner: bool,
) -> Iterator[ast.stmt]:
    if any(ast.unparse(base).endswith("TestCase") for base in node.bases):
        if not runner:
            yield from _parsed(f"__import__('unittest').main(defaultTest={node.name!r})")
        return
    methods = [n for n in node.body if isinstance(n, FUNCTIONS)]
    defined = {method.name for method in methods}
    if not node.name.startswith("Test") or node.name in names or "__init__" in defined:
        return
    for method in methods:
        if method.name.startswith("test"):
            calls = list(_of_function(method, f"{node.name}().{method.name}", 1, fixtures))
            if "setup_method" in defined and calls:
                fixed = next(m for m in methods if m.name == "setup_method")
                given = "None" if len(_arguments(fixed)) > 1 else ""
                made = f"case = {node.name}()\ncase.setup_method({given})\n"
                made += "\n".join(ast.unparse(c) for c in calls).replace(f"{node.name}().", "case.")
                indented = "\n".join(f"    {line}" for line in made.split("\n"))
                calls = list(_parsed(f"if {method.name!r}:\n{indented}"))
            yield from calls


def _mark(decorator: ast.expr) -> str:
    """`fixture` of `@pytest.fixture(...)`, `skip` of `@pytest.mark.skip`."""
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef, mark: str) -> bool:
    return any(_mark(decorator) == mark for decorator in node.decorator_list)


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of the arguments without a default."""
    spec = node.args
    positional = [a.arg for a in (*spec.posonlyargs, *spec.args)]
    needed = positional[: len(positional) - len(spec.defaults)]
    pairs = zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    return needed + [a.arg for a, default in pairs if default is None]


def _yields(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it makes a generator; what functions within it yield is their own."""
    waiting: list[ast.AST] = [*node.body]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(inner, DEFINITIONS | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(inner))
    return False


def _asserts(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Assert) for n in ast.walk(node))


def _awaited(node: ast.FunctionDef | ast.AsyncFunctionDef, call: str) -> str:
    waits = isinstance(node, ast.AsyncFunctionDef)
    return f"__import__('asyncio').run({call})" if waits else call


def _parsed(source: str) -> list[ast.stmt]:
    return ast.parse(source).body
