"""Settings of the groups `source` and `seeds`; conf/source/ and conf/seeds/ give every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
class ColumnsConfig:
    """What the data set calls its columns; null: it has no such column.

    A dot leads into a struct. Where the data set has the column `files`, a list of structs, each
    of them is a file, and a name is looked for in it first and then in the row.
    """

    files: str | None
    content: str | None  # text, or bytes in `encoding`
    blob: str | None  # id of the content, recorded as `blob_id` and put into `fetch.url`
    encoding: str | None  # codec of the bytes; null or empty in a row: as Python source declares it
    repository: str | None
    revision: str | None  # commit
    path: str | None
    licenses: str | None  # SPDX identifiers, all of which apply
    license_type: str | None
    language: str | None
    length: str | None  # bytes
    stars: str | None
    vendored: str | None
    generated: str | None


@dataclass(kw_only=True)
class WantedConfig:
    """Which files to take, by their columns alone, before any content is fetched.

    Files of other languages are not listed; the others that are not wanted are dropped. A column
    that is null in a row refuses nothing but a language.
    """

    languages: list[str] | None  # null: any
    license_types: list[str] | None  # license_not_allowed; null: any
    vendored: bool  # whether those too; vendored
    generated: bool  # whether those too; generated
    min_bytes: int = setting(ge=0)  # too_small
    min_stars: int = setting(ge=0)  # few_stars


@dataclass(kw_only=True)
class RetryConfig:
    """What to do when a store asks to slow down (503, 429) or cannot be reached."""

    attempts: int = setting(ge=1)  # of one listing, part or blob
    seconds: float = setting(gt=0, decides=False)  # before the second; doubles with each


@dataclass(kw_only=True)
class FetchConfig:
    """Contents that lie in an object store, one gzipped object a blob."""

    url: str  # with {blob}; s3:// or https://
    fallback: str | None  # likewise, asked where `url` cannot be reached or refuses
    signed: bool = setting(decides=False)  # with the credentials of the environment
    region: str | None = setting(decides=False)  # of the bucket
    endpoint: str | None = setting(decides=False)  # of another store that speaks S3
    actors: int = setting(ge=1, decides=False)  # that fetch
    cpus: float = setting(gt=0, decides=False)  # of an actor: it mostly waits
    concurrency: int = setting(ge=1, decides=False)  # requests of an actor at once
    # Of an actor, tokens that refill a bucket of `concurrency`; null: no limit but the store's.
    requests_per_second: float | None = setting(gt=0, decides=False)
    files_per_batch: int = setting(ge=1, decides=False)  # in memory together
    timeout_seconds: float = setting(gt=0, decides=False)  # to connect, and between two bytes
    # The run stops when an actor's first so many blobs could not be had, for want of access or of a
    # connection.
    give_up_after: int = setting(ge=1, decides=False)

    def problems(self) -> Iterator[tuple[str, str]]:
        for name in ("url", "fallback"):
            url = getattr(self, name)
            if url is not None and "{blob}" not in url:
                yield name, f"must hold {{blob}}; got {url}"


@dataclass(kw_only=True)
class TableSource(SourceConfig):
    """Parquet or JSONL files, a row a file or a repository, local or in an object store."""

    kind: str = setting(choices=["files", "stack_v1", "stack_v2", "stack_v3"])
    path: str  # a file, a folder, or a glob in which ** crosses folders; any URL fsspec knows
    format: str | None = setting(choices=["parquet", "jsonl"])  # null: by the files' names
    # Options of the file system.
    storage: dict[str, Any] = setting(decides=False)  # noqa: RUF009
    dataset: str | None  # name to record; null: a hub's in `path`, else `path`
    revision: str | None  # of the data set, to record; null: a hub's commit, else none
    include: list[str]  # globs on "/" and the file's path; only files that match one are listed
    columns: ColumnsConfig
    wanted: WantedConfig
    retry: RetryConfig
    fetch: FetchConfig | None  # null: contents are inline

    def problems(self) -> Iterator[tuple[str, str]]:
        if not self.include:
            yield "include", "must hold a glob, such as '*.py'"
        if self.fetch is None and self.columns.content is None:
            yield "columns.content", "must be given where nothing is fetched"
        if self.fetch is not None and self.columns.blob is None:
            yield "columns.blob", "must be given where contents are fetched"
        if self.wanted.languages is not None and self.columns.language is None:
            yield "wanted.languages", "needs columns.language"


@dataclass(kw_only=True)
class ReadConfig:
    """From a source to decoded files."""

    licenses: list[str] | None  # SPDX identifiers allowed; null: any, and none found as well
    max_bytes: int = setting(ge=1)  # of a file; a larger one is dropped as too_large
    files_per_block: int = setting(ge=1, decides=False)  # read by one task, in memory together
    withdrawn: str | None  # a list of ids that stay out, withdrawn.py; null: there is none


@dataclass(kw_only=True)
class FunctionsConfig:
    """From files to top-level functions."""

    max_chars: int = setting(ge=1)  # of a function with its context; a longer one is dropped
    methods: bool  # the methods of top-level classes too, each inside its class's head
    classes: bool  # the top-level classes too
    parse_seconds: float = setting(gt=0)  # CPU time of one file; what takes longer is dropped
    parse_mb: int = setting(ge=512, decides=False)  # address space of the process that parses


@dataclass(kw_only=True)
class QualityConfig:
    """The static rules, in the order in which they are asked; the first that fails is the reason.

    A rule is off where its number is 0, its switch false or its list null.
    """

    skip_tests: bool  # is_test: by the names of function and file
    skip_generated: bool  # generated: the comments at the file's head say that a program wrote it
    min_lines: int = setting(ge=0)  # too_short: decorators and docstring count, blank lines do not
    max_lines: int | None = setting(ge=1)  # too_long: likewise
    min_parameters: int = setting(ge=0)  # no_parameters: *args and **kwargs count, self does not
    typed: bool  # untyped: every parameter and the return annotated
    returns_value: bool  # no_return_value: a `return` with a value in the function's own body
    min_docstring_words: int = setting(ge=0)  # no_docstring, short_docstring
    summary_line: bool  # no_summary_line: of PEP 257, a sentence on a line of its own
    described: bool  # undescribed: the docstring names each parameter and tells what is returned
    # banned_word: whole words in any letter case, those of comments and strings too
    banned_words: list[str] | None
    min_complexity: int | None = setting(ge=1)  # too_simple: cyclomatic, of the worst function
    max_complexity: int | None = setting(ge=1)  # too_complex: likewise
    banned_imports: list[str] | None  # banned_import: modules, or names in them; `builtins.open`
    dependencies: list[str] | None  # foreign_dependency: top-level modules besides Python's own
    self_contained: bool  # unresolved_name: neither defined, imported nor a builtin

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.max_lines is not None and self.max_lines < self.min_lines:
            yield "max_lines", f"must be at least min_lines ({self.min_lines})"
        if self.max_complexity is not None and self.max_complexity < (self.min_complexity or 0):
            yield "max_complexity", f"must be at least min_complexity ({self.min_complexity})"


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
class DocstringExample:
    """A function and the answer to the question about its docstring."""

    code: str
    suffices: bool  # Yes


@dataclass(kw_only=True)
class DocstringJudgeConfig:
    """Whether the model finds that a docstring suffices to write the function anew."""

    enabled: bool  # costs two prefills a seed
    # docstring_insufficient: probability of Yes, against No, that a seed needs more of to stay;
    # null: a column alone
    more_than: float | None = setting(ge=0, le=1)
    question: str  # a Jinja template over `code`, whose answer is " Yes" or " No"
    examples: list[DocstringExample]  # answered before the question, in this order

    def problems(self) -> Iterator[tuple[str, str]]:
        answers = [example.suffices for example in self.examples]
        if answers and len(set(answers)) == 1:
            yield "examples", "must be of both kinds, or none: a model follows what it is shown"


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
    docstring_judge: DocstringJudgeConfig
