"""The one signature behind which every engine stands: a prompt in, all its samples out.

A prompt may also bring a text of its own to be scored: then nothing is drawn, and the one sample is
that text with its likelihood, which costs the engine a prefill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How samples are drawn for one prompt."""

    temperature: float  # 0 is greedy
    top_p: float
    n: int  # samples
    max_tokens: int  # of text, per sample
    stop: tuple[str, ...]  # strings that end a sample and are cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What one hop asks for one row."""

    row: dict[str, Any]  # the row as the hop's template saw it
    hop: str
    text: str  # all that the model continues
    prefix: str  # the end of `text` that is the forced start of the answer; may be empty
    sampling: Sampling
    seed: int  # sample i is drawn with seed + i
    priority: int  # lower goes first: a deeper hop before a shallower one
    scored: str | None = None  # how likely is this after `text`? null: draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One sample, unparsed."""

    text: str
    finish_reason: str  # stop: a stop string or the model's end; length: max_tokens
    output_tokens: int
    logprob: float | None = None  # natural, of all its tokens; where the prompt has it scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """All samples of one prompt, in sample order."""

    texts: list[Text]
    prompt_tokens: int
    cached_tokens: int  # of the prompt, from the prefix cache


class PromptRefusedError(Exception):
    """The engine does not take this prompt; other prompts are not concerned."""


class PromptTooLongError(PromptRefusedError):
    """The prompt leaves no room for max_tokens of text; a shorter one may."""


class EngineKilledError(PromptRefusedError):
    """Two engines died with this prompt in flight."""


class EngineDiedError(Exception):
    """The engine is gone with everything in flight; only a new one can go on."""


class Engine(Protocol):
    """Turns prompts into texts."""

    model: str  # as rows record it

    async def generate(self, prompt: Prompt) -> Generation:
        """All samples of a prompt. May be called from any thread's event loop.

        Raises:
            PromptTooLongError: with fewer shots it may fit.
            PromptRefusedError: for this prompt only.
            EngineDiedError: for every prompt from now on.
        """


class LoadedEngine(Engine, Protocol):
    """An engine in the process that computes, or asks servers."""

    def stats(self) -> dict[str, float]:
        """What the engine is doing now, of what it knows.

        running, waiting: samples (of servers: prompts); kv_cache_usage: share in use;
        prefix_cache_queries, prefix_cache_hits: prompt tokens since the start; generated_tokens:
        written since then, of samples that have not ended too.
        """
