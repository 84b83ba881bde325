"""hops/parse.py: what is read out of a hop's text, and why nothing is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.hops.parse import parse_concepts, parse_instruction, parse_response


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recursion, string slicing", ["recursion", "string slicing"]),
        (" recursion ,, ", ["recursion"]),
        ("\n\n- heaps, `queues`.\nmore text", ["heaps", "queues"]),
        ("Sets, sets, SETS, lists", ["SETS", "lists"]),
        ("", []),
        (" , ", []),
        ("x" * 200, []),
    ],
)
def test_concepts_are_the_parts_of_the_first_line(text, expected):
    assert parse_concepts(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Write a function. \n", ("Write a function.", None)),
        ("Write", (None, "no_instruction")),
        ("", (None, "no_instruction")),
        ("word " * 11, (None, "instruction_too_long")),
    ],
)
def test_an_instruction_has_three_to_so_many_words(text, expected):
    assert parse_instruction(text, 10) == expected


FOUR_PARTS = """### Reasoning
Think.

### Implementation
```python
def f():
    return 1
```

### Explanation
It returns one.

### Tests
```python
assert f() == 1
```
"""


def test_four_parts_give_code_and_tests():
    parsed = parse_response(FOUR_PARTS, "### Tests")
    assert (parsed.code, parsed.tests) == ("def f():\n    return 1", "assert f() == 1")
    assert parsed.drop_reason is None


def test_a_heading_inside_the_fence_splits_it():
    parsed = parse_response("```python\nx = 1\n\n# Tests\nassert x\n", "# Tests")
    assert (parsed.code, parsed.tests, parsed.drop_reason) == ("x = 1", "assert x", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no code at all", "no_code"),
        ("```python\nx = 1\n```", "no_tests"),
        ("```python\nx = 1\n```\n# Tests\nno fence", "no_tests"),
        ("```bash\nls\n```\n# Tests\n```python\nassert 1\n```", "no_code"),
        ("```python\nx = 1\n# Tests\nassert x\n# Tests\nassert x\n```", "two_test_sections"),
        ("```python\n# Tests\nassert 1\n```", "no_code"),
    ],
)
def test_a_response_without_its_parts_says_which(text, reason):
    assert parse_response(text, "# Tests").drop_reason == reason


def test_windows_line_ends_are_no_obstacle():
    text = "```python\r\nx = 1\r\n```\r\n# Tests\r\n```python\r\nassert x\r\n```"
    assert parse_response(text, "# Tests").drop_reason is None


@given(st.text(alphabet="`#T ests\n\rpythonxé\ud800", max_size=200))
def test_any_text_is_parsed_to_code_or_a_reason(text):
    parsed = parse_response(text, "# Tests")
    assert (parsed.drop_reason is None) == (parsed.code is not None and parsed.tests is not None)
    parse_concepts(text)
    parse_instruction(text, 5)
