"""The jobs of a sweep side by side: a table and a plot, out of their run_dirs alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import HOP_NAMES
from selfalign_ray.places import Place, exists, folders_in, remove
from selfalign_ray.report.md import cell, percent
from selfalign_ray.stage import write_whole

FAILED = "failed.txt"  # in a run_dir: why the last command there did not get to its end
TABLE, PLOT, MARKDOWN = "comparison.csv", "comparison.png", "comparison.md"
MEASURES = {  # name in comparison.csv -> head of the column, meaning
    "seeds": ("seeds", "that went to the model"),
    "accepted": ("accepted", "rows of the data set"),
    "accepted_share": ("share", "accepted rows of the seeds"),
    "passed_share": ("passed", "samples that passed, of all"),
    "killed_share": ("killed", "mutants that the accepted rows' tests noticed, at the mean"),
    "line_coverage": ("lines", "that those tests reached, at the mean"),
    "distinct_instructions": ("distinct", "instructions, of all"),
    "output_tokens": ("tokens", "written by the model"),
    "tokens_per_second": ("tokens/s", "of the hops' wall time, loading included"),
    "seconds": ("s", "wall time of all stages, with those that another job ran first"),
    "engine_hours": ("engine h", "that engines were held"),
    "gpu_hours": ("GPU h", "of the GPUs that they held"),
    "accepted_per_gpu_hour": ("rows/GPU h", "accepted ones"),
    "cost": ("cost", "of the GPU hours, at report.price_per_gpu_hour"),
}
_SHARES = {
    "accepted_share",
    "passed_share",
    "killed_share",
    "line_coverage",
    "distinct_instructions",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, as its folder shows it."""

    name: str  # of the folder
    overrides: Mapping[str, str]
    measures: Mapping[str, float | None]  # by MEASURES; empty where there is no result
    failure: str | None  # why there is no result; None where there is one
    standin: bool


def jobs_in(folder: Place) -> list[Place]:
    """The run_dirs directly in a folder, by number where they have one.

    Raises:
        UserError: there is none.
    """
    if not exists(folder) or folder.is_file():
        raise UserError(f"{folder}: there is no such folder")
    if _is_run(folder):
        return [folder]
    found = [path for path in folders_in(folder) if _is_run(path)]
    if not found:
        raise UserError(f"{folder}: neither a run_dir nor a folder of them")
    return sorted(found, key=lambda path: (not path.name.isdigit(), path.name.zfill(9)))


def _is_run(path: Place) -> bool:
    return exists(path / ".hydra") or exists(path / "manifest.json")


def read_job(run_dir: Place) -> Job:
    """What a run_dir tells of its run, whole or not."""
    failure, manifest = None, {}
    try:
        manifest = json.loads((run_dir / "manifest.json").read_text())
        measures = measures_of(manifest)
    except FileNotFoundError:
        measures, failure = {}, "has not come to its end"
    except (OSError, ValueError, KeyError, TypeError) as error:
        measures, failure = {}, f"manifest.json cannot be read: {type(error).__name__}: {error}"
    if exists(run_dir / FAILED):  # the manifest, if any, is an earlier run's
        measures, failure = {}, (run_dir / FAILED).read_text().strip()
    return Job(
        name=run_dir.name,
        overrides=_overrides(run_dir),
        measures=measures,
        failure=failure,
        standin=bool(manifest.get("standin")),
    )


def _overrides(run_dir: Place) -> dict[str, str]:
    try:
        given = yaml.safe_load((run_dir / ".hydra" / "overrides.yaml").read_text()) or []
    except (OSError, yaml.YAMLError):
        return {}
    split = (str(text).partition("=") for text in given)
    return {key.lstrip("+~"): value for key, _, value in split}


def measures_of(manifest: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of MEASURES, out of a run's manifest; None where there is nothing to count."""
    figures, config = manifest["figures"], manifest["config"]
    steps = {step["stage"]: step for step in manifest["funnel"]["stages"]}
    first = next((steps[hop] for hop in HOP_NAMES if hop in steps), None)
    seeds, accepted = first["rows"] if first else None, figures["accepted"]
    gpu_hours = figures["gpu_seconds"] / 3600
    price = config["report"]["price_per_gpu_hour"]
    spread = figures["measures"]
    return {
        "seeds": seeds,
        "accepted": accepted,
        "accepted_share": accepted / seeds if seeds else None,
        "passed_share": figures["passed_share"],
        "killed_share": spread.get("killed_share", {}).get("mean"),
        "line_coverage": spread.get("line_coverage", {}).get("mean"),
        "distinct_instructions": figures["distinct_instructions"],
        "output_tokens": figures["output_tokens"],
        "tokens_per_second": figures["tokens_per_second"],
        "seconds": sum(figures["stage_seconds"].values()),
        "engine_hours": figures["held_seconds"] / 3600,
        "gpu_hours": gpu_hours or None,
        "accepted_per_gpu_hour": figures["accepted_per_gpu_hour"],
        "cost": gpu_hours * price if price and gpu_hours else None,
    }


def swept(jobs: Sequence[Job]) -> list[str]:
    """The keys in which the jobs differ, in the order in which they were given."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def short(keys: Sequence[str]) -> dict[str, str]:
    """Each key by its last word, or whole where two end alike."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return {
        key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)
    }


