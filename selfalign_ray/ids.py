"""Ids from content, and randomness from ids: never from position, order, worker or time."""

from __future__ import annotations

import hashlib
import random


def content_id(*parts: str | bytes | None) -> str:
    """32 hex digits of SHA-256 over the parts, each with its length so that none runs into next.

    None and an empty part differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"-" if data is None else b"%d:" % len(data))
        digest.update(data or b"")
    return digest.hexdigest()[:32]


def keyed_int(bits: int, run_seed: int, *key: str) -> int:
    """A uniform integer below 2**bits that depends on the run seed and the key alone."""
    data = "/".join([str(run_seed), *key]).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> (64 - bits)


def keyed_random(run_seed: int, *key: str) -> random.Random:
    """A generator that depends on the run seed and the key alone."""
    return random.Random(keyed_int(64, run_seed, *key))
