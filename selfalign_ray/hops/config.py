"""Settings of the groups `recipe`, hops as data, and `generation`, how engines serve them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.settings import setting

# The hops that there are, in the order of the pipeline; a recipe may leave out `tests`, which
# comes before the responses so that their tests' author never sees one.
HOP_NAMES = ("concepts", "instruction", "tests", "responses")
_OPTIONAL = {"tests"}
# What asks engines besides: how likely a text is.
JUDGES = ("docstring_judge", "judge")


def in_first_round(stage: str) -> str:
    """What a stage is called in the first round: `execution`, also of `execution_2`."""
    return re.sub(r"_\d+$", "", stage)


@dataclass(kw_only=True)
class SamplingConfig:
    """How the engine draws text for one prompt."""

    temperature: float = setting(ge=0)  # 0 is greedy
    top_p: float = setting(gt=0, le=1)  # share of the probability that is drawn from
    n: int = setting(ge=1)  # samples per prompt
    max_tokens: int = setting(ge=1)  # of text, per sample
    stop: list[str]  # strings that end a sample and are cut off

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.temperature == 0 and self.n > 1:
            yield "n", "must be 1 where temperature is 0: greedy samples are all the same"
        if "" in self.stop:
            yield "stop", "must not hold an empty string: it would end every sample at once"


@dataclass(kw_only=True)
class HopConfig:
    """One hop: few-shot prompt, engine call, parse.

    The texts are Jinja templates. A prompt is `preamble`, for each shot `header` + `input` +
    `output`, and for the row itself `header` + `input` + `prefix`. They see the fields of an
    example or of the row (shots.py, row.py) and `index`, the number of the part from 1.
    """

    preamble: str  # what the prompt begins with
    header: str
    input: str
    output: str
    prefix: str  # a forced start of the output; the parser sees it as part of the text
    shots: int = setting(ge=0)  # few-shot examples in a prompt
    shot_sets: int | None = setting(ge=1)  # K fixed draws of them; null: a draw per row
    examples: str  # globs of the examples' names, with commas; a ! first: of all the others
    sampling: SamplingConfig


@dataclass(kw_only=True)
class RecipeConfig:
    """The hops; they run in the order of HOP_NAMES."""

    examples: str | None  # folder of few-shot examples; null: the project's own
    kinds: list[str]  # what an instruction may ask for; a row's is drawn by its id
    difficulties: list[str]  # likewise
    concepts_form: str = setting(choices=["list", "prose"])  # a comma list, or one paragraph
    tests_heading: str | None  # the line of a response below which its tests stand; null: none
    max_instruction_words: int = setting(ge=1)
    hops: dict[str, HopConfig]

    def problems(self) -> Iterator[tuple[str, str]]:
        if set(self.hops) | _OPTIONAL != set(HOP_NAMES):
            yield (
                "hops",
                f"must be {', '.join(HOP_NAMES)}, of which only {', '.join(_OPTIONAL)} can be left "
                f"out; got {', '.join(self.hops)}",
            )
        if (self.tests_heading is None) is not ("tests" in self.hops):
            yield (
                "tests_heading",
                "must name where a response's tests begin, or be null where the hop tests writes "
                f"them; got {self.tests_heading!r}",
            )
        for name, hop in self.hops.items():
            if name != "responses" and hop.sampling.n != 1:
                yield f"hops.{name}.sampling.n", f"must be 1; got {hop.sampling.n}"
        for field in ("kinds", "difficulties"):
            if not getattr(self, field):
                yield field, "must name at least one"


@dataclass(kw_only=True)
class PoolConfig:
    """Engines that serve some hops or judges alone."""

    hops: list[str]  # one, or several that follow each other; judge and docstring_judge as well
    model: ModelConfig
    engine: EngineConfig


@dataclass(kw_only=True)
class AgainConfig:
    """What a further round draws for an instruction without a passing sample."""

    n: int = setting(ge=1)  # more samples, each round
    temperature: float = setting(gt=0)


@dataclass(kw_only=True)
class GenerationConfig:
    """How often and by which engines the recipe's hops are run."""

    pools: dict[str, PoolConfig]  # by name; a hop or judge in none is served by model and engine
    rounds: int = setting(ge=1)  # of responses and their execution; 1: no second try
    again: AgainConfig

    def problems(self) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for name, pool in self.pools.items():
            places = [HOP_NAMES.index(hop) for hop in pool.hops if hop in HOP_NAMES]
            if not pool.hops or not set(pool.hops) <= {*HOP_NAMES, *JUDGES}:
                yield f"pools.{name}.hops", f"must name some of {', '.join(HOP_NAMES + JUDGES)}"
            elif places and places != list(range(places[0], places[0] + len(places))):
                yield f"pools.{name}.hops", "must follow each other in the order of the recipe"
            if again := seen & set(pool.hops):
                yield f"pools.{name}.hops", f"another pool has {', '.join(sorted(again))}"
            seen |= set(pool.hops)
