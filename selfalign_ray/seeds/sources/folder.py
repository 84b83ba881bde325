"""The source `folder`: files below a folder, which may hold or lie in git checkouts."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from selfalign_ray.errors import UserError
from selfalign_ray.seeds.config import FolderSource
from selfalign_ray.seeds.licenses import UNKNOWN, Offer, from_expression, from_metadata, from_texts
from selfalign_ray.seeds.sources.listing import ListedFile, matcher, text_of

_LICENSE_FILE = re.compile(r"(licen[cs]e|copying|unlicense)([.-].*)?", re.IGNORECASE)
_MAX_LICENSE_BYTES = 200_000  # the longest known ones have 60,000
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class _Origin:
    """What the files of one directory have in common."""

    root: Path  # paths are relative to it
    repository: str
    revision: str | None
    offer: Offer


def files(source: FolderSource) -> Iterator[ListedFile]:
    """The files below `source.path`, sorted.

    Links are not followed: what they lead to has the licence of where it lies, and is listed there
    or is none of the folder's.

    The repository and revision are those of the innermost git checkout: "owner/name" of its
    remote `origin` and its commit; outside any checkout the folder's name and null. The licence is
    `source.license`, else that of the nearest LICENSE file or pyproject.toml between the file
    and its checkout's (or the folder's) root.

    Raises:
        UserError: the folder does not exist or cannot be listed.
    """
    top = Path(source.path).expanduser().absolute()
    if not top.is_dir():
        raise UserError(f"source.path: {top} is no folder")
    if not os.access(top, os.R_OK | os.X_OK):
        raise UserError(f"source.path: no permission to list {top}")
    fixed = from_expression(source.license) if source.license is not None else None
    if fixed == UNKNOWN:
        raise UserError(
            f"source.license: {source.license!r} is no SPDX expression of known licences, "
            "such as 'MIT' or 'MIT OR Apache-2.0'"
        )
    included, excluded = matcher(source.include), matcher(source.exclude)
    origins = {top: _origin_above(top)}
    for folder, subfolders, names in os.walk(top):
        here = Path(folder)
        origin = origins.pop(here)
        inside = {name: (here / name).relative_to(top).as_posix() for name in subfolders}
        subfolders[:] = [
            name for name in sorted(inside) if not excluded(text_of(f"{inside[name]}/"))
        ]
        for name in subfolders:
            origins[here / name] = _origin_of(here / name, origin)
        for name in sorted(names):
            path = text_of((here / name).relative_to(top).as_posix())
            if included(path) and not excluded(path) and not (here / name).is_symlink():
                yield ListedFile(
                    repository=origin.repository,
                    revision=origin.revision,
                    path=text_of((here / name).relative_to(origin.root).as_posix()),
                    location=os.fsencode(here / name),
                    offer=origin.offer if fixed is None else fixed,
                )


def _origin_above(top: Path) -> _Origin:
    """The origin of `top`, which may lie inside a checkout."""
    within = [top, *top.parents]
    root = next((folder for folder in within if (folder / ".git").exists()), None)
    if root is None:
        return _Origin(top, text_of(top.name), None, _offer_in(top) or UNKNOWN)
    origin = _checkout(root)
    for folder in reversed(within[: within.index(root)]):
        origin = _origin_of(folder, origin)
    return origin


def _origin_of(folder: Path, parent: _Origin) -> _Origin:
    if (folder / ".git").exists():
        return _checkout(folder)
    offer = _offer_in(folder)
    return parent if offer is None else replace(parent, offer=offer)


def _checkout(root: Path) -> _Origin:
    git = _git_folder(root)
    repository = _remote(git) or text_of(root.name)
    return _Origin(root, repository, _commit(git), _offer_in(root) or UNKNOWN)


def _offer_in(folder: Path) -> Offer | None:
    """What the licence files of one directory say, else its pyproject.toml; None for neither."""
    try:
        texts = [
            _read(path)
            for path in sorted(folder.iterdir())
            if _LICENSE_FILE.fullmatch(path.name) and path.suffix != ".py" and path.is_file()
        ]
    except OSError:
        return UNKNOWN
    if texts:
        return from_texts(texts)
    return _offer_of_pyproject(folder / "pyproject.toml")


def _offer_of_pyproject(path: Path) -> Offer | None:
    if not path.is_file():
        return None
    try:
        project = tomllib.loads(_read(path)).get("project", {})
        stated = project.get("license")
        if isinstance(stated, dict):
            name = stated.get("text") or _read(path.parent / stated.get("file", ""))
            return from_metadata(None, name, [], [])
        classifiers = [str(line) for line in project.get("classifiers", [])]
    except (OSError, ValueError, AttributeError, TypeError):  # cut short, or another shape
        return UNKNOWN
    if stated is None and not any(line.startswith("License ::") for line in classifiers):
        return None
    return from_metadata(None, str(stated or ""), classifiers, [])


def _read(path: Path) -> str:
    """The beginning of a small text file; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_LICENSE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _git_folder(root: Path) -> Path:
    """The folder `.git`, or the one that a work tree's or submodule's file `.git` names."""
    git = root / ".git"
    named = re.fullmatch(r"gitdir: (.+)", _read(git).strip()) if git.is_file() else None
    return root / named[1] if named else git


def _common(git: Path) -> Path:
    """Where a linked work tree keeps what it shares with the others."""
    named = _read(git / "commondir").strip()
    return git / named if named else git


def _commit(git: Path) -> str | None:
    head = _read(git / "HEAD").strip()
    if head.startswith("ref: "):
        ref = head.removeprefix("ref: ")
        packed = re.search(rf"^(\S+) {re.escape(ref)}$", _read(_common(git) / "packed-refs"), re.M)
        head = _read(_common(git) / ref).strip() or (packed[1] if packed else "")
    return head if _COMMIT.fullmatch(head) else None


def _remote(git: Path) -> str | None:
    """Owner and name of the remote `origin`, without the address, which may hold a password."""
    section = re.search(r'^\[remote "origin"\]([^[]*)', _read(_common(git) / "config"), re.M)
    url = re.search(r"^\s*url\s*=\s*(\S+)", section[1], re.M) if section else None
    parts = [part for part in re.split(r"[/:]", url[1]) if part] if url else []
    return "/".join(parts[-2:]).removesuffix(".git") if len(parts) > 2 else None
