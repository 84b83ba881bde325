"""The source `folder`: what is listed, with which repository, revision and licence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.seeds.sources import folder
from tests.seeds.known_licenses import APACHE, MIT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def listed(run_config):
    def make(path: Path, *overrides: str):
        source = run_config("source=folder", f"source.path='{path}'", *overrides).source
        return {file.path: file for file in folder.files(source)}

    return make


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def checkout(root: Path, url: str | None = None, **files: str) -> Path:
    config = f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {url}\n' if url else ""
    git = {".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": f"{COMMIT}\n"}
    return write(root, {**git, ".git/config": config, "a.py": "", **files})


def test_a_plain_folder(tmp_path, listed):
    root = write(tmp_path / "code", {"a.py": "", "b/c.py": "", "b/c.txt": "", ".venv/d.py": ""})
    files = listed(root)
    assert sorted(files) == ["a.py", "b/c.py"]
    assert {file.repository for file in files.values()} == {"code"}
    assert {file.revision for file in files.values()} == {None}
    assert {file.offer for file in files.values()} == {()}
    assert files["b/c.py"].location == os.fsencode(root / "b" / "c.py")


def test_globs(tmp_path, listed):
    root = write(tmp_path, {"a.py": "", "b/c.pyw": "", "b/gen/d.py": ""})
    assert sorted(listed(root, "source.include=['*.py','*.pyw']")) == [
        "a.py",
        "b/c.pyw",
        "b/gen/d.py",
    ]
    assert sorted(listed(root, "source.exclude=['*/gen/*']")) == ["a.py"]


def test_the_setting_wins_over_licence_files(tmp_path, listed):
    root = write(tmp_path, {"LICENSE": APACHE, "a.py": ""})
    assert listed(root)["a.py"].offer == (("Apache-2.0",),)
    assert listed(root, "source.license=MIT OR ISC")["a.py"].offer == (("MIT",), ("ISC",))


def test_the_nearest_licence_holds(tmp_path, listed):
    root = write(
        tmp_path,
        {
            "LICENSE.txt": MIT,
            "a.py": "",
            "b/c/d.py": "",
            "copied/COPYING": "All rights reserved.",
            "copied/e.py": "",
            "part/pyproject.toml": '[project]\nlicense = "Apache-2.0"\n',
            "part/f.py": "",
            "part/no/pyproject.toml": "[tool.ruff]\n",
            "part/no/g.py": "",
        },
    )
    offers = {path: file.offer for path, file in listed(root).items()}
    assert offers == {
        "a.py": (("MIT",),),
        "b/c/d.py": (("MIT",),),
        "copied/e.py": (),
        "part/f.py": (("Apache-2.0",),),
        "part/no/g.py": (("Apache-2.0",),),
    }


@pytest.mark.parametrize(
    ("pyproject", "offer"),
    [
        ('license = "MIT OR Apache-2.0"', (("MIT",), ("Apache-2.0",))),
        ('license = {text = "MIT License"}', (("MIT",),)),
        ('license = {file = "NOTICE"}', (("MIT",),)),
        ('license = {file = "gone"}', ()),
        ("license = {file = 3}", ()),
        ('classifiers = ["License :: OSI Approved :: MIT License"]', (("MIT",),)),
        ("license = 3", ()),
        ("license = ", ()),
        ("", ()),
    ],
)
def test_pyproject(tmp_path, listed, pyproject, offer):
    root = write(
        tmp_path, {"pyproject.toml": f"[project]\n{pyproject}\n", "NOTICE": MIT, "a.py": ""}
    )
    assert listed(root)["a.py"].offer == offer


@pytest.mark.parametrize(
    ("url", "repository"),
    [
        ("https://example.org/owner/name.git", "owner/name"),
        ("https://user:secret@example.org/owner/name", "owner/name"),
        ("git@example.org:owner/name.git", "owner/name"),
        ("ssh://git@example.org/group/owner/name.git/", "owner/name"),
        ("/", "mine"),
        (None, "mine"),
    ],
)
def test_a_checkout(tmp_path, listed, url, repository):
    file = listed(checkout(tmp_path / "mine", url))["a.py"]
    assert (file.repository, file.revision) == (repository, COMMIT)


def test_packed_detached_and_linked_heads(tmp_path, listed):
    packed = checkout(tmp_path / "packed")
    (packed / ".git/refs/heads/main").unlink()
    (packed / ".git/packed-refs").write_text(f"# pack-refs\n{COMMIT} refs/heads/main\n")
    assert listed(packed)["a.py"].revision == COMMIT

    detached = checkout(tmp_path / "detached")
    (detached / ".git/HEAD").write_text(COMMIT)
    assert listed(detached)["a.py"].revision == COMMIT

    linked = write(
        tmp_path / "linked",
        {"a.py": "", ".git": f"gitdir: {packed}/.git/worktrees/linked\n"},
    )
    write(
        packed / ".git/worktrees/linked",
        {"HEAD": "ref: refs/heads/main\n", "commondir": "../..\n"},
    )
    assert listed(linked)["a.py"].revision == COMMIT


def test_a_checkout_without_commits_or_cut_in_half(tmp_path, listed):
    (tmp_path / "mine/.git").mkdir(parents=True)
    (tmp_path / "mine/a.py").write_text("")
    assert listed(tmp_path / "mine")["a.py"].revision is None


def test_a_folder_of_checkouts(tmp_path, listed):
    checkout(tmp_path / "one", "https://example.org/o/one", **{"LICENSE": MIT, "p/b.py": ""})
    checkout(tmp_path / "two", "https://example.org/o/two", **{"c.py": ""})
    (tmp_path / "one/a.py").unlink()
    write(tmp_path, {"LICENSE": APACHE, "d.py": ""})
    files = {path: (file.repository, file.offer) for path, file in listed(tmp_path).items()}
    assert files == {
        "p/b.py": ("o/one", (("MIT",),)),
        # The licence beside the checkouts is not theirs.
        "a.py": ("o/two", ()),
        "c.py": ("o/two", ()),
        "d.py": (tmp_path.name, (("Apache-2.0",),)),
    }


def test_a_part_of_a_checkout(tmp_path, listed):
    root = checkout(
        tmp_path / "mine", "https://example.org/o/n", **{"LICENSE": MIT, "p/q/b.py": ""}
    )
    files = listed(root / "p")
    assert list(files) == ["p/q/b.py"]
    assert files["p/q/b.py"].repository == "o/n"
    assert files["p/q/b.py"].revision == COMMIT
    assert files["p/q/b.py"].offer == (("MIT",),)


def test_names_that_are_no_text_and_links(tmp_path, listed):
    root = write(tmp_path / "code", {"a.py": ""})
    (root / "loop").symlink_to(root)
    (root / "dead.py").symlink_to(root / "gone")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.py")).touch()
    assert sorted(listed(root)) == ["a.py", "�.py"]


def test_a_file_has_the_licence_of_where_it_lies_not_of_where_a_link_to_it_does(tmp_path, listed):
    mine = checkout(tmp_path / "mine", **{"LICENSE": MIT, "copied/LICENSE": "All rights reserved."})
    write(mine, {"copied/b.py": "", "c.py": ""})
    write(tmp_path / "other", {"d.py": ""})
    for name, target in {"x.py": "../other/d.py", "y.py": "copied/b.py", "z.py": "c.py"}.items():
        (mine / name).symlink_to(target)
    offers = {path: file.offer for path, file in listed(mine).items()}
    assert offers == {"a.py": (("MIT",),), "c.py": (("MIT",),), "copied/b.py": ()}


def test_a_folder_that_is_none(tmp_path, listed):
    with pytest.raises(UserError, match=r"source\.path: .*gone is no folder"):
        listed(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"source\.path: .*file is no folder"):
        listed(tmp_path / "file")


def test_a_licence_that_is_none(tmp_path, listed):
    with pytest.raises(UserError, match=r"source\.license: 'ours' is no SPDX expression"):
        listed(tmp_path, "source.license=ours")


def test_no_path(run_config):
    with pytest.raises(UserError, match=r"source\.path"):
        run_config("source=folder")
