import ast

import pytest

from selfalign_ray.sandbox.suspicion import may_be_suspicious, modules_imported, suspicions


def look(code):
    return set(suspicions(ast.parse(code)))


SUSPICIOUS = [
    "import gc",
    "from ctypes import c_int",
    "import os\nos._exit(0)",
    "import os\nos.write(5, b'')",
    "from os import write",
    "import sys\nsys._getframe()",
    "import sys\nsys.modules['math'] = None",
    "import math\nmath.isclose = None",
    "import numpy as np\nnp.testing.assert_equal = None",
    "import math\n(math.pi, x) = 3, 4",
    "import math\ndel math.pi",
    "class A:\n    def __eq__(self, other): return True",
    "class A:\n    def __eq__(self, other): return self.x",
    "class A:\n    __eq__ = lambda s, o: True",
    "A = type('A', (), {})",
    "open(5, 'wb')",
    "getattr(x, name)",
    "getattr(f, '__globals__')",
    "f.__globals__['x'] = 1",
    "eval('1')",
    "setattr(x, 'y', 1)",
    "from unittest.mock import ANY",
    "def f():\n    def g():\n        import gc",
    "import importlib.util",
]
HARMLESS = [
    "def add(a, b):\n    return a + b",
    "import math, os, sys\nprint(math.pi, os.path.join('a', 'b'), sys.maxsize)",
    "class A:\n    def __init__(self, x): self.x = x\n"
    "    def __eq__(self, other): return self.x == other.x",
    "import math\nclass A:\n    def __init__(self, x): self.x = x",
    "with open('notes.txt') as file:\n    file.read()",
    "getattr(x, 'name', None)",
    "type(x)",
    "from collections import Counter\nCounter('abc').most_common(1)",
]


@pytest.mark.parametrize("code", SUSPICIOUS)
def test_tools_of_a_fraud_are_named(code):
    assert look(code)


@pytest.mark.parametrize("code", HARMLESS)
def test_ordinary_code_is_not(code):
    assert not look(code)


@pytest.mark.parametrize("code", SUSPICIOUS)
def test_the_quick_look_misses_none(code):
    assert may_be_suspicious(compile(code, "x", "exec"))


def test_the_quick_look_spares_simple_code():
    assert not may_be_suspicious(compile(HARMLESS[0], "x", "exec"))


def test_imports_are_found_wherever_they_are():
    code = "import a.b\ndef f():\n    from c.d import e\n    from . import g"
    assert set(modules_imported(ast.parse(code))) == {"a", "c", ""}
