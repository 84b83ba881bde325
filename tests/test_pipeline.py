"""pipeline.py: the whole table with the stand-in engine, resumed, cut and entered anywhere."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from selfalign_ray import pipeline, schemas
from selfalign_ray.errors import UserError
from selfalign_ray.report.report import REPORT, report
from selfalign_ray.run import run_stages
from selfalign_ray.stage import Saved
from selfalign_ray.watch.display import Display
from tests.conftest import config_in

GOOD = '''"""A module."""

import math


def area_{n}(radius: float, factor: float) -> float:
    """Return the area of a circle of this radius, scaled.

    The factor may be negative.
    """
    scaled = radius * factor + {n}
    return math.pi * scaled**2
'''
SAVED = (
    "quality",
    "typecheck",
    "unique",
    "near_duplicates",
    "decontamination",
    "sample",
    "responses",
    "metrics",
    "strength",
    "duplicates",
    "novelty",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "my code"
    folder.mkdir()
    for n in range(6):
        (folder / f"good_{n}.py").write_text(GOOD.format(n=n))
    (folder / "twin.py").write_text(GOOD.format(n=0))
    (folder / "empty.py").write_text("")
    (folder / "bad.py").write_bytes(b"x = '\xff'\n")
    (folder / "untyped.py").write_text("def f(x):\n    return x\n" * 3)
    return folder


@pytest.fixture(scope="module")
def given(source):
    return [
        *("source=folder", f"source.path='{source}'", "source.license=MIT", "engine=standin"),
        "seeds.near_duplicates.jaccard=1",  # the functions differ in a number alone
        *("recipe.hops.responses.sampling.n=3", "validation.execution.actors=1"),
    ]


@pytest.fixture
def config(run_config, given):
    return partial(run_config, *given)


@pytest.fixture(scope="module")
def whole(ray_local, given, tmp_path_factory):
    """The settings of a run that has been through all stages."""
    cfg = config_in(tmp_path_factory.mktemp("whole"), *given)
    assert run(cfg).name == "novelty"
    return cfg


@pytest.fixture
def cached(whole, tmp_path):
    """A run of the test has from the cache what the whole one did with the same settings."""
    shutil.copytree(whole.stages.cache, tmp_path / ".stages")


def run(cfg):
    names = [stage.name for stage in pipeline.selected(cfg)]
    with Display(names, 10) as display:
        return run_stages(cfg, display)


def manifests(cfg, names=SAVED):
    return {name: Saved(Path(cfg.run_dir), name).manifest() for name in names}


def rows_of(cfg, stage):
    return pq.read_table(Saved(Path(cfg.run_dir), stage).rows).to_pylist()


@pytest.mark.ray
@pytest.mark.sandbox
def test_functions_become_a_data_set_and_no_row_is_lost(whole):
    cfg = whole
    counts = {name: manifest["rows"] for name, manifest in manifests(cfg).items()}
    for above, below in itertools.pairwise(SAVED):
        assert sum(counts[below].values()) == counts[above]["kept"], (above, below)
    assert counts["unique"] == {"kept": 6, "duplicate_seed": 1}
    assert counts["novelty"]["kept"] > 0
    kept = [row for row in rows_of(cfg, "novelty") if row["drop_reason"] is None]
    for row in kept:
        assert row["licenses"] == ["MIT"]
        assert row["repository"]
        assert row["path"].startswith("good_")
        assert row["response"].startswith("```python\ndef ")
        assert row["model"] == "standin"
        verdicts = {v["sample_index"]: v["verdict"] for v in row["verdicts"]}
        assert verdicts[row["sample_index"]] == "passed"
    verdicts = [v["verdict"] for row in rows_of(cfg, "metrics") for v in row["verdicts"]]
    assert len(set(verdicts)) > 1, "the stand-in's spoilt samples have to fail"


@pytest.mark.ray
@pytest.mark.sandbox  # of the whole run, as for others below
def test_a_run_goes_on_after_its_last_whole_stage(cached, config):
    cut = config("stages.until=seeds")
    assert run(cut).name == "sample"
    before = manifests(cut, ["sample"])
    on = config("stages.until=concepts", "stages.cache=null")
    assert run(on).name == "concepts"
    assert manifests(on, ["sample"]) == before
    row = rows_of(on, "concepts")[0]
    assert row["concepts"]
    assert row["instruction"] is None


@pytest.mark.ray
@pytest.mark.sandbox
def test_a_changed_setting_redoes_its_stage_and_those_below(cached, config):
    run(config("stages.until=seeds"))
    first = manifests(config(), ["quality", "unique", "sample"])
    cfg = config("stages.until=seeds", "seeds.sample.limit=2")
    run(cfg)
    second = manifests(cfg, ["quality", "unique", "sample"])
    assert second["quality"] == first["quality"]
    assert second["unique"] == first["unique"]
    assert second["sample"]["rows"] == {"kept": 2, "not_sampled": 4}


def test_a_setting_of_speed_redoes_nothing(config):
    def prints(cfg):
        return pipeline.fingerprints(pipeline.stages(cfg), cfg)

    before = prints(config())
    faster = config("engine.rows_in_flight=7", "engine.rows_per_block=7", "sandbox.slots=1")
    assert prints(faster) == before
    changed = prints(config("recipe.hops.responses.sampling.temperature=0.9"))
    names = list(before)
    redone = [name for name in names if before[name] != changed[name]]
    assert redone == names[names.index("responses") :]


def not_deciding(config, key=""):
    """Every setting that decides nothing: its key, and what holds it with the field's name."""
    for field in dataclasses.fields(config):
        name = f"{key}.{field.name}" if key else field.name
        value = getattr(config, field.name)
        if not field.metadata.get("decides", True):
            yield name, config, field.name
        elif dataclasses.is_dataclass(value):
            yield from not_deciding(value, name)


