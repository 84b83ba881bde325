"""Embeddings of instructions, from a small model that a package or a folder holds.

Both kinds are tables of one vector a token, whose mean over a text is its embedding: thousands of
texts a second on one core, no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from selfalign_ray.errors import UserError

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
PACKAGED = "wordllama"
_KEY = "selection.diversity.model"
_OUT = (
    "install the extra: pip install 'selfalign-ray[diversity]'; or leave the stage out: "
    "selection.diversity.enabled=false"
)


def load_embedding(model: str) -> Embed:
    """What turns texts into vectors of length 1, or 0 for a text of which the model knows nothing.

    A text's vector depends on the text alone, not on the others beside it.

    Args:
        model: `selection.diversity.model`.

    Raises:
        UserError: the model or its package is not there.
    """
    embed = _wordllama() if model == PACKAGED else _model2vec(model)

    def unit(texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, 1), np.float32)
        found = np.nan_to_num(np.asarray(embed(texts), np.float32))
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        vectors: Vectors = found / np.where(lengths > 0, lengths, 1)
        return vectors

    return unit


def _wordllama() -> Embed:
    try:
        import wordllama
    except ImportError as error:
        raise UserError(f"{_KEY}: the package wordllama is not installed; {_OUT}") from error
    # As a cache the package's own folder is found whole; else it would ask a hub for its tokenizer.
    folder = Path(wordllama.__file__).parent
    try:
        model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    except FileNotFoundError as error:
        raise UserError(f"{_KEY}: wordllama came without its weights; {_OUT}") from error
    # Texts that are padded together differ in the last bits from those that are not.
    return lambda texts: model.embed(list(texts), batch_size=1)


def _model2vec(model: str) -> Embed:
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{_KEY}: {model} is no folder of a model2vec model (config.json, model.safetensors, "
            f"tokenizer.json); give one, or {PACKAGED}, or leave the stage out: "
            "selection.diversity.enabled=false"
        )
    try:
        from model2vec import StaticModel
    except ImportError as error:
        raise UserError(f"{_KEY}: the package model2vec is not installed; {_OUT}") from error
    try:
        static = StaticModel.from_pretrained(folder)
    except Exception as error:  # of whatever the folder's files are
        raise UserError(f"{_KEY}: cannot read {model}: {error}") from error
    return lambda texts: static.encode(list(texts), use_multiprocessing=False, max_length=None)
