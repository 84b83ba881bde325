"""transformers' generate in the actor: for models that vLLM does not know, and 8-bit weights.

Batches are static: one takes prompts of the same sampling, the deepest hop first, and ends with its
longest sample. Nothing of a prompt is cached between batches, so this is the slow kind of engine.

Sample i of a prompt has a generator of its own, seeded with seed + i, whatever else is in its
batch. What cannot be reproduced bit for bit are the model's numbers: padding and the size of a
batch change their last bits, and so, now and then, a token and all that follow it. A GPU and a CPU
draw differently.
"""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import GenerationConfig

from selfalign_ray.engine.base import Generation, Prompt, PromptRefusedError, Sampling, Text
from selfalign_ray.engine.batch_memory import BatchMemory, is_out_of_memory
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.draw import processors
from selfalign_ray.engine.stepper import Stepper
from selfalign_ray.engine.tokens import Tokens, load_tokenizer
from selfalign_ray.engine.transformers_load import end_ids, length_of, load_model
from selfalign_ray.engine.weights import name_of
from selfalign_ray.errors import first_line

log = logging.getLogger(__name__)

_CONTEXT = 6  # tokens of the prompt's end that a text is decoded with


@dataclass(slots=True)
class _Asked:
    """A prompt on its way, and its samples so far."""

    request_id: str
    prompt: Prompt
    token_ids: list[int]
    texts: dict[int, Text] = field(default_factory=dict)  # by sample index