def another(value):
    return not value if isinstance(value, bool) else f"{value}x" if value is None else value * 2


def test_no_setting_that_decides_nothing_changes_a_fingerprint(config):
    cfg = config("validation.cross_execution.enabled=true")

    def prints():
        return pipeline.fingerprints(pipeline.stages(cfg), cfg)

    before = prints()
    found = list(not_deciding(cfg))
    keys = {key for key, *_ in found}
    assert keys >= {"run_dir", "stages.cache", "replay.errors", "finalize", "engine.engines"}
    for key, holder, name in found:
        value = getattr(holder, name)
        setattr(holder, name, another(value))
        assert prints() == before, key
        setattr(holder, name, value)


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("run_seed=8", "read"),
        ("source.limit=3", "read"),
        ("seeds.functions.max_chars=99", "functions"),
        ("seeds.quality.max_lines=99", "functions"),
        ("seeds.sample.limit=7", "sample"),
        ("model.revision=x", "concepts"),
        ("recipe.hops.instruction.shots=2", "instruction"),
        ("sandbox.memory_mb=999", "execution"),
        ("validation.strength.mutants=3", "strength"),
        ("selection.choose.k=2", "choose"),
    ],
)
def test_a_setting_that_decides_changes_its_stage_and_those_below(config, override, first):
    one, two = (pipeline.fingerprints(pipeline.stages(c), c) for c in (config(), config(override)))
    names = list(one)
    assert [name for name in names if one[name] != two[name]] == names[names.index(first) :]


@pytest.mark.ray
@pytest.mark.sandbox
def test_solutions_and_tests_of_an_instruction_are_crossed(cached, config):
    cfg = config("validation.cross_execution.enabled=true", "stages.until=validation")
    assert run(cfg).name == "cross_execution"
    rows = [row for row in rows_of(cfg, "cross_execution") if row["drop_reason"] is None]
    assert rows
    for row in rows:
        samples = [v["sample_index"] for v in row["verdicts"]]
        assert row["agreement"]["solutions"] == samples
        assert len(row["strength"]) == sum(v["verdict"] == "passed" for v in row["verdicts"])
    assert pipeline.selected(config("stages.until=validation"))[-1].name == "strength"
    bare = config("validation.strength.enabled=false", "stages.until=validation")
    assert pipeline.selected(bare)[-1].name == "metrics"


