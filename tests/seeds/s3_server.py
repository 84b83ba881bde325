"""An S3-compatible server with blobs and a proxy before it that refuses on demand."""

from __future__ import annotations

import gzip
import http.client
import http.server
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "softwareheritage"


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on, late, or answers them itself: `status_of(path)` None passes on."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, host: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = (host, port)
        self.seen: Counter[str] = Counter()
        self.delay_seconds = 0.0
        self.refuse_share = 0.0
        self.statuses: dict[str, int] = {}  # part of a path -> what is always answered
        self.random = random.Random(1)
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def status_of(self, path: str) -> int | None:
        with self.lock:
            self.seen[path] += 1
            # What is always answered comes first: else chance would name the last attempt's fault.
            for part, status in self.statuses.items():
                if part in path:
                    return status
            return 503 if self.random.random() < self.refuse_share else None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        time.sleep(self.server.delay_seconds)
        status = self.server.status_of(self.path)
        if status is not None:
            code = {503: "SlowDown", 403: "AccessDenied"}.get(status, "InternalError")
            self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())
            return
        connection = http.client.HTTPConnection(*self.server.target)
        connection.request("GET", self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        self._answer(answer.status, answer.read(), dict(answer.getheaders()))
        connection.close()

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def s3_server(blobs: Mapping[str, bytes]) -> Iterator[Proxy]:
    """A proxy before a server that holds these objects under content/."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=BUCKET)
    for name, data in blobs.items():
        client.put_object(Bucket=BUCKET, Key=f"content/{name}", Body=data, ACL="public-read")
    proxy = Proxy(host, port)
    # Its end waits for the next look whether it is to end, by default every half a second.
    threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.stop()


def zipped(text: str, encoding: str = "utf-8") -> bytes:
    return gzip.compress(text.encode(encoding))
