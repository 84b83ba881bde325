"""conf/ and config.py: every option of every group composes and passes its own checks."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from selfalign_ray.config import RunConfig, conf_dir
from selfalign_ray.errors import UserError

# What an option leaves to the user.
REQUIRED = {f"source={kind}": ["source.path=/tmp"] for kind in ("folder", "files")}
OPTIONS = [f"{path.parent.name}={path.stem}" for path in sorted(Path(conf_dir()).glob("*/*.yaml"))]


@pytest.mark.parametrize("option", OPTIONS)
def test_option_composes(run_config, option):
    run_config(option, *REQUIRED.get(option, []))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe.hops.concepts.sampling.temprature=1", "temprature"),
        ("seeds.nosuch=1", "nosuch"),
        ("engine=nosuch", "nosuch"),
    ],
)
def test_a_misspelt_key_fails_with_its_name(run_config, override, said):
    with pytest.raises(Exception, match=said):
        run_config(override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe.hops.responses.sampling.temperature=-1", "recipe.hops.responses.sampling.temp"),
        ("recipe.hops.responses.sampling.n=0", "recipe.hops.responses.sampling.n"),
        ("recipe.hops.concepts.sampling.n=2", "recipe.hops.concepts.sampling.n: must be 1"),
        ("engine.kind=magic", "engine.kind: must be one of vllm, openai, transformers, standin"),
        ("engine.rows_in_flight=0", "engine.rows_in_flight"),
        ("plan.rows=0", "plan.rows: must be at least 1; got 0"),
        ("plan.seeds=0", "plan.seeds: must be at least 1; got 0"),
    ],
)
def test_an_impossible_value_fails_with_its_full_key(run_config, override, said):
    with pytest.raises(UserError, match=said):
        run_config(override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.until=responses", "plan.rows: rows are accepted by the last stage"),
        ("start.stage=instruction", "plan.rows: a slice is drawn from the source"),
        ("start.rows=x.jsonl", "plan.rows: a slice is drawn from the source"),
    ],
)
def test_a_plan_is_for_the_whole_pipeline(run_config, override, said):
    with pytest.raises(UserError, match=said):
        run_config("plan.rows=5", override)


def test_a_value_of_another_type_fails_with_its_key(run_config):
    with pytest.raises(Exception, match=r"run_seed"):
        run_config("run_seed=many")


def test_no_dataclass_of_settings_has_a_default():
    seen, queue = set(), [RunConfig]
    while queue:
        node = queue.pop()
        seen.add(node)
        for field in dataclasses.fields(node):
            assert field.default is dataclasses.MISSING, f"{node.__name__}.{field.name}"
    assert RunConfig in seen


def test_the_paper_s_numbers_stand_in_its_experiment(run_config):
    cfg = run_config("experiment=starcoder2_15b")
    hops = cfg.recipe.hops
    assert cfg.model.id == "bigcode/starcoder2-15b"
    assert [hop.shots for hop in hops.values()] == [8, 8, 1]
    assert {hop.sampling.temperature for hop in hops.values()} == {0.7}
    assert {hop.sampling.max_tokens for hop in hops.values()} == {1536}
    assert hops["responses"].sampling.n == 10


def test_settings_and_sandboxes_are_had_without_ray():
    """A mistake is told, and a program judged, before a second of imports."""
    code = "import selfalign_ray.__main__, selfalign_ray.sandbox.__main__, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"ray", "pandas", "torch"}.isdisjoint(done.stdout.split())


def test_yaml_files_say_the_group_of_each_experiment_once():
    for path in Path(conf_dir()).glob("experiment/*.yaml"):
        assert path.read_text().startswith("# @package _global_"), path
        assert isinstance(yaml.safe_load(path.read_text()), dict)
