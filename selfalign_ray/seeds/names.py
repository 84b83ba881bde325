"""Which names a piece of code takes from outside."""

from __future__ import annotations

import symtable
import warnings

# What compiling arbitrary text raises: SyntaxError; ValueError for NUL and lone surrogates;
# RecursionError and MemoryError for deep nesting.
COMPILE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError)


def free_names(source: str) -> frozenset[str]:
    """The names that `source` uses and does not bind at its own top level, builtins included.

    Empty where the source does not compile.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            top = symtable.symtable(source, "seed", "exec")
    except COMPILE_ERRORS:
        return frozenset()
    used: set[str] = set()
    scopes = list(top.get_children())
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        used.update(symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global())
    bound = set()
    for symbol in top.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            bound.add(symbol.get_name())
        elif symbol.is_referenced():
            used.add(symbol.get_name())
    return frozenset(used - bound)
