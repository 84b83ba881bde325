"""Which licences a text is, word by word: what is not known to the end is not known.

The short licences stand here as patterns of their words, with gaps for a holder's name; of the
long ones, which nobody changes, the first and last words and a digest of all between. A text that
begins as a licence does and goes on otherwise may be any other: NCSA begins as MIT, Sleepycat as
BSD, the JSON licence is MIT with one more condition.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

# Words that lay down a condition; none of them in a holder's name or beside a licence.
_BINDING = (
    "cannot|commercial|commercially|condition|conditions|consent|except|fee|forbidden|granted"
    "|grants|harm|may|must|noncommercial|only|permission|permitted|prohibited|prohibits|provided"
    "|require|required|requires|restricted|restriction|restrictions|shall|unless|warranty|without"
)
_BINDS = re.compile(rf"\b(?:{_BINDING})\b")
_NAME = rf"(?: (?!(?:{_BINDING})\b)[a-z0-9]+){{0,30}}?"  # of a holder

_MIT_GRANT = (
    "permission is hereby granted free of charge to any person obtaining a copy of this software "
    "and(?: any)? associated documentation(?: source)?(?: files?)?(?: the software)? to deal in "
    "the software without restriction including without limitation the rights to use copy modify "
    "merge publish distribute sub ?license and or sell copies of the software and to permit "
    "persons to whom the software is furnished to do so"
)
_MIT_KEEP = (
    " subject to the following conditions the above copyright notices? and this permission notice"
    "(?: including the next paragraph)? shall be included in(?: all)? copies or substantial "
    "portions of the software"
)
_MIT_AS_IS = (
    " the software is provided as is without warranty of any kind express or implied including but "
    "not limited to the warranties of merchantability fitness for a particular purpose(?: title)? "
    "and non ?infringement in no event shall~ be liable for any claim damages or other liability "
    "whether in an action of contract tort or otherwise arising from out of or in connection with "
    "the software or the use or other dealings in the software"
)
_ISC_GRANT = (
    "permission to use copy modify and(?: or)? distribute this software(?: and its documentation)? "
    "for any purpose with or without fee is hereby granted"
)
_ISC_KEEP = (
    " provided that the above copyright notice and this permission notice appear in all copies"
)
_ISC_AS_IS = (
    " the software is provided as is and~ disclaims all warranties with regard to this software "
    "including all implied warranties of merchantability and fitness in no event shall~ be liable "
    "for any special direct indirect or consequential damages or any damages whatsoever resulting "
    "from loss of use data or profits whether in an action of contract negligence or other "
    "tortious action arising out of or in connection with the use or performance of this software"
)
_MARK = "(?: (?:[0-9a-d]|i{1,3}|iv))?"  # of a list
_BSD_GRANT = (
    "redistributions? and use in source and binary forms with or without modification are "
    f"permitted provided that the following conditions? (?:are|is) met{_MARK} redistributions of "
    "source code must retain the above copyright notice this list of conditions and the following "
    "disclaimer"
)
_BSD_BINARY = (
    f"(?: and)?{_MARK} redistributions in binary form must reproduce the above copyright notice "
    "this list of conditions and the following disclaimer in the documentation and or other "
    "materials provided with the distribution"
)
_BSD_ADVERTISING = (
    f"{_MARK} all advertising materials mentioning features or use of this software must display "
    "the following acknowledge?ment this product includes software developed by~"
)
_BSD_NAMES = (
    f"(?: and)?{_MARK} (?:neither )?the names?(?: of)?~ may(?: not)? be used to endorse or promote "
    "products derived from this software without(?: specific)? prior written permission"
)
_BSD_AS_IS = (
    " this software is provided by~ as is and any express or implied warranties including but not "
    "limited to the implied warranties of merchantability and fitness for a particular purpose are "
    "disclaimed in no event shall~ be liable for any direct indirect incidental special exemplary "
    "or consequential damages including but not limited to procurement of substitute goods or "
    "services loss of use data or profits or business interruption however caused and on any "
    "theory of liability whether in contract strict liability or tort including negligence or "
    "otherwise arising in any way out of(?: the)? use of this software even if advised of the "
    "possibility of such damage"
)
_ZLIB = (
    "this software is provided as is without any express or implied warranty in no event will~ be "
    "held liable for any damages arising from the use of this software permission is granted to "
    "anyone to use this software for any purpose including commercial applications and to alter it "
    "and redistribute it freely subject to the following restrictions"
    f"{_MARK} the origin of this software must not be misrepresented you must not claim that you "
    "wrote the original software if you use this software in a product an acknowledge?ment in the "
    "product documentation would be appreciated but is not required"
    f"{_MARK} altered source versions must be plainly marked as such and must not be "
    f"misrepresented as being the original software{_MARK} this notice may not be removed or "
    "altered from any source distribution"
)
_APACHE_NOTICE = (
    "licensed under the apache license version 2 0 the license you may not use (?:this|these|the)"
    "~ except in compliance with the license (?:you may obtain a copy of the license at https? www "
    "apache org licenses license 2 0|a copy of the license is located at https? aws amazon com "
    "apache2 0 or in the license file accompanying this file)(?: txt| html)? (?:unless required by "
    "applicable law or agreed to in writing software distributed under the license|this file) is "
    "distributed on an as is basis without warranties or conditions of any kind either express or "
    "implied see the license for the specific language governing permissions and limitations under "
    "the license"
)
_PATTERNS = tuple(
    (name, re.compile(rf"\b{pattern.replace('~', _NAME)}\b"))
    for name, pattern in (
        ("MIT", _MIT_GRANT + _MIT_KEEP + _MIT_AS_IS),
        ("MIT-0", _MIT_GRANT + _MIT_AS_IS),
        ("ISC", _ISC_GRANT + _ISC_KEEP + _ISC_AS_IS),
        ("0BSD", _ISC_GRANT + _ISC_AS_IS),
        ("BSD-1-Clause", _BSD_GRANT + _BSD_AS_IS),
        ("BSD-2-Clause", _BSD_GRANT + _BSD_BINARY + _BSD_AS_IS),
        ("BSD-3-Clause", _BSD_GRANT + _BSD_BINARY + _BSD_NAMES + _BSD_AS_IS),
        ("BSD-4-Clause", _BSD_GRANT + _BSD_BINARY + _BSD_ADVERTISING + _BSD_NAMES + _BSD_AS_IS),
        ("Zlib", _ZLIB),
        ("Apache-2.0", _APACHE_NOTICE),
    )
)


class _Fixed(NamedTuple):
    """A long text that is the same everywhere."""

    name: str
    first: str
    last: str
    digests: tuple[str, ...]  # SHA-256 of the words, its first 16 digits; lists are marked in ways


_DEALINGS = "or in connection with the software or the use or other dealings in the software"
_FIXED = (
    _Fixed(
        "Apache-2.0",
        "terms and conditions for use reproduction and distribution 1 definitions",
        "of your accepting any such warranty or additional liability",
        ("c876a853e3837603", "6326b6dd490fad59"),
    ),
    _Fixed(
        "BSL-1.0",
        "permission is hereby granted free of charge to any person or organization obtaining",
        _DEALINGS,
        ("4f4c9e6521741424",),
    ),
    _Fixed(
        "CC0-1.0",
        "the laws of most jurisdictions throughout the world automatically confer",
        "obligation with respect to this cc0 or use of the work",
        ("edf0ff1a55bbb9b6", "501a3e42967101a1"),
    ),
    _Fixed(
        "Unlicense",
        "this is free and unencumbered software released into the public domain",
        _DEALINGS,
        ("e6e60d2037efe588",),
    ),
)
# Around the long texts, of the same hands.
_HARMLESS = re.compile("end of terms and conditions|information or works provided hereunder")

# Licences that bind those who pass the code on, by their titles: what else such a text says does
# not make it permissive.
_TITLES = (
    ("AGPL-3.0-only", "gnu affero general public license version 3"),
    ("EUPL-1.2", "european union public licence v 1 2"),
    ("GPL-2.0-only", "gnu general public license version 2"),
    ("GPL-3.0-only", "gnu general public license version 3"),
    ("LicenseRef-Commons-Clause", "commons clause license condition"),
    ("LGPL-2.1-only", "gnu lesser general public license version 2 1"),
    ("LGPL-3.0-only", "gnu lesser general public license version 3"),
    ("MPL-2.0", "mozilla public license version 2 0"),
)


def words(text: str) -> str:
    """The text's words without case and punctuation, one space between them."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def identify(text: str) -> tuple[str, ...]:
    """The SPDX identifiers of all licences in a text; none where part of it is not known."""
    names, rest = whole(words(text))
    titles = tuple(name for name, title in _TITLES if title in rest)
    unknown = _BINDS.search(_HARMLESS.sub("", rest)) is not None
    return titles + names if titles or not unknown else ()


def whole(plain: str) -> tuple[tuple[str, ...], str]:
    """The licences whose words all stand in `plain`, as `words` gives it, and the words beside."""
    names: dict[str, None] = {}
    for fixed in _FIXED:
        found = re.search(rf"\b{fixed.first}\b.*?\b{fixed.last}\b", plain)
        if found and hashlib.sha256(found[0].encode()).hexdigest()[:16] in fixed.digests:
            names[fixed.name] = None
            plain = plain.replace(found[0], "")
    for name, pattern in _PATTERNS:
        plain, count = pattern.subn("", plain)
        if count:
            names[name] = None
    return tuple(names), plain
