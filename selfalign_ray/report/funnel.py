"""The funnel: where every row went, from files read to rows written, and whether it adds up."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfalign_ray.hops.config import HOP_NAMES
from selfalign_ray.report.saved import SavedStage
from selfalign_ray.stage import KEPT

# Which column shows that a row got through a hop.
_FILLED_BY = {
    "concepts": "concepts",
    "instruction": "instruction",
    "tests": "independent_tests",
    "responses": "samples",
}
# Reasons whose stage no column shows; any other belongs to the last stage of its group.
_STAGE_OF = {
    "no_functions": "functions",
    "parse_failed": "functions",
    "parse_timeout": "functions",
    "parser_died": "functions",
    "too_long": "functions",
    "type_error": "typecheck",
    "no_executable_sample": "execution",
    "no_passing_sample": "execution",
    "sandbox_failed": "execution",
    "no_choice": "choose",
    "benchmark_text": "final_decontamination",
    "near_duplicate": "duplicates",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One saved stage."""

    name: str
    rows: int  # that it saw and that `choose` has added, the dropped ones included
    kept: int
    dropped: dict[tuple[str, str], int]  # (stage that dropped, drop_reason) -> rows


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """All saved stages in order. The first step's rows are functions, where files were read."""

    files: int | None  # read; None where the run began in the middle
    files_dropped: dict[tuple[str, str], int]  # (stage, drop_reason) -> files without a function
    steps: list[Step]
    problems: list[str]  # what does not add up, a sentence each
    left_out: dict[str, int]  # rows that a stage did not come to, where the run was finalized
    resumed: dict[str, tuple[int, int]]  # rows that a stage found done; did again, at most

    @property
    def files_with_functions(self) -> int:
        return (self.files or 0) - sum(self.files_dropped.values())

    @property
    def kept(self) -> int:
        """Rows that the last stage kept."""
        return self.steps[-1].kept if self.steps else 0

    @property
    def ended_by(self) -> tuple[str, str, int] | None:
        """The stage, commonest reason and number where the last rows were dropped, if all were."""
        step = next((step for step in self.steps if not step.kept), None)
        if step is None or not step.dropped:
            return None
        (stage, reason), number = max(step.dropped.items(), key=lambda item: item[1])
        return stage, reason, number


