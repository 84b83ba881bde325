"""What a source lists: files by place and licence, before any content is read."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from selfalign_ray.seeds.licenses import Offer


class ListedFile(NamedTuple):
    """One file of a source."""

    repository: str
    revision: str | None
    path: str  # inside the repository, with "/"
    location: bytes  # where a worker opens it
    offer: Offer


def text_of(path: str | bytes) -> str:
    """A path as text that UTF-8 can write: bytes that are no UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")


def matcher(globs: Iterable[str]) -> Callable[[str], bool]:
    """Whether "/" and a path match one of the globs, in which "*" crosses "/"."""
    patterns = [fnmatch.translate(glob) for glob in globs]
    if not patterns:
        return lambda _path: False
    match = re.compile("|".join(patterns)).match
    return lambda path: match("/" + path) is not None
