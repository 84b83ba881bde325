"""From a file's text to its snippets: each definition that may be a seed, standing alone.

Imported by the process that parses: neither Ray nor pyarrow here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from selfalign_ray.seeds.config import FunctionsConfig, QualityConfig
from selfalign_ray.seeds.names import free_names
from selfalign_ray.seeds.rules import glance, is_foreign, is_generated
from selfalign_ray.seeds.syntax import CLASS, Definition, Module, parse

_WORD = re.compile(r"[^\W\d]\w*")


class FileSnippets(NamedTuple):
    """What a file gives."""

    rows: list[dict[str, Any]]  # columns of `schemas.SEED`, one row a definition
    intact: bool  # the parser found no error in the file


def snippets(
    content: str, path: str, *, settings: FunctionsConfig, rules: QualityConfig
) -> FileSnippets:
    """The definitions of a file; one that is dropped has no context."""
    module = parse(content, methods=settings.methods, classes=settings.classes)
    with_context = stands_alone(module)
    generated = rules.skip_generated and is_generated(content)
    rows = []
    for definition in module.definitions:
        seed, reason = (
            (definition.source[: settings.max_chars], "generated")
            if generated
            else _seed(definition, path, with_context, settings.max_chars, rules)
        )
        rows.append(
            {
                "definition": definition.kind,
                "name": definition.name,
                "line": definition.line,
                "last_line": definition.last_line,
                "signature": definition.signature[: settings.max_chars],
                "docstring": definition.docstring[: settings.max_chars],
                "seed": seed,
                "drop_reason": reason,
            }
        )
    return FileSnippets(rows, module.intact)


def _seed(
    definition: Definition,
    path: str,
    with_context: Callable[[Definition], tuple[str, set[str]]],
    max_chars: int,
    rules: QualityConfig,
) -> tuple[str | None, str | None]:
    """A definition's seed and its drop_reason."""
    bare = definition.source
    if len(bare) > max_chars:
        return None, "too_long"
    reason = glance(definition, path, rules) if definition.intact else "syntax_error"
    if reason is not None:
        return bare, reason
    whole, modules = with_context(definition)
    if len(whole) > max_chars:
        return bare, "too_long"
    return whole, "foreign_dependency" if is_foreign(modules, rules) else None


def stands_alone(module: Module) -> Callable[[Definition], tuple[str, set[str]]]:
    """For the definitions of one file: each -> its code below its imports and constants.

    With it come the top-level modules that it imports above itself, "" for a relative import.

    Those are the file's, in the file's order; each import is cut to the names used and stands
    once. A constant brings what it uses itself; one that other assignments change brings these.
    Functions and classes are not brought along: code that calls them stays short of a name.
    """
    binders: dict[str, list[int]] = {}
    for place, constant in enumerate(module.constants):
        for name in constant.names:
            binders.setdefault(name, []).append(place)
    imported = {name for statement in module.imports for name, _ in statement.names}
    known = imported | binders.keys()
    names_of: dict[int, frozenset[str]] = {}

    def constant_names(place: int) -> frozenset[str]:
        if place not in names_of:
            names_of[place] = free_names(module.constants[place].source)
        return names_of[place]

    def with_context(definition: Definition) -> tuple[str, set[str]]:
        source = definition.source
        if known.isdisjoint(_WORD.findall(source)):  # finding its free names takes longer
            return source, set()
        quotes = definition.kind == CLASS or not {"'", '"'}.isdisjoint(definition.signature)
        used = set(free_names(source, None if quotes else ()) & known)
        open_names, places = list(used), set[int]()
        while open_names:
            for place in set(binders.get(open_names.pop(), ())) - places:
                places.add(place)
                fresh = constant_names(place) & known - used
                used |= fresh
                open_names += fresh
        return _assembled(source, module, used, sorted(places))

    return with_context


def _assembled(
    source: str, module: Module, used: set[str], places: list[int]
) -> tuple[str, set[str]]:
    lines: dict[str, None] = {}
    modules = set()
    for statement in module.imports:
        names = [text for name, text in statement.names if name in used]
        if names:
            lines[f"{statement.head} {', '.join(dict.fromkeys(names))}"] = None
            froms = [statement.head.split()[1]] if statement.head != "import" else names
            modules |= {re.split(r"[.\s]", text)[0] for text in froms}
    constants = [module.constants[place].source for place in places]
    above = "\n\n".join("\n".join(part) for part in (lines, constants) if part)
    return (f"{above}\n\n\n{source}" if above else source), modules
