"""Objects of one process as seen from another: calls, attributes and operators by message.

Each side keeps what it has exported under a number; the other side sees a stand-in. While one
waits for an answer it serves the other's requests, so that a solution can call a function that
its test passed in.
"""

from __future__ import annotations

import builtins
import inspect
import operator
import socket
from collections.abc import Callable
from typing import Any

from selfalign_ray.sandbox.plain import (
    dumps,
    exception_at,
    loads,
    named,
    pack,
    path_of,
    public,
    unpack,
)

_PLAIN_BASES = (bool, int, float, str, bytes, tuple, list, dict, set, frozenset)
_PLAIN: dict[str, type] = {base.__name__: base for base in _PLAIN_BASES}
_RAISED: dict[str, type[BaseException]] = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}
_MESSAGE_BYTES = 1 << 28
_MUTABLE = (list, dict, set, bytearray)
_ATTRIBUTES = {"__name__", "__doc__", "__qualname__", "__annotations__"}
_COMPARING = {"eq", "ne", "lt", "le", "gt", "ge", "contains"}
_BINARY = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift",
    "rshift", "matmul",
)  # fmt: skip
_WEIGHING = {*_COMPARING, *_BINARY, *(f"r{name}" for name in _BINARY)}
_UNARY: dict[str, Callable[..., Any]] = {
    "len": len, "bool": bool, "str": str, "repr": repr, "iter": iter, "next": next, "hash": hash,
    "int": int, "float": float, "abs": abs, "neg": operator.neg, "pos": operator.pos,
    "reversed": reversed, "index": operator.index, "invert": operator.invert,
}  # fmt: skip


def _reflected(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda right, left: operation(left, right)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    **_UNARY,
    **{n: getattr(operator, f"__{n}__") for n in (*_BINARY, *_COMPARING, "getitem", "setitem",
                                                  "delitem")},
    **{f"r{n}": _reflected(getattr(operator, f"__{n}__")) for n in _BINARY},
    "call": lambda target, *args, **named: target(*args, **named),
    "get": getattr,
    "set": setattr,
    "enter": lambda target: type(target).__enter__(target),
    "exit": lambda target: type(target).__exit__(target, None, None, None),
    "await": lambda function, *args, **named: _awaited(function(*args, **named)),
}  # fmt: skip


def _awaited(coroutine: Any) -> Any:
    import asyncio  # brings ssl, subprocess and logging, which every fork would carry

    return asyncio.run(coroutine)


class GoneError(Exception):
    """The other process has ended."""


