"""`selfalign [overrides]`: composes conf/run.yaml, runs the pipeline, reports."""

from __future__ import annotations

import errno
import logging
import sys

import hydra
from omegaconf import DictConfig

from selfalign_ray.config import conf_dir, register_schemas, typed
from selfalign_ray.errors import UserError

log = logging.getLogger(__name__)
register_schemas()

EXIT_FAILED, EXIT_USER_ERROR, EXIT_NOTHING_KEPT, EXIT_INTERRUPTED = 1, 2, 3, 130

_MACHINE_ERRORS = {
    errno.ENOSPC: "no space is left on the disk; make room, and the same command goes on",
    errno.EDQUOT: "the disk quota is used up; make room, and the same command goes on",
    errno.EACCES: "no permission; set runs_root to a folder that can be written",
    errno.EPERM: "no permission; set runs_root to a folder that can be written",
    errno.EROFS: "a read-only file system; set runs_root to a folder that can be written",
}


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="run")
def main(composed: DictConfig) -> None:
    """Runs one job and leaves with its exit code.

    0 done; 1 failed; 2 a mistake of the user's or a lack of the machine's, said in a line;
    3 done, but nothing was kept; 130 interrupted.
    """
    code = _run(composed)
    if code:
        sys.exit(code)


def _run(composed: DictConfig) -> int:
    try:
        cfg = typed(composed)
        # Ray and pyarrow take seconds to import; a mistake in the config is told before.
        from selfalign_ray.job import run_job

        summary = run_job(cfg)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on after the last whole stage")
        return EXIT_INTERRUPTED
    except Exception as error:
        told = _user_error(error)
        if told is not None:
            _say(f"error: {told}")
            return EXIT_USER_ERROR
        log.exception("the run failed")
        _say(f"failed: {type(error).__name__}: {error}")
        return EXIT_FAILED
    if summary.kept:
        return 0
    _say(f"done, but no row was kept; {summary.report} says where they went")
    return EXIT_NOTHING_KEPT


def _user_error(error: BaseException) -> str | None:
    """What to tell the user, where a mistake of theirs or a lack of their machine is the cause."""
    for cause in _causes(error):
        if isinstance(cause, UserError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRORS:
            place = f"{cause.filename}: " if cause.filename else ""
            return f"{place}{_MACHINE_ERRORS[cause.errno]}"
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error, what raised it, and what a Ray worker raised."""
    found: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        this = queue.pop(0)
        if isinstance(this, BaseException) and this not in found:
            found.append(this)
            queue += [getattr(this, "cause", None), this.__cause__, this.__context__]
    return found


def _say(text: str) -> None:
    sys.stderr.write(f"selfalign: {text}\n")


if __name__ == "__main__":
    main()
