"""Listing: globs and paths."""

from __future__ import annotations

import pytest

from selfalign_ray.seeds.sources.listing import matcher, text_of


@pytest.mark.parametrize(
    ("globs", "path", "matches"),
    [
        (["*/tests/*"], "tests/a.py", True),
        (["*/tests/*"], "p/q/tests/r/a.py", True),
        (["*/tests/*"], "p/latests/a.py", False),
        (["*_pb2.py"], "p/a_pb2.py", True),
        (["*_pb2.py"], "p/a_pb2.pyi", False),
        (["*/.*/*"], "a/.git/x.py", True),
        (["*/.*/*"], "a/b.py", False),
        (["*.txt", "*.py"], "a.py", True),
        (["/setup.py"], "setup.py", True),
        (["/setup.py"], "a/setup.py", False),
        ([], "a.py", False),
    ],
)
def test_matcher(globs, path, matches):
    assert matcher(globs)(path) is matches


def test_a_path_that_is_no_text_becomes_some():
    assert text_of(b"a/\xff.py") == "a/�.py"
    assert text_of("a/\udcff.py") == "a/�.py"
