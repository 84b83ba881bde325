"""A run of stages that stream into each other and save the last one's rows.

A group of which no stage sees all rows at once goes on where it was: what its shards hold is not
done again.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.data import Dataset, ExecutionResources

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.done import Done, check_files, check_rows, done_files, done_rows, kept_keys
from selfalign_ray.engine.actor import flush_engines, held_cpus
from selfalign_ray.errors import StoppedError, UserError
from selfalign_ray.hops.generate import generate, pool_of
from selfalign_ray.keys import ROW_ID, Keys, keys_in, repeated
from selfalign_ray.places import place_of, shards_of
from selfalign_ray.spent import Meter, spent_before
from selfalign_ray.stage import FORMAT, KEPT, Inputs, Saved, Stage, count_by_reason, now
from selfalign_ray.start import read_rows
from selfalign_ray.watch.display import Display
from selfalign_ray.watch.interrupt import draining, is_stopping, unless_stopping

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Stages of which the last one saves, and where their rows come from."""

    stages: Sequence[Stage]
    above: Saved | None  # None: a source, or rows made elsewhere
    fingerprint: str
    source: str  # stands for the very rows that come in, and for the inputs
    inputs: Inputs  # as its first rows found them
    making: str | None  # of its rows, as `making_of` gives it

    @property
    def last(self) -> Stage:
        return self.stages[-1]

    @property
    def reads(self) -> bool:
        """Whether files come in."""
        return self.stages[0].name == "read"

    @property
    def goes_on(self) -> bool:
        """Whether what it has done of its rows stays done when it is ended."""
        return goes_on(self.stages)

    @property
    def asks_engines(self) -> bool:
        return asks_engines(self.stages)

    def record(self) -> dict[str, Any]:
        """What its folder says from the first row on."""
        above = self.above.manifest() if self.above else None
        return {
            "format": FORMAT,
            "stage": self.last.name,
            "stages": [stage.name for stage in self.stages],
            "fingerprint": self.fingerprint,
            "source": self.source,
            "inputs": self.inputs,
            "above": above["id"] if above else None,
            "making": self.making,
            "above_making": making_of(self.above),
        }


def making_of(saved: Saved | None) -> str | None:
    """What tells a stage's rows from others of the same ids; None: its ids say all of them.

    Engines and sandboxes seldom give twice the same. It stays when the stage goes on.
    """
    begun = saved.begun() if saved else None
    return begun.get("making") if begun else None


def asks_engines(stages: Sequence[Stage]) -> bool:
    """Whether a run of stages has a hop in it."""
    return any(stage.hop for stage in stages)


def goes_on(stages: Sequence[Stage]) -> bool:
    """Whether what such a group has done of its rows stays done when it is ended."""
    names = [stage.name for stage in stages]
    makes_more = "functions" in names and names[0] != "read"
    return not makes_more and not any(stage.whole for stage in stages)


def begun_with(
    stages: Sequence[Stage], fingerprint: str, run_dir: str | Path
) -> dict[str, Any] | None:
    """What a group that goes on left of itself when it began with these settings; else None."""
    begun = Saved(Path(run_dir), stages[-1].name).begun()
    if begun is None or begun["fingerprint"] != fingerprint or not goes_on(stages):
        return None
    return begun


@dataclass(frozen=True)
class _Work:
    """What is left to do of a group."""

    rows: Callable[[], Dataset | None]
    done: Done | None  # None: nothing was there
    coming: Keys | None  # of the rows that come in, done ones too; None: files come in, or all go


