"""A model of two layers, for what needs real loading and no sense in the texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfalign_ray.engine.embedded import embedded_model_dir


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's tokenizer and a small config: for load_format=dummy."""
    folder = tmp_path_factory.mktemp("tiny")
    source = embedded_model_dir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copy(source / name, folder)
    config = json.loads((source / "config.json").read_text())
    config |= {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 1 << 20,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
