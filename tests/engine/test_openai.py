"""engine/openai.py: real HTTP servers that fail in every way, and vLLM's own server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from transformers import AutoTokenizer

from selfalign_ray.engine.base import (
    EngineDiedError,
    Prompt,
    PromptRefusedError,
    PromptTooLongError,
    Sampling,
)
from selfalign_ray.engine.embedded import embedded_model_dir
from selfalign_ray.engine.openai import OpenAIEngine, ServerFailedError
from selfalign_ray.engine.served import check_servers, retry_after
from selfalign_ray.errors import UserError

MODEL = "some-model"
KEY = "a-key-that-nobody-may-see"
SAMPLING = Sampling(temperature=0.8, top_p=0.9, n=2, max_tokens=8, stop=("END",))


class Server(ThreadingHTTPServer):
    """Answers as a test's `answer(body)` says: (status, headers, body), raw bytes, or None.

    What an engine asks at start is answered well, but for a `listing` of the test's own.
    """

    def __init__(
        self,
        answer: Callable,
        *,
        vllm=True,
        models=(MODEL,),
        key=None,
        listing=None,
        takes_priority=True,
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.key, self.takes_priority = answer, key, takes_priority
        owner = {"owned_by": "vllm", "max_model_len": 512} if vllm else {}
        data = [{"id": name, "object": "model", **owner} for name in models]
        self.listing = listing or (200, {}, {"object": "list", "data": data})
        self.asked, self.most, self.inside, self.lock = [], 0, 0, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        # Its end waits for the next look whether it is to end, by default every half a second.
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, *_):
        """A client that went away is none of ours."""

    def stop(self):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            self.reply(error(401, f"no: {self.headers['Authorization']}"))
        else:
            self.reply(self.server.listing)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("priority") and not self.server.takes_priority:
            return self.reply(error(400, "no priorities here"))
        if body["max_tokens"] == 1:
            return self.reply(completion(body))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.inside += 1
            self.server.most = max(self.server.most, self.server.inside)
        try:
            made = self.server.answer(body)
        finally:
            with self.server.lock:
                self.server.inside -= 1
        return self.reply(made)

    def reply(self, made):
        if not isinstance(made, tuple):  # as it is, and hang up
            self.wfile.write(made or b"")
            self.close_connection = True
            return
        status, headers, body = made
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def completion(body, *, n=None, **usage):
    choices = [
        {"index": index, "text": f" text {index}", "finish_reason": "stop", "token_ids": [5, 6, 7]}
        for index in range(body.get("n", 1) if n is None else n)
    ]
    used = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9, **usage}
    return 200, {}, {"id": "x", "object": "text_completion", "choices": choices, "usage": used}


@pytest.fixture
def serve():
    servers = []

    def make(answer=completion, **how):
        servers.append(Server(answer, **how))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_model_dir())


@pytest.fixture
def engine_of(run_config, tokenizer, monkeypatch):
    """An engine that asks these servers, with short times."""
    monkeypatch.setattr("selfalign_ray.engine.openai.load_tokenizer", lambda *_: tokenizer)

    def make(*servers, overrides=()):
        urls = ",".join(f"'{server.url}'" for server in servers)
        cfg = run_config(
            "engine=openai",
            f"engine.base_urls=[{urls}]",
            f"model.served_name={MODEL}",
            "engine.retry_seconds=0.01",
            "engine.request_attempts=4",
            "engine.request_seconds=10",
            *overrides,
        )
        return OpenAIEngine(cfg.model, cfg.engine)

    return make


def prompt(number=0, *, priority=0):
    return Prompt(
        row={},
        hop="h",
        text=f"number {number}",
        prefix="",
        sampling=SAMPLING,
        seed=11,
        priority=priority,
    )


def run(engine, *prompts):
    async def all_of_them():
        asked = (engine.generate(one) for one in prompts)
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)

    return asyncio.run(all_of_them())


@functools.cache
def tokens_of_13():
    return AutoTokenizer.from_pretrained(embedded_model_dir()).encode("number 13")


def is_13(body):
    return body["prompt"] == tokens_of_13()


def error(status, said="broken", **headers):
    return status, headers, {"error": {"message": said, "code": status}}


def first_then(*answers):
    """The answers in turn, then completions."""
    left = list(answers)

    def answer(body):
        return left.pop(0) if left else completion(body)

    return answer


def test_samples_come_back_with_their_ends_and_tokens(serve, engine_of):
    server = serve(lambda body: completion(body, prompt_tokens_details={"cached_tokens": 2}))
    engine = engine_of(server)
    (made,) = run(engine, prompt(priority=-2))
    count = len(engine._tokens.encode("number 0"))
    assert [(t.text, t.finish_reason, t.output_tokens) for t in made.texts] == [
        (" text 0", "stop", 3),
        (" text 1", "stop", 3),
    ]
    assert (made.prompt_tokens, made.cached_tokens) == (count, 2)
    assert engine.model == MODEL
    assert engine.stats() == {
        "running": 0,
        "waiting": 0,
        "prefix_cache_queries": count,
        "prefix_cache_hits": 2,
    }


def likelihoods(body, missing=()):
    if "prompt_logprobs" not in body:
        return completion(body)
    said = [{str(t): {"logprob": -0.5, "rank": 1}, "0": {"logprob": -9}} for t in body["prompt"]]
    for place in missing:
        said[place] = {"0": {"logprob": -9}}
    status, headers, answer = completion(body)
    answer["choices"][0]["prompt_logprobs"] = [None, *said[1:]]
    return status, headers, answer


def scoring(scored=" is a number", text="number 13"):
    none = dataclasses.replace(SAMPLING, n=1, max_tokens=2)
    return dataclasses.replace(prompt(), text=text, scored=scored, sampling=none)


def test_a_text_is_scored_by_the_likelihoods_of_its_own_tokens(serve, engine_of):
    server = serve(likelihoods)
    engine = engine_of(server)
    (made,) = run(engine, scoring())
    count = len(engine._tokens.encode(" is a number"))
    (text,) = made.texts
    assert (text.text, text.output_tokens) == (" is a number", count)
    assert text.logprob == pytest.approx(-0.5 * count)
    assert server.asked[-1]["prompt_logprobs"] == 0


def test_an_answer_without_a_likelihood_is_no_answer(serve, engine_of):
    (made,) = run(engine_of(serve(lambda body: likelihoods(body, missing=[-1]))), scoring())
    assert isinstance(made, ServerFailedError)
    assert "no likelihood" in str(made)
    (made,) = run(engine_of(serve()), scoring())
    assert isinstance(made, ServerFailedError)


def test_a_server_that_is_not_vllm_s_scores_nothing(serve, engine_of):
    (made,) = run(
        engine_of(serve(likelihoods, vllm=False), overrides=["model.max_model_len=300"]), scoring()
    )
    assert isinstance(made, PromptRefusedError)


def test_a_server_is_asked_what_the_hop_says_and_nothing_of_its_own(serve, engine_of):
    server = serve()
    engine = engine_of(server)
    run(engine, prompt(priority=-2))
    (body,) = server.asked
    assert body["prompt"] == engine._tokens.encode("number 0")
    assert (body["n"], body["temperature"], body["top_p"]) == (2, 0.8, 0.9)
    assert (body["max_tokens"], body["stop"], body["seed"]) == (8, ["END"], 11)
    assert body["priority"] == -2
    assert (body["top_k"], body["repetition_penalty"]) == (-1, 1.0)


def test_another_kind_of_server_is_asked_by_the_protocol_alone(serve, engine_of):
    def plain(body):
        status, headers, made = completion(body)
        for choice in made["choices"]:
            del choice["token_ids"]
        return status, headers, made

    server = serve(plain, vllm=False)
    engine = engine_of(server, overrides=["model.max_model_len=300"])
    (made,) = run(engine, prompt(priority=-2))
    assert set(server.asked[0]) == {
        "model",
        "prompt",
        "n",
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "seed",
    }
    count = len(engine._tokens.encode(" text 0"))
    assert [text.output_tokens for text in made.texts] == [count, count]
    (made,) = run(engine, dataclasses.replace(prompt(), text="a " * 400))
    assert isinstance(made, PromptTooLongError)


@pytest.mark.parametrize(
    "failure",
    [
        error(429),
        error(429, **{"Retry-After": "0.01"}),
        error(500),
        error(503),
        (200, {}, b"<html>hello</html>"),
        (200, {}, {"choices": []}),
        (200, {}, {"choices": None}),
        (200, {}, [1, 2]),
        completion({"n": 1}),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"cho",
        b"nothing of HTTP\r\n\r\n",
        None,
    ],
    ids=[
        "429", "429-after", "500", "503", "page", "empty", "null", "list", "too-few-samples",
        "half-an-answer", "no-http", "hangs-up",
    ],
)  # fmt: skip
def test_what_may_pass_is_tried_again(serve, engine_of, failure):
    server = serve(first_then(failure))
    (made,) = run(engine_of(server), prompt())
    assert len(made.texts) == 2
    assert len(server.asked) == 2


@pytest.mark.parametrize("failure", [error(500), error(429), (200, {}, b"garbage"), None])
def test_what_does_not_pass_costs_one_row_only_and_a_finite_number_of_attempts(
    serve, engine_of, failure
):
    server = serve(lambda body: failure if is_13(body) else completion(body))
    bad, good = run(engine_of(server), prompt(13), prompt(1))
    assert isinstance(bad, ServerFailedError)
    assert server.url in str(bad)
    assert len(good.texts) == 2
    assert len([body for body in server.asked if is_13(body)]) == 4


def test_silence_is_waited_for_as_long_as_the_setting_says(serve, engine_of):
    def sometimes(body):
        if is_13(body):
            time.sleep(1.5)
        return completion(body)

    engine = engine_of(
        serve(sometimes), overrides=["engine.request_seconds=0.3", "engine.request_attempts=2"]
    )
    bad, good = run(engine, prompt(13), prompt(1))
    assert isinstance(bad, ServerFailedError)
    assert "Timeout" in str(bad)
    assert len(good.texts) == 2


def test_retry_after_is_honoured(serve, engine_of):
    asked = []

    def answer(body):
        asked.append(time.monotonic())
        return completion(body) if len(asked) > 1 else error(429, **{"Retry-After": "1"})

    run(engine_of(serve(answer)), prompt())
    assert asked[1] - asked[0] >= 1.0


def test_both_forms_of_retry_after_are_read():
    assert retry_after("2.5") == 2.5
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0
    assert retry_after("soon") is None
    assert retry_after(None) is None


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_that_is_wrong_is_refused_and_not_tried_again(serve, engine_of, status):
    server = serve(lambda body: error(status, "too long"))
    (made,) = run(engine_of(server), prompt())
    assert isinstance(made, PromptRefusedError)
    assert "too long" in str(made)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "key"),
    [(401, "engine.api_key_env"), (403, "engine.api_key_env"), (404, "model.served_name")],
)
def test_a_setting_that_turns_wrong_midway_is_a_user_s_error(serve, engine_of, status, key):
    server = serve(lambda body: error(status, "gone"))
    (made,) = run(engine_of(server), prompt())
    assert isinstance(made, UserError)
    assert key in str(made)
    assert str(status) in str(made)
    assert len(server.asked) == 1


def test_a_dead_server_s_prompts_go_to_the_others(serve, engine_of):
    alive, dead = serve(), serve()
    engine = engine_of(alive, dead)
    dead.stop()
    made = run(engine, *(prompt(number) for number in range(40)))
    assert all(len(one.texts) == 2 for one in made)
    assert len(alive.asked) == 40


def test_a_server_that_is_back_is_asked_again(serve, engine_of):
    other = serve(lambda body: (time.sleep(0.02), completion(body))[1])
    back = serve(first_then(error(503), error(503)))
    run(engine_of(other, back, overrides=["engine.requests_per_url=1"]), *map(prompt, range(40)))
    assert len(back.asked) > 4


def test_prompts_are_shared_out_and_no_server_gets_more_at_once_than_it_may(serve, engine_of):
    def slow(body):
        time.sleep(0.02)
        return completion(body)

    servers = [serve(slow), serve(slow)]
    engine = engine_of(*servers, overrides=["engine.requests_per_url=3"])
    made = run(engine, *(prompt(number) for number in range(30)))
    assert all(len(one.texts) == 2 for one in made)
    assert [server.most for server in servers] == [3, 3]


def test_deeper_hops_go_first(serve, engine_of):
    server = serve(lambda body: (time.sleep(0.02), completion(body))[1])
    engine = engine_of(server, overrides=["engine.requests_per_url=1"])
    run(engine, *(prompt(number, priority=-(number % 3)) for number in range(9)))
    order = [-body["priority"] for body in server.asked]
    assert order[1:] == sorted(order[1:], reverse=True)


def test_servers_that_are_all_gone_end_the_engine(serve, engine_of):
    server = serve()
    engine = engine_of(server, overrides=["engine.hang_seconds=0.2", "engine.request_attempts=50"])
    server.stop()
    made = run(engine, *map(prompt, range(5)))
    assert {type(one) for one in made} == {EngineDiedError}
    assert "no server has answered" in str(made[0])


def test_closing_ends_what_waits(serve, engine_of):
    server = serve(lambda body: (time.sleep(0.3), completion(body))[1])
    engine = engine_of(server, overrides=["engine.requests_per_url=1"])

    async def close_midway():
        asked = [asyncio.create_task(engine.generate(prompt(n))) for n in range(3)]
        await asyncio.sleep(0.1)
        engine.close()
        return await asyncio.gather(*asked, return_exceptions=True)

    made = asyncio.run(close_midway())
    assert [type(one) for one in made[1:]] == [EngineDiedError] * 2


# What is found at start.


def check(run_config, url, *overrides):
    cfg = run_config(
        "engine=openai", f"engine.base_urls=['{url}']", f"model.served_name={MODEL}", *overrides
    )
    return check_servers(cfg.engine, cfg.model)


def test_an_address_where_nobody_answers_is_named(run_config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=rf"engine\.base_urls: no server answers at {url}"):
            check(run_config, url)


def test_a_model_that_is_not_served_is_named_with_those_that_are(run_config, serve):
    server = serve(models=("alpha", "beta"))
    with pytest.raises(UserError, match=r"model\.served_name: .* serves alpha, beta"):
        check(run_config, server.url)


def test_a_page_instead_of_a_list_is_told(run_config, serve):
    server = serve(listing=(200, {}, b"<html>welcome</html>"))
    with pytest.raises(UserError, match=r"engine\.base_urls: .* is no OpenAI-compatible server"):
        check(run_config, server.url)


def test_an_address_without_v1_is_told(run_config, serve):
    server = serve(listing=error(404))
    with pytest.raises(UserError, match=r"engine\.base_urls: .* ends in /v1"):
        check(run_config, server.url)


def test_a_key_is_asked_for_by_the_name_of_its_variable(run_config, serve, monkeypatch):
    server = serve(key=KEY)
    with pytest.raises(UserError, match=r"engine\.api_key_env: .* answers 401"):
        check(run_config, server.url)
    with pytest.raises(UserError, match=r"engine\.api_key_env: the variable SOME_KEY is not set"):
        check(run_config, server.url, "engine.api_key_env=SOME_KEY")
    monkeypatch.setenv("SOME_KEY", KEY)
    assert check(run_config, server.url, "engine.api_key_env=SOME_KEY")[0].is_vllm


def test_the_library_s_own_variable_is_not_sent_to_strangers(run_config, serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(key=KEY)
    with pytest.raises(UserError, match="answers 401") as caught:
        check(run_config, server.url)
    assert KEY not in str(caught.value)


def test_a_key_stands_in_no_error_log_or_pickle(serve, engine_of, run_config, monkeypatch, caplog):
    monkeypatch.setenv("SOME_KEY", KEY)
    caplog.set_level(logging.INFO)
    answers = [error(status, f"your key {KEY} is odd") for status in (503, 500, 429, 500)]
    server = serve(first_then(*answers), key=KEY)
    (made,) = run(engine_of(server, overrides=["engine.api_key_env=SOME_KEY"]), prompt())
    assert isinstance(made, ServerFailedError)
    monkeypatch.setenv("SOME_KEY", f"{KEY}-no-more")
    with pytest.raises(UserError) as caught:
        check(run_config, server.url, "engine.api_key_env=SOME_KEY")
    texts = [str(made), repr(made.__cause__), str(caught.value), caplog.text]
    cfg = run_config("engine=openai", "engine.api_key_env=SOME_KEY")
    texts += [repr(cfg), repr(pickle.dumps(cfg)), repr(pickle.dumps(made))]
    assert all(KEY not in text for text in texts)
    assert "***" in texts[0]
    assert "***" in texts[2]


def test_a_server_that_refuses_priorities_is_asked_without(serve, engine_of, caplog):
    server = serve(takes_priority=False)
    (made,) = run(engine_of(server), prompt(priority=-2))
    assert len(made.texts) == 2
    assert "priority" not in server.asked[0]
    assert "--scheduling-policy priority" in caplog.text


# vLLM's own server.


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory):
    """The address of `vllm serve` with the embedded model, which needs a key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = (
        f"--model {embedded_model_dir()} --served-model-name {MODEL} --host 127.0.0.1 "
        f"--port {port} --api-key {KEY} --max-model-len 512 --enforce-eager --dtype float32 "
        "--scheduling-policy priority --enable-prompt-tokens-details --block-size 32 "
        "--no-enable-chunked-prefill --max-num-batched-tokens 4096"
    )
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options.split()]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment["TORCHDYNAMO_DISABLE"] = "1"  # no compiler, as in our own engines on a CPU
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


