"""settings.py: every problem is said at once, under its full key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from selfalign_ray.errors import UserError
from selfalign_ray.settings import check, deciding, setting


@dataclass(kw_only=True)
class Inner:
    share: float = setting(gt=0, le=1)
    word: str = setting(choices=["a", "b"])


@dataclass(kw_only=True)
class Outer:
    workers: int = setting(ge=1, decides=False)
    inner: Inner
    many: dict[str, Inner]

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.workers == 13:
            yield "workers", "must not be 13"


def outer(workers=1, share=0.5, word="a"):
    return Outer(
        workers=workers,
        inner=Inner(share=share, word=word),
        many={"x": Inner(share=share, word=word)},
    )


def test_good_values_pass():
    check(outer())


def test_all_problems_are_named_with_their_full_key():
    with pytest.raises(UserError) as error:
        check(outer(workers=0, share=0, word="c"))
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "workers",
        "inner.share",
        "inner.word",
        "many.x.share",
        "many.x.word",
    ]
    assert "must be at least 1; got 0" in lines[0]
    assert "must be one of a, b; got 'c'" in lines[2]


def test_a_problem_between_fields_has_its_key():
    with pytest.raises(UserError, match=r"^workers: must not be 13$"):
        check(outer(workers=13))


def test_only_deciding_settings_are_part_of_a_fingerprint():
    assert deciding(outer(workers=7)) == deciding(outer(workers=1))
    assert deciding(outer(share=0.1)) != deciding(outer(share=0.2))
