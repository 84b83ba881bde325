"""Docstrings: whether they are there, keep to PEP 257, and describe what a caller has to know."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
import ruff

from selfalign_ray.validation.definitions import (
    FUNCTIONS,
    Definition,
    definitions,
    is_none,
    last_name,
    own_nodes,
    parameters,
)

_TIMEOUT_SECONDS = 60.0  # of a checker that takes milliseconds


def pep257_violations(codes: Sequence[str]) -> list[int | None]:
    """For each piece of code, what its docstrings have against PEP 257; missing ones do not count.

    One run of ruff's pydocstyle rules for all. None: the code cannot be parsed, or the run failed.
    """
    if not codes:
        return []
    with tempfile.TemporaryDirectory(prefix="selfalign-docstrings-") as folder:
        paths = [Path(folder) / f"{number}.py" for number in range(len(codes))]
        for path, code in zip(paths, codes, strict=True):
            path.write_text(code + "\n", encoding="utf-8", errors="backslashreplace", newline="\n")
        try:
            done = subprocess.run(  # noqa: S603
                [ruff.find_ruff_bin(), *_OPTIONS, "."],
                cwd=folder,
                env={**os.environ, "RAYON_NUM_THREADS": "1"},
                capture_output=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
            return _counted(json.loads(done.stdout), len(codes))
        except (subprocess.SubprocessError, OSError, ValueError):
            return [None] * len(codes)


# No file of the user's, no comment in the code and no earlier run adds to the rules.
_OPTIONS = (
    "check",
    "--isolated",
    "--no-cache",
    "--ignore-noqa",
    "--exit-zero",
    "--quiet",
    "--select=D",
    "--ignore=D1",
    "--config=lint.pydocstyle.convention='pep257'",
    f"--target-version=py3{sys.version_info.minor}",
    "--output-format=json",
)


def _counted(found: Sequence[dict[str, Any]], number: int) -> list[int | None]:
    counts: list[int | None] = [0] * number
    for violation in found:
        place = int(Path(violation["filename"]).stem)
        known = counts[place]
        is_syntax = not str(violation["code"]).startswith("D")
        counts[place] = None if is_syntax or known is None else known + 1
    return counts


def coverage(tree: ast.Module) -> float:
    """The share of public functions, methods and classes with a docstring; 1 where none is."""
    public = [found.node for found in _public(tree)]
    return sum(bool(ast.get_docstring(node)) for node in public) / len(public) if public else 1.0


def completeness(tree: ast.Module) -> float:
    """The share of parameters, results and exceptions that docstrings describe; 1 where none is.

    Of public functions and methods. A result is a value that is returned or yielded, an exception
    one that is raised by name. Google's, NumPy's, Sphinx's and Epydoc's styles are read.
    """
    described = total = 0
    for found in _public(tree):
        if isinstance(found.node, FUNCTIONS):
            wanted = set(_to_describe(found))
            total += len(wanted)
            described += len(wanted & set(_described(ast.get_docstring(found.node) or "")))
    return described / total if total else 1.0


def _public(tree: ast.Module) -> Iterator[Definition]:
    return (d for d in definitions(tree) if not d.local and not d.node.name.startswith("_"))


def _to_describe(found: Definition) -> Iterator[tuple[str, str]]:
    function = found.node
    assert isinstance(function, FUNCTIONS)
    for parameter in parameters(function, method=found.method):
        yield "parameter", parameter.arg
    for node in own_nodes(function):
        match node:
            case ast.Return(value=ast.expr() as value) if not is_none(value):
                yield "result", ""
            case ast.Yield() | ast.YieldFrom():
                yield "result", ""
            case ast.Raise(exc=ast.Call(func=raised)) | ast.Raise(exc=ast.expr() as raised):
                name = last_name(raised)
                if name[:1].isupper():  # else a variable that holds an exception
                    yield "exception", name


def _described(docstring: str) -> Iterator[tuple[str, str]]:
    try:
        parsed = docstring_parser.parse(docstring)
    except docstring_parser.ParseError:
        return
    for parameter in parsed.params:
        if (parameter.description or "").strip():
            yield "parameter", parameter.arg_name.lstrip("*")
    if parsed.many_returns:
        yield "result", ""
    for raised in parsed.raises:
        yield "exception", (raised.type_name or "").rpartition(".")[2]
