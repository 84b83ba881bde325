"""engine/weights.py: folders, hub ids, and object stores behind a real S3 client."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from selfalign_ray.engine.weights import at_commits, config_dir, lora_path, model_path, name_of
from selfalign_ray.errors import UserError

ONE, TWO = "1" * 40, "2" * 40


class Store(ThreadingHTTPServer):
    """As much of S3 as reading needs: a listing, HEAD, and GET with ranges, of one bucket."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.got: list[str] = []
        self.broken: str | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"
        # Its end waits for the next look whether it is to end, by default every half a second.
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def listing(self, prefix):
        found = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(self.files.items())
            if key.startswith(prefix)
        )
        return (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        ).encode()

    def stop(self):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        address = urlsplit(self.path)
        key = unquote(address.path).removeprefix("/bucket").strip("/")
        if "list-type" in address.query:
            prefix = parse_qs(address.query).get("prefix", [""])[0]
            self.reply(200, self.server.listing(prefix), **{"Content-Type": "application/xml"})
        elif key not in self.server.files or key == self.server.broken:
            self.reply(404, b"")
        else:
            self.file(key, self.server.files[key])

    def file(self, key, data):
        if self.command == "GET":
            self.server.got.append(key)
        if (asked := self.headers.get("Range")) is None:
            self.reply(200, data)
            return
        first, last = asked.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last or len(data)) + 1]
        end = int(first) + len(part) - 1
        self.reply(206, part, **{"Content-Range": f"bytes {first}-{end}/{len(data)}"})

    def reply(self, status, data, **headers):
        self.send_response(status)
        headers = {"Last-Modified": formatdate(0, usegmt=True), "ETag": '"x"', **headers}
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def store(monkeypatch, tmp_path):
    made = Store()
    made.files = {
        "models/mine/config.json": b'{"model_type": "llama"}',
        "models/mine/model.safetensors": bytes(range(256)) * 4096,
        "models/mine/sub/tokenizer.json": b"{}",
        "models/other/config.json": b"{}",
    }
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield made
    made.stop()


@pytest.fixture
def model(run_config):
    def make(*overrides):
        return run_config(*overrides).model

    return make


def test_a_store_s_folder_is_copied_whole(store, model):
    path = Path(model_path(model("model.id=s3://bucket/models/mine")))
    found = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    prefix = "models/mine/"
    wanted = {k.removeprefix(prefix): v for k, v in store.files.items() if k.startswith(prefix)}
    assert found == wanted


def test_actors_of_a_machine_copy_it_once(store, model):
    mine = model("model.id=s3://bucket/models/mine")
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(model_path, [mine] * 4))
    assert len(paths) == 1
    assert store.got.count("models/mine/sub/tokenizer.json") == 1


def test_weights_that_changed_are_copied_again(store, model):
    mine = model("model.id=s3://bucket/models/mine")
    before = model_path(mine)
    store.files["models/mine/sub/tokenizer.json"] = b'{"new": 1}'
    after = model_path(mine)
    assert after != before
    assert Path(after, "sub/tokenizer.json").read_bytes() == b'{"new": 1}'


def test_a_copy_that_breaks_off_leaves_nothing_that_looks_whole(store, model, tmp_path):
    store.broken = "models/mine/model.safetensors"
    mine = model("model.id=s3://bucket/models/mine")
    with pytest.raises(UserError, match=r"model\.id: copying s3://bucket/models/mine"):
        model_path(mine)
    assert list(tmp_path.rglob("*.safetensors")) == []
    store.broken = None
    assert Path(model_path(mine), "model.safetensors").stat().st_size == 256 * 4096


def test_the_driver_reads_a_store_s_small_files_only(store, model, tmp_path):
    into = tmp_path / "small"
    config_dir(model("model.id=s3://bucket/models/mine"), into)
    assert sorted(p.name for p in into.rglob("*") if p.is_file()) == [
        "config.json",
        "tokenizer.json",
    ]


def test_a_place_with_nothing_in_it_is_named(store, model):
    with pytest.raises(UserError, match=r"model\.id: .*s3://bucket/models/none"):
        model_path(model("model.id=s3://bucket/models/none"))


def test_a_store_that_nobody_serves_is_named(store, model, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"model\.id: cannot read s3://bucket/models/mine"):
        model_path(model("model.id=s3://bucket/models/mine"))


