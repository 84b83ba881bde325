"""OpenAI-compatible servers, such as `vllm serve`: completions of token ids over HTTP.

The library `openai` speaks the protocol and names its errors. Its own retries are off
(max_retries=0): they stay with one server, and a retry here goes to the one with the least to do.
Token ids and not texts are sent, so that a prompt is the same one that every other kind of engine
gets; the tokenizer of `model.id` must be the servers' own. Seeds are theirs to keep: vLLM draws
sample i with seed + i; another server may do otherwise.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import os
import platform
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
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
from selfalign_ray.engine.tokens import Tokens, load_tokenizer
from selfalign_ray.engine.weights import model_path
from selfalign_ray.errors import UserError
from selfalign_ray.watch.masking import MASK

log = logging.getLogger(__name__)

_LIST_SECONDS = 20.0  # that a list of models may take
_LONGEST_REST = 60.0  # seconds between two tries of a server that is down
_CONNECT_SECONDS = 10.0
_NO_KEY = "none"  # the library wants a key, and would else take the one in OPENAI_API_KEY
_OURS = {401, 403, 404}  # statuses that a setting is to blame for
_THE_PROMPTS = {400, 413, 422}  # statuses that a prompt is to blame for
_THE_SERVERS = {429, 503}  # statuses that say that any other request would fare no better

# What vLLM's servers would else take from the model's generation_config.json; in-process engines
# draw by a hop's own settings alone.
_PLAIN_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class ServerFailedError(Exception):
    """No server answered a prompt in all the attempts that it has; other prompts may fare well."""


class _AgainError(Exception):
    """An attempt failed and the next may not."""

    def __init__(self, reason: str, *, down: bool, after: float | None = None) -> None:
        super().__init__(reason)
        self.down = down  # the server is, for every request
        self.after = after  # seconds to wait, where the server says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server says of a model."""

    is_vllm: bool
    max_model_len: int | None


