# ruff: noqa: E501 - programs as text
import pytest

from selfalign_ray.sandbox.pool import Sandbox

pytestmark = pytest.mark.sandbox

VECTOR = """
class Vector:
    size = 2
    def __init__(self, x): self.x = x
    def __eq__(self, other): return isinstance(other, Vector) and self.x == other.x
    def __hash__(self): return hash(self.x)
    def __add__(self, other): return Vector(self.x + other.x)
    def __getitem__(self, i): return self.x * i
    def __len__(self): return 3
    def __iter__(self): return iter([self.x])
    def __contains__(self, x): return x == self.x
    def __repr__(self): return f'Vector({self.x})'
    def __enter__(self): return self
    def __exit__(self, *rest): pass
    @classmethod
    def zero(cls): return cls(0)
class Long(Vector): pass
"""
HONEST = {
    "plain": ("def f(x): return [x, (x, {x})]", "assert f(1) == [1, (1, {1})]"),
    "keywords": ("def f(*a, b=1, **c): return a, b, c", "assert f(1, b=2, d=3) == ((1,), 2, {'d': 3})"),
    "in place": ("def f(xs): xs.sort()", "xs = [2, 1]\nf(xs)\nassert xs == [1, 2]"),
    "operators": (VECTOR, "assert Vector(1) + Vector(2) == Vector(3)\nassert Vector(1) != Vector(2)\n"
                  "assert len({Vector(1), Vector(1)}) == 1 and repr(Vector(1)) == 'Vector(1)'"),
    "containers": (VECTOR, "v = Vector(5)\nassert v[2] == 10 and len(v) == 3 and list(v) == [5]\n"
                   "assert 5 in v and 6 not in v"),
    "classes": (VECTOR, "assert isinstance(Long(1), Vector) and issubclass(Long, Vector)\n"
                "assert Vector.zero().x == 0 and Vector.size == 2\nv = Vector(1)\nv.x = 7\n"
                "assert v.x == 7\nwith v as w: assert w.x == 7"),
    "exceptions": ("class Bad(ValueError):\n    def __init__(self, code):\n"
                   "        super().__init__('bad')\n        self.code = code\ndef f(): raise Bad(7)",
                   "try:\n    f()\nexcept Bad as e:\n    assert e.code == 7\n"
                   "else:\n    assert False\ntry:\n    f()\nexcept ValueError:\n    pass"),
    "callbacks": ("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda x: x + 1, [1]) == [2]"),
    "generators": ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]"),
    "coroutines": ("import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x",
                   "import asyncio\nassert asyncio.run(f(3)) == 3"),
    "named tuples": ("from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int = 0",
                     "assert P(1) == (1, 0) and P(1, 2).y == 2"),
    "enums": ("from enum import Enum, IntEnum\nclass C(Enum):\n    R = 1\nclass I(IntEnum):\n"
              "    A = 2\ndef f(): return C.R", "assert f() is C.R and C.R.value == 1 and I.A == 2"),
    "modules of the code": ("import math\nfrom collections import Counter", "assert math.pi > 3 and Counter('a')"),
    "arrays": ("import numpy as np\ndef f(a): return a * 2", "import numpy as np\n"
               "assert (f(np.arange(3)) == [0, 2, 4]).all()"),
    "unittest": ("def f(): return 1", "import unittest\nclass T(unittest.TestCase):\n"
                 "    def test(self): self.assertEqual(f(), 1)\nunittest.main()"),
    "tools of the library": ("import os, json\nfrom zipfile import BadZipFile\ndef f(k): return k\n"
                             "def g(): raise BadZipFile('x')\ndef h(s): return json.loads(s)",
                             "import zipfile, json\nassert f(int) is int and f(ValueError) is ValueError\n"
                             "assert os.path.join('a', 'b') == 'a/b' and f(len)('abc') == 3\n"
                             "try: g()\nexcept zipfile.BadZipFile as e: assert str(e) == 'x'\n"
                             "try: h('{')\nexcept json.JSONDecodeError as e: pass"),
    "named like a builtin": ("def sum(xs): return len(xs)", "assert sum([5, 5]) == 2"),
}  # fmt: skip
CHEATS = {
    "equal to all": "class A:\n    def __eq__(self, o): return True\ndef f(): return A()",
    "equal as a number": "class A(int):\n    def __eq__(self, o): return True\n"
    "    __hash__ = int.__hash__\ndef f(): return A(9)",
    "a frame": "import sys\ndef f():\n    frame = sys._getframe()\n    while frame:\n"
    "        frame.f_locals['failed'] = None\n        frame = frame.f_back\n    return 0",
    "the link": "import os\ndef f():\n    for fd in range(3, 99):\n        try: os.write(fd, b'x')\n"
    "        except OSError: pass\n    return 0",
    "an early end": "import os\ndef f(): os._exit(0)",
    "its own comparison": "def isinstance(*a): return True\ndef f(): return 0",
}
# By frames to the messages themselves.
PEER = """
import sys
def peer():
    frame = sys._getframe()
    while "Peer" not in frame.f_globals: frame = frame.f_back
    return frame.f_globals["Peer"]
class T: pass
def exported(cls, text):
    real = cls._export
    cls._export = lambda self, value: ["global", text] if type(value) is T else real(self, value)
"""
SENT = (
    PEER
    + """
cls = peer()
send = cls.send
def sends(self, value):
    return send(self, {**value, **CHANGED} if isinstance(value, dict) else value)
cls.send = sends
"""
)
PATCH = """
import sys
frame = sys._getframe()
while frame:
    if "_run_step" in frame.f_globals: frame.f_globals["_run_step"] = lambda *rest: None
    frame = frame.f_back
"""
FORGED = {
    "a global that equals all": (PEER + "def f():\n    exported(peer(), 'unittest.mock:ANY')\n"
                                 "    return T()", "assert f() == 3"),
    "a class of such": (SENT + "exported(cls, 'unittest.mock:_ANY')\nCHANGED = {'f': T()}",
                        "assert f() == 3"),
    "a function that runs text": (SENT + f"exported(cls, 'builtins:exec')\nCHANGED = {{'f': T()}}\n"
                                  f"def g(): return {PATCH!r}", "f(g())\nassert f('') == 3"),
    "an error that runs text": (PEER + "def f():\n    peer()._told = lambda self, error: "
                                f"(None, 'exec', [{PATCH!r}], {{}})\n    1 / 0",
                                "try: f()\nexcept Exception: pass\nassert f() == 3"),
    "builtins of its own": (SENT + "CHANGED = {'__builtins__': {'abs': lambda x: 0}}\n"
                            "def f(): return 0", "assert abs(f() - 3) < 1"),
    "a class named as its function": ("class f:\n    def __eq__(self, o): return True\nk = f\n"
                                      "def f(): return k()", "assert f() == 3"),
    "a class for a function": ("class f:\n    def __eq__(self, o): return True", "assert f() == 3"),
    "a difference of nothing": ("class A:\n    def __sub__(self, o): return 0\n"
                                "def f(): return A()", "assert abs(f() - 3) < 1"),
}  # fmt: skip


