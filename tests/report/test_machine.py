import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from selfalign_ray.report import machine


def test_versions_name_what_is_installed() -> None:
    found = machine.versions()
    assert found["python"] == sys.version.split()[0]
    assert "ray" in found
    assert "no-such-package" not in found


def test_a_commit_only_where_there_is_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "a" / "b" / "machine.py"))
    assert machine.commit() is None
    (tmp_path / ".git").mkdir()  # no repository: git fails
    assert machine.commit() is None


def test_gpus_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0}},
        {"Alive": False, "Resources": {"GPU": 8.0}},
    ]
    fake = SimpleNamespace(is_initialized=lambda: True, nodes=lambda: nodes)
    monkeypatch.setitem(sys.modules, "ray", fake)
    assert machine.hardware()["cluster"][0]["gpus"] == 2.0
    assert machine.hardware()["cluster"][0]["accelerators"] == ["H100"]


def test_hardware_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    found = machine.hardware()
    assert found["cluster"] == []
    assert found["memory_gb"] > 0