def test_streaming_reads_the_store_itself(store, model):
    mine = model("model.id=s3://bucket/models/mine", "model.load_format=runai_streamer")
    assert model_path(mine) == "s3://bucket/models/mine"
    google = model("model.id=gcs://bucket/models/mine", "model.load_format=runai_streamer")
    assert model_path(google) == "gs://bucket/models/mine", "vLLM knows it by this name alone"
    assert store.got == []


def test_an_adapter_is_a_folder_with_its_config(model, tmp_path):
    with pytest.raises(UserError, match=r"model\.lora: there is no folder"):
        lora_path(model(f"model.lora={tmp_path}/none"))
    with pytest.raises(UserError, match=r"model\.lora: .* holds no adapter"):
        lora_path(model(f"model.lora={tmp_path}"))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert lora_path(model(f"model.lora={tmp_path}")) == str(tmp_path)
    assert lora_path(model()) is None


def test_an_adapter_that_neither_a_folder_nor_the_hub_has_is_named(model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"model\.lora: 'nobody/nothing' is no folder here"):
        lora_path(model("model.lora=nobody/nothing"))


def test_a_model_of_the_hub_is_at_the_commit_of_its_revision(run_config, pushed, tmp_path):
    def at(commit, *overrides):
        cfg = run_config("engine=transformers", *overrides)
        model = at_commits(cfg.model, cfg.engine, {"id": commit})
        assert (model is cfg.model) == (model.revision == cfg.model.revision)
        return model.revision, name_of(model, cfg.engine)

    pushed("o/n", ONE)
    assert at(None, "model.id=o/n") == (ONE, f"o/n@{ONE}")
    pushed("o/n", TWO)
    assert at(None, "model.id=o/n") == (TWO, f"o/n@{TWO}")
    assert at(ONE, "model.id=o/n") == (ONE, f"o/n@{ONE}")
    pushed("o/n", ONE, revision="v1")
    assert at(None, "model.id=o/n", "model.revision=v1") == (ONE, f"o/n@{ONE}")
    assert at(None, "model.id=o/other") == (None, "o/other"), "nobody can tell"
    assert at(ONE, "model.id=embedded") == (None, "embedded")
    assert at(ONE, f"model.id={tmp_path}") == (None, str(tmp_path))
    assert at(ONE, "engine=standin", "model.id=o/n") == (None, "standin")
    served = ["engine=openai", "model.id=o/n", "model.revision=v1"]
    assert at(ONE, *served) == ("v1", "o/n"), "the servers' weights are theirs"
    assert at(ONE, *served, "model.served_name=mine") == ("v1", "mine")


def test_an_adapter_of_the_hub_is_at_the_commit_of_its_revision(run_config, pushed, tmp_path):
    def at(lora, commit=None):
        cfg = run_config("engine=vllm", "model.id=embedded", f"model.lora='{lora}'")
        model = at_commits(cfg.model, cfg.engine, {"lora": commit})
        return model.lora, name_of(model, cfg.engine)

    pushed("o/tuned", ONE, file="adapter_config.json")
    assert at("o/tuned") == (f"o/tuned@{ONE}", f"embedded+o/tuned@{ONE}")
    pushed("o/tuned", TWO, file="adapter_config.json")
    pushed("o/tuned", ONE, file="adapter_config.json", revision="v1")
    assert at("o/tuned")[0] == f"o/tuned@{TWO}"
    assert at("o/tuned@v1")[0] == f"o/tuned@{ONE}"
    assert at("o/tuned", ONE)[0] == f"o/tuned@{ONE}"
    assert at("o/other") == ("o/other", "embedded+o/other"), "nobody can tell"
    assert at(tmp_path) == (str(tmp_path), f"embedded+{tmp_path}")


def test_an_adapter_of_the_hub_is_loaded_at_its_commit(model, pushed):
    for commit in (TWO, ONE):
        pushed("o/tuned", commit, file="adapter_config.json")
    assert Path(lora_path(model(f"model.lora=o/tuned@{TWO}"))).name == TWO
    assert Path(lora_path(model("model.lora=o/tuned"))).name == ONE
    with pytest.raises(UserError, match=r"model\.lora: 'o/tuned@v3' is no folder here"):
        lora_path(model("model.lora=o/tuned@v3"))
