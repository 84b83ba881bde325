"""Which rows hold benchmark text: an index of all benchmarks, and the search in a batch of rows.

Found are copies: in other layout, case, quotes and comments, with another docstring, with letters
that only look Latin, with other names and literals, without a task's examples. Not found is what
says the same in other words: a paraphrased task, or a solution with a statement more.
"""

from __future__ import annotations

import functools as ft
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from selfalign_ray.decontamination.benchmarks import Text, is_allowed
from selfalign_ray.decontamination.config import DecontaminationConfig
from selfalign_ray.decontamination.normal import (
    Shape,
    asserted,
    bare,
    bodies,
    outline,
    plain_tokens,
    prose,
    quoted_blocks,
    shape_of,
)
from selfalign_ray.minhash import Ints, Keys, picked, windows
from selfalign_ray.validation.definitions import parse

Hit = dict[str, Any]  # schemas.BENCHMARK_HIT
_SHOWN_TOKENS = 40  # of a matched text
_HITS_KEPT = 10  # of a row, the surest


class Content(NamedTuple):
    """What is searched of a row."""

    texts: tuple[str, ...]
    code: str


class Piece(NamedTuple):
    """A benchmark's text as it is sought."""

    benchmark: str
    item: str
    part: str
    words: str  # its tokens, a space around each
    grams: int  # distinct n-grams
    enough: float  # share of them that is a hit


@dataclass(frozen=True, kw_only=True)
class Index:
    """Everything that is sought."""

    pieces: list[Piece]
    grams: Keys  # distinct hashes of n-grams, ascending
    owners: Ints  # the pieces of each, one gram after the other
    offsets: Ints  # where each gram's owners begin, and the end of the last
    shapes: dict[bytes, list[Text]]  # by a shape's digest
    outlines: frozenset[tuple[str, ...]]  # of the shapes
    trivial: int  # solutions too small to be sought, or allowed


