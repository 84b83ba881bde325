"""The one exception that a person's own mistake raises."""

from __future__ import annotations


class UserError(Exception):
    """A wrong setting, path, model or machine: said without a traceback, exit code 2.

    The message names the key or path and says what to do.
    """
