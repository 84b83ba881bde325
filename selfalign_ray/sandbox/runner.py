"""Runs one program in the jail: the solution, then its tests, then the report.

What untrusted code can change (modules, builtins) is not used after it has run: functions are
taken at import, and the report is written as bytes, one line a call.
"""

from __future__ import annotations

import _thread
import ast
import atexit
import builtins
import gc
import json
import os
import random
import re
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from selfalign_ray.sandbox.channel import Channel, EndError
from selfalign_ray.sandbox.collect import asserts
from selfalign_ray.sandbox.control import Tally, falsified, names_bound, other
from selfalign_ray.sandbox.kernel import FATAL_SIGNALS
from selfalign_ray.sandbox.report import one_line
from selfalign_ray.sandbox.suite import Step, changes_made, future_flags, main_guard, steps
from selfalign_ray.sandbox.suspicion import may_be_suspicious, modules_imported, suspicions
from selfalign_ray.sandbox.tampering import Snapshot, changes
from selfalign_ray.sandbox.unittests import watch_unittest

# The functions below keep the builtins of now, whatever a program does to them.
globals()["__builtins__"] = dict(vars(builtins))
_exit = os._exit
_threads = _thread._count
_import = builtins.__import__
_BUILTINS = frozenset(name for name in vars(builtins) if not name.startswith("__"))
CODE, TESTS = "<code>", "<tests>"
_FINE = (None, 0)  # exit codes
_forget_patterns = re.purge  # compiled ones, which a program could have replaced
# Given back when memory has run out, for the report. Made before the fork: no sample touches it.
_RESERVE = [bytearray(1 << 20)]


def run(channel: Channel, work: Callable[[], None]) -> NoReturn:
    """Does the work, reports what came of it, and ends the process."""
    kind, detail = "passed", ""
    try:
        work()
    except EndError as end:
        kind, detail = end.kind, end.detail
    except MemoryError:
        _RESERVE.clear()
        kind, detail = "out_of_memory", "MemoryError"
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        kind, detail = failure(error)
    if channel.left:
        _exit(kind != "passed")
    try:
        nonce = channel.nonce()
    except EndError as end:
        channel.say(f"suspicious {end.detail}")
        _exit(1)
    channel.say(f"end {nonce} {kind} {one_line(detail)}")
    _exit(0)


def warm_up() -> None:
    """Runs a small program in the zygote, so that what Python sets up at first use is there.

    Each sample would else do it again: 2 milliseconds.
    """
    code = (
        "import math, typing\n"
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "def area(values: list[int]) -> float:\n"
        "    return sum(v * math.pi for v in values if v > 0) or len({str(v): 1 for v in values})\n"
    )
    tests = "for _ in range(2):\n    assert area([1]) > 3, 'small'\nassert area([0]) == 2\n"
    (source, theirs), (sink, report) = os.pipe(), os.pipe()
    os.write(theirs, len(code).to_bytes(8, "little") + code.encode())
    main, loaded = sys.modules["__main__"], dict(sys.modules)
    channel = Channel(source, report)
    load(channel, new_main(), {"profile": "default"})
    failed = run_tests(channel, sys.modules["__main__"], tests)
    assert failed is not None
    gc.disable()
    sys.modules.clear()
    sys.modules.update(loaded, __main__=main)
    for descriptor in (source, theirs, sink, report):
        os.close(descriptor)


def run_shared(
    channel: Channel,
    taken: list[Snapshot],
    options: Mapping[str, Any],
    script: bool,  # noqa: FBT001
) -> None:
    """Judges the program on the channel, code and tests in this process.

    A `script` has no tests, and so runs what stands under its main guard.
    """
    main = new_main()
    suspicious = load(channel, main, options, script=script)
    if suspicious:
        tell_changes(channel, taken, set())
        _forget_patterns()
    own = set(main.__dict__)
    source = channel.text()
    failed = run_tests(channel, main, source)
    finish()
    if suspicious:
        tree = ast.parse(source.removeprefix("\ufeff"))
        tell_changes(channel, taken, changes_made(tree))
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & own
        for name in sorted(used & _BUILTINS if used - _BUILTINS else ()):
            channel.say(f"suspicious shadows {one_line(name)}")
    if failed:
        raise failed


