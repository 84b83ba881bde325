"""Runs the selected stages, less what of them is done."""

from __future__ import annotations

import logging
from pathlib import Path

from selfalign_ray import schemas
from selfalign_ray.cache import Cache
from selfalign_ray.config import RunConfig
from selfalign_ray.decontamination.benchmarks import read_benchmarks
from selfalign_ray.engine.actor import stop_engines
from selfalign_ray.engine.open import check_model
from selfalign_ray.errors import StoppedError, UserError
from selfalign_ray.group import asks_engines, check_begun, run_group, take_as_is
from selfalign_ray.hops.generate import check_hop, opening_for, pool_of
from selfalign_ray.inputs import check_first_rows
from selfalign_ray.pipeline import fingerprints, selected
from selfalign_ray.places import place_of
from selfalign_ray.resume import (
    group_of,
    groups_of,
    has_other_files,
    last_done,
    make_way,
    pinned,
    replay,
    settle,
    take_from_cache,
)
from selfalign_ray.seeds.docstring_judge import check_docstring_judge
from selfalign_ray.selection.diversity import check_diversity
from selfalign_ray.stage import KEPT, Saved, Stage
from selfalign_ray.validation.judge import check_judge
from selfalign_ray.watch.display import Display
from selfalign_ray.watch.interrupt import is_stopping
from selfalign_ray.withdrawn import withdrawn_of

log = logging.getLogger(__name__)


def check_stages(cfg: RunConfig) -> None:
    """Finds, before any work, what is wrong with stages, examples, templates and lists.

    Raises:
        UserError: with the key and what to do.
    """
    stages = selected(cfg)
    for stage in stages:
        if stage.name == "judge":
            check_judge(cfg)
        elif stage.name == "docstring_judge":
            check_docstring_judge(cfg)
        elif stage.hop:
            check_hop(cfg, stage.hop)
    pools = [pool_of(cfg, stage.hop) for stage in stages if stage.hop]
    for model, engine in {name: (model, engine) for name, model, engine in pools}.values():
        check_model(engine, model)
    if any(stage.name.endswith("decontamination") for stage in stages):
        read_benchmarks(cfg.decontamination)
    if any(stage.name == "diversity" for stage in stages):
        check_diversity(cfg.selection.diversity)
    withdrawn_of(cfg)


def check_first_rows_of(cfg: RunConfig) -> None:
    """Finds, before Ray starts, that nothing is where the first rows come from.

    A run whose first stage has begun may do without.

    Raises:
        UserError: with the key and what is wrong.
    """
    table = selected(cfg)
    first = groups_of(table)[0][-1].name
    begun = Saved(Path(cfg.run_dir), first).begun()
    if begun is None or begun["fingerprint"] != fingerprints(table, cfg)[first]:
        check_first_rows(cfg)


def run_stages(cfg: RunConfig, display: Display, *, keep_engines: bool = False) -> Saved:
    """Runs the selected stages, less what of them is done already, here or in the cache.

    Args:
        cfg: the whole run's settings.
        display: told of each stage.
        keep_engines: when the run is done, for another with the same model.

    Returns:
        The last saved stage.

    Raises:
        UserError: the rows to start from do not fit, no seed is left, or what is there is another
            version's.
        StoppedError: the run was asked to end; what was in flight is written.
    """
    table = selected(cfg)
    prints = fingerprints(table, cfg)
    cfg = pinned(table, prints, cfg)
    folder = place_of(cfg.stages.cache) if cfg.stages.cache else None
    cache = Cache(folder, Path(cfg.run_dir))
    last = _found(table, prints, cfg, cache, display)
    place = [stage.name for stage in table].index(last.name) + 1 if last else 0
    groups = groups_of(table[place:])
    if cfg.finalize:
        for members in groups:
            if asks_engines(members):
                check_begun(members, prints, cfg)
    stop_engines(but={opening_for(cfg, s.hop).key for g in groups for s in g if s.hop})
    for number, members in enumerate(groups):
        if is_stopping():
            raise StoppedError(f"{members[-1].name} was not begun")
        make_way(members, last, prints, cfg, cache)
        group = group_of(members, last, prints, cfg)
        if cfg.finalize and group.asks_engines:
            last = take_as_is(group, cfg, display)
        else:
            last = run_group(group, cfg, display)
            _check_seeds(cfg, members[-1], last)
        cache.publish(last)
        if not keep_engines and not any(s.hop for later in groups[number + 1 :] for s in later):
            stop_engines()
    assert last is not None
    return last


def _found(
    table: list[Stage], prints: dict[str, str], cfg: RunConfig, cache: Cache, display: Display
) -> Saved | None:
    """The last stage that is done, here or in the cache; what is in the way is put away."""
    settle(table, prints, cfg, cache)
    if has_other_files(table, prints, cfg):
        log.warning(
            "%s: its files have changed since the run began; rows that are there stay as they are, "
            "and another name=... takes the files as they are now",
            "start.rows" if cfg.start.rows else f"source={cfg.source.kind}",
        )
    if cfg.replay.errors:
        replay(table, cfg)
    last, done = last_done(table, prints, cfg)
    for saved in [*done, *take_from_cache(table, prints, cfg, cache, last)]:
        last = saved
        display.reused(saved.name, (saved.manifest() or {})["rows"])
        _check_seeds(cfg, next(stage for stage in table if stage.name == saved.name), saved)
    return last


_WAYS = {  # out of what keeps all of a source's files away, by the source and the reason
    ("folder", "license_unknown"): "Code whose licence no file says has that of source.license. ",
    ("files", "license_unknown"): "source.columns.licenses names the column with the licences. ",
    ("files", "no_content"): "source.columns.content names the column with the code. ",
}


def _check_seeds(cfg: RunConfig, stage: Stage, saved: Saved) -> None:
    """That a stage before the hops has kept a row.

    Raises:
        UserError: it has not; with the reasons and the ways out.
    """
    counts = (saved.manifest() or {})["rows"]
    if counts[KEPT] or stage.gives not in (schemas.FILE, schemas.SEED):
        return
    reasons = "\n".join(f"  {reason}: {count}" for reason, count in counts.items())
    ways = "".join(_WAYS.get((cfg.source.kind, reason), "") for reason in counts)
    limit = "source.limit" if cfg.plan.rows is None else "plan.files"
    raise UserError(
        f"source={cfg.source.kind}: no seed is left after the stage {saved.name}:\n{reasons}\n"
        f"{ways}Give a larger {limit} or another source, or loosen the rules in seeds. "
        f"Every row with its reason is in {saved.rows}"
    )
