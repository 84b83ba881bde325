"""Licence texts: a licence is known by all of its words, and one more condition makes another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.seeds.license_texts import identify
from tests.seeds import known_licenses as known

PERMISSIVE = {
    "MIT": known.MIT,
    "MIT-0": known.MIT_GRANT + "." + known.MIT_AS_IS,
    "BSD-2-Clause": known.BSD_2,
    "BSD-3-Clause": known.BSD_3,
    "ISC": known.ISC,
    "0BSD": known.ISC_GRANT + known.ISC_AS_IS,
    "Apache-2.0": known.APACHE,
}
ADVERTISING = """3. All advertising materials mentioning features or use of this software must
display the following acknowledgement: This product includes software developed by somebody.
"""
OTHERS = {
    "JSON": known.MIT_GRANT
    + known.MIT_KEEP
    + "The Software shall be used for Good, not Evil."
    + known.MIT_AS_IS,
    "Hippocratic": known.MIT
    + "The Software may not be used by anyone for systems or activities that actively harm others.",
    "NCSA": known.MIT_GRANT.replace("deal\nin", "deal\nwith")
    + ", subject to the following conditions:"
    + known.BSD_GRANT.partition("met:")[2].replace("disclaimer", "disclaimers")
    + known.BSD_NAMES
    + known.MIT_AS_IS.replace("IN THE\n", "WITH THE\n"),
    "Sleepycat": known.BSD_GRANT
    + "* Redistributions in any form must be accompanied by information on how to obtain complete "
    "source code for the software and any accompanying software that uses it." + known.BSD_AS_IS,
    "Apache-1.1": known.BSD_GRANT
    + "3. The end-user documentation included with the redistribution, if any, must include the "
    "following acknowledgment: This product includes software developed by somebody."
    + known.BSD_AS_IS,
    "MIT, non-commercial": known.MIT_GRANT
    + ", for non-commercial purposes only"
    + known.MIT_KEEP
    + known.MIT_AS_IS,
    "Apache, changed": known.APACHE.replace("royalty-free", "royalty-bearing"),
    "the first sentence of MIT": known.MIT_GRANT,
    "no licence": "All rights reserved.",
    "nothing": "",
}


@pytest.mark.parametrize("name", PERMISSIVE)
def test_a_licence_is_known_by_its_words(name):
    assert identify(PERMISSIVE[name]) == (name,)


@pytest.mark.parametrize("name", OTHERS)
def test_what_begins_like_a_licence_and_goes_on_otherwise_is_not_known(name):
    assert identify(OTHERS[name]) == ()


def test_the_advertising_clause_is_told():
    text = known.BSD_GRANT + ADVERTISING + known.BSD_NAMES + known.BSD_AS_IS
    assert identify(text) == ("BSD-4-Clause",)


def test_holders_marks_and_line_breaks_are_no_matter():
    text = known.BSD_3.replace("* ", "2) ").replace("the Pallets project", "Foo & Sons, Inc.")
    assert identify("Copyright 2020 Foo & Sons\n" + text.replace("\n", "\r\n    ")) == (
        "BSD-3-Clause",
    )


def test_a_copyleft_title_counts_beside_any_other_words():
    assert identify(f"{known.GPL}\nYou may not ...\n{known.MIT}") == ("GPL-3.0-only", "MIT")


@given(
    st.sampled_from(sorted(PERMISSIVE)),
    st.sampled_from(
        [
            "You must not use it for weapons.",
            "For non-commercial use only.",
            "A fee is due.",
            "Use in courts is prohibited.",
        ]
    ),
    st.floats(0, 1),
)
def test_a_condition_more_at_any_place_makes_a_licence_unknown(name, condition, place):
    words = PERMISSIVE[name].split(" ")
    at = round(place * len(words))
    assert identify(" ".join([*words[:at], condition, *words[at:]])) == ()


@given(st.text(max_size=300))
def test_any_text_has_names_or_none(text):
    assert isinstance(identify(text), tuple)
