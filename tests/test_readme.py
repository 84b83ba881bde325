"""README.md: it names every file, stage and group, so that none is left undocumented."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfalign_ray import pipeline
from selfalign_ray.config import conf_dir
from selfalign_ray.report import exports

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = sorted(
    path for path in (ROOT / "selfalign_ray").rglob("*.py") if path.name != "__init__.py"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_has_its_line_in_the_tree(path):
    tree = README.split("## What is where")[1].split("```")[1].strip().splitlines()
    folder = ""
    found = set()
    for line in tree:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        if depth == 0:
            top, folder = name, ""
        elif name.endswith("/"):
            folder = name
        elif depth == 1:
            found.add(f"{top}{name}")
        else:
            found.add(f"{top}{folder}{name}")
    assert str(path.relative_to(ROOT)) in found


def test_each_stage_has_its_row(run_config):
    for stage in pipeline.stages(run_config("recipe=independent_tests")):
        assert f"| `{stage.name}` |" in README


def test_each_file_of_a_run_is_listed():
    listed = README.split("## What comes out")[1].split("```")[1].split()
    names = [exports.FUNCTIONS, exports.CONCEPTS, exports.INSTRUCTIONS, exports.RESPONSES]
    assert {*names, exports.DATASET, exports.HITS} <= {*listed}


def test_each_group_of_the_config_is_listed():
    for group in Path(conf_dir()).iterdir():
        if group.is_dir():
            assert f"  {group.name}/" in README


def test_the_licence_file_is_the_one_that_is_named():
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
