import signal

import pytest

from selfalign_ray.sandbox.verdict import Outcome, read

NONCE = bytes(16)
PASS = b"loaded 0\nend " + NONCE.hex().encode() + b" passed \n"


def verdict(**changes):
    return read(Outcome(nonce=NONCE, **changes), cpu_limit=5.0).verdict


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"report": PASS}, "passed"),
        ({"report": PASS, "status": 1 << 8}, "exception"),
        ({"report": b""}, "exception"),
        ({"report": PASS, "status": signal.SIGSYS}, "sandbox_violation"),
        ({"report": PASS, "stopped": "timeout"}, "timeout"),
        ({"report": PASS, "infra": "the zygote died"}, "infra"),
        ({"report": PASS + b"x"}, "sandbox_violation"),
        ({"status": signal.SIGKILL}, "infra"),
        ({"status": signal.SIGKILL, "cpu_seconds": 7.0}, "timeout"),
        ({"status": signal.SIGSEGV}, "exception"),
        ({"status": signal.SIGABRT, "stderr": b"MemoryError"}, "out_of_memory"),
        ({"status": signal.SIGTERM << 8, "report": PASS}, "exception"),
        ({"status": 31 << 8, "report": PASS}, "exception"),
        ({"status": signal.SIGKILL, "may_kill": True}, "exception"),
        ({"report": b"infra OSError\n", "status": 1 << 8}, "infra"),
    ],
)
def test_a_verdict_follows_from_how_the_process_ended(outcome, expected):
    assert verdict(**outcome) == expected
