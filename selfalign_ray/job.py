"""One job on the driver: Ray, logs, display, the pipeline, the report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, SupportsIndex, TextIO

import ray
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from ray.data import DataContext

from selfalign_ray import pipeline
from selfalign_ray.config import ClusterConfig, RunConfig
from selfalign_ray.engine.actor import stop_engines
from selfalign_ray.engine.config import ignored
from selfalign_ray.errors import TakenError, UserError
from selfalign_ray.hops.generate import pool_of, pools_of
from selfalign_ray.lease import is_of_here, leased, new_token, this_process
from selfalign_ray.mirror import mirrored
from selfalign_ray.nodes import (
    check_nodes,
    check_versions,
    describe_sandbox,
    least_cpus,
    setup_for,
)
from selfalign_ray.places import lock, shown, stored
from selfalign_ray.report.comparison import FAILED
from selfalign_ray.report.machine import versions
from selfalign_ray.report.projection import slice_of
from selfalign_ray.report.projection_text import write_projection
from selfalign_ray.report.report import (
    MANIFEST,
    Summary,
    check_dataset_dir,
    report,
    saved_stages,
)
from selfalign_ray.resume import groups_of
from selfalign_ray.run import check_first_rows_of, check_stages, run_stages
from selfalign_ray.watch.display import Display
from selfalign_ray.watch.interrupt import interruptible
from selfalign_ray.watch.logs import setup_driver, setup_worker
from selfalign_ray.watch.masking import secrets_in
from selfalign_ray.watch.tally import start_tally, stop_tally

log = logging.getLogger(__name__)

# The least logical CPUs of a local Ray: a plan of three operators on two CPUs can wait for itself.
_LEAST_CPUS = 4
# Of a local Ray. A process takes seconds to start, and after one of idleness Ray ends those beyond
# a few: each stage started anew what the one before it had just left. Those that it starts before
# there is work have no runtime environment, and none of ours can run in them.
LOCAL_SYSTEM = {
    "idle_worker_killing_time_threshold_ms": 30_000,
    "prestart_worker_first_driver": False,
}
_LOCAL_ENVIRONMENT = {  # of workers on one machine
    # Their own processes, vLLM's core among them, look for no modules where the command runs.
    "PYTHONSAFEPATH": "1",
    # By these Ray Data gives each half of a shuffle processes of its own, which keeps the memory of
    # many large ones apart; where all workers carry them, the halves share a process.
    "RAY_DATA_SHUFFLE_MAP_WORKER": "1",
    "RAY_DATA_SHUFFLE_REDUCE_WORKER": "1",
    # Arrow's allocator would keep the largest block that a worker has seen.
    "MIMALLOC_PURGE_DELAY": "0",
}


def run_job(cfg: RunConfig) -> Summary:
    """Runs the pipeline and reports on it.

    Raises:
        UserError: a setting, path, model or machine does not do; said before Ray starts where it
            can be known by then.
        StoppedError: the run was asked to end, and has.
    """
    run_dir = Path(cfg.run_dir)
    check_stages(cfg)
    check_dataset_dir(cfg)
    with sole(run_dir) as held, mirrored(run_dir, held):
        (run_dir / FAILED).unlink(missing_ok=True)
        setup_driver(run_dir, secrets_of(cfg))
        log.info("run %s in %s", cfg.name, shown(run_dir))
        check_first_rows_of(cfg)
        table = pipeline.selected(cfg)
        names, groups = [stage.name for stage in table], groups_of(table)
        asked = [pool_of(cfg, stage.hop) for stage in table if stage.hop]
        pools = {name: (model, engine) for name, model, engine in asked}
        with _ray(cfg.cluster, cfg.name, least_cpus(cfg, groups, pools)):
            check_nodes(cfg, groups, pools)
            # Before the work, which would be for nothing on nodes without the least level.
            sandbox = describe_sandbox(cfg.sandbox) if "execution" in names else None
            for line in ignored_in_pools(cfg):
                log.warning("%s", line)
            cluster = cfg.cluster
            table_of = Display(names, cluster.progress_seconds, stall_seconds=cluster.stall_seconds)
            with interruptible(cluster.grace_seconds):
                with table_of as display:
                    run_stages(cfg, display, keep_engines=_is_sweep())
                return report(cfg, run_dir, sandbox)


def secrets_of(cfg: RunConfig) -> list[str]:
    """Values that no log is to show: in the settings, and in the variables that they name."""
    engines = [cfg.engine, *(pool.engine for pool in cfg.generation.pools.values())]
    keys = [os.environ.get(engine.api_key_env or "", "") for engine in engines]
    return [*filter(None, keys), *secrets_in(dataclasses.asdict(cfg))]


def plan_job(cfg: RunConfig) -> tuple[Summary, str]:
    """Runs a small slice, and projects from it what `plan.rows` accepted rows would take.

    Returns:
        What the slice ended with, and the projection, which lies beside its report as well.

    Raises:
        UserError, StoppedError: as run_job.
    """
    part = slice_of(cfg)
    summary, run_dir = run_job(part), Path(part.run_dir)
    stages = saved_stages(part, run_dir)
    nodes = json.loads((run_dir / MANIFEST).read_text())["hardware"]["cluster"]
    with sole(run_dir) as held, mirrored(run_dir, held):
        text = write_projection(cfg, stages, run_dir, cpus=sum(n["cpus"] for n in nodes))
    return summary, text


@contextlib.contextmanager
def sole(run_dir: Path) -> Iterator[Callable[[], bool]]:
    """Holds the run_dir for this process, in its store too; gives whether it still does.

    Raises:
        TakenError: another run has it.
        UserError: it cannot be a run_dir.
    """
    if not run_dir.is_absolute():
        raise UserError(f"runs_root: must be absolute or relative to a folder; got {run_dir}")
    if "/runtime_resources/" in str(run_dir):
        raise UserError(
            f"runs_root: {run_dir} lies in Ray's package cache, which goes with the job; give an "
            "absolute folder on shared storage"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("a+") as file:
        try:
            lock(file, "runs_root", wait=False)
        except BlockingIOError as error:
            file.seek(0)
            other = file.readline().strip()
            raise TakenError(f"run_dir: {shown(run_dir)} is in use by {other}") from error
        file.seek(0)
        before = file.read().partition("\n")[2]  # who had it here before, and has ended
        token = new_token()
        store = stored(run_dir)
        if isinstance(store, Path):
            _set_down(file, "")
            yield lambda: True
            return
        with leased(store, token, before if is_of_here(before) else None) as lease:
            _set_down(file, token)
            yield lambda: lease.fault is None


def _set_down(file: TextIO, token: str) -> None:
    """Says in a locked file which process has it, and what it is called in the store."""
    file.seek(0)
    file.truncate()
    file.write(f"{this_process()}\n{token}")
    file.flush()


def worker_runtime(*, is_local: bool) -> dict[str, Any]:
    """The runtime environment of every worker."""
    setup = _setup_here if is_local else setup_for(versions())
    runtime: dict[str, Any] = {"worker_process_setup_hook": setup}
    if is_local:
        runtime["env_vars"] = _LOCAL_ENVIRONMENT
    if is_local and shlex.quote(sys.executable) != sys.executable:
        # Ray starts such a worker through a shell without quoting the interpreter's path, and
        # waits for ever for one whose path has a space in it.
        runtime["py_executable"] = shlex.quote(sys.executable)
    return runtime


def _setup_here() -> None:
    """What a worker of a local Ray does first.

    Ray has it look for modules in the folder where the command runs before all others, and what
    lies there may be the code that seeds are made of: a numpy.py would run, outside the sandbox.
    """
    setup_worker()
    sys.path = _PathWithoutHere(sys.path)


class _PathWithoutHere(list[str]):
    """Takes the folder of this process no more where it is put first; PYTHONPATH may name it."""

    def insert(self, place: SupportsIndex, folder: str) -> None:
        if folder != os.getcwd():  # noqa: PTH109  as Ray spells it
            super().insert(place, folder)


def configure_ray_data() -> None:
    """Ray Data's settings, for this process and the plans that it makes."""
    context = DataContext.get_current()
    context.enable_progress_bars = False  # the display shows what these would
    context.print_on_execution_start = False
    # Else a UserError of a worker arrives as text.
    context.raise_original_map_exception = True
    # The newer reader starts actors to read the footers of a handful of files: on two cores it
    # made a stage of four rows take 27 s instead of 4.
    context.use_datasource_v2 = False


