"""The static rules, on text and syntax: what a seed must meet, asked in order.

The rules read syntax, never text: a parameter is a parameter, a banned module is one that is
imported. Python's own grammar decides, that of the version the job runs on. Imported by the
process that parses: neither Ray nor pyarrow here.
"""

from __future__ import annotations

import functools as ft
import re
import sys
import warnings
from collections.abc import Callable, Collection, Sequence

from selfalign_ray.seeds.config import QualityConfig
from selfalign_ray.seeds.names import COMPILE_ERRORS
from selfalign_ray.seeds.parsed import BUILTINS, Snippet, gives_value
from selfalign_ray.seeds.syntax import CLASS, Definition

_TEST_FILE = re.compile(r"(^|/)(tests?/|(conftest|test_[^/]*|[^/]*_tests?)\.py$)")
_TEST_NAME = re.compile(r"(?:.*\.)?(tests?($|_)|Test($|[A-Z_]))")
_DOC_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"\s*\S[^\n]*[.!?]['\"`)]*[ \t]*(\n[ \t]*(\n|$)|$)")
_RESULT_WORDS = {"return", "returns", "returned", "returning", "result", "results"}
_RESULT_WORDS |= {"yield", "yields", "yielded"}
_HEAD_LINES = 20
_GENERATED = re.compile(
    r"@generated\b|\b(auto|automatically)[- ]?generated\b"
    r"|\bgenerated (automatically|by|from|with)\b|\bdo not (edit|modify)\b",
    re.IGNORECASE,
)


def glance(definition: Definition, path: str, rules: QualityConfig) -> str | None:
    """A rule that a definition is sure to fail, found in its text alone, or None.

    Most definitions fail one of these, and Python's own syntax tree takes far longer to make.
    """
    if _is_test(definition.name, path, rules):
        return "is_test"
    if definition.lines < rules.min_lines:
        return "too_short"
    if rules.max_lines is not None and definition.lines > rules.max_lines:
        return "too_long"
    if rules.typed and definition.kind != CLASS and "->" not in definition.source:
        return "untyped"
    if rules.min_docstring_words and not definition.docstring:
        return "no_docstring"
    if len(_DOC_WORD.findall(definition.docstring)) < rules.min_docstring_words:
        return "short_docstring"
    if rules.returns_value and "return" not in definition.source:
        return "no_return_value"
    return None


def is_generated(content: str) -> bool:
    """Whether the comments among a file's first lines say that a program wrote it."""
    head = content.split("\n", _HEAD_LINES)[:_HEAD_LINES]
    return any(line.lstrip().startswith("#") and _GENERATED.search(line) for line in head)


def is_foreign(modules: Collection[str], rules: QualityConfig) -> bool:
    """Whether a top-level module is neither Python's nor allowed; "" is a relative import's."""
    if rules.dependencies is None:
        return False
    return any(
        name not in sys.stdlib_module_names and name not in rules.dependencies for name in modules
    )


def fault(seed: str, name: str, path: str, rules: QualityConfig) -> str | None:
    """The first rule that a seed fails, or None."""
    if _is_test(name, path, rules):
        return "is_test"
    try:
        snippet = Snippet(seed, name)
    except COMPILE_ERRORS:
        return "syntax_error"
    return next((reason for reason, fails in _RULES if fails(snippet, rules)), None)


def _too_short(snippet: Snippet, rules: QualityConfig) -> bool:
    return snippet.lines < rules.min_lines


def _too_long(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.max_lines is not None and snippet.lines > rules.max_lines


def _no_parameters(snippet: Snippet, rules: QualityConfig) -> bool:
    return len(snippet.parameters) < rules.min_parameters


def _untyped(snippet: Snippet, rules: QualityConfig) -> bool:
    bare = any(parameter.annotation is None for parameter in snippet.parameters)
    return rules.typed and (bare or any(f.returns is None for f in snippet.functions))


def _no_return_value(snippet: Snippet, rules: QualityConfig) -> bool:
    """No function of the snippet gives its caller a value."""
    return rules.returns_value and not any(map(gives_value, snippet.functions))


def _no_docstring(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.min_docstring_words > 0 and not snippet.docstring.strip()


def _short_docstring(snippet: Snippet, rules: QualityConfig) -> bool:
    return len(_DOC_WORD.findall(snippet.docstring)) < rules.min_docstring_words


def _no_summary_line(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.summary_line and not _SENTENCE.match(snippet.docstring)


def _undescribed(snippet: Snippet, rules: QualityConfig) -> bool:
    """Whether a parameter or the result is not spoken of, in whatever style."""
    if not rules.described:
        return False
    words = set(_DOC_WORD.findall(snippet.docstring))
    if any(parameter.arg not in words for parameter in snippet.parameters):
        return True
    gives = any(map(gives_value, snippet.functions))
    return gives and _RESULT_WORDS.isdisjoint(word.lower() for word in words)


def _banned_word(snippet: Snippet, rules: QualityConfig) -> bool:
    pattern = _any_word(tuple(rules.banned_words or ()))
    return pattern is not None and pattern.search(snippet.code) is not None


@ft.cache
def _any_word(words: tuple[str, ...]) -> re.Pattern[str] | None:
    if not words:
        return None
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def _too_simple(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.min_complexity is not None and snippet.complexity < rules.min_complexity


def _too_complex(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.max_complexity is not None and snippet.complexity > rules.max_complexity


def _banned_import(snippet: Snippet, rules: QualityConfig) -> bool:
    banned = tuple(rules.banned_imports or ())
    return any(_is_or_in(name, banned) for name in snippet.uses)


def _foreign_dependency(snippet: Snippet, rules: QualityConfig) -> bool:
    return is_foreign({name.split(".")[0] for name in snippet.imports}, rules)


def _unresolved_name(snippet: Snippet, rules: QualityConfig) -> bool:
    return rules.self_contained and not snippet.free_names <= BUILTINS


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
    ("no_summary_line", _no_summary_line),
    ("undescribed", _undescribed),
    ("no_return_value", _no_return_value),
    ("banned_word", _banned_word),
    ("too_simple", _too_simple),
    ("too_complex", _too_complex),
    ("foreign_dependency", _foreign_dependency),
    ("banned_import", _banned_import),
    ("unresolved_name", _unresolved_name),
    ("syntax_error", _does_not_compile),
)


def _is_test(name: str, path: str, rules: QualityConfig) -> bool:
    return rules.skip_tests and bool(_TEST_NAME.match(name) or _TEST_FILE.search(path))


def _is_or_in(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