class Standin:
    """An object of the other side; its operators are added below."""

    def __init__(self, peer: Peer, number: int) -> None:
        self.__dict__.update(_peer=peer, _number=number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _ATTRIBUTES:
            raise AttributeError(name)
        return self._peer.ask("get", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask("set", self._number, name, value)

    def __hash__(self) -> int:
        return int(self._peer.ask("hash", self._number))

    def __exit__(self, *_: object) -> None:
        self._peer.ask("exit", self._number)


class StandinClass(type):
    """A class of the other side: calling it makes an object there."""

    def __call__(cls, *args: Any, **named: Any) -> Any:
        return cls._class_peer.ask("call", cls._class_number, *args, **named)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return cls._class_peer.ask("get", cls._class_number, name)


class _PlainStandin:
    """A value of a subclass of plain data: compares as its base, has the subclass's attributes."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return type(self)._class_peer.ask("get", self._number, name)  # type: ignore[attr-defined]


class Peer:
    """One end of the connection."""

    def __init__(self, link: socket.socket, *, trusted: bool) -> None:
        """Takes its end.

        Args:
            link: a connected stream socket.
            trusted: whether this is the side of the tests, which gives no private attributes and
                takes no answer that decides a comparison with plain data.
        """
        self._stream = link.makefile("rwb")
        self._trusted = trusted
        # Those that the tests name: their objects may say what they contain.
        self.classes: tuple[type, ...] = ()
        self._exported: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._standins: dict[int, Any] = {}

    def send(self, value: Any) -> None:
        text = dumps(value, self._export)
        try:
            self._stream.write(len(text).to_bytes(8, "little") + text)
            self._stream.flush()
        except OSError as error:
            raise GoneError("the other process has ended") from error

    def receive(self) -> Any:
        size = int.from_bytes(self._exactly(8), "little")
        if size > _MESSAGE_BYTES:
            raise GoneError("the other process does not keep to messages")
        return loads(self._exactly(size), self._resolve)

    def ask(self, operation: str, number: int, *args: Any, **named: Any) -> Any:
        """Does something with an object of the other side, and waits for what comes of it."""
        self.send(("ask", operation, number, args, named))
        while True:
            message = self.receive()
            if message[0] == "ask":
                self._serve(*message[1:])
                continue
            _, value, error, changed = message
            for old, new in zip(args, changed, strict=False):
                _update(old, new)
            if error is not None:
                raise self._error(*error)
            return value

    def serve(self) -> None:
        """Answers the other side until it ends."""
        while True:
            try:
                message = self.receive()
            except GoneError:
                return
            self._serve(*message[1:])

    def _serve(self, operation: str, number: int, args: tuple[Any, ...], named: Any) -> None:
        try:
            if self._trusted and operation in {"get", "set"} and not public(args[0]):
                raise AttributeError(args[0])  # noqa: TRY301 - answered like any other
            value = _OPERATIONS[operation](self._exported[number], *args, **named)
            changed = [a if isinstance(a, _MUTABLE) else None for a in args]
            answer: tuple[Any, ...] = ("answer", value, None, changed)
            pack(answer, self._export)
        except BaseException as error:  # noqa: BLE001 - it belongs to the other side
            answer = ("answer", None, self._told(error), [])
        self.send(answer)

    def _told(self, error: BaseException) -> tuple[Any, ...]:
        base = next(c for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)
        try:
            pack(error.args, self._export)
            args = error.args
        except Exception:  # noqa: BLE001 - arguments that do not cross
            args = (str(error),)
        attributes = {k: v for k, v in vars(error).items() if not k.startswith("_")}
        return type(error), base.__name__, args, attributes

    def _error(self, kind: Any, base: str, args: Any, attributes: Any) -> BaseException:
        made = kind if isinstance(kind, type) and issubclass(kind, BaseException) else None
        made = made or _RAISED.get(base, Exception)
        try:
            error: BaseException = made(*args)
        except TypeError:  # its arguments are others than those that it keeps
            error = made.__new__(made, *args)
        error.__dict__.update(attributes)
        return error

    def _exactly(self, size: int) -> bytes:
        try:
            text = self._stream.read(size)
        except OSError as error:
            raise GoneError("the other process has ended") from error
        if len(text) < size:
            raise GoneError("the other process has ended")
        return text

    def _export(self, value: Any) -> list[Any]:
        if isinstance(value, Standin) and value.__dict__.get("_peer") is self:
            return ["yours", value.__dict__["_number"]]
        if isinstance(value, StandinClass):
            return ["yours", value.__dict__["_class_number"]]
        path = path_of(value)
        if path and self._trusted:
            return ["library", path]  # of its own: a handle would lend it the tests' `exec`
        number = self._numbers.setdefault(id(value), len(self._exported))
        if number == len(self._exported):
            self._exported.append(value)  # kept, so that the number stays its own
        if isinstance(value, type):
            return ["class", number, *self._class(value), path]
        base = next((b for b in _PLAIN_BASES if isinstance(value, b)), None)
        if base is not None and type(value).__module__ == "__main__":
            return ["plain", number, self._export(type(value)), pack(base(value), self._export)]
        if inspect.iscoroutinefunction(value):
            return ["async", number]
        of_main = type(value).__module__ == "__main__"
        return ["object", number, self._export(type(value)) if of_main else None]

    def _class(self, value: type) -> list[Any]:
        bases = [self._export(b) for b in value.__bases__ if b.__module__ == "__main__"]
        known = next(c for c in value.__mro__ if getattr(builtins, c.__name__, None) is c)
        return [str(value.__name__), known.__name__, bases]

    def _resolve(self, data: list[Any]) -> Any:
        kind, number = data[0], data[1]
        if kind == "yours":
            return self._exported[number]
        if kind == "library" and not self._trusted:
            return named(number)
        real = exception_at(data[5]) if kind == "class" else None
        if real:
            return real
        if number not in self._standins:
            self._standins[number] = self._standin(kind, number, data[2:])
        return self._standins[number]

    def _standin(self, kind: str, number: int, rest: list[Any]) -> Any:
        if kind == "class":
            return self._standin_class(number, *rest)
        if kind == "async":

            async def function(*args: Any, **named: Any) -> Any:
                return self.ask("await", number, *args, **named)

            return function
        if kind == "plain":
            cls = self._resolve(rest[0])
            value = cls.__mro__[-2].__new__(cls, unpack(rest[1], self._resolve))
            if isinstance(value, list | dict | set):
                value.__init__(unpack(rest[1], self._resolve))  # type: ignore[misc]
            value.__dict__["_number"] = number
            return value
        cls = self._resolve(rest[0]) if rest[0] else Standin
        standin = Standin.__new__(cls)
        Standin.__init__(standin, self, number)
        return standin

    def _standin_class(self, number: int, name: str, known: str, bases: list[Any], _: str) -> Any:
        above = tuple(self._resolve(b) for b in bases)
        members = {"_class_peer": self, "_class_number": number, "__module__": "__main__"}
        base = _RAISED.get(known) or _PLAIN.get(known)
        if known in _RAISED:
            return type(name, above or (base,), {"__module__": "__main__"})
        if base:
            return StandinClass(name, above or (_PlainStandin, base), members)
        return StandinClass(name, above or (Standin,), members)

    def may_answer(self, standin: Standin, name: str, other: Any) -> bool:
        """Whether an object of the other side may say how it compares with this.

        What is equal to 3 because it says so, or a difference of 0 to 3, is no answer to a test.
        """
        if not self._trusted or isinstance(other, Standin):
            return True
        return name == "contains" and isinstance(standin, self.classes)


def _update(old: Any, new: Any) -> None:
    """What the other side did to a container that was passed to it."""
    if type(old) is not type(new):
        return
    if isinstance(old, list | bytearray):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)


def _operator(name: str) -> Callable[..., Any]:
    def forwarded(self: Standin, *args: Any, **named: Any) -> Any:
        peer = self.__dict__["_peer"]
        if name in _WEIGHING and not peer.may_answer(self, name, args[0]):
            return NotImplemented if name != "contains" else False
        return peer.ask(name, self.__dict__["_number"], *args, **named)

    return forwarded


for _name in _OPERATIONS:
    if _name not in {"get", "set", "exit", "await", "hash"}:
        setattr(Standin, f"__{_name}__", _operator(_name))
