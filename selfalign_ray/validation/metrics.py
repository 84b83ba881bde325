"""Metrics: static measures of the samples that passed. Nothing is executed or imported here."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pycodestyle
from radon.complexity import add_inner_blocks
from radon.metrics import h_visit_ast, mi_compute
from radon.raw import analyze
from radon.visitors import ComplexityVisitor
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.validation import docstrings
from selfalign_ray.validation.alignment import Asked, asked_by, unmet_by
from selfalign_ray.validation.asserts import count_asserts
from selfalign_ray.validation.config import MetricsConfig
from selfalign_ray.validation.definitions import FUNCTIONS, definitions, imports, parameters, parse
from selfalign_ray.validation.gates import Limit, passing, reason_of, refused_by

Row = dict[str, Any]
_ORDER = (
    "unmeasured",
    "trivial_tests",
    "few_asserts",
    "pep8",
    "untyped",
    "undocumented",
    "undescribed",
    "complex",
    "misaligned",
)


def metrics(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Adds `metrics`, one for each sample that passed, and asks the gates.

    A measure that fails on a sample's code is null, and the others stand.

    Args:
        ds: `schemas.EXECUTED` rows without `metrics`.
        cfg: the section `validation.metrics`.

    Returns:
        `schemas.EXECUTED` rows, as many as came in, in any order. A row whose passing samples
        were all refused has as drop_reason the gate that refused most of them: unmeasured,
        trivial_tests, few_asserts, pep8, untyped, undocumented, undescribed, complex or
        misaligned.
    """
    return by_block(ds, partial(add_metrics, cfg=cfg.validation.metrics))


def add_metrics(batch: pa.Table, cfg: MetricsConfig) -> pa.Table:
    """The batch with the column `metrics`, and drop reasons where no sample is left."""
    names = ["instruction", "samples", "verdicts", "drop_reason"]
    rows = batch.select(names).to_pylist()
    programs = [(place, s) for place, row in enumerate(rows) for s in passing(row)]
    asked = [asked_by(row["instruction"] or "") for row in rows]
    codes = [_as_run(sample["code"]) for _, sample in programs]
    fitting = [code if len(code) <= cfg.max_chars else "" for code in codes]
    violations = docstrings.pep257_violations(fitting)
    for row in rows:
        row["metrics"] = []
    for (place, sample), counted in zip(programs, violations, strict=True):
        rows[place]["metrics"].append(measure(sample, asked[place], counted, cfg))
    found = [row["metrics"] for row in rows]
    reasons = [reason_of(row, "metrics", _ORDER) for row in rows]
    return with_columns(batch, schemas.EXECUTED, metrics=found, drop_reason=reasons)


def measure(sample: Row, asked: list[Asked], violations: int | None, cfg: MetricsConfig) -> Row:
    """One value of `schemas.METRICS`, of a sample for an instruction that asks for `asked`."""
    code, tests = _as_run(sample["code"]), _as_run(sample["tests"])
    measures: Row = dict.fromkeys(schemas.METRICS.names)
    measures["sample_index"] = sample["sample_index"]
    measures["lines"] = sum(bool(line.strip()) for line in code.split("\n"))
    measures["asked"] = [str(one) for one in asked]
    if max(len(code), len(tests)) <= cfg.max_chars:
        measures["docstring_violations"] = violations
        measures |= _attempt(style, code, cfg)
        tree, tests_tree = parse(code), parse(tests)
        if tree is not None:
            measures |= _of_tree(tree) | _attempt(complexity, code, tree)
            measures |= _attempt(alignment, tree, asked)
        if tree is not None and tests_tree is not None:
            measures |= _attempt(asserts, tree, tests_tree)
    measures["gate"] = gate_of(measures, cfg)
    return measures


def gate_of(measures: Row, cfg: MetricsConfig) -> str | None:
    """The first gate that refuses these measures, in the order of the settings."""
    telling = _minus(measures["asserts"], measures["trivial_asserts"])
    distinct = _minus(telling, measures["repeated_asserts"])
    unmet = None if measures["unmet"] is None else len(measures["unmet"])
    described = measures["docstring_completeness"]
    return refused_by(
        [
            Limit("trivial_tests", telling, least=1 if cfg.refuse_trivial_tests else None),
            Limit("few_asserts", distinct, least=cfg.min_asserts),
            Limit("pep8", measures["pep8_per_line"], most=cfg.max_pep8_per_line),
            Limit("untyped", measures["type_coverage"], least=cfg.min_type_coverage),
            Limit("undocumented", measures["docstring_coverage"], least=cfg.min_docstring_coverage),
            Limit("undescribed", described, least=cfg.min_docstring_completeness),
            Limit("complex", measures["complexity_max"], most=cfg.max_complexity),
            Limit("misaligned", unmet, most=0 if cfg.refuse_unmet else None),
        ]
    )


