import json
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.report.lines import SortedLines, json_line

ANY_TEXT = st.text(st.characters(exclude_categories=[]))  # lone surrogates too
KEYS = st.tuples(st.text("abc\n\t ", max_size=3), st.integers(0, 3))


@settings(deadline=None)  # a busy machine is no failure
@given(ANY_TEXT)
def test_any_text_comes_back(text: str) -> None:
    line = json_line({"a": text})
    assert line.count(b"\n") == 1
    assert json.loads(line.decode("utf-8"))["a"] == text


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(KEYS, ANY_TEXT)), st.integers(1, 2000))
def test_order_does_not_depend_on_memory(
    rows: list[tuple[tuple[str, int], str]], memory: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        contents = []
        for bound in (memory, 10**9):
            path = Path(folder) / "out.jsonl"
            with SortedLines(path, bound) as lines:
                for key, text in rows:
                    lines.add(key, {"key": key, "text": text})
            contents.append(path.read_bytes())
        assert contents[0] == contents[1]
        keys = [tuple(json.loads(line)["key"]) for line in contents[0].splitlines()]
        assert keys == sorted(keys)
        assert len(keys) == len(rows)
        assert [file.name for file in Path(folder).iterdir()] == ["out.jsonl"]


def test_memory_is_bounded_however_short_the_lines(tmp_path: Path) -> None:
    bound = 2**20
    tracemalloc.start()
    try:
        with SortedLines(tmp_path / "out.jsonl", bound) as lines:
            for n in range(50_000):
                lines.add((f"{n:064}", 0), {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * bound, "what Python holds beside a line has to count"


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")

    def fail() -> None:
        with SortedLines(path, 1) as lines:
            lines.add(("a", 0), {"a": 1})
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
