"""All hops of a row as one coroutine: prompt, generate, parse, and on to the next.

Many rows run at once on one engine; each is at a hop of its own, so no barrier drains the batch.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

from selfalign_ray.engine.base import (
    Engine,
    EngineDiedError,
    EngineKilledError,
    Generation,
    Prompt,
    PromptRefusedError,
    PromptTooLongError,
    Sampling,
)
from selfalign_ray.engine.standin import STANDIN
from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import (
    HOP_NAMES,
    AgainConfig,
    HopConfig,
    RecipeConfig,
    SamplingConfig,
)
from selfalign_ray.hops.parse import (
    parse_concepts,
    parse_idea,
    parse_instruction,
    parse_response,
    parse_tests,
)
from selfalign_ray.hops.prompt import HopPrompt
from selfalign_ray.hops.shots import Example, ShotSets
from selfalign_ray.ids import keyed_int, keyed_random
from selfalign_ray.watch.tally import count

log = logging.getLogger(__name__)
Row = dict[str, Any]

# Drop reasons that a further round of responses may lift.
WITHOUT_PASS = ("no_executable_sample", "no_passing_sample")
_REFUSALS = {  # the first that fits
    PromptTooLongError: "prompt_too_long",
    EngineKilledError: "engine_killed",
    PromptRefusedError: "prompt_refused",
}
_COUNTED = ("prompt_tokens", "cached_tokens", "output_tokens", "seconds")  # of a hop
_SEED_BITS = 48  # of a sampling seed; below every engine's 63, with room for + sample_index


class RowHops:
    """Takes rows through some of the recipe's hops, one after the other."""

    def __init__(
        self,
        recipe: RecipeConfig,
        names: Sequence[str],
        *,
        examples: Sequence[Example],
        engine: Engine,
        run_seed: int,
    ) -> None:
        """Prepares prompts and shot sets.

        Args:
            recipe: the section `recipe`.
            names: which of its hops to run; they run in the order of HOP_NAMES.
            examples: the few-shot pool.
            engine: what turns prompts into texts.
            run_seed: with `seed_id`, keys shots, draws and sampling seeds.

        Raises:
            UserError: a template is wrong, or the pool is too small.
        """
        self._recipe, self._engine, self._run_seed = recipe, engine, run_seed
        self._shown = {_words(example.instruction) for example in examples}
        self._hops = [
            HopShots(name, recipe.hops[name], examples=examples, run_seed=run_seed)
            for name in sorted(names, key=HOP_NAMES.index)
        ]

    async def run(self, row: Row, sampling: Sampling | None = None, round_number: int = 1) -> Row:
        """The row after its last hop, or after the one that set its drop_reason.

        Drop reasons: prompt_too_long; with `error`, prompt_refused, engine_killed and hop_failed;
        and per hop concepts_unfinished, no_concepts, instruction_unfinished, no_instruction,
        instruction_too_long, instruction_of_shot (an example's own), tests_unfinished,
        no_independent_tests. Responses are never a reason: execution judges them.

        Raises:
            EngineDiedError: no engine is left; the row is as it was.
            UserError: no engine can go on as it is set.
        """
        # What the stand-in had a hand in can never pass for a model's.
        model = STANDIN if row.get("model") == STANDIN else self._engine.model
        row = {**row, "hops": list(row.get("hops") or []), "model": model}
        for hop in self._hops:
            if row["drop_reason"] is not None:
                break
            try:
                row = await self._step(hop, row, sampling or hop.sampling, round_number)
            except (EngineDiedError, UserError):
                raise
            except PromptRefusedError as error:
                reason = next(why for kind, why in _REFUSALS.items() if isinstance(error, kind))
                row = {**row, "drop_reason": reason, "error": f"{hop.name}: {error}"}
            except Exception as error:
                # One row's failure is one row's: kept with its error, and the run goes on.
                log.exception("row %s: hop %s failed", row["row_id"], hop.name)
                text = f"{hop.name}: {type(error).__name__}: {error}"
                row = {**row, "drop_reason": "hop_failed", "error": text}
        return row

    async def again(self, row: Row, again: AgainConfig, round_number: int) -> Row:
        """A row without a passing sample with more samples; any other as it is.

        Args:
            row: that the responses' execution has judged.
            again: how many, and how varied.
            round_number: from 2; with the rest of the key, it seeds the samples.

        Raises:
            EngineDiedError: no engine is left; the row is as it was.
        """
        if row["drop_reason"] not in WITHOUT_PASS:
            return row
        (hop,) = self._hops
        more = dataclasses.replace(hop.sampling, n=again.n, temperature=again.temperature)
        had = row["samples"] or []
        tried = await self.run({**row, "drop_reason": None}, more, round_number)
        if tried["drop_reason"] is not None:  # the engine would not: what it had before counts
            return {**row, "error": tried["error"]}
        for index, sample in enumerate(tried["samples"], start=len(had)):
            sample["sample_index"] = index
        return {**tried, "samples": [*had, *tried["samples"]]}

    async def _step(self, hop: HopShots, row: Row, sampling: Sampling, round_number: int) -> Row:
        if hop.name == "instruction":
            row = {**row, **self._draws(row["seed_id"])}
        view = view_of(row)
        key = [hop.name, row["seed_id"], *([str(round_number)] if round_number > 1 else [])]
        seed = keyed_int(_SEED_BITS, self._run_seed, "sampling", *key)
        shot_set, shots = hop.shot_sets.of(row["seed_id"])
        asked, began = time.time(), time.monotonic()
        made, prefix, shown = await self._ask(hop, view, shots, sampling, seed)
        texts = [prefix + sample.text for sample in made.texts]
        cost: Row = {
            "hop": hop.name,
            "text": texts[0] if hop.name != "responses" else None,
            "finish_reason": made.texts[0].finish_reason if hop.name != "responses" else None,
            "shot_set": shot_set,
            "shots": shown,
            "model": self._engine.model,
            "prompt_tokens": made.prompt_tokens,
            "cached_tokens": made.cached_tokens,
            "output_tokens": sum(sample.output_tokens for sample in made.texts),
            "began": asked,
            "seconds": time.monotonic() - began,
        }
        parsed = self._parse(hop.name, row, made, texts, seed)
        row = {**row, "hops": [*row["hops"], cost], **parsed}
        went_on = row["drop_reason"] is None
        amounts = {name: cost[name] for name in _COUNTED}
        count(hop.name, prompts=1, kept=int(went_on), dropped=int(not went_on), **amounts)
        return row

    async def _ask(
        self, hop: HopShots, view: Row, shots: list[Example], sampling: Sampling, seed: int
    ) -> tuple[Generation, str, int]:
        """What the engine makes of the prompt, its forced start, and how many shots it showed.

        The last shots give way first to a prompt that is too long, so that what is left is still
        a shared prefix.
        """
        for shown in range(len(shots), -1, -1):
            text, prefix = hop.prompt.prompt(view, shots[:shown])
            prompt = Prompt(
                row=view,
                hop=hop.name,
                text=text,
                prefix=prefix,
                sampling=sampling,
                seed=seed,
                priority=-HOP_NAMES.index(hop.name),
            )
            try:
                return await self._engine.generate(prompt), prefix, shown
            except PromptTooLongError:
                if not shown:
                    raise
        raise AssertionError("the loop returns or raises")

    def _draws(self, seed_id: str) -> dict[str, str]:
        """What a row's instruction has to be; by its id, so that a rerun asks for the same."""
        rng = keyed_random(self._run_seed, "instruction", seed_id)
        return {
            "kind": rng.choice(self._recipe.kinds),
            "difficulty": rng.choice(self._recipe.difficulties),
        }

    def _parse(self, hop: str, row: Row, made: Generation, texts: list[str], seed: int) -> Row:
        if hop == "responses":
            return {"samples": self._samples(row, made, texts, seed)}
        if made.texts[0].finish_reason != "stop":
            return {"drop_reason": f"{hop}_unfinished"}
        if hop == "concepts":
            parse = parse_idea if self._recipe.concepts_form == "prose" else parse_concepts
            concepts = parse(texts[0]) or None
            return {"concepts": concepts, "drop_reason": None if concepts else "no_concepts"}
        if hop == "tests":
            tests = parse_tests(texts[0])
            reason = None if tests else "no_independent_tests"
            return {"independent_tests": tests, "drop_reason": reason}
        instruction, reason = parse_instruction(texts[0], self._recipe.max_instruction_words)
        if instruction is not None and _words(instruction) in self._shown:
            reason = "instruction_of_shot"
        return {"instruction": instruction, "drop_reason": reason}

    def _samples(self, row: Row, made: Generation, texts: list[str], seed: int) -> list[Row]:
        samples = []
        for index, (drawn, text) in enumerate(zip(made.texts, texts, strict=True)):
            parsed = parse_response(text, self._recipe.tests_heading, row.get("independent_tests"))
            finished = drawn.finish_reason == "stop"
            samples.append(
                {
                    "sample_index": index,
                    "sampling_seed": seed + index,
                    "text": text,
                    "finish_reason": drawn.finish_reason,
                    "output_tokens": drawn.output_tokens,
                    "code": parsed.code,
                    "tests": parsed.tests,
                    "drop_reason": parsed.drop_reason if finished else "unfinished",
                }
            )
        return samples


class HopShots:
    """What one hop needs for any row: templates, shots, sampling."""

    def __init__(
        self, name: str, hop: HopConfig, *, examples: Sequence[Example], run_seed: int
    ) -> None:
        self.name = name
        self.prompt = HopPrompt(name, hop, examples)
        self.sampling = sampling_of(hop.sampling)
        self.shot_sets = ShotSets(
            examples,
            hop=name,
            names=hop.examples,
            shots=hop.shots,
            sets=hop.shot_sets,
            run_seed=run_seed,
        )


def sampling_of(config: SamplingConfig) -> Sampling:
    """The engine's form of a hop's sampling."""
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        n=config.n,
        max_tokens=config.max_tokens,
        stop=tuple(config.stop),
    )


def view_of(row: Row) -> Row:
    """What templates see of a row: the names that examples use too."""
    names = ("concepts", "kind", "difficulty", "instruction")
    return {"snippet": row["seed"], **{name: row.get(name) for name in names}}


def _words(instruction: str) -> str:
    return " ".join(instruction.casefold().split())
