"""Settings of the groups `source` and `seeds`; conf/source/ and conf/seeds/ give every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.near_copies import LikenessConfig
from selfalign_ray.settings import setting


@dataclass(kw_only=True)
class SourceConfig:
    """Where the code comes from; each option of conf/source/ is a class of its own."""

    kind: str  # the option's name; recorded as `source` on every row
    limit: int | None = setting(ge=1)  # files, the first in the seeded order; null: all
    exclude: list[str]  # globs on "/" and the file's path; a file that matches is not listed


@dataclass(kw_only=True)
class InstalledSource(SourceConfig):
    """The Python packages installed beside this project, which itself is left out."""

    kind: str = setting(choices=["installed"])
    packages: list[str] | None  # only these, by their name on the index; null: all
    exclude_packages: list[str]  # these not


@dataclass(kw_only=True)
class FolderSource(SourceConfig):
    """A folder of files, of git checkouts, or a part of a checkout."""

    kind: str = setting(choices=["folder"])
    path: str  # the folder; on a cluster every node sees it there
    include: list[str]  # globs on "/" and the file's path; only files that match one are listed
    license: str | None  # SPDX expression for every file; null: by LICENSE file or pyproject.toml

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.include:
            yield "include", "must hold a glob, such as '*.py'"


@dataclass(kw_only=True)
class ReadConfig:
    """From a source to decoded files."""

    licenses: list[str] | None  # SPDX identifiers allowed; null: any, and none found as well
    max_bytes: int = setting(ge=1)  # of a file; a larger one is dropped as too_large
    files_per_block: int = setting(ge=1, decides=False)  # read by one task, in memory together


@dataclass(kw_only=True)
class FunctionsConfig:
    """From files to top-level functions."""

    max_chars: int = setting(ge=1)  # of a function; a longer one is dropped unanalysed


@dataclass(kw_only=True)
class QualityConfig:
    """The static rules, in the order in which they are asked; the first that fails is the reason.

    A rule is off where its number is 0, its switch false or its list null.
    """

    skip_tests: bool  # is_test: by the names of function and file
    min_lines: int = setting(ge=0)  # too_short: decorators and docstring count, blank lines do not
    max_lines: int | None = setting(ge=1)  # too_long: likewise
    min_parameters: int = setting(ge=0)  # no_parameters: *args and **kwargs count, self does not
    typed: bool  # untyped: every parameter and the return annotated
    returns_value: bool  # no_return_value: a `return` with a value in the function's own body
    min_docstring_words: int = setting(ge=0)  # no_docstring, short_docstring
    banned_imports: list[str] | None  # banned_import: modules, or names in them; `builtins.open`
    dependencies: list[str] | None  # foreign_dependency: top-level modules besides Python's own
    self_contained: bool  # unresolved_name: neither defined, imported nor a builtin

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.max_lines is not None and self.max_lines < self.min_lines:
            yield "max_lines", f"must be at least min_lines ({self.min_lines})"


@dataclass(kw_only=True)
class TypecheckConfig:
    """The static type check of the seeds that meet the rules."""

    enabled: bool
    seeds_at_once: int = setting(ge=1, decides=False)  # in one run of the checker
    timeout_seconds: float = setting(gt=0)  # of such a run; seeds that exceed it are kept


@dataclass(kw_only=True)
class UniqueConfig:
    """One row of each group of equal seeds."""

    partitions: int = setting(ge=1, decides=False)  # of the shuffle


@dataclass(kw_only=True)
class SampleConfig:
    """How many seeds go on to the model."""

    limit: int | None = setting(ge=1)  # seeds, the first in the seeded order; null: all


@dataclass(kw_only=True)
class SeedsConfig:
    """The group `seeds`: one section a stage, in pipeline order."""

    # Tasks that read and judge files at once; null: as many as there are CPUs for.
    concurrency: int | None = setting(ge=1, decides=False)
    read: ReadConfig
    functions: FunctionsConfig
    quality: QualityConfig
    typecheck: TypecheckConfig
    unique: UniqueConfig
    near_duplicates: LikenessConfig
    sample: SampleConfig
