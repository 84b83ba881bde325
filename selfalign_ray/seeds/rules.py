"""The static rules, on text and syntax: what a seed must meet, asked in order.

The rules read syntax, never text: a parameter is a parameter, a banned module is one that is
imported. Python's own grammar decides, that of the version the job runs on. Imported by the
process that parses: neither Ray nor pyarrow here.
"""

from __future__ import annotations

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
    if len(_words(definition.docstring)) < rules.min_docstring_words:
        return "short_docstring"
    if rules.returns_value and "return" not in definition.source:
        return "no_return_value"
    return None


def is_generated(content: str) -> bool:
    """Whether the comments among a file's first lines say that a program wrote it."""
    head = (line.lstrip() for line in content.split("\n", _HEAD_LINES)[:_HEAD_LINES])
    return bool(_GENERATED.search("\n".join(line for line in head if line.startswith("#"))))


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


# Each reason with what of a snippet `s` and the rules `r` gives it.
_RULES: Sequence[tuple[str, Callable[[Snippet, QualityConfig], bool]]] = (
    ("too_short", lambda s, r: s.lines < r.min_lines),
    ("too_long", lambda s, r: r.max_lines is not None and s.lines > r.max_lines),
    ("no_parameters", lambda s, r: len(s.parameters) < r.min_parameters),
    ("untyped", lambda s, r: r.typed and not _is_typed(s)),
    ("no_docstring", lambda s, r: r.min_docstring_words > 0 and not s.docstring.strip()),
    ("short_docstring", lambda s, r: len(_words(s.docstring)) < r.min_docstring_words),
    ("no_summary_line", lambda s, r: r.summary_line and not _SENTENCE.match(s.docstring)),
    ("undescribed", lambda s, r: r.described and not _is_described(s)),
    ("no_return_value", lambda s, r: r.returns_value and not _gives_value(s)),
    ("banned_word", lambda s, r: _has_word(s.code, r.banned_words or ())),
    ("too_simple", lambda s, r: r.min_complexity is not None and s.complexity < r.min_complexity),
    ("too_complex", lambda s, r: r.max_complexity is not None and s.complexity > r.max_complexity),
    ("foreign_dependency", lambda s, r: is_foreign({i.split(".")[0] for i in s.imports}, r)),
    ("banned_import", lambda s, r: any(_is_or_in(u, r.banned_imports or ()) for u in s.uses)),
    ("unresolved_name", lambda s, r: r.self_contained and not s.free_names <= BUILTINS),
    ("syntax_error", lambda s, _: not _compiles(s)),
)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _is_typed(snippet: Snippet) -> bool:
    """Whether all parameters and results are."""
    found = [parameter.annotation for parameter in snippet.parameters]
    return None not in [*found, *(function.returns for function in snippet.functions)]


def _is_described(snippet: Snippet) -> bool:
    """Whether the docstring speaks of each parameter and the result, in whatever style."""
    words = set(_words(snippet.docstring))
    if any(parameter.arg not in words for parameter in snippet.parameters):
        return False
    return not _gives_value(snippet) or any(word.lower() in _RESULT_WORDS for word in words)


def _gives_value(snippet: Snippet) -> bool:
    """Whether a function of the snippet gives its caller a value."""
    return any(map(gives_value, snippet.functions))


def _has_word(code: str, words: Sequence[str]) -> bool:
    """Whether one of the words stands in the code by itself, in whatever case."""
    either = "|".join(map(re.escape, words))
    return bool(words) and bool(re.search(rf"(?<!\w)({either})(?!\w)", code, re.IGNORECASE))


def _compiles(snippet: Snippet) -> bool:
    """Not so what the grammar allows and the compiler does not: two parameters of one name, say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(snippet.tree, "seed", "exec", dont_inherit=True)
    except COMPILE_ERRORS:
        return False
    return True


def _is_test(name: str, path: str, rules: QualityConfig) -> bool:
    return rules.skip_tests and bool(_TEST_NAME.match(name) or _TEST_FILE.search(path))


def _is_or_in(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