@pytest.fixture(scope="module")
def split(configured):
    with Sandbox(configured(assurance="split", wall_seconds=6)) as pool:
        yield pool


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_pass_in_two_processes(split, name):
    [verdict] = split.judge([HONEST[name]])
    assert (verdict.verdict, verdict.assurance) == ("passed", "split"), verdict.detail


@pytest.mark.parametrize("name", CHEATS)
def test_nothing_that_a_solution_does_to_itself_makes_its_tests_pass(split, name):
    [verdict] = split.judge([(CHEATS[name], "assert f() == 3")])
    assert verdict.verdict != "passed"
    assert verdict.assurance == "split"


@pytest.mark.parametrize("name", FORGED)
def test_no_message_of_a_solution_makes_its_tests_pass(split, name):
    [verdict] = split.judge([FORGED[name]])
    assert verdict.verdict in {"assertion", "exception"}
    assert verdict.assurance == "split"


def test_tests_lend_none_of_their_tools(split):
    code = "def f(tool): return tool('globals()').keys() >= {'MINE'}"
    [verdict] = split.judge([(code, "MINE = 1\nassert f(eval) is False")])
    assert verdict.verdict == "passed", verdict.detail


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("while True: pass", "timeout"),
        ("def f():\n    while True: pass", "timeout"),
        ("def f(): return [0] * 10 ** 10", "out_of_memory"),
        ("f(", "syntax_error"),
        ("import ctypes\ndef f(): ctypes.CDLL(None).ptrace(0, 0, 0, 0)", "sandbox_violation"),
        ("def f(): return 4", "assertion"),
        ("def f(): return 1 / 0", "exception"),
        ("raise ValueError('x')", "exception"),
    ],
)
def test_what_became_of_the_solution_is_the_verdict(configured, code, expected):
    with Sandbox(configured(assurance="split", cpu_seconds=1, wall_seconds=10)) as pool:
        [verdict] = pool.judge([(code, "assert f() == 3")])
    assert verdict.verdict == expected, verdict.detail