class _Census:
    """Counts of one saved stage's rows, made batch by batch."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()  # of all rows, as the manifest counts them
        self.files: Counter[tuple[str, str]] = Counter()  # rows that stand for a file
        self.dropped: Counter[tuple[str, str]] = Counter()  # all other dropped rows
        self.unexplained = 0  # files with neither a function nor a reason
        self.first_functions = 0
        self.rows = self.kept = 0
        self.first_choices = 0  # rows less those that `choose` has added
        self.all_ids = self.kept_ids = 0  # sums of hashes: the same rows give the same sum


def take_funnel(stages: Sequence[SavedStage]) -> Funnel:
    """Reads the saved stages and counts.

    The counts add up when each folder holds what its manifest says, each stage saw exactly the
    rows that the one before it kept, and every file has a function or a reason.
    """
    pairs = [(stage, _census(stage)) for stage in stages]
    problems = [problem for pair in pairs for problem in _stage_problems(*pair)]
    left_out = {s.name: n for s in stages if (n := s.manifest.get("left_out"))}
    for (above, before), (stage, census) in itertools.pairwise(pairs):
        left = left_out.get(stage.name, 0)
        problems += _link_problems(above.name, before, stage.name, census, left)
    steps = [
        Step(name=s.name, rows=c.rows, kept=c.kept, dropped=_ordered(s.group, c.dropped))
        for s, c in pairs
    ]
    resumed = {
        s.name: (found, s.manifest["done_again_at_most"])
        for s in stages
        if (found := s.manifest.get("found_done"))
    }
    files: int | None = None
    files_dropped: dict[tuple[str, str], int] = {}
    if pairs and "functions" in pairs[0][0].group:
        stage, first = pairs[0]
        files = first.first_functions + sum(first.files.values()) + first.unexplained
        files_dropped = _ordered(stage.group, first.files)
    return Funnel(
        files=files,
        files_dropped=files_dropped,
        steps=steps,
        problems=problems,
        left_out=left_out,
        resumed=resumed,
    )


def _census(stage: SavedStage) -> _Census:
    census = _Census()
    columns = ["row_id", "function_index", "choice", "drop_reason"]
    columns += [column for hop, column in _FILLED_BY.items() if hop in stage.group]
    for batch in stage.batches(columns):
        kept = pc.is_null(batch["drop_reason"]).to_numpy()
        is_file = pc.is_null(batch["function_index"]).to_numpy()
        if "functions" not in stage.group:
            is_file = np.zeros_like(is_file)
        ids = batch["row_id"].to_pylist()
        hashes = np.fromiter((hash(i) for i in ids), dtype=np.int64, count=len(ids))
        is_first = pc.fill_null(pc.equal(batch["choice"], 0), fill_value=True).to_numpy()
        if "choose" not in stage.group:
            is_first = np.ones_like(is_first)
        census.first_choices += int((is_first & ~is_file).sum())
        census.all_ids += int(hashes[is_first].sum())
        census.kept_ids += int(hashes[kept].sum())
        census.kept += int((kept & ~is_file).sum())
        census.rows += int((~is_file).sum())
        census.unexplained += int((kept & is_file).sum())
        census.first_functions += pc.sum(pc.equal(batch["function_index"], 0)).as_py() or 0
        census.reasons[KEPT] += int(kept.sum())
        dropped = batch.filter(pa.array(~kept))
        census.reasons.update(dropped["drop_reason"].to_pylist())
        for where, on_file in zip(_places(stage.group, dropped), is_file[~kept], strict=True):
            (census.files if on_file else census.dropped)[where] += 1
    return census


def _places(group: Sequence[str], dropped: pa.Table) -> Iterator[tuple[str, str]]:
    """For each dropped row, the stage of the group that dropped it, and the reason."""
    hops = [hop for hop in HOP_NAMES if hop in group]
    filled = [pc.is_valid(dropped[_FILLED_BY[hop]]).to_pylist() for hop in hops]
    is_file = pc.is_null(dropped["function_index"]).to_pylist()
    for index, reason in enumerate(dropped["drop_reason"].to_pylist()):
        stage = group[-1]
        if hops:
            stage = next((h for h, f in zip(hops, filled, strict=True) if not f[index]), hops[-1])
        elif _STAGE_OF.get(reason) in group:
            stage = _STAGE_OF[reason]
        elif "read" in group and is_file[index]:
            stage = "read"
        elif "sanitise" in group and not reason.startswith("duplicate_"):
            stage = "sanitise"
        yield stage, reason


def _ordered(group: Sequence[str], dropped: Counter[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """By stage, the commonest reason first."""
    return dict(
        sorted(dropped.items(), key=lambda item: (group.index(item[0][0]), -item[1], item[0][1]))
    )


def _stage_problems(stage: SavedStage, census: _Census) -> Iterator[str]:
    said = stage.manifest.get("rows", {})
    for reason in sorted({*said, *census.reasons}):
        if said.get(reason, 0) != census.reasons[reason]:
            yield (
                f"stage {stage.name}: its manifest counts {said.get(reason, 0):,} rows as "
                f"{reason}, its files hold {census.reasons[reason]:,}"
            )
    if census.unexplained:
        yield f"stage {stage.name}: {census.unexplained:,} files have no function and no reason"


def _link_problems(
    above: str, before: _Census, name: str, census: _Census, left_out: int
) -> Iterator[str]:
    if before.kept != census.first_choices + left_out:
        left = f" and left {left_out:,} out" if left_out else ""
        yield (
            f"stage {above} kept {before.kept:,} rows, "
            f"stage {name} saw {census.first_choices:,}{left}"
        )
    elif not left_out and (before.kept_ids - census.all_ids) % 2**64:  # numpy's sums wrap
        yield f"stage {name} saw {before.kept:,} rows, but not those that stage {above} kept"
