"""Near-copies among the texts of a Dataset: MinHash bands, a check of each pair, and stars.

Three steps, of which only the first sees a text:

1. `signed`: each text becomes its set of shingles and one key a band. The blocks stay in Ray's
   object store, which moves what does not fit to disk.
2. `edges`: a task takes some bands. It reads the column of keys across all blocks, so that rows
   with the same key meet without a shuffle, and checks the Jaccard similarity of each such pair,
   once: in the first band that the two share.
3. `stars`: rows are taken in an order of their own, drawn by id. One stays unless a row that
   stays has been found to be like it.

So no two rows that stay are known to be alike, and a row that goes is like one that stays: groups
are stars, not chains in which the ends have nothing in common. The result depends on ids, texts,
settings and run seed alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from selfalign_ray.blocks import by_block
from selfalign_ray.ids import keyed_int
from selfalign_ray.minhash import Ints, Sets, Words, band_keys, gathered, jaccard, shingled
from selfalign_ray.settings import setting

if TYPE_CHECKING:
    from ray.data import Dataset

_TEXTS_AT_ONCE = 1_000  # whose tokens are in memory together
_ROW_BYTES = 64  # of a row while a band is sorted: key, order, place and what sorting needs
_PAIR_BYTES = 2_500  # of a pair while it is checked: two sets of shingles and all their keys
_KEYS_A_TASK = 1_000_000  # a second or two of work
_NO_PLACES = np.empty(0, np.int64)
EDGE = pa.schema(
    [
        ("first", pa.int64()),  # order of the row that comes first, by `order_of`
        ("second", pa.int64()),
        ("first_id", pa.string()),
        ("jaccard", pa.float32()),
    ]
)
# What `near_copies` returns.
GONE = pa.schema([("order", pa.int64()), ("kept_id", pa.string()), ("jaccard", pa.float32())])


@dataclass(kw_only=True)
class LikenessConfig:
    """What makes two texts near-copies, and with what effort they are found."""

    enabled: bool
    shingle_tokens: int = setting(ge=1)  # of a shingle
    jaccard: float = setting(gt=0, le=1)  # of their sets of shingles, at least
    bands: int = setting(ge=1)  # two texts are compared where they agree in a band
    rows_per_band: int = setting(ge=1)  # minima that a band takes together
    # Of rows that share a band's key, the first so many are compared with all the others: what a
    # thousand copies cost is so many times their number, not its square.
    bucket_rows: int = setting(ge=1)
    memory_mb: int = setting(ge=16, decides=False)  # of a task; as many run as there are CPUs


class Unit(NamedTuple):
    """The work of one task of the second step."""

    bands: range
    part: int  # of `parts`, by key
    parts: int


def near_copies(ds: Dataset, cfg: LikenessConfig, run_seed: int) -> pa.Table:
    """Finds the near-copies; reads `ds` once.

    Args:
        ds: the columns `id`, distinct, and `text`; a row whose text is null takes no part.
        cfg: the settings.
        run_seed: draws the order.

    Returns:
        One row for each that goes, by `order`: `order` (`order_of` its id), `kept_id` of the row
        that stays and is most like it, and their `jaccard`.
    """
    import ray  # a second of work, and the settings above are read before any Ray is wanted

    sign = partial(signed, cfg=cfg, run_seed=run_seed)
    rows = by_block(ds, sign).materialize()
    blocks = rows.to_arrow_refs()
    units = plan(rows.count(), cfg)
    if not units:
        return GONE.empty_table()
    numbers = ray.data.range(len(units), override_num_blocks=len(units))
    look = partial(_edges_of, units=units, blocks=blocks, cfg=cfg)
    found = by_block(numbers, look).materialize()
    refs = found.to_arrow_refs()
    parts = 1 + found.count() * _ROW_BYTES // (cfg.memory_mb << 20)
    bounds = [2**63 // parts * part for part in range(parts)] + [2**63]
    return stars(
        pa.concat_tables([EDGE.empty_table(), *(_between(ray.get(ref), *span) for ref in refs)])
        for span in itertools.pairwise(bounds)
    )


def order_of(row_id: str, run_seed: int) -> int:
    """Where a row stands in the order of all, and what names it while pairs are sought."""
    return keyed_int(63, run_seed, "near_copies", row_id)


def signed(batch: pa.Table, cfg: LikenessConfig, run_seed: int) -> pa.Table:
    """The batch's rows as `order`, `id`, `keys` (one a band) and `shingles`, without the texts.

    A row without a token is left out: it is like nothing.
    """
    starts = range(0, max(batch.num_rows, 1), _TEXTS_AT_ONCE)
    tables = [_signed(batch.slice(start, _TEXTS_AT_ONCE), cfg, run_seed) for start in starts]
    return pa.concat_tables(tables).combine_chunks()


def _signed(batch: pa.Table, cfg: LikenessConfig, run_seed: int) -> pa.Table:
    sets = shingled((text or "" for text in batch["text"].to_pylist()), cfg.shingle_tokens)
    rows = np.flatnonzero(sets.sizes)
    sets = sets.take(rows)
    ids = batch["id"].take(pa.array(rows)).to_pylist()
    keys = band_keys(sets, cfg.bands, cfg.rows_per_band)
    return pa.table(
        {
            "order": pa.array([order_of(row_id, run_seed) for row_id in ids], pa.int64()),
            "id": pa.array(ids, pa.string()),
            "keys": pa.FixedSizeListArray.from_arrays(pa.array(keys.ravel()), cfg.bands),
            "shingles": pa.LargeListArray.from_arrays(
                pa.array(sets.offsets), pa.array(sets.values)
            ),
        }
    )


def plan(rows: int, cfg: LikenessConfig) -> list[Unit]:
    """The tasks that look for pairs among so many rows, none of which exceeds the memory."""
    if not rows:
        return []
    parts = 1 + rows * _ROW_BYTES // _half(cfg)
    at_once = max(1, min(_KEYS_A_TASK * parts // rows, cfg.bands))
    return [
        Unit(range(start, min(start + at_once, cfg.bands)), part, parts)
        for start in range(0, cfg.bands, at_once)
        for part in range(parts)
    ]


class Store:
    """The signed rows of all blocks. A row's place is its block's number << 32 and its own there.

    A block is looked at where it lies in shared memory, and one at a time.
    """

    def __init__(self, blocks: Sequence[Any]) -> None:
        self._blocks = blocks  # tables, or references to tables

    def column(self, band: int, part: int, parts: int) -> tuple[Words, Ints, Ints]:
        """Key in a band, order and place of the rows whose key belongs to the part."""
        keys, orders, places = [np.empty(0, np.uint32)], [np.empty(0, np.int64)], [_NO_PLACES]
        for number, table in self._tables():
            key = _keys(table)[:, band]
            rows = np.flatnonzero((key.astype(np.uint64) * np.uint64(parts)) >> 32 == part)
            keys.append(key[rows])
            orders.append(table["order"].to_numpy()[rows])
            places.append(rows | (number << 32))
        return np.concatenate(keys), np.concatenate(orders), np.concatenate(places)

    def rows(self, places: Ints) -> tuple[pa.Table, Words, Sets]:
        """Of the rows at ascending places: `order` and `id`, keys of all bands, shingles."""
        found, keys, sizes, values = [], [], [np.zeros(1, np.int64)], []
        for number, table in self._tables():
            rows = places[places >> 32 == number] & 0xFFFFFFFF
            if len(rows):
                sets = _sets(table).take(rows)
                found.append(table.select(["order", "id"]).take(pa.array(rows)))
                keys.append(_keys(table)[rows])
                sizes.append(sets.sizes)
                values.append(sets.values)
        offsets = np.cumsum(np.concatenate(sizes))
        return pa.concat_tables(found), np.concatenate(keys), Sets(np.concatenate(values), offsets)

    def _tables(self) -> Iterator[tuple[int, pa.Table]]:
        import ray

        for number, block in enumerate(self._blocks):
            table = ray.get(block) if isinstance(block, ray.ObjectRef) else block
            if table.num_rows:
                yield number, table.combine_chunks()  # no copy where each column is one chunk


def edges(store: Store, unit: Unit, cfg: LikenessConfig) -> Iterator[pa.Table]:
    """The pairs that a unit of the plan finds, as `EDGE` rows; all units find each pair once."""
    at_once = _half(cfg) // _PAIR_BYTES
    for pairs in gathered(_candidates(store, unit, cfg.bucket_rows, at_once), at_once):
        yield _checked(store, pairs, cfg)


def _candidates(store: Store, unit: Unit, bucket_rows: int, at_once: int) -> Iterator[Ints]:
    """3 x pairs: two places with the same key, and the band."""
    for band in unit.bands:
        keys, orders, places = store.column(band, unit.part, unit.parts)
        ranked = np.lexsort((orders, keys))
        for pairs in pairs_of(keys[ranked], bucket_rows, at_once):
            yield np.stack([*places[ranked[pairs]], np.full(pairs.shape[1], band)])


def pairs_of(keys: Words, bucket_rows: int, at_once: int) -> Iterator[Ints]:
    """Positions of two equal keys, the first among the first `bucket_rows` of its kind.

    Args:
        keys: in ascending order.
        bucket_rows: how many of the rows with one key are compared with all that follow.
        at_once: pairs in an array, which may have up to `bucket_rows` more.

    Yields:
        Arrays of 2 x pairs.
    """
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))[: len(keys)]
    start_of = np.repeat(starts, np.diff(starts, append=len(keys)))
    partners = np.minimum(np.arange(len(keys)) - start_of, bucket_rows)
    rows = np.flatnonzero(partners)
    ends = np.cumsum(partners[rows])
    for low in range(0, int(ends[-1]) if len(rows) else 0, at_once):
        chosen = rows[slice(*np.searchsorted(ends, [low, low + at_once], "right"))]
        counts = partners[chosen]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        if len(chosen):
            first = np.repeat(start_of[chosen], counts) + within
            yield np.stack([first, np.repeat(chosen, counts)])


def _checked(store: Store, pairs: Ints, cfg: LikenessConfig) -> pa.Table:
    """The pairs of places that are alike and share no band before the one given."""
    places, found = np.unique(pairs[:2], return_inverse=True)
    first, second = found.reshape(2, -1)
    rows, keys, sets = store.rows(places)
    new = (keys[first] == keys[second]).argmax(axis=1) == pairs[2]
    first, second = first[new], second[new]
    small = np.minimum(sets.sizes[first], sets.sizes[second])
    large = np.maximum(sets.sizes[first], sets.sizes[second])
    orders = rows["order"].to_numpy()
    able = (small >= cfg.jaccard * large) & (orders[first] != orders[second])
    first, second = first[able], second[able]
    similar = jaccard(sets, first, second)
    alike = similar >= cfg.jaccard
    first, second = pa.array(first[alike]), pa.array(second[alike])
    columns = [
        rows["order"].take(first),
        rows["order"].take(second),
        rows["id"].take(first),
        pa.chunked_array([pa.array(similar[alike], pa.float32())]),
    ]
    return pa.Table.from_arrays(columns, schema=EDGE).combine_chunks()


def stars(parts: Iterable[pa.Table]) -> pa.Table:
    """Which rows go, from all pairs.

    Args:
        parts: of `EDGE` rows; those of one `second` in one part, and the parts in
            ascending order of it.

    Returns:
        The table that `near_copies` returns. Some 100 bytes a row that goes are in memory.
    """
    gone: set[int] = set()
    found: list[tuple[int, str, float]] = []
    for part in parts:
        ordered = part.sort_by(
            [("second", "ascending"), ("jaccard", "descending"), ("first", "ascending")]
        )
        columns = (ordered[name].to_pylist() for name in EDGE.names)
        for first, second, first_id, similarity in zip(*columns, strict=True):
            if second not in gone and first not in gone:
                gone.add(second)
                found.append((second, first_id, similarity))
    rows = [dict(zip(GONE.names, row, strict=True)) for row in found]
    return pa.Table.from_pylist(rows, schema=GONE)


def _edges_of(
    numbers: pa.Table, units: Sequence[Unit], blocks: Sequence[Any], cfg: LikenessConfig
) -> Iterator[pa.Table]:
    yield EDGE.empty_table()
    for number in numbers["id"].to_pylist():
        yield from edges(Store(blocks), units[number], cfg)


def _between(edges: pa.Table, low: int, high: int) -> pa.Table:
    if not edges.num_rows:
        return EDGE.empty_table()
    second = edges["second"].to_numpy()
    return edges.filter(pa.array((second >= low) & (second <= high - 1)))


def _half(cfg: LikenessConfig) -> int:
    """Bytes: half of a task's memory is for a band's rows, half for the pairs in hand."""
    return (cfg.memory_mb << 20) // 2


def _keys(table: pa.Table) -> Words:
    """Rows x bands, without a copy."""
    column = table["keys"].chunk(0)
    keys: Words = column.flatten().to_numpy().reshape(len(column), -1)
    return keys


def _sets(table: pa.Table) -> Sets:
    column = table["shingles"].chunk(0)
    return Sets(column.values.to_numpy(), column.offsets.to_numpy())
