"""Plain data as JSON, for two processes of which one is not trusted. Pure.

Numbers, text, containers and the standard library's value types go by value. Anything else is the
business of `export` and `resolve`, which exchange it for a handle. Types are compared exactly: a
subclass may compare as it likes, so it never passes for the real thing. By name go only modules,
types and functions that are listed here, whoever sends them.
"""

from __future__ import annotations

import builtins
import importlib
import json
import math
import sys
import types
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from selfalign_ray.sandbox.reach import words

Export = Callable[[Any], list[Any]]
Resolve = Callable[[list[Any]], Any]

_SEQUENCES: dict[type, str] = {
    list: "list", tuple: "tuple", set: "set", frozenset: "frozenset", deque: "deque",
}  # fmt: skip
_MAPPINGS: dict[type, str] = {
    dict: "dict", OrderedDict: "OrderedDict", Counter: "Counter", defaultdict: "defaultdict",
}  # fmt: skip
_MAKERS: dict[str, Callable[[Any], Any]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque,
    "dict": dict, "OrderedDict": OrderedDict, "Counter": lambda pairs: Counter(dict(pairs)),
    "defaultdict": lambda pairs: defaultdict(None, pairs),
    "int": lambda text: int(text, 16), "float": float.fromhex, "complex": lambda p: complex(*p),
    "bytes": bytes.fromhex, "bytearray": bytearray.fromhex, "range": lambda p: range(*p),
    "slice": lambda p: slice(*p), "Decimal": Decimal, "Fraction": lambda p: Fraction(*p),
    "datetime": lambda p: datetime.fromisoformat(p[0]).replace(fold=p[1]),
    "time": lambda p: time.fromisoformat(p[0]).replace(fold=p[1]),
    "date": lambda p: date.fromisoformat(p[0]),
    "timedelta": lambda p: timedelta(*p), "NotImplemented": lambda _: NotImplemented,
    "Ellipsis": lambda _: Ellipsis,
}  # fmt: skip
_SAFE_INTEGER = 1 << 53


# What crosses by name. None of it compares as it likes, takes text for code or for the name of an
# attribute, or opens anything, whatever it is called with.
_MODULES = words("""
abc bisect cmath collections collections.abc dataclasses datetime decimal enum fractions functools
heapq itertools json math numbers numpy operator re statistics string typing unittest
""")
_LISTED = {
    "builtins": words("""
    abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod
    enumerate filter float format frozenset hash hex id int isinstance issubclass iter len list map
    max min next object oct ord pow print property range repr reversed round set slice sorted
    staticmethod str sum tuple zip
    """).union(
        name
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    ),
    "abc": words("ABC abstractmethod"),
    "cmath": words("exp isclose phase polar rect sqrt"),
    "collections": words("ChainMap Counter OrderedDict defaultdict deque namedtuple"),
    "collections.abc": words("""
    AsyncGenerator AsyncIterable AsyncIterator Awaitable ByteString Callable Collection Container
    Coroutine Generator Hashable ItemsView Iterable Iterator KeysView Mapping MappingView
    MutableMapping MutableSequence MutableSet Reversible Sequence Set Sized ValuesView
    """),
    "dataclasses": words("asdict astuple dataclass field fields is_dataclass replace"),
    "datetime": words("date datetime time timedelta timezone tzinfo"),
    "decimal": words("Decimal"),
    "enum": words("Enum Flag IntEnum IntFlag StrEnum auto unique"),
    "fractions": words("Fraction"),
    "_functools": words("reduce"),
    "functools": words("cache cached_property lru_cache partial total_ordering wraps"),
    "math": frozenset(name for name in vars(math) if not name.startswith("_")),
    "numbers": words("Complex Integral Number Rational Real"),
    "numpy": words("""
    bool bool_ complex128 complex64 float16 float32 float64 floating generic int16 int32 int64 int8
    integer ndarray number uint16 uint32 uint64 uint8
    """),
    "_operator": words("""
    abs add and_ concat contains eq floordiv ge getitem gt index inv invert is_ is_not le lshift lt
    matmul mod mul ne neg not_ or_ pos pow rshift sub truediv truth xor
    """),
    "typing": frozenset(typing.__all__) - words("ForwardRef evaluate_forward_ref get_type_hints"),
    "unittest.case": words("IsolatedAsyncioTestCase TestCase"),
}  # fmt: skip
_LIBRARY = {*sys.stdlib_module_names, "numpy"}
_PRIVATE = ("_", "f_", "gi_", "cr_", "ag_", "tb_", "co_")  # frames hang on these


def dumps(value: Any, export: Export) -> bytes:
    return json.dumps(pack(value, export)).encode()


