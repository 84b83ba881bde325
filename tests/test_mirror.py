"""mirror.py: a reader of the store sees a run's results whole, or none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfalign_ray.mirror import Mirror, fetched, mirrored
from selfalign_ray.places import local_dir, stored

RESULTS = {
    "pipeline_report.md": "report",
    "manifest.json": "{}",
    "responses.jsonl": "{}\n",
    "dataset/README.md": "card",
    "dataset/dataset.json": "{}",
    "dataset/data/train-1.parquet": "rows",
}
NOTES = {"pipeline.log": "a line\n", ".hydra/overrides.yaml": "[]", "benchmarks.json": "{}"}


@pytest.fixture
def run_dir(store):
    return Path(local_dir("s3://runs/r")) / "first"


def write(run_dir, files):
    for name, text in files.items():
        path = run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def held():
    return True


def fail(run_dir, files, held=held, store=None, **changes):
    """A run that writes something, after which the store may change, and ends with an error."""

    def work():
        with mirrored(run_dir, held):
            write(run_dir, files)
            (store or {}).update(changes)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()


def keys(store):
    return [key.removeprefix("r/first/") for key in store.names("r/first/")]


def changes(store):
    """What is written and deleted from now on, in order."""
    seen = []

    def note(method, path):
        if method in ("PUT", "DELETE"):
            seen.append((method, path.removeprefix("/runs/r/first/")))

    store.refuse = note
    return seen


def test_what_belongs_to_the_folder_alone_stays(store, run_dir):
    own = {".lock": "7", ".x.part": "", "dataset/a.part": "", "plan/manifest.json": "{}"}
    with mirrored(run_dir, held):
        write(run_dir, RESULTS | NOTES | own)
    assert set(keys(store)) == {*RESULTS, *NOTES}


def test_a_manifest_is_the_last_and_goes_first(store, run_dir):
    with mirrored(run_dir, held):
        write(run_dir, RESULTS | NOTES)
    order = changes(store)
    (run_dir / "dataset/data/train-1.parquet").rename(run_dir / "dataset/data/train-2.parquet")
    with mirrored(run_dir, held):
        pass
    names = [name for _, name in order]
    assert order[0] in [("DELETE", "manifest.json"), ("PUT", "pipeline.log")]
    gone, new = order.index(("DELETE", "manifest.json")), order.index(("PUT", "manifest.json"))
    assert new == len(order) - 1
    for name in ("responses.jsonl", "dataset/README.md", "pipeline_report.md"):
        assert gone < order.index(("PUT", name)) < new
    # The card names the files of the data set.
    data, card = names.index("dataset/data/train-2.parquet"), names.index("dataset/README.md")
    old = order.index(("DELETE", "dataset/data/train-1.parquet"))
    assert data < card < old
    assert (run_dir / "manifest.json").exists()


def test_a_run_that_fails_leaves_the_results_of_an_earlier_one(store, run_dir):
    with mirrored(run_dir, held):
        write(run_dir, RESULTS | NOTES)
    (run_dir / "manifest.json").unlink()
    fail(run_dir, {"responses.jsonl": "half", "pipeline.log": "a line\nit fails\n"})
    assert store.read("r/first/responses.jsonl") == b"{}\n"
    assert store.read("r/first/manifest.json") == b"{}"
    assert store.read("r/first/pipeline.log") == b"a line\nit fails\n"


def test_a_run_that_is_somebody_elses_writes_nothing(store, run_dir):
    order = changes(store)
    fail(run_dir, RESULTS | NOTES, held=lambda: False)
    assert order == []


def test_another_machine_goes_on_with_the_log(store, run_dir, monkeypatch, tmp_path):
    with mirrored(run_dir, held):
        write(run_dir, RESULTS | NOTES | {"failed.txt": "why", "withdrawn.jsonl": "{}\n"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    other = Path(local_dir("s3://runs/r")) / "first"
    with mirrored(other, held):
        assert (other / "withdrawn.jsonl").exists()
        with (other / "pipeline.log").open("a") as log:
            log.write("another\n")
        (other / "responses.jsonl").write_text("new")
    assert store.read("r/first/pipeline.log") == b"a line\nanother\n"
    assert set(keys(store)) == {*NOTES, "withdrawn.jsonl", "responses.jsonl"} - {
        ".hydra/overrides.yaml"
    }


def test_what_grew_here_is_not_lost_to_what_lies_in_the_store(store, run_dir):
    write(run_dir, {"pipeline.log": "a line\n"})
    Mirror(run_dir, stored(run_dir)).push_notes()
    write(run_dir, {"pipeline.log": "a line\nthat could not be copied\n"})
    with mirrored(run_dir, held):
        assert "copied" in (run_dir / "pipeline.log").read_text()


def test_all_of_a_run_is_fetched_to_be_changed(store, run_dir, monkeypatch, tmp_path):
    with mirrored(run_dir, held):
        write(run_dir, RESULTS | NOTES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    other = Path(local_dir("s3://runs/r")) / "first"
    for changed in (False, True):
        with fetched(other, changes=changed):
            assert (other / "dataset/README.md").read_text() == "card"
            write(other, {"dataset/README.md": "new"})
        assert store.read("r/first/dataset/README.md") == (b"new" if changed else b"card")


def test_a_store_that_is_away_stops_no_run_for_its_log(store, run_dir, caplog):
    run_dir.mkdir(parents=True)
    refusal = {"refuse": lambda method, path: (403, "ExpiredToken")}
    fail(run_dir, RESULTS | NOTES, store=vars(store), **refusal)
    assert "the log cannot be copied to the store" in caplog.text
    assert (run_dir / "pipeline.log").exists()
