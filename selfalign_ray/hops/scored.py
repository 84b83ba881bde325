"""Questions whose answers are scored, not drawn: how likely a given text is after a prompt."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfalign_ray.engine.base import Engine, Prompt, PromptRefusedError, Sampling, Text
from selfalign_ray.errors import UserError
from selfalign_ray.watch.tally import count

log = logging.getLogger(__name__)

YES, NO = " Yes", " No"
# A scored text needs none of these; an engine draws the one token that it may not leave out.
_NOTHING = Sampling(temperature=0.0, top_p=1.0, n=1, max_tokens=1, stop=())


def template(key: str, source: str, fields: Sequence[str]) -> Template:
    """A question over these fields.

    Raises:
        UserError: the template of this key is wrong, or asks for another field.
    """
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    try:
        made = environment.from_string(source)
        made.render(dict.fromkeys(fields, ""))
    except TemplateError as error:
        raise UserError(f"{key}: {error}") from error
    return made


def to_score(text: str, scored: str, *, stage: str) -> Prompt:
    """What asks an engine how likely `scored` is after `text`; nothing is drawn for it."""
    return Prompt(
        row={},
        hop=stage,
        text=text,
        prefix="",
        sampling=_NOTHING,
        seed=0,
        priority=0,
        scored=scored,
    )


async def likelihoods(prompts: Sequence[Prompt], engine: Engine) -> list[Text | None]:
    """The texts with their likelihoods; None where the engine does not take the prompt.

    Raises:
        EngineDiedError: no engine is left.
    """
    return list(await asyncio.gather(*(_likelihood(prompt, engine) for prompt in prompts)))


def share(one: Text | None, other: Text | None) -> float | None:
    """The probability of the first of two texts, one of which follows; None where unknown."""
    if one is None or other is None or one.logprob is None or other.logprob is None:
        return None
    # Within what `exp` can take.
    difference = max(-700.0, min(700.0, other.logprob - one.logprob))
    return 1 / (1 + math.exp(difference))


async def _likelihood(prompt: Prompt, engine: Engine) -> Text | None:
    asked = time.monotonic()
    try:
        made = await engine.generate(prompt)
    except PromptRefusedError as error:
        log.debug("%s: a text is not scored: %s", prompt.hop, error)
        count(prompt.hop, refused=1)
        return None
    count(
        prompt.hop,
        prompts=1,
        prompt_tokens=made.prompt_tokens,
        cached_tokens=made.cached_tokens,
        seconds=time.monotonic() - asked,
    )
    return made.texts[0]