def test_suspicious_code_is_judged_in_two_processes_and_says_so(sandbox):
    code = "import gc\ndef f(): return 3"
    plain, cheat = sandbox.judge(
        [(code, "assert f() == 3"), (CHEATS["equal to all"], "assert f() == 3")]
    )
    assert (plain.verdict, plain.assurance) == ("passed", "split")
    assert (cheat.verdict, cheat.assurance) == ("assertion", "split")
    assert cheat.detail.startswith("passed in one process, in two: ")


def test_an_honest_program_whose_values_do_not_cross_passes_by_failing_false_tests(sandbox):
    code = "import gc\nimport random\ndef f(): return random.random()"
    tests = "import random\nrandom.seed(1)\nx = f()\nrandom.seed(1)\nassert f() == x"
    wrong = tests.replace("== x", "== x + 1")
    honest, fails = sandbox.judge([(code, tests), (code, wrong)])
    assert (honest.verdict, honest.assurance) == ("passed", "shared")
    assert honest.detail == "suspicious: imports gc"
    assert fails.verdict == "assertion"


def test_by_choice_of_two_processes_nothing_else_passes(split):
    code = "import random\ndef f(): return random.random()"
    tests = "import random\nrandom.seed(1)\nx = f()\nrandom.seed(1)\nassert f() == x"
    [verdict] = split.judge([(code, tests)])
    assert verdict.verdict == "assertion"


@pytest.mark.parametrize("power", ["os.read", "eval", "globals()", "getattr(os, str())"])
def test_code_with_power_over_its_process_needs_two(sandbox, power):
    code = f"import os\ndef f(): return {power}\ndef g():\n    import random\n    return random.random()"
    tests = "import random\nrandom.seed(1)\nx = g()\nrandom.seed(1)\nassert g() == x"
    [verdict] = sandbox.judge([(code, tests)])
    assert (verdict.verdict, verdict.assurance) == ("assertion", "split")


def test_shared_by_choice_names_what_it_could_not_rule_out(configured):
    changed = "import math\nmath.isclose = lambda *a: True\ndef f(): return 0"
    with Sandbox(configured(assurance="shared")) as pool:
        looks, cheats = pool.judge(
            [("import gc\ndef f(): return 3", "assert f() == 3"),
             (changed, "import math\nassert math.isclose(f(), 1)")]
        )  # fmt: skip
    assert (looks.verdict, looks.detail) == ("passed", "suspicious: imports gc")
    assert (cheats.verdict, cheats.detail) == ("sandbox_violation", "changed math.isclose")
