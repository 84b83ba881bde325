import json
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from json import JSONDecodeError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfalign_ray.sandbox.plain import dumps, exception_at, loads, named, public


def crossed(value):
    def refuse(_):
        raise TypeError("a handle")

    return loads(dumps(value, refuse), refuse)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.datetimes()
    | st.dates()
    | st.timedeltas()
)
HASHABLE = st.integers() | st.text() | st.tuples(st.integers(), st.text())
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(HASHABLE, inner)
        | st.frozensets(HASHABLE)
        | st.sets(HASHABLE)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_plain_data_comes_back_as_it_was(value):
    back = crossed(value)
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, set | frozenset | dict | list | tuple)


@pytest.mark.parametrize(
    "value",
    [
        Counter("aab"),
        OrderedDict(a=1),
        deque([1, 2]),
        range(1, 9, 2),
        slice(1, None),
        Ellipsis,
        bytearray(b"x"),
        float("inf"),
        10**400,
        "\ud800",
        Decimal("1.50"),
        Fraction(1, 3),
        date(2024, 2, 29),
        datetime(2024, 1, 1, 1),  # noqa: DTZ001 - plain, as samples have them
        timedelta(days=1, microseconds=3),
        int,
        len,
        ValueError,
    ],
)
def test_types_of_the_standard_library_come_back(value):
    back = crossed(value)
    assert type(back) is type(value)
    assert back == value


def test_a_default_dictionary_loses_its_factory_only():
    assert crossed(defaultdict(list, a=[1])) == {"a": [1]}


def test_arrays_come_back():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    back = crossed(array)
    assert back.dtype == array.dtype
    assert (back == array).all()
    assert crossed(np.float64(1.5)) == 1.5


def test_a_subclass_is_no_plain_data():
    class Always(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    with pytest.raises(TypeError, match="a handle"):
        crossed(Always(0))


def test_only_the_standard_library_is_reached_by_name():
    assert named("math:isclose")
    with pytest.raises(ImportError):
        named("ray:init")


@pytest.mark.parametrize(
    "path",
    [
        "builtins:exec",
        "builtins:type",
        "unittest.mock:ANY",
        "operator:attrgetter",
        "os",
        "os:system",
    ],
)
def test_what_is_not_listed_is_not_taken_by_name(path):
    with pytest.raises(ImportError):
        loads(json.dumps(["global", path]).encode(), list)
    with pytest.raises(TypeError, match="a handle"):
        crossed(eval)


def test_exceptions_of_the_library_are_found_where_they_are_loaded():
    assert exception_at("json.decoder:JSONDecodeError") is JSONDecodeError
    for path in (
        "ensurepip:X",
        "json.decoder:JSONDecoder",
        "ray.exceptions:RayError",
        ":x",
        "json",
    ):
        assert exception_at(path) is None


@pytest.mark.parametrize("name", ["_x", "__globals__", "gi_frame", "f_back", "tb_next"])
def test_what_leads_to_frames_is_not_public(name):
    assert not public(name)
