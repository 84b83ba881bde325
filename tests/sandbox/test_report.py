import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.sandbox.report import one_line, read

NONCE = bytes(range(16))
MARK = NONCE.hex().encode()
GOOD = b"loaded 2\n1 passed\n2 passed\nend " + MARK + b" passed \n"


def test_a_complete_report_passes():
    report = read(GOOD, NONCE)
    assert (report.end, report.forged, report.run, report.total) == ("passed", False, 2, 2)


def test_failed_tests_are_named():
    text = b"loaded 3\n1 passed\n2 assertion x\n3 exception y\nend " + MARK + b" assertion x\n"
    report = read(text, NONCE)
    assert report.failed == [1, 2]
    assert (report.end, report.detail) == ("assertion", "x")


def test_what_ran_before_a_sample_was_stopped_is_known():
    report = read(b"suspicious gc\nloaded 3\n1 passed\n2 assertion x\n", NONCE)
    assert (report.suspicions, report.run, report.failed, report.end) == (["gc"], 2, [1], "")


@pytest.mark.parametrize(
    "text",
    [
        b"passed\n",
        GOOD + b"x",
        GOOD + b"x\n",
        GOOD + GOOD,
        GOOD.replace(b"2 passed\n", b""),  # fewer tests than there are
        GOOD.replace(b"loaded 2\n", b""),
        GOOD.replace(b"2 passed", b"2 assertion"),  # passed, with a failed test
        GOOD.replace(b"2 passed", b"3 passed"),
        GOOD.replace(b"2 passed\n", b"2 passed\n3 passed\n"),
        GOOD.replace(MARK, b"0" * 32),
        GOOD.replace(MARK, b""),
        GOOD.replace(b"loaded 2", b"loaded -2"),
        GOOD.replace(b"loaded 2", b"loaded 2\nloaded 2"),
        GOOD[:-1],
        b"\xff" + GOOD,
    ],
)
def test_a_report_that_is_not_whole_is_forged(text):
    report = read(text, NONCE)
    assert report.forged


@given(st.binary(max_size=200))
def test_no_bytes_pass_without_the_nonce(text):
    report = read(text, NONCE)
    assert report.end != "passed" or MARK in text


@given(st.text())
def test_one_line_is_one_line_of_utf8(text):
    line = one_line(text)
    assert "\n" not in line
    assert len(line.encode()) <= 4 * 300
