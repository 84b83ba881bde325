"""functions: the top-level functions of each file, with the imports that they use."""

from __future__ import annotations

import functools as ft
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import tree_sitter_python
from ray.data import Dataset
from tree_sitter import Language, Node, Parser

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import content_id
from selfalign_ray.seeds.names import free_names

# The parser's time grows with the square of a run of lines that hold a continuation alone: a
# file of 200 kB takes it minutes, within one call that nothing can end.
_CONTINUATION = "\\\n"
_MAX_CONTINUATIONS = 100
_CONTINUATIONS = re.compile(rf"(?:\\\n[ \t\f]*){{{_MAX_CONTINUATIONS}}}")
_WORD = re.compile(r"[^\W\d]\w*")


class Import(NamedTuple):
    """One import statement of a file's top level."""

    head: str  # "import" or "from ... import"
    names: tuple[tuple[str, str], ...]  # what a name is bound as, and how the statement says it


class Function(NamedTuple):
    """One top-level function."""

    name: str
    line: int  # of its first decorator or its `def`, from 1
    source: str  # from there to its end, without trailing spaces
    intact: bool  # the parser found no error in it


class Module(NamedTuple):
    """What the parser finds in a file."""

    imports: list[Import]
    functions: list[Function]
    intact: bool


def functions(ds: Dataset | None, cfg: RunConfig) -> Dataset:
    """One row for each function at the top level of a file.

    Functions inside classes, functions and conditions are no seeds. A function whose file has a
    syntax error elsewhere is one.

    Args:
        ds: `schemas.FILE` rows.
        cfg: the run's settings.

    Returns:
        `schemas.SEED` rows: each function of a file in turn, or one row for a file that has none
        or was dropped before. Drop reasons: no_functions; parse_failed, no function and a syntax
        error; syntax_error, in the function; too_long, by `functions.max_chars`.
    """
    assert ds is not None
    return ds.map_batches(
        ft.partial(extract, max_chars=cfg.seeds.functions.max_chars),
        batch_size=None,
        batch_format="pyarrow",
        concurrency=cfg.seeds.concurrency,
    )


def extract(files: pa.Table, *, max_chars: int) -> pa.Table:
    """The functions of a block of files."""
    rows = [row for file in files.to_pylist() for row in _rows(file, max_chars)]
    return pa.Table.from_pylist(rows, schema=schemas.SEED)


def parse(content: str) -> Module:
    """The imports and functions at the top level of a file."""
    many = content.count(_CONTINUATION) >= _MAX_CONTINUATIONS  # counting is the quicker
    if many and _CONTINUATIONS.search(content):
        return Module([], [], intact=False)
    root = _parser().parse(content.encode("utf-8", "replace")).root_node
    imports: list[Import] = []
    found: list[Function] = []
    for node in root.children:
        if node.type in ("import_statement", "import_from_statement"):
            imports += _imports(node)
        elif node.type == "if_statement":
            imports += _typing_imports(node)
        elif function := _function(node):
            found.append(function)
    return Module(imports, found, intact=not root.has_error)


def with_imports(source: str, imports: list[Import]) -> str:
    """A function's code below the imports of its file that it uses, in the file's order.

    Each statement is cut to the names used and stands once.
    """
    used = frozenset(_WORD.findall(source)) & {name for i in imports for name, _ in i.names}
    if used:
        used &= free_names(source)
    lines: dict[str, None] = {}
    for statement in imports:
        names = [text for name, text in statement.names if name in used]
        if names:
            lines[f"{statement.head} {', '.join(dict.fromkeys(names))}"] = None
    return "\n".join([*lines, "", "", source]) if lines else source


@ft.cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_python.language()))


def _rows(file: dict[str, Any], max_chars: int) -> Iterator[dict[str, Any]]:
    content = file.pop("content")
    if file["drop_reason"] is not None:
        yield file
        return
    module = parse(content)
    if not module.functions:
        yield {**file, "drop_reason": "no_functions" if module.intact else "parse_failed"}
    origin = [file[key] for key in ("source", "repository", "revision", "path", "file_id")]
    for index, function in enumerate(module.functions):
        row = {
            **file,
            "row_id": content_id(*origin, str(index)),
            "function_index": index,
            "name": function.name,
            "line": function.line,
        }
        if len(function.source) > max_chars:
            yield {**row, "drop_reason": "too_long"}
            continue
        seed = with_imports(function.source, module.imports) if function.intact else function.source
        reason = None if function.intact else "syntax_error"
        yield {**row, "seed": seed, "seed_id": content_id(seed), "drop_reason": reason}


def _function(node: Node) -> Function | None:
    inner = node.child_by_field_name("definition") if node.type == "decorated_definition" else node
    if inner is None or inner.type != "function_definition":
        return None
    name = inner.child_by_field_name("name")
    source = "\n".join(line.rstrip() for line in _text(node).split("\n")).strip("\n")
    return Function(
        name=_text(name) if name else "",
        line=node.start_point.row + 1,
        source=source,
        intact=not node.has_error,
    )


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


def _text(node: Node) -> str:
    text = node.text
    return text.decode("utf-8", "replace") if text is not None else ""