@pytest.mark.ray
@pytest.mark.sandbox
def test_further_rounds_try_what_has_not_passed(cached, config):
    cfg = config(
        "stages.until=metrics",
        "recipe.hops.responses.sampling.n=1",
        "generation.rounds=3",
        "generation.again.n=2",
        "run_seed=5",
    )
    run(cfg)
    rows = rows_of(cfg, "metrics")
    tries = {len(row["samples"]) for row in rows}
    assert tries > {1}
    for row in rows:
        verdicts = [verdict["verdict"] for verdict in row["verdicts"]]
        assert [v["sample_index"] for v in row["verdicts"]] == list(range(len(row["samples"])))
        # Rounds end with the first that passes.
        assert "passed" not in verdicts[: len(verdicts) - 1 - (len(verdicts) > 1)]
        assert (row["drop_reason"] is None) == ("passed" in verdicts)


@pytest.mark.ray
@pytest.mark.sandbox
def test_a_pool_for_each_hop_gives_the_same_rows(whole, cached, config):
    rows = {row["row_id"]: row for row in rows_of(whole, "responses")}
    run(config("stages.until=seeds"))
    # Without the cache: what is asked for is the same, and would be taken from there.
    apart = config(
        *("stages.until=responses", "generation=per_hop", "engine.rows_per_block=2"),
        *("stages.cache=null", "engine.num_cpus=0.5"),  # three engines leave a CPU to read with
    )
    run(apart)
    assert len(rows_of(apart, "responses")) == len(rows)
    for row in rows_of(apart, "responses"):
        other = rows[row["row_id"]]
        assert [hop["shot_set"] for hop in row["hops"]] == [h["shot_set"] for h in other["hops"]]
        for column in ("concepts", "instruction", "samples"):
            assert row[column] == other[column]


@pytest.mark.ray
@pytest.mark.sandbox
@pytest.mark.parametrize("recipe", ["independent_tests", "selfcodealign", "docstring_concept"])
def test_every_recipe_reaches_responses(cached, config, recipe):
    cfg = config("stages.until=responses", f"recipe={recipe}")
    run(cfg)
    rows = rows_of(cfg, "responses")
    assert {row["drop_reason"] for row in rows} == {None}
    assert all(s["code"] and s["tests"] for row in rows for s in row["samples"])


@pytest.mark.ray
def test_rows_made_elsewhere_enter_in_the_middle(ray_local, config, tmp_path):
    rows = [{"seed": f"def g{i}(): ...", "concepts": "sets, heaps"} for i in range(3)]
    rows.append({"seed": "def h(): ...", "concepts": None})
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = config("start.stage=instruction", f"start.rows='{path}'", "stages.until=instruction")
    run(cfg)
    made = rows_of(cfg, "instruction")
    assert sorted(str(row["drop_reason"]) for row in made) == ["None"] * 3 + ["no_concepts"]
    assert {tuple(r["concepts"]) for r in made if r["instruction"]} == {("sets", "heaps")}
    assert len({row["seed_id"] for row in made}) == 4


