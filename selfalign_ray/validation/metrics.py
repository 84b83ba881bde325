"""Metrics: static measures of the samples that passed. Nothing is executed or imported here."""

from __future__ import annotations

import ast
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import pyarrow as pa
import pycodestyle
from radon.complexity import add_inner_blocks
from radon.visitors import ComplexityVisitor
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.config import RunConfig
from selfalign_ray.validation.asserts import count_asserts
from selfalign_ray.validation.config import MetricsConfig

Row = dict[str, Any]
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_ORDER = (
    "unmeasured",
    "trivial_tests",
    "few_asserts",
    "pep8",
    "untyped",
    "undocumented",
    "complex",
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
        trivial_tests, few_asserts, pep8, untyped, undocumented or complex.
    """
    return ds.map_batches(
        partial(add_metrics, cfg=cfg.validation.metrics), batch_size=None, batch_format="pyarrow"
    )


def add_metrics(batch: pa.Table, cfg: MetricsConfig) -> pa.Table:
    """The batch with the column `metrics`, and drop reasons where no sample is left."""
    rows = batch.select(["samples", "verdicts", "drop_reason"]).to_pylist()
    found = [[measure(sample, cfg) for sample in passing(row)] for row in rows]
    reasons = [row["drop_reason"] or reason_of(ms) for row, ms in zip(rows, found, strict=True)]
    columns = dict(zip(batch.column_names, batch.columns, strict=True))
    columns["metrics"] = pa.array(found, schemas.EXECUTED.field("metrics").type)
    columns["drop_reason"] = pa.array(reasons, pa.string())
    return pa.table(columns)


def passing(row: Row) -> list[Row]:
    """The samples of a kept row whose verdict is passed."""
    if row["drop_reason"] is not None:
        return []
    passed = {v["sample_index"] for v in row["verdicts"] or () if v["verdict"] == "passed"}
    return [sample for sample in row["samples"] or () if sample["sample_index"] in passed]


def reason_of(found: list[Row]) -> str | None:
    """The gate that refused most of the samples; None where one is left or none passed."""
    gates = Counter(str(m["gate"]) for m in found if m["gate"] is not None)
    if gates.total() < len(found) or not found:
        return None
    return min(gates, key=lambda gate: (-gates[gate], _ORDER.index(gate)))


def measure(sample: Row, cfg: MetricsConfig) -> Row:
    """One value of `schemas.METRICS`."""
    code = (sample["code"] or "").replace("\r\n", "\n")
    tests = (sample["tests"] or "").replace("\r\n", "\n")
    measures: Row = dict.fromkeys(schemas.METRICS.names)
    measures["sample_index"] = sample["sample_index"]
    measures["lines"] = sum(bool(line.strip()) for line in code.split("\n"))
    if max(len(code), len(tests)) <= cfg.max_chars:
        measures |= _attempt(style, code, cfg)
        tree, tests_tree = parse(code), parse(tests)
        if tree is not None:
            measures |= _of_tree(tree) | _attempt(complexity, tree)
        if tree is not None and tests_tree is not None:
            measures |= _attempt(asserts, tree, tests_tree)
    measures["gate"] = gate_of(measures, cfg)
    return measures


def gate_of(measures: Row, cfg: MetricsConfig) -> str | None:
    """The first gate that refuses these measures, in the order of the settings."""
    telling = _minus(measures["asserts"], measures["trivial_asserts"])
    distinct = _minus(telling, measures["repeated_asserts"])
    at_least = [
        ("trivial_tests", telling, 1 if cfg.refuse_trivial_tests else None),
        ("few_asserts", distinct, cfg.min_asserts),
        ("pep8", _minus(0, measures["pep8_per_line"]), _minus(0, cfg.max_pep8_per_line)),
        ("untyped", measures["type_coverage"], cfg.min_type_coverage),
        ("undocumented", measures["docstring_coverage"], cfg.min_docstring_coverage),
        ("complex", _minus(0, measures["complexity_max"]), _minus(0, cfg.max_complexity)),
    ]
    for gate, value, least in at_least:
        if least is not None and value is None:
            return "unmeasured"
        if least is not None and value is not None and value < least:
            return gate
    return None


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
        if isinstance(found.node, _FUNCTIONS):
            parameters = _parameters(found.node, method=found.method)
            annotations = [p.annotation for p in parameters]
            if found.node.name != "__init__":
                annotations.append(found.node.returns)
            places += len(annotations)
            annotated += sum(a is not None for a in annotations)
    return annotated / places if places else 1.0


def docstring_coverage(tree: ast.Module) -> float:
    """The share of public functions, methods and classes with a docstring; 1 where none is."""
    public = [d.node for d in definitions(tree) if not d.local and not d.node.name.startswith("_")]
    return sum(bool(ast.get_docstring(node)) for node in public) / len(public) if public else 1.0


def complexity(tree: ast.Module) -> Row:
    """Cyclomatic complexity over all functions; of the module where there are none."""
    visitor = ComplexityVisitor.from_ast(tree)
    blocks = add_inner_blocks(visitor.blocks)
    found = [b.complexity for b in blocks if b.letter in "FM"] or [visitor.complexity]
    return {"complexity_max": max(found), "complexity_mean": sum(found) / len(found)}


def asserts(solution: ast.Module, tests: ast.Module) -> Row:
    """How many asserts the tests have, and how many of them say nothing (asserts.py)."""
    return count_asserts(solution, tests)._asdict()


def imports(tree: ast.Module) -> list[str]:
    """The top-level modules that are imported anywhere, sorted."""
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.add(node.module.partition(".")[0])
    return sorted(modules)


class Definition(NamedTuple):
    """A function or class."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    method: bool  # a function right inside a class
    local: bool  # somewhere inside a function


def definitions(tree: ast.AST) -> Iterator[Definition]:
    """All functions and classes, in no particular order."""
    todo: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while todo:
        node, in_class, local = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield Definition(child, method=False, local=local)
                todo.append((child, True, local))
            elif isinstance(child, _FUNCTIONS):
                yield Definition(child, method=in_class, local=local)
                todo.append((child, False, True))
            else:
                todo.append((child, in_class, local))


def parse(code: str) -> ast.Module | None:
    """The syntax tree; None where there is none, or where it is too deep."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _of_tree(tree: ast.Module) -> Row:
    return {
        "imports": imports(tree),
        "type_coverage": type_coverage(tree),
        "docstring_coverage": docstring_coverage(tree),
    }


def _attempt(measuring: Callable[..., Row], *args: Any) -> Row:
    """What it gives; nothing where it fails."""
    try:
        return measuring(*args)
    except Exception:  # noqa: BLE001  # any text may reach these checkers: they fail in any way
        return {}


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> list[ast.arg]:
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    static = any(
        isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list
    )
    rest = [p for p in (a.vararg, *a.kwonlyargs, a.kwarg) if p is not None]
    return positional[method and not static :] + rest


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
