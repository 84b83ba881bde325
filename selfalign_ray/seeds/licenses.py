"""Which licence covers a file: SPDX identifiers from expressions, package metadata and texts.

Nothing is guessed: a name or text that is not known gives no licence, and where several are found
without a word on how they combine, all of them apply.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from selfalign_ray.seeds.license_texts import identify, words

# A licence offer: one of the tuples may be chosen, and of that one every identifier applies.
# Empty where the licence is not known.
Offer = tuple[tuple[str, ...], ...]

UNKNOWN: Offer = ()

# "BSD License" says neither which one nor that it is none of the four; the licence file does.
SOME_BSD = "BSD"

_FILLERS = ("the", "license", "licence")
# Identifiers, each with other names that packages use, these without case, "the", "license" and
# punctuation (see `_plain`).
_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "0BSD": (),
    "AFL-3.0": (),
    "AGPL-3.0-only": ("gnu affero general public v3",),
    "AGPL-3.0-or-later": ("gnu affero general public v3 or later agplv3",),
    "Apache-2.0": (
        "apache",
        "apache 2",
        "apache2",
        "apache v2",
        "apache v2 0",
        "apache version 2 0",
        "apache software",
        "apache software 2 0",
    ),
    SOME_BSD: (),
    "BSD-1-Clause": (),
    "BSD-2-Clause": ("2 clause bsd", "simplified bsd"),
    "BSD-3-Clause": ("3 clause bsd", "modified bsd", "new bsd"),
    "BSL-1.0": ("boost software 1 0 bsl 1 0",),
    "CC0-1.0": ("cc0 1 0 universal cc0 1 0 public domain dedication",),
    "CNRI-Python": (),
    "EUPL-1.2": (),
    "GPL-2.0-only": ("gnu general public v2 gplv2", "gplv2"),
    "GPL-2.0-or-later": ("gnu general public v2 or later gplv2",),
    "GPL-3.0-only": ("gnu general public v3 gplv3", "gplv3"),
    "GPL-3.0-or-later": ("gnu general public v3 or later gplv3",),
    "HPND": ("historical permission notice and disclaimer hpnd",),
    "ISC": ("isc iscl",),
    "LGPL-2.0-only": ("gnu lesser general public v2 lgplv2",),
    "LGPL-2.0-or-later": ("gnu lesser general public v2 or later lgplv2",),
    "LGPL-2.1-only": (),
    "LGPL-2.1-or-later": (),
    "LGPL-3.0-only": ("gnu lesser general public v3 lgplv3", "lgplv3"),
    "LGPL-3.0-or-later": ("gnu lesser general public v3 or later lgplv3",),
    "MIT": (),
    "MIT-0": ("mit no attribution mit 0",),
    "MIT-CMU": (),
    "MPL-2.0": ("mozilla public 2 0 mpl 2 0", "mozilla public v 2 0", "mozilla public version 2 0"),
    "PSF-2.0": ("psf", "python software foundation"),
    "Python-2.0": (),
    "Unlicense": ("unlicense unlicense",),
    "Zlib": ("zlib libpng",),
    "ZPL-2.1": ("zope public",),
}
_NAMES = {words(name): known for known, others in _OTHER_NAMES.items() for name in (known, *others)}

_TOKEN = re.compile(r"[()]|[^\s()]+")
_MAX_TOKENS = 40  # of an expression: keeps what OR and AND multiply out to small
_MAX_CHOICES = 1000  # of an offer: several such expressions that all apply multiply out too


def judge(offer: Offer, allowed: Collection[str] | None) -> tuple[list[str], str | None]:
    """The licences to record for a file, and the reason to drop it.

    Args:
        offer: what was found.
        allowed: SPDX identifiers; None allows all, and files of unknown licence.

    Returns:
        The first choice of the offer that is allowed, or everything the offer names; and None,
        "license_unknown" or "license_not_allowed".
    """
    if not offer:
        return [], None if allowed is None else "license_unknown"
    for choice in offer:
        # An exception (WITH) only takes conditions away.
        if allowed is None or all(name.split(" WITH ")[0] in allowed for name in choice):
            return list(choice), None
    return sorted({name for choice in offer for name in choice}), "license_not_allowed"


def from_expression(text: str) -> Offer:
    """The offer of an SPDX expression; UNKNOWN where it is none or names an unknown licence."""
    tokens = _TOKEN.findall(text)
    if not tokens or len(tokens) > _MAX_TOKENS:
        return UNKNOWN
    offer, rest = _either(tokens)
    return UNKNOWN if rest else offer


def from_phrase(said: Sequence[str]) -> Offer | None:
    """The offer of the longest name that the words of a sentence begin with; None for no name.

    UNKNOWN where a version or "style" follows that the name does not have.
    """
    said = [word for word in said if word not in _FILLERS]
    for length in range(len(said), 0, -1):
        name = _NAMES.get(" ".join(said[:length]))
        if name is not None:
            after = "".join(said[length : length + 1])
            other = after in ("version", "style", "like") or re.fullmatch(r"v?\d+", after)
            return UNKNOWN if other and name != SOME_BSD else ((name,),)
    return None


def from_metadata(
    expression: str | None, field: str | None, classifiers: Iterable[str], texts: Sequence[str]
) -> Offer:
    """The offer of a Python package.

    Args:
        expression: its License-Expression, which speaks alone where there is one.
        field: its older License: a name, an expression or the whole text.
        classifiers: its Classifier lines.
        texts: its licence files; asked where the others name nothing or just "BSD".
    """
    if expression:
        return from_expression(expression)
    named = [_from_field(field)] if field and field.strip().lower() != "unknown" else []
    for classifier in classifiers:
        parts = [part.strip() for part in classifier.split("::")]
        if parts[0] == "License" and parts[-1] not in ("License", "OSI Approved"):
            named.append(_from_name(parts[-1]))
    if UNKNOWN in named:
        return UNKNOWN
    offer = all_of(named)
    exact = _without_some_bsd(offer)
    return exact if exact is not UNKNOWN else from_texts(texts)


def from_texts(texts: Sequence[str]) -> Offer:
    """The offer of licence files that lie together: all of them apply, and all must be known."""
    found = [_identify(text) for text in texts]
    return UNKNOWN if UNKNOWN in found else all_of(found)


def _identify(text: str) -> Offer:
    names = identify(text)
    return (names,) if names else UNKNOWN


def _from_field(field: str) -> Offer:
    if len(field) > 200:
        return _identify(field)
    return _from_name(field) or from_expression(field)


def _from_name(name: str) -> Offer:
    found = _NAMES.get(_plain(name))
    return ((found,),) if found else UNKNOWN


def _plain(name: str) -> str:
    return " ".join(word for word in words(name).split() if word not in _FILLERS)


def all_of(offers: Sequence[Offer]) -> Offer:
    """The offer of licences that all apply; UNKNOWN for none, or where it has too many choices."""
    if not offers:
        return UNKNOWN
    total: Offer = ((),)
    for offer in offers:
        if len(total) * len(offer) > _MAX_CHOICES:
            return UNKNOWN
        total = tuple(dict.fromkeys(_joined(left, right) for left in total for right in offer))
    return total


def _joined(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*left, *right]))


def _without_some_bsd(offer: Offer) -> Offer:
    """`offer` without "some BSD licence" where it names which one, else UNKNOWN."""
    exact = []
    for choice in offer:
        names = tuple(name for name in choice if name != SOME_BSD)
        if len(names) < len(choice) and not any(name.startswith("BSD-") for name in names):
            return UNKNOWN
        exact.append(names)
    return tuple(exact)


def _either(tokens: list[str]) -> tuple[Offer, list[str]]:
    """The offer of the longest `a OR b` that the tokens begin with, and the tokens after it."""
    offer, rest = _both(tokens)
    while offer and rest and rest[0].upper() == "OR":
        right, rest = _both(rest[1:])
        offer = tuple(dict.fromkeys(offer + right)) if right else UNKNOWN
    return offer, rest


def _both(tokens: list[str]) -> tuple[Offer, list[str]]:
    offer, rest = _one(tokens)
    while offer and rest and rest[0].upper() == "AND":
        right, rest = _one(rest[1:])
        offer = all_of([offer, right]) if right else UNKNOWN
    return offer, rest


def _one(tokens: list[str]) -> tuple[Offer, list[str]]:
    if not tokens:
        return UNKNOWN, tokens
    if tokens[0] == "(":
        offer, rest = _either(tokens[1:])
        return (offer, rest[1:]) if rest[:1] == [")"] else (UNKNOWN, rest)
    offer, rest = _without_some_bsd(_from_name(tokens[0])), tokens[1:]
    if offer and len(rest) > 1 and rest[0].upper() == "WITH":
        return ((f"{offer[0][0]} WITH {rest[1]}",),), rest[2:]
    return offer, rest
