import ast

import pytest

from selfalign_ray.sandbox.comparisons import lies


def lying(body, name="__eq__"):
    text = body if body.startswith("def") else f"def {name}(self, other): {body}"
    return lies(ast.parse(text).body[0], "Point")


@pytest.mark.parametrize(
    "body",
    [
        "return self.x == other.x",
        "return self.x == other.x and self.y == other.y",
        "return (self.x, self.y) == (other.x, other.y)",
        "return isinstance(other, Point) and self.x == other.x",
        "return type(self) is type(other) and self.value == other.value",
        "def __eq__(self, o):\n    if not isinstance(o, Point): return NotImplemented\n"
        "    return self.norm() == o.norm()",
        "def __lt__(self, o):\n    'Less.'\n    if isinstance(o, Point):\n"
        "        return self.x < o.x\n    return NotImplemented",
        "return NotImplemented",
    ],
)
def test_usual_comparisons_are_honest(body):
    assert not lying(body)


@pytest.mark.parametrize(
    "body",
    [
        "return True",
        "return other == other",
        "return isinstance(other, object)",
        "return self.x == self.x",
        "return self.imag == other.imag",  # 0 of every integer
        "return bool([other])",
        "return self.x == other.x or other",
        "return self.__doc__ == other.__doc__",
        "def __eq__(self, other):\n    self.x = other\n    return self.x == other",
        "def __eq__(self, *others): return True",
        "def __eq__(self, o):\n    try: return self.x == o.x\n    except Exception: return True",
        "def __eq__(self, o):\n    if isinstance(o, int): return True\n    return self.x == o.x",
    ],
)
def test_what_could_be_equal_to_anything_is_not(body):
    assert lying(body)


def test_arithmetic_makes_new_objects_or_reads_both_sides():
    assert not lying("return Point(self.x - other.x)", "__sub__")
    assert not lying("return self.x - other.x", "__sub__")
    assert lying("return 0.0", "__sub__")
    assert lying("return other - other", "__sub__")
    assert not lying("return other in self.items", "__contains__")
    assert lying("return True", "__contains__")
