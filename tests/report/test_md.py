import re

from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.report.md import cell, fenced, percent, table

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.sampled_from(["`", "```", "~~~", "\n", "a", " ", "``` python"])))
def test_no_text_leaves_its_fence(parts: list[str]) -> None:
    first, *body, last = fenced("".join(parts), "python").split("\n")
    fence = first.removesuffix("python")
    assert set(fence) == {"`"}
    assert len(fence) >= 3
    assert last == fence
    assert not [line for line in body if fence in line]


@settings(deadline=None)  # a busy machine is no failure
@given(ANY_TEXT)
def test_any_text_is_utf8_and_printable(text: str) -> None:
    for made in (fenced(text), cell(text)):
        made.encode("utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", made)


@settings(deadline=None)  # a busy machine is no failure
@given(ANY_TEXT, ANY_TEXT)
def test_a_row_stays_a_row(one: str, two: str) -> None:
    lines = table(("a", "b"), [(one, two)]).split("\n")
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3


def test_cells() -> None:
    assert [cell(v) for v in (None, 1234567, 0.5, True, "a|b\n`c`")] == [
        "",
        "1,234,567",
        "0.50",
        "True",
        "a\\|b \\`c\\`",
    ]


def test_a_long_text_is_cut_and_says_so() -> None:
    assert fenced("x" * 5000, limit=80) == f"```\n{'x' * 80}\n... (4,920 more characters)\n```"


def test_percent() -> None:
    assert [percent(share) for share in (None, 0.0, 0.125)] == ["-", "0.0 %", "12.5 %"]


def test_a_table_without_rows_is_nothing() -> None:
    assert table(("a",), []) == ""
