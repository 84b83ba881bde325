from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.run import check_stages
from selfalign_ray.selection.config import SelectionConfig
from selfalign_ray.selection.diversity import (
    centres_of,
    check_diversity,
    clusters_of,
    diversity,
    embedded,
    first_of_each,
    said_of,
)
from selfalign_ray.selection.duplicates import place_of
from selfalign_ray.selection.embedding import load_embedding

Row = dict[str, Any]
RUN_SEED = 9
NAMES = ("row_id", "seed_id", "sample_index", "instruction", "drop_reason")
TOPICS = {
    "sorting": "Write a function that sorts a list of {} numbers in ascending order.",
    "dates": "Parse a calendar date such as {} May 2021 and return the weekday of it.",
    "http": "Send a request to a web server and retry {} times when the connection fails.",
}


def row(topic: str, number: int, index: int = 0) -> Row:
    seed = f"{topic} {number}"
    return dict(zip(NAMES, (seed, seed, index, TOPICS[topic].format(number), None), strict=True))


ROWS = [row(topic, number) for topic in TOPICS for number in range(8)]


def table(rows: list[Row]) -> pa.Table:
    schema = pa.schema([schemas.SELECTED.field(name) for name in NAMES])
    return pa.Table.from_pylist(rows, schema=schema)


def test_texts_of_a_topic_are_nearer_than_others_and_no_text_depends_on_its_neighbours() -> None:
    embed = load_embedding("wordllama")
    texts = [one["instruction"] for one in ROWS]
    vectors = embed(texts)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    like = vectors @ vectors.T
    topics = np.repeat(np.arange(3), 8)
    same = topics[:, None] == topics[None, :]
    assert like[same].min() > like[~same].max()
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(embed([text])[0], vector)
    assert np.isfinite(embed(["", "数", "x " * 5_000])).all()
    assert len(embed([])) == 0


def test_a_folder_of_model2vec_serves(tmp_path: Path) -> None:
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = Tokenizer(WordLevel({"[UNK]": 0, "sort": 1, "date": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    vectors = np.array([[0, 0], [3, 0], [0, 4]], np.float32)
    StaticModel(vectors, words).save_pretrained(tmp_path / "model")
    found = load_embedding(str(tmp_path / "model"))(["sort", "date date", "what", ""])
    assert found.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"selection.diversity.model: cannot read .*model"):
        load_embedding(str(tmp_path / "model"))


def test_a_model_that_is_not_there_is_found_before_any_work(
    run_config: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    on = "selection.diversity.enabled=true"
    start = ("start.stage=diversity", "start.rows=made.jsonl")
    cfg = run_config(on, f"selection.diversity.model={tmp_path}", *start)
    with pytest.raises(UserError, match=r"selection.diversity.model: .*enabled=false") as raised:
        check_stages(cfg)
    assert str(tmp_path) in str(raised.value)
    for package, key in (("wordllama", "model"), ("sklearn.cluster", "by")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=rf"diversity.{key}: .*pip install"):
                check_diversity(run_config(on).selection.diversity)
    check_diversity(run_config(on).selection.diversity)


def test_a_cluster_is_a_topic_and_keeps_its_first() -> None:
    vectors = load_embedding("wordllama")([one["instruction"] for one in ROWS])
    clusters = clusters_of(vectors, 3, 1)
    assert {len(set(clusters[8 * n : 8 * n + 8])) for n in range(3)} == {1}
    assert len(set(clusters.tolist())) == 3
    assert first_of_each(clusters, 2).tolist() == [0, 1, 8, 9, 16, 17]
    assert first_of_each(clusters, 99).tolist() == list(range(24))


def test_there_are_no_more_clusters_than_vectors() -> None:
    vectors = np.array([[1, 0]] * 5 + [[0, 1]], np.float32)
    assert len(set(clusters_of(vectors, 100, 1).tolist())) == 2
    assert clusters_of(vectors[:1], 100, 1).tolist() == [0]


def test_centres_lie_apart_and_are_as_many_as_asked() -> None:
    angles = np.array([0, 1, 90, 2, 180, 91, 0])
    vectors = np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))], axis=1)
    vectors = vectors.astype(np.float32)
    assert centres_of(vectors, 3).tolist() == [0, 4, 2]
    assert sorted(centres_of(vectors, 7).tolist()) == list(range(7))
    assert sorted(centres_of(vectors, 99).tolist()) == list(range(7))
    assert sorted(centres_of(vectors[[0] * 4], 3).tolist()) == [0, 1, 2]


def test_the_order_of_rows_and_blocks_does_not_matter(
    selection: Callable[..., SelectionConfig],
) -> None:
    for by in ("clusters", "centres"):
        cfg = selection(
            f"diversity.by={by}", "diversity.clusters=3", "diversity.cap=2", "diversity.centres=6"
        ).diversity
        said = said_of([embedded(table(ROWS), "wordllama")], cfg, RUN_SEED)
        parts = [embedded(table(ROWS[start::3][::-1]), "wordllama") for start in range(3)]
        assert said_of(parts[::-1], cfg, RUN_SEED).equals(said)
        kept = [r["key"] for r in said.to_pylist() if r["drop_reason"] is None]
        topics = Counter(key.split()[0] for key in kept)
        assert topics == dict.fromkeys(TOPICS, 2) if by == "clusters" else len(topics) == 3
    assert said_of([], cfg, RUN_SEED).num_rows == 0


@pytest.mark.ray
def test_the_stage_caps_seeds_and_keeps_their_rows_together(
    ray_local: None, run_config: Any
) -> None:
    cfg = run_config(
        f"run_seed={RUN_SEED}", "selection.diversity.clusters=3", "selection.diversity.cap=1"
    )
    rows = ROWS + [{**one, "sample_index": 1} for one in ROWS]
    rows.append({**row("dates", 99), "drop_reason": "not_novel"})
    found = diversity(ray.data.from_arrow([table(rows[:30]), table(rows[30:])]), cfg).take_all()
    assert len(found) == len(rows)
    assert Counter(r["drop_reason"] for r in found) == {
        None: 6,
        "over_cluster": 42,
        "not_novel": 1,
    }
    firsts = {
        min((f"{topic} {n}" for n in range(8)), key=lambda seed: place_of(seed, RUN_SEED))
        for topic in TOPICS
    }
    assert {r["seed_id"] for r in found if r["drop_reason"] is None} == firsts
    assert {r["cluster"] for r in found} == {0, 1, 2, None}
    empty = diversity(ray.data.from_arrow([table([])]), cfg)
    assert empty.count() == 0
