"""run.py: what a run's stages have read, whatever the cache has and whatever has changed since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from selfalign_ray import pipeline
from selfalign_ray import run as run_module
from selfalign_ray.errors import StoppedError, UserError
from selfalign_ray.report.contamination import as_markdown, take_contamination
from selfalign_ray.report.report import saved_stages
from selfalign_ray.resume import groups_of
from selfalign_ray.run import check_first_rows_of, check_stages, run_stages
from selfalign_ray.seeds.sources import storage, tables
from selfalign_ray.stage import FORMAT, Saved
from selfalign_ray.watch.display import Display
from tests.support import GOOD, code_in

KEY = "decontamination.benchmarks.mbpp"


def run(cfg):
    names = [stage.name for stage in pipeline.selected(cfg)]
    with Display(names, 10) as display:
        return run_stages(cfg, display)


def contamination_of(cfg):
    run_dir = Path(cfg.run_dir)
    return as_markdown(take_contamination(saved_stages(cfg, run_dir)))


@pytest.mark.parametrize(
    "given",
    [
        ["validation.judge.enabled=true", "start.stage=metrics", "start.rows=x"],
        ["seeds.docstring_judge.enabled=true", "stages.until=docstring_judge"],
        ["stages.until=concepts"],
    ],
)
def test_whatever_asks_a_model_finds_it_before_any_work(run_config, given):
    cfg = run_config("experiment=embedded", "model.id=/no/such/model", *given)
    with pytest.raises(UserError, match=r"model\.id: there is no folder /no/such/model"):
        check_stages(cfg)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["source=folder", "source.path=/no/code"], r"source\.path: /no/code is no folder"),
        (["source=folder", "source.path={empty}"], r"no file below .* matches source\.include"),
        (["source.packages=[no-such]"], r"source\.packages: not installed here: no-such"),
        (["source.exclude=['*']"], r"no \.py file in the packages installed here"),
        (["source=files", "source.path=/no/*.parquet"], r"source\.path: cannot list /no/"),
        (["source=files", "source.path={texts}"], r"holds no file named \.parquet"),
        (["source=files", "source.path=nowhere://x"], r"source\.path: cannot open nowhere://x"),
        (["start.stage=quality", "start.rows=/no/*"], r"start\.rows: no file fits /no/\*"),
    ],
)
def test_a_place_without_rows_is_found_before_ray_starts(run_config, tmp_path, given, said):
    for name in ("empty", "texts"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts" / "a.txt").touch()
    places = {"empty": tmp_path / "empty", "texts": tmp_path / "texts"}
    cfg = run_config("engine=standin", *(text.format(**places) for text in given))
    with pytest.raises(UserError, match=said):
        check_first_rows_of(cfg)
    table = pipeline.selected(cfg)
    first = pipeline.fingerprints(table, cfg)[groups_of(table)[0][-1].name]
    Saved(Path(cfg.run_dir), groups_of(table)[0][-1].name).begin(
        {"format": FORMAT, "fingerprint": first}, anew=True
    )
    check_first_rows_of(cfg)  # what has begun may be done, and goes on without


def rows_of(cfg, name):
    manifest = Saved(Path(cfg.run_dir), name).manifest()
    return manifest["rows"]


@pytest.fixture
def config(run_config, tmp_path):
    """Settings of a run, by its name, that looks for a benchmark in a folder."""
    given = [*code_in(tmp_path / "code", 3), "stages.until=decontamination"]
    (tmp_path / "bench").mkdir()
    given += [f"{KEY}.enabled=true", f"{KEY}.allow_missing=true", f"{KEY}.hub=null"]
    given += [f"{KEY}.path='{tmp_path}/bench'", f"{KEY}.files=['*.jsonl']"]
    return lambda name: run_config(*given, f"run_dir='{tmp_path}/{name}'")


def add_item(folder, name, code):
    row = {"task_id": name, "text": "", "code": code, "test_list": []}
    row |= {"challenge_test_list": [], "test_setup_code": ""}
    (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")


TAKEN = GOOD.format(n=1).partition("\n\n\n")[2]


@pytest.mark.ray
def test_a_benchmark_that_was_missing_is_sought_by_the_next_run(ray_local, config, tmp_path):
    run(config("first"))
    assert rows_of(config("first"), "decontamination") == {"kept": 3}
    add_item(tmp_path / "bench", "one", TAKEN)
    run(config("second"))
    assert rows_of(config("second"), "decontamination") == {"kept": 2, "benchmark_text": 1}
    assert "| mbpp | checked |  | 1 | 1 |" in contamination_of(config("second"))


@pytest.mark.ray
def test_a_stage_from_the_cache_says_what_it_was_checked_against(ray_local, config, tmp_path):
    run(config("first"))
    assert "mbpp (no file in " in contamination_of(config("first"))
    run(config("second"))
    one, two = (Saved(tmp_path / n, "decontamination").manifest() for n in ("first", "second"))
    assert one == two
    add_item(tmp_path / "bench", "one", TAKEN)
    assert contamination_of(config("second")) == contamination_of(config("first"))


@pytest.mark.ray
def test_files_that_join_a_benchmark_are_sought_by_the_next_run(ray_local, config, tmp_path):
    add_item(tmp_path / "bench", "one", "def f(x: int) -> int:\n    return x")
    run(config("first"))
    assert rows_of(config("first"), "decontamination") == {"kept": 3}
    add_item(tmp_path / "bench", "two", TAKEN)
    run(config("second"))
    assert rows_of(config("second"), "decontamination") == {"kept": 2, "benchmark_text": 1}
    assert "| mbpp | checked |  | 2 | 1 |" in contamination_of(config("second"))


@pytest.mark.ray
def test_a_stage_goes_on_with_the_benchmarks_of_its_first_rows_alone(ray_local, config, tmp_path):
    cfg = config("first")
    run(cfg)
    Saved(tmp_path / "first", "decontamination").folder.joinpath("manifest.json").unlink()
    add_item(tmp_path / "bench", "one", TAKEN)
    run(cfg)
    assert rows_of(cfg, "decontamination") == {"kept": 2, "benchmark_text": 1}
    assert "| mbpp | checked |  | 1 | 1 |" in contamination_of(cfg)


@pytest.mark.ray
def test_files_that_changed_since_the_run_began_are_told(ray_local, config, tmp_path, caplog):
    cfg = config("first")
    for _ in range(2):
        run(cfg)
    assert "have changed since the run began" not in caplog.text
    next(Path(cfg.source.path).rglob("*.py")).write_text(GOOD.format(n=9))
    run(cfg)
    assert "source=folder: its files have changed since the run began" in caplog.text
    assert "name=" in caplog.text
    caplog.clear()
    shutil.rmtree(cfg.source.path)
    run(cfg)  # whole as it is
    assert "changed" not in caplog.text


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`hub(commit)` pushes to the repository that hf://datasets/o/n stands for, a folder here."""
    now = []

    def push(commit):
        folder = tmp_path / "hub" / f"datasets/o/n@{commit}" / "data"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"content": ["x = 1"]}), folder / "0.parquet")
        now.append(commit)

    def resolve_path(path):
        revision = path.partition("@")[2].partition("/")[0] or None
        rest = path.removeprefix("datasets/o/n").removeprefix(f"@{revision}").lstrip("/")
        return SimpleNamespace(
            repo_id="o/n", repo_type="dataset", revision=revision, path_in_repo=rest
        )

    (tmp_path / "hub").mkdir()
    system = pafs.SubTreeFileSystem(str(tmp_path / "hub"), pafs.LocalFileSystem())
    client = SimpleNamespace(
        _strip_protocol=lambda path: path.removeprefix("hf://"),
        resolve_path=resolve_path,
        endpoint=None,
        token=None,
    )
    monkeypatch.setattr(storage, "_system", lambda scheme, options: (system, client))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.repo_info",
        lambda *_, revision, **__: SimpleNamespace(sha=revision or now[-1]),
    )
    return push


