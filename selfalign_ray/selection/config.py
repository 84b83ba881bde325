"""Settings of the group `selection`; conf/selection/ gives every value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from selfalign_ray.near_copies import LikenessConfig
from selfalign_ray.schemas import CROSS_EXECUTION, JUDGEMENT, METRICS, STRENGTH
from selfalign_ray.settings import setting


@dataclass(kw_only=True)
class SanitiseConfig:
    """The final texts of a sample, and what they may not hold. A check is off where it is null."""

    # raw: what the model wrote above the tests. smart: likewise, without the headings of its
    # parts and with tidy fences. code_only: the solution in one fence.
    mode: str = setting(choices=["raw", "smart", "code_only"])
    remove_comments: bool  # from code in fences; not from raw text
    refuse_leaking_instructions: bool  # instruction_leak, instruction_fence: an example's marks
    incomplete_markers: list[str]  # phrases in comments, or at the start of a line of prose
    refuse_stubs: bool  # incomplete: a function whose whole body is `pass` or `...`
    max_response_chars: int | None = setting(ge=1)  # response_too_long
    shown_tests_share: float = setting(ge=0, le=1)  # of instructions that end with the tests
    shown_tests_max_asserts: int = setting(ge=0)  # more are never shown
    shown_tests_heading: str  # the line above them

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.remove_comments and self.mode == "raw":
            yield "remove_comments", "must be false where mode is raw: raw text stays as it is"


@dataclass(kw_only=True)
class ChooseConfig:
    """Which sample of an instruction becomes its response."""

    by: str = setting(choices=["random", "best"])  # best: the highest score, then random
    k: int = setting(ge=1)  # solutions of an instruction at most, each a row; all distinct
    score: dict[str, float]  # weights of columns of validation/gates.py; null counts as 0
    # Pass rates, ascending, at which the next `difficulty_bin` begins; below the first is bin 0.
    difficulty_edges: list[float]

    def problems(self) -> Iterator[tuple[str, str]]:
        numbers = [
            f.name
            for column in (METRICS, STRENGTH, CROSS_EXECUTION, JUDGEMENT)
            for f in column
            if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)
        ]
        for name in self.score:
            if name not in numbers or name == "sample_index":
                known = ", ".join(n for n in dict.fromkeys(numbers) if n != "sample_index")
                yield f"score.{name}", f"must be one of {known}"
        if self.by == "best" and not self.score:
            yield "score", "must weigh at least one column where `by` is best"
        edges = self.difficulty_edges
        if sorted(set(edges)) != edges or any(not 0 < edge <= 1 for edge in edges):
            yield "difficulty_edges", "must ascend, above 0 and at most 1"


@dataclass(kw_only=True)
class DuplicatesConfig:
    """One row of each group of equals; the docstring of the stage says what each switch means."""

    by_pair: bool  # duplicate_pair: the same instruction, response and names of functions
    by_instruction: bool  # duplicate_instruction: equal but for case and white space
    by_code: bool  # duplicate_response: equal but for comments, docstrings and layout
    near: LikenessConfig  # near_duplicate: instruction, response and code as one text
    partitions: int = setting(ge=1, decides=False)  # of the shuffle; each fits in memory


@dataclass(kw_only=True)
class NoveltyConfig:
    """No instruction in nearly the words of another."""

    enabled: bool
    rouge_l: float = setting(ge=0.01, le=1)  # not_novel: F-measure with one that is kept, at least


@dataclass(kw_only=True)
class DiversityConfig:
    """Instructions spread over what they are about, by their embeddings."""

    enabled: bool
    # wordllama, whose package holds its weights, or the folder of a model2vec model.
    model: str
    # clusters: at most `cap` instructions of each of `clusters`. centres: the `centres`
    # instructions that lie furthest from each other.
    by: str = setting(choices=["clusters", "centres"])
    clusters: int = setting(ge=1)
    cap: int = setting(ge=1)
    centres: int = setting(ge=1)


@dataclass(kw_only=True)
class BalanceConfig:
    """At most so many rows of one kind. A cap is off where it is null."""

    enabled: bool
    difficulty_rows: int | None = setting(ge=1)  # over_difficulty: of one `difficulty_bin`
    difficulty_share: float | None = setting(gt=0, le=1)  # likewise, of the rows that come in
    concept_rows: int | None = setting(ge=1)  # over_concept: of any concept of the row
    concept_share: float | None = setting(gt=0, le=1)  # likewise, of the rows that come in

    def problems(self) -> Iterator[tuple[str, str]]:
        caps = (self.difficulty_rows, self.difficulty_share, self.concept_rows, self.concept_share)
        if self.enabled and all(cap is None for cap in caps):
            yield "enabled", "must be false where no cap is given: difficulty_rows=N, for one"


@dataclass(kw_only=True)
class SelectionConfig:
    """The group `selection`: one section a stage, in pipeline order."""

    sanitise: SanitiseConfig
    choose: ChooseConfig
    duplicates: DuplicatesConfig
    novelty: NoveltyConfig
    diversity: DiversityConfig
    balance: BalanceConfig
