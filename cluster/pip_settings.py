"""Prints pip's settings on package indexes as shell exports for uv, which reads none of pip's."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

# pip's name -> uv's variable, and what uv wants between several values.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "cert": ("SSL_CERT_FILE", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}


def pip_settings() -> dict[str, list[str]]:
    """Each setting's values, each once; the environment's stand before the files'."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  fixed
    found: dict[str, list[str]] = {}
    for line in sorted(done.stdout.splitlines(), key=lambda line: not line.startswith(":env:")):
        key, _, quoted = line.partition("=")
        values = found.setdefault(key.rpartition(".")[2], [])
        for value in " ".join(shlex.split(quoted)).split():
            if value not in values:
                values.append(value)
    return found


def main() -> None:
    settings = pip_settings()
    exports = {
        variable: between.join(settings[name])
        for name, (variable, between) in VARIABLES.items()
        if settings.get(name)
    }
    for single in ("UV_DEFAULT_INDEX", "SSL_CERT_FILE"):
        if single in exports:
            exports[single] = exports[single].split()[0]
    if "UV_INDEX" in exports:
        exports["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's: the best of all indexes
    for variable, value in exports.items():
        if variable not in os.environ:
            sys.stdout.write(f"export {variable}={shlex.quote(value)}\n")


if __name__ == "__main__":
    main()
