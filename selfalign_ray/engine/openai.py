"""OpenAI-compatible servers, such as `vllm serve`: completions of token ids over HTTP.

The library `openai` speaks the protocol and names its errors. Its own retries are off
(max_retries=0): they stay with one server, and a retry here goes to the one with the least to do.
Token ids and not texts are sent, so that a prompt is the same one that every other kind of engine
gets; the tokenizer of `model.id` must be the servers' own. Seeds are theirs to keep: vLLM draws
sample i with seed + i; another server may do otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import openai

from selfalign_ray.engine.base import (
    EngineDiedError,
    Generation,
    Prompt,
    PromptRefusedError,
    Text,
)
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.served import (
    NO_KEY,
    Served,
    check_servers,
    key_of,
    masked,
    mistake,
    retry_after,
    shared_length,
    user_error,
    words_of,
)
from selfalign_ray.engine.server_queue import AgainError, Server, ServerQueue
from selfalign_ray.engine.tokens import Tokens, load_tokenizer
from selfalign_ray.engine.weights import model_path, name_of
from selfalign_ray.errors import UserError

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_OURS = {401, 403, 404}  # statuses that a setting is to blame for
_THE_PROMPTS = {400, 413, 422}  # statuses that a prompt is to blame for
_THE_SERVERS = {429, 503}  # statuses that say that any other request would fare no better

# What vLLM's servers would else take from the model's generation_config.json; in-process engines
# draw by a hop's own settings alone.
_PLAIN_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class ServerFailedError(Exception):
    """No server answered a prompt in all the attempts that it has; other prompts may fare well."""


class OpenAIEngine:
    """Servers that share the prompts. `generate` must be called on one event loop."""

    def __init__(self, model: ModelConfig, engine: EngineConfig) -> None:
        """Finds out what the servers serve, and whether they take priorities.

        Raises:
            UserError: a server does not answer, does not take the key or lacks the model.
        """
        assert engine.request_seconds is not None
        assert engine.request_attempts is not None
        assert engine.requests_per_url is not None
        assert engine.retry_seconds is not None
        for library in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(library).setLevel(logging.WARNING)  # else a line for each request
        self.model = name_of(model, engine)
        self._attempts, self._hang_seconds = engine.request_attempts, engine.hang_seconds
        self._key, self._key_name = key_of(engine), engine.api_key_env
        self._timeout = openai.Timeout(engine.request_seconds, connect=_CONNECT_SECONDS)
        path = model_path(model)
        self._tokens = Tokens(load_tokenizer(path, model), chat=model.chat)
        served = check_servers(engine, model)
        self._length = shared_length(served, model)
        servers = [
            self._server(url, one) for url, one in zip(engine.base_urls, served, strict=True)
        ]
        self._queue = ServerQueue(servers, engine.requests_per_url, engine.retry_seconds)
        self._answered = 0.0  # when a server last did, or there was nothing to ask
        self._asking = 0
        self._prompt_tokens = self._cached_tokens = 0

    async def generate(self, prompt: Prompt) -> Generation:
        """As Engine.generate.

        Raises:
            PromptTooLongError: it leaves no room for the text.
            PromptRefusedError: a server says that the prompt is wrong.
            ServerFailedError: the prompt's attempts are used up.
            UserError: a server refuses the key, or has the model no more.
            EngineDiedError: no server has answered any prompt for `engine.hang_seconds`.
        """
        token_ids = self._tokens.of(prompt, self._length)
        if not self._asking:
            self._answered = time.monotonic()
        self._asking += 1
        try:
            return await self._generate(prompt, token_ids)
        finally:
            self._asking -= 1

    def stats(self) -> dict[str, float]:
        return {
            **self._queue.stats(),
            "prefix_cache_queries": self._prompt_tokens,
            "prefix_cache_hits": self._cached_tokens,
        }

    def close(self) -> None:
        self._queue.fail("the engine was closed")

    async def _generate(self, prompt: Prompt, token_ids: list[int]) -> Generation:
        reason = ""
        for attempt in range(self._attempts):
            server = await self._queue.enter(prompt.priority)
            failed: AgainError | None = None
            try:
                made = await self._ask(server, prompt, token_ids)
            except AgainError as error:
                failed = error
            finally:
                self._queue.leave(server, failed)
            if failed is None:
                return made
            reason = f"{server.url}: {failed}"
            silent = time.monotonic() - self._answered
            if silent > self._hang_seconds:
                self._queue.fail(died := f"no server has answered for {silent:.0f} s; {reason}")
                raise EngineDiedError(died)
            if not failed.down and attempt + 1 < self._attempts:
                await asyncio.sleep(failed.after or self._queue.pause(attempt))
        raise ServerFailedError(f"{self._attempts} attempts failed, the last at {reason}")

    async def _ask(self, server: Server, prompt: Prompt, token_ids: list[int]) -> Generation:
        """One attempt.

        Raises:
            PromptRefusedError, UserError, AgainError.
        """
        sampling = prompt.sampling
        more = {"priority": prompt.priority} if server.takes_priority else {}
        if prompt.scored is not None:
            if not server.extras:
                raise PromptRefusedError(f"{server.url} is no server of vLLM's, and scores no text")
            more["prompt_logprobs"] = 0
        try:
            answer = await server.client.completions.create(
                model=self.model,
                prompt=token_ids,
                n=sampling.n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                stop=list(sampling.stop) or None,
                seed=prompt.seed,
                extra_body=server.extras | more,
            )
            if prompt.scored is None:
                made = self._generation(answer, sampling.n, len(token_ids))
            else:
                first = self._tokens.scored_from(prompt, token_ids)
                made = _scored(answer, prompt.scored, token_ids, first)
        except openai.APIStatusError as error:
            raise self._failure(server.url, error) from None  # the cause has the key in it
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            unreached = cause == "ConnectTimeout" or not isinstance(error, openai.APITimeoutError)
            raise AgainError(cause, down=unreached) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            reason = f"no answer that can be read ({type(error).__name__}: {error})"
            raise AgainError(masked(reason, self._key), down=False) from None
        self._answered = time.monotonic()
        self._prompt_tokens += made.prompt_tokens
        self._cached_tokens += made.cached_tokens
        return made

    def _failure(self, url: str, error: openai.APIStatusError) -> Exception:
        status, said = error.status_code, words_of(error, self._key)
        if status in _THE_PROMPTS:
            self._answered = time.monotonic()
            return PromptRefusedError(f"{url} answers {status}: {said}")
        if status in _OURS:
            return UserError(mistake(status, said, url, self.model, self._key_name))
        after = retry_after(error.response.headers.get("retry-after"))
        return AgainError(f"{status}: {said}", down=status in _THE_SERVERS, after=after)

    def _generation(self, answer: Any, samples: int, prompt_tokens: int) -> Generation:
        """The samples of an answer.

        Raises:
            ValueError, TypeError, AttributeError: it is none, or a part of one.
        """
        choices = sorted(answer.choices, key=lambda choice: int(choice.index))
        if [choice.index for choice in choices] != list(range(samples)):
            raise ValueError(f"{len(choices)} samples of {samples}")
        texts = [
            Text(
                text=str(choice.text),
                finish_reason=choice.finish_reason or "error",
                output_tokens=len(self._ids(choice)),
            )
            for choice in choices
        ]
        details = getattr(answer.usage, "prompt_tokens_details", None)
        return Generation(
            texts=texts,
            prompt_tokens=prompt_tokens,
            cached_tokens=(details and details.cached_tokens) or 0,
        )

    def _ids(self, choice: Any) -> list[int]:
        """A sample's tokens; a server that does not say has them counted by the tokenizer."""
        ids: list[int] | None = getattr(choice, "token_ids", None)
        if ids is None:
            ids = self._tokens.tokenizer.encode(choice.text, add_special_tokens=False)
        return ids

    def _server(self, url: str, served: Served) -> Server:
        takes = served.is_vllm and self._completes(url, {"priority": -1})
        if served.is_vllm and not takes:
            log.warning("%s takes no priorities; start it with --scheduling-policy priority", url)
        if not takes and not self._completes(url, {}):
            raise UserError(f"engine.base_urls: {url} refuses a prompt of token ids")
        client = openai.AsyncOpenAI(
            base_url=url, api_key=self._key or NO_KEY, max_retries=0, timeout=self._timeout
        )
        extras = {**_PLAIN_SAMPLING, "return_token_ids": True} if served.is_vllm else {}
        return Server(url=url, client=client, extras=extras, takes_priority=takes)

    def _completes(self, url: str, extras: dict[str, Any]) -> bool:
        """Asks for one token; False where the server calls the request wrong.

        Raises:
            UserError: it completes nothing at all.
        """
        client = openai.OpenAI(
            base_url=url, api_key=self._key or NO_KEY, max_retries=2, timeout=self._timeout
        )
        token_ids = self._tokens.encode("a")
        try:
            client.completions.create(
                model=self.model, prompt=token_ids, max_tokens=1, extra_body=extras
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            return False
        except openai.OpenAIError as error:
            raise user_error(error, url, self.model, self._key, self._key_name) from None
        return True


def _scored(answer: Any, text: str, token_ids: list[int], first: int) -> Generation:
    """A text of the prompt's own, with its likelihood.

    Raises:
        ValueError, TypeError, AttributeError: the answer is none, or a part of one.
    """
    said = answer.choices[0].prompt_logprobs
    if len(said) != len(token_ids):
        raise ValueError(f"{len(said)} likelihoods of {len(token_ids)}")
    try:
        places = range(first, len(token_ids))
        logprob = sum(float(said[place][str(token_ids[place])]["logprob"]) for place in places)
    except KeyError as error:
        raise ValueError(f"no likelihood of token {error}") from None
    scored = Text(text=text, finish_reason="stop", output_tokens=len(places), logprob=logprob)
    return Generation(texts=[scored], prompt_tokens=len(token_ids), cached_tokens=0)
