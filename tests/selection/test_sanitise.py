from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray import schemas
from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import RecipeConfig
from selfalign_ray.selection.config import SelectionConfig
from selfalign_ray.selection.sanitise import (
    add_sanitised,
    instruction_reason,
    rules_of,
    sanitise,
    sanitised_response,
    sanitised_row,
)
from selfalign_ray.settings import check

Row = dict[str, Any]
Selection = Callable[..., SelectionConfig]
Recipe = Callable[[str], RecipeConfig]

CODE = "def add(a, b):\n    # sum\n    return a + b"
TESTS = "assert add(1, 2) == 3"
INSTRUCTION = "Write a Python function `add(a, b)` that adds."
ONE_FENCE = f"```python\n{CODE}\n\n# Tests\n{TESTS}\n"
FOUR_PARTS = f"""### Reasoning
Adding is easy.


### Implementation
```py
{CODE}
```

### Explanation
It adds.

### Tests
```python
{TESTS}
```
"""


def sample(text: str | None, code: str = CODE, index: int = 0, **others: Any) -> Row:
    fields = {"sample_index": index, "text": text, "finish_reason": "stop", "code": code}
    return {**fields, "tests": TESTS, "drop_reason": None, **others}


def row(*samples: Row, asserts: int = 1, **others: Any) -> Row:
    return {
        "row_id": "r",
        "seed_id": "s",
        "instruction": INSTRUCTION,
        "samples": list(samples),
        "verdicts": [{"sample_index": s["sample_index"], "verdict": "passed"} for s in samples],
        "metrics": [
            {"sample_index": s["sample_index"], "asserts": asserts, "gate": None} for s in samples
        ],
        "drop_reason": None,
        **others,
    }


@pytest.fixture(scope="session")
def respond(selection: Selection, recipe: Recipe) -> Callable[..., tuple[str | None, str | None]]:
    """`respond(sample, "short", "mode=raw")`: its response and reason with these settings."""

    def respond(drawn: Row, recipe_name: str, *overrides: str) -> tuple[str | None, str | None]:
        cfg = selection(*(f"sanitise.{override}" for override in overrides)).sanitise
        return sanitised_response(drawn, rules_of(cfg, recipe(recipe_name)), cfg)

    return respond


@pytest.mark.parametrize("mode", ["raw", "smart", "code_only"])
def test_the_response_of_a_one_fence_recipe_is_its_solution(respond: Any, mode: str) -> None:
    assert respond(sample(ONE_FENCE), "short", f"mode={mode}") == (f"```python\n{CODE}\n```", None)


@pytest.mark.parametrize(
    ("mode", "response"),
    [
        ("raw", FOUR_PARTS[: FOUR_PARTS.index("\n\n### Tests")]),
        ("smart", f"Adding is easy.\n\n```python\n{CODE}\n```\n\nIt adds."),
        ("code_only", f"```python\n{CODE}\n```"),
    ],
)
def test_the_mode_says_what_is_left_of_four_parts(respond: Any, mode: str, response: str) -> None:
    assert respond(sample(FOUR_PARTS), "sc2_instruct", f"mode={mode}") == (response, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("### Reasoning\nAdding is easy.\n", ""), None),
        (("### Explanation", "### Reasoning"), "parts_out_of_order"),
        (("It adds.", "It adds.\n\n### Implementation\nAnother one."), "parts_out_of_order"),
        (("### Explanation", "### Explanation\n\n### Explanation"), "parts_out_of_order"),
        (("    # sum", "    # sum\n### Explanation\n### Reasoning"), None),
        (("It adds.", "### Remarks\nIt adds."), None),
    ],
)
def test_the_parts_stand_in_the_recipes_order(
    respond: Any, change: tuple[str, str], reason: str | None
) -> None:
    assert change[0] in FOUR_PARTS
    for mode in ("raw", "smart", "code_only"):
        found = respond(sample(FOUR_PARTS.replace(*change)), "sc2_instruct", f"mode={mode}")
        assert found[1] == reason


@pytest.mark.parametrize("mode", ["raw", "smart", "code_only"])
def test_windows_line_ends_become_others(respond: Any, mode: str) -> None:
    windows = sample(FOUR_PARTS.replace("\n", "\r\n"), CODE.replace("\n", "\r\n"))
    of_windows = respond(windows, "sc2_instruct", f"mode={mode}")
    assert of_windows == respond(sample(FOUR_PARTS), "sc2_instruct", f"mode={mode}")


@pytest.mark.parametrize("mode", ["smart", "code_only"])
def test_comments_go_by_choice(respond: Any, mode: str) -> None:
    response, _ = respond(sample(ONE_FENCE), "short", f"mode={mode}", "remove_comments=true")
    assert response == "```python\ndef add(a, b):\n    return a + b\n```"


