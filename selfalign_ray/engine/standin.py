"""The stand-in engine: worked examples instead of a model, for tests and dry runs.

It answers a prompt with what one of the few-shot examples answers, picked by the row's id, and
spoils some samples, so that every stage has something to keep and something to drop. Rows say
`model: standin`, and reports say so first: what it makes is no result.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from selfalign_ray.engine.base import Generation, Prompt, Text
from selfalign_ray.hops.config import RecipeConfig
from selfalign_ray.hops.prompt import HopPrompt
from selfalign_ray.hops.shots import Example, named
from selfalign_ray.ids import keyed_int

STANDIN = "standin"
_CHARACTERS_PER_TOKEN = 4  # about that of English and code; sets the sizes of prompts


class StandinEngine:
    """Deterministic texts; sampling settings decide nothing but their number."""

    def __init__(self, recipe: RecipeConfig, examples: Sequence[Example], seconds: float) -> None:
        self.model = STANDIN
        self._examples = {
            name: named(examples, hop.examples) or list(examples)
            for name, hop in recipe.hops.items()
        }
        self._seconds = seconds
        self._running = 0
        self._prompts = {name: HopPrompt(name, hop, examples) for name, hop in recipe.hops.items()}

    async def generate(self, prompt: Prompt) -> Generation:
        self._running += prompt.sampling.n
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self._running -= prompt.sampling.n
        if prompt.scored is not None:
            return _scored(prompt, prompt.scored)
        texts = [self._text(prompt, index) for index in range(prompt.sampling.n)]
        return Generation(
            texts=[
                Text(text=text, finish_reason="stop", output_tokens=_tokens(text)) for text in texts
            ],
            prompt_tokens=_tokens(prompt.text),
            cached_tokens=0,
        )

    def stats(self) -> dict[str, float]:
        return {"running": self._running}

    def _text(self, prompt: Prompt, index: int) -> str:
        hop = self._prompts[prompt.hop]
        text = hop.output(self._example(prompt)).rstrip()
        if prompt.hop == "instruction":
            # As many instructions as rows, however few the examples are.
            text += f" (variant {prompt.seed:012x})"
        if prompt.hop == "responses":
            text = _spoilt(text, keyed_int(32, prompt.seed + index, STANDIN, "spoil") % 4)
        return text.removeprefix(prompt.prefix)

    def _example(self, prompt: Prompt) -> Example:
        """The example whose instruction the row has; else one drawn by the prompt's seed."""
        examples = self._examples[prompt.hop]
        instruction = prompt.row["instruction"] or ""
        for example in examples:
            if instruction.startswith(example.instruction):
                return example
        # The seed of a prompt is its row's, so a row gets the same example whenever it asks.
        return examples[keyed_int(32, prompt.seed, STANDIN) % len(examples)]


def _scored(prompt: Prompt, scored: str) -> Generation:
    """A likelihood drawn by the prompt's seed and its texts, of 0.05 to 0.95 a token."""
    drawn = keyed_int(32, prompt.seed, STANDIN, prompt.text, scored) / 2**32
    tokens = max(1, _tokens(scored))
    logprob = tokens * math.log(0.05 + 0.9 * drawn)
    text = Text(text=scored, finish_reason="stop", output_tokens=tokens, logprob=logprob)
    return Generation(texts=[text], prompt_tokens=_tokens(prompt.text) + tokens, cached_tokens=0)


def _tokens(text: str) -> int:
    return len(text) // _CHARACTERS_PER_TOKEN


def _spoilt(text: str, way: int) -> str:
    """A sample of four is spoilt in one of two ways; the others are as the example has them."""
    if way == 0:
        return text.replace("return ", "return not ")
    return text
