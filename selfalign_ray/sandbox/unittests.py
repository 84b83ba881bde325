"""Makes `unittest.main()` raise its first failure instead of leaving the process."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from typing import Any

# The functions below keep the builtins of now, whatever a program does to them.
globals()["__builtins__"] = dict(vars(builtins))

_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200  # of a code's flags, as in `inspect`


def watch_unittest() -> None:
    """Makes `unittest.main()` raise its first failure instead of leaving the process."""
    import unittest

    def main(module: Any = "__main__", defaultTest: Any = None, *_: Any, **__: Any) -> None:  # noqa: N803
        loader = unittest.TestLoader()
        place = sys.modules[module] if isinstance(module, str) else module
        names = [defaultTest] if isinstance(defaultTest, str) else list(defaultTest or [])
        suite = (
            loader.loadTestsFromNames(names, place) if names else loader.loadTestsFromModule(place)
        )
        _run_suite(None, suite)

    def _run_suite(_: Any, suite: Any) -> unittest.TestResult:
        for case in _cases(suite):
            if _runs_nothing(case):
                raise AssertionError(f"{case}: a call of it runs nothing")
        result = unittest.TestResult()
        suite(result)
        for kind, pairs in ((AssertionError, result.failures), (RuntimeError, result.errors)):
            for case, trace in pairs:
                raise kind(f"{case}: {trace.strip().splitlines()[-1]}")
        for case in result.unexpectedSuccesses:
            raise AssertionError(f"{case}: an unexpected success")
        meant = [case for case, _ in result.skipped if _is_meant_to_be_skipped(case)]
        if len(meant) < len(result.skipped):
            raise AssertionError("a test was skipped while it ran")
        if result.testsRun <= len(meant):
            raise AssertionError("no test was run")
        return result

    unittest.main = main  # type: ignore[assignment]
    unittest.TextTestRunner.run = _run_suite  # type: ignore[method-assign,assignment]


def _cases(suite: Any) -> Iterator[Any]:
    """The test cases of a suite, or the one that it is."""
    if not hasattr(suite, "_tests"):
        yield suite
        return
    for part in suite:
        yield from _cases(part)


def _runs_nothing(case: Any) -> bool:
    """Whether its test makes a coroutine or a generator, which nobody would run."""
    import unittest

    flags = getattr(getattr(_method(case), "__code__", None), "co_flags", 0)
    if flags & _COROUTINE:
        return not isinstance(case, unittest.IsolatedAsyncioTestCase)
    return bool(flags & (_GENERATOR | _ASYNC_GENERATOR))


def _is_meant_to_be_skipped(case: Any) -> bool:
    return any(getattr(part, "__unittest_skip__", False) for part in (type(case), _method(case)))


def _method(case: Any) -> Any:
    return getattr(type(case), getattr(case, "_testMethodName", ""), None)
