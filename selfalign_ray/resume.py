"""What of a run is done already: in its own folder as it was left, or in the cache."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from selfalign_ray import schemas
from selfalign_ray.cache import REPLACED, Cache, entry_name
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.group import Group, asks_engines, begun_with, goes_on, making_of
from selfalign_ray.hops.generate import models_at_commits
from selfalign_ray.inputs import PATH, inputs_of, state_of_source
from selfalign_ray.places import exists, is_url, remove, shards_of
from selfalign_ray.seeds.config import TableSource
from selfalign_ray.seeds.sources.storage import at_commit
from selfalign_ray.shards import faults_of, sound_shards, take_out
from selfalign_ray.stage import MANIFEST, Saved, Stage, count_by_reason, fingerprint_of
from selfalign_ray.withdrawn import withdrawn_of

log = logging.getLogger(__name__)

# Drop reasons of what went wrong outside of the row, in the order of the stages: done again, the
# same row may get through. All others are said of the row itself.
ERRORS = (
    *("unreadable", "broken_part"),
    *("blob_truncated", "fetch_throttled", "fetch_denied", "fetch_failed"),
    *("parse_timeout", "parser_died"),
    *("engine_failed", "engine_killed", "prompt_refused", "hop_failed"),
    *("sandbox_failed",),
)


def groups_of(table: Sequence[Stage]) -> list[list[Stage]]:
    """The stages in runs that end with one that saves."""
    groups: list[list[Stage]] = [[]]
    for stage in table:
        groups[-1].append(stage)
        if stage.saves:
            groups.append([])
    return [group for group in groups if group]


def group_of(
    stages: Sequence[Stage], above: Saved | None, prints: Mapping[str, str], cfg: RunConfig
) -> Group:
    """A run of stages with what comes into it.

    Raises:
        UserError: the source cannot be listed.
    """
    name = stages[-1].name
    begun = begun_with(stages, prints[name], cfg.run_dir)
    manifest = above.manifest() if above else None
    if begun is not None:  # its inputs and its making are those of its first rows
        inputs, making = begun.get("inputs", {}), begun.get("making")
    else:
        inputs = inputs_of(stages, cfg)
        is_drawn = asks_engines(stages) or stages[-1].gives not in (schemas.FILE, schemas.SEED)
        making = uuid.uuid4().hex if is_drawn else making_of(above)
    if begun is not None and manifest is None:
        source = str(begun["source"])
    else:
        came_from = manifest["id"] if manifest else state_of_source(cfg)
        source = fingerprint_of([came_from, inputs])
    return Group(
        stages=stages,
        above=above,
        fingerprint=prints[name],
        source=source,
        inputs=inputs,
        making=making,
    )


def make_way(
    stages: Sequence[Stage],
    above: Saved | None,
    prints: Mapping[str, str],
    cfg: RunConfig,
    cache: Cache,
) -> None:
    """Puts a stage away that would go on with other inputs than those of its first rows.

    A state that cannot be seen, then or now, is no other one.
    """
    saved = Saved(Path(cfg.run_dir), stages[-1].name)
    begun = begun_with(stages, prints[saved.name], cfg.run_dir)
    if begun is None:
        return
    if cfg.finalize and asks_engines(stages):
        return  # it gets no row
    before, now = begun.get("inputs", {}), inputs_of(stages, cfg)
    others = [name for name in before if name in now and before[name] != now[name]]
    if begun.get("above_making") != making_of(above):
        others.append("the rows above")
    if others:
        place = cache.put_away(saved)
        log.warning(
            "%s: changed since its first rows: %s; what it wrote before is in %s",
            saved.name,
            ", ".join(others),
            place,
        )


def pinned(table: Sequence[Stage], prints: Mapping[str, str], cfg: RunConfig) -> RunConfig:
    """The settings with source and models at the commits of the run's first rows, or the newest.

    Raises:
        UserError: the hub cannot be asked, or another version of this package was here before.
    """
    begun = [(stage.name, Saved(Path(cfg.run_dir), stage.name).begun()) for stage in table]
    read = [b for name, b in begun if b and b["fingerprint"] == prints[name]]
    known = {name: state for b in read[::-1] for name, state in b.get("inputs", {}).items()}
    if table[0].name == "read" and isinstance(cfg.source, TableSource):
        cfg = dataclasses.replace(cfg, source=at_commit(cfg.source, known.get(PATH)))
    return models_at_commits(cfg, [stage.hop for stage in table if stage.hop], known)


def settle(table: Sequence[Stage], prints: Mapping[str, str], cfg: RunConfig, cache: Cache) -> None:
    """Takes out of the run_dir what other settings have left there.

    Raises:
        UserError: another version of this package wrote it, or the first stage is to be done
            again and the source cannot be listed; then all stays as it was.
    """
    for folder in ("stages", REPLACED):
        for part in Path(cfg.run_dir).glob(f"{folder}/.*.part"):  # of a run that was ended
            remove(part)
    first = groups_of(table)[0]
    for stage in table:
        saved = Saved(Path(cfg.run_dir), stage.name)
        if not exists(saved.folder):
            continue
        begun = saved.begun()
        if begun is None:
            place = cache.put_away(saved)
            log.warning(
                "%s: nobody knows of which settings its rows are: now %s", saved.name, place
            )
        elif begun["fingerprint"] != prints[stage.name]:
            if stage in first:
                state_of_source(cfg)
            place = cache.put_away(saved)
            log.warning("%s: settings changed; what it wrote before is in %s", saved.name, place)


def has_other_files(table: Sequence[Stage], prints: Mapping[str, str], cfg: RunConfig) -> bool:
    """Whether the run has begun with other files than are where it reads them.

    A store's files are taken to stay; those that are gone may be done.
    """
    first = Saved(Path(cfg.run_dir), groups_of(table)[0][-1].name)
    begun = first.begun()
    if begun is None or begun["fingerprint"] != prints[first.name]:
        return False
    if not cfg.start.rows and isinstance(cfg.source, TableSource) and is_url(cfg.source.path):
        return False
    try:
        state = state_of_source(cfg)
    except UserError:
        return False
    return bool(begun["source"] != fingerprint_of([state, begun.get("inputs", {})]))


def last_done(
    table: Sequence[Stage], prints: Mapping[str, str], cfg: RunConfig
) -> tuple[Saved | None, list[Saved]]:
    """The last stage that is whole and of whole stages, and all that led to it."""
    saved = [Saved(Path(cfg.run_dir), stage.name) for stage in table]
    found = [(one, one.complete(prints[one.name])) for one in saved]
    by_id = {m["id"]: (one, m) for one, m in found if m is not None}
    for one, manifest in reversed(found):
        chain, this = [one], manifest
        while this is not None:
            if this["above"] is None:
                if this["stages"][0] == table[0].name:
                    return one, chain[::-1]
                break
            above, this = by_id.get(this["above"], (one, None))
            chain.append(above)
    return None, []


def take_from_cache(
    table: Sequence[Stage],
    prints: Mapping[str, str],
    cfg: RunConfig,
    cache: Cache,
    last: Saved | None,
) -> list[Saved]:
    """Takes from the cache the stages after `last` that are there, one that was ended included.

    Returns:
        The whole ones.

    Raises:
        UserError: the source cannot be listed, or what is there is another version's.
    """
    names = [stage.name for stage in table]
    taken: list[Saved] = []
    while True:
        groups = groups_of(table[names.index(last.name) + 1 if last else 0 :])
        if not groups:
            return taken
        target = Saved(Path(cfg.run_dir), groups[0][-1].name)
        make_way(groups[0], last, prints, cfg, cache)
        if exists(target.folder):  # its rows are this run's own
            return taken
        group = group_of(groups[0], last, prints, cfg)
        entry = entry_name(target.name, group.fingerprint, group.source)
        place = cache.take(target, entry, withdrawn_of(cfg))
        if place is None:
            return taken
        log.info("%s: reused from cache, %s", target.name, place)
        if target.complete(group.fingerprint) is None:
            return taken
        taken.append(target)
        last = target


def replay(table: Sequence[Stage], cfg: RunConfig) -> None:
    """Takes the rows that failed by error out of the stages, which then go on with just those.

    Stages that see all rows at once are done again from the first such row on. Ended midway, it
    leaves stages that go on; done again, it takes what is left. A stage with a broken shard is no
    longer whole before the shard goes.

    Raises:
        UserError: a shard cannot be read just now.
    """
    by_name = {stage.name: stage for stage in table}
    there = [
        saved
        for stage in table
        if (saved := Saved(Path(cfg.run_dir), stage.name)).begun() is not None
    ]
    broken = [len(faults_of(shards_of(saved.rows))) for saved in there]
    _reopen(there, broken)
    for saved, number in zip(there, broken, strict=True):
        if number:
            sound_shards(saved.rows)
    failed = [_errors(saved) for saved in there]
    if not any(failed):
        log.info("replay: no row has failed by error")
        return
    _reopen(there, failed)
    for saved, number in zip(there, failed, strict=True):
        names = (saved.begun() or {})["stages"]
        if number and all(n in by_name for n in names) and goes_on([by_name[n] for n in names]):
            for path in shards_of(saved.rows):
                take_out(path, _is_error, ["drop_reason"])
            log.info("replay: %s: %d rows that failed by error are done again", saved.name, number)


def _reopen(there: Sequence[Saved], faults: Sequence[int]) -> None:
    """Takes the manifests of the first stage with faults and of those after it.

    The last one first: what is whole is at any time all that leads to some stage.
    """
    first = next((place for place, number in enumerate(faults) if number), len(there))
    for saved in reversed(there[first:]):
        remove(saved.folder / MANIFEST)


def _is_error(table: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(table["drop_reason"], value_set=pa.array(ERRORS))


def _errors(saved: Saved) -> int:
    counts = count_by_reason(saved.rows) if shards_of(saved.rows) else {}
    return sum(counts.get(reason, 0) for reason in ERRORS)