def test_raw_text_keeps_its_comments(selection: Selection) -> None:
    with pytest.raises(UserError, match="remove_comments"):
        check(selection("sanitise.mode=raw", "sanitise.remove_comments=true"))


def test_a_sample_without_a_text_is_its_code(respond: Any) -> None:
    for mode in ("raw", "smart", "code_only"):
        response, _ = respond(sample(None), "short", f"mode={mode}")
        assert response == f"```python\n{CODE}\n```"


PLANTED = {
    "no tests": (f"```python\n{CODE}\n```", CODE, "no_tests"),
    "two test sections": (f"{ONE_FENCE}\n# Tests\n{TESTS}\n```", CODE, "two_test_sections"),
    "two test fences": (f"{ONE_FENCE}```\n```python\n{TESTS}", CODE, "two_test_sections"),
    "unfinished fence": (f"```python\n{CODE}\n```python\n{ONE_FENCE}", CODE, "bad_fence"),
    "to do": (ONE_FENCE.replace("# sum", "# TODO: sum"), CODE, "incomplete"),
    "your code": (ONE_FENCE.replace("# sum", "# ... Your code here"), CODE, "incomplete"),
    "to do in prose": (f"TODO: explain\n{ONE_FENCE}", CODE, "incomplete"),
    "a stub": (ONE_FENCE, CODE + "\n\ndef sub(a, b):\n    pass", "incomplete"),
    "bell": (ONE_FENCE.replace("sum", "\x07"), CODE, "control_characters"),
    "right to left": (ONE_FENCE.replace("sum", "\u202e"), CODE, "control_characters"),
    "undecodable": (ONE_FENCE.replace("sum", "\ufffd"), CODE, "control_characters"),
    "long": (ONE_FENCE.replace("sum", "s" * 9_000), CODE, "response_too_long"),
    "other scripts": (ONE_FENCE.replace("sum", "Größe \u4e2d \U0001f600"), CODE, None),
    "a subject": (ONE_FENCE.replace("# sum", "x = 'TODO'; TODO = 1  # todo list"), CODE, None),
    "in a string": (ONE_FENCE.replace("# sum", "x = '# TODO'"), CODE, None),
    "in the tests": (ONE_FENCE + "# TODO: more", CODE, None),
}


@pytest.mark.parametrize(("text", "code", "reason"), PLANTED.values(), ids=PLANTED.keys())
def test_each_fault_has_its_reason(respond: Any, text: str, code: str, reason: str | None) -> None:
    response, found = respond(sample(text, code), "short")
    assert found == reason
    assert (response is None) == (reason is not None)


def test_a_check_that_is_off_refuses_nothing(respond: Any) -> None:
    off = ("incomplete_markers=[]", "refuse_stubs=false", "max_response_chars=null")
    for name in ("to do", "a stub", "long"):
        text, code, _ = PLANTED[name]
        assert respond(sample(text, code), "short", *off)[1] is None


@settings(deadline=None)
@given(text=st.text(max_size=80), mode=st.sampled_from(["raw", "smart", "code_only"]))
def test_no_text_raises(respond: Any, text: str, mode: str) -> None:
    for drawn in (sample(text, text), sample(ONE_FENCE.replace("sum", text), text)):
        response, reason = respond(drawn, "short", f"mode={mode}")
        assert (response is None) != (reason is None)


@settings(deadline=None)
@given(text=st.text("ab #`\n.", max_size=60))
def test_a_response_sanitised_again_stays(respond: Any, text: str) -> None:
    prose = text.replace("# Tests", "")
    once, reason = respond(sample(f"{prose}\n{ONE_FENCE}"), "short")
    if reason is None:
        again = respond(sample(f"{once}\n# Tests\n```python\n{TESTS}\n```"), "short")
        assert again == (once, None)


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        (INSTRUCTION, None),
        ("word " * 80, None),
        ("word " * 81, "instruction_too_long"),
        ("Write `add`.\n```python\nadd(1, 2)\n```", "instruction_fence"),
        ("Write `add`.\nTask: write `sub`.", "instruction_leak"),
        ("Your task: write `add`.", None),
        ("Write `add`\x00.", "control_characters"),
    ],
)
def test_an_instruction_has_its_own_reasons(
    selection: Selection, recipe: Recipe, instruction: str, reason: str | None
) -> None:
    cfg = selection().sanitise
    assert instruction_reason(instruction, rules_of(cfg, recipe("short")), cfg) == reason


