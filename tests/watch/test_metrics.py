"""watch/metrics.py: what Prometheus is told, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfalign_ray.watch import tally
from selfalign_ray.watch.metrics import COUNTER, GAUGE, METRICS, PREFIX, readings

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana.json"
FIGURES: tally.Figures = {
    "concepts": {"prompts": 3, "kept": 2, "dropped": 1, "seconds": 1.5, "prompt_tokens": 30}
    | {"cached_tokens": 20, "output_tokens": 9},
    "execution": {"rows": 2, "samples": 3, "passed": 2, "timeout": 1, "cpu_seconds": 4.0},
    "strength": {"runs": 7},
    "responses.rows": {"kept": 2, "no_code": 1},
    "engine": {"rows_in_flight": 5},
    "engine:shared-0": {"loads": 1, "load_seconds": 9, "held_seconds": 9, "gpu_seconds": 18}
    | {"output_tokens": 9, "running": 4, "waiting": 1, "kv_cache_usage": 0.5},
    "time": {
        "responses.left_seconds": 60,
        "responses.expected_rows": 8,
        "responses.end_timestamp_seconds": 1e9,
    },
}


def exported_name(name: str) -> str:
    """What Prometheus knows a metric by."""
    return f"ray_{PREFIX}{name}" + ("_total" if METRICS[name].kind == COUNTER else "")


def test_every_metric_is_read_with_its_tags() -> None:
    found = list(readings(FIGURES))
    assert {name for name, _, _ in found} == set(METRICS)
    assert all(len(tags) == len(METRICS[name].tags) for name, tags, _ in found)
    assert ("rows", ("responses", "no_code"), 1) in found
    assert ("tokens", ("concepts", "cached"), 20) in found
    assert ("verdicts", ("execution", "timeout"), 1) in found
    assert ("engine_kv_cache_usage_ratio", ("shared-0",), 0.5) in found
    assert ("rows_in_flight", ("hops",), 5) in found


def test_the_dashboard_asks_for_every_metric_and_for_no_other() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = set(re.findall(r"ray_\w+", " ".join(asked)))
    assert names == {exported_name(name) for name in METRICS}
    for expression in asked:
        for tags in re.findall(r"by \(([\w, ]+)\)", expression):
            known = [METRICS[name].tags for name in METRICS if exported_name(name) in expression]
            assert any(set(tags.split(", ")) <= set(has) for has in known), expression


@pytest.fixture
def exporting_tally(ray_local: None) -> Iterator[str]:
    """The address of the metrics of this node."""
    import ray

    pytest.importorskip("aiohttp_cors", reason="Ray exports metrics where ray[default] is")
    (node,) = ray.nodes()
    tally.start_tally("a run")
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    tally.stop_tally()


@pytest.mark.ray
def test_ray_serves_what_was_counted_in_all_processes(exporting_tally: str) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def work(counters: tally.Figures, gauges: tally.Figures) -> None:
        for stage, amounts in counters.items():
            tally.count(stage, **amounts)
        for _ in range(90):  # a gauge holds while its process is heard of
            for stage, amounts in gauges.items():
                tally.set_gauges(stage, amounts)
            tally.flush()
            time.sleep(1)

    running = work.remote(_only(COUNTER), _only(GAUGE))
    wanted = {(exported_name(name), *tags): number for name, tags, number in readings(FIGURES)}
    served: dict[tuple[str, ...], float] = {}
    end = time.monotonic() + 60
    while time.monotonic() < end and not wanted.items() <= served.items():
        tally.flush()
        time.sleep(1)
        served |= _served(exporting_tally)  # a gauge is 0 again once its process is gone
    assert {key: served.get(key) for key in wanted} == wanted
    ray.cancel(running, force=True)


def _only(kind: str) -> tally.Figures:
    """The figures of the processes that become metrics of a kind."""
    return {
        stage: chosen
        for stage, amounts in FIGURES.items()
        if (
            chosen := {
                name: number
                for name, number in amounts.items()
                if any(METRICS[m].kind == kind for m, _, _ in readings({stage: {name: number}}))
                or (kind == COUNTER and stage == "concepts")
            }
        )
    }


def _served(address: str) -> dict[tuple[str, ...], float]:
    """By name and values of our tags: what is not 0."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        if match := re.match(r"(ray_selfalign_\w+)\{(.*)\} (\S+)$", line):
            tags = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            if tags.get("run") == "a run" and float(match[3]):
                name = match[1].removeprefix("ray_selfalign_").removesuffix("_total")
                values = (tags[tag] for tag in METRICS[name].tags)
                found[match[1], *values] = float(match[3])
    return found