def style(code: str, cfg: MetricsConfig) -> Row:
    """What pycodestyle finds, in all and per line that is not blank."""
    whole = code.rstrip("\n") + "\n"  # out of its fence, code lacks its last line end
    lines = io.StringIO(whole).readlines() if code.strip() else []
    options = _style_options(cfg.max_line_length, tuple(cfg.pep8_ignore))
    report = pycodestyle.BaseReport(options)
    found = pycodestyle.Checker(lines=lines, options=options, report=report).check_all()
    count = sum(bool(line.strip()) for line in lines)
    return {"pep8_violations": found, "pep8_per_line": found / max(count, 1)}


@lru_cache(maxsize=1)
def _style_options(max_line_length: int, ignore: tuple[str, ...]) -> Any:
    # Every option that concerns a count is named, so that no file of the user's adds to them.
    return pycodestyle.StyleGuide(
        quiet=1,
        verbose=0,
        select=[],
        ignore=list(ignore) or ["none"],  # an empty list would mean pycodestyle's own
        max_line_length=max_line_length,
        max_doc_length=None,
        indent_size=4,
        hang_closing=False,
    ).options


def type_coverage(tree: ast.Module) -> float:
    """The share of parameters and returns that are annotated; 1 where there are none.

    `self`, `cls` and the return of `__init__` go without saying; lambdas cannot be annotated.
    """
    annotated = places = 0
    for found in definitions(tree):
        if isinstance(found.node, FUNCTIONS):
            arguments = parameters(found.node, method=found.method)
            annotations = [p.annotation for p in arguments]
            if found.node.name != "__init__":
                annotations.append(found.node.returns)
            places += len(annotations)
            annotated += sum(a is not None for a in annotations)
    return annotated / places if places else 1.0


def complexity(code: str, tree: ast.Module) -> Row:
    """Cyclomatic complexity over all functions, or of a module without any; maintainability."""
    visitor = ComplexityVisitor.from_ast(tree)
    blocks = add_inner_blocks(visitor.blocks)
    found = [b.complexity for b in blocks if b.letter in "FM"] or [visitor.complexity]
    return {
        "complexity_max": max(found),
        "complexity_mean": sum(found) / len(found),
        **_attempt(maintainability, code, tree, visitor.total_complexity),
    }


def maintainability(code: str, tree: ast.Module, total_complexity: int) -> Row:
    """The index of radon, 0 to 100: volume, complexity, lines and comments in one number.

    As its `mi_visit` has it, docstrings counted as comments, without parsing a second time.
    """
    raw = analyze(code)
    comments = 100 * (raw.comments + raw.multi) / raw.sloc if raw.sloc else 0.0
    volume = h_visit_ast(tree).total.volume
    return {"maintainability": mi_compute(volume, total_complexity, raw.lloc, comments)}


def alignment(tree: ast.Module, asked: list[Asked]) -> Row:
    """What the instruction asks for by name and the code lacks (alignment.py)."""
    return {"unmet": [str(one) for one in unmet_by(tree, asked)]}


def asserts(solution: ast.Module, tests: ast.Module) -> Row:
    """How many asserts the tests have, and how many of them say nothing (asserts.py)."""
    return count_asserts(solution, tests)._asdict()


def _of_tree(tree: ast.Module) -> Row:
    return {
        "imports": imports(tree),
        "type_coverage": type_coverage(tree),
        "docstring_coverage": docstrings.coverage(tree),
        **_attempt(lambda: {"docstring_completeness": docstrings.completeness(tree)}),
    }


def _as_run(text: str | None) -> str:
    """The text without the byte order mark and the carriage returns that make no difference."""
    return (text or "").removeprefix("\ufeff").replace("\r\n", "\n")


def _attempt(measuring: Callable[..., Row], *args: Any) -> Row:
    """What it gives; nothing where it fails."""
    try:
        return measuring(*args)
    except Exception:  # noqa: BLE001  # any text may reach these checkers: they fail in any way
        return {}


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