def build_index(texts: Sequence[Text], cfg: DecontaminationConfig) -> Index:
    """The index of the benchmarks' texts.

    A prompt is sought as it is, and each docstring in it alone, with its examples and without; a
    solution without docstrings and comments, and each function in it by its tree; a test as it is,
    and its asserts alone.
    """
    sought: dict[tuple[str, str, str, str], list[str]] = {}
    shapes: dict[bytes, list[Text]] = {}
    outlines = set()
    trivial = 0
    for text in texts:
        if is_allowed(text, cfg.allow):
            trivial += 1
            continue
        least = cfg.min_prompt_tokens if text.part == "prompt" else cfg.min_tokens
        views = [tokens for view in _views(text) if len(tokens := plain_tokens(view)) >= least]
        trees = _shapes(text.text, cfg.min_nodes, None) if text.part == "solution" else []
        for tokens in views:
            sought[text.benchmark, text.item, text.part, _words(tokens)] = tokens
        for shape, kinds in trees:
            shapes.setdefault(shape.digest, []).append(text)
            outlines.add(kinds)
        trivial += text.part == "solution" and not views and not trees
    hashes, lists = windows(sought.values(), cfg.gram_tokens)
    order = np.lexsort((lists, hashes))
    hashes, owners = hashes[order], lists[order]
    new = np.ones(len(order), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    hashes, owners = hashes[new], owners[new]
    grams, starts = np.unique(hashes, return_index=True)
    counts = np.bincount(owners, minlength=len(sought))
    shares = [1 if len(tokens) < cfg.min_tokens else cfg.share for tokens in sought.values()]
    pieces = [
        Piece(*key, int(count), share)
        for key, count, share in zip(sought, counts.tolist(), shares, strict=True)
    ]
    return Index(
        pieces=pieces,
        grams=grams,
        owners=owners,
        offsets=np.append(starts, len(owners)),
        shapes=shapes,
        outlines=frozenset(outlines),
        trivial=trivial,
    )


def find(rows: Sequence[Content], index: Index, cfg: DecontaminationConfig) -> list[list[Hit]]:
    """The hits of each row, the surest first; a near miss is among them with `near` true."""
    found: list[list[Hit]] = [[] for _ in rows]
    if index.pieces and (cfg.by_substring or cfg.by_grams):
        for row, hit in _text_hits(rows, index, cfg):
            found[row].append(hit)
    if index.shapes and cfg.by_tree:
        for row, content in enumerate(rows):
            found[row] += _tree_hits(content.code, index, cfg.min_nodes)
    return [
        sorted(hits, key=lambda h: (h["near"], -h["share"], h["method"] == "grams"))[:_HITS_KEPT]
        for hits in found
    ]


def _text_hits(
    rows: Sequence[Content], index: Index, cfg: DecontaminationConfig
) -> list[tuple[int, Hit]]:
    views: list[list[str]] = []
    row_of: list[int] = []
    for row, content in enumerate(rows):
        distinct = dict.fromkeys(view for text in content.texts for view in (text, bare(text)))
        views += map(plain_tokens, distinct)
        row_of += [row] * len(distinct)
    hashes, view_of = windows(views, cfg.gram_tokens)
    places = np.searchsorted(index.grams, hashes)
    matched = np.append(index.grams, np.uint64(0))[places] == hashes
    matched[places == len(index.grams)] = False
    if not matched.any():
        return []
    owners = np.array(row_of, np.int64)[view_of[matched]]
    once = np.unique(owners << 32 | places[matched])
    rows_of, gram = once >> 32, once & 0xFFFFFFFF
    pieces, offsets = picked(index.owners, index.offsets, gram)
    rows_of = np.repeat(rows_of, np.diff(offsets))
    pairs, counts = np.unique(rows_of << 32 | pieces, return_counts=True)
    hits = []
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        row_number, piece = pair >> 32, index.pieces[pair & 0xFFFFFFFF]
        share = count / piece.grams
        if share >= min(cfg.near_share, cfg.share):
            mine = [view for view, owner in zip(views, row_of, strict=True) if owner == row_number]
            if (hit := _text_hit(mine, piece, share, cfg)) is not None:
                hits.append((row_number, hit))
    return hits


def _text_hit(
    views: list[list[str]], piece: Piece, share: float, cfg: DecontaminationConfig
) -> Hit | None:
    is_whole = share == 1 and any(piece.words in _words(view) for view in views)
    if is_whole and cfg.by_substring:
        return _hit(piece, "substring", _shown(piece.words.split()), 1.0, near=False)
    if not cfg.by_grams:
        return None
    run = max((_longest_run(view, piece, cfg.gram_tokens) for view in views), key=len)
    return _hit(piece, "grams", _shown(run), share, near=share < piece.enough)


def _tree_hits(code: str, index: Index, min_nodes: int) -> list[Hit]:
    hits = {}
    for shape, _ in _shapes(code, min_nodes, index.outlines):
        for text in index.shapes.get(shape.digest, ()):
            shown = f"{shape.name or 'script'}: {shape.nodes} nodes"
            hits[text.benchmark, text.item] = _hit(text, "tree", shown, 1.0, near=False)
    return list(hits.values())


def _shapes(
    code: str, min_nodes: int, outlines: frozenset[tuple[str, ...]] | None
) -> list[tuple[Shape, tuple[str, ...]]]:
    """The shapes in a piece of code that are not trivial, of these outlines only."""
    tree = parse(code)
    found = []
    for name, node, body in bodies(tree) if tree is not None else ():
        kinds = outline(body)
        if outlines is None or kinds in outlines:
            shape = shape_of(name, node)
            if shape is not None and shape.nodes >= min_nodes:
                found.append((shape, kinds))
    return found


def _views(text: Text) -> list[str]:
    if text.part == "solution":
        return [bare(text.text)]
    if text.part == "prompt":
        tasks = quoted_blocks(text.text) or [text.text]
        return [text.text, *tasks, *map(prose, tasks)]
    return [text.text, asserted(text.text)]


def _hit(text: Piece | Text, method: str, shown: str, share: float, *, near: bool) -> Hit:
    return {
        "benchmark": text.benchmark,
        "item": text.item,
        "part": text.part,
        "method": method,
        "share": share,
        "near": near,
        "text": shown,
    }


def _longest_run(view: list[str], piece: Piece, size: int) -> list[str]:
    """The longest run of the view's tokens whose n-grams are all the piece's."""
    grams = _gram_set(piece, size)
    best, start = (0, 0), None
    for place in range(len(view) - size + 2):
        is_in = place <= len(view) - size and tuple(view[place : place + size]) in grams
        if is_in and start is None:
            start = place
        elif not is_in and start is not None:
            best = max(best, (place - start + size - 1, -start))
            start = None
    length, begin = best[0], -best[1]
    return view[begin : begin + length]


@ft.lru_cache(maxsize=256)
def _gram_set(piece: Piece, size: int) -> frozenset[tuple[str, ...]]:
    tokens = piece.words.split()
    return frozenset(tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1))


def _words(tokens: list[str]) -> str:
    return f" {' '.join(tokens)} "


def _shown(tokens: list[str]) -> str:
    return " ".join(tokens[:_SHOWN_TOKENS])
