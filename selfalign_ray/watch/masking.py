"""Secrets kept out of logs, manifests and reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"
_LEAST_CHARACTERS = 8  # a shorter value is no secret, and masking it would garble the text

_SECRET_NAME = re.compile(
    r"(^|[_.-])(token|secret|password|passwd|passphrase|credentials?|pat|"
    r"(api|access|secret|private|account)[_-]?key)$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"""
    (?P<url> ://[^/\s:@]* : ) [^/\s@]+ (?=@)  # user:password@ in an address
    | (?P<bearer> \bbearer\s+ ) [\w.~+/=-]{8,}
    | (?P<quoted> \b (?:token|password|passwd|secret|api_?key) ["']? \s* [=:] \s* ["'] ) [^"'\n]+
    | (?P<pair> \b (?:token|password|passwd|secret|api_?key) = ) [^\s"',;&]{8,}
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
