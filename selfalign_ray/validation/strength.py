"""Strength: whether a sample's tests notice wrong solutions. Stubs and mutants run sandboxed."""

from __future__ import annotations

import ast
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.ids import keyed_random
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.sandbox.suite import main_guard
from selfalign_ray.sandbox.verdict import Verdict
from selfalign_ray.validation.config import StrengthConfig
from selfalign_ray.validation.coverage import Coverage, Instrumented, instrument
from selfalign_ray.validation.definitions import define_lambdas, parse
from selfalign_ray.validation.expectations import assert_kinds
from selfalign_ray.validation.gates import SANDBOX_FAILED, Limit, reason_of, refused_by, ungated
from selfalign_ray.validation.lookup import lookup_share
from selfalign_ray.validation.mutants import Mutant, mutants
from selfalign_ray.validation.sandboxes import in_sandboxes
from selfalign_ray.validation.stubs import Stub, stubs
from selfalign_ray.watch.tally import count

Row = dict[str, Any]
_Found = TypeVar("_Found")
_ORDER = (
    "unmeasured",
    "answers_by_lookup",
    "weak_tests",
    "few_killed",
    "uncovered_lines",
    "uncovered_branches",
)
_IDLE = "every function returns None"  # a stub that passes without a run: none is entered
_OUTPUT_BYTES = 1 << 16  # at least, of a program's stderr, where it says what was reached


