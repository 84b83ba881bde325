"""Settings of the group `validation`; conf/validation/ gives every value."""

from __future__ import annotations

from dataclasses import dataclass

from selfalign_ray.settings import setting


@dataclass(kw_only=True)
class ExecutionConfig:
    """How many sandboxes run at once. What one enforces is the group `sandbox`."""

    actors: int | None = setting(ge=1, decides=False)  # one sandbox each; null: as CPUs allow
    rows_per_block: int = setting(ge=1, decides=False)  # judged together by one actor
    num_cpus: float = setting(gt=0, decides=False)  # logical CPUs that an actor reserves


@dataclass(kw_only=True)
class MetricsConfig:
    """Static measures of passing samples, and the gates on them.

    A gate that is null, or false, only leaves its column. The others refuse a sample, in the
    order in which they stand here; what could not be measured passes no gate.
    """

    max_chars: int = setting(ge=1)  # of code or tests; in longer ones nothing is measured
    max_line_length: int = setting(ge=1)  # characters; pycodestyle's E501
    pep8_ignore: list[str]  # codes of pycodestyle, or their beginnings, that do not count
    refuse_trivial_tests: bool  # trivial_tests: no assert but trivial ones
    min_asserts: int | None = setting(ge=1)  # few_asserts: trivial ones do not count
    max_pep8_per_line: float | None = setting(ge=0)  # pep8
    min_type_coverage: float | None = setting(ge=0, le=1)  # untyped
    min_docstring_coverage: float | None = setting(ge=0, le=1)  # undocumented
    # undescribed: parameters, results and exceptions that no docstring describes
    min_docstring_completeness: float | None = setting(ge=0, le=1)
    max_complexity: int | None = setting(ge=1)  # complex: of the worst function
    refuse_unmet: bool  # misaligned: lacks what the instruction asks for by name


@dataclass(kw_only=True)
class JudgeConfig:
    """What the model itself thinks of the samples that passed.

    The texts are Jinja templates over `instruction` and `code`.
    """

    enabled: bool  # costs three prefills a sample
    question: str  # whose answer is " Yes" or " No"
    guess: str  # what the instruction follows
    shots: int = setting(ge=0)  # worked answers before the question, Yes and No in turn
    min_yes: float | None = setting(ge=0, le=1)  # judged_no: probability of Yes; null: a column


@dataclass(kw_only=True)
class StrengthConfig:
    """Stubs, mutants and coverage of passing samples, and the gates on them.

    Gates are as in `metrics`. The sandboxes are those of `execution`.
    """

    enabled: bool
    max_chars: int = setting(ge=1)  # of code or tests; of longer ones nothing is measured
    mutants: int = setting(ge=0)  # of a sample, at most
    cpu_seconds: float = setting(gt=0)  # of a stub or mutant, or what follows if that is more
    cpu_multiple: float = setting(ge=1)  # of the solution's own CPU time
    max_lookup_share: float | None = setting(ge=0, le=1)  # answers_by_lookup
    # weak_tests; unmeasured where no stub can be made and no mutant is killed either
    refuse_passing_stubs: bool
    min_killed_share: float | None = setting(ge=0, le=1)  # few_killed
    min_line_coverage: float | None = setting(ge=0, le=1)  # uncovered_lines
    min_branch_coverage: float | None = setting(ge=0, le=1)  # uncovered_branches


@dataclass(kw_only=True)
class CrossExecutionConfig:
    """Each solution of an instruction against the tests of all its samples."""

    enabled: bool
    max_samples: int = setting(ge=2)  # of an instruction; the runs grow with its square
    max_chars: int = setting(ge=1)  # of code or tests; in longer ones no mismatch is looked for
    min_agreement: float | None = setting(ge=0, le=1)  # disagreement


@dataclass(kw_only=True)
class ValidationConfig:
    """The group `validation`: one section a stage, in pipeline order."""

    execution: ExecutionConfig
    metrics: MetricsConfig
    strength: StrengthConfig
    cross_execution: CrossExecutionConfig
    judge: JudgeConfig
