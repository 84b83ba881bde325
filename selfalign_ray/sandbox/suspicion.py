"""Whether a solution could be after its own verdict: a cheap look at its syntax. Pure.

In one process a solution shares every object with its tests. Only code that names nothing but
harmless things is taken at its word; any other is judged in further processes as well. What is
not known to be harmless counts as suspicious, since a list of tricks is never complete: a
harmless program that is named here costs a second run, nothing else.
"""

from __future__ import annotations

import ast
import dis
import re
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

from selfalign_ray.sandbox.comparisons import COMPARISONS, LIARS, WEIGHED, lies
from selfalign_ray.sandbox.reach import (
    BY_TEXT,
    DUNDER,
    DUNDERS,
    HOOKS,
    METACLASSES,
    NAMES,
    PARTS,
    REACHING,
    TOOLS,
    is_deep_risk,
    is_harmless_module,
    is_risky,
    leads_on,
    reaches,
)
from selfalign_ray.sandbox.types_used import unnamed_types

_HEAD = re.compile(r"(?!(f|gi|cr|ag|tb|co)_)[A-Za-z]+_")
# What is known to lead nowhere: to operators that lie, attributes that are set and not read,
# modules whose dangerous parts have words of their own. All other words are for tools that may
# reach the runner, and so tell a control run from a real one.
_POWERLESS = re.compile(
    r"""
    defines\ __[a-z_]+__|\w+\ may\ ignore\ what\ it\ compares|has\ its\ own\ \w+
    |makes\ a\ type|calls\ or\ hands\ on\ a\ type|uses\ \w+\ as\ a\ value
    |(set|del|has)attr|changes\ \.\w+|changes\ sys\.std(in|out|err)
    |changes\ \w*\.__(doc|module|name|qualname|wrapped)__
    |__[ri]?(add|and|floordiv|lshift|matmul|mod|mul|or|pow|rshift|sub|truediv|xor)__
    |__(abs|bool|contains|float|ge|gt|hash|index|int|invert|le|ne|neg|next|pos|reversed|round)__
    |__(bases|defaults|delattr|delitem|func|module|mro|setattr|slots|traceback|weakref|wrapped)__
    |names\ __(?!subclasses|globals|builtins)\w+__|opens\ what\ it\ computes
    |imports\ (ast|gc|getopt|inspect|mimetypes|optparse|quopri|reprlib|tomllib|tracemalloc)
""",
    re.VERBOSE,
)
_STORES = {dis.opmap["STORE_ATTR"], dis.opmap["DELETE_ATTR"]}
_IMPORT, _MATCH_CLASS = dis.opmap["IMPORT_NAME"], dis.opmap["MATCH_CLASS"]
_TRIGGERS = NAMES | BY_TEXT | HOOKS | COMPARISONS | WEIGHED | LIARS | {"open"} | METACLASSES


def may_be_suspicious(code: CodeType) -> bool:
    """Whether the closer look at the syntax is worth its time; never False where that finds any.

    Compiled code lists its names, so this costs 20 microseconds where a walk costs 300.
    """
    waiting = [code]
    while waiting:
        one = waiting.pop()
        operations = one.co_code[::2]
        if _IMPORT in operations or _MATCH_CLASS in operations:
            return True
        names = {*one.co_names, *one.co_varnames, *one.co_cellvars, one.co_name}
        if not names.isdisjoint(_TRIGGERS) or any(map(reaches, names)):
            return True
        if not _STORES.isdisjoint(operations) and any(map(DUNDER.fullmatch, names)):
            return True
        for constant in one.co_consts:
            if isinstance(constant, CodeType):
                waiting.append(constant)
            elif isinstance(constant, str) and DUNDER.search(constant):
                return True
    return False


