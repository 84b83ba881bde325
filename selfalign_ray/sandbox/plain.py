"""Plain data as JSON, for two processes of which one is not trusted. Pure.

Numbers, text, containers and the standard library's value types go by value. Anything else is the
business of `export` and `resolve`, which exchange it for a handle. Types are compared exactly: a
subclass may compare as it likes, so it never passes for the real thing.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

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
    "datetime": datetime.fromisoformat, "date": date.fromisoformat, "time": time.fromisoformat,
    "timedelta": lambda p: timedelta(*p), "NotImplemented": lambda _: NotImplemented,
    "Ellipsis": lambda _: Ellipsis,
}  # fmt: skip
_SAFE_INTEGER = 1 << 53
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
    if module.partition(".")[0] not in {*sys.stdlib_module_names, "numpy"}:
        raise ImportError(f"{module} does not cross between processes")
    value: Any = importlib.import_module(module)
    for name in names.split(".") if names else []:
        value = getattr(value, name)
    return value


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
        return [name, value.isoformat()]
    if kind is timedelta:
        return [name, [value.days, value.seconds, value.microseconds]]
    if value is NotImplemented or value is Ellipsis:
        return [str(value), 0]
    return None


def _global(value: Any) -> list[Any] | None:
    """A module, class or function of the standard library, by name."""
    if isinstance(value, types.ModuleType):
        path = value.__name__
    elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        path = f"{value.__module__}:{value.__qualname__}"
    elif type(value).__module__ == "typing":
        path = f"typing:{getattr(value, '_name', None) or getattr(value, '__name__', '')}"
    else:
        return None
    try:
        return ["global", path] if named(path) is value else None
    except (ImportError, AttributeError, ValueError):
        return None


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
