"""After the last stage, on the driver: exports, report and manifest, from the run_dir alone."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfalign_ray import pipeline
from selfalign_ray.config import RunConfig
from selfalign_ray.errors import UserError
from selfalign_ray.places import shown
from selfalign_ray.report.card import Facts, facts_of, run_id
from selfalign_ray.report.contamination import take_contamination
from selfalign_ray.report.dataset import (
    FOLDER,
    published_schema,
    read_facts,
    sorted_rows,
    write_folder,
)
from selfalign_ray.report.examples import pick
from selfalign_ray.report.exports import DATASET, dataset_stage, write_exports
from selfalign_ray.report.figures import Figures, as_data, is_standin, take_figures
from selfalign_ray.report.funnel import Funnel, take_funnel
from selfalign_ray.report.machine import commit, hardware, versions
from selfalign_ray.report.markdown import markdown
from selfalign_ray.report.saved import SavedStage, chain
from selfalign_ray.stage import now, write_whole
from selfalign_ray.watch.masking import Masker
from selfalign_ray.withdrawn import RECORD, Withdrawn, kinds_of, read_list

log = logging.getLogger(__name__)

REPORT = "pipeline_report.md"
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run ended with."""

    dataset: Path | None  # None where the run stopped before the last stage
    folder: Path | None  # the same, for `datasets.load_dataset`
    report: Path
    kept: int  # rows after the last stage
    problems: list[str]  # counts that do not add up
    standin: bool  # no result: the engine was the stand-in


def report(cfg: RunConfig, run_dir: Path, sandbox: dict[str, Any] | None) -> Summary:
    """Writes the exports, the folder `dataset/`, `pipeline_report.md` and, last, `manifest.json`.

    Args:
        cfg: the run's settings.
        run_dir: with the saved stages of a run that has ended.
        sandbox: what `Sandbox.describe` says; None where nothing was executed.

    Raises:
        UserError: the folder is another run's.
    """
    (run_dir / MANIFEST).unlink(missing_ok=True)  # until all of it is new
    summary, manifest = _write(cfg, run_dir, sandbox)
    _write_manifest(run_dir, manifest)
    return summary


def report_again(cfg: RunConfig, run_dir: Path, manifest: dict[str, Any]) -> list[str]:
    """Writes all that `report` does for a run that has lost rows since.

    Args:
        cfg: the run's settings.
        run_dir: with the saved stages, without those rows.
        manifest: of before, of which only the counts are written anew.

    Returns:
        What does not add up.

    Raises:
        UserError: the folder is another run's.
    """
    summary, new = _write(cfg, run_dir, manifest["sandbox"])
    kept = ("started", "finished", "versions", "commit", "hardware", "config")
    _write_manifest(run_dir, new | {name: manifest[name] for name in kept})
    return summary.problems


def saved_stages(cfg: RunConfig, run_dir: Path) -> list[SavedStage]:
    """The saved stages of a run that led to its last rows."""
    names = [stage.name for stage in pipeline.selected(cfg)]
    whole = [stage.name for stage in pipeline.stages(cfg)]
    # With `stages.until`, what duplicates are out of is a data set already.
    is_dataset = whole.index(names[-1]) >= whole.index("duplicates")
    return chain(run_dir, names, cfg.report.rows_per_batch, names[-1] if is_dataset else None)


def dataset_dir(cfg: RunConfig) -> Path | None:
    """`report.dataset_dir`, absolute; None: the data set is in the run_dir alone."""
    return Path(cfg.report.dataset_dir).absolute() if cfg.report.dataset_dir else None


def check_dataset_dir(cfg: RunConfig) -> None:
    """That `report.dataset_dir`, which need not be there, is this run's to write.

    Raises:
        UserError: it holds something else, such as the data set of another run, or cannot be
            changed over.
    """
    folder = dataset_dir(cfg)
    if folder is None:
        return
    if folder.resolve().is_mount():
        raise UserError(
            f"report.dataset_dir: {folder} is a mount point, and no new folder can take its "
            f"place; give a folder in it, such as {folder / FOLDER}"
        )
    facts = read_facts(folder)
    if facts is not None and facts["run"] == run_id(cfg):
        return
    out = "give each run a folder of its own, or null for one in its run_dir"
    if facts is not None:
        this = f"{cfg.name} in {shown(Path(cfg.run_dir))} ({run_id(cfg)})"
        raise UserError(
            f"report.dataset_dir: {folder} holds the data set of the run {facts['name']} "
            f"({facts['run']}), and this is the run {this}; {out}"
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"report.dataset_dir: {folder} holds something else; {out}")


def _write(
    cfg: RunConfig, run_dir: Path, sandbox: dict[str, Any] | None
) -> tuple[Summary, dict[str, Any]]:
    """Writes all but the manifest, which it gives."""
    stages = saved_stages(cfg, run_dir)
    counts = write_exports(run_dir, stages, cfg.report.sort_mb)
    funnel, figures = take_funnel(stages), take_figures(stages)
    for problem in funnel.problems:
        log.error("the counts do not add up: %s", problem)
    contamination = take_contamination(stages)
    facts = facts_of(cfg, funnel, figures, contamination)
    folder = _write_folder(cfg, run_dir, stages, facts)
    text = markdown(
        cfg,
        funnel,
        figures,
        contamination=contamination,
        examples=pick(stages, cfg.report.examples, cfg.run_seed),
        sandbox=sandbox,
    )
    write_whole(run_dir / REPORT, text)
    summary = Summary(
        dataset=run_dir / DATASET if DATASET in counts else None,
        folder=folder,
        report=run_dir / REPORT,
        kept=funnel.kept,
        problems=funnel.problems,
        standin=is_standin(cfg, figures),
    )
    return summary, manifest_of(cfg, stages, funnel, figures, counts, sandbox)


def _write_folder(
    cfg: RunConfig, run_dir: Path, stages: Sequence[SavedStage], facts: Facts
) -> Path | None:
    stage, own = dataset_stage(stages), run_dir / FOLDER
    if stage is None:
        shutil.rmtree(own, ignore_errors=True)  # of an earlier run that went further
        return None
    check_dataset_dir(cfg)
    folder = dataset_dir(cfg) or own
    lists = [path for path in (run_dir / RECORD, folder / RECORD) if path.exists()]
    gone = Withdrawn(frozenset(entry for path in lists for entry in read_list(path).entries))
    rows = sorted_rows(stage, run_dir / f".{FOLDER}.rows", cfg.report.sort_mb)
    kept = (row for row in rows if not kinds_of(row, gone))
    write_folder(folder, kept, published_schema(), facts | {"withdrawn": len(gone.entries)})
    return folder


def _write_manifest(run_dir: Path, manifest: dict[str, Any]) -> None:
    masked = Masker(os.environ).tree(manifest)
    write_whole(run_dir / MANIFEST, json.dumps(masked, indent=2, default=str) + "\n")


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
        "partial": bool(funnel.left_out),
        "left_out": funnel.left_out,
        "resumed": {
            stage: {"found_done": done, "done_again_at_most": again}
            for stage, (done, again) in funnel.resumed.items()
        },
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