class TransformersEngine:
    """One model on one device. `generate` may be called from any thread's event loop."""

    def __init__(self, model: ModelConfig, path: str, engine: EngineConfig, device: str) -> None:
        """Loads the model from `path`, a local folder or a hub id.

        Raises:
            UserError: it is not there, does not fit the memory, or cannot be quantised so here.
        """
        if device == "cpu" and engine.cpu_threads:
            torch.set_num_threads(engine.cpu_threads)
        self.model = name_of(model, engine)
        self._tokens = Tokens(load_tokenizer(path, model), chat=model.chat)
        self._model = load_model(model, path, device)
        self._ends = end_ids(self._model.generation_config, self._tokens.tokenizer)
        # Else what the model's makers advise, a penalty on repetition say, would slip in.
        self._model.generation_config = GenerationConfig()
        config = self._model.config.get_text_config()
        self._length = length_of(config, model)
        self._memory = BatchMemory(config, self._model.dtype.itemsize, device)
        self._most = engine.max_num_seqs or 1
        self._waiting: list[tuple[_Asked, int]] = []  # samples to draw: prompt and index
        self._running = 0
        self._stepper = Stepper(
            admit=self._admit, step=self._step, kill=lambda: None, hang_seconds=engine.hang_seconds
        )

    async def generate(self, prompt: Prompt) -> Generation:
        token_ids = self._tokens.of(prompt, self._length)
        return await self._stepper.generate(prompt, token_ids)

    def stats(self) -> dict[str, float]:
        return {"running": self._running, "waiting": len(self._waiting)}

    def close(self) -> None:
        self._stepper.close()

    def _admit(self, request_id: str, prompt: Prompt, token_ids: list[int]) -> None:
        if not token_ids:
            raise PromptRefusedError("the prompt is empty")
        asked = _Asked(request_id, prompt, token_ids)
        self._waiting += [(asked, index) for index in range(prompt.sampling.n)]

    def _step(self) -> list[tuple[str, Generation | PromptRefusedError]]:
        """Draws a batch of samples; what does not fit the memory is tried again in halves."""
        batch = self._take()
        self._running = len(batch)
        try:
            is_scored = batch[0][0].prompt.scored is not None
            texts = self._score(batch) if is_scored else self._draw(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            texts, reason = None, first_line(error)
        self._running = 0
        if texts is None:  # not in the except: the error holds the tensors that are to be freed
            return self._give_back(batch, reason)
        self._memory.grow()
        done: list[tuple[str, Generation | PromptRefusedError]] = []
        for (asked, index), text in zip(batch, texts, strict=True):
            asked.texts[index] = text
            if len(asked.texts) == asked.prompt.sampling.n:
                done.append((asked.request_id, _generation(asked)))
        return done

    def _take(self) -> list[tuple[_Asked, int]]:
        """The next batch, out of what waits: of the deepest hop, and of like length together."""
        first = min(self._waiting, key=lambda sample: sample[0].prompt.priority)[0].prompt
        alike = [
            sample
            for sample in self._waiting
            if sample[0].prompt.priority == first.priority and _same_draw(sample[0].prompt, first)
        ]
        alike.sort(key=lambda sample: len(sample[0].token_ids))  # stable: n stay together
        count, most, room = 1, min(len(alike), self._most), self._memory.room()
        while count < most and (self._memory.bytes(count + 1, _tokens_of(alike[count][0])) <= room):
            count += 1
        batch = alike[:count]
        taken = {id(sample) for sample in batch}
        self._waiting = [sample for sample in self._waiting if id(sample) not in taken]
        return batch

    def _give_back(
        self, batch: list[tuple[_Asked, int]], reason: str
    ) -> list[tuple[str, Generation | PromptRefusedError]]:
        """After a lack of memory: a smaller batch next; a lone sample that lacks it is refused."""
        gc.collect()
        torch.cuda.empty_cache()
        if len(batch) > 1:
            self._memory.shrink(len(batch), max(_tokens_of(asked) for asked, _ in batch))
            log.warning("%d samples do not fit the memory; trying fewer", len(batch))
            self._waiting += batch
            return []
        asked = batch[0][0]
        self._waiting = [sample for sample in self._waiting if sample[0] is not asked]
        return [(asked.request_id, PromptRefusedError(f"does not fit the memory: {reason}"))]

    @torch.inference_mode()
    def _draw(self, batch: list[tuple[_Asked, int]]) -> list[Text]:
        sampling = batch[0][0].prompt.sampling
        prompts = [asked.token_ids for asked, _ in batch]
        ids, mask = self._padded(prompts)
        seeds = [asked.prompt.seed + index for asked, index in batch]
        drawn = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=GenerationConfig(
                max_new_tokens=sampling.max_tokens,
                do_sample=False,  # the draw is made by _Draw, sample by sample
                eos_token_id=self._ends,
                pad_token_id=self._ends[0],
                stop_strings=list(sampling.stop) or None,
            ),
            logits_processor=processors(sampling, seeds, self._stepper.progressed),
            tokenizer=self._tokens.tokenizer,
        )
        return [
            _text(self._tokens.tokenizer, prompt, row, sampling, self._ends)
            for prompt, row in zip(prompts, drawn[:, ids.shape[1] :].tolist(), strict=True)
        ]

    @torch.inference_mode()
    def _score(self, batch: list[tuple[_Asked, int]]) -> list[Text]:
        """The scored text of each prompt, with its likelihood: one pass, nothing drawn."""
        prompts = [asked.token_ids for asked, _ in batch]
        firsts = [self._tokens.scored_from(asked.prompt, asked.token_ids) for asked, _ in batch]
        counts = [len(ids) - first for ids, first in zip(prompts, firsts, strict=True)]
        ids, mask = self._padded(prompts)
        logits = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp_min(0),
            logits_to_keep=max(counts) + 1,
            use_cache=False,
        ).logits
        self._stepper.progressed()
        texts = []
        for (asked, _), row, count in zip(batch, logits, counts, strict=True):
            of_tokens = row[-count - 1 : -1].float().log_softmax(-1)
            tokens = torch.tensor(
                asked.token_ids[len(asked.token_ids) - count :], device=row.device
            )
            logprob = float(of_tokens.gather(1, tokens[:, None]).sum())
            text = asked.prompt.scored or ""
            texts.append(
                Text(text=text, finish_reason="stop", output_tokens=count, logprob=logprob)
            )
        return texts

    def _padded(self, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts side by side, their ends aligned, and the mask that hides what fills them up."""
        width, pad = max(map(len, prompts)), self._ends[0]
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        return ids.to(self._model.device), mask.to(self._model.device)


def _text(
    tokenizer: Any, prompt: list[int], drawn: list[int], sampling: Sampling, ends: list[int]
) -> Text:
    """A sample as a person reads it, cut at its end or at the first stop string."""
    stopped = next((at for at, token in enumerate(drawn) if token in ends), None)
    ids = drawn[:stopped]
    # Some tokenizers drop the space before the first word; it is not the first after a prompt.
    before = prompt[-_CONTEXT:]
    start = tokenizer.decode(before, skip_special_tokens=True)
    text = tokenizer.decode([*before, *ids], skip_special_tokens=True).removeprefix(start)
    cuts = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
    finished = stopped is not None or bool(cuts)
    return Text(
        text=text[: min(cuts)] if cuts else text,
        finish_reason="stop" if finished else "length",
        output_tokens=len(ids) + int(stopped is not None and not cuts),
    )


def _generation(asked: _Asked) -> Generation:
    return Generation(
        texts=[asked.texts[index] for index in range(asked.prompt.sampling.n)],
        prompt_tokens=len(asked.token_ids),
        cached_tokens=0,
    )


def _tokens_of(asked: _Asked) -> int:
    return len(asked.token_ids) + asked.prompt.sampling.max_tokens


def _same_draw(one: Prompt, other: Prompt) -> bool:
    if (one.scored is None) is not (other.scored is None):
        return False
    return replace(one.sampling, n=1) == replace(other.sampling, n=1)