@pytest.mark.ray
def test_seeds_made_elsewhere_are_judged_by_their_names(ray_local, config, tmp_path):
    path = tmp_path / "made.jsonl"
    rows = [{"seed": GOOD.format(n=n), "name": name} for n, name in enumerate(["area_0", None])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = config("start.stage=quality", f"start.rows='{path}'", "stages.until=quality")
    run(cfg)
    reasons = {row["name"]: row["drop_reason"] for row in rows_of(cfg, "quality")}
    assert reasons == {"area_0": None, None: "no_name"}


@pytest.mark.ray
@pytest.mark.sandbox
def test_responses_made_elsewhere_are_executed_and_judged(ray_local, config, tmp_path):
    good = "```python\ndef f(x):\n    return x + 1\n\n# Tests\nassert f(1) == 2\n```"
    bad = good.replace("+ 1", "- 1")
    path = tmp_path / "made.jsonl"
    rows = [{"instruction": f"Write f {i}.", "response": r} for i, r in enumerate([good, bad, "?"])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = "validation.judge.enabled=true"
    cfg = config("start.stage=execution", f"start.rows='{path}'", "recipe=short", judge)
    run(cfg)
    (judged,) = [row for row in rows_of(cfg, "judge") if row["drop_reason"] is None]
    assert [0 < j["yes"] < 1 and j["instruction_logprob"] < 0 for j in judged["judge"]] == [True]
    reasons = {row["instruction"]: row["drop_reason"] for row in rows_of(cfg, "metrics")}
    assert reasons["Write f 0."] is None
    assert reasons["Write f 1."] == "no_passing_sample"
    assert reasons["Write f 2."] is not None
    assert rows_of(cfg, "duplicates")[0]["code"].startswith("def f(x)")


@pytest.mark.ray
def test_rows_of_k_solutions_pass_every_stage_of_selection(ray_local, config, tmp_path):
    def row(n, instruction):
        indexes = range(4)
        return {
            "seed_id": f"s{n}",
            "instruction": instruction,
            "concepts": [f"concept {n}"],
            "samples": [
                {
                    "sample_index": i,
                    "code": f"def f(x):\n    return x + {n}{i}",
                    "tests": "",
                    "text": "",
                }
                for i in indexes
            ],
            "verdicts": [{"sample_index": i, "verdict": "passed"} for i in indexes],
            "metrics": [{"sample_index": i, "asserts": i} for i in indexes],
            "sanitised": [
                {"sample_index": i, "instruction": instruction, "response": f"{n} {i}"}
                for i in indexes
            ],
        }

    texts = ["Sort a list of numbers.", "sort  a list of Numbers.", "Sort a list of the numbers."]
    texts += ["Parse a date and say which weekday it is.", "Fetch a page and count its links."]
    path = tmp_path / "made.jsonl"
    path.write_text("".join(json.dumps(row(n, text)) + "\n" for n, text in enumerate(texts)))
    cfg = config(
        *("start.stage=choose", f"start.rows='{path}'", "selection.choose.k=3"),
        *("selection.diversity.enabled=true", "selection.diversity.clusters=2"),
        *("selection.diversity.cap=1", "selection.duplicates.near.enabled=false"),
        *("selection.balance.enabled=true", "selection.balance.difficulty_share=null"),
        *("selection.balance.concept_share=null", "selection.balance.concept_rows=2"),
    )
    assert run(cfg).name == "balance"
    names = ("duplicates", "novelty", "diversity", "balance")
    counts = {name: manifest["rows"] for name, manifest in manifests(cfg, names).items()}
    assert counts == {
        "duplicates": {"kept": 12, "duplicate_instruction": 3},
        "novelty": {"kept": 9, "not_novel": 3},
        "diversity": {"kept": 6, "over_cluster": 3},
        "balance": {"kept": 4, "over_concept": 2},
    }
    report(cfg, Path(cfg.run_dir), None)
    lines = (Path(cfg.run_dir) / "instruction_dataset.jsonl").read_text().splitlines()
    ids = [(r["row_id"], r["sample_index"]) for r in map(json.loads, lines)]
    assert len(set(ids)) == 4
    assert ids == sorted(ids)
    assert "DO NOT ADD UP" not in (Path(cfg.run_dir) / REPORT).read_text()
    paper = config("selection=paper")
    assert [stage.name for stage in pipeline.stages(paper)][-1] == "duplicates"
    whole = config("stages.until=selection", "selection.diversity.enabled=true")
    assert [stage.name for stage in pipeline.selected(whole)][-2:] == ["novelty", "diversity"]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("execution", "lacks instruction, samples, .*it has code.*response will do for samples"),
        ("quality", "lacks name, .*it has code"),
    ],
)
def test_missing_columns_are_named(ray_local, config, tmp_path, stage, said):
    (tmp_path / "made.jsonl").write_text('{"code": "x"}\n')
    cfg = config(f"start.stage={stage}", f"start.rows='{tmp_path}/made.jsonl'")
    with pytest.raises(UserError, match=f"made.jsonl {said}"):
        run(cfg)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "x", "samples": "y"}, r"made.jsonl: the column samples must be list<"),
        ({"instruction": "x", "response": 7}, r"made.jsonl: the column response must be string"),
        (
            {"instruction": ["x"], "response": "y"},
            r"made.jsonl: the column instruction must be string for start.stage=execution: ",
        ),
        ({"instruction": "x", "response": "y", "line": "z"}, r"the column line must be int32"),
    ],
)
def test_columns_of_another_type_are_named(ray_local, config, tmp_path, row, said):
    (tmp_path / "made.jsonl").write_text(json.dumps(row) + "\n")
    cfg = config("start.stage=execution", f"start.rows='{tmp_path}/made.jsonl'")
    with pytest.raises(UserError, match=said):
        run(cfg)


