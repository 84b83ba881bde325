"""Settings of a recipe: its hops as data; conf/recipe/*.yaml gives every value and every word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.settings import setting

# What a hop may add to its row, in the order of the pipeline.
HOP_NAMES = ("concepts", "instruction", "responses")


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
    examples: str  # glob of the names of the examples to draw from; a ! before it: of all others
    sampling: SamplingConfig


@dataclass(kw_only=True)
class RecipeConfig:
    """The hops, in the order that they run."""

    examples: str | None  # folder of few-shot examples; null: the project's own
    kinds: list[str]  # what an instruction may ask for; a row's is drawn by its id
    difficulties: list[str]  # likewise
    tests_heading: str  # the line, in a response, below which its tests stand
    max_instruction_words: int = setting(ge=1)
    hops: dict[str, HopConfig]

    def problems(self) -> Iterator[tuple[str, str]]:
        if tuple(self.hops) != HOP_NAMES:
            yield "hops", f"must be {', '.join(HOP_NAMES)}, in this order; got {list(self.hops)}"
        for name, hop in self.hops.items():
            if name != "responses" and hop.sampling.n != 1:
                yield f"hops.{name}.sampling.n", f"must be 1; got {hop.sampling.n}"
        for field in ("kinds", "difficulties"):
            if not getattr(self, field):
                yield field, "must name at least one"