def loads(text: bytes, resolve: Resolve) -> Any:
    return unpack(json.loads(text), resolve)


def pack(value: Any, export: Export) -> Any:
    """The value as JSON has it: None, booleans, text and small integers bare, else [tag, data]."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -_SAFE_INTEGER < value < _SAFE_INTEGER else ["int", hex(value)]
    if kind in _SEQUENCES:
        return [_SEQUENCES[kind], [pack(item, export) for item in value]]
    if kind in _MAPPINGS:
        pairs = [[pack(k, export), pack(v, export)] for k, v in value.items()]
        return [_MAPPINGS[kind], [["tuple", pair] for pair in pairs]]
    simple = _simple(value, kind, export)
    return simple or _array(value, kind) or _global(value) or export(value)


def unpack(data: Any, resolve: Resolve) -> Any:
    if not isinstance(data, list):
        return data
    tag, content = data[0], data[1]
    if tag in _SEQUENCES.values() or tag in _MAPPINGS.values() or tag in {"range", "slice"}:
        return _MAKERS[tag]([unpack(item, resolve) for item in content])
    if tag in _MAKERS:
        return _MAKERS[tag](content)
    if tag == "global":
        if not _is_listed(content):
            raise ImportError(f"{content} does not cross between processes")
        return named(content)
    if tag == "array":
        return _array_of(*content)
    return resolve(data)


def public(name: str) -> bool:
    """Whether an attribute may be reached from the other side: not what leads to frames."""
    return not name.startswith(_PRIVATE)


def named(path: str) -> Any:
    """The object of the standard library at `module:name.name`, or the module at `module`."""
    module, _, names = path.partition(":")
    if module.partition(".")[0] not in _LIBRARY:
        raise ImportError(f"{module} does not cross between processes")
    value: Any = importlib.import_module(module)
    for name in names.split(".") if names else []:
        value = getattr(value, name)
    return value


def path_of(value: Any) -> str:
    """Where `named` finds a module, class or function; empty if it does not."""
    if isinstance(value, types.ModuleType):
        path = value.__name__
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        path = f"{value.__module__}:{value.__qualname__}"
    elif type(value).__module__ == "typing":
        path = f"typing:{getattr(value, '_name', None) or getattr(value, '__name__', '')}"
    else:
        return ""
    try:
        return path if named(path) is value else ""
    except (ImportError, AttributeError, ValueError):
        return ""


def exception_at(path: str) -> type[BaseException] | None:
    """An exception of the standard library, if its module is loaded; imports nothing."""
    module, _, name = path.partition(":")
    if module.partition(".")[0] not in _LIBRARY or module not in sys.modules:
        return None
    found = vars(sys.modules[module]).get(name)
    fair = type(found) is type and issubclass(found, BaseException)
    return found if fair and found.__eq__ is object.__eq__ else None


def _simple(value: Any, kind: type, export: Export) -> list[Any] | None:
    name = kind.__name__
    if kind is float:
        return [name, value.hex()]
    if kind is complex:
        return [name, [value.real, value.imag]]
    if kind in {bytes, bytearray}:
        return [name, value.hex()]
    if kind in {range, slice}:
        return [name, [pack(part, export) for part in (value.start, value.stop, value.step)]]
    if kind is Decimal:
        return [name, str(value)]
    if kind is Fraction:
        return [name, [value.numerator, value.denominator]]
    if kind in {datetime, date, time}:
        return [name, [value.isoformat(), getattr(value, "fold", 0)]]
    if kind is timedelta:
        return [name, [value.days, value.seconds, value.microseconds]]
    if value is NotImplemented or value is Ellipsis:
        return [str(value), 0]
    return None


def _global(value: Any) -> list[Any] | None:
    path = path_of(value)
    return ["global", path] if path and _is_listed(path) else None


def _is_listed(path: str) -> bool:
    module, _, name = path.partition(":")
    return name in _LISTED.get(module, ()) if name else module in _MODULES


def _array(value: Any, kind: type) -> list[Any] | None:
    """A numpy array or number of a plain kind; numpy is asked for only where it is loaded."""
    if (
        kind.__module__ != "numpy"
        or not hasattr(value, "dtype")
        or value.dtype.kind not in "biufcSU"
    ):
        return None
    scalar = kind.__name__ != "ndarray"
    return ["array", [value.dtype.str, list(value.shape), value.tobytes().hex(), scalar]]


def _array_of(kind: str, shape: list[int], data: str, scalar: bool) -> Any:  # noqa: FBT001
    numpy = sys.modules["numpy"]
    array = numpy.frombuffer(bytes.fromhex(data), dtype=kind).reshape(shape).copy()
    return array[()] if scalar else array