@pytest.mark.slow
def test_vllm_s_server_gives_samples_seeds_and_cached_tokens(vllm_server, run_config, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    wanted = ["engine=openai", f"engine.base_urls=['{vllm_server}']", "engine.api_key_env=SOME_KEY"]
    nameless = run_config(*wanted)
    with pytest.raises(UserError, match=rf"model\.served_name: .* serves {MODEL}"):
        check_servers(nameless.engine, nameless.model)
    cfg = run_config(*wanted, f"model.served_name={MODEL}")
    engine = OpenAIEngine(cfg.model, cfg.engine)
    text = "def add(a, b):\n    return a + b\n\n" * 8 + "def"
    count = len(engine._tokens.encode(text))
    plain = dataclasses.replace(prompt(priority=-2), text=text)
    too_long = dataclasses.replace(plain, text=text * 20)
    none = dataclasses.replace(SAMPLING, n=1, max_tokens=1)
    likely, unlikely = (
        dataclasses.replace(plain, scored=scored, sampling=none)
        for scored in (" add(a, b):", " elephant zebra")
    )

    async def one_then_more():
        first = await engine.generate(plain)
        more = (plain, dataclasses.replace(plain, seed=12), too_long, likely, unlikely)
        asked = (engine.generate(one) for one in more)
        return first, *await asyncio.gather(*asked, return_exceptions=True)

    first, again, other, refused, one, none = asyncio.run(one_then_more())
    assert one.texts[0].text == " add(a, b):"
    assert one.texts[0].output_tokens == len(engine._tokens.encode(" add(a, b):"))
    assert -1 < one.texts[0].logprob < 0
    assert none.texts[0].logprob < -10
    assert [text.text for text in again.texts] == [text.text for text in first.texts]
    assert other.texts[0].text == first.texts[1].text, "sample i is drawn with seed + i"
    assert {text.finish_reason for text in first.texts} == {"length"}
    assert [text.output_tokens for text in first.texts] == [8, 8]
    assert first.prompt_tokens == count
    assert again.cached_tokens >= count - 32
    assert isinstance(refused, PromptTooLongError), "the length is the server's, 512"


@pytest.mark.slow
def test_vllm_s_server_refuses_a_wrong_key(vllm_server, run_config, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "another-key")
    overrides = ["engine.api_key_env=SOME_KEY"]
    with pytest.raises(UserError, match=r"engine\.api_key_env: .* answers 401"):
        check(run_config, vllm_server, *overrides)
