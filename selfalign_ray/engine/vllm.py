"""vLLM in the actor: its synchronous engine, stepped by a thread of ours (stepper.py).

One path serves both kinds of machine: with a core process of its own (a GPU) the step waits for
that process; in-process (two CPU cores) the step computes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfalign_ray.engine.base import (
    EngineDiedError,
    Generation,
    Prompt,
    PromptRefusedError,
    Text,
)
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.reaper import reap_after_death
from selfalign_ray.engine.stepper import Stepper
from selfalign_ray.engine.tokens import Tokens
from selfalign_ray.engine.vllm_mistakes import mistake
from selfalign_ray.engine.vllm_settings import engine_args
from selfalign_ray.engine.weights import name_of
from selfalign_ray.errors import UserError

log = logging.getLogger(__name__)


class VllmEngine:
    """One vLLM engine. `generate` may be called from any thread's event loop."""

    def __init__(
        self, model: ModelConfig, path: str, engine: EngineConfig, device: str, lora: str | None
    ) -> None:
        """Loads the model from `path`, a local folder or a hub id, and the adapter from `lora`.

        Raises:
            UserError: vLLM does not take the settings, or the model does not fit the memory.
        """
        self.model = name_of(model, engine)
        self._figures: dict[str, float] = {}
        if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
            reap_after_death()
        self._engine = _load(engine_args(model, path, engine, device, lora), self._record)
        self._length: int = self._engine.model_config.max_model_len
        self._tokens = Tokens(self._engine.get_tokenizer(), chat=model.chat)
        self._lora = _lora_request(lora)
        self._can_score = lora is None or device == "cuda"
        self._scored: dict[str, tuple[str, int]] = {}  # by request: the text, its first token
        self._cached: dict[str, int] = {}  # by request: what its first sample found in the cache
        self._stepper = Stepper(
            admit=self._admit,
            step=self._step,
            kill=_kill_core,
            hang_seconds=engine.hang_seconds,
            is_alive=self._has_core,
        )

    async def generate(self, prompt: Prompt) -> Generation:
        token_ids = self._tokens.of(prompt, self._length)
        return await self._stepper.generate(prompt, token_ids)

    def stats(self) -> dict[str, float]:
        return dict(self._figures)

    def close(self) -> None:
        self._stepper.close()
        self._engine.engine_core.shutdown()

    def _has_core(self) -> bool:
        """Whether vLLM's core is there; a step waits for ever for one that was killed."""
        resources = getattr(self._engine.engine_core, "resources", None)  # none in this process
        return resources is None or not resources.engine_dead

    def _step(self) -> Iterator[tuple[str, Generation | PromptRefusedError]]:
        for output in self._engine.step():
            if output.finished:
                yield output.request_id, self._outcome(output)

    def _outcome(self, output: Any) -> Generation | PromptRefusedError:
        scored = self._scored.pop(output.request_id, None)
        cached = self._cached.pop(output.request_id, output.num_cached_tokens or 0)
        reasons = {sample.finish_reason for sample in output.outputs}
        if "abort" in reasons:
            # Nobody here aborts: a core that is told to end gives back what it has not finished.
            raise EngineDiedError("vLLM's core was ended")
        if "error" in reasons:
            return PromptRefusedError("vLLM failed on it")
        return _scored(output, cached, *scored) if scored else _generation(output, cached)

    def _admit(self, request_id: str, prompt: Prompt, token_ids: list[int]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if prompt.scored is not None and not self._can_score:
            # Its adapters' code on a CPU fails on the likelihoods of a prompt, and dies of it.
            raise PromptRefusedError("vLLM scores no text with an adapter on a CPU")
        sampling = prompt.sampling
        try:
            params = SamplingParams(
                n=sampling.n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                stop=list(sampling.stop),
                seed=prompt.seed,
                output_kind=RequestOutputKind.FINAL_ONLY,
                prompt_logprobs=None if prompt.scored is None else 0,  # of no token but its own
            )
            tokens: Any = {"prompt_token_ids": token_ids}
            self._engine.add_request(
                request_id, tokens, params, lora_request=self._lora, priority=prompt.priority
            )
        except (ValueError, TypeError) as error:
            raise PromptRefusedError(str(error)) from error
        if prompt.scored is not None:
            self._scored[request_id] = prompt.scored, self._tokens.scored_from(prompt, token_ids)

    def _record(self, scheduler: Any, iteration: Any) -> None:
        """What vLLM says of each step; its tokens are the progress that the watchdog looks for."""
        if iteration is not None and (written := iteration.num_generation_tokens):
            self._stepper.progressed()
            before = self._figures.get("generated_tokens", 0)
            self._figures = self._figures | {"generated_tokens": before + written}
        for sample in iteration.finished_requests if iteration is not None else ():
            # The other samples of a prompt find all that the first one has just computed.
            least = self._cached.get(sample.request_id, sample.num_cached_tokens)
            self._cached[sample.request_id] = min(least, sample.num_cached_tokens)
        if scheduler is None:
            return
        was, prefix = self._figures, scheduler.prefix_cache_stats
        self._figures = was | {
            "running": scheduler.num_running_reqs,
            "waiting": scheduler.num_waiting_reqs,
            "kv_cache_usage": scheduler.kv_cache_usage,
            "prefix_cache_queries": was.get("prefix_cache_queries", 0) + prefix.queries,
            "prefix_cache_hits": was.get("prefix_cache_hits", 0) + prefix.hits,
        }


def check_load_format(name: str) -> None:
    """Finds out whether what reads a format is there; as `check_quantization`.

    Raises:
        UserError: it is not.
    """
    if name != "runai_streamer" or importlib.util.find_spec("vllm") is None:
        return
    if importlib.util.find_spec("runai_model_streamer") is None:
        raise UserError(
            "model.load_format: runai_streamer needs `pip install 'vllm[runai]'` on every node; "
            "auto copies the weights once a node"
        )


def check_quantization(name: str) -> None:
    """Finds out whether this vLLM knows a method of quantisation; some leave, some come.

    Where a driver has no vLLM, its engines say so as they load.

    Raises:
        UserError: it does not, with those that it knows.
    """
    if importlib.util.find_spec("vllm") is None:
        return
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    if name not in QUANTIZATION_METHODS:
        raise UserError(
            f"model.quantization: this vLLM has no {name!r}; it has "
            f"{', '.join(sorted(QUANTIZATION_METHODS))}"
        )


def _load(args: dict[str, Any], record: Any) -> Any:
    from vllm import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Record(StatLoggerBase):
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def log_engine_initialized(self) -> None: ...

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
            record(scheduler_stats, iteration_stats)

    with _errors_of_the_core() as errors:
        try:
            # v1's LLMEngine steps in one thread; everything else reaches it through the stepper.
            return LLMEngine.from_engine_args(
                EngineArgs(**args),
                usage_context=UsageContext.LLM_CLASS,  # defaults for much work at once
                stat_loggers=[Record],
            )
        except Exception as error:
            said = f"{error}\n{errors.read_text()}"
            _kill_core()
            if (told := mistake(said)) is not None:
                raise UserError(told) from error
            raise


@contextlib.contextmanager
def _errors_of_the_core() -> Iterator[Path]:
    """A file with the errors that vLLM's own processes log while they start.

    The exception that reaches this process says no more than that one of them failed.
    """
    with tempfile.TemporaryDirectory(prefix="selfalign-vllm-") as folder:
        errors, settings = Path(folder, "errors.log"), Path(folder, "logging.json")
        errors.touch()
        file = {"class": "logging.FileHandler", "filename": str(errors), "level": "ERROR"}
        err = {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}
        vllm = {"handlers": ["err", "file"], "level": "WARNING", "propagate": True}
        handlers = {"err": err, "file": file}
        config = {"version": 1, "disable_existing_loggers": False, "handlers": handlers}
        settings.write_text(json.dumps({**config, "loggers": {"vllm": vllm}}))
        ours = {"VLLM_CONFIGURE_LOGGING": "1", "VLLM_LOGGING_CONFIG_PATH": str(settings)}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            yield errors
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def _kill_core() -> None:
    """Ends vLLM's own processes, which would keep a GPU's memory; those under them follow."""
    for process in multiprocessing.active_children():
        process.kill()


def _lora_request(lora: str | None) -> Any:
    if lora is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, lora)


def _generation(output: Any, cached: int) -> Generation:
    samples = sorted(output.outputs, key=lambda sample: sample.index)
    return Generation(
        texts=[
            Text(
                text=sample.text,
                finish_reason=sample.finish_reason,
                output_tokens=len(sample.token_ids),
            )
            for sample in samples
        ],
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=cached,
    )


def _scored(output: Any, cached: int, text: str, first: int) -> Generation:
    token_ids = output.prompt_token_ids
    places = range(first, len(token_ids))
    logprob = sum(output.prompt_logprobs[place][token_ids[place]].logprob for place in places)
    scored = Text(text=text, finish_reason="stop", output_tokens=len(places), logprob=logprob)
    return Generation(
        texts=[scored],
        prompt_tokens=len(token_ids),
        cached_tokens=cached,
    )
