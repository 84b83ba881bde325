"""Contents from an object store: many requests at once, patience when it asks for it."""

from __future__ import annotations

import gzip
import logging
import random
import threading
import time
import zlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.seeds.config import FetchConfig, RetryConfig
from selfalign_ray.seeds.sources.entries import with_bytes
from selfalign_ray.seeds.sources.storage import is_throttled

log = logging.getLogger(__name__)

_MISSING = ("NoSuchKey", "404", "NotFound")
_DENIED = ("AccessDenied", "401", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch")


class Pace:
    """When the next request may go: a token bucket, and a pause that a busy store asks for."""

    def __init__(self, per_second: float | None, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._lock = threading.Lock()
        self._tokens, self._since = float(burst), time.monotonic()
        self._not_before = 0.0

    def wait(self) -> None:
        """Returns when a request may go; takes its token."""
        while (seconds := self._take()) > 0:
            time.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Lets no request go for so long, whoever asks."""
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _take(self) -> float:
        """Takes a token, or says how long to wait before the next try."""
        with self._lock:
            now = time.monotonic()
            if now < self._not_before:
                return self._not_before - now
            if self._per_second is None:
                return 0.0
            gained = (now - self._since) * self._per_second
            self._tokens, self._since = min(self._burst, self._tokens + gained), now
            if self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) / self._per_second


class Fetcher:
    """An actor that gives rows their content; a row dropped before passes through.

    Drop reasons: blob_missing; blob_truncated and bad_gzip; fetch_throttled, fetch_denied and
    fetch_failed, after all attempts; too_large and those of `text.decode` and `headers.judged`.

    Raises:
        UserError: the first `give_up_after` blobs could not be had at all.
    """

    def __init__(
        self,
        fetch: FetchConfig,
        retry: RetryConfig,
        max_bytes: int,
        licenses: Collection[str] | None,
    ) -> None:
        self._fetch, self._retry = fetch, retry
        self._max_bytes, self._licenses = max_bytes, licenses
        self._urls = [fetch.url, *([fetch.fallback] if fetch.fallback else [])]
        self._pool = ThreadPoolExecutor(fetch.concurrency)
        self._pace = Pace(fetch.requests_per_second, fetch.concurrency)
        self._params = {url: _transport(url, fetch) for url in self._urls}
        self._lock = threading.Lock()
        self._answered, self._failed = False, 0

    def __call__(self, files: pa.Table) -> Iterator[pa.Table]:
        """The rows of a batch, in its order, as `schemas.FILE`."""
        rows = list(self._pool.map(self.filled, files.to_pylist()))
        yield pa.Table.from_pylist(rows, schema=schemas.FILE)

    def filled(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with its content, or with the reason why it has none."""
        if row["drop_reason"] is not None:
            return row
        data, reason = self.data(row["blob_id"])
        if data is None:
            return {**row, "drop_reason": reason}
        return with_bytes(row, data, self._max_bytes, self._licenses)

    def data(self, blob: str) -> tuple[bytes | None, str | None]:
        """At most `max_bytes` + 1 bytes of a blob, or why there are none."""
        reason: str | None = "fetch_failed"
        last = ""
        for url in list(self._urls):
            data, reason, last = self._asked(url, blob)
            if reason not in ("fetch_denied", "fetch_failed"):
                with self._lock:
                    self._answered = True
                    if self._urls[0] != url:  # what works is asked first from here on
                        log.warning("%s refuses; contents now come from %s", self._urls[0], url)
                        self._urls.sort(key=lambda other: other != url)
                return data, reason
        self._note_failure(last)
        return None, reason

    def _asked(self, url: str, blob: str) -> tuple[bytes | None, str | None, str]:
        """A blob from one place: the bytes, or the reason and what was said last."""
        reason, said = "fetch_failed", ""
        for attempt in range(self._retry.attempts):
            self._pace.wait()
            try:
                return self._read(url.format(blob=blob), self._params[url]), None, ""
            except Exception as error:  # noqa: BLE001  each client has its own
                reason, said = _reason(error), str(error)
                if reason not in ("fetch_throttled", "fetch_failed"):
                    break
            pause = self._retry.seconds * 2**attempt * random.uniform(0.5, 1.5)
            if reason == "fetch_throttled":
                self._pace.pause(pause)
            else:
                time.sleep(pause)
        return None, reason, said

    def _read(self, url: str, params: dict[str, Any]) -> bytes:
        import smart_open

        with smart_open.open(url, "rb", compression=".gz", transport_params=params) as file:
            data = file.read(self._max_bytes + 1)  # no more of a bomb
        assert isinstance(data, bytes)
        return data

    def _note_failure(self, said: str) -> None:
        with self._lock:
            self._failed += 1
            enough = self._fetch.give_up_after
            if not self._answered and self._failed >= enough:
                raise UserError(
                    f"source.fetch.url: none of the first {enough} blobs could be had from "
                    f"{' or '.join(self._urls)}: {said or 'no connection'}; see "
                    "source.fetch.signed, region and endpoint"
                )


def _transport(url: str, fetch: FetchConfig) -> dict[str, Any]:
    """What smart_open takes to reach a store."""
    if not url.startswith("s3://"):
        return {"timeout": fetch.timeout_seconds}
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        signature_version=None if fetch.signed else UNSIGNED,
        retries={"total_max_attempts": 1},  # the pace is kept for all requests together
        max_pool_connections=fetch.concurrency,
        connect_timeout=fetch.timeout_seconds,
        read_timeout=fetch.timeout_seconds,
    )
    client = boto3.client(
        "s3", region_name=fetch.region, endpoint_url=fetch.endpoint, config=config
    )
    return {"client": client}


def _reason(error: Exception) -> str:
    """What an error of a store, its client or gzip comes to."""
    if isinstance(error, EOFError):
        return "blob_truncated"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return "bad_gzip"
    told = getattr(error, "backend_error", error)  # smart_open keeps the store's own answer here
    answer = getattr(told, "response", None)
    if isinstance(answer, dict):
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        codes = {str(answer.get("Error", {}).get("Code")), str(status)}
    else:
        codes = {str(getattr(answer, "status_code", ""))}
    if codes & {"429", "503", "SlowDown"} or is_throttled(told):
        return "fetch_throttled"
    if codes & set(_MISSING):
        return "blob_missing"
    return "fetch_denied" if codes & set(_DENIED) else "fetch_failed"