def strength(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Adds `strength`, one for each sample that passed and that no gate refused, and its gates.

    For each of them the solution runs once with marks for coverage, then each of its stubs and
    mutants, under a CPU limit of their own. A mutant of what the tests do not reach counts as
    alive without a run. The mutants are drawn by `seed_id` and `sample_index`; samples of a row
    with the same code and tests are measured once.

    Args:
        ds: `schemas.EXECUTED` rows.
        cfg: the sections `validation.strength`, `validation.execution` and `sandbox`; all in
            one process, since nothing here makes a sample pass.

    Returns:
        `schemas.CHECKED` rows without `cross_execution`, as many as came in, in any order. A row
        whose samples were all refused has as drop_reason the gate that refused most of them:
        unmeasured, answers_by_lookup, weak_tests, few_killed, uncovered_lines or
        uncovered_branches; sandbox_failed where the sandbox failed on what a gate needs of one.
    """
    sandbox = dataclasses.replace(
        cfg.sandbox,
        assurance="shared",
        output_bytes=max(_OUTPUT_BYTES, cfg.sandbox.output_bytes),
    )
    work = partial(add_strength, cfg=cfg.validation.strength, run_seed=cfg.run_seed)
    return in_sandboxes(ds, "strength", work, sandbox, cfg.validation.execution)


@dataclass(kw_only=True)
class _Subject:
    """A solution and its tests, on the way through the sandbox."""

    row: int
    sample_indexes: list[int]  # of samples with these texts
    code: str
    tests: str
    solution: ast.Module | None  # without what its main guard holds
    tests_tree: ast.Module | None
    measures: Row
    marked: Instrumented | None = None
    coverage: Coverage | None = None
    cpu_limit: float = 0.0
    stubs: list[Stub] | None = None  # None: they could not be made
    mutants: list[Mutant] | None = None  # those that the tests reach
    unreached: int = 0  # mutants
    verdicts: list[Verdict] = field(default_factory=list)  # of the marked, the stubs, the mutants


def add_strength(block: pa.Table, sandbox: Sandbox, cfg: StrengthConfig, run_seed: int) -> pa.Table:
    """The block with the column `strength`, and drop reasons where no sample is left."""
    names = ["seed_id", "instruction", "samples", "verdicts", "metrics", "drop_reason"]
    rows = block.select(names).to_pylist()
    subjects = [s for number, row in enumerate(rows) for s in _subjects(number, row, cfg)]
    began = time.monotonic()
    _cover([s for s in subjects if s.measures["gate"] is None], sandbox)
    for subject in subjects:
        if subject.measures["gate"] is None:
            key = str(rows[subject.row]["seed_id"]), str(subject.sample_indexes[0])
            _prepare(subject, cfg, run_seed, key)
    _run_variants(subjects, sandbox)
    count("strength", busy_seconds=time.monotonic() - began)
    for row in rows:
        row["strength"] = []
    for subject in subjects:
        rows[subject.row]["strength"] += _measures(subject, cfg)
    for row in rows:
        row["strength"].sort(key=lambda measures: measures["sample_index"])
    found = [row["strength"] for row in rows]
    reasons = [reason_of(row, "strength", _ORDER) for row in rows]
    return with_columns(block, schemas.CHECKED, strength=found, drop_reason=reasons)


def _subjects(number: int, row: Row, cfg: StrengthConfig) -> list[_Subject]:
    """What there is to measure in a row; what looks its tests up is refused without a run."""
    found: dict[tuple[str, str], _Subject] = {}
    for sample, _ in ungated(row):
        code, tests = sample["code"] or "", sample["tests"] or ""
        if (code, tests) in found:
            found[code, tests].sample_indexes.append(sample["sample_index"])
            continue
        fits = max(len(code), len(tests)) <= cfg.max_chars
        solution = parse(code) if fits else None
        tests_tree = parse(tests) if fits else None
        measures: Row = dict.fromkeys(schemas.STRENGTH.names)
        if solution is not None and tests_tree is not None:
            _attempt(main_guard, solution)
            define_lambdas(solution)
            measures["assert_kinds"] = _attempt(assert_kinds, tests_tree)
            share = _attempt(lookup_share, solution, tests_tree, row["instruction"] or "")
            measures["lookup_share"] = share
        measures["gate"] = lookup_gate(measures, cfg)
        found[code, tests] = _Subject(
            row=number,
            sample_indexes=[sample["sample_index"]],
            code=code,
            tests=tests,
            solution=solution,
            tests_tree=tests_tree,
            measures=measures,
        )
    return list(found.values())


def _cover(subjects: Sequence[_Subject], sandbox: Sandbox) -> None:
    """Runs each with marks; tells its coverage and its CPU time."""
    for subject in subjects:
        if subject.solution is not None:
            subject.marked = instrument(subject.code)
    marked = [(s, s.marked) for s in subjects if s.marked is not None]
    verdicts = sandbox.judge([(m.code, f"{s.tests}{m.report}") for s, m in marked])
    for (subject, instrumented), verdict in zip(marked, verdicts, strict=True):
        subject.verdicts.append(verdict)
        if verdict.verdict == "passed":
            subject.coverage = instrumented.read(verdict.stderr)


def _prepare(subject: _Subject, cfg: StrengthConfig, run_seed: int, key: tuple[str, ...]) -> None:
    """Writes the stubs and mutants down, and what CPU time they have."""
    solution, tests = subject.solution, subject.tests_tree
    if solution is None or tests is None:
        return
    reached = None if subject.coverage is None else subject.coverage.reached
    seconds = max((v.cpu_seconds for v in subject.verdicts), default=0.0)
    subject.cpu_limit = max(cfg.cpu_seconds, cfg.cpu_multiple * seconds)
    subject.stubs = _attempt(stubs, solution, tests, reached)
    rng = keyed_random(run_seed, "strength", *key)
    subject.mutants = _attempt(mutants, solution, cfg.mutants, rng)
    if subject.mutants is not None and reached is not None:
        all_of_them = len(subject.mutants)
        subject.mutants = [m for m in subject.mutants if m.place is None or m.place in reached]
        subject.unreached = all_of_them - len(subject.mutants)


def _run_variants(subjects: Sequence[_Subject], sandbox: Sandbox) -> None:
    variants = [
        (subject, variant.code)
        for subject in subjects
        for variant in (*(subject.stubs or ()), *(subject.mutants or ()))
    ]
    verdicts = sandbox.judge(
        [(code, subject.tests) for subject, code in variants],
        [subject.cpu_limit for subject, _ in variants],
    )
    for (subject, _), verdict in zip(variants, verdicts, strict=True):
        subject.verdicts.append(verdict)


def _measures(subject: _Subject, cfg: StrengthConfig) -> list[Row]:
    """The values of `schemas.STRENGTH`; the runs count for the first of equal samples."""
    made, mutated = subject.stubs, subject.mutants
    variants = subject.verdicts[subject.marked is not None :]
    of_stubs, of_mutants = variants[: len(made or ())], variants[len(made or ()) :]
    judged = [s for s in zip(made or (), of_stubs, strict=True) if s[1].verdict != "infra"]
    idle = [_IDLE] if subject.coverage is not None and not subject.coverage.entered else []
    passed = idle + [stub.name for stub, verdict in judged if verdict.verdict == "passed"]
    killed = [v.verdict != "passed" for v in of_mutants if v.verdict != "infra"]
    # Where there is no stub, a mutant that is noticed says as much: that the tests look.
    all_failed = len(judged) == len(of_stubs) and bool(judged or any(killed))
    total = len(killed) + subject.unreached
    measures = subject.measures | {
        "stubs": None if made is None else len(judged) + len(idle),
        "stubs_passed": passed if passed or all_failed else None,
        "mutants": None if mutated is None else total,
        "mutants_killed": None if mutated is None else sum(killed),
        "killed_share": sum(killed) / total if total else None,
        "line_coverage": subject.coverage and subject.coverage.lines,
        "branch_coverage": subject.coverage and subject.coverage.branches,
        "runs": len(subject.verdicts),
        "cpu_seconds": sum(verdict.cpu_seconds for verdict in subject.verdicts),
    }
    measures["gate"] = measures["gate"] or gate_of(measures, cfg)
    if measures["gate"] == "unmeasured" and any(v.verdict == "infra" for v in subject.verdicts):
        measures["gate"] = SANDBOX_FAILED
    first, *others = subject.sample_indexes
    count("strength", samples=1 + len(others), runs=measures["runs"])
    count("strength", cpu_seconds=measures["cpu_seconds"])
    again = measures | {"runs": 0, "cpu_seconds": 0.0}
    return [
        measures | {"sample_index": first},
        *(again | {"sample_index": index} for index in others),
    ]


def lookup_gate(measures: Row, cfg: StrengthConfig) -> str | None:
    """The gate that needs no run."""
    limit = Limit("answers_by_lookup", measures["lookup_share"], most=cfg.max_lookup_share)
    return refused_by([limit])


def gate_of(measures: Row, cfg: StrengthConfig) -> str | None:
    """The first gate after a run that refuses these measures, in the order of the settings."""
    passed = None if measures["stubs_passed"] is None else len(measures["stubs_passed"])
    return refused_by(
        [
            Limit("weak_tests", passed, most=0 if cfg.refuse_passing_stubs else None),
            Limit("few_killed", measures["killed_share"], least=cfg.min_killed_share),
            Limit("uncovered_lines", measures["line_coverage"], least=cfg.min_line_coverage),
            Limit("uncovered_branches", measures["branch_coverage"], least=cfg.min_branch_coverage),
        ]
    )


def _attempt(making: Callable[..., _Found], *args: Any) -> _Found | None:
    """What it makes; None where a tree is too deep for it, or holds what cannot be written."""
    try:
        return making(*args)
    except (RecursionError, ValueError, MemoryError, SyntaxError):
        return None
