"""text: what is Python source, and the reason for all that is none."""

from __future__ import annotations

import encodings
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.seeds.text import clean, decode
from tests.support import cpu_seconds_at_most


@pytest.mark.parametrize(
    ("data", "text", "reason"),
    [
        (b"x = 1\n", "x = 1\n", None),
        ("é = 1\n".encode(), "é = 1\n", None),
        ("é = 1\n".encode("utf-8-sig"), "é = 1\n", None),
        ("# coding: latin-1\né = 1\n".encode("latin-1"), "# coding: latin-1\né = 1\n", None),
        (b"a\r\nb\rc\n", "a\nb\nc\n", None),
        (b"", None, "empty"),
        (b" \r\n\t", None, "empty"),
        (b"a\0b", None, "binary"),
        ("x = 1".encode("utf-16"), None, "binary"),
        ("é = 1\n".encode("latin-1"), None, "bad_encoding"),
        (b"# coding: nonesuch\nx", None, "bad_encoding"),
        (b"# coding: rot13\nx", None, "bad_encoding"),
        (b"# coding: hex\nx", None, "bad_encoding"),
        (b"# coding: undefined\nx", None, "bad_encoding"),
        (b"# coding: unicode_escape\n\\ud800", None, "bad_encoding"),
        (b"# coding: unicode_escape\n\\0", None, "binary"),
        (b"\xef\xbb\xbf# coding: latin-1\nx", None, "bad_encoding"),
        (b"# coding: punycode\n# -aaaa", None, "unknown_codec"),
        (b"# coding: IDNA\n# .xn--aaaa", None, "unknown_codec"),
    ],
)
def test_decode(data, text, reason):
    assert decode(data) == (text, reason)


ALL_CODECS = sorted(module.name for module in pkgutil.iter_modules(encodings.__path__))


@pytest.mark.parametrize("start", [b"-", b".xn--", b"+", b"\x1b$B", b"\\u", b"~{"])
def test_no_codec_takes_long(start):
    text = start + b"a" * 1_000_000
    with cpu_seconds_at_most(10):
        for codec in ALL_CODECS:
            decode(f"# coding: {codec}\n# ".encode() + text)
            decode(text, codec)


CODECS = ["utf-8", "utf-7", "idna", "punycode", "cp037", "shift_jis", "utf-16", "zlib", "\0"]


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["", *CODECS]) | st.text(max_size=9))
def test_decode_of_any_bytes_is_text_or_a_reason(data, codec):
    head = f"# coding: {codec}\n".encode() if codec else b""
    text, reason = decode(head + data)
    assert (text is None) != (reason is None)
    assert text is None or "\r" not in text
    assert text is None or text.encode()


@pytest.mark.parametrize(
    ("data", "encoding", "text", "reason"),
    [
        ("é = 1\n".encode("latin-1"), "ISO-8859-1", "é = 1\n", None),
        ("é = 1\n".encode("utf-16"), "UTF-16", "é = 1\n", None),
        ("é = 1\n".encode("gb18030"), "GB18030", "é = 1\n", None),
        ("é = 1\n".encode("utf-8-sig"), "UTF-8", "é = 1\n", None),
        (b"# coding: latin-1\n\xe9", "UTF-8", None, "bad_encoding"),
        (b"x = 1", "KOI8-X-nonesuch", None, "unknown_codec"),
        (b"x = 1", "a\0b", None, "bad_encoding"),
        (b"x = 1", "hex", None, "bad_encoding"),
        (b"x = 1\0", "UTF-8", None, "binary"),
        (b" ", "UTF-8", None, "empty"),
    ],
)
def test_a_codec_that_is_given(data, encoding, text, reason):
    assert decode(data, encoding) == (text, reason)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=50))
def test_any_text(given_text):
    text, reason = clean(given_text)
    assert (text is None) != (reason is None)
    assert text is None or text.encode()
