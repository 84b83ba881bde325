"""Heads: what a file says of its own licence, and what that makes of its package's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.seeds.headers import judged, offer_of
from tests.seeds.known_licenses import APACHE_NOTICE, BSD_2, ISC, MIT, MIT_KEEP
from tests.support import cpu_seconds_at_most

ALLOWED = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"]
LGPL = """This file is adapted from a demo, and thus licensed under LGPL 2.1.

Paramiko is free software; you can redistribute it and/or modify it under the
terms of the GNU Lesser General Public License as published by the Free
Software Foundation; either version 2.1 of the License, or (at your option)
any later version. See the GNU Lesser General Public License for more details.
"""
MPL = """This tool is subject to the terms of the Mozilla Public License, v. 2.0.
If a copy of the MPL was not distributed with this file, see https://mozilla.org/MPL/2.0/."""
DUAL = """This file is dual licensed under the terms of the Apache License, Version
2.0, and the BSD License. See the LICENSE file for complete details."""


def comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def docstring(text: str) -> str:
    return f'"""A module.\n\n{text}\n"""\n'


@pytest.mark.parametrize("placed", [comment, docstring])
@pytest.mark.parametrize(
    ("text", "offer"),
    [
        ("SPDX-License-Identifier: MIT", (("MIT",),)),
        ("SPDX-License-Identifier: MIT OR Apache-2.0", (("MIT",), ("Apache-2.0",))),
        ("SPDX-License-Identifier: LicenseRef-Ours", ()),
        (
            "SPDX-License-Identifier: (GPL-2.0-or-later WITH Bootloader-exception)",
            (("GPL-2.0-or-later WITH Bootloader-exception",),),
        ),
        (MIT, (("MIT",),)),
        (BSD_2, (("BSD-2-Clause",),)),
        (ISC, (("ISC",),)),
        (APACHE_NOTICE, (("Apache-2.0",),)),
        (MIT + ISC, (("MIT", "ISC"),)),
        (MIT.replace(MIT_KEEP, MIT_KEEP + "It shall be used for Good, not Evil."), ()),
        (LGPL.partition("\n\n")[2], (("LGPL-2.1-or-later",),)),
        ("Distributed under the GNU General Public License version 2.", (("GPL-2.0-only",),)),
        ("This is under the GNU General Public License.", ()),
        (MPL, (("MPL-2.0",),)),
        ("Taken from Wikipedia, Creative Commons Attribution-ShareAlike 3.0.", ()),
        ('Licensed under the Sapiens2 License (the "License");', ()),
        ("Licensed under the Apache License, Version 1.1", ()),
        ("Licensed under the MIT license", (("MIT",),)),
        ("Distributed under the terms of the Modified BSD License.", (("BSD-3-Clause",),)),
        ("License: 3-clause BSD", (("BSD-3-Clause",),)),
        (":license: Apache2, see LICENSE for more details.", (("Apache-2.0",),)),
        ("License: GPL, see LICENSE", ()),
        # Which licence that is stands elsewhere.
        ("License: see LICENSE", None),
        ("License: https://example.org/license.html", None),
        ("This source code is licensed under the license found in the LICENSE file", None),
        ("For license information, see LICENSE.TXT", None),
        ("Licensed to the Apache Software Foundation (ASF) under one or more", None),
        ("How to read license files.", None),
        ("", None),
    ],
)
def test_what_a_head_states(placed, text, offer):
    assert offer_of(placed(text) + "\nimport os\n") == offer


def test_only_the_head_is_read():
    gpl = "SPDX-License-Identifier: GPL-3.0-only"
    for text in (
        f"x = '''\n{gpl}\n'''\n",
        f"def f():\n    # {gpl}\n",
        "x = 1\n" * 2000 + f"# {gpl}",
    ):
        assert offer_of(text) is None
    assert offer_of(f"#!/usr/bin/python\n\n'''A module.'''\n\n# {gpl}\n") == (("GPL-3.0-only",),)
    assert offer_of("'''A module.'''\n\n__license__ = 'GPLv3'\n") == (("GPL-3.0-only",),)


@pytest.mark.parametrize(
    ("text", "licenses", "found", "reason"),
    [
        ("", ["MIT"], ["MIT"], None),
        (MIT, ["MIT"], ["MIT"], None),
        (MIT, ["Apache-2.0"], ["Apache-2.0", "MIT"], None),
        (MPL, ["MIT"], ["MIT", "MPL-2.0"], "license_not_allowed"),
        ("Licensed under the Sapiens2 License", ["MIT"], ["MIT"], "license_unknown"),
        ("License: BSD", ["BSD-3-Clause"], ["BSD-3-Clause"], None),
        ("License: BSD", ["MIT"], ["MIT"], "license_unknown"),
        (DUAL, ["Apache-2.0"], ["Apache-2.0"], None),
        (DUAL, ["BSD-3-Clause"], ["BSD-3-Clause", "Apache-2.0"], None),
        (
            "SPDX-License-Identifier: MIT OR GPL-3.0-only",
            ["Apache-2.0"],
            ["Apache-2.0", "MIT"],
            None,
        ),
    ],
)
def test_a_head_adds_to_the_packages_licence(text, licenses, found, reason):
    assert judged(comment(text), licenses, ALLOWED) == (found, reason)


def test_where_all_licences_are_allowed_a_head_drops_nothing():
    assert judged(comment(MPL), [], None) == (["MPL-2.0"], None)
    assert judged(comment("License: BSD"), ["MIT"], None) == (["MIT"], None)
    assert judged(comment("Licensed under the Our License"), [], None) == ([], None)


PIECES = [
    "licensed under the ",
    "# ",
    "\n",
    '"""',
    "SPDX-License-Identifier: ",
    "GPL",
    "MIT ",
    "of ",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=9), max_size=40).map("".join))
def test_any_head_is_judged(text):
    licenses, reason = judged(text, ["MIT"], ALLOWED)
    assert "MIT" in licenses
    assert reason in (None, "license_unknown", "license_not_allowed")


@pytest.mark.parametrize(
    "piece", [*PIECES, "permission is hereby granted ", "neither the name of "]
)
def test_no_head_takes_long(piece):
    with cpu_seconds_at_most(20):
        judged("# license\n" + piece * 1_000_000, ["MIT"], ALLOWED)
        judged(comment("license " + piece * 100_000), ["MIT"], ALLOWED)
