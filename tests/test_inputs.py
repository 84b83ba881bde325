"""inputs.py: what a stage reads besides its rows has another state when it is changed."""

from __future__ import annotations

import os

import pytest

from selfalign_ray import pipeline
from selfalign_ray.inputs import inputs_of, states_of_folders


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "weights"
    made.mkdir()
    (made / "model.safetensors").write_text("one")
    return made


def replace(folder):
    path = folder / "model.safetensors"
    path.write_text("two")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def test_a_folder_whose_files_are_replaced_has_another_state(folder):
    before = states_of_folders([str(folder)])
    (folder / ".lock").write_text("")
    assert states_of_folders([str(folder)]) == before
    replace(folder)
    assert states_of_folders([str(folder)]) != before


def test_a_folder_below_home_is_looked_at(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert list(states_of_folders(["~/weights"])) == ["~/weights"]


def test_what_is_no_folder_here_has_no_state():
    assert states_of_folders(["embedded", "owner/name", "s3://bucket/weights", None]) == {}


@pytest.mark.parametrize(
    ("stage", "overrides"),
    [
        ("responses", ["model.id={}"]),
        ("concepts", ["model.lora={}"]),
        ("responses_2", ["model.id={}", "generation.rounds=2"]),
        ("judge", ["model.id={}", "validation.judge.enabled=true"]),
        ("docstring_judge", ["model.id={}", "seeds.docstring_judge.enabled=true"]),
        ("diversity", ["selection.diversity.model={}", "selection.diversity.enabled=true"]),
    ],
)
def test_every_stage_that_loads_weights_says_so(run_config, folder, stage, overrides):
    cfg = run_config("engine=standin", *(each.format(f"'{folder}'") for each in overrides))
    (found,) = (each for each in pipeline.stages(cfg) if each.name == stage)
    before = inputs_of([found], cfg)
    assert list(before) == [str(folder)]
    replace(folder)
    assert inputs_of([found], cfg) != before
