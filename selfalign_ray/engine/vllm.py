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

from selfalign_ray.engine.base import Generation, Prompt, PromptRefusedError, Text
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.reaper import reap_after_death
from selfalign_ray.engine.stepper import Stepper
from selfalign_ray.engine.tokens import Tokens
from selfalign_ray.engine.vllm_mistakes import mistake
from selfalign_ray.engine.vllm_settings import engine_args
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
        self.model = model.id
        self._figures: dict[str, float] = {}
        if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
            reap_after_death()
        self._engine = _load(engine_args(model, path, engine, device, lora), self._record)
        self._length: int = self._engine.model_config.max_model_len
        self._tokens = Tokens(self._engine.get_tokenizer(), chat=model.chat)
        self._lora = _lora_request(lora)
        self._can_score = lora is None or device == "cuda"
        self._scored: dict[str, tuple[str, int]] = {}  # by request: the text, its first token
        self._stepper = Stepper(
            admit=self._admit, step=self._step, kill=_kill_core, hang_seconds=engine.hang_seconds
        )

    async def generate(self, prompt: Prompt) -> Generation:
        token_ids = self._tokens.of(prompt, self._length)
        return await self._stepper.generate(prompt, token_ids)

    def stats(self) -> dict[str, float]:
        return dict(self._figures)

    def close(self) -> None:
        self._stepper.close()
        self._engine.engine_core.shutdown()

    def _step(self) -> Iterator[tuple[str, Generation]]:
        for output in self._engine.step():
            if output.finished:
                scored = self._scored.pop(output.request_id, None)
                yield output.request_id, _scored(output, *scored) if scored else _generation(output)

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
            return LLMEngine.from_engine_args(EngineArgs(**args), stat_loggers=[Record])
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


def _generation(output: Any) -> Generation:
    samples = sorted(output.outputs, key=lambda sample: sample.index)
    return Generation(
        texts=[
            Text(
                text=sample.text,
                finish_reason=sample.finish_reason or "error",
                output_tokens=len(sample.token_ids),
            )
            for sample in samples
        ],
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
    )


def _scored(output: Any, text: str, first: int) -> Generation:
    token_ids = output.prompt_token_ids
    places = range(first, len(token_ids))
    logprob = sum(output.prompt_logprobs[place][token_ids[place]].logprob for place in places)
    scored = Text(text=text, finish_reason="stop", output_tokens=len(places), logprob=logprob)
    return Generation(
        texts=[scored],
        prompt_tokens=len(token_ids),
        cached_tokens=output.num_cached_tokens or 0,
    )
