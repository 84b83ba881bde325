"""From a hop's text to the columns it adds. Each parser gives the value, or the drop_reason."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[ \t]*$", re.MULTILINE)
_MAX_CONCEPTS = 16  # more is a list that ran away
_MAX_CONCEPT_CHARACTERS = 80
_LEAST_IDEA_WORDS = 3


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """The programs of a response, or why there are none."""

    code: str | None
    tests: str | None
    drop_reason: str | None


def parse_concepts(text: str) -> list[str]:
    """The comma-separated concepts on the text's first line that has any, in order, each once.

    Empty where the text has none; parts that are whole sentences do not count.
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    parts = (part.strip().strip(".`*\"'- ").strip() for part in line.split(","))
    found = {part.lower(): part for part in parts if 0 < len(part) <= _MAX_CONCEPT_CHARACTERS}
    return list(found.values())[:_MAX_CONCEPTS]


def parse_idea(text: str) -> list[str]:
    """The concepts of a text in prose: its first paragraph, as the only one; empty where none."""
    paragraph = next((part for part in re.split(r"\n\s*\n", text) if part.strip()), "")
    idea = " ".join(paragraph.split())
    return [idea] if len(idea.split()) >= _LEAST_IDEA_WORDS else []


def parse_instruction(text: str, max_words: int) -> tuple[str | None, str | None]:
    """The instruction, or the drop_reason: no_instruction or instruction_too_long."""
    instruction = text.strip()
    if len(instruction.split()) < 3:
        return None, "no_instruction"
    if len(instruction.split()) > max_words:
        return None, "instruction_too_long"
    return instruction, None


def parse_tests(text: str) -> str | None:
    """The fenced Python of a text that is tests alone; None where there is none."""
    return _fenced(text.replace("\r\n", "\n"), is_open=False)[0] or None


def parse_response(
    text: str, tests_heading: str | None, tests: str | None = None
) -> ParsedResponse:
    r"""The solution and the tests of a response.

    The tests are the fenced Python below the line `tests_heading`, the solution is the fenced
    Python above it. A heading inside a fence splits that fence. Without a heading all of it is
    the solution, and the tests are those given. Drop reasons: no_code, no_tests,
    two_test_sections.

        >>> parse_response("```python\nx = 1\n# Tests\nassert x == 1\n```", "# Tests").tests
        'assert x == 1'
    """
    text = text.replace("\r\n", "\n")
    if tests_heading is None:
        code = _fenced(text, is_open=False)[0] or None
        reason = "no_code" if code is None else None if tests else "no_tests"
        return ParsedResponse(code, tests or None, reason)
    heading = re.compile(rf"^[ \t]*{re.escape(tests_heading)}[ \t]*:?[ \t]*$", re.MULTILINE)
    places = list(heading.finditer(text))
    if len(places) > 1:
        return ParsedResponse(None, None, "two_test_sections")
    above = text[: places[0].start()] if places else text
    code, is_open = _fenced(above, is_open=False)
    if not code:
        return ParsedResponse(None, None, "no_code")
    tests = _fenced(text[places[0].end() :], is_open=is_open)[0] if places else ""
    if not tests:
        return ParsedResponse(code, None, "no_tests")
    return ParsedResponse(code, tests, None)


def _fenced(text: str, *, is_open: bool) -> tuple[str, bool]:
    """The Python inside fences, and whether the last fence is still open."""
    blocks: list[str] = []
    start = 0 if is_open else None
    language = "python"
    for mark in _FENCE.finditer(text):
        if start is None:
            start, language = mark.end(), mark.group(1).lower()
        else:
            blocks.append(text[start : mark.start()] if _is_python(language) else "")
            start = None
    if start is not None and _is_python(language):
        blocks.append(text[start:])
    return "\n\n".join(block.strip("\n") for block in blocks if block.strip()), start is not None


def _is_python(language: str) -> bool:
    return language in ("", "py", "python", "python3")
