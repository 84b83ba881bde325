"""engine/tokens.py: plain prompts, and prompts through a real model's chat template."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from selfalign_ray.engine.base import Prompt, PromptTooLongError, Sampling
from selfalign_ray.engine.embedded import embedded_model_dir
from selfalign_ray.engine.tokens import Tokens, load_tokenizer
from selfalign_ray.errors import UserError

SHOTS = "Concepts: a, b\nTask: Add.\n\nConcepts: c\nTask: Sort.\n\n"
PREFIX = " Write a Python function `"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_model_dir())


def test_a_base_model_s_prompt_is_the_text_as_it_is(tokenizer):
    text = f"{SHOTS}Concepts: d\nTask:{PREFIX}"
    ids = Tokens(tokenizer, chat=False).encode(text, PREFIX)
    assert tokenizer.decode(ids) == text


def test_a_chat_has_one_user_turn_and_the_forced_start_in_the_model_s_own(tokenizer):
    ids = Tokens(tokenizer, chat=True).encode(f"{SHOTS}Task:{PREFIX}", PREFIX)
    text = tokenizer.decode(ids)
    assert text.count("<|im_start|>user\n") == 1
    assert text.endswith(f"{SHOTS}Task:<|im_end|>\n<|im_start|>assistant\n{PREFIX}")
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") in ids, "markers are single tokens"


def test_a_chat_without_a_forced_start_opens_the_model_s_turn(tokenizer):
    ids = Tokens(tokenizer, chat=True).encode("Task:")
    assert tokenizer.decode(ids).endswith("Task:<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("chat", [False, True])
def test_rows_with_the_same_shots_share_their_first_tokens(tokenizer, chat):
    tokens = Tokens(tokenizer, chat=chat)
    one = tokens.encode(f"{SHOTS}Concepts: lists\nTask:{PREFIX}", PREFIX)
    other = tokens.encode(f"{SHOTS}Concepts: graphs\nTask:{PREFIX}", PREFIX)
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert shared >= len(tokens.tokenizer.encode(SHOTS))


def test_a_template_s_beginning_of_text_is_not_doubled(tokenizer):
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<s>")
    fast.add_special_tokens({"bos_token": "<s>"})
    fast.add_bos_token = True
    fast.chat_template = "{{ bos_token }}U: {{ messages[0].content }} A:"
    ids = Tokens(fast, chat=True).encode("hello")
    assert ids.count(fast.bos_token_id) == 1
    assert fast.decode(ids) == "<s>U: hello A:"


def test_a_tokenizer_without_a_template_is_a_user_s_error(tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(UserError, match=r"model\.chat: the tokenizer has no chat template"):
        Tokens(bare, chat=True)


def test_a_folder_without_a_tokenizer_is_named(run_config, tmp_path):
    with pytest.raises(UserError, match=r"model\.id: no tokenizer in"):
        load_tokenizer(str(tmp_path), run_config().model)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    ("text", "scored"), [("2 + 2 =", " 4"), ("x a", "b"), ("x", "\ny\n"), ("", "a b")]
)
def test_a_scored_text_is_the_tokens_that_the_prompt_alone_does_not_begin_with(
    tokenizer, chat, text, scored
):
    tokens = Tokens(tokenizer, chat=chat)
    none = Sampling(temperature=0.0, top_p=1.0, n=1, max_tokens=1, stop=())
    prompt = Prompt(
        row={}, hop="h", text=text, prefix="", sampling=none, seed=1, priority=0, scored=scored
    )
    ids = tokens.of(prompt, 512)
    first = tokens.scored_from(prompt, ids)
    before = tokens.encode(text)
    assert 1 <= first < len(ids) or not before
    assert ids[:first] == before[:first] or not before
    end = tokenizer.decode(ids[first:])
    assert end.endswith(scored) or not before  # the first token of all has no likelihood
    with pytest.raises(PromptTooLongError):
        tokens.of(prompt, len(ids))
