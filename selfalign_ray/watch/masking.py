"""Secrets kept out of logs, manifests and reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MASK = "***"
_LEAST_CHARACTERS = 8  # a shorter value is no secret, and masking it would garble the text

_SECRET_NAME = re.compile(
    r"(^|[_.-])(token|secret|password|passwd|passphrase|credentials?|pat|connection_string|"
    r"(api|access|secret|private|account)[_-]?key)$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"""
    (?P<url> ://[^/\s:@]* : ) [^/\s@]+ (?=@)  # user:password@ in an address
    | (?P<bearer> \bbearer\s+ ) [\w.~+/=-]{8,}
    | (?P<quoted> \b (?:token|password|passwd|secret|api_?key) ["']? \s* [=:] \s* ["'] ) [^"'\n]+
    | (?P<setting> \. (?:\w+_)?  # as it is given to the command
      (?:token|password|passwd|secret|(?:api|access|secret|account)_key) = ) [^\s"',;&]+
    | (?P<pair> \b (?:token|password|passwd|secret|(?:api|access|secret|account)_?key) = )
      [^\s"',;&]{8,}
    | (?P<signed> [?&] (?: x-(?:amz|goog)-(?:signature|credential|security-token) | signature | sig)
      = ) [^\s"'&;#]+  # the right to read, in an address
    | (?P<prefix> \b (?:hf_|gh[pousr]_|github_pat_|sk-|xox[abp]-|AKIA) ) [\w-]{16,}
    """,
    re.IGNORECASE | re.VERBOSE,
)


def looks_secret(name: str) -> bool:
    """Whether a variable or config key of this name holds a secret.

    >>> looks_secret("HF_TOKEN"), looks_secret("max_tokens")
    (True, False)
    """
    return bool(_SECRET_NAME.search(name))


def secrets_in(value: Any) -> Iterator[str]:
    """The texts that stand under a secret's name in plain data."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if looks_secret(str(key)) and isinstance(item, str) and item:
                yield item
            else:
                yield from secrets_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item)


def public_url(url: str) -> str:
    """An address without user, password and what signs it; a path as it is.

    >>> public_url("https://me:pw@host/code/*.parquet?X-Amz-Signature=abc")
    'https://host/code/*.parquet'
    """
    scheme, separator, rest = url.partition("://")
    is_web = scheme in ("http", "https")  # elsewhere a `?` is a glob's, and a user may be a place
    if separator and is_web:
        rest = rest.partition("?")[0].partition("#")[0]
    host, slash, path = rest.partition("/")
    user, at, name = host.rpartition("@")
    if separator and at and (is_web or ":" in user):
        host = name
    return f"{scheme}{separator}{host}{slash}{path}" if separator else url


class Masker:
    """Replaces known secret values, and what looks like one."""

    def __init__(self, environment: Mapping[str, str], secrets: Iterable[str] = ()) -> None:
        values = {value for name, value in environment.items() if looks_secret(name)} | {*secrets}
        long = sorted((v for v in values if len(v) >= _LEAST_CHARACTERS), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, long))) if long else None

    def text(self, text: str) -> str:
        if self._known:
            text = self._known.sub(MASK, text)
        return _SECRET_TEXT.sub(lambda found: f"{found.group(found.lastgroup or 0)}{MASK}", text)

    def tree(self, value: Any) -> Any:
        """Plain data with its secrets masked: strings under a secret's name, and inside texts."""
        if isinstance(value, Mapping):
            return {
                key: MASK
                if looks_secret(str(key)) and isinstance(item, str) and item
                else self.tree(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        return self.text(value) if isinstance(value, str) else value
