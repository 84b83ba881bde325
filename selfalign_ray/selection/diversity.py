"""Diversity: instructions spread over what they are about, by the distance of their embeddings."""

from __future__ import annotations

import functools as ft

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import Dataset

from selfalign_ray.blocks import by_block
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.ids import keyed_int
from selfalign_ray.minhash import Ints
from selfalign_ray.selection.config import DiversityConfig
from selfalign_ray.selection.duplicates import place_of
from selfalign_ray.selection.embedding import Embed, Vectors, load_embedding
from selfalign_ray.selection.marks import collected, marked

# What `said_of` says of each instruction.
SAID = pa.schema([("key", pa.string()), ("cluster", pa.int32()), ("drop_reason", pa.string())])


def diversity(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Keeps instructions that lie apart.

    Seeds have an order of their own, drawn by `seed_id`, and stay or go with all their rows. By
    `clusters`, k-means parts the instructions into `clusters`, and the first `cap` of each stay.
    By `centres`, the first stays, and then again and again the one that is furthest from all that
    stay (k-centre greedy, Sener and Savarese, arXiv 1708.00489), until `centres` do.

    What is embedded is `instruction`, without the tests that some show. Reads `ds` twice; the
    driver holds all embeddings, 1 kB each with the default model, and by `centres` looks at all
    of them for each that stays. k-means adds floats in an order that the number of its threads
    decides, so that another machine may part a few rows otherwise.

    Args:
        ds: `schemas.SELECTED` rows.
        cfg: the section `selection.diversity`.

    Returns:
        The same rows, in any order, by `clusters` with `cluster`. Drop reasons: over_cluster,
        not_a_centre.

    Raises:
        UserError: the model is not there.
    """
    section = cfg.selection.diversity
    # Of a saved stage, the other columns are then not read.
    texts = ds.select_columns(["seed_id", "instruction", "drop_reason"])
    vectors = collected(by_block(texts, ft.partial(embedded, model=section.model)))
    said = ray.put(said_of(vectors, section, cfg.run_seed))
    return by_block(ds, ft.partial(marked, gone=said, keys=("seed_id",)))


def check_diversity(cfg: DiversityConfig) -> None:
    """Raises what would stop the stage.

    Raises:
        UserError: a package or the model is not there.
    """
    load_embedding(cfg.model)
    if cfg.by == "clusters":
        try:
            import sklearn.cluster  # noqa: F401
        except ImportError as error:
            raise UserError(
                "selection.diversity.by: clusters needs scikit-learn, of the extra diversity: pip "
                "install 'selfalign-ray[diversity]'; or by=centres, which does not"
            ) from error


def embedded(batch: pa.Table, model: str) -> pa.Table:
    """The kept seeds of a batch, `seed_id` and `vector`, each once."""
    kept = batch.filter(pc.is_null(batch["drop_reason"]))
    columns = (kept[name].to_pylist() for name in ("seed_id", "instruction"))
    texts = {str(seed): text or "" for seed, text in zip(*columns, strict=True)}
    vectors = _model(model)(list(texts.values()))
    return pa.table(
        {
            "seed_id": pa.array(list(texts), pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel()), vectors.shape[1]
            ),
        }
    )


def said_of(parts: list[pa.Table], cfg: DiversityConfig, run_seed: int) -> pa.Table:
    """`SAID` rows, one for each seed of `embedded` tables."""
    if not parts:
        return SAID.empty_table()
    ids = [seed_id for part in parts for seed_id in part["seed_id"].to_pylist()]
    flat = [part["vector"].combine_chunks().flatten().to_numpy() for part in parts]
    places = [(place_of(seed_id, run_seed), seed_id) for seed_id in ids]
    first = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))  # of rows of a seed
    order = np.array(sorted(first.values(), key=places.__getitem__))
    vectors = np.concatenate(flat).reshape(len(ids), -1)[order]
    clusters: list[int | None]
    if cfg.by == "clusters":
        parted = clusters_of(vectors, cfg.clusters, keyed_int(32, run_seed, "diversity"))
        stay, reason = first_of_each(parted, cfg.cap), "over_cluster"
        clusters = parted.tolist()
    else:
        stay, reason = centres_of(vectors, cfg.centres), "not_a_centre"
        clusters = [None] * len(order)
    reasons: list[str | None] = [reason] * len(order)
    for row in stay.tolist():
        reasons[row] = None
    columns = [[ids[row] for row in order.tolist()], clusters, reasons]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SAID, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SAID)


def clusters_of(vectors: Vectors, clusters: int, seed: int) -> Ints:
    """The cluster of each vector, by k-means; fewer clusters where fewer vectors differ."""
    from sklearn.cluster import MiniBatchKMeans

    different = len(np.unique(vectors, axis=0))
    means = MiniBatchKMeans(
        n_clusters=min(clusters, different), batch_size=4096, n_init=1, random_state=seed
    )
    found: Ints = means.fit_predict(vectors).astype(np.int64)
    return found


def first_of_each(clusters: Ints, cap: int) -> Ints:
    """The rows that are among the first `cap` of their cluster."""
    ranked = np.argsort(clusters, kind="stable")
    _, starts, sizes = np.unique(clusters[ranked], return_index=True, return_counts=True)
    within = np.arange(len(ranked)) - np.repeat(starts, sizes)
    return np.sort(ranked[within < cap])


def centres_of(vectors: Vectors, centres: int) -> Ints:
    """The rows that k-centre greedy takes, in the order taken; the first row is the first."""
    chosen: list[int] = []
    nearest = np.full(len(vectors), -np.inf, np.float32)  # cosine with the nearest that is taken
    for _ in range(min(centres, len(vectors))):
        row = int(nearest.argmin())
        chosen.append(row)
        np.maximum(nearest, vectors @ vectors[row], out=nearest)
        nearest[row] = np.inf  # never again, though an equal one may be
    return np.array(chosen, np.int64)


@ft.lru_cache(maxsize=1)
def _model(model: str) -> Embed:
    """Read once in each worker."""
    return load_embedding(model)
