"""ROUGE-L of many texts: which pairs reach a share, and which text is the first like another.

ROUGE-L (Lin 2004) of texts of m and n tokens whose longest common subsequence has L is the
F-measure 2 L / (m + n). Tokens are those of the package rouge-score without its stemmer. Decisions
are made in whole numbers, so a pair exactly at the threshold is always alike; the package's floats
put such a pair on either side.

Almost no pair is alike, and three bounds say so for less than a subsequence costs, cheapest first:

1. Lengths: L is at most the shorter one.
2. Signatures: every (token, how many times it came before) flips one bit of a text's signature, so
   two signatures differ in at most m + n - 2 c bits, where c is the size of what the two multisets
   of tokens share; and L is at most c. A signature is folded to about as many bits as two texts
   have tokens: that few tell most pairs apart.
3. The same with the whole signature, for the pairs that are left.

What remains is measured by rapidfuzz. Pure, vectorised; 64-bit hashes stand for tokens.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cpdist

from selfalign_ray.minhash import Ints, Keys, TokenHashes, gathered, mixed, picked

_OTHERS = re.compile(r"[^a-z0-9]+")
_WORDS = 32  # 64-bit words of a signature
_BITS_PER_TOKEN = 1.25  # of a folded signature, for the tokens of both texts: the fastest
# What is worked on at once: arrays of pairs that stay in a core's cache, and few calls of numpy.
_ROWS, _COLUMNS = 32, 2048
_CROWDED = 0.02  # of a tile's pairs: more are left than a wider signature costs
_SIGNED = 500  # texts whose bits are counted
_MEASURED = 50_000  # pairs whose subsequence is sought
_STEP = 1024  # texts that are compared with each other before it is known which of them stay


class Texts(NamedTuple):
    """Many texts, as the hashes of their tokens."""

    tokens: Keys  # one text after the other
    offsets: Ints  # where each text begins, and the end of the last
    bits: Keys  # signatures: texts x _WORDS

    @property
    def sizes(self) -> Ints:
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> Texts:
        """Some of the texts, in the order given."""
        return Texts(*picked(self.tokens, self.offsets, rows), self.bits[rows])


class Pairs(NamedTuple):
    """Pairs of texts that are alike."""

    left: Ints  # rows among the one texts
    right: Ints  # rows among the others
    common: Ints  # tokens of their longest common subsequence


def tokens_of(text: str) -> list[str]:
    """Runs of ASCII letters and digits in lower case; a text in another script has none."""
    return _OTHERS.sub(" ", text.lower()).split()


def hashes_of(texts: Iterable[str]) -> Iterator[list[int]]:
    """The hash of each token of each text."""
    hashes = TokenHashes()
    return ([hashes[token] for token in tokens_of(text)] for text in texts)


def texts_of(tokens: Keys, offsets: Ints) -> Texts:
    """The texts with their signatures."""
    parts = [np.empty((0, _WORDS), np.uint64)]
    for start in range(0, len(offsets) - 1, _SIGNED):
        ends = offsets[start : start + _SIGNED + 1]
        parts.append(_signatures(tokens[ends[0] : ends[-1]], np.diff(ends)))
    return Texts(tokens, offsets, np.concatenate(parts))


def share_of(value: float) -> Fraction:
    """The decimal as it is written, to a millionth."""
    return Fraction(str(value)).limit_denominator(10**6)


def rouge_l(one: Ints, other: Ints, common: Ints) -> npt.NDArray[np.float64]:
    """The F-measure, from the numbers of tokens of two texts and of their subsequence."""
    return 2 * common / (one + other)


def alike(left: Texts, right: Texts, share: Fraction) -> Pairs:
    """All pairs of a left and a right text whose ROUGE-L is at least `share`, above 0.

    A text without a token is like nothing.
    """
    batches = gathered(_candidates(left, right, share), _MEASURED)
    found = [_measured(left, right, pairs, share) for pairs in batches]
    return Pairs(*np.concatenate([np.empty((3, 0), np.int64), *found], axis=1))


def first_alike(left: Texts, right: Texts, share: Fraction) -> Pairs:
    """Of `alike`, for each left text that has one, the pair with the first right one."""
    pairs = alike(left, right, share)
    ranked = np.lexsort((pairs.right, pairs.left))
    _, first = np.unique(pairs.left[ranked], return_index=True)
    return Pairs(*(values[ranked[first]] for values in pairs))


def not_novel(texts: Texts, share: Fraction) -> Pairs:
    """The texts that go: self-instruct's rule (arXiv 2212.10560), as one pass in order.

    A text stays if its ROUGE-L with every one that stays before it is below `share`.

    Returns:
        For each text that goes, in order, the pair with the first that stays and is like it.
    """
    kept = np.empty(0, np.int64)
    gone: list[tuple[Ints, ...]] = []
    for start in range(0, len(texts.sizes), _STEP):
        rows = np.arange(start, min(start + _STEP, len(texts.sizes)))
        before = first_alike(texts.take(rows), texts.take(kept), share)
        gone.append((rows[before.left], kept[before.right], before.common))
        rows = np.delete(rows, before.left)
        within = _one_by_one(alike(some := texts.take(rows), some, share))
        gone.append((rows[within.left], rows[within.right], within.common))
        kept = np.concatenate([kept, np.delete(rows, within.left)])
    columns = [np.concatenate([np.empty(0, np.int64), *parts]) for parts in zip(*gone, strict=True)]
    columns = columns or [np.empty(0, np.int64)] * 3
    ranked = np.argsort(columns[0])
    return Pairs(*(column[ranked] for column in columns))


def _one_by_one(pairs: Pairs) -> Pairs:
    """Of pairs among the same texts, those in which a text that stays makes a later one go."""
    later = np.flatnonzero(pairs.left > pairs.right)
    ranked = later[np.lexsort((pairs.right[later], pairs.left[later]))]
    gone: dict[int, int] = {}  # the text, and where its pair is
    columns = (pairs.left[ranked].tolist(), pairs.right[ranked].tolist(), ranked.tolist())
    for text, other, place in zip(*columns, strict=True):
        if text not in gone and other not in gone:
            gone[text] = place
    chosen = np.array(list(gone.values()), np.int64)
    return Pairs(*(values[chosen] for values in pairs))


def _signatures(tokens: Keys, sizes: Ints) -> Keys:
    bits = 64 * _WORDS
    owners = np.repeat(np.arange(len(sizes)), sizes)
    ranked = np.lexsort((tokens, owners))
    tokens = tokens[ranked]  # still text by text, so `owners` stays as it is
    new = np.ones(len(tokens), np.bool_)
    new[1:] = (tokens[1:] != tokens[:-1]) | (owners[1:] != owners[:-1])
    starts = np.flatnonzero(new)
    times = np.arange(len(tokens)) - np.repeat(starts, np.diff(starts, append=len(tokens)))
    keys = mixed(tokens + times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    places = owners * bits + (keys % np.uint64(bits)).astype(np.int64)
    flips = np.bincount(places, minlength=len(sizes) * bits).astype(np.uint8) & 1
    found: Keys = np.packbits(flips).view(np.uint64).reshape(len(sizes), _WORDS)
    return found


def _candidates(left: Texts, right: Texts, share: Fraction) -> Iterator[Ints]:
    """Pairs of rows, 2 x pairs, that the bounds leave; a pair comes once."""
    rows, columns = (np.argsort(texts.sizes, kind="stable") for texts in (left, right))
    rows, columns = rows[left.sizes[rows] > 0], columns[right.sizes[columns] > 0]
    lengths, widths = left.sizes[rows], right.sizes[columns]
    folds: dict[int, tuple[Keys, Keys]] = {}
    room = _Room()
    wider = 1
    a, b = share.numerator, share.denominator
    for start in range(0, len(rows), _ROWS):
        tile = slice(start, start + _ROWS)
        shortest, longest = int(lengths[tile][0]), int(lengths[tile][-1])
        # a (m + n) <= 2 b min(m, n)
        least, most = -(-a * shortest // (2 * b - a)), (2 * b - a) * longest // a
        first, end = (int(i) for i in np.searchsorted(widths, [least, most + 1]))
        for low in range(first, end, _COLUMNS):
            span = slice(low, min(low + _COLUMNS, end))
            words = min(_WORDS, wider * _words(longest + int(widths[span.stop - 1])))
            if words not in folds:
                folds[words] = _folded(left.bits[rows], words), _folded(right.bits[columns], words)
            one, other = folds[words]
            limits = (b - a) * (longest + widths[span]) // b
            near = room.near(one[:, tile], other[:, span], limits)
            if len(near) > _CROWDED * _ROWS * _COLUMNS and words < _WORDS:
                wider *= 2  # texts of one template: a pair less to look at is worth the bits
            if len(near):
                i, j = np.divmod(near, span.stop - low)
                pairs = np.stack([rows[tile][i], columns[span][j]])
                yield _within_bounds(left, right, pairs, share)


class _Room:
    """Arrays that every tile uses again."""

    def __init__(self) -> None:
        size = _ROWS * _COLUMNS
        self._differ = np.empty(size, np.uint64)
        self._counts = np.empty(size, np.uint8)
        self._sums = {kind: np.empty(size, kind) for kind in (np.uint8, np.uint16)}

    def near(self, one: Keys, other: Keys, limits: Ints) -> Ints:
        """Flat places of pairs of a column of `one` and of `other` that differ in few bits."""
        shape = one.shape[1], other.shape[1]
        size = shape[0] * shape[1]
        differ, counts = (a[:size].reshape(shape) for a in (self._differ, self._counts))
        kind = np.uint8 if 64 * len(one) < 256 else np.uint16
        sums = self._sums[kind][:size].reshape(shape)
        sums.fill(0)
        for left, right in zip(one, other, strict=True):
            np.bitwise_xor(left[:, None], right[None, :], out=differ)
            np.bitwise_count(differ, out=counts)
            np.add(sums, counts, out=sums)
        most = np.minimum(limits, np.iinfo(kind).max).astype(kind)
        return np.flatnonzero(np.less_equal(sums, most))


def _words(tokens: int) -> int:
    """Of the folded signatures that tell most pairs of so many tokens apart."""
    words = 1
    while words < _WORDS and 64 * words < _BITS_PER_TOKEN * tokens:
        words *= 2
    return words


def _folded(bits: Keys, words: int) -> Keys:
    """Signatures of fewer bits, each the parity of several: words x texts."""
    parts = bits.reshape(len(bits), _WORDS // words, words)
    return np.ascontiguousarray(np.bitwise_xor.reduce(parts, axis=1).T)


def _within_bounds(left: Texts, right: Texts, pairs: Ints, share: Fraction) -> Ints:
    differ = np.bitwise_count(left.bits[pairs[0]] ^ right.bits[pairs[1]]).sum(axis=1)
    total = left.sizes[pairs[0]] + right.sizes[pairs[1]]
    shorter = np.minimum(left.sizes[pairs[0]], right.sizes[pairs[1]])
    least = _least(total, share)
    return pairs[:, (differ <= total - 2 * least) & (shorter >= least)]


def _least(total: Ints, share: Fraction) -> Ints:
    """The shortest subsequence with which texts of `total` tokens together are alike."""
    return -(-share.numerator * total // (2 * share.denominator))


def _measured(left: Texts, right: Texts, pairs: Ints, share: Fraction) -> Ints:
    """3 x pairs: those that are alike, with the tokens of their subsequence."""
    used, i = np.unique(pairs[0], return_inverse=True)
    others, j = np.unique(pairs[1], return_inverse=True)
    one, other = left.take(used), right.take(others)
    # Texts of as many characters as tokens, which rapidfuzz reads as they are.
    _, codes = np.unique(np.concatenate([one.tokens, other.tokens]), return_inverse=True)
    lines = _strings(codes[: len(one.tokens)], one.offsets)
    columns = _strings(codes[len(one.tokens) :], other.offsets)
    common = cpdist(
        [lines[k] for k in i.tolist()],
        [columns[k] for k in j.tolist()],
        scorer=LCSseq.similarity,
        dtype=np.int64,
    )
    total = one.sizes[i] + other.sizes[j]
    return np.stack([*pairs, common])[:, common >= _least(total, share)]


def _strings(codes: Ints, offsets: Ints) -> list[str]:
    text = codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    bounds = offsets.tolist()
    return [text[start:end] for start, end in itertools.pairwise(bounds)]
