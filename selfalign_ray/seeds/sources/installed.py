"""The source `installed`: .py files of the Python packages in the environment of the job."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from selfalign_ray.errors import UserError
from selfalign_ray.seeds.config import InstalledSource
from selfalign_ray.seeds.licenses import Offer, from_metadata
from selfalign_ray.seeds.sources.listing import ListedFile, matcher, text_of

_OURS = "selfalign-ray"
_INFO_FOLDERS = (".dist-info", ".egg-info")
_LICENSE_FILE = re.compile(r"(licen[cs]e|copying)[^/]*", re.IGNORECASE)


def files(source: InstalledSource) -> Iterator[ListedFile]:
    """The files, package by package.

    The repository is the package's name, the revision its version, a path is relative to
    site-packages; all files of a package have the package's licence.

    Raises:
        UserError: a package that the source names is not installed.
    """
    excluded = matcher(source.exclude)
    for package in _packages(source):
        paths = package.files or []
        info = package.metadata  # parsed anew by every access
        offer = license_offer(info, _texts(package, paths))
        for path in paths:
            text = text_of(path.as_posix())
            inside = not text.startswith(("../", "/"))  # a script in bin/ is not
            if text.endswith(".py") and inside and not excluded(text):
                yield ListedFile(
                    repository=info["Name"],
                    revision=info["Version"],
                    path=text,
                    location=os.fsencode(str(package.locate_file(path))),
                    offer=offer,
                )


def canonical(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def license_offer(info: metadata.PackageMetadata, texts: Sequence[str]) -> Offer:
    """What a package's metadata and licence files say."""

    def first(name: str) -> str | None:
        return next(iter(info.get_all(name) or []), None)

    classifiers = info.get_all("Classifier") or []
    return from_metadata(first("License-Expression"), first("License"), classifiers, texts)


def _packages(source: InstalledSource) -> list[metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    for package in metadata.distributions():
        info = package.metadata
        if "Name" in info:  # an uninstall may leave half a package
            found.setdefault(
                canonical(info["Name"]), package
            )  # the first on sys.path is what imports
    found.pop(_OURS, None)
    wanted = source.packages
    if wanted is not None:
        missing = [name for name in wanted if canonical(name) not in found]
        if missing:
            raise UserError(f"source.packages: not installed here: {', '.join(missing)}")
        found = {name: found[name] for name in map(canonical, wanted)}
    for name in source.exclude_packages:
        found.pop(canonical(name), None)
    return [found[name] for name in sorted(found)]


def _texts(package: metadata.Distribution, paths: Sequence[metadata.PackagePath]) -> list[str]:
    """The package's licence files; one that cannot be read is empty, so of no known licence."""
    found = []
    for path in paths:
        if path.parts[0].endswith(_INFO_FOLDERS) and _LICENSE_FILE.fullmatch(path.name):
            try:
                found.append(Path(str(package.locate_file(path))).read_text("utf-8", "replace"))
            except OSError:
                found.append("")
    return found
