"""quality: static rules that a seed must meet, asked in order; the first that fails is the reason.

The rules read syntax, never text: a parameter is a parameter, a banned module is one that is
imported. Python's own grammar decides, that of the version the job runs on.
"""

from __future__ import annotations

import ast
import builtins
import functools as ft
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray.config import RunConfig
from selfalign_ray.seeds.config import QualityConfig
from selfalign_ray.seeds.names import COMPILE_ERRORS, free_names

_BUILTINS = frozenset(dir(builtins))
_TEST_FILE = re.compile(r"(^|/)(tests?/|(conftest|test_[^/]*|[^/]*_tests?)\.py$)")
_TEST_NAME = re.compile(r"tests?($|_)")

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def quality(ds: Dataset | None, cfg: RunConfig) -> Dataset:
    """Marks the seeds that fail a rule of the section `seeds.quality`.

    Args:
        ds: `schemas.SEED` rows.
        cfg: the run's settings.

    Returns:
        The same rows; rows dropped before pass through. Drop reasons: is_test, syntax_error and
        those that QualityConfig names beside its rules.
    """
    assert ds is not None
    return ds.map_batches(
        ft.partial(judged, rules=cfg.seeds.quality),
        batch_size=None,
        batch_format="pyarrow",
        concurrency=cfg.seeds.concurrency,
    )


def judged(seeds: pa.Table, *, rules: QualityConfig) -> pa.Table:
    """A block of seeds with the reasons filled in."""
    columns = (seeds[name].to_pylist() for name in ("drop_reason", "seed", "name", "path"))
    reasons = [
        reason if reason is not None else fault(seed, name, path, rules)
        for reason, seed, name, path in zip(*columns, strict=True)
    ]
    place = seeds.schema.get_field_index("drop_reason")
    return seeds.set_column(place, "drop_reason", pa.array(reasons, pa.string()))


def fault(seed: str, name: str, path: str, rules: QualityConfig) -> str | None:
    """The first rule that a seed fails, or None."""
    if rules.skip_tests and (_TEST_NAME.match(name) or _TEST_FILE.search(path)):
        return "is_test"
    try:
        snippet = Snippet(seed, name)
    except COMPILE_ERRORS:
        return "syntax_error"
    return next((reason for reason, fails in _RULES if fails(snippet, rules)), None)


class Snippet:
    """A seed with its syntax tree.

    Raises:
        SyntaxError: it is no Python, or defines no function of that name.
        ValueError, RecursionError, MemoryError: it cannot be compiled for other reasons.
    """

    def __init__(self, code: str, name: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            self.tree = ast.parse(code)
        last = self.tree.body[-1] if self.tree.body else None
        if not isinstance(last, _Function) or last.name != name:
            raise SyntaxError("no such function")
        self.code = code
        self.function: _Function = last

    @ft.cached_property
    def lines(self) -> int:
        """Lines of the function that are not blank, from its first decorator on."""
        first = min([self.function, *self.function.decorator_list], key=lambda node: node.lineno)
        lines = re.split(r"\r\n?|\n", self.code)[first.lineno - 1 : self.function.end_lineno]
        return sum(1 for line in lines if line.strip())

    @ft.cached_property
    def parameters(self) -> list[ast.arg]:
        """All but a first one that is called self or cls."""
        args = self.function.args
        named = [*args.posonlyargs, *args.args]
        if named and named[0].arg in ("self", "cls"):
            del named[0]
        starred = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
        return [*named, *args.kwonlyargs, *starred]

    @ft.cached_property
    def own(self) -> list[ast.AST]:
        """The nodes of the function's body that run as part of it, not of a nested one."""
        found: list[ast.AST] = []
        open_nodes: list[ast.AST] = list(self.function.body)
        while open_nodes:
            node = open_nodes.pop()
            found.append(node)
            if not isinstance(node, _Scope):
                open_nodes += ast.iter_child_nodes(node)
        return found

    @ft.cached_property
    def docstring(self) -> str:
        return ast.get_docstring(self.function, clean=False) or ""

    @ft.cached_property
    def free_names(self) -> frozenset[str]:
        """Names that the code neither binds nor imports, those in quoted annotations among them."""
        quoted = " ".join(f"({text})," for text in _quoted_annotations(self.function))
        return free_names(self.code) | (free_names(quoted) - self._imported.keys() - {self.name})

    @property
    def name(self) -> str:
        return self.function.name

    @ft.cached_property
    def imports(self) -> list[str]:
        """What is imported anywhere in the code, in full; a relative import begins with a dot."""
        return [full for _, full in self._import_pairs]

    @ft.cached_property
    def uses(self) -> set[str]:
        """The full names that the code imports, and those of builtins and attributes that it uses.

        `from os import path as p; p.exists(x)` uses os.path and os.path.exists.
        """
        found = set(self.imports) | {f"builtins.{name}" for name in self.free_names & _BUILTINS}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and (name := self._full_name(node)):
                found.add(name)
        return found

    @ft.cached_property
    def _imported(self) -> dict[str, str]:
        return dict(self._import_pairs)

    @ft.cached_property
    def _import_pairs(self) -> list[tuple[str, str]]:
        return [pair for node in ast.walk(self.tree) for pair in _import_pairs(node)]

    def _full_name(self, node: ast.Attribute) -> str | None:
        names: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name) or inner.id not in self._imported:
            return None
        return ".".join([self._imported[inner.id], *reversed(names)])