def test_a_leak_is_known_by_the_recipes_own_marks(selection: Selection, recipe: Recipe) -> None:
    cfg = selection().sanitise
    rules = rules_of(cfg, recipe("sc2_instruct"))
    for leak in ("Sort.\n\n## Example 3\n### Code", "Sort.\n### Task properties\nkind: class"):
        assert instruction_reason(leak, rules, cfg) == "instruction_leak"
    assert instruction_reason("Sort.\n# Example\nkind: any", rules, cfg) is None
    off = selection("sanitise.refuse_leaking_instructions=false").sanitise
    assert instruction_reason("Sort.\n## Example 3\n```", rules, off) is None


@pytest.fixture(scope="session")
def sanitised(selection: Selection, recipe: Recipe) -> Callable[..., tuple[list[Row], str | None]]:
    def sanitised(judged: Row, *overrides: str) -> tuple[list[Row], str | None]:
        cfg = selection(*(f"sanitise.{override}" for override in overrides)).sanitise
        return sanitised_row(judged, rules_of(cfg, recipe("short")), cfg, 7)

    return sanitised


def test_tests_are_shown_below_the_instruction(sanitised: Any) -> None:
    always = ("shown_tests_share=1", "shown_tests_max_asserts=5")
    shown = f"{INSTRUCTION}\n\nYour code should pass these tests:\n```python\n{TESTS}\n```"
    for asserts, instruction in ((1, shown), (5, shown), (6, INSTRUCTION), (0, INSTRUCTION)):
        [found], reason = sanitised(row(sample(ONE_FENCE), asserts=asserts), *always)
        assert (found["instruction"], reason) == (instruction, None)
    [found], _ = sanitised(row(sample(ONE_FENCE)), "shown_tests_share=0")
    assert found["instruction"] == INSTRUCTION


def test_half_of_the_rows_show_their_tests_by_their_ids(sanitised: Any) -> None:
    def shows(seed_id: str) -> bool:
        found, _ = sanitised(row(sample(ONE_FENCE), sample(ONE_FENCE, index=1), seed_id=seed_id))
        longer = {one["instruction"] != INSTRUCTION for one in found}
        assert len(longer) == 1
        return longer.pop()

    ids = [str(number) for number in range(200)]
    first = [shows(seed_id) for seed_id in ids]
    assert 80 < sum(first) < 120
    assert [shows(seed_id) for seed_id in reversed(ids)] == first[::-1]


def test_a_row_stops_when_every_sample_is_refused_by_the_reason_of_most(sanitised: Any) -> None:
    texts = [PLANTED[name][0] for name in ("bell", "to do", "bell")]
    refused = [sample(text, index=index) for index, text in enumerate(texts)]
    assert sanitised(row(*refused))[1] == "control_characters"
    assert sanitised(row(*refused[:2]))[1] == "incomplete"
    found, reason = sanitised(row(*refused, sample(ONE_FENCE, index=3)))
    assert reason is None
    assert [one["drop_reason"] for one in found][-1] is None


def test_only_ungated_samples_that_passed_are_looked_at(sanitised: Any) -> None:
    judged = row(*(sample(ONE_FENCE, index=index) for index in range(3)))
    judged["verdicts"][0]["verdict"] = "timeout"
    judged["metrics"][1]["gate"] = "trivial_tests"
    found, reason = sanitised(judged)
    assert [one["sample_index"] for one in found] == [2]
    assert reason is None


def test_a_row_dropped_before_stays_as_it_is(sanitised: Any) -> None:
    judged = row(sample(ONE_FENCE), drop_reason="no_passing_sample", instruction=None)
    assert sanitised(judged) == ([], "no_passing_sample")


def table(*rows: Row) -> pa.Table:
    names = [name for name in rows[0] if name in schemas.EXECUTED.names]
    schema = pa.schema([schemas.EXECUTED.field(name) for name in names])
    return pa.Table.from_pylist(list(rows), schema=schema)


def test_a_batch_has_typed_columns(selection: Selection, recipe: Recipe) -> None:
    cfg = selection().sanitise
    rules = rules_of(cfg, recipe("short"))
    dropped = row(sample(ONE_FENCE), drop_reason="trivial_tests")
    found = add_sanitised(table(row(sample(ONE_FENCE)), dropped), rules, cfg, 7)
    assert found.schema.field("sanitised").type == schemas.SELECTED.field("sanitised").type
    assert found["drop_reason"].to_pylist() == [None, "trivial_tests"]
    assert add_sanitised(table(dropped), rules, cfg, 7)["sanitised"].to_pylist() == [[]]


@pytest.mark.ray
def test_the_stage_sanitises_every_row(ray_local: None, run_config: Any) -> None:
    rows = [
        row(sample(ONE_FENCE)),
        row(sample("no tests")),
        row(sample(ONE_FENCE), instruction="`"),
    ]
    cfg = run_config("recipe=short")
    found = sanitise(ray.data.from_arrow([table(r) for r in rows]), cfg).take_all()
    assert sorted(str(r["drop_reason"]) for r in found) == ["None", "None", "no_tests"]
