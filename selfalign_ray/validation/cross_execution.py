"""Cross-execution: each solution of an instruction against the tests of all its samples."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.validation.config import CrossExecutionConfig
from selfalign_ray.validation.definitions import parse
from selfalign_ray.validation.gates import reason_of, ungated
from selfalign_ray.validation.interface import is_of_interface, mismatch
from selfalign_ray.validation.sandboxes import in_sandboxes
from selfalign_ray.watch.tally import count

Row = dict[str, Any]
PASSED, FAILED, INTERFACE, UNKNOWN = "p", "f", "i", "-"
INDEPENDENT = -1  # stands for the tests of the hop that saw no solution
_ORDER = ("unmeasured", "disagreement")
Pair = tuple[str, str]  # code and tests


def cross_execution(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Adds `cross_execution` and `agreement`, and the gate on them.

    The samples are those that can be executed, of more than `max_samples` first those that
    passed, each in its order; the tests are theirs and, if no sample has these, the row's
    independent ones. Every distinct pair of code and tests runs once; those that the execution
    has judged, and those that cannot fit each other by their syntax, do not run at all.

    The score is the dual-execution agreement of CodeT (arXiv 2207.10397): solutions that pass
    the same tests are a cluster, and its score is the number of its solutions times the number of
    the tests that they pass. Equal tests count once, equal solutions as often as they were
    drawn. Here both numbers are shares, of the samples and of the distinct tests in the matrix,
    so that instructions can be compared.

    Args:
        ds: `schemas.EXECUTED` or `schemas.CHECKED` rows.
        cfg: the sections `validation.cross_execution`, `validation.execution` and `sandbox`.

    Returns:
        `schemas.CHECKED` rows, as many as came in, in any order. Drop reasons of a row whose
        samples were all refused: unmeasured, disagreement.
    """
    work = partial(add_agreement, cfg=cfg.validation.cross_execution)
    return in_sandboxes(ds, "cross_execution", work, cfg.sandbox, cfg.validation.execution)


@dataclass(kw_only=True)
class _Matrix:
    """The pairs of one row."""

    samples: list[Row]
    tests: dict[int, str]  # distinct texts, by the first sample that has them
    cells: dict[Pair, str] = field(default_factory=dict)
    trees: dict[str, ast.Module | None] = field(default_factory=dict)

    def missing(self) -> list[Pair]:
        """The distinct pairs without a letter."""
        codes = dict.fromkeys(sample["code"] for sample in self.samples)
        pairs = [(code, tests) for code in codes for tests in self.tests.values()]
        return [pair for pair in pairs if pair not in self.cells]

    def letters(self, code: str) -> str:
        return "".join(self.cells.get((code, tests), UNKNOWN) for tests in self.tests.values())


def add_agreement(block: pa.Table, sandbox: Sandbox, cfg: CrossExecutionConfig) -> pa.Table:
    """The block with the columns `cross_execution` and `agreement`, and drop reasons."""
    names = ["independent_tests", "samples", "verdicts", "metrics", "strength", "drop_reason"]
    rows = block.select([name for name in names if name in block.column_names]).to_pylist()
    matrices = {n: matrix_of(row, cfg) for n, row in enumerate(rows) if row["drop_reason"] is None}
    todo = [(matrix, pair) for matrix in matrices.values() for pair in matrix.missing()]
    began = time.monotonic()
    verdicts = sandbox.judge([pair for _, pair in todo])
    count("cross_execution", busy_seconds=time.monotonic() - began, runs=len(todo))
    for (matrix, pair), verdict in zip(todo, verdicts, strict=True):
        matrix.cells[pair] = letter_of(verdict.verdict, verdict.detail, matrix.trees[pair[0]])
        count("cross_execution", cpu_seconds=verdict.cpu_seconds)
    for number, row in enumerate(rows):
        whole = matrices.get(number)
        row["cross_execution"] = scores(whole, row, cfg) if whole else []
        row["agreement"] = _agreement(whole) if whole else None
    return with_columns(
        block,
        schemas.CHECKED,
        cross_execution=[row["cross_execution"] for row in rows],
        agreement=[row["agreement"] for row in rows],
        drop_reason=[reason_of(row, "cross_execution", _ORDER) for row in rows],
    )


