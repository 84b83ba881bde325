"""The whole run's settings: one field a group of conf/, one dataclass a section.

The numbers live in conf/ alone; a dataclass carries type, unit, meaning and check (settings.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from selfalign_ray.decontamination.config import DecontaminationConfig
from selfalign_ray.engine.config import EngineConfig, ModelConfig
from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import GenerationConfig, RecipeConfig
from selfalign_ray.places import local_dir
from selfalign_ray.report.config import ReportConfig
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.seeds.config import (
    FolderSource,
    InstalledSource,
    SeedsConfig,
    SourceConfig,
    TableSource,
)
from selfalign_ray.selection.config import SelectionConfig
from selfalign_ray.settings import check, setting
from selfalign_ray.validation.config import ValidationConfig


@dataclass(kw_only=True)
class ClusterConfig:
    """The Ray cluster that the run uses."""

    address: str | None = setting(decides=False)  # null: RAY_ADDRESS, else a local Ray
    autoscaling: bool = setting(decides=False)  # nodes join by demand: wait for what none has yet
    # Logical CPUs of a local Ray; null: as many as cores, or as what runs at the same time needs.
    num_cpus: int | None = setting(ge=1, decides=False)
    object_store_mb: int | None = setting(ge=80, decides=False)  # of a local Ray; null: Ray decides
    progress_seconds: float = setting(gt=0, decides=False)  # between lines where no terminal is
    grace_seconds: float = setting(gt=0, decides=False)  # for what is in flight, once asked to end
    stall_seconds: float = setting(gt=0, decides=False)  # without progress, until stacks are logged


@dataclass(kw_only=True)
class StagesConfig:
    """How far the run goes, and what it leaves on the way."""

    until: str | None = setting(decides=False)  # the last stage or hop to run; null: all
    rows_per_file: int = setting(ge=1, decides=False)  # at least, in a saved stage
    # The same where a row costs sandboxes; where it costs engines, as many as they have in flight.
    rows_per_shard: int = setting(ge=1, decides=False)
    cache: str | None = setting(decides=False)  # folder of stages that runs share; null: none


@dataclass(kw_only=True)
class ReplayConfig:
    """What a run that goes on does again."""

    errors: bool = setting(decides=False)  # the rows that failed by error


@dataclass(kw_only=True)
class StartConfig:
    """Entering the pipeline in the middle, with rows made elsewhere."""

    stage: str | None  # the first stage or hop to run
    rows: str | None  # glob of JSONL or Parquet files with that stage's columns


@dataclass(kw_only=True)
class PlanConfig:
    """A projection out of a small slice, in place of the run: `run_dir/plan/`."""

    rows: int | None = setting(ge=1, decides=False)  # accepted, to project for; null: the run
    seeds: int = setting(ge=1, decides=False)  # that the slice takes through the hops
    files: int = setting(ge=1, decides=False)  # at most that it reads to find them


@dataclass(kw_only=True)
class RunConfig:
    """What `selfalign` composes from conf/run.yaml."""

    run_seed: int  # keys every random choice, with the row's id
    # Folder of all runs: on a cluster shared and absolute, or in a store, s3://... or gs://...
    runs_root: str = setting(decides=False)
    name: str = setting(decides=False)  # of the run; the same name goes on with the same run
    run_dir: str = setting(decides=False)  # runs_root/name; of a store what stands for it here
    finalize: bool = setting(decides=False)  # a data set of what is done; no engine is asked
    source: SourceConfig
    seeds: SeedsConfig
    decontamination: DecontaminationConfig
    recipe: RecipeConfig
    generation: GenerationConfig
    model: ModelConfig
    engine: EngineConfig
    sandbox: SandboxConfig
    validation: ValidationConfig
    selection: SelectionConfig
    report: ReportConfig
    cluster: ClusterConfig
    stages: StagesConfig
    replay: ReplayConfig
    start: StartConfig
    plan: PlanConfig

    def problems(self) -> Iterator[tuple[str, str]]:
        if any(not part or part.startswith(".") for part in self.name.split("/")):
            yield (
                "name",
                f"must be a folder below runs_root, no part with a dot first; got {self.name!r}",
            )
        if self.finalize and self.replay.errors:
            yield "finalize", "asks no engine; leave replay.errors out, or let the run go on"
        if self.plan.rows is None:
            return
        if self.start.stage or self.start.rows:
            yield (
                "plan.rows",
                "a slice is drawn from the source; leave start.stage and start.rows out",
            )
        if self.stages.until:
            yield "plan.rows", "rows are accepted by the last stage; leave stages.until out"


SCHEMAS = {
    (None, "run_schema"): RunConfig,
    ("source", "installed_schema"): InstalledSource,
    ("source", "folder_schema"): FolderSource,
    ("source", "table_schema"): TableSource,
    ("seeds", "schema"): SeedsConfig,
    ("decontamination", "schema"): DecontaminationConfig,
    ("recipe", "schema"): RecipeConfig,
    ("generation", "schema"): GenerationConfig,
    ("model", "schema"): ModelConfig,
    ("engine", "schema"): EngineConfig,
    ("sandbox", "schema"): SandboxConfig,
    ("validation", "schema"): ValidationConfig,
    ("selection", "schema"): SelectionConfig,
    ("report", "schema"): ReportConfig,
    ("cluster", "schema"): ClusterConfig,
}


def register_schemas() -> None:
    """Tells Hydra the type of each group, so that a misspelt or ill-typed key fails at start.

    And what `${local_dir:...}` is, of a runs_root that may be in a store.
    """
    OmegaConf.register_new_resolver("local_dir", local_dir, replace=True)
    store = ConfigStore.instance()
    for (group, name), node in SCHEMAS.items():
        store.store(group=group, name=name, node=node)


def conf_dir() -> str:
    """The folder conf/, absolute: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    packaged = package / "conf"
    return str(packaged if packaged.is_dir() else package.parent / "conf")


def config_of(said: Mapping[str, Any]) -> RunConfig:
    """The settings of a run, out of what its manifest says.

    Raises:
        UserError: they are not such as these of now.
    """
    kinds = {"installed": InstalledSource, "folder": FolderSource}
    try:
        fields = OmegaConf.structured(RunConfig)
        fields.source = OmegaConf.structured(kinds.get(said["source"]["kind"], TableSource))
        merged = OmegaConf.merge(fields, said)
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        raise UserError(f"config: {error}") from error
    return typed(merged)


def typed(composed: Any) -> RunConfig:
    """The composed config as dataclasses, checked.

    Raises:
        UserError: a value is missing, has another type or cannot be, under its full key.
    """
    try:
        config = OmegaConf.to_object(composed)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: must be given") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key or 'config'}: {error.msg or error}") from error
    assert isinstance(config, RunConfig)
    check(config)
    return config