def markdown(jobs: Sequence[Job]) -> str:
    """The comparison as a person reads it, in a terminal too: columns stand below each other."""
    keys = swept(jobs)
    names = short(keys)
    shown = [name for name in MEASURES if any(job.measures.get(name) is not None for job in jobs)]
    head = ["job", *names.values(), *(MEASURES[name][0] for name in shown)]
    rows = [
        [
            job.name,
            *(cell(job.overrides.get(key, "")) for key in keys),
            *(_shown(name, job.measures.get(name)) for name in shown),
        ]
        for job in jobs
    ]
    lines = _aligned([head, *rows], words=1 + len(keys))
    failed = [f"- job {job.name}: {cell(job.failure)}" for job in jobs if job.failure]
    meanings = [f"- {MEASURES[name][0]}: {MEASURES[name][1]}" for name in shown]
    named = [f"- {name}: {key}" for key, name in names.items() if name != key]
    parts = ["# Comparison"]
    if any(job.standin for job in jobs):
        parts.append("**Written by the stand-in: no result.**")
    parts.append("\n".join(lines))
    if failed:
        parts.append("Without a result:\n\n" + "\n".join(failed))
    parts.append("\n".join([*named, *meanings]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return percent(value) if name in _SHARES else cell(value)


def _aligned(rows: Sequence[Sequence[str]], *, words: int) -> list[str]:
    widths = [max(3, *(len(row[at]) for row in rows)) for at in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = (
            text.ljust(width) if at < words else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(cells)} |"

    rule = ["-" * w if at < words else "-" * (w - 1) + ":" for at, w in enumerate(widths)]
    return [line(rows[0]), line(rule), *(line(row) for row in rows[1:])]


def table(jobs: Sequence[Job]) -> str:
    """The same as CSV: a row a job, with every number in full."""
    keys, text = swept(jobs), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", *keys, *MEASURES, "failure"])
    for job in jobs:
        given = [job.overrides.get(key) for key in keys]
        writer.writerow([job.name, *given, *(job.measures.get(m) for m in MEASURES), job.failure])
    return text.getvalue()


def plot(jobs: Sequence[Job]) -> bytes | None:
    """Accepted rows against what was swept, as a PNG; None without two results.

    One key of numbers is an axis of numbers, and further keys are a line each; else every job is a
    bar.
    """
    from matplotlib.figure import Figure  # half a second

    jobs = [job for job in jobs if job.measures]
    keys = swept(jobs)
    if len(jobs) < 2 or not keys:
        return None
    names = short(keys)
    axis = next((key for key in keys if all(_number(job, key) is not None for job in jobs)), None)
    height = 1.2 + 0.4 * len(jobs) if axis is None else 4.2
    figure = Figure(figsize=(7, height), layout="constrained", dpi=150)
    axes = figure.subplots()
    if axis is None:
        labels = [", ".join(f"{names[k]}={job.overrides.get(k)}" for k in keys) for job in jobs]
        bars = axes.barh(labels, [job.measures["accepted"] or 0.0 for job in jobs], height=0.6)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.invert_yaxis()
        axes.set_xlabel("accepted rows")
    else:
        _lines(axes, jobs, axis, {key: name for key, name in names.items() if key != axis})
        axes.set_xlabel(axis)
        axes.set_ylabel("accepted rows")
        axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Stand-in: no result" if any(job.standin for job in jobs) else "")
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        return file.getvalue()


def _lines(axes: Any, jobs: Sequence[Job], axis: str, others: Mapping[str, str]) -> None:
    lines: dict[str, list[tuple[float, float]]] = {}
    for job in jobs:
        label = ", ".join(f"{name}={job.overrides.get(key)}" for key, name in others.items())
        point = (_number(job, axis) or 0.0, job.measures["accepted"] or 0.0)
        lines.setdefault(label, []).append(point)
    for label, points in lines.items():
        xs, ys = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, marker="o", label=label)
    if others:
        axes.legend(frameon=False)


def _number(job: Job, key: str) -> float | None:
    try:
        return float(job.overrides[key])
    except (KeyError, ValueError):
        return None


def write_comparison(jobs: Sequence[Job], folder: Place) -> str:
    """Writes table and plot into a folder, and gives the text."""
    text, image = markdown(jobs), plot(jobs)
    remove(folder / PLOT)  # an earlier one, of other jobs
    if image is not None:
        write_whole(folder / PLOT, image)
        write_whole(folder / MARKDOWN, f"{text}\n![accepted rows]({PLOT})\n")
    else:
        write_whole(folder / MARKDOWN, text)
    write_whole(folder / TABLE, table(jobs))
    return text
