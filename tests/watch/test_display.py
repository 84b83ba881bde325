import contextlib
import itertools
import logging
import os
import pty
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from selfalign_ray.watch import display
from selfalign_ray.watch.display import Display
from selfalign_ray.watch.logs import FILE, setup_driver
from selfalign_ray.watch.outbox import Figures

NAMES = ["concepts", "responses"]
FIGURES: Figures = {"responses": {"kept": 3, "dropped": 1}}


@pytest.fixture
def log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(display, "snapshot", lambda: FIGURES)
    monkeypatch.setattr(display, "_FRAME_SECONDS", 0.02)
    log = setup_driver(tmp_path)
    yield tmp_path / FILE
    log.close()


def run_a_stage(log_file: Path) -> None:
    descriptor = sys.stderr.fileno()
    with Display(NAMES, 0.05) as shown:
        shown.begin("responses", 8)
        os.write(descriptor, b"native code speaks\n")
        end = time.monotonic() + 20
        while time.monotonic() < end and "4 of 8 rows" not in log_file.read_text():
            time.sleep(0.02)
        logging.getLogger("selfalign_ray.test").warning("mind this")
        shown.end("responses", {"kept": 3, "no_code": 5}, 0.3)


def read_all(terminal: int, parts: list[bytes]) -> None:
    """Reads until the other end is closed."""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            parts.append(part)


def test_plain_lines_where_no_terminal_is(
    log_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run_a_stage(log_file)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "responses: begins, 8 rows"
    assert "responses: 4 of 8 rows" in lines
    assert lines[-1] == "responses: 3 kept, 5 dropped (no_code 5) in 0.3 s"
    assert "\x1b" not in "".join(lines)


def test_what_is_left_of_a_stage_is_no_longer_told_once_it_is_done(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, Mapping[str, float]]] = []
    monkeypatch.setattr(display, "set_gauges", lambda *said: told.append(said))
    run_a_stage(log_file)
    assert ("time", {"responses.expected_rows": 8.0}) in told
    assert told[-1] == ("time", {})


def test_what_was_known_is_shown_on_while_the_tally_does_not_answer(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: Iterator[Figures | None] = itertools.chain([FIGURES], itertools.repeat(None))
    monkeypatch.setattr(display, "snapshot", lambda: next(answers))
    run_a_stage(log_file)
    assert "responses: 4 of 8 rows" in log_file.read_text()


def test_a_live_table_on_a_terminal(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    main, terminal = pty.openpty()
    parts: list[bytes] = []
    reader = threading.Thread(target=read_all, args=(main, parts))
    reader.start()
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        run_a_stage(log_file)
        stderr.write("the terminal is given back\n")
        monkeypatch.undo()
    reader.join()
    os.close(main)
    shown = b"".join(parts).decode()
    assert "4/8  50 %" in shown
    assert "the terminal is given back" in shown
    assert "WARNING selfalign_ray.test: mind this" in shown
    assert "begins" not in shown  # the table shows it; the file says it
    assert "native" not in shown
    assert "begins" in log_file.read_text()
    assert "native code speaks\n" in log_file.read_text()
    assert "3 kept" in shown.replace("  ", "")


def test_an_error_ends_the_display(log_file: Path) -> None:
    shown = Display(NAMES, 1)

    def interrupted() -> None:
        with shown:
            shown.begin("responses", 8)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not shown._thread.is_alive()