def suspicions(tree: ast.Module) -> Iterator[str]:
    """What in the code calls for further processes; a word or two each, in no order."""
    bound = set(_modules(tree))
    modules = dict(sorted(bound))
    if len(bound) > len(modules):
        yield "imports two things under one name"
    own = set(_own_attributes(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _of_import(node)
        elif isinstance(node, ast.Attribute):
            yield from _of_attribute(node, modules, own)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)
        elif isinstance(node, ast.MatchClass):
            yield from (name for name in node.kwd_attrs if reaches(name))
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                found = set(DUNDER.findall(node.value)) - DUNDERS
                yield from (f"names {name}" for name in found)
        elif isinstance(node, ast.ClassDef):
            yield from _of_class(node)
        else:
            yield from _of_name(node)
    above = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    yield from _loose(tree, above, modules)
    yield from unnamed_types(tree, above)


def gives_power(suspicion: str) -> bool:
    """Whether a program could know a control run from a real one, and act on it."""
    return not _POWERLESS.fullmatch(suspicion)


def modules_imported(tree: ast.Module) -> Iterator[str]:
    """The top-level modules that import statements anywhere in the code name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def _modules(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, path) of what imports bind: a module, or what may be one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or whole, whole
        elif isinstance(node, ast.ImportFrom):
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def _path(node: ast.expr, modules: dict[str, str]) -> str:
    """The path of `name.name.name` whose first name an import binds; empty for anything else."""
    if isinstance(node, ast.Name):
        return modules.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = _path(node.value, modules)
        return owner and f"{owner}.{node.attr}"
    return ""


def _own_attributes(tree: ast.Module) -> Iterator[str]:
    """Attributes that the code's classes give their objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
                yield node.attr
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                targets = inner.targets if isinstance(inner, ast.Assign) else [
                    getattr(inner, "target", None)]  # fmt: skip
                yield from (t.id for t in targets if isinstance(t, ast.Name))


def _of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    paths = [module] if module or isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    for path in paths:
        if not is_harmless_module(path):
            yield f"imports {path}"
    for alias in node.names:
        if alias.asname and DUNDER.fullmatch(alias.asname):
            yield f"defines {alias.asname}"
        if isinstance(node, ast.ImportFrom):
            hidden = alias.name in BY_TEXT and alias.asname not in {None, alias.name}
            if hidden or alias.name == "*" or is_risky(module, alias.name):
                yield f"imports {module}.{alias.name}"


def _of_attribute(node: ast.Attribute, modules: dict[str, str], own: set[str]) -> Iterator[str]:
    if not isinstance(node.ctx, ast.Load):
        yield from _of_change(node, modules, own)
        return
    owner = _path(node.value, modules)
    mine = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
    of_pandas = owner.startswith("pandas") and node.attr in {"io", "types"}
    if leads_on(node.attr):
        yield node.attr
    elif not owner:
        if node.attr.lstrip("_") in REACHING and not mine:
            yield f"reaches {node.attr}"
        elif modules and node.attr in {"eval", "query"} and "pandas" in modules.values():
            yield f"pandas.{node.attr}"
    elif owner in modules.values() and "." not in owner:
        if is_risky(owner, node.attr) and not of_pandas:
            yield f"{owner}.{node.attr}"
    elif is_deep_risk(node.attr) and not of_pandas:
        yield f"{owner}.{node.attr}"


def _of_change(node: ast.Attribute, modules: dict[str, str], own: set[str]) -> Iterator[str]:
    """An attribute that is assigned or deleted."""
    root: ast.expr = node.value
    while isinstance(root, ast.Attribute):
        root = root.value
    name = root.id if isinstance(root, ast.Name) else ""
    if name in modules or DUNDER.fullmatch(node.attr):
        yield f"changes {name}.{node.attr}"
    elif modules and name not in {"self", "cls"} and node.attr not in own:
        yield f"changes .{node.attr}"


def _of_call(node: ast.Call) -> Iterator[str]:
    """`open(5)`, `getattr(x, name)` and `type(name, bases, members)`."""
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else name
    if name in BY_TEXT:
        given = node.args if name == "attrgetter" else node.args[:1]
        if name in {"getattr", "hasattr"}:
            spread = any(isinstance(a, ast.Starred) for a in node.args[:2])
            given = node.args[:1] if spread else node.args[1:2]
        texts = [_text(a, whole=name in {"attrgetter", "methodcaller"}) for a in given]
        for text in texts:
            if not isinstance(text, str) or any(map(reaches, text.split("."))):
                yield name
    elif name == "open":
        yield from _of_open(node)
    elif name in {"signature", "from_callable"} and any(
        keyword.arg in {None, "eval_str"} for keyword in node.keywords
    ):
        yield "evaluates annotations"
    elif name == "type" and len(node.args) > 1:
        yield "makes a type"


def _text(node: ast.expr, *, whole: bool) -> Any:
    """A constant, or what a name begins with (`visit_`) if none that leads on does."""
    if isinstance(node, ast.Constant):
        return node.value
    first: ast.expr | None = None
    if isinstance(node, ast.JoinedStr) and node.values:
        first = node.values[0]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        first = node.left
    head = first.value if isinstance(first, ast.Constant) else None
    if whole or not isinstance(head, str) or not _HEAD.match(head):
        return None
    return None if any(name.startswith(head) for name in REACHING) else head


def _of_open(node: ast.Call) -> Iterator[str]:
    direct = isinstance(node.func, ast.Name)
    if direct and node.args:
        first = node.args[0]
        text = isinstance(first, ast.JoinedStr) or isinstance(getattr(first, "value", None), str)
        if not text:
            yield "opens what it computes"
    buffered = len(node.args) <= 1 + direct and not any(
        keyword.arg in {None, "buffering", "opener"} for keyword in node.keywords
    )
    if not buffered or any(isinstance(a, ast.Starred) for a in node.args):
        yield "opens without a buffer"


def _of_name(node: ast.AST) -> Iterator[str]:
    """Names of dangerous tools, and definitions of what others call unasked."""
    if isinstance(node, ast.Name):
        bound = not isinstance(node.ctx, ast.Load)
        if node.id in NAMES | TOOLS or (leads_on(node.id) and not bound):
            yield node.id
        elif bound and node.id in HOOKS | COMPARISONS | WEIGHED | LIARS:
            yield f"defines {node.id}"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in HOOKS:
        yield f"defines {node.name}"


def _of_class(node: ast.ClassDef) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef) and lies(inner, node.name):
            yield f"{inner.name} may ignore what it compares"


def _loose(
    tree: ast.Module, above: Mapping[int, ast.AST], modules: dict[str, str]
) -> Iterator[str]:
    """Modules and tools that are handed on under another name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name | ast.Attribute) or not isinstance(node.ctx, ast.Load):
            continue
        parent = above[id(node)]
        called = isinstance(parent, ast.Call) and parent.func is node
        if called or isinstance(parent, ast.Attribute):
            continue
        path = _path(node, modules)
        if (path and "." not in path) or PARTS.fullmatch(path):
            yield f"hands {path} on"
        elif isinstance(node, ast.Name) and node.id == "open":
            yield "open"
        elif (node.id if isinstance(node, ast.Name) else node.attr) in BY_TEXT:
            yield "uses a getter as a value"
