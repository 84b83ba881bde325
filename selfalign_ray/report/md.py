"""Markdown that holds whatever text it is given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def section(title: str, text: str) -> str:
    """A text below its heading; empty without a text."""
    return f"## {title}\n\n{text}" if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: int = 0) -> str:
    """A table whose last `numbers` columns stand to the right; empty without rows."""
    lines = ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    if not lines:
        return ""
    words = len(head) - numbers
    rule = "|" + "|".join(["---"] * words + ["---:"] * numbers) + "|"
    return "\n".join([f"| {' | '.join(head)} |", rule, *lines])


def cell(value: object) -> str:
    """A value on one line, with nothing in it that means something to a table.

    Whole numbers get separators, None is an empty cell; `**` around a text stays.
    """
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    text = " ".join(printable(str(value)).split())
    return re.sub(r"([\\|`<\[])", r"\\\1", text)


def fenced(text: str, language: str = "", limit: int | None = None) -> str:
    """A fenced block around any text: its fence is longer than any run of backticks inside.

    Args:
        text: what stands in the block.
        language: of the block.
        limit: characters after which the text is cut, which the block then says.
    """
    text = printable(text)
    if limit is not None and len(text) > limit:
        text = f"{text[:limit]}\n... ({len(text) - limit:,} more characters)"
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def printable(text: str) -> str:
    r"""The text as UTF-8 can hold it, without control characters but \n and \t.

    A line separator that is none of Python's stays on its line as an escape.
    """
    text = text.replace("\r\n", "\n").encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]", _escape, text)


def percent(share: float | None) -> str:
    """A share in per cent, or a hyphen where there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()