def _too_short(snippet: Snippet, rules: QualityConfig) -> bool:
    return snippet.lines < rules.min_lines


def _too_long(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.max_lines is not None and snippet.lines > rules.max_lines


def _no_parameters(snippet: Snippet, rules: QualityConfig) -> bool:
    return len(snippet.parameters) < rules.min_parameters


def _untyped(snippet: Snippet, rules: QualityConfig) -> bool:
    bare = any(parameter.annotation is None for parameter in snippet.parameters)
    return rules.typed and (bare or snippet.function.returns is None)


def _no_return_value(snippet: Snippet, rules: QualityConfig) -> bool:
    """A generator's `return` gives its caller nothing, and `return None` is no value."""
    if not rules.returns_value:
        return False
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in snippet.own):
        return True
    values = [node.value for node in snippet.own if isinstance(node, ast.Return)]
    return all(
        value is None or (isinstance(value, ast.Constant) and value.value is None)
        for value in values
    )


def _no_docstring(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.min_docstring_words > 0 and not snippet.docstring.strip()


def _short_docstring(snippet: Snippet, rules: QualityConfig) -> bool:
    return len(re.findall(r"\w+", snippet.docstring)) < rules.min_docstring_words


def _banned_import(snippet: Snippet, rules: QualityConfig) -> bool:
    banned = tuple(rules.banned_imports or ())
    return any(_is_or_in(name, banned) for name in snippet.uses)


def _foreign_dependency(snippet: Snippet, rules: QualityConfig) -> bool:
    if rules.dependencies is None:
        return False
    modules = {name.split(".")[0] for name in snippet.imports}  # "" for a relative import
    return not modules <= sys.stdlib_module_names.union(rules.dependencies)


def _unresolved_name(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.self_contained and not snippet.free_names <= _BUILTINS


def _does_not_compile(snippet: Snippet, _rules: QualityConfig) -> bool:
    """What the grammar allows and the compiler does not: two parameters of one name, say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(snippet.tree, "seed", "exec", dont_inherit=True)
    except COMPILE_ERRORS:
        return True
    return False


_RULES: Sequence[tuple[str, Callable[[Snippet, QualityConfig], bool]]] = (
    ("too_short", _too_short),
    ("too_long", _too_long),
    ("no_parameters", _no_parameters),
    ("untyped", _untyped),
    ("no_docstring", _no_docstring),
    ("short_docstring", _short_docstring),
    ("no_return_value", _no_return_value),
    ("foreign_dependency", _foreign_dependency),
    ("banned_import", _banned_import),
    ("unresolved_name", _unresolved_name),
    ("syntax_error", _does_not_compile),
)


def _is_or_in(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _import_pairs(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that an import statement binds, each with what it stands for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname is None:
                yield alias.name.split(".")[0], alias.name
            else:
                yield alias.asname, alias.name
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            yield alias.asname or alias.name, f"{module}.{alias.name}"


def _quoted_annotations(function: _Function) -> Iterator[str]:
    parameters = [node for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    for annotation in [parameter.annotation for parameter in parameters] + [function.returns]:
        if annotation is None:
            continue
        for node in ast.walk(annotation):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
