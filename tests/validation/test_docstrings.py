from __future__ import annotations

import ast
import subprocess
from typing import Any

import pytest

from selfalign_ray.validation.docstrings import completeness, coverage, pep257_violations


@pytest.mark.parametrize(
    ("code", "share"),
    [
        ("x = 1", 1.0),
        ("def f():\n    'Doc.'", 1.0),
        ("def f():\n    ''", 0.0),
        ("def f():\n    'Doc.'\n    def g(): ...", 1.0),
        ("def _f(): ...", 1.0),
        ("class A:\n    'Doc.'\n    def f(self): ...\n    def __len__(self): ...", 0.5),
    ],
)
def test_coverage(code: str, share: float) -> None:
    assert coverage(ast.parse(code)) == share


GOOGLE = """Divide.

    Args:
        a: What is divided.
        b (float): By this.
        *rest: More.

    Returns:
        The quotient.

    Raises:
        ZeroDivisionError: b is 0.
    """

NUMPY = """Divide.

    Parameters
    ----------
    a : float
        What is divided.
    b : float
        By this.

    Returns
    -------
    float
        The quotient.
    """

SPHINX = """Divide.

    :param a: What is divided.
    :param b:
    :raises errors.ZeroDivisionError: b is 0.
    """


@pytest.mark.parametrize(
    ("docstring", "share"),
    [
        ("", 0.0),
        ("Divide a by b and return the quotient.", 0.0),
        (GOOGLE, 1.0),
        (NUMPY, 3 / 5),  # neither `rest` nor the exception
        (SPHINX, 2 / 5),  # what is named and not described does not count
    ],
)
def test_completeness_counts_parameters_results_and_exceptions(
    docstring: str, share: float
) -> None:
    code = f"""
def divide(a, b, *rest):
    '''{docstring}'''
    if not b:
        raise ZeroDivisionError("b")
    return a / b
"""
    assert completeness(ast.parse(code)) == share


@pytest.mark.parametrize(
    "code",
    [
        "x = 1",
        "def f(): ...",
        "def _f(a): return a",
        "def f():\n    return None",
        "def f():\n    def g(a): return a",
        "def f():\n    try:\n        g()\n    except E as error:\n        raise error",
        "class A:\n    def f(self): raise",
    ],
)
def test_where_nothing_is_to_describe_all_is_described(code: str) -> None:
    assert completeness(ast.parse(code)) == 1


def test_a_generator_s_values_are_its_result() -> None:
    code = "def f():\n    '''Count.\n\n    Yields:\n        Numbers.\n    '''\n    yield 1"
    assert completeness(ast.parse(code)) == 1
    assert completeness(ast.parse("async def f():\n    yield 1")) == 0


@pytest.mark.parametrize(
    "docstring", ["Args:", "Args:\n    a", ":param", ":", "Returns", "Raises:\n"]
)
def test_any_docstring_is_read(docstring: str) -> None:
    assert completeness(ast.parse(f"def f(a):\n    {docstring!r}\n    return a")) in (0, 0.5)


def test_violations_are_counted_for_each_piece_of_code_by_itself() -> None:
    good = "def f():\n    '''Do.'''\n"
    assert pep257_violations(
        [
            good.replace("'''", '"""'),
            "def f(): ...",  # a docstring that is not there is another measure
            "def f(:",
            'def f():\n    """does a thing\n    and more"""\n',
            'def f():\n    """  Do."""  # noqa: D210\n',
        ]
    ) == [0, 0, None, 5, 1]  # the fourth: D205, D209, D400, D401, D403
    assert pep257_violations([]) == []


def test_a_checker_that_fails_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("ruff", 1)

    monkeypatch.setattr(subprocess, "run", slow)
    assert pep257_violations(["x = 1"]) == [None]