def run_falsify(channel: Channel) -> None:
    """Says the tests with false expectations; runs neither code nor tests."""
    mark = os.urandom(8).hex()
    code, tests = (channel.text().removeprefix("\ufeff") for _ in range(2))
    text = falsified(tests, names_bound(ast.parse(code)), mark)
    channel.say("loaded 0")
    channel.say(f"text {json.dumps(f'{mark}{text}')}")


def run_control(channel: Channel, options: Mapping[str, Any]) -> None:
    """Runs tests with false expectations: a program that passes these is a fraud."""
    main = new_main()
    load(channel, main, options)
    text = channel.text()
    mark, source = text[:16], text[16:]
    tally = Tally(channel.say)
    tools = {"other": other, "failed": tally.failed, "passed": tally.passed}
    main.__dict__.update({f"{name}_{mark}": tool for name, tool in tools.items()})
    failed = run_tests(channel, main, source, tally)
    finish()
    if failed:
        raise failed


def tell_changes(channel: Channel, taken: list[Snapshot], expected: set[str]) -> None:
    """Looks at what the tests rely on; costs each sample's own copy of those pages."""
    for change in changes(taken):
        if change.rpartition(".")[2] not in expected:
            channel.say(f"suspicious {one_line('changed ' + change)}")


def new_main() -> types.ModuleType:
    """The module that code and tests share, as one script would."""
    main = types.ModuleType("__main__")
    main.__file__ = "main.py"
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    return main


def load(
    channel: Channel, main: types.ModuleType, options: Mapping[str, Any], *, script: bool = False
) -> bool:
    """Parses and runs the solution; whether it looks suspicious."""
    source = channel.text()
    compiled, guarded = compiled_code(source, script=script)
    found: list[str] = []
    doubtful = any(map(may_be_suspicious, filter(None, (compiled, guarded))))
    if doubtful or options["profile"] == "strict":
        tree = syntax_of(source)
        found = sorted(set(suspicions(tree))) if doubtful else []
    if options["profile"] == "fork":
        os.register_at_fork(after_in_child=channel.leave)
        os.register_at_fork(after_in_child=_take_signals)
        found = [word for word in found if not word.startswith("imports multiprocessing")]
    for suspicion in found:
        channel.say(f"suspicious {one_line(suspicion)}")
    if options["profile"] == "strict":
        _only(options["imports"], tree, main)
    random.seed(hash(source))  # the same program, the same draws: zygotes hash with a fixed seed
    gc.enable()
    tools = main.__dict__["__builtins__"]
    exec(compiled, main.__dict__)  # noqa: S102 - what this process is for
    if script and guarded:
        _run_guarded(guarded, main)
    if main.__dict__.get("__builtins__") is not tools:
        channel.say("suspicious changed __builtins__")
    # Not `&`, which looks at each builtin, and so copies the page that it lies on.
    shadowed = [name for name in main.__dict__ if name in _BUILTINS]
    for name in sorted(shadowed):
        channel.say(f"suspicious has its own {one_line(name)}")
    return bool(found or shadowed)


def compiled_code(source: str, *, script: bool) -> tuple[types.CodeType, types.CodeType | None]:
    """The solution's code without what its main guard holds, and that, if there is any."""
    source = source.removeprefix("\ufeff")
    try:
        if "__main__" in source:
            tree = ast.parse(source, CODE)
            guard = main_guard(tree, script=script)
            guarded = compile(guard, CODE, "exec", dont_inherit=True) if guard else None
            return compile(tree, CODE, "exec", dont_inherit=True), guarded
        return compile(source, CODE, "exec", dont_inherit=True), None  # without a tree of objects
    except (SyntaxError, ValueError, RecursionError) as error:  # ValueError: NUL bytes
        raise EndError("syntax_error", describe(error)) from None


def syntax_of(source: str) -> ast.Module:
    """The whole solution; nested too deep for objects, though not for code, it is no code here."""
    try:
        return ast.parse(source.removeprefix("\ufeff"), CODE)
    except RecursionError as error:
        raise EndError("syntax_error", describe(error)) from None


