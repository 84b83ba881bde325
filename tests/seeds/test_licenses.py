"""Licences: what expressions, metadata and texts come to, and that nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.seeds.licenses import (
    UNKNOWN,
    all_of,
    from_expression,
    from_metadata,
    from_texts,
    judge,
)
from tests.seeds.known_licenses import APACHE, BSD_2, BSD_3, GPL, MIT, MIT_AS_IS, MIT_GRANT

PERMISSIVE = {"MIT", "Apache-2.0", "BSD-3-Clause"}


@pytest.mark.parametrize(
    ("text", "offer"),
    [
        ("MIT", (("MIT",),)),
        ("mit", (("MIT",),)),
        ("LGPL-2.0-or-later", (("LGPL-2.0-or-later",),)),
        ("MIT OR Apache-2.0", (("MIT",), ("Apache-2.0",))),
        ("MIT AND ISC", (("MIT", "ISC"),)),
        ("MIT AND (ISC OR 0BSD)", (("MIT", "ISC"), ("MIT", "0BSD"))),
        ("MIT OR ISC AND 0BSD", (("MIT",), ("ISC", "0BSD"))),
        ("(MIT)", (("MIT",),)),
        ("Apache-2.0 WITH LLVM-exception", (("Apache-2.0 WITH LLVM-exception",),)),
        ("", UNKNOWN),
        ("MIT OR", UNKNOWN),
        ("MIT MIT", UNKNOWN),
        ("(MIT", UNKNOWN),
        ("MIT)", UNKNOWN),
        ("LicenseRef-Ours", UNKNOWN),
        ("MIT AND LicenseRef-Ours", UNKNOWN),
        ("BSD", UNKNOWN),
        (" AND ".join(["MIT"] * 1000), UNKNOWN),
        ("(" * 1000, UNKNOWN),
    ],
)
def test_expression(text, offer):
    assert from_expression(text) == offer


@given(st.text(alphabet="()MITORANDWITH -.20\n\0é", max_size=80) | st.text(max_size=200))
def test_expression_of_any_text_is_an_offer(text):
    assert isinstance(from_expression(text), tuple)


@pytest.mark.parametrize(
    ("expression", "field", "classifiers", "texts", "offer"),
    [
        ("MIT", "GPLv3", ["License :: Other/Proprietary License"], [GPL], (("MIT",),)),
        ("LicenseRef-Ours", "MIT", [], [MIT], UNKNOWN),
        (None, "Apache License, Version 2.0", [], [], (("Apache-2.0",),)),
        (None, "3-Clause BSD License", [], [], (("BSD-3-Clause",),)),
        (None, "MIT OR Apache-2.0", [], [], (("MIT",), ("Apache-2.0",))),
        (None, "UNKNOWN", ["License :: OSI Approved :: MIT License"], [], (("MIT",),)),
        (None, None, ["License :: OSI Approved :: MIT License"], [GPL], (("MIT",),)),
        (None, None, ["License :: OSI Approved", "Topic :: Text"], [MIT], (("MIT",),)),
        (
            None,
            "MIT",
            ["License :: OSI Approved :: Apache Software License"],
            [],
            (("MIT", "Apache-2.0"),),
        ),
        # Neither says which BSD: the text does, or nothing does.
        (None, "BSD", ["License :: OSI Approved :: BSD License"], [BSD_3], (("BSD-3-Clause",),)),
        (None, "BSD", [], [], UNKNOWN),
        (None, "BSD", [], ["All rights reserved."], UNKNOWN),
        (None, "BSD", [], [BSD_3 + GPL], (("GPL-3.0-only", "BSD-3-Clause"),)),
        (
            None,
            "BSD-2-Clause",
            ["License :: OSI Approved :: BSD License"],
            [],
            (("BSD-2-Clause",),),
        ),
        (None, "Copyright us\n" + "x " * 200 + MIT, [], [], (("MIT",),)),
        # A name that is not known is a licence that is not known, whatever stands beside it.
        (None, "Custom", ["License :: OSI Approved :: MIT License"], [MIT], UNKNOWN),
        (None, "MIT", ["License :: Other/Proprietary License"], [MIT], UNKNOWN),
        (None, None, [], [], UNKNOWN),
        (None, None, [], [MIT, "Something else."], UNKNOWN),
    ],
)
def test_metadata(expression, field, classifiers, texts, offer):
    assert from_metadata(expression, field, classifiers, texts) == offer


def test_offers_that_multiply_out_to_thousands_are_unknown():
    names = ["MIT", "ISC", "0BSD", "Zlib", "HPND", "PSF-2.0", "BSL-1.0", "CC0-1.0", "MPL-2.0"]
    offers = [from_expression(" OR ".join(names))] * 4
    assert all_of(offers[:1]) == tuple((name,) for name in names)
    assert len(all_of(offers[:2])) == 81
    assert all_of(offers) is UNKNOWN
    assert all_of([(("MIT",),)] * 10_000) == (("MIT",),)


@pytest.mark.parametrize(
    ("texts", "offer"),
    [
        ([MIT], (("MIT",),)),
        ([MIT_GRANT + MIT_AS_IS], (("MIT-0",),)),
        ([BSD_2], (("BSD-2-Clause",),)),
        ([BSD_3], (("BSD-3-Clause",),)),
        ([MIT + GPL], (("GPL-3.0-only", "MIT"),)),
        ([APACHE, MIT], (("Apache-2.0", "MIT"),)),
        ([MIT, ""], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_texts(texts, offer):
    assert from_texts(texts) == offer


@pytest.mark.parametrize(
    ("offer", "allowed", "licenses", "reason"),
    [
        ((("MIT",),), PERMISSIVE, ["MIT"], None),
        ((("MIT", "GPL-3.0-only"),), PERMISSIVE, ["GPL-3.0-only", "MIT"], "license_not_allowed"),
        ((("GPL-3.0-only",), ("MIT",)), PERMISSIVE, ["MIT"], None),
        (
            (("Apache-2.0 WITH LLVM-exception",),),
            PERMISSIVE,
            ["Apache-2.0 WITH LLVM-exception"],
            None,
        ),
        (UNKNOWN, PERMISSIVE, [], "license_unknown"),
        (UNKNOWN, None, [], None),
        ((("GPL-3.0-only",),), None, ["GPL-3.0-only"], None),
        ((("MIT",),), [], ["MIT"], "license_not_allowed"),
    ],
)
def test_judge(offer, allowed, licenses, reason):
    assert judge(offer, allowed) == (licenses, reason)
