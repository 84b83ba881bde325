"""resume.py: what is done, what is put aside and what is done again; stages are made by hand."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from selfalign_ray import pipeline, schemas, shards
from selfalign_ray.cache import Cache
from selfalign_ray.errors import UserError
from selfalign_ray.inputs import inputs_of
from selfalign_ray.places import exists, folders_in, local_dir, shards_of, stored
from selfalign_ray.resume import groups_of, last_done, pinned, replay, settle
from selfalign_ray.shards import write_shard
from selfalign_ray.stage import BEGUN, FORMAT, MANIFEST, Saved, count_by_reason, write_record
from tests.test_shards import ids_in

ANYWHERE = pytest.mark.parametrize("run", ["here", "store"], indirect=True)
CHAIN = ("quality", "typecheck", "unique", "near_duplicates", "decontamination", "sample")
TAIL = ("responses", "metrics", "strength", "duplicates")


@pytest.fixture(params=["here"])
def run(run_config, request):
    """`run()`: the settings, the stages and their fingerprints, of a run whose stages are whole."""
    places = []
    if request.param == "store":
        request.getfixturevalue("store")
        places = [f"run_dir='{local_dir('s3://runs/r')}/run'"]

    def made(*overrides, write=True):
        cfg = run_config("engine=standin", *places, *overrides)
        table = pipeline.selected(cfg)
        prints = pipeline.fingerprints(table, cfg)
        above = None
        for group in groups_of(table) if write else ():
            name = group[-1].name
            saved = Saved(Path(cfg.run_dir), name)
            record = {"format": FORMAT, "stages": [s.name for s in group], "source": name}
            record |= {"fingerprint": prints[name], "above": above}
            saved.begin(record, anew=True)
            rows = [{"row_id": i, "source": "s", "path": "p"} for i in "ab"]
            write_shard(saved.rows, pa.Table.from_pylist(rows, schema=group[-1].gives))
            saved.finish(record | {"id": f"id-{name}", "rows": count_by_reason(saved.rows)})
            above = f"id-{name}"
        return cfg, table, prints

    return made


def last(cfg, table, prints):
    found, chain = last_done(table, prints, cfg)
    return (found.name if found else None), [saved.name for saved in chain]


def folder(cfg, name):
    return Saved(Path(cfg.run_dir), name).folder


def fail(cfg, name, reason):
    """Lets one more row of a stage end with a reason."""
    saved = Saved(Path(cfg.run_dir), name)
    row = {"row_id": reason, "source": "s", "path": "p", "drop_reason": reason}
    write_shard(saved.rows, pa.Table.from_pylist([row], schema=schemas.EXECUTED))
    saved.finish((saved.manifest() or {}) | {"rows": count_by_reason(saved.rows)})


def test_a_whole_run_has_nothing_left_to_do(run):
    name, chain = last(*run())
    assert name == "novelty"
    assert chain == [*CHAIN, *TAIL, "novelty"]


@pytest.mark.parametrize("gone", ["quality", "sample", "metrics", "novelty"])
def test_what_follows_a_stage_that_is_not_whole_is_not_done(run, gone):
    cfg, *rest = run()
    (folder(cfg, gone) / MANIFEST).unlink()
    whole = [*CHAIN, *TAIL, "novelty"]
    expected = whole[: whole.index(gone)]
    assert last(cfg, *rest) == (expected[-1] if expected else None, expected)


@ANYWHERE
def test_a_cut_manifest_is_named_and_its_rows_stay(run, caplog):
    cfg, *rest = run()
    path = folder(cfg, "metrics") / MANIFEST
    path.write_text(path.read_text()[:20])
    settle(*rest, cfg, Cache(None, Path(cfg.run_dir)))
    assert last(cfg, *rest)[0] == "responses"
    assert str(path) in caplog.text
    assert ids_in(folder(cfg, "metrics") / "rows") == ["a", "b"]


@ANYWHERE
def test_rows_of_nobody_knows_which_settings_are_put_aside(run, caplog):
    cfg, *rest = run()
    for name in (MANIFEST, BEGUN):
        (folder(cfg, "metrics") / name).write_text("{")
    settle(*rest, cfg, Cache(None, Path(cfg.run_dir)))
    assert not exists(folder(cfg, "metrics"))
    assert ids_in(stored(Path(cfg.run_dir)) / "replaced" / "metrics-unreadable" / "rows") == [
        "a",
        "b",
    ]
    assert "metrics: nobody knows of which settings its rows are" in caplog.text


def test_a_run_of_another_version_is_refused(run):
    cfg, *rest = run()
    write_record(folder(cfg, "unique") / BEGUN, {"format": 99})
    with pytest.raises(UserError, match=r"unique: has the format 99 .*give the run another name"):
        settle(*rest, cfg, Cache(None, Path(cfg.run_dir)))


def test_a_stage_finalized_early_is_not_done(run):
    cfg, *rest = run()
    saved = Saved(Path(cfg.run_dir), "responses")
    saved.finish(saved.manifest() | {"partial": True})
    assert last(cfg, *rest)[0] == "sample"


@ANYWHERE
def test_changed_settings_put_a_stage_and_those_below_away(run):
    cfg, *_ = run()
    changed, table, prints = run("validation.metrics.min_asserts=3", write=False)
    run_dir = Path(cfg.run_dir)
    settle(table, prints, changed, Cache(stored(run_dir.parent) / "c", run_dir))
    assert last(changed, table, prints)[0] == "responses"
    there = {path.name for path in folders_in(folder(cfg, "x").parent)}
    assert there == {*CHAIN, "responses"}


@ANYWHERE
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["source=folder", "source.path=/nowhere"], "source.path: /nowhere is no folder"),
        (
            ["start.stage=quality", "start.rows=/nowhere.parquet"],
            "start.rows: no file fits /nowhere.parquet",
        ),
    ],
)
def test_a_source_that_is_not_there_puts_nothing_away(run, given, said):
    cfg, _, _ = run()
    other, table, prints = run(*given, write=False)
    assert other.run_dir == cfg.run_dir
    with pytest.raises(UserError, match=said):
        settle(table, prints, other, Cache(None, Path(cfg.run_dir)))
    assert all(exists(folder(cfg, name)) for name in (*CHAIN, *TAIL))


@ANYWHERE
def test_replay_takes_failed_rows_out_and_what_they_lead_to_is_not_done(run):
    cfg, *rest = run()
    fail(cfg, "responses", "engine_killed")
    fail(cfg, "responses", "no_concepts")
    fail(cfg, "metrics", "sandbox_failed")
    replay(rest[0], cfg)
    assert last(cfg, *rest)[0] == "sample"
    assert ids_in(folder(cfg, "responses") / "rows") == ["a", "b", "no_concepts"]
    assert ids_in(folder(cfg, "metrics") / "rows") == ["a", "b"]
    assert Saved(Path(cfg.run_dir), "metrics").begun() is not None


def test_replay_twice_does_no_more_than_once(run):
    cfg, table, prints = run()
    fail(cfg, "metrics", "sandbox_failed")
    for _ in range(2):
        replay(table, cfg)
        assert last(cfg, table, prints)[0] == "responses"
        assert ids_in(folder(cfg, "metrics") / "rows") == ["a", "b"]


def test_replay_without_a_failed_row_changes_nothing(run):
    cfg, *rest = run()
    before = last(cfg, *rest)
    replay(rest[0], cfg)
    assert last(cfg, *rest) == before


@ANYWHERE
@pytest.mark.parametrize("name", ["quality", "unique", "responses"])
def test_replay_leaves_no_stage_whole_that_has_lost_a_shard(run, name, caplog):
    cfg, *rest = run()
    lost = shards_of(folder(cfg, name) / "rows")[0]
    lost.write_bytes(lost.read_bytes()[:40])
    fail(cfg, "metrics", "sandbox_failed")
    replay(rest[0], cfg)
    whole = [*CHAIN, *TAIL]
    before = whole[: whole.index(name)]
    assert last(cfg, *rest) == (before[-1] if before else None, before)
    assert not exists(lost)
    assert str(lost) in caplog.text
    assert ids_in(folder(cfg, "metrics") / "rows") == ["a", "b"]


def test_a_broken_shard_goes_after_the_manifest_of_its_stage(run, monkeypatch):
    cfg, *rest = run()
    lost = shards_of(folder(cfg, "sample") / "rows")[0]
    lost.write_bytes(b"")

    def ended(path):
        assert path == lost
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "remove", ended)
    with pytest.raises(KeyboardInterrupt):
        replay(rest[0], cfg)
    assert last(cfg, *rest)[0] == "decontamination"


def test_a_run_goes_on_with_the_models_of_its_first_rows(run_config, pushed, tmp_path):
    overrides = ["engine=vllm", "generation=per_hop", "model.id=o/n", "model.lora=o/t"]
    overrides.append("generation.pools.responses.model.id=o/w")

    def models(name):
        cfg = run_config(*overrides, f"run_dir='{tmp_path}/{name}'")
        table = pipeline.selected(cfg)
        prints = pipeline.fingerprints(table, cfg)
        there = pinned(table, prints, cfg)
        assert pipeline.fingerprints(table, cfg) == prints, "the settings asked for are untouched"
        for group in groups_of(table):
            if group[0].hop:
                saved = Saved(Path(cfg.run_dir), group[-1].name)
                record = {"format": FORMAT, "fingerprint": prints[saved.name]}
                saved.begin(record | {"inputs": inputs_of(group, there)}, anew=True)
        pools = there.generation.pools
        concepts, responses = pools["concepts"].model, pools["responses"].model
        return concepts.revision, concepts.lora, responses.revision

    one, two, wide = "1" * 40, "2" * 40, "3" * 40
    pushed("o/n", one)
    pushed("o/t", one, file="adapter_config.json")
    assert models("r") == (one, f"o/t@{one}", None), "where nobody knows, nothing is said"
    pushed("o/n", two)
    pushed("o/t", two, file="adapter_config.json")
    pushed("o/w", wide)
    assert models("r") == (one, f"o/t@{one}", wide)
    assert models("other") == (two, f"o/t@{two}", wide)
