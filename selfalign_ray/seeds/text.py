r"""Whether bytes or a text are Python source: the text with its lines ended by "\n", or why not."""

from __future__ import annotations

import codecs
import io
import re
import tokenize

# What decoding arbitrary bytes raises. SyntaxError: an unknown encoding or two that contradict.
# LookupError: one that is not for text. AssertionError, OverflowError: codecs such as punycode on
# bytes they never made.
_ERRORS = (SyntaxError, LookupError, ValueError, AssertionError, OverflowError)
# Codecs of host names, whose time grows with the square of the text.
_REFUSED = ("idna", "punycode")


def decode(data: bytes, encoding: str | None = None) -> tuple[str | None, str | None]:
    """The text, or the reason why there is none: empty, binary, unknown_codec or bad_encoding.

    Args:
        data: a file.
        encoding: Python's name of its codec; None: what the file declares as Python reads it
            (PEP 263), else UTF-8.
    """
    if not data.strip():
        return None, "empty"
    if encoding is None and b"\0" in data:
        return None, "binary"
    try:
        if encoding is None:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        if codecs.lookup(encoding).name in _REFUSED:
            return None, "unknown_codec"
    except LookupError:
        return None, "unknown_codec"
    except _ERRORS:
        return None, "bad_encoding"
    try:
        return clean(data.decode(encoding))
    except _ERRORS:
        return None, "bad_encoding"


def clean(text: str) -> tuple[str | None, str | None]:
    """The text of a file that was decoded before, or the reason why it is none."""
    if not text.strip():
        return None, "empty"
    try:
        text.encode("utf-8")  # some codecs, and JSON, let lone surrogates through
    except UnicodeEncodeError:
        return None, "bad_encoding"
    if "\0" in text:
        return None, "binary"
    return re.sub(r"\r\n?", "\n", text.removeprefix("\ufeff")), None
