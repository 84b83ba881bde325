"""What ends a run and is no fault of the code's: told in a line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """A wrong setting, path, model or machine: exit code 2.

    The message names the key or path and says what to do.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text  # Ray Data adds advice of its own to the arguments of a worker's error

    def __str__(self) -> str:
        return self._text


class TakenError(UserError):
    """The run is another process's, which this one leaves alone."""


class StoppedError(Exception):
    """The run was asked to end, and what was in flight is written: exit code 130.

    The message says how far it got.
    """


def first_line(error: BaseException) -> str:
    """The first line of what a library's error says, its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
