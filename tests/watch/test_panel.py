from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from selfalign_ray.watch.panel import panel
from selfalign_ray.watch.progress import Progress

NAMES = [
    "read",
    "functions",
    "quality",
    "unique",
    "sample",
    "concepts",
    "instruction",
    "responses",
    "execution",
    "metrics",
    "sanitise",
    "choose",
    "duplicates",
]
NUMBERS = st.integers(0, 10**9)


def lines_of(
    progress: Progress, width: int = 80, height: int = 30, *, blocks: bool = True, **rest: bool
) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, height=height)
    console.print(panel(progress, width=width, height=height, blocks=blocks, **rest))
    return out.getvalue().splitlines()


@pytest.fixture
def halfway() -> Progress:
    progress = Progress(NAMES)
    progress.begin("quality", None)
    progress.observe({"quality": {"rows": 9120}})
    progress.end("quality", {"kept": 1204, "untyped": 7916}, 12.0)
    progress.reused("unique", {"kept": 1100, "duplicate_seed": 104})
    progress.reused("sample", {"kept": 24, "not_sampled": 1076})
    progress.begin("responses", 24)
    hop = {"prompts": 24, "kept": 12, "dropped": 0, "prompt_tokens": 10, "cached_tokens": 8}
    progress.observe({"engine": {"rows_in_flight": 9}, "responses": hop})
    return progress


def test_a_line_a_stage(halfway: Progress) -> None:
    lines = lines_of(halfway)
    assert lines[0].startswith("selfalign  0:00:0")
    names = [line.split()[1] for line in lines[1:] if line[0] in ".>+="]
    assert names == NAMES
    text = "\n".join(lines)
    assert "1,204 kept       7,916 dropped" in text
    assert "12/24  50 %" in text
    assert "80 % cached · 9 in flight" in text
    assert text.count("reused") == 2


def test_a_run_that_was_asked_to_end_says_so(halfway: Progress) -> None:
    assert lines_of(halfway, stopping=True)[0].endswith("  stopping")
    assert "stopping" not in "\n".join(lines_of(halfway))


def test_a_terminal_without_line_drawing(halfway: Progress) -> None:
    text = "\n".join(lines_of(halfway, blocks=False))
    assert "###---" in text
    assert "━" not in text


def test_a_low_terminal_keeps_the_running_stage(halfway: Progress) -> None:
    lines = lines_of(halfway, height=10)
    assert len(lines) <= 10
    assert "12/24" in "\n".join(lines)
    assert "more stages" in lines[-1]


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(60, 200), NUMBERS, NUMBERS, NUMBERS)
def test_no_line_is_wider_than_the_terminal(width: int, total: int, kept: int, other: int) -> None:
    progress = Progress(NAMES)
    progress.begin("sample", None)
    progress.end("sample", {"kept": kept, "not_sampled": other}, float(other))
    progress.begin("responses", total)
    amounts = {"prompts": kept, "kept": kept, "dropped": other, "prompt_tokens": 1 + other}
    progress.observe({"engine": {"rows_in_flight": other}, "responses": amounts})
    lines = lines_of(progress, width)
    assert len(lines) == len(NAMES) + 2
    assert all(len(line) < width for line in lines)
