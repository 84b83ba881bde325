from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.watch.masking import MASK, Masker, looks_secret, public_url, secrets_in

PLAIN = Masker({})


def test_names_of_secrets() -> None:
    secret = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "api_key", "db.password", "OPENAI_API_KEY"]
    harmless = ["max_tokens", "prompt_tokens", "key", "monkey", "stop", "tokenizer", "run_seed"]
    assert [looks_secret(name) for name in secret] == [True] * len(secret)
    assert [looks_secret(name) for name in harmless] == [False] * len(harmless)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(), st.text("abcdefgh/+=.*$", min_size=8, max_size=40), st.text())
def test_a_secret_of_the_environment_never_shows(before: str, secret: str, after: str) -> None:
    masked = Masker({"HF_TOKEN": secret, "HOME": "/home/abcdefgh"}).text(before + secret + after)
    assert secret not in masked.replace(MASK, "")


def test_a_short_value_is_no_secret() -> None:
    assert Masker({"TOKEN": "1"}).text("1 row of 11") == "1 row of 11"


def test_texts_that_look_like_secrets() -> None:
    for text, masked in {
        "https://me:hunter2hunter2@host/x": "https://me:***@host/x",
        "Authorization: Bearer abcdef.123456": "Authorization: Bearer ***",
        "?token=abcdefgh12&x=1": "?token=***&x=1",
        '{"password": "correct horse"}': '{"password": "***"}',
        "hf_abcdefghijklmnopqrst went": "hf_*** went",
        "https://h/x?a=1&X-Amz-Signature=abc&b=2": "https://h/x?a=1&X-Amz-Signature=***&b=2",
        "+source.storage.secret_key=short": "+source.storage.secret_key=***",
        "max_tokens=12345678": "max_tokens=12345678",
        "unexpected token: indentation": "unexpected token: indentation",
    }.items():
        assert PLAIN.text(text) == masked


def test_a_tree_keeps_its_shape() -> None:
    tree = {"a": {"hf_token": "secret-value", "max_tokens": 5}, "b": ["x", None, 1.5, True]}
    assert PLAIN.tree(tree) == {
        "a": {"hf_token": MASK, "max_tokens": 5},
        "b": ["x", None, 1.5, True],
    }
    assert PLAIN.tree({"token": None, "password": ""}) == {"token": None, "password": ""}


def test_the_secrets_of_a_tree_are_those_under_their_names() -> None:
    tree = {"a": [{"secret_key": "x1"}], "token": None, "max_tokens": "3", "b": {"password": "x2"}}
    assert sorted(secrets_in(tree)) == ["x1", "x2"]


def test_a_public_url_names_the_place_and_no_secret() -> None:
    for url, public in {
        "https://me:pw@host/code/*.parquet": "https://host/code/*.parquet",
        "https://ghp_abc@host/x.jsonl?X-Amz-Signature=abc#f": "https://host/x.jsonl",
        "ftp://me:pw@host/x": "ftp://host/x",
        "s3://bucket/part-?.parquet": "s3://bucket/part-?.parquet",
        "hf://datasets/o/n@v1.2/data/*.parquet": "hf://datasets/o/n@v1.2/data/*.parquet",
        "abfss://box@account.dfs.core.windows.net/x": "abfss://box@account.dfs.core.windows.net/x",
        "/data/a@b:c@d?.parquet": "/data/a@b:c@d?.parquet",
    }.items():
        assert public_url(url) == public
