"""What an instruction asks for by name, and what of it the code lacks. By text and by syntax.

Prose can ask for things in any words, so the reader takes what is certain and leaves the rest: a
name where it stands as one (in backticks or quotes, after "named", with parentheses), a parameter
where it is called one or stands in a signature, the type of a result next to "returns", and means
that are forbidden by name. What is not found is no fault of the code.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from selfalign_ray.validation.definitions import (
    FUNCTIONS,
    Function,
    definitions,
    imports,
    is_stored,
    last_name,
    parameters,
    parse,
)


class Asked(NamedTuple):
    """One thing that an instruction asks for."""

    kind: str  # function, class, parameter, returns or without
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


_NAME = r"[A-Za-z_]\w*"
_QUOTED = rf"[`'\"](?P<quoted>{_NAME})(?P<call>\([^`'\"\n]*\))?[`'\"]"
_CALLED = rf"(?P<plain>{_NAME})(?P<args>\([^()\n]*\))"
_SNAKE = r"(?P<snake>[a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b(?!\()"
_CAMEL = r"(?P<camel>[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+)\b(?!\()"
_LISTED = rf"[`'\"]{_NAME}[`'\"](?:\s*(?:,\s*and|,|and)\s*[`'\"]{_NAME}[`'\"])*"
_AFTER_CALLED = r"(?:with|on|by|from|in|for|when|once|twice|after|before|to|at|and|as|if|without)\b"
_FUNCTION = r"(?:function|method|generator|decorator|coroutine|subroutine|procedure|routine)"
_NAMED = r"(?:,?\s+(?:that\s+is\s+|which\s+is\s+)?(?:named|called)|\s+with\s+the\s+name)?"
_FUNCTIONS_ASKED = re.compile(
    rf"\b(?P<kind>{_FUNCTION}|class){_NAMED}\s*:?\s+(?:{_QUOTED}|{_CALLED}|{_SNAKE}|{_CAMEL})"
)
_BARE = re.compile(
    rf"\b(?P<kind>{_FUNCTION}|class)(?:,?\s+(?:that\s+is\s+|which\s+is\s+)?(?:named|called)"
    rf"|\s+with\s+the\s+name)\s+(?!{_AFTER_CALLED})(?P<plain>{_NAME})\b(?!\()"
)
_CLASS = re.compile(r"\b(?P<kind>class)\s+(?P<plain>[A-Z]\w*)\b(?!\()")
_IT = re.compile(
    rf"\b(?P<kind>it)\s+(?:should|must|shall|has\s+to)\s+be\s+(?:named|called)\s+"
    rf"(?:{_QUOTED}|{_CALLED}|{_SNAKE}|{_CAMEL})",
    re.I,
)
_SEVERAL = re.compile(
    rf"\b(?P<kind>functions|methods|classes)(?:\s+(?:named|called))?\s*:?\s+(?P<names>{_LISTED})"
)
_WRITTEN = re.compile(
    rf"\b(?:write|implement|create|define|complete|provide)\s+(?:the\s+|a\s+)?{_QUOTED}", re.I
)
_PARAMETERS = re.compile(
    rf"\b(?:parameters?|arguments?)(?:\s+(?:named|called))?\s*:?\s+(?P<names>{_LISTED})"
)
_PARAMETER = re.compile(rf"[`'\"](?P<name>{_NAME})[`'\"]\s+(?:parameter|argument)\b")
_TAKES = re.compile(
    r"\b(?:takes?|accepts?|receives?|given)\b(?P<said>[^.;\n]*?)(?=\band\s+returns?\b|[.;\n]|$)",
    re.I,
)
_RETURNS = re.compile(
    r"\breturns?\s+(?:an?|the)\s+(?:new\s+|sorted\s+|single\s+|resulting\s+)?"
    r"(?P<type>[A-Za-z]+)\b",
    re.I,
)
_FORBIDDEN = re.compile(
    r"\b(?:without\s+(?:the\s+use\s+of|using|importing|calling)"
    r"|(?:do\s+not|don't|must\s+not|should\s+not|may\s+not|cannot|can't|never)\s+(?:use|import|call)"
    r"|avoid(?:ing)?\s+(?:the\s+use\s+of\s+|using\s+|importing\s+|calling\s+)?)"
    r"\s*(?P<means>(?:[^.;:\n]|\.(?=\w)){1,120})",
    re.I,
)
# Where a list of forbidden means ends.
_END = re.compile(r",?\s+\b(?:but|so|because|since|as|to|in\s+order|instead|when|if|while)\b", re.I)
_TYPES = {
    "list": {"list", "List", "Sequence", "Iterable", "Collection", "MutableSequence"},
    "dictionary": {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "Counter",
                   "OrderedDict", "TypedDict"},
    "dict": {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "Counter",
             "OrderedDict", "TypedDict"},
    "string": {"str", "AnyStr", "LiteralString"},
    "integer": {"int"},
    "int": {"int"},
    "float": {"float"},
    "boolean": {"bool", "TypeGuard"},
    "bool": {"bool", "TypeGuard"},
    "tuple": {"tuple", "Tuple", "NamedTuple"},
    "set": {"set", "Set", "frozenset", "FrozenSet", "AbstractSet", "MutableSet"},
    "generator": {"Generator", "Iterator", "Iterable", "AsyncGenerator", "AsyncIterator"},
    "iterator": {"Generator", "Iterator", "Iterable", "AsyncGenerator", "AsyncIterator"},
}  # fmt: skip
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def asked_by(instruction: str) -> list[Asked]:
    """What an instruction asks for by name, each thing once, in the order of the text by kind."""
    found: dict[Asked, None] = {}
    for asked in (
        *_definitions_asked(instruction),
        *_parameters_asked(instruction),
        *_types_asked(instruction),
        *_means_forbidden(instruction),
    ):
        found.setdefault(asked)
    return list(found)


def unmet_by(tree: ast.Module, asked: list[Asked]) -> list[Asked]:
    """What of it the code does not have, or has although it is forbidden."""
    found = [d.node for d in definitions(tree)]
    functions = {node.name: node for node in found if isinstance(node, FUNCTIONS)}
    classes = {node.name for node in found if isinstance(node, ast.ClassDef)}
    names = {a.name for a in asked if a.kind == "function"} & functions.keys()
    named = [functions[name] for name in sorted(names)]
    theirs = {p.arg for f in named or functions.values() for p in parameters(f, method=False)}
    assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and is_stored(n)}
    met: dict[str, Callable[[str], bool]] = {
        "function": lambda name: name in functions or name in assigned or name in classes,
        "class": lambda name: name in classes or name in assigned,
        "parameter": lambda name: name in theirs,
        "returns": lambda name: _may_return(named, name),
        "without": lambda name: not uses(tree, name),
    }
    return [a for a in asked if not met[a.kind](a.name)]


def _definitions_asked(text: str) -> Iterator[Asked]:
    # Prose about what shall not be used names functions too.
    kept = _FORBIDDEN.sub(lambda match: " " * len(match.group()), text)
    for match in _SEVERAL.finditer(kept):
        kind = "class" if match["kind"] == "classes" else "function"
        yield from (Asked(kind, name) for name in _quoted(match["names"]))
    for pattern in (_FUNCTIONS_ASKED, _BARE, _CLASS, _IT, _WRITTEN):
        for match in pattern.finditer(kept):
            parts = match.groupdict()
            name = next(p for p in map(parts.get, ("quoted", "plain", "snake", "camel")) if p)
            signature = parts.get("call") or parts.get("args") or ""
            is_class = parts.get("kind") == "class" or (
                pattern in (_IT, _WRITTEN) and name[0].isupper() and not signature
            )
            yield Asked("class" if is_class else "function", name)
            if not is_class:
                yield from (Asked("parameter", p) for p in _of_signature(signature))


def _of_signature(signature: str) -> Iterator[str]:
    """The names in `(a, b: int = 0, *rest)`; of a call with values, none."""
    tree = parse(f"def f{signature}: pass") if signature else None
    if tree is not None and len(tree.body) == 1 and isinstance(tree.body[0], ast.FunctionDef):
        for parameter in parameters(tree.body[0], method=False):
            if parameter.arg not in ("self", "cls"):
                yield parameter.arg


def _quoted(listed: str) -> list[str]:
    return re.findall(rf"[`'\"]({_NAME})[`'\"]", listed)


def _parameters_asked(text: str) -> Iterator[Asked]:
    for match in _PARAMETERS.finditer(text):
        yield from (Asked("parameter", name) for name in _quoted(match["names"]))
    for match in _PARAMETER.finditer(text):
        yield Asked("parameter", match["name"])
    for match in _TAKES.finditer(text):
        for name in re.findall(rf"`({_NAME})`", match["said"]):
            if name not in ("None", "True", "False", *_TYPES, "str"):
                yield Asked("parameter", name)


def _types_asked(text: str) -> Iterator[Asked]:
    names = {match["type"].lower() for match in _RETURNS.finditer(text)} & _TYPES.keys()
    if len(names) == 1:  # of several, one may be for a special case
        yield Asked("returns", names.pop())


def _means_forbidden(text: str) -> Iterator[Asked]:
    for match in _FORBIDDEN.finditer(text):
        means = _END.split(match["means"])[0]
        for quoted in re.findall(rf"[`'\"]({_NAME}(?:\.{_NAME})*)(?:\(\))?[`'\"]", means):
            yield Asked("without", quoted.rpartition(".")[2])
        yield from (Asked("without", word) for word, words in _WORDS.items() if words.search(means))
        for module in re.findall(rf"\bthe\s+({_NAME})\s+(?:module|library|package)\b", means):
            yield Asked("without", module)


_WORDS = {
    "recursion": re.compile(r"\brecurs(?:ion|ive)", re.I),
    "loops": re.compile(r"\b(?:any\s+|explicit\s+)?(?<!event )loops?\b", re.I),
    "comprehensions": re.compile(r"\bcomprehensions?\b", re.I),
    "lambdas": re.compile(r"\blambdas?\b", re.I),
    "other libraries": re.compile(
        r"\b(?:external|third[- ]party|additional)\s+(?:librar|packag|modul|dependenc)", re.I
    ),
    "imports": re.compile(r"\bany\s+(?:imports|modules|libraries|packages)\b", re.I),
    "regular expressions": re.compile(r"\bregular\s+expressions?\b|\bregex(?:es)?\b", re.I),
    "global variables": re.compile(r"\bglobal(?:s|\s+variables?|\s+state)\b", re.I),
}


def uses(tree: ast.Module, means: str) -> bool:
    """Whether the code uses something forbidden: a word of `_WORDS`, or a name."""
    nodes = list(ast.walk(tree))
    modules = set(imports(tree))
    match means:
        case "recursion":
            return any(_calls_itself(node) for node in nodes if isinstance(node, FUNCTIONS))
        case "loops":
            return any(isinstance(node, _LOOPS) for node in nodes)
        case "comprehensions":
            return any(isinstance(node, _COMPREHENSIONS) for node in nodes)
        case "lambdas":
            return any(isinstance(node, ast.Lambda) for node in nodes)
        case "other libraries":
            return not modules <= sys.stdlib_module_names
        case "imports":
            return bool(modules)
        case "regular expressions":
            return bool(modules & {"re", "regex"})
        case "global variables":
            return any(isinstance(node, ast.Global) for node in nodes)
    imported = {
        alias.name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    own = {node.name for node in nodes if isinstance(node, FUNCTIONS)}
    return means in modules | imported or any(
        (isinstance(node, ast.Name) and node.id == means and means not in own)
        or (isinstance(node, ast.Attribute) and node.attr == means)
        for node in nodes
    )


def _calls_itself(function: Function) -> bool:
    return any(
        isinstance(node, ast.Call) and last_name(node.func) == function.name
        for node in ast.walk(function)
    )


def _may_return(functions: list[Function], asked: str) -> bool:
    """Whether no annotation speaks against it."""
    annotations = [f.returns for f in functions if f.returns is not None]
    return not annotations or any(_names_type(a, _TYPES[asked]) for a in annotations)


def _names_type(annotation: ast.expr, names: set[str]) -> bool:
    """Whether a type of these names is the outermost, or a member of the outermost union."""
    match annotation:
        case ast.Constant(value=str(text)):
            tree = parse(text)
            body = tree.body if tree else []
            return (
                not body or not isinstance(body[0], ast.Expr) or _names_type(body[0].value, names)
            )
        case ast.BinOp(left=left, right=right):
            return _names_type(left, names) or _names_type(right, names)
        case ast.Subscript(value=value, slice=inner):
            outer = last_name(value)
            if outer in ("Optional", "Union", "Annotated", "Awaitable", "Coroutine"):
                parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                return any(_names_type(part, names) for part in parts)
            return outer in names or outer == "Literal"
    name = last_name(annotation)
    # Of a name that is no type of these tables (a type variable, an own class) nothing is known.
    return name in names or name not in _KNOWN


_KNOWN = frozenset().union(*_TYPES.values()) | {"None", "bytes", "complex"}
