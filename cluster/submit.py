#!/usr/bin/env python
"""Submits runs from a laptop to a running Ray cluster, follows them, and stops them on Ctrl-C.

    export RAY_API_SERVER_ADDRESS=http://HEAD:8265     # or --address
    .venv/bin/python cluster/submit.py runs_root=/shared/runs name=big experiment=starcoder2_15b

Overrides are those of `selfalign`, and are checked here before anything is sent. The checkout goes
along without what its .gitignore names, tests and benchmarks (a megabyte), so that the cluster runs
this code. runs_root has to be an absolute folder that every node sees, or a place in a store that
every node has credentials for, such as s3://bucket/runs; the same command goes on with the same
run. Paths in overrides are the cluster's, not this machine's. A cluster that asks for a token gets
the one in RAY_AUTH_TOKEN or ~/.ray/auth_token: the same as on its head node.

    --install cpu|gpu      the nodes install cluster/requirements-*.txt with uv, once a node and
                           version, from the index that their own UV_DEFAULT_INDEX names. Without
                           it they must have the packages: cluster/Containerfile
    --env HF_TOKEN         hands a variable of this shell on, under its name; once for each. Its
                           value stands on no command line, in no log and in no manifest. The
                           dashboard hides it, yet who may submit jobs to the cluster can read it:
                           secrets of many people's clusters belong in the nodes' own environment
    -m key=a,b             a sweep: one job a point, side by side as the cluster has room; each
                           in runs_root/name/<number>, as `selfalign -m` has them. Afterwards
                           `selfalign-compare runs_root/name` compares them
    --detach               does not follow: `ray job logs --follow ID`, `ray job stop ID`

The first Ctrl-C stops the jobs and waits until they have; what they had done is kept. The second
leaves at once, and the jobs end by themselves. The exit code is the job's, of a sweep the
largest; 2: a mistake, said in a line; 130: stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from selfalign_ray.__main__ import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USER_ERROR, said_by_hydra
from selfalign_ray.config import RunConfig, conf_dir, typed
from selfalign_ray.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ["/tests", "/benchmarks", "/dist"]  # besides what .gitignore names
# From SIGTERM to SIGKILL, which Ray would send after 3: more than a run takes to put down what it
# has in flight.
STOP_SECONDS = 300
_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 300.0  # with a cluster that does not answer
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One run to submit."""

    overrides: list[str]
    run_dir: str  # on the cluster

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", "selfalign_ray", *self.overrides])


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_intermixed_args(arguments)
    try:
        points = points_of(options.overrides, is_sweep=options.multirun)
        environment = runtime_env(options.install, options.env)
        client = _client(options.address)
        _check_free(client, points)
    except UserError as error:
        _say(f"error: {error}")
        return EXIT_USER_ERROR
    except (RuntimeError, OSError) as error:
        return _fail(error, [])
    ids: list[str] = []
    try:
        for point in points:
            ids.append(_submit(client, point, environment))
            _say(f"submitted {ids[-1]}: {point.run_dir}")
        if options.detach:
            return 0
        return _follow(client, ids)
    except (UserError, RuntimeError, OSError) as error:
        return _fail(error, ids)
    except KeyboardInterrupt:
        return _stop(client, ids)


def _fail(error: Exception, ids: Sequence[str]) -> int:
    _say(f"error: {' '.join(str(error).split())}")
    if ids:
        _say(f"the jobs go on by themselves: ray job status|logs|stop {' '.join(ids)}")
    return EXIT_FAILED


