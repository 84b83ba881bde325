"""Makes `unittest.main()` raise its first failure instead of leaving the process."""

from __future__ import annotations

import builtins
import sys
from typing import Any

# The functions below keep the builtins of now, whatever a program does to them.
globals()["__builtins__"] = dict(vars(builtins))


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


def _is_meant_to_be_skipped(case: Any) -> bool:
    method = getattr(type(case), getattr(case, "_testMethodName", ""), None)
    return any(getattr(part, "__unittest_skip__", False) for part in (type(case), method))