def run_group(group: Group, cfg: RunConfig, display: Display) -> Saved:
    """Does what is left to do of a group, and saves it.

    Raises:
        UserError: the rows to start from do not fit.
        RowsError: rows were lost or doubled.
        StoppedError: the run was asked to end; what was in flight is written.
    """
    last = group.last
    target = Saved(Path(cfg.run_dir), last.name)
    started = now()
    before = begun_with(group.stages, group.fingerprint, cfg.run_dir)
    cache = cfg.stages.cache and str(place_of(cfg.stages.cache))
    record = group.record() | {"cache": cache}
    target.begin(record, anew=before is None)
    meter = Meter(target.folder)
    waiting = None if group.above is None else (group.above.manifest() or {})["rows"][KEPT]
    work = _work(group, target, cfg)
    done = work.done.rows if work.done else 0
    left = waiting if work.coming is None else len(work.coming) - done
    display.begin(last.name, left, done)
    with meter.running():
        # Without a row there is nothing to load an engine for.
        rows = None if left == 0 else _through(group, work, cfg)
        if rows is not None and not cfg.cluster.autoscaling:
            _leave_to_engines(rows)
        said = {stage.name: stage.says(cfg) for stage in group.stages if stage.says}
        shard = rows_per_shard(group, cfg)
        with draining():
            counts = target.write(rows, last.gives, shard)
        if group.asks_engines:
            flush_engines()  # else the last of what they count is the next stage's
    if group.goes_on and is_stopping():
        _stop_here(group, target, work, sum(counts.values()))
        counts = count_by_reason(target.rows)
    _check(group, target, work)
    seconds = meter.seconds
    work_seconds, gauges = display.seen(seconds, sum(counts.values()) - done)
    figures = meter.figures()
    for name, seen in gauges.items():
        figures[name] = figures.get(name, {}) | seen
    above = (group.above.manifest() or {}) if group.above else {}
    target.finish(
        record
        | {
            "id": uuid.uuid4().hex,
            "rows": counts,
            "seconds": round(meter.before + seconds, 3),
            # Less the start; null where it was over too soon to see.
            "work_seconds": None if work_seconds is None else round(meter.before + work_seconds, 3),
            "started": started,
            "finished": now(),
            "figures": figures,
            "said": said,
            "found_done": done,
            # Rows at work, and waiting for their shard or being written, when it was ended.
            "done_again_at_most": _at_most(shard, left) if before else 0,
            "partial": bool(above.get("partial")),
            "left_out": 0,
        }
    )
    display.end(last.name, counts, seconds)
    return target


def _through(group: Group, work: _Work, cfg: RunConfig) -> Dataset | None:
    """What is left to do, through the stages."""
    rows = work.rows()
    for number, stage in enumerate(_one_pool(group.stages, cfg)):
        skip = {"done": work.done} if number == 0 and group.reads else {}
        if number == int(group.reads) and rows is not None and group.goes_on:
            rows = by_block(rows, unless_stopping)
        rows = stage.run(rows, cfg, **skip)
    return rows


def _leave_to_engines(rows: Dataset) -> None:
    """Takes the CPUs that engines hold out of those that Ray Data shares among its operators.

    It knows nothing of them, and would begin actors that leave its own tasks none.
    """
    if held := held_cpus():
        free = max(1.0, ray.cluster_resources().get("CPU", 0) - held)
        rows.context.execution_options.resource_limits = ExecutionResources.for_limits(cpu=free)


def _stop_here(group: Group, target: Saved, work: _Work, there: int) -> None:
    """Ends the run that was asked to, unless it was as good as done with the group."""
    if work.coming is not None and there >= len(work.coming):  # else it lacks some in any case
        there = done_rows(target.rows, target.name, work.coming).rows  # each once
        if there == len(work.coming):
            return
    whole = "" if work.coming is None else f" of {len(work.coming):,}"
    raise StoppedError(f"{group.last.name} has {there:,}{whole} rows")


