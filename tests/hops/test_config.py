"""hops/config.py: which hops and judges a pool may serve."""

from __future__ import annotations

import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.hops.generate import pool_of, pools_of

HOPS = "generation.pools.responses.hops"


@pytest.mark.parametrize(
    ("hops", "said"),
    [
        ("[]", f"{HOPS}: must name some of concepts, .*, docstring_judge, judge"),
        ("[responses,execution]", f"{HOPS}: must name some of"),
        ("[tests,concepts]", f"{HOPS}: must follow each other in the order of the recipe"),
        ("[judge,tests,concepts]", f"{HOPS}: must follow each other"),
        ("[concepts]", "hops: another pool has concepts"),
    ],
)
def test_a_pool_serves_hops_that_follow_each_other(run_config, hops, said):
    with pytest.raises(UserError, match=said):
        run_config("generation=per_hop", f"{HOPS}={hops}")


def test_a_judge_is_served_by_the_pool_that_names_it(run_config):
    def pools(*overrides):
        cfg = run_config("validation.judge.enabled=true", *overrides)
        return pool_of(cfg, "judge")[0], list(pools_of(cfg))

    assert pools() == ("shared", ["shared"])
    assert pools("generation=own_judge") == ("judge", ["shared", "judge"])
    one_each = ["concepts", "instruction", "responses"]
    assert pools("generation=per_hop") == ("shared", [*one_each, "shared"])
    both = ["generation=per_hop", f"{HOPS}=[responses,judge]"]
    assert pools(*both) == ("responses", one_each)


def test_a_judge_s_pool_is_there_where_the_judge_is_asked(run_config):
    given = "generation=own_judge"
    assert list(pools_of(run_config(given))) == ["shared"]
    asked = run_config(given, "seeds.docstring_judge.enabled=true")
    assert list(pools_of(asked)) == ["shared", "judge"]
