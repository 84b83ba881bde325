"""Whether a solution could be after its own verdict: a cheap look at its syntax. Pure.

In one process a solution shares every object with its tests. Code that names what such a fraud
needs (frames, the garbage collector, descriptors, other modules' attributes, comparisons that
ignore what they compare) is passed only once the tests have passed in another process too.
A harmless program that is named here costs a second run, nothing else.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from types import CodeType

_MODULES = {
    "__main__", "_ctypes", "_posixsubprocess", "_thread", "_testcapi", "atexit", "builtins",
    "code", "codeop", "ctypes", "dis", "faulthandler", "fcntl", "gc", "imp", "importlib",
    "inspect", "marshal", "mmap", "multiprocessing", "pickle", "pkgutil", "posix", "pty",
    "resource", "runpy", "select", "selectors", "signal", "socket", "subprocess", "sysconfig",
    "trace", "traceback", "tracemalloc", "unittest", "zipimport",
}  # fmt: skip
_NAMES = {
    "__builtins__", "__import__", "__loader__", "__spec__", "compile", "delattr", "eval", "exec",
    "globals", "locals", "setattr", "vars",
}  # fmt: skip
_ATTRIBUTES = {
    "_current_frames", "_exit", "_getframe", "_getframemodulename", "abort", "ag_frame",
    "addaudithook", "call_tracing", "closerange", "cr_frame", "dup", "dup2", "excepthook",
    "f_back", "f_builtins", "f_globals", "f_locals", "fdopen", "gi_frame", "kill", "killpg",
    "meta_path", "modules", "path_hooks", "pipe", "pwrite", "pread", "read_fd", "sendfile",
    "setprofile", "settrace", "tb_frame", "tb_next", "unraisablehook", "writev",
    "setswitchinterval", "register_at_fork",
    "__base__", "__bases__", "__builtins__", "__closure__", "__dict__", "__code__", "__defaults__",
    "__globals__", "__import__", "__loader__", "__mro__", "__self__", "__subclasses__",
    "__traceback__", "__wrapped__", "__func__",
}  # fmt: skip
_OF_OS = {"read", "write", "open", "close", "listdir", "scandir"}  # descriptors
_COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__"}
_CALLS = {"getattr", "open", "type"}
_CATCH_ALL = {"__getattribute__", "__instancecheck__", "__subclasscheck__", "__class__"}
_ALL = _MODULES | _NAMES | _ATTRIBUTES | _OF_OS | _COMPARISONS | _CATCH_ALL | _CALLS
_STORES = {dis.opmap["STORE_ATTR"], dis.opmap["DELETE_ATTR"]}
_IMPORTS = dis.opmap["IMPORT_NAME"]


def may_be_suspicious(code: CodeType) -> bool:
    """Whether the closer look at the syntax is worth its time; never False where that finds any.

    Compiled code lists its names, so this costs 20 microseconds where a walk costs 300.
    """
    names: set[str] = set()
    stores = False
    waiting = [code]
    while waiting:
        one = waiting.pop()
        names.update(one.co_names, (one.co_name,))
        stores = stores or not _STORES.isdisjoint(one.co_code[::2])
        waiting.extend(constant for constant in one.co_consts if isinstance(constant, CodeType))
    if stores and _IMPORTS in code.co_code[::2]:
        return True
    return not names.isdisjoint(_ALL) or any("." in name for name in names)


def suspicions(tree: ast.Module) -> Iterator[str]:
    """What in the code calls for a second process; a word or two each, in no order."""
    imported = set(_imported(tree))
    for node in ast.walk(tree):
        yield from _of_node(node, imported)


def modules_imported(tree: ast.Module) -> Iterator[str]:
    """The top-level modules that import statements anywhere in the code name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def _imported(tree: ast.Module) -> Iterator[str]:
    """The names that imports bind."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]


def _of_node(node: ast.AST, imported: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _of_import(node)
    elif isinstance(node, ast.Name):
        if node.id in _NAMES:
            yield node.id
    elif isinstance(node, ast.Attribute):
        yield from _of_attribute(node, imported)
    elif isinstance(node, ast.FunctionDef):
        if node.name in _CATCH_ALL:
            yield f"defines {node.name}"
        elif node.name in _COMPARISONS and not _reads_all_arguments(node):
            yield f"{node.name} ignores what it compares"
    elif isinstance(node, ast.Assign) and not isinstance(node.value, ast.Name):
        targets = {t.id for t in node.targets if isinstance(t, ast.Name)}
        yield from (f"{name} ignores what it compares" for name in targets & _COMPARISONS)
    elif isinstance(node, ast.Call):
        yield from _of_call(node)


def _of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    of_module = isinstance(node, ast.ImportFrom)
    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    modules += [] if of_module else [alias.name for alias in node.names]
    yield from (f"imports {m}" for m in modules if m.partition(".")[0] in _MODULES)
    if of_module:
        for alias in node.names:
            low_level = modules[0] in {"os", "sys"} and alias.name in _OF_OS | _ATTRIBUTES
            if low_level or alias.name == "*" or alias.name in _MODULES:
                yield f"imports {modules[0]}.{alias.name}"


def _of_attribute(node: ast.Attribute, imported: set[str]) -> Iterator[str]:
    owner = node.value.id if isinstance(node.value, ast.Name) else ""
    if node.attr in _ATTRIBUTES or (owner in {"os", "posix"} and node.attr in _OF_OS):
        yield node.attr
    elif isinstance(node.ctx, ast.Store | ast.Del):
        root: ast.expr = node.value
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name) and root.id in imported:
            yield f"changes {root.id}.{node.attr}"


def _of_call(node: ast.Call) -> Iterator[str]:
    """`open(5)`, `getattr(x, name)` and `type(name, bases, members)`."""
    if not isinstance(node.func, ast.Name):
        return
    literal = [isinstance(argument, ast.Constant) for argument in node.args]
    if node.func.id == "getattr" and len(literal) > 1:
        value = node.args[1].value if isinstance(node.args[1], ast.Constant) else None
        if not isinstance(value, str) or value in _ATTRIBUTES | _OF_OS:
            yield "getattr"
    elif node.func.id == "open" and node.args:
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, int):
            yield "open of a descriptor"
    elif node.func.id == "type" and len(node.args) > 1:
        yield "makes a type"


def _reads_all_arguments(node: ast.FunctionDef) -> bool:
    wanted = {argument.arg for argument in node.args.args[1:]}
    read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    returns_constant = all(
        isinstance(n.value, ast.Constant) and n.value.value is True
        for n in ast.walk(node)
        if isinstance(n, ast.Return)
    )
    return bool(wanted) and wanted <= read and not returns_constant
