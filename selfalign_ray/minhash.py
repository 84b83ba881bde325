"""Sets of token shingles, their MinHash bands and their Jaccard similarity. Pure, vectorised.

Many sets are one `Sets`: the sorted 32-bit shingles of all, one set after the other. Two different
shingles share their hash once in 2**32 pairs of them, which moves the similarity of two functions
by less than a tenth of a per cent about once in a hundred thousand pairs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]
_Value = TypeVar("_Value", bound=np.generic)

_TOKEN = re.compile(r"\w+")
# What is worked on at once, so that it stays in a core's cache.
_CHUNK = 1 << 15  # shingles whose minima are taken
_PAIRS = 1_000  # of sets


class Sets(NamedTuple):
    """Many sets of shingles."""

    values: Words  # sorted within a set
    offsets: Ints  # where each set begins, and the end of the last

    @property
    def sizes(self) -> Ints:
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> Sets:
        """Some of the sets, in the order given."""
        return Sets(*picked(self.values, self.offsets, rows))


def picked(
    values: npt.NDArray[_Value], offsets: Ints, rows: Ints
) -> tuple[npt.NDArray[_Value], Ints]:
    """Some of the runs that values lie in, one after the other, and their offsets."""
    starts = offsets[rows]
    sizes = offsets[rows + 1] - starts
    found = np.concatenate([[0], np.cumsum(sizes)])
    return values[np.repeat(starts - found[:-1], sizes) + np.arange(found[-1])], found


def gathered(parts: Iterable[Ints], columns: int) -> Iterator[Ints]:
    """The parts side by side, as many together as have so many columns, and the rest at last."""
    waiting: list[Ints] = []
    width = 0
    for part in parts:
        waiting.append(part)
        width += part.shape[1]
        if width >= columns:
            yield np.concatenate(waiting, axis=1)
            waiting, width = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1)


def tokens_of(text: str) -> list[str]:
    """Runs of letters, digits and underscores, as the paper's deduplication takes them."""
    return _TOKEN.findall(text)


class TokenHashes(dict[str, int]):
    """The 64-bit hash of each token, the same in every process."""

    def __missing__(self, token: str) -> int:
        digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[token] = int.from_bytes(digest, "little")
        return self[token]


def windows(token_lists: Iterable[Sequence[str]], size: int) -> tuple[Keys, Ints]:
    """The hash of every run of `size` tokens, and which list it is from.

    A list of fewer tokens, but one at least, is one run.
    """
    hashes = TokenHashes()
    flat: list[int] = []
    lengths = []
    for tokens in token_lists:
        padding = max(0, size - len(tokens)) if tokens else 0
        flat += map(hashes.__getitem__, tokens)
        flat += [0] * padding
        lengths.append(len(tokens) + padding)
    stream, sizes = np.array(flat, np.uint64), np.array(lengths, np.int64)
    ends = np.repeat(np.cumsum(sizes), sizes)
    lists = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.flatnonzero(np.arange(len(stream)) + size <= ends)
    found = np.zeros(len(starts), np.uint64)
    for place in range(size):
        found = found * np.uint64(0x9E3779B97F4A7C15) + stream[starts + place]
    return mixed(found), lists[starts]


def shingled(texts: Iterable[str], size: int) -> Sets:
    """The set of runs of `size` tokens of each text; empty for a text without a token."""
    lists = [tokens_of(text) for text in texts]
    hashes, owners = windows(lists, size)
    keys = np.sort((owners.astype(np.uint64) << np.uint64(32)) | (hashes >> np.uint64(32)))
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]]
    counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(lists))
    return Sets(keys.astype(np.uint32), np.concatenate([[0], np.cumsum(counts)]))


def band_keys(sets: Sets, bands: int, rows: int) -> Words:
    """One key a set and band: two sets share it where their `rows` minima of that band agree.

    Two sets of similarity s share a band with probability s**rows, up to chance hits of the keys.
    The permutations are affine, modulo 2**32, and always the same. No set may be empty.
    """
    draw = np.random.Generator(np.random.PCG64(1))
    factors = draw.integers(0, 2**31, bands * rows, np.uint32) * np.uint32(2) + np.uint32(1)
    shifts = draw.integers(0, 2**32, bands * rows, np.uint32)
    keys = np.empty((len(sets.sizes), bands), np.uint32)
    for start, end in _chunks(sets.offsets):
        values = sets.values[sets.offsets[start] : sets.offsets[end]]
        starts = sets.offsets[start:end] - sets.offsets[start]
        for band in range(bands):
            key = np.zeros(end - start, np.uint64)
            for place in range(band * rows, (band + 1) * rows):
                minima = np.minimum.reduceat(values * factors[place] + shifts[place], starts)
                key = mixed(key + minima)
            keys[start:end, band] = key >> np.uint64(32)
    return keys


def jaccard(sets: Sets, left: Ints, right: Ints) -> npt.NDArray[np.float64]:
    """The similarity of each pair of sets, neither of which is empty."""
    chunks = [slice(start, start + _PAIRS) for start in range(0, len(left), _PAIRS)]
    found = [_jaccard(sets, left[chunk], right[chunk]) for chunk in chunks]
    return np.concatenate([np.empty(0), *found])


def _jaccard(sets: Sets, left: Ints, right: Ints) -> npt.NDArray[np.float64]:
    pairs = len(left)
    both = sets.take(np.concatenate([left, right]))
    owners = np.tile(np.arange(pairs, dtype=np.uint64), 2) << np.uint64(32)
    keys = np.sort(np.repeat(owners, both.sizes) | both.values)
    shared = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
    common = np.bincount(shared.astype(np.int64), minlength=pairs)
    sizes = both.sizes
    return common / (sizes[:pairs] + sizes[pairs:] - common)


def mixed(keys: Keys) -> Keys:
    """A one-to-one scramble in which every bit depends on all (splitmix64's)."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _chunks(offsets: Ints) -> Iterator[tuple[int, int]]:
    """Runs of sets that hold about `_CHUNK` shingles together, or one large set."""
    start = 0
    while start < len(offsets) - 1:
        end = int(np.searchsorted(offsets, offsets[start] + _CHUNK, "right")) - 1
        end = max(end, start + 1)
        yield start, end
        start = end
