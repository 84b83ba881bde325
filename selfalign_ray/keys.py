"""A key of a fixed width for each row's id, so that a million of them are looked up in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from ray.data import Dataset

from selfalign_ray.blocks import by_block

ROW_ID = "row_id"  # the column that names a row wherever rows do not become more
KEY = "S16"  # a NumPy type: half a SHA-256, for ids from elsewhere have any length
Keys = NDArray[np.bytes_]


def keys_of(ids: Iterable[str | None]) -> Keys:
    """A key of a fixed width for each id."""
    digests = (hashlib.sha256((i or "").encode()).digest()[:16] for i in ids)
    return np.frombuffer(b"".join(digests), dtype=KEY)


def keys_in(rows: Dataset) -> Keys:
    """The keys of a dataset's rows, sorted. Reads it once."""
    keyed = by_block(rows, _with_keys)
    found = [np.frombuffer(row["keys"], dtype=KEY) for row in keyed.iter_rows()]
    return np.sort(np.concatenate([np.empty(0, KEY), *found]))


def _with_keys(block: pa.Table) -> pa.Table:
    return pa.table({"keys": [keys_of(block[ROW_ID].to_pylist()).tobytes()]})


def repeated(keys: Keys) -> Keys:
    """The keys that are there more than once, of sorted ones."""
    return np.unique(keys[1:][keys[1:] == keys[:-1]])


def among(keys: Keys, others: Keys) -> NDArray[np.bool_]:
    """For each key, whether it is one of the others, which are sorted."""
    if not len(others):
        return np.zeros(len(keys), dtype=bool)
    places = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    return np.asarray(others[places] == keys)
