"""Prompts as tokens: plain for a base model, through its chat template for an instruct model."""

from __future__ import annotations

from typing import Any

from selfalign_ray.engine.base import Prompt, PromptTooLongError
from selfalign_ray.engine.config import ModelConfig
from selfalign_ray.errors import UserError, first_line


class Tokens:
    """A tokenizer of transformers, and whether prompts are a turn of a chat."""

    def __init__(self, tokenizer: Any, *, chat: bool) -> None:
        """Takes any tokenizer with `encode` and `apply_chat_template`.

        Raises:
            UserError: a chat is asked for, and the tokenizer has no template for one.
        """
        if chat and not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "model.chat: the tokenizer has no chat template, so this is a base model; set "
                "model.chat=false, or model.id to an instruct model"
            )
        self.tokenizer = tokenizer
        self._chat = chat

    def of(self, prompt: Prompt, length: int) -> list[int]:
        """A prompt's tokens, for a model that takes `length` of them with the text.

        A text to be scored is among them.

        Raises:
            PromptTooLongError: they leave no room for the text.
        """
        scored = prompt.scored or ""
        token_ids = self.encode(prompt.text + scored, prompt.prefix + scored)
        room = length - prompt.sampling.max_tokens
        if len(token_ids) > room:
            raise PromptTooLongError(f"{len(token_ids)} tokens, and room for {room}")
        return token_ids

    def scored_from(self, prompt: Prompt, token_ids: list[int]) -> int:
        """Where in a prompt's tokens the scored text begins; never with the first of all.

        A token that holds an end of the prompt and a beginning of the text counts as the text's.
        """
        before = self.encode(prompt.text, prompt.prefix)
        same = next(
            (n for n, (a, b) in enumerate(zip(before, token_ids, strict=False)) if a != b),
            min(len(before), len(token_ids)),
        )
        return max(1, same)

    def encode(self, text: str, prefix: str = "") -> list[int]:
        """The tokens of a text; of a chat, its end `prefix` is the start of the model's turn.

        Of two texts that begin alike, the tokens begin alike in both ways: a template puts what
        it adds before the user's words and after them, so shots stay a shared prefix.
        """
        if not self._chat:
            return list(self.tokenizer.encode(text))
        assert text.endswith(prefix)
        turn = {"role": "user", "content": text[: len(text) - len(prefix)]}
        # Templates that know of thinking are told to leave it out: a forced start cannot follow
        # thoughts. A template brings its own beginning of text, so the tokenizer adds none.
        opened = self.tokenizer.apply_chat_template(
            [turn], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return list(self.tokenizer.encode(opened + prefix, add_special_tokens=False))


def load_tokenizer(path: str, model: ModelConfig) -> Any:
    """The tokenizer of a model, from its folder `path` or the hub.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"model.id: no tokenizer in {path} ({first_line(error)})") from error
