"""hops/shots.py: what an example file must hold, and which shots a row gets."""

from __future__ import annotations

import pytest
import yaml

from selfalign_ray.errors import UserError
from selfalign_ray.hops.shots import ShotSets, read_examples

FIELDS = {
    "kind": "function",
    "difficulty": "easy",
    "snippet": "def f(): ...",
    "concepts": ["one"],
    "instruction": "Write f.",
    "reasoning": "r",
    "solution": "def g(): ...",
    "explanation": "e",
    "tests": "assert g",
}


def folder_with(tmp_path, **changes):
    fields = {k: v for k, v in (FIELDS | changes).items() if v != "gone"}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(fields))
    return str(tmp_path)


def test_an_example_file_is_read(tmp_path):
    (example,) = read_examples(folder_with(tmp_path))
    assert (example.name, example.concepts) == ("one", ["one"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tests": "gone"}, r"one\.yaml lacks tests"),
        ({"extra": "x"}, r"one\.yaml has the unknown extra"),
        ({"solution": ""}, r"one\.yaml has an empty solution"),
        ({"kind": "poem"}, "kind must be one of function, class, program; got 'poem'"),
    ],
)
def test_a_wrong_example_file_is_named_with_what_is_wrong(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        read_examples(folder_with(tmp_path, **changes))


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff: [")
    with pytest.raises(UserError, match=r"cannot read .*bad\.yaml"):
        read_examples(str(tmp_path))


def test_a_folder_without_examples_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no \.yaml file in"):
        read_examples(str(tmp_path / "nowhere"))


def sets(names="*", shots=3, number=4, run_seed=1):
    pool = read_examples(None)
    return ShotSets(pool, hop="h", names=names, shots=shots, sets=number, run_seed=run_seed)


def test_a_row_has_the_same_shots_whenever_it_is_asked():
    assert sets().of("row") == sets().of("row")


def test_rows_share_no_more_than_k_sets():
    made = sets()
    drawn = [made.of(str(i)) for i in range(60)]
    assert {number for number, _ in drawn} == {0, 1, 2, 3}
    assert len({tuple(e.name for e in shots) for _, shots in drawn}) == 4


def test_without_k_each_row_draws_its_own():
    made = sets(number=None)
    drawn = [made.of(str(i)) for i in range(20)]
    assert {number for number, _ in drawn} == {None}
    assert len({tuple(e.name for e in shots) for _, shots in drawn}) > 15


def test_another_run_seed_draws_other_sets():
    assert sets(run_seed=1).of("row")[1] != sets(run_seed=2).of("row")[1]


def test_names_choose_and_an_exclamation_mark_leaves_out():
    assert all(e.name.startswith("tiny_") for e in sets(names="tiny_*").of("row")[1])
    assert not any(e.name.startswith("tiny_") for e in sets(names="!tiny_*").of("row")[1])


def test_too_small_a_pool_fails_with_the_key():
    with pytest.raises(UserError, match=r"recipe\.hops\.h\.shots: 500 asked for"):
        sets(shots=500)