@dataclass(slots=True, kw_only=True)
class _Server:
    url: str
    client: openai.AsyncOpenAI
    extras: dict[str, Any]  # of a request's body, beyond the protocol
    takes_priority: bool
    in_flight: int = 0
    failures: int = 0  # times that it was down since its last answer
    resting: bool = False


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
        self.model = model.served_name or model.id
        self._attempts, self._hang_seconds = engine.request_attempts, engine.hang_seconds
        self._key, self._key_name = _key(engine), engine.api_key_env
        self._timeout = openai.Timeout(engine.request_seconds, connect=_CONNECT_SECONDS)
        path = model_path(model)
        self._tokens = Tokens(load_tokenizer(path, model), chat=model.chat)
        served = check_servers(engine, model)
        self._length = _length(served, model)
        servers = [
            self._server(url, one) for url, one in zip(engine.base_urls, served, strict=True)
        ]
        self._queue = _Queue(servers, engine.requests_per_url, engine.retry_seconds)
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
            failed: _AgainError | None = None
            try:
                made = await self._ask(server, prompt, token_ids)
            except _AgainError as error:
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

    async def _ask(self, server: _Server, prompt: Prompt, token_ids: list[int]) -> Generation:
        """One attempt.

        Raises:
            PromptRefusedError, UserError, _AgainError.
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
            raise _AgainError(cause, down=unreached) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            reason = f"no answer that can be read ({type(error).__name__}: {error})"
            raise _AgainError(_masked(reason, self._key), down=False) from None
        self._answered = time.monotonic()
        self._prompt_tokens += made.prompt_tokens
        self._cached_tokens += made.cached_tokens
        return made

    def _failure(self, url: str, error: openai.APIStatusError) -> Exception:
        status, said = error.status_code, _said(error, self._key)
        if status in _THE_PROMPTS:
            self._answered = time.monotonic()
            return PromptRefusedError(f"{url} answers {status}: {said}")
        if status in _OURS:
            return UserError(_mistake(status, said, url, self.model, self._key_name))
        after = retry_after(error.response.headers.get("retry-after"))
        return _AgainError(f"{status}: {said}", down=status in _THE_SERVERS, after=after)

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

    def _server(self, url: str, served: Served) -> _Server:
        takes = served.is_vllm and self._completes(url, {"priority": -1})
        if served.is_vllm and not takes:
            log.warning("%s takes no priorities; start it with --scheduling-policy priority", url)
        if not takes and not self._completes(url, {}):
            raise UserError(f"engine.base_urls: {url} refuses a prompt of token ids")
        client = openai.AsyncOpenAI(
            base_url=url, api_key=self._key or _NO_KEY, max_retries=0, timeout=self._timeout
        )
        extras = {**_PLAIN_SAMPLING, "return_token_ids": True} if served.is_vllm else {}
        return _Server(url=url, client=client, extras=extras, takes_priority=takes)

    def _completes(self, url: str, extras: dict[str, Any]) -> bool:
        """Asks for one token; False where the server calls the request wrong.

        Raises:
            UserError: it completes nothing at all.
        """
        client = openai.OpenAI(
            base_url=url, api_key=self._key or _NO_KEY, max_retries=2, timeout=self._timeout
        )
        token_ids = self._tokens.encode("a")
        try:
            client.completions.create(
                model=self.model, prompt=token_ids, max_tokens=1, extra_body=extras
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            return False
        except openai.OpenAIError as error:
            raise _user_error(error, url, self.model, self._key, self._key_name) from None
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


class _Queue:
    """Prompts that wait for room at a server: deeper hops first, to the server with the least.

    A server that is down rests, each time about twice as long, and is then tried with one prompt.
    """

    def __init__(self, servers: list[_Server], room: int, retry_seconds: float) -> None:
        self._servers, self._room, self._retry_seconds = servers, room, retry_seconds
        self._waiting: list[tuple[int, int, asyncio.Future[_Server]]] = []
        self._numbers = itertools.count()
        self._dead: str | None = None

    async def enter(self, priority: int) -> _Server:
        """Waits for room; lower priorities go first, and then who came first.

        Raises:
            EngineDiedError: `fail` was called.
        """
        if self._dead:
            raise EngineDiedError(self._dead)
        turn: asyncio.Future[_Server] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        self._hand_out()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(turn.result(), None)
            raise

    def leave(self, server: _Server, failed: _AgainError | None) -> None:
        """Gives a place back, with why the attempt failed."""
        server.in_flight -= 1
        if failed is None or not failed.down:
            server.failures = 0
        elif not server.resting:
            rest = failed.after or self.pause(server.failures)
            server.failures += 1
            server.resting = True
            log.warning("%s: %s; no prompt goes there for %.1f s", server.url, failed, rest)
            asyncio.get_running_loop().call_later(rest, self._rested, server)
        self._hand_out()

    def pause(self, failures: int) -> float:
        """Seconds after so many failures, drawn so that prompts do not come back all at once."""
        return random.uniform(0.5, 1.0) * min(self._retry_seconds * 2.0**failures, _LONGEST_REST)

    def fail(self, reason: str) -> None:
        """Ends all that wait, and all that come."""
        self._dead = reason
        for _, _, turn in self._waiting:
            if not turn.done():
                turn.get_loop().call_soon_threadsafe(_end, turn, reason)
        self._waiting.clear()

    def stats(self) -> dict[str, float]:
        running = sum(server.in_flight for server in self._servers)
        return {"running": running, "waiting": len(self._waiting)}

    def _rested(self, server: _Server) -> None:
        server.resting = False
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting:
            free = [server for server in self._servers if self._has_room(server)]
            if not free:
                return
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # else its row is gone
                server = min(free, key=lambda server: server.in_flight)
                server.in_flight += 1
                turn.set_result(server)

    def _has_room(self, server: _Server) -> bool:
        return not server.resting and server.in_flight < (1 if server.failures else self._room)


def _end(turn: asyncio.Future[_Server], reason: str) -> None:
    if not turn.done():
        turn.set_exception(EngineDiedError(reason))


def check_servers(engine: EngineConfig, model: ModelConfig) -> list[Served]:
    """Asks every server for its models.

    Raises:
        UserError: one does not answer, does not take the key or lacks the model.
    """
    name, key = model.served_name or model.id, _key(engine)
    return [_served(url, name, key, engine.api_key_env) for url in engine.base_urls]


def _served(url: str, name: str, key: str | None, key_name: str | None) -> Served:
    client = openai.OpenAI(
        base_url=url, api_key=key or _NO_KEY, max_retries=2, timeout=_LIST_SECONDS
    )
    try:
        models = {str(found.id): found for found in client.models.list()}
    except openai.NotFoundError:
        raise UserError(
            f"engine.base_urls: {url} answers 404 to a list of its models; an address ends in /v1, "
            "as http://host:8000/v1"
        ) from None
    except openai.OpenAIError as error:
        raise _user_error(error, url, name, key, key_name) from None
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"engine.base_urls: {url} is no OpenAI-compatible server") from None
    if name not in models:
        raise UserError(
            f"model.served_name: {url} serves {', '.join(sorted(models)) or 'nothing'}, and not "
            f"{name!r}"
        )
    found = models[name]
    length = getattr(found, "max_model_len", None)
    return Served(
        is_vllm=getattr(found, "owned_by", None) == "vllm",
        max_model_len=length if isinstance(length, int) else None,
    )


def _length(served: Iterable[Served], model: ModelConfig) -> int:
    """The longest prompt with its text that every server takes."""
    lengths = [one.max_model_len for one in served if one.max_model_len]
    if model.max_model_len is not None:
        lengths.append(model.max_model_len)
    if not lengths:
        raise UserError("model.max_model_len: must be given; the servers do not say theirs")
    return min(lengths)


def _key(engine: EngineConfig) -> str | None:
    """The servers' key, from its variable; None where none is named.

    Raises:
        UserError: the variable is not set here.
    """
    if engine.api_key_env is None:
        return None
    key = os.environ.get(engine.api_key_env)
    if not key:
        raise UserError(
            f"engine.api_key_env: the variable {engine.api_key_env} is not set on "
            f"{platform.node()}; set it where Ray's workers start"
        )
    return key


def _user_error(
    error: openai.OpenAIError, url: str, name: str, key: str | None, key_name: str | None
) -> UserError:
    if isinstance(error, openai.APIStatusError):
        said = _said(error, key)
        return UserError(_mistake(error.status_code, said, url, name, key_name))
    if isinstance(error, openai.APIConnectionError):
        reason = type(error.__cause__).__name__ if error.__cause__ else "no connection"
        return UserError(f"engine.base_urls: no server answers at {url} ({reason})")
    return UserError(f"engine.base_urls: {url} is no OpenAI-compatible server")


def _mistake(status: int, said: str, url: str, name: str, key_name: str | None) -> str:
    """What to tell the user about a status."""
    if status in (401, 403):
        now = f"the one in {key_name} is refused" if key_name else "none is named"
        return (
            f"engine.api_key_env: {url} answers {status}: {said}; name a variable that holds a "
            f"valid key ({now})"
        )
    if status == 404:
        return f"model.served_name: {url} answers 404 for {name!r}: {said}"
    return f"engine.base_urls: {url} answers {status}: {said}"


def _said(error: openai.APIStatusError, key: str | None) -> str:
    """The first line of an error's message, not too long; a proxy may send a page."""
    body = error.body
    text = body.get("message") if isinstance(body, dict) else None
    lines = str(text or error.message).strip().splitlines() or ["nothing"]
    return _masked(lines[0][:300], key)


def _masked(text: str, key: str | None) -> str:
    """The text without the key, which some servers repeat."""
    return text.replace(key, MASK) if key else text


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, of its two forms; None for neither."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
