"""Settings of the group `decontamination`; conf/decontamination/ gives every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.settings import setting


@dataclass(kw_only=True)
class BenchmarkConfig:
    """Where a benchmark lies and which of its columns hold what.

    A column is a text, a list of texts or a JSON list of texts; "a+b" is the text of a and then
    that of b.
    """

    enabled: bool
    allow_missing: bool  # one that cannot be read is then reported, not an error
    package: str | None  # an installed Python package that holds the files,
    hub: str | None  # or the id of a data set on the Hugging Face hub,
    path: str | None  # or a folder
    revision: str | None  # of the data set; null: its newest
    files: list[str]  # globs inside it: .jsonl, .json or .parquet, .jsonl.gz as well
    item: str  # the column with the item's id
    prompts: list[str]
    solutions: list[str]
    tests: list[str]
    entry_point: str | None  # the column with the name of what the tests call candidate

    def problems(self) -> Iterator[tuple[str, str]]:
        if sum(place is not None for place in (self.package, self.hub, self.path)) != 1:
            yield "path", "must be given where neither package nor hub is, and only there"
        if not self.files:
            yield "files", "must hold a glob, such as '*.jsonl'"
        if not (self.prompts or self.solutions or self.tests):
            yield "prompts", "must hold a column where solutions and tests hold none"


@dataclass(kw_only=True)
class DecontaminationConfig:
    """What counts as benchmark text in a row; each method is a switch."""

    benchmarks: dict[str, BenchmarkConfig]
    allow: list[str]  # globs on "benchmark/item": solutions of these may stand in a row
    min_tokens: int = setting(ge=1)  # of a benchmark's text; a shorter one is not sought as text
    min_prompt_tokens: int = setting(ge=1)  # of a prompt; below min_tokens all of it must be there
    gram_tokens: int = setting(ge=1)  # of an n-gram
    by_substring: bool  # all tokens of the text, in one run
    by_grams: bool  # a share of its n-grams, anywhere
    share: float = setting(gt=0, le=1)  # of a text's n-grams, from which on a row is dropped
    near_share: float = setting(gt=0, le=1)  # from which on it is a near miss, kept and reported
    by_tree: bool  # a function's syntax tree, whatever its names and literals
    min_nodes: int = setting(ge=1)  # of such a tree; a smaller one is trivial and not sought

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.near_share > self.share:
            yield "near_share", f"must be at most share ({self.share})"
        for name in ("min_tokens", "min_prompt_tokens"):
            if getattr(self, name) < self.gram_tokens:
                yield name, f"must be at least gram_tokens ({self.gram_tokens})"