def points_of(overrides: Sequence[str], *, is_sweep: bool) -> list[Point]:
    """The runs that the overrides ask for, checked as far as this machine can.

    Raises:
        UserError: they do not compose, a value cannot be, or the cluster could not write there.
    """
    try:
        given = list(_swept(overrides)) if is_sweep else [list(overrides)]
        configs = [_config(point) for point in given]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(said_by_hydra(error)) from error
    points = []
    for number, (point, cfg) in enumerate(zip(given, configs, strict=True)):
        if not (cfg.runs_root.startswith("/") or "://" in cfg.runs_root):
            raise UserError(
                "runs_root: must be an absolute folder that every node of the cluster sees, or a "
                f"store's, such as s3://bucket/runs; got {cfg.runs_root}"
            )
        run_dir = f"{cfg.runs_root}/{cfg.name}"
        if is_sweep:
            place = f"hydra.run.dir=${{local_dir:${{runs_root}}}}/${{name}}/{number}"
            given_here = [*point, "hydra.mode=RUN", place]
            points.append(Point(overrides=given_here, run_dir=f"{run_dir}/{number}"))
        else:
            points.append(Point(overrides=point, run_dir=run_dir))
    return points


def _swept(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Every combination of the values, a preset's among them, in the order of `selfalign -m`."""
    parser = OverridesParser.create()
    chosen = [
        override.input_line
        for override in parser.parse_overrides(list(overrides))
        if override.key_or_group == "experiment" and not override.is_sweep_override()
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        whole = compose("run", overrides=chosen, return_hydra_config=True)
    preset = [f"{key}={values}" for key, values in (whole.hydra.sweeper.params or {}).items()]
    parsed = parser.parse_overrides([*preset, *overrides])
    for batch in BasicSweeper.split_arguments(parsed, None):
        yield from batch


def _config(overrides: list[str]) -> RunConfig:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        # Hydra knows the run_dir only where a job runs.
        return typed(compose("run", overrides=[*overrides, "run_dir=/"]))


def runtime_env(install: str | None, names: Sequence[str]) -> dict[str, Any]:
    """What the nodes prepare before the job starts.

    Raises:
        UserError: a variable to hand on is not set here.
    """
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UserError(f"--env: {', '.join(missing)} is not set in this shell; export it first")
    values = {name: os.environ[name] for name in names}
    environment: dict[str, Any] = {
        "working_dir": str(ROOT),
        "excludes": LEFT_OUT,
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **values},
    }
    if install:
        lines = (ROOT / "cluster" / f"requirements-{install}.txt").read_text().splitlines()
        # The files hold all that is needed, and leave out what is not (overrides.txt).
        options = ["--no-deps"]
        if install == "cpu":
            options += ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
            options += ["--index-strategy", "unsafe-best-match"]
        environment["uv"] = {"packages": lines, "uv_pip_install_options": options}
    return environment


def _client(address: str | None) -> Any:
    # Ray's own default sends no token, and so is refused by a head node that has one.
    if "RAY_AUTH_TOKEN" in os.environ or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray
    from ray.job_submission import JobSubmissionClient

    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
    if not address.startswith(("http://", "https://")):
        raise UserError(
            f"--address: {address} is none of the dashboard's; give http://HEAD:8265, not the "
            "address that nodes join at"
        )
    try:
        client = JobSubmissionClient(address)
        version = client._do_request("GET", "/api/version").json()["ray_version"]
    except ray.exceptions.AuthenticationError as error:
        raise UserError(
            f"--address: {address} wants its token: copy ~/.ray/auth_token from the head node, or "
            "export RAY_AUTH_TOKEN"
        ) from error
    except (ConnectionError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(
            f"--address: no Ray dashboard answers at {address} ({' '.join(str(error).split())}); a "
            "cluster on Kubernetes needs `kubectl port-forward service/...-head-svc 8265`"
        ) from error
    if version != ray.__version__:
        raise UserError(
            f"--address: the cluster at {address} runs Ray {version}, this code Ray "
            f"{ray.__version__}; they have to be the same"
        )
    return client


def _check_free(client: Any, points: Sequence[Point]) -> None:
    """That no unfinished job writes one of the run_dirs."""
    wanted = {point.run_dir for point in points}
    for job in client.list_jobs():
        run_dir = (job.metadata or {}).get("run_dir")
        if run_dir in wanted and not job.status.is_terminal():
            raise UserError(
                f"name: {run_dir} is the run of the job {job.submission_id}, which is "
                f"{job.status.value.lower()}; follow it with `ray job logs --follow "
                f"{job.submission_id}`, or give another name"
            )


def _submit(client: Any, point: Point, environment: dict[str, Any]) -> str:
    return str(
        client.submit_job(
            entrypoint=point.command,
            runtime_env=environment,
            metadata={"run_dir": point.run_dir},
        )
    )


def _follow(client: Any, ids: Sequence[str]) -> int:
    """Shows what a single job says, and of several when they begin and end."""
    if len(ids) == 1:
        _show(client, ids[0])
    states: dict[str, str] = {}
    while True:
        infos = {name: _asked(client.get_job_info, name) for name in ids}
        for name, info in infos.items():
            state = info.status.value.lower()
            if states.get(name) != state and (len(ids) > 1 or info.status.is_terminal()):
                _say(f"{name} {_ending(info)}")
            states[name] = state
        if all(info.status.is_terminal() for info in infos.values()):
            return max(_code(info) for info in infos.values())
        time.sleep(_POLL_SECONDS)


def _asked(ask: Callable[[str], T], name: str) -> T:
    """What the cluster says of a job: a laptop may have slept, a tunnel may be opened again.

    Raises:
        OSError: it has not answered for long.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return ask(name)
        except OSError:  # that of requests, in which Ray's client asks, is one too
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _show(client: Any, name: str) -> None:
    """Shows a job's log to its end; where the connection breaks, it goes on from there."""
    shown, ended = _Shown(), False
    while True:
        try:
            asyncio.run(_show_log(client, name, shown))
        except (RuntimeError, OSError):
            if ended:
                return
            ended = _asked(client.get_job_status, name).is_terminal()
            time.sleep(_POLL_SECONDS)
        else:
            return


@dataclasses.dataclass
class _Shown:
    """How much of a log is on the screen."""

    characters: int = 0


async def _show_log(client: Any, name: str, shown: _Shown) -> None:
    import aiohttp  # as Ray's client does

    known = shown.characters
    try:
        async for lines in client.tail_job_logs(name):  # from its beginning
            sys.stdout.write(lines[known:])
            sys.stdout.flush()
            shown.characters += len(lines[known:])
            known = max(0, known - len(lines))
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error


def _ending(info: Any) -> str:
    state = info.status.value.lower()
    if info.status.value == "FAILED":
        # The log has been shown; an environment that could not be made is told here alone.
        why = "" if info.driver_exit_code is not None else f": {_first(info.message)}"
        code = "" if info.driver_exit_code is None else f" with exit code {info.driver_exit_code}"
        return f"{state}{code}{why}"
    return str(state)


def _first(message: str | None) -> str:
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return " ".join(lines[:1] + lines[-1:])[:500] if len(lines) > 1 else "".join(lines)[:500]


def _code(info: Any) -> int:
    if info.status.value == "STOPPED":
        return EXIT_INTERRUPTED
    if info.status.value == "SUCCEEDED":
        return 0
    return int(info.driver_exit_code or EXIT_FAILED)


def _stop(client: Any, ids: Sequence[str]) -> int:
    """Stops what runs, and waits for it; a second Ctrl-C no longer does."""
    _say(f"stopping {' '.join(ids)}; Ctrl-C again leaves at once")
    try:
        running = [name for name in ids if _asked(client.stop_job, name)]
        while running:
            running = [n for n in running if not _asked(client.get_job_status, n).is_terminal()]
            time.sleep(_POLL_SECONDS / 4)
    except (RuntimeError, OSError) as error:
        return _fail(error, ids)
    except KeyboardInterrupt:
        _say("left; the jobs put down what they have in flight and end by themselves")
    else:
        _say("stopped; the same command goes on")
    return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="submit.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--address", metavar="URL")
    parser.add_argument("--install", choices=["cpu", "gpu"])
    parser.add_argument("--env", action="append", default=[], metavar="NAME")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--detach", action="store_true")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"submit.py: {text}\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's end is a Ctrl-C
    sys.exit(main())