def take_as_is(group: Group, cfg: RunConfig, display: Display) -> Saved:
    """Finishes a group, of which some rows are done, with those; a later run does the others."""
    target = Saved(Path(cfg.run_dir), group.last.name)
    work = _work(group, target, cfg)
    assert work.done is not None
    assert work.coming is not None
    display.begin(group.last.name, 0, work.done.rows)
    counts = count_by_reason(target.rows)
    record = target.begun() or {}
    seconds, figures = spent_before(target.folder)
    target.finish(
        record
        | {
            "id": uuid.uuid4().hex,
            "rows": counts,
            "seconds": seconds,
            "work_seconds": None,
            "started": now(),
            "finished": now(),
            "figures": figures,
            "found_done": work.done.rows,
            "done_again_at_most": 0,
            "partial": True,
            "left_out": len(work.coming) - work.done.rows,
        }
    )
    display.end(group.last.name, counts, 0.0)
    return target


def check_begun(stages: Sequence[Stage], prints: Mapping[str, str], cfg: RunConfig) -> None:
    """That a group has done a row with these settings.

    Raises:
        UserError: it has not.
    """
    target = Saved(Path(cfg.run_dir), stages[-1].name)
    begun = begun_with(stages, prints[target.name], cfg.run_dir)
    if begun is None or not shards_of(target.rows):
        raise UserError(
            f"finalize: no row has been through the stage {target.name} with these settings, "
            "and finalize=true asks no engine; let the run go on, or leave the stage out"
        )


def rows_per_shard(group: Group, cfg: RunConfig) -> int:
    """How many rows wait for each other to be written: what is lost with a run that is ended."""
    pools = [pool_of(cfg, stage.hop)[2] for stage in group.stages if stage.hop]
    if pools:
        return max(pool.rows_in_flight * (pool.max_engines or pool.engines) for pool in pools)
    if not group.goes_on or group.last.gives in (schemas.FILE, schemas.SEED):
        return cfg.stages.rows_per_file
    return min(cfg.stages.rows_per_shard, cfg.stages.rows_per_file)


def _work(group: Group, target: Saved, cfg: RunConfig) -> _Work:
    if group.reads:
        done = done_files(target.rows, target.name) if group.goes_on else None
        return _Work(lambda: None, done, None)
    rows = partial(_rows_above, group, cfg)
    if not group.goes_on:
        return _Work(rows, None, None)
    coming = kept_keys(group.above.rows) if group.above else keys_in(rows())
    if len(twice := repeated(coming)):
        raise UserError(
            f"{'start.rows' if group.above is None else group.above.rows}: {len(twice)} values of "
            f"{ROW_ID} name several rows each; leave {ROW_ID} and seed_id out, and give each row "
            "once, and each gets an id of its own. A run's responses.jsonl has a line a sample; "
            "its rows are in stages/responses/rows/*.parquet"
        )
    done = done_rows(target.rows, target.name, coming)
    return _Work(lambda: done.skipped(rows()), done, coming)


def _rows_above(group: Group, cfg: RunConfig) -> Dataset:
    return group.above.kept() if group.above else read_rows(cfg, group.stages[0])


def _check(group: Group, target: Saved, work: _Work) -> None:
    if work.coming is not None:
        above = group.above.rows if group.above else None
        check_rows(target.rows, target.name, work.coming, above)
    elif group.reads and group.goes_on:
        check_files(target.rows, target.name)


def _at_most(shard: int, left: int | None) -> int:
    """Rows that were at work at most when the group was ended: each task has a shard's at most."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    most = (cpus + 2) * shard
    return most if left is None else min(most, left)


def _one_pool(group: Sequence[Stage], cfg: RunConfig) -> list[Stage]:
    """The group with hops of one pool that follow each other as one stage: all at once."""
    merged: list[Stage] = []
    pools = itertools.groupby(group, key=lambda s: pool_of(cfg, s.hop)[0] if s.hop else None)
    for pool, members in pools:
        found = list(members)
        if pool is not None and len(found) > 1:
            run_all = partial(generate, hops=[stage.name for stage in found])
            found = [dataclasses.replace(found[-1], run=run_all)]
        merged += found
    return merged
