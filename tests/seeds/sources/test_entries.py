"""entries.py: any record of a table has entries."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from selfalign_ray.seeds.config import ColumnsConfig
from selfalign_ray.seeds.sources.entries import entries_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = [
    "content",
    "path",
    "language",
    "detected_licenses",
    "github_metadata",
    "files",
    "repo_path",
]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_record_has_entries(record):
    names = dict.fromkeys(vars(ColumnsConfig)["__annotations__"])
    columns = ColumnsConfig(
        **names
        | {
            "files": "files",
            "content": "content",
            "path": "path",
            "language": "language",
            "licenses": "detected_licenses",
            "stars": "github_metadata.stars",
        }
    )
    for entry in entries_of(record, columns):
        assert isinstance(entry["licenses"], list)
        assert entry["stars"] is None or isinstance(entry["stars"], int)
        assert entry["path"] is None or entry["path"].encode()
