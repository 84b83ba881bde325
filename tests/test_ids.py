"""ids.py: ids depend on content alone, draws on the key alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.ids import content_id, keyed_int, keyed_random

PARTS = st.lists(st.one_of(st.none(), st.text(), st.binary()), max_size=4)


@given(PARTS, PARTS)
def test_other_parts_give_another_id(one, other):
    def plain(parts):
        return [p.encode("utf-8", "surrogatepass") if isinstance(p, str) else p for p in parts]

    same = plain(one) == plain(other)
    assert (content_id(*one) == content_id(*other)) is same


def test_the_id_of_a_text_stays_what_it_is():
    assert content_id("seed") == "68f56c93148fc91c51c3b931738fd574"


@given(st.text(), st.integers(1, 64))
def test_a_keyed_integer_has_at_most_its_bits(key, bits):
    assert 0 <= keyed_int(bits, 1, key) < 2**bits


def test_a_keyed_draw_depends_on_run_seed_and_key():
    draws = {keyed_random(seed, key).random() for seed in (1, 2) for key in ("a", "b")}
    assert len(draws) == 4
    assert keyed_random(1, "a").random() in draws
