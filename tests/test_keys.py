"""keys.py: which ids are among others, and which are there more than once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.keys import among, keys_of, repeated


@given(st.lists(st.text()), st.lists(st.text()))
@settings(deadline=None)
def test_ids_are_found_among_others_whatever_they_are(ids, others):
    found = among(keys_of(ids), np.sort(keys_of(others)))
    assert found.tolist() == [i in others for i in ids]


@given(st.lists(st.sampled_from("abcd")))
@settings(deadline=None)
def test_what_is_there_more_than_once_is_found(ids):
    twice = {i for i in ids if ids.count(i) > 1}
    assert set(repeated(np.sort(keys_of(ids)))) == set(keys_of(twice))
