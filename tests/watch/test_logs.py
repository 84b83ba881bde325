import logging
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.watch.logs import (
    FILE,
    QUIET,
    RunLog,
    console_text,
    file_text,
    setup_driver,
)
from selfalign_ray.watch.outbox import Line
from selfalign_ray.watch.tally import start_tally, stop_tally

OURS = logging.getLogger("selfalign_ray.test")
OTHER = logging.getLogger("someone.else")
_HEAD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (INFO|WARNING|ERROR) +\S+ \[.+\] ")


@pytest.fixture
def run_log(tmp_path: Path) -> Iterator[RunLog]:
    log = setup_driver(tmp_path, secrets=["correct-horse"])
    yield log
    log.close()


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_no_text_can_forge_a_line(text: str) -> None:
    lines = file_text(Line(0.0, logging.INFO, "x", "driver", text)).removesuffix("\n").split("\n")
    assert _HEAD.match(lines[0])
    assert all(line.startswith("    ") for line in lines[1:])


def test_the_console_gets_one_line() -> None:
    long = Line(0.0, logging.ERROR, "x.y", "driver", "went wrong\nTraceback\n  more")
    assert console_text(long) == "ERROR x.y: went wrong ... (all of it in pipeline.log)"
    assert console_text(Line(0.0, logging.INFO, "x", "driver", "done")) == "done"


def test_what_goes_where(
    run_log: RunLog, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    OURS.info("ours")
    OURS.info("ours, quiet", extra=QUIET)
    OURS.debug("nobody wants this")
    OTHER.info("chatter")
    OTHER.warning("theirs")
    OURS.warning("mind this")
    warnings.warn("an old way", FutureWarning, stacklevel=1)
    run_log.close()
    text = (tmp_path / FILE).read_text()
    shown = capfd.readouterr().err
    for said, in_file, on_console in (
        ("ours\n", True, True),
        ("ours, quiet", True, False),
        ("nobody", False, False),
        ("chatter", False, False),
        ("theirs", True, False),
        ("mind this", True, True),
        ("an old way", True, False),
    ):
        assert (said in text, said in shown) == (in_file, on_console), said


def test_secrets_are_masked(run_log: RunLog, tmp_path: Path) -> None:
    OURS.info("the password is %s", "correct-horse")
    run_log.close()
    assert "the password is ***" in (tmp_path / FILE).read_text()


def test_a_warning_said_often_is_shown_three_times(
    run_log: RunLog, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(50):
        OURS.warning("row %d is odd", number)
    run_log.close()
    assert (tmp_path / FILE).read_text().count("is odd") == 50
    assert capfd.readouterr().err.count("is odd") == 3


def test_surrogates_and_tracebacks(run_log: RunLog, tmp_path: Path) -> None:
    try:
        int("lone \ud800 surrogate")
    except ValueError:
        OURS.exception("row %s failed", "\udcff")
    run_log.close()
    text = (tmp_path / FILE).read_text()
    assert "row \\udcff failed" in text
    assert (
        "    ValueError: invalid literal for int() with base 10: 'lone \\ud800 surrogate'" in text
    )


def test_the_next_run_has_its_own_file(tmp_path: Path) -> None:
    setup_driver(tmp_path / "a")
    OURS.info("to a")
    log = setup_driver(tmp_path / "b")
    OURS.info("to b")
    log.close()
    assert "to b" not in (tmp_path / "a" / FILE).read_text()
    assert "to a" not in (tmp_path / "b" / FILE).read_text()


def test_a_run_that_goes_on_keeps_its_log(tmp_path: Path) -> None:
    for text in ("first", "second"):
        log = setup_driver(tmp_path)
        OURS.info(text)
        log.close()
    assert [text in (tmp_path / FILE).read_text() for text in ("first", "second")] == [True, True]


@pytest.mark.ray
def test_worker_records_reach_the_file(
    ray_local: None, run_log: RunLog, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    start_tally()

    @ray.remote(num_cpus=1)
    def work(number: int) -> None:
        OURS.info("row %d, token=abcdefgh1234", number)
        OTHER.warning("theirs %d", number)
        OURS.warning("mind %d", number)
        OTHER.info("chatter")

    ray.get([work.remote(number) for number in range(3)])
    end = time.monotonic() + 20
    while time.monotonic() < end and (tmp_path / FILE).read_text().count("theirs") < 3:
        time.sleep(0.2)
    stop_tally()
    run_log.close()
    lines = (tmp_path / FILE).read_text().splitlines()
    for number in range(3):
        (line,) = [line for line in lines if f"row {number}," in line]
        assert re.search(
            r"INFO +selfalign_ray\.test \[worker \d+@\S+\] row \d, token=\*\*\*$", line
        )
    assert not [line for line in lines if "chatter" in line]
    shown = capfd.readouterr().err
    assert "mind 0" in shown
    assert "theirs" not in shown
    assert "row 0" not in shown


@pytest.mark.ray
def test_lines_said_just_before_the_tally_stops_are_not_lost(
    ray_local: None, run_log: RunLog, tmp_path: Path
) -> None:
    from selfalign_ray.watch import tally

    start_tally()
    tally.log_line(Line(time.time(), logging.INFO, "x", "worker", "last words"))
    stop_tally()
    run_log.close()
    assert "last words" in (tmp_path / FILE).read_text()
