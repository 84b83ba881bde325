"""A program in two processes: the solution in one, its tests, which decide, in the other.

The tests reach the solution by messages only, so nothing that it does to its own process can make
them pass. What cannot cross (a test that subclasses the solution's class, say) fails.
"""

from __future__ import annotations

import builtins
import gc
import random
import socket
import types
from collections.abc import Mapping
from typing import Any

from selfalign_ray.sandbox.channel import Channel, EndError
from selfalign_ray.sandbox.peers import GoneError, Peer, StandinClass
from selfalign_ray.sandbox.runner import (
    TESTS,
    finish,
    load,
    names_of,
    new_main,
    run_tests,
)


def run_solution(channel: Channel, link: socket.socket, options: Mapping[str, Any]) -> None:
    """Loads the solution and serves what it defines until the tests are over."""
    main = new_main()
    load(channel, main, options)
    channel.say("loaded 0")
    names = {k: v for k, v in vars(main).items() if not k.startswith("__")}
    peer = Peer(link, trusted=False)
    try:
        peer.send(names)
    except GoneError:
        return
    peer.serve()


def run_split_tests(channel: Channel, link: socket.socket, _: Mapping[str, Any]) -> None:
    """Runs the tests on what the other process defines."""
    channel.text()  # the code's place, empty here
    source = channel.text()
    main = new_main()
    wanted = _names(source)
    gc.enable()
    random.seed(source.encode("utf-8", "surrogatepass"))
    peer = Peer(link, trusted=True)
    try:
        names = peer.receive()
    except GoneError:
        raise EndError("exception", "the code did not load") from None
    _define(main, names, wanted)
    peer.classes = tuple(
        v for k, v in vars(main).items() if k in wanted and isinstance(v, StandinClass)
    )
    failed = run_tests(channel, main, source)
    finish()
    if failed:
        raise failed


def _define(main: types.ModuleType, names: Mapping[str, Any], wanted: set[str]) -> None:
    """Gives the tests the solution's names, but no tool of theirs in a version of its own.

    A name of a builtin counts as the solution's only where the tests use no other of its names.
    """
    own = {name for name in names if not hasattr(builtins, name)}
    chosen = own if own & wanted else set(names)
    vars(main).update({name: names[name] for name in chosen if not name.startswith("__")})


def _names(source: str) -> set[str]:
    try:
        return names_of([compile(source, TESTS, "exec", dont_inherit=True)])
    except (SyntaxError, ValueError, RecursionError):
        return set()  # said when the tests are run
