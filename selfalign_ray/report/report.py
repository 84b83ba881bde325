"""After the last stage, on the driver: exports, report and manifest, from the run_dir alone."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfalign_ray import pipeline
from selfalign_ray.config import RunConfig
from selfalign_ray.report.contamination import take_contamination
from selfalign_ray.report.examples import pick
from selfalign_ray.report.exports import DATASET, write_exports
from selfalign_ray.report.figures import Figures, as_data, take_figures
from selfalign_ray.report.funnel import Funnel, take_funnel
from selfalign_ray.report.machine import commit, hardware, versions
from selfalign_ray.report.markdown import is_standin, markdown
from selfalign_ray.report.saved import SavedStage, chain
from selfalign_ray.stage import now, write_whole
from selfalign_ray.watch.masking import Masker

log = logging.getLogger(__name__)

REPORT = "pipeline_report.md"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run ended with."""

    dataset: Path | None  # None where the run stopped before the last stage
    report: Path
    kept: int  # rows after the last stage
    counts: dict[str, int]  # lines of each exported file
    problems: list[str]  # counts that do not add up
    standin: bool  # no result: the engine was the stand-in


def report(cfg: RunConfig, run_dir: Path, sandbox: dict[str, Any] | None) -> Summary:
    """Writes the exports, `pipeline_report.md` and, last, `manifest.json`.

    Args:
        cfg: the run's settings.
        run_dir: with the saved stages of a run that has ended.
        sandbox: what `Sandbox.describe` says; None where nothing was executed.
    """
    (run_dir / MANIFEST).unlink(missing_ok=True)  # until all of it is new
    stages = chain(
        run_dir, [stage.name for stage in pipeline.selected(cfg)], cfg.report.rows_per_batch
    )
    counts = write_exports(run_dir, stages, cfg.report.sort_mb)
    funnel, figures = take_funnel(stages), take_figures(stages)
    for problem in funnel.problems:
        log.error("the counts do not add up: %s", problem)
    text = markdown(
        cfg,
        funnel,
        figures,
        contamination=take_contamination(run_dir, stages),
        examples=pick(stages, cfg.report.examples, cfg.run_seed),
        sandbox=sandbox,
    )
    write_whole(run_dir / REPORT, text)
    manifest = manifest_of(cfg, stages, funnel, figures, counts, sandbox)
    masked = Masker(os.environ).tree(manifest)
    write_whole(run_dir / MANIFEST, json.dumps(masked, indent=2, default=str) + "\n")
    return Summary(
        dataset=run_dir / DATASET if DATASET in counts else None,
        report=run_dir / REPORT,
        kept=funnel.kept,
        counts=counts,
        problems=funnel.problems,
        standin=is_standin(cfg, figures),
    )


def manifest_of(
    cfg: RunConfig,
    stages: Sequence[SavedStage],
    funnel: Funnel,
    figures: Figures,
    counts: Mapping[str, int],
    sandbox: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything that is needed to tell what a run was."""
    times = [stage.manifest for stage in stages]
    return {
        "name": cfg.name,
        "started": min((str(t["started"]) for t in times), default=None),
        "finished": now(),
        "standin": is_standin(cfg, figures),
        "model": dataclasses.asdict(cfg.model),
        "written_by": figures.models,
        "files": dict(counts),
        "adds_up": not funnel.problems,
        "problems": funnel.problems,
        "funnel": {
            "files": funnel.files,
            "files_dropped": _named(funnel.files_dropped),
            "stages": [
                {
                    "stage": step.name,
                    "rows": step.rows,
                    "kept": step.kept,
                    "dropped": _named(step.dropped),
                }
                for step in funnel.steps
            ],
        },
        "figures": as_data(figures) | {"accepted_per_money": _per_money(cfg, figures)},
        "licenses": figures.licenses,
        "sandbox": sandbox,
        "fingerprints": {stage.name: stage.manifest.get("fingerprint") for stage in stages},
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(),
        "config": dataclasses.asdict(cfg),
    }


def _per_money(cfg: RunConfig, figures: Figures) -> float | None:
    """Rows of the data set for a unit of the price's currency; None without price or GPUs."""
    price, per_gpu = cfg.report.price_per_gpu_hour, figures.accepted_per_gpu_hour
    return per_gpu / price if price and per_gpu is not None else None


def _named(dropped: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{stage}.{reason}": number for (stage, reason), number in dropped.items()}