@contextlib.contextmanager
def _ray(cluster: ClusterConfig, run: str, cpus: float) -> Iterator[None]:
    """A connection to the cluster, or a local Ray; one that was there before is left running.

    A local one has `cpus` logical CPUs at the least. The jobs of a sweep share one, which ends with
    the process.
    """
    ours = not ray.is_initialized()
    if ours:
        _connect(cluster, cpus)
    configure_ray_data()
    start_tally(run)
    try:
        yield
    finally:
        stop_tally()
        if not _is_sweep():
            stop_engines()
            if ours:
                ray.shutdown()


def ignored_in_pools(cfg: RunConfig) -> list[str]:
    """One line for each setting that somebody gave and that its pool's engines do not look at."""
    lines = []
    for name, (model, engine) in pools_of(cfg).items():
        for key in ignored(engine, model):
            value = attrgetter(key)
            at = f"generation.pools.{name}."
            if value(SimpleNamespace(model=model, engine=engine)) == value(cfg):
                if engine.kind != cfg.engine.kind:
                    continue  # what the pool has from `engine` nobody gave it
                at = ""
            lines.append(f"{at}{key} changes nothing: {at}engine.kind is {engine.kind}")
    return list(dict.fromkeys(lines))


def _connect(cluster: ClusterConfig, cpus: float) -> None:
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    is_local = address == "local"  # a Ray of this machine that nobody named is left alone
    local: dict[str, Any] = {}
    if is_local:
        megabytes = cluster.object_store_mb
        cores = len(os.sched_getaffinity(0))
        local = {
            "num_cpus": cluster.num_cpus or max(_LEAST_CPUS, cores, math.ceil(cpus)),
            "include_dashboard": False,
            "object_store_memory": megabytes * 1024 * 1024 if megabytes else None,
            "_system_config": LOCAL_SYSTEM,
        }
    try:
        ray.init(
            address=address,
            log_to_driver=False,  # records come through the tally; output of libraries does not
            logging_level=logging.WARNING,
            runtime_env=worker_runtime(is_local=is_local),
            **local,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        if is_local:
            raise
        # A version mismatch and a missing token say so themselves.
        reason = " ".join(str(error).split())
        raise UserError(f"cluster.address: cannot join {address}: {reason}") from error
    if not is_local:
        try:
            check_versions(versions())
        except UserError:
            ray.shutdown()  # else the next job of a sweep takes it for checked
            raise


def _is_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
