"""child: an item that ends the process costs that item, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from functools import partial

import pytest

from selfalign_ray.seeds import child
from selfalign_ray.seeds.child import Died, Limits, answers

LIMITS = Limits(1, 512)


def crash() -> None:
    ctypes.string_at(0)


def spin() -> None:
    while True:
        pass


def hoard() -> bytes:
    return b"x" * (1 << 30)


def leave() -> None:
    os._exit(0)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def chatter() -> int:
    sys.stdout.write("noise")
    sys.stdout.flush()
    return 3


def call(name: str) -> object:
    return {f.__name__: f for f in (crash, spin, hoard, leave, kill, chatter)}[name]()


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("crash", Died("parser_died")),
        ("spin", Died("parse_timeout")),
        ("hoard", Died("parser_died")),
        ("leave", Died("parser_died")),
        ("kill", Died("parser_died")),
        ("chatter", 3),
    ],
)
def test_what_an_item_may_do(name, answer):
    items = [("chatter",), (name,), ("chatter",)]
    assert list(answers(call, items, LIMITS)) == [3, answer, 3]


def test_answers_keep_their_order_and_size():
    items = [("x" * size,) for size in (0, 1, 10**7, 3, 10**6)]
    assert list(answers(len, items, LIMITS)) == [0, 1, 10**7, 3, 10**6]


def test_a_process_that_others_kill_is_asked_again():
    assert list(answers(len, [("a",), ("bc",)], LIMITS)) == [1, 2]
    os.kill(child._child(LIMITS)._process.pid, signal.SIGKILL)
    assert list(answers(len, [("a",), ("bc",)], LIMITS)) == [1, 2]


def test_items_go_many_to_a_question(monkeypatch):
    asked = []
    send = child._send
    monkeypatch.setattr(
        child, "_send", lambda pipe, sent: (asked.append(sent[1]), send(pipe, sent))
    )
    items = [("x" * size,) for size in (1, 2, child._QUESTION_BYTES, 3, 4)]
    assert list(answers(len, items, LIMITS)) == [1, 2, child._QUESTION_BYTES, 3, 4]
    assert [len(question) for question in asked] == [3, 2]


@pytest.mark.parametrize("name", ["struct", "selfalign_ray"])
def test_modules_where_the_job_runs_are_not_taken_for_its_own(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text("raise SystemExit\n")
    fresh = LIMITS._replace(seconds=2 + len(name))
    assert list(answers(len, [("a",), ("bc",)], fresh)) == [1, 2]


def test_a_mistake_in_the_function_is_told():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(answers(divmod, [(1, 0)], LIMITS))


def test_the_clock_counts_one_item_alone():
    work = partial(sum, range(10**6))
    assert len(list(answers(work, [()] * 100, LIMITS))) == 100