def matrix_of(row: Row, cfg: CrossExecutionConfig) -> _Matrix:
    """The pairs of a row, with the letters that need no run."""
    verdicts = {v["sample_index"]: v for v in row["verdicts"] or ()}
    samples = [s for s in row["samples"] or () if s["sample_index"] in verdicts]
    passed = {i for i, verdict in verdicts.items() if verdict["verdict"] == "passed"}
    samples.sort(key=lambda s: (s["sample_index"] not in passed, s["sample_index"]))
    samples = sorted(samples[: cfg.max_samples], key=lambda s: int(s["sample_index"]))
    tests = {sample["sample_index"]: sample["tests"] for sample in samples}
    if row.get("independent_tests"):
        tests[INDEPENDENT] = row["independent_tests"]
    first: dict[str, int] = {}
    for index, text in tests.items():
        first.setdefault(text, index)
    matrix = _Matrix(samples=samples, tests={index: text for text, index in first.items()})
    codes = dict.fromkeys(sample["code"] for sample in samples)
    matrix.trees = {text: _tree(text, cfg.max_chars) for text in (*codes, *first)}
    for sample in samples:
        verdict = verdicts[sample["sample_index"]]
        letter = letter_of(
            verdict["verdict"], verdict["detail"] or "", matrix.trees[sample["code"]]
        )
        matrix.cells[sample["code"], sample["tests"]] = letter
    for code, text in matrix.missing():
        solution, asked = matrix.trees[code], matrix.trees[text]
        if solution is not None and asked is not None and mismatch(solution, asked):
            matrix.cells[code, text] = INTERFACE
    return matrix


def letter_of(verdict: str, detail: str, solution: ast.Module | None) -> str:
    """What a verdict says of a pair."""
    if verdict == "infra":
        return UNKNOWN
    if verdict == "exception" and solution is not None and is_of_interface(detail, solution):
        return INTERFACE
    return PASSED if verdict == "passed" else FAILED


def scores(matrix: _Matrix, row: Row, cfg: CrossExecutionConfig) -> list[Row]:
    """The values of `schemas.CROSS_EXECUTION`; the gate concerns samples that passed alone."""
    lines = {sample["sample_index"]: matrix.letters(sample["code"]) for sample in matrix.samples}
    passed = {index: passed_tests(line) for index, line in lines.items()}
    clusters = ranked(passed)
    left = {sample["sample_index"] for sample, _ in ungated(row)}
    out = []
    for index, line in lines.items():
        members = clusters[passed[index]][1]
        asked = line.count(PASSED) + line.count(FAILED)
        share = len(members) / len(lines) * (len(passed[index]) / max(1, len(matrix.tests)))
        refused = cfg.min_agreement is not None and share < cfg.min_agreement
        out.append(
            {
                "sample_index": index,
                "cluster": clusters[passed[index]][0],
                "cluster_size": len(members),
                "tests_passed": len(passed[index]),
                "passed_share": len(passed[index]) / asked if asked else None,
                "agreement": share,
                "gate": "disagreement" if refused and index in left else None,
            }
        )
    if cfg.min_agreement is not None:  # of more samples than the matrix has
        out += [_unmeasured(index) for index in sorted(left - lines.keys())]
    return out


def passed_tests(line: str) -> frozenset[int]:
    """Which tests a line of the matrix passes."""
    return frozenset(index for index, letter in enumerate(line) if letter == PASSED)


def ranked(
    passed: Mapping[int, frozenset[int]],
) -> dict[frozenset[int], tuple[int, Sequence[int]]]:
    """Solutions by the tests that they pass, each cluster with its rank; the best is 0.

    Of equal scores the larger cluster comes first, then the one with the first sample.
    """
    members: dict[frozenset[int], list[int]] = {}
    for index, tests in passed.items():
        members.setdefault(tests, []).append(index)
    order = sorted(members, key=lambda t: (-len(t) * len(members[t]), -len(members[t]), members[t]))
    return {tests: (rank, members[tests]) for rank, tests in enumerate(order)}


def _unmeasured(index: int) -> Row:
    nothing: Row = dict.fromkeys(schemas.CROSS_EXECUTION.names)
    return nothing | {"sample_index": index, "gate": "unmeasured"}


def _agreement(matrix: _Matrix) -> Row:
    return {
        "solutions": [sample["sample_index"] for sample in matrix.samples],
        "tests": list(matrix.tests),
        "cells": [matrix.letters(sample["code"]) for sample in matrix.samples],
    }


def _tree(text: str, max_chars: int) -> ast.Module | None:
    return parse(text) if len(text) <= max_chars else None