def _take_signals() -> None:
    """Ends a second process by the signals that end any (see `kernel.leave_on_signals`)."""
    for number in FATAL_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)


def _run_guarded(code: types.CodeType, main: types.ModuleType) -> None:
    """Runs what a main guard holds; to leave there without a complaint is an end by itself."""
    try:
        exec(code, main.__dict__)  # noqa: S102 - what this process is for
    except SystemExit as error:
        if error.code not in _FINE:
            raise


def run_tests(
    channel: Channel, main: types.ModuleType, source: str, tally: Tally | None = None
) -> EndError | None:
    """Runs each step of the tests by itself, and says what the first failure was."""
    try:
        tree = ast.parse(source.removeprefix("\ufeff"), TESTS)
        todo = steps(tree)
        flags = future_flags(tree)
        compiled = [
            compile(ast.Module([s.node], []), TESTS, "exec", flags, dont_inherit=True) for s in todo
        ]
    except (SyntaxError, ValueError, RecursionError) as error:
        channel.say("loaded 0")
        raise EndError("syntax_error", f"tests: {describe(error)}") from None
    channel.say(f"loaded {sum(step.test for step in todo)}")
    if "unittest" in source:
        watch_unittest()
    first, number = None, 0
    for step, code in zip(todo, compiled, strict=True):
        number += step.test
        failed = _run_step(step, code, main)
        if tally and tally.end_of_step():
            failed = failed or EndError("assertion", "as it should")
        if failed and not step.test:
            raise first or failed  # without its set-up no later test means anything
        if step.test:
            line = f"{number} {failed.kind} {one_line(failed.detail)}" if failed else None
            channel.say(line or f"{number} passed")
        first = first or failed
    used = names_of(compiled)
    if not number and asserts(tree):
        first = first or EndError(
            "exception", "the tests assert something, but none of their statements is a test"
        )
    if not number and source.strip():
        channel.say("note the tests hold no test")
    elif number and used.isdisjoint(main.__dict__):
        channel.say("note no test uses a name of the code")
    return first


def _run_step(step: Step, code: types.CodeType, main: types.ModuleType) -> EndError | None:
    try:
        exec(code, main.__dict__)  # noqa: S102 - what this process is for
    except AssertionError as error:
        detail = describe(error)
        source = step.source()
        return EndError(
            "assertion", source if detail == "AssertionError" else f"{source} ({detail})"
        )
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        return EndError(*failure(error))
    return None


def names_of(compiled: Iterable[types.CodeType]) -> set[str]:
    """The names that code reads, functions within it included."""
    names: set[str] = set()
    waiting = list(compiled)
    while waiting:
        code = waiting.pop()
        names.update(code.co_names)
        waiting.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    return names


def finish() -> None:
    """What the interpreter does at its end: wait for threads, run exit functions, flush."""
    if _threads():
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "flush"):
            stream.flush()


def failure(error: BaseException) -> tuple[str, str]:
    """The verdict and detail of an exception that reached the top."""
    if isinstance(error, EndError):
        return error.kind, error.detail
    if isinstance(error, MemoryError):
        return "out_of_memory", "MemoryError"
    return ("assertion" if isinstance(error, AssertionError) else "exception"), describe(error)


def describe(error: BaseException) -> str:
    """Type, message and line of an exception whose own methods may be hostile."""
    name = type.__getattribute__(type(error), "__name__")
    try:
        message = str.__str__(str(error))
    except BaseException:  # noqa: BLE001 - `__str__` is the program's
        message = ""
    where = ""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == CODE:
            where = f" (line {frame.tb_lineno})"
        frame = frame.tb_next
    return one_line(f"{name}: {message}" if message else str(name)) + where


def _only(allowed: list[str], tree: ast.Module, main: types.ModuleType) -> None:
    """The strict profile: import statements of the listed modules only."""
    for name in modules_imported(tree):
        if name not in allowed:
            raise EndError("sandbox_violation", f"imports {name or 'a relative module'}")

    def guarded(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{name} is not on the strict profile's list")
        return _import(name, *rest, **named)

    main.__dict__["__builtins__"] = {**vars(builtins), "__import__": guarded}
