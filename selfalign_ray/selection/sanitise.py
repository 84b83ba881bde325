"""Sanitise: from a sample's text to the response that a model may learn from."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from selfalign_ray import schemas
from selfalign_ray.blocks import by_block, with_columns
from selfalign_ray.config import RunConfig
from selfalign_ray.hops.config import RecipeConfig
from selfalign_ray.ids import keyed_random
from selfalign_ray.selection.config import SanitiseConfig
from selfalign_ray.selection.texts import (
    Block,
    blocks_of,
    comments_of,
    has_stub,
    remove_comments,
    unix_lines,
    without_tests,
)
from selfalign_ray.validation.gates import GATED, ungated

Row = dict[str, Any]
# In the order in which they are asked.
_REASONS = (
    "no_tests",
    "two_test_sections",
    "bad_fence",
    "parts_out_of_order",
    "incomplete",
    "control_characters",
    "response_too_long",
)
# Control characters but tab and newline, what marks undecodable bytes, and the marks that make
# code read otherwise than it runs (https://trojansource.codes).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffd\u202a-\u202e\u2066-\u2069]")
_TEMPLATE_TAG = re.compile(r"\{[{%#].*")


def sanitise(ds: Dataset, cfg: RunConfig) -> Dataset:
    """Adds `sanitised`, the final texts of each sample that passed and that no gate refused.

    Whether the tests are shown in the instruction is drawn by `seed_id`: all samples of a row
    show theirs, or none does.

    Args:
        ds: `schemas.CHECKED` rows; the columns of gates may be missing.
        cfg: the sections `selection.sanitise` and `recipe`.

    Returns:
        `schemas.SELECTED` rows without what `choose` adds, as many as came in, in any order.
        Drop reasons by the instruction: instruction_too_long, instruction_fence,
        instruction_leak, control_characters. A row whose samples were all refused has the reason
        of most of them: no_tests, two_test_sections, bad_fence, parts_out_of_order,
        incomplete, control_characters or response_too_long.
    """
    run = partial(
        add_sanitised,
        rules=rules_of(cfg.selection.sanitise, cfg.recipe),
        cfg=cfg.selection.sanitise,
        run_seed=cfg.run_seed,
    )
    return by_block(ds, run)


@dataclass(frozen=True)
class Rules:
    """What follows from the recipe and the settings, once for all rows."""

    max_instruction_words: int
    tests_heading: re.Pattern[str] | None  # None: the responses have no tests
    part_headings: tuple[str, ...]  # the lines between the parts of a response, in order
    example_marks: tuple[str, ...]  # how the lines begin that frame a few-shot example
    in_comments: re.Pattern[str] | None  # a marker of incomplete code
    in_prose: re.Pattern[str] | None  # likewise, at the start of a line


def rules_of(cfg: SanitiseConfig, recipe: RecipeConfig) -> Rules:
    """The rules, from the literal lines of the recipe's templates."""
    markers = "|".join(
        re.escape(marker) if marker.isupper() else f"(?i:{re.escape(marker)})"
        for marker in cfg.incomplete_markers
    )
    found = rf"(?<!\w)(?:{markers})(?!\w)"
    hops = recipe.hops.values()
    marks = {m for hop in hops for m in _literal_lines(hop.header, whole=False)}
    marks |= {m for hop in hops for m in _literal_lines(hop.input, whole=True)}
    return Rules(
        max_instruction_words=recipe.max_instruction_words,
        tests_heading=None
        if recipe.tests_heading is None
        else re.compile(rf"^[ \t]*{re.escape(recipe.tests_heading)}[ \t]*:?[ \t]*$", re.MULTILINE),
        part_headings=tuple(_literal_lines(recipe.hops["responses"].output, whole=True)),
        example_marks=tuple(sorted(marks)),
        in_comments=re.compile(found) if markers else None,
        in_prose=re.compile(rf"^[\s#>*-]*{found}", re.MULTILINE) if markers else None,
    )


def add_sanitised(batch: pa.Table, rules: Rules, cfg: SanitiseConfig, run_seed: int) -> pa.Table:
    """The batch with the column `sanitised`, and drop reasons."""
    names = ["seed_id", "instruction", "samples", "verdicts", *GATED, "drop_reason"]
    rows = batch.select([name for name in names if name in batch.column_names]).to_pylist()
    results = [sanitised_row(row, rules, cfg, run_seed) for row in rows]
    return with_columns(
        batch,
        schemas.SELECTED,
        sanitised=[samples for samples, _ in results],
        drop_reason=[reason for _, reason in results],
    )


