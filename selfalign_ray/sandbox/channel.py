"""A program's way in and its report's way out: pipes that its own code may find too.

What untrusted code can change is not used after it has run, as in `runner`.
"""

from __future__ import annotations

import builtins
import os

from selfalign_ray.sandbox.report import NONCE_BYTES

# The functions below keep the builtins of now, whatever a program does to them.
globals()["__builtins__"] = dict(vars(builtins))
_write, _read = os.write, os.read


class EndError(Exception):
    """The verdict is known."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


class Channel:
    """Both ends, in the process that runs the program."""

    def __init__(self, source: int, report: int) -> None:
        self._source, self._report = source, report
        self._texts = 2  # the code and the tests come before the nonce
        self.left = False

    def leave(self) -> None:
        """Closes it in a process that the program has forked: one report is enough."""
        if not self.left:
            self.left = True
            os.close(self._source)
            os.close(self._report)

    def say(self, line: str) -> None:
        text = b"" if self.left else (line + "\n").encode("utf-8", "backslashreplace")
        while text:
            text = text[_write(self._report, text) :]

    def take(self, size: int) -> bytes:
        """Exactly so many bytes; what is missing was read by somebody else."""
        parts = []
        while size:
            part = _read(self._source, min(size, 1 << 16))
            if not part:
                raise EndError("sandbox_violation", "the program's own channel was read or closed")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def text(self) -> str:
        """One text: its length in 8 bytes, then UTF-8 in which surrogates may stand alone."""
        self._texts -= 1
        size = int.from_bytes(self.take(8), "little")
        return self.take(size).decode("utf-8", "surrogatepass")

    def nonce(self) -> str:
        """What the worker sent last, whether the texts before it were read or not."""
        while self._texts:
            self.text()
        return self.take(NONCE_BYTES).hex()