@pytest.mark.ray
@pytest.mark.sandbox
def test_what_is_withdrawn_is_not_read_again(cached, config, tmp_path):
    first = config("stages.until=quality")
    run(first)
    kept = [row for row in rows_of(first, "quality") if row["drop_reason"] is None]
    gone, other = sorted(kept, key=lambda row: row["path"])[1:3]
    lines = [json.dumps({"file_id": gone["file_id"]}), other["seed_id"]]
    (tmp_path / "list").write_text("\n".join(lines))
    cfg = config("stages.until=quality", f"seeds.read.withdrawn='{tmp_path}/list'")
    run(cfg)
    rows = [row for row in rows_of(cfg, "quality") if row["drop_reason"] == "withdrawn"]
    assert sorted(row["path"] for row in rows) == [gone["path"], other["path"]]
    assert {row["seed"] for row in rows} == {None}
    assert len(rows_of(cfg, "quality")) == len(rows_of(first, "quality"))


@pytest.mark.ray
def test_a_source_without_a_good_seed_says_why(ray_local, config, tmp_path):
    (tmp_path / "one.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"no seed is left after the stage quality(.|\n)*no_funct"):
        run(config(f"source.path='{tmp_path}'"))


@pytest.mark.ray
def test_code_without_a_licence_is_told_with_the_way_out_each_time(ray_local, config, tmp_path):
    (tmp_path / "one.py").write_text(GOOD.format(n=1))
    cfg = config(f"source.path='{tmp_path}'", "source.license=null")
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"license_unknown: 1\n(.|\n)* that of source\.license\. "
        ):
            run(cfg)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stages.until=nosuch"], "stages.until: no stage 'nosuch'; the stages are read, "),
        (["start.stage=responses"], "give both start.stage and start.rows"),
        (["start.stage=read", "start.rows=x"], "use source=folder"),
        (["start.stage=functions", "start.rows=x"], "functions takes .* start at one of quality, "),
        (["start.stage=metrics", "start.rows=x", "stages.until=sample"], "comes before"),
        (["start.stage=execution", "start.rows=/nowhere/*.jsonl"], None),
    ],
)
def test_stages_that_do_not_fit_are_refused(config, overrides, said):
    cfg = config(*overrides)
    if said:
        with pytest.raises(UserError, match=said):
            pipeline.selected(cfg)
    else:
        assert pipeline.selected(cfg)[0].name == "execution"


def test_every_saved_stage_has_the_schema_s_columns_of_the_one_above(run_config):
    table = [stage for stage in pipeline.stages(run_config()) if stage.saves]
    for above, below in itertools.pairwise(table):
        lost = set(above.gives.names) - set(below.gives.names) - set(schemas.EVIDENCE)
        assert not lost, (above.name, below.name, lost)
    assert table[-1].gives is schemas.SELECTED
