"""An S3-compatible server that can be told to refuse, and what tests look at it with."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "runs"
SECRET = "the-secret-of-these-tests"
_ANSWER = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}.</Message></Error>'


class Server:
    """The server; `refuse(method, path)` gives a status and a code, or None for what is let on."""

    def __init__(self) -> None:
        self.refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self._app = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to know to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @functools.cached_property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key=SECRET,
        )

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    def empty(self) -> None:
        """Forgets all that it holds and was told."""
        self.refuse = lambda method, path: None
        if keys := [{"Key": key} for key in self.names()]:
            self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        refused = self.refuse(method, path)
        if refused is None:
            return self._app(environ, start)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = b"" if method == "HEAD" else _ANSWER.format(code=refused[1]).encode()
        start(f"{refused[0]} Refused", [("Content-Type", "application/xml")])
        return [body]


@contextlib.contextmanager
def object_store() -> Iterator[Server]:
    """A server with an empty bucket."""
    server = Server()
    try:
        server.client.create_bucket(Bucket=BUCKET)
        yield server
    finally:
        server.close()