def sanitised_row(
    row: Row, rules: Rules, cfg: SanitiseConfig, run_seed: int
) -> tuple[list[Row], str | None]:
    """The values of `sanitised` and `drop_reason` of a row."""
    if row["drop_reason"] is not None:
        return [], row["drop_reason"]
    instruction = unix_lines(row["instruction"] or "").strip()
    reason = instruction_reason(instruction, rules, cfg)
    if reason is not None:
        return [], reason
    draw = keyed_random(run_seed, "sanitise", str(row["seed_id"])).random()
    shown = cfg.shown_tests_max_asserts if draw < cfg.shown_tests_share else 0
    found = []
    for sample, measures in ungated(row):
        asserts = measures.get("asserts") or 0
        response, reason = sanitised_response(sample, rules, cfg)
        tests = unix_lines(sample["tests"] or "") if 0 < asserts <= shown else ""
        found.append(
            {
                "sample_index": sample["sample_index"],
                "instruction": with_tests(instruction, tests, cfg.shown_tests_heading),
                "response": response,
                "drop_reason": reason,
            }
        )
    return found, _most_frequent([sample["drop_reason"] for sample in found])


def instruction_reason(instruction: str, rules: Rules, cfg: SanitiseConfig) -> str | None:
    """Why a row stops by its instruction."""
    if len(instruction.split()) > rules.max_instruction_words:
        return "instruction_too_long"
    if cfg.refuse_leaking_instructions:
        if "```" in instruction:
            return "instruction_fence"
        if any(line.strip().startswith(rules.example_marks) for line in instruction.split("\n")):
            return "instruction_leak"
    return "control_characters" if _CONTROL.search(instruction) else None


def with_tests(instruction: str, tests: str, heading: str) -> str:
    """The instruction, with the tests below it if there are any."""
    if not tests.strip():
        return instruction
    return f"{instruction}\n\n{heading}\n{Block(tests, 'python').text}"


def sanitised_response(
    sample: Row, rules: Rules, cfg: SanitiseConfig
) -> tuple[str | None, str | None]:
    """A sample's response and why it cannot be chosen; one of them is None.

    A sample without a text is made of its code, whatever the mode.
    """
    code = unix_lines(sample["code"] or "")
    blocks = [Block(code, "python")]
    raw = blocks[0].text
    if sample["text"] is not None:
        text = unix_lines(sample["text"])
        cut = sample["finish_reason"] == "length"
        above, reason = without_tests(text, rules.tests_heading, cut=cut)
        if reason is not None:
            return None, reason
        if not parts_in_order(above, rules.part_headings):
            return None, "parts_out_of_order"
        if cfg.mode != "code_only":
            raw, blocks = above, list(blocks_of(above))
    if is_incomplete(blocks, rules) or (cfg.refuse_stubs and has_stub(code)):
        return None, "incomplete"
    response = raw
    if cfg.mode != "raw":
        response = tidy(blocks, rules.part_headings, comments=not cfg.remove_comments)
    if _CONTROL.search(response):
        return None, "control_characters"
    if cfg.max_response_chars is not None and len(response) > cfg.max_response_chars:
        return None, "response_too_long"
    return response, None


def is_incomplete(blocks: list[Block], rules: Rules) -> bool:
    """Whether a marker of incomplete code is in a comment, or begins a line of prose."""
    if rules.in_comments is None or rules.in_prose is None:
        return False
    for block in blocks:
        if block.language is None and rules.in_prose.search(block.content):
            return True
        if block.is_python and any(map(rules.in_comments.search, comments_of(block.content))):
            return True
    return False


def parts_in_order(text: str, part_headings: tuple[str, ...]) -> bool:
    """Whether the headings that the prose has stand in the recipe's order, none of them twice.

    A heading may be left out; one that comes again begins another answer.
    """
    prose = (block.content for block in blocks_of(text) if block.language is None)
    lines = (line.strip() for content in prose for line in content.split("\n"))
    places = [part_headings.index(line) for line in lines if line in part_headings]
    return all(place < after for place, after in itertools.pairwise(places))


def tidy(blocks: list[Block], part_headings: tuple[str, ...], *, comments: bool) -> str:
    """The blocks in order, one empty line between two, without the headings of parts."""
    texts = []
    for block in blocks:
        content = block.content
        if block.language is None:
            lines = [line.rstrip() for line in content.split("\n")]
            content = "\n".join(line for line in lines if line.strip() not in part_headings)
            content = re.sub(r"\n{3,}", "\n\n", content).strip("\n")
        elif block.is_python and not comments:
            content = remove_comments(content)
        if content.strip():
            texts.append(Block(content, block.language).text)
    return "\n\n".join(texts)


def _literal_lines(template: str, *, whole: bool) -> Iterator[str]:
    """How the lines of a template begin, or only those without a tag; fences are none."""
    for line in template.split("\n"):
        literal = _TEMPLATE_TAG.sub("", line).strip()
        has_words = any(map(str.isalpha, literal)) and not literal.startswith("```")
        if has_words and (literal == line.strip() or not whole):
            yield literal


def _most_frequent(reasons: list[str | None]) -> str | None:
    """The reason of most samples; None where one has none, or where there is no sample."""
    if not reasons or None in reasons:
        return None
    counts = Counter(reason for reason in reasons if reason is not None)
    return min(counts, key=lambda reason: (-counts[reason], _REASONS.index(reason)))
