"""What a file says of its own licence at its head, where a package or repository says another.

Read are the comments, the docstring and `__license__` at a module's top level, in its first few
thousand characters: SPDX lines, whole licence texts, the titles of copyleft licences, and sentences
such as "Licensed under the ...".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from selfalign_ray.seeds.license_texts import whole, words
from selfalign_ray.seeds.licenses import (
    SOME_BSD,
    UNKNOWN,
    Offer,
    all_of,
    from_expression,
    from_phrase,
    judge,
)

_CHARS = 8192  # of a file; the longest notices have 3,000
# One of these stands in whatever is read below; most files have none.
_HINTS = ("licens", "licenc", "permission", "permitted", "gpl", "creative commons")
_COMMENT = re.compile(r"^(?:#|(?=__licen[cs]e__))(.*)", re.MULTILINE)
_DOCSTRING = re.compile(
    r"(?:[ \t\f]*(?:#[^\n]*)?\n)*+[rRuU]?(?:\"\"\"(.*?)(?:\"\"\"|\Z)|'''(.*?)(?:'''|\Z))", re.DOTALL
)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n]*)", re.IGNORECASE)
_FIELD = re.compile(
    r"^(?:[^\w\n]*licen[cs]e[^\w\n]*:|__licen[cs]e__[ \t]*=)([^\n]*)", re.IGNORECASE | re.MULTILINE
)
_URL = re.compile(r"\bhttps?:\S+")
_KNOWN_WORD = re.compile(
    r"\b(?:apache|bsd|mit|[al]?gpl|mpl|cddl|epl|proprietary|commercial)", re.IGNORECASE
)
# The patterns below are for the words that `license_texts.words` leaves.
# Where these are left when the whole licences are taken out, one was changed or is not known.
_BEGUN = re.compile(
    r"\bpermission is hereby granted\b|\bpermission to use copy\b"
    r"|\bredistributions? and use in source\b|\blicense agreement\b"
)
_UNDER = re.compile(
    r"\b(?:(?:licensed|distributed|released|available|published|provided) under"
    r"|(?:covered|governed) by|subject to)"
    r"(?: the)?(?: terms(?: and conditions)? of)?(?: both| either)?(?: the| an?)?"
    r"((?: [a-z0-9]+){1,9})"
)
_ELSEWHERE = ("license", "licence", "licenses", "licences", "terms", "same", "following", "gnu")
_GNU = re.compile(
    r"\bgnu (lesser |library |affero )?(?:general )?public licen[cs]e"
    r"(?: as published by the free software foundation)?(?: either)?"
    r"(?: version (\d(?: \d)?))?( of the licen[cs]e or at your option any later| or later)?"
)
_GNU_KINDS = {"": "GPL", "lesser ": "LGPL", "library ": "LGPL", "affero ": "AGPL"}
_COPYLEFT = re.compile(
    r"\b((?:mozilla|eclipse|european union|server side) public licen[cs]e(?: [a-z0-9]+){0,4}"
    r"|common development and distribution licen[cs]e|business source licen[cs]e"
    r"|creative commons attribution|commons clause|[al]?gpl licen[cs]e)\b"
)


def offer_of(content: str) -> Offer | None:
    """The licence that a file's head states; None where it states none, or points to its package's.

    Of several, all apply.
    """
    beginning = content[:_CHARS]
    lower = beginning.lower()  # five times as fast as a pattern that ignores case
    if not any(hint in lower for hint in _HINTS):
        return None
    offers = list(_stated(_head(beginning)))
    if not offers:
        return None
    return UNKNOWN if UNKNOWN in offers else all_of(offers)


def judged(
    content: str, licenses: Sequence[str], allowed: Collection[str] | None
) -> tuple[list[str], str | None]:
    """The licences to record for a file that was allowed by its package's, and why to drop it.

    Args:
        content: the file.
        licenses: those recorded so far.
        allowed: as `licenses.judge` has it.

    Returns:
        The same licences where its head agrees, else them with its own; and None,
        "license_unknown" or "license_not_allowed".
    """
    stated = offer_of(content)
    if stated is None:
        return list(licenses), None
    if any(name.startswith("BSD-") for name in licenses):
        stated = tuple(tuple(name for name in choice if name != SOME_BSD) for choice in stated)
    if any(set(choice) <= set(licenses) for choice in stated):
        return list(licenses), None
    if any(SOME_BSD in choice for choice in stated) or not stated:
        return list(licenses), None if allowed is None else "license_unknown"
    return judge(all_of([(tuple(licenses),), stated]), allowed)


def with_head(row: dict[Any, Any], allowed: Collection[str] | None) -> dict[Any, Any]:
    """A file's row after `judged`; one without content passes through."""
    if row["content"] is None:
        return row
    licenses, reason = judged(row["content"], row["licenses"] or (), allowed)
    found = {"licenses": licenses, "drop_reason": reason}
    return {**row, **found, "content": row["content"] if reason is None else None}


def _head(beginning: str) -> str:
    doc = _DOCSTRING.match(beginning)
    comments = [line.lstrip("# ") for line in _COMMENT.findall(beginning)]
    return "\n".join([*comments, doc[1] or doc[2] or "" if doc else ""])


def _stated(head: str) -> Iterator[Offer]:
    for found in _SPDX.findall(head):
        yield from_expression(found.strip())
    head = _SPDX.sub("", head)
    for found in _FIELD.findall(head):
        yield from _field(_URL.sub("", found).strip(" \t\"'"))
    names, rest = whole(words(head))
    for name in names:
        yield ((name,),)
    if _BEGUN.search(rest):
        yield UNKNOWN
    yield from _copyleft(rest)
    for found in _UNDER.findall(rest):
        said = found.split()
        offer = None if said[0] in _ELSEWHERE else from_phrase(said)
        if offer is not None:
            yield offer
        elif said[0] not in _ELSEWHERE and not {"license", "licence"}.isdisjoint(said[:6]):
            yield UNKNOWN


def _field(value: str) -> Iterator[Offer]:
    offer = from_expression(value) or from_phrase(words(value).split())
    if offer is not None:
        yield offer
    elif _KNOWN_WORD.search(value):
        yield UNKNOWN


def _copyleft(rest: str) -> list[Offer]:
    """The licences of these titles; UNKNOWN where titles stand there and none says its version."""
    gnu = [
        from_expression(
            f"{_GNU_KINDS[kind]}-{version if ' ' in version else version + ' 0'}".replace(" ", ".")
            + ("-or-later" if later else "-only")
        )
        for kind, version, later in _GNU.findall(rest)
        if version
    ]
    others = [from_phrase(title.split()) for title in _COPYLEFT.findall(rest)]
    known = [offer for offer in [*gnu, *others] if offer]
    titles = others or _GNU.search(rest)
    return known or ([UNKNOWN] if titles else [])