def begin_alone(group, cfg, display):
    """Begins a group, and ends the run."""
    Saved(Path(cfg.run_dir), group.last.name).begin(group.record(), anew=True)
    found = [part for table in tables.parts(cfg.source, 1) for part in table.to_pylist()]
    raise StoppedError(*{(part["dataset"], part["path"]) for part in found})


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ([], "o/n@one"),
        (["source.dataset=mine"], "mine@one"),
        (["source.revision=v1"], "o/n@v1"),
    ],
)
def test_a_run_goes_on_at_the_commit_of_its_first_rows(
    run_config, hub, monkeypatch, tmp_path, given, label
):
    monkeypatch.setattr(run_module, "run_group", begin_alone)
    given = ["source=files", "stages.until=quality", *given]
    given.append("source.path='hf://datasets/o/n/data/*.parquet'")

    def read_by(name):
        with pytest.raises(StoppedError) as stopped:
            run(run_config(*given, f"run_dir='{tmp_path}/{name}'"))
        return stopped.value.args

    hub("one")
    first = (label, "datasets/o/n@one/data/0.parquet")
    assert read_by("r") == (first,)
    hub("two")
    assert read_by("r") == (first,)
    assert read_by("other") == ((label.replace("@one", "@two"), first[1].replace("one", "two")),)
