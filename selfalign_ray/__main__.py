"""`selfalign [overrides]`: composes conf/run.yaml, runs the pipeline, reports."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from selfalign_ray.config import conf_dir, register_schemas, typed
from selfalign_ray.errors import StoppedError, TakenError, UserError
from selfalign_ray.places import fault_of, shown, stored
from selfalign_ray.watch.masking import Masker, secrets_in

if TYPE_CHECKING:
    from selfalign_ray.report.report import Summary

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


def main() -> None:
    """Runs one job, or the jobs of a sweep, and leaves with the exit code.

    0 done; 1 failed; 2 a mistake of the user's or a lack of the machine's, said in a line;
    3 done, but nothing was kept; 130 interrupted, by Ctrl-C or SIGTERM: the first lets what is in
    flight be finished and written within cluster.grace_seconds, the second does not. A sweep has
    the largest of its jobs', and begins none after one that was interrupted.
    """
    codes: list[int] = []
    swept: list[Path] = []  # run_dirs of a sweep

    @hydra.main(version_base="1.3", config_path=conf_dir(), config_name="run")
    def job(composed: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN and composed["plan"]["rows"] is None:
            swept.append(Path(composed["run_dir"]))
        _mask_settings(composed)
        codes.append(_run(composed))
        if codes[-1] == EXIT_INTERRUPTED:
            sys.exit(EXIT_INTERRUPTED)  # past the jobs of a sweep that would come now

    # argparse takes overrides before the options or after them, and not both.
    words = sorted(pairwise(sys.argv), key=lambda pair: _is_override(*pair))
    sys.argv[1:] = [word for _, word in words]
    # Else Hydra prints a traceback for whatever it does not know, a folder that cannot be made
    # among it, before we can say what to do.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        job()
    except SystemExit:
        if EXIT_INTERRUPTED not in codes:
            raise
    except (HydraException, OmegaConfBaseException) as error:
        _say(f"error: {said_by_hydra(error)}")
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        _say(f"error: runs_root: cannot make {error.filename}: {error.strerror}; set it to another")
        sys.exit(EXIT_USER_ERROR)
    if swept:
        from selfalign_ray.report.comparison import read_job, write_comparison

        folder = Path(os.path.commonpath([run_dir.parent for run_dir in swept]))
        sys.stdout.write(
            "\n" + write_comparison([read_job(path) for path in swept], stored(folder))
        )
    sys.exit(max(codes, default=0))


def _is_override(before: str, word: str) -> bool:
    """Whether a word of the command is no option, nor what one that stands before it takes."""
    is_taken = before.startswith("-") and before not in ("-m", "--multirun") and "=" not in word
    return not word.startswith("-") and not is_taken


def _mask_settings(composed: DictConfig) -> None:
    """Takes the secrets out of what Hydra has written of the settings."""
    masker = _masker(composed)
    written = [*(Path(composed["run_dir"]) / ".hydra").glob("*.yaml")]
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        written.append(Path(HydraConfig.get().sweep.dir) / "multirun.yaml")
    for path in written:
        was = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        masked = masker.tree(was)
        if masked != was:
            OmegaConf.save(OmegaConf.create(masked), path)


def _masker(composed: DictConfig) -> Masker:
    return Masker(os.environ, secrets_in(OmegaConf.to_container(composed, resolve=False)))


# Beginnings of lines with which Hydra and OmegaConf speak of themselves.
_INTERNAL = ("reference_type=", "object_type=", "full_key:", "Value '$V", "provider=", "schema")


def said_by_hydra(error: BaseException) -> str:
    """What Hydra could not compose, and why."""
    said = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
    lines = [line.strip() for text in said for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith((*_INTERNAL, "Config search"))]
    return "\n  ".join(dict.fromkeys(kept))


def _run(composed: DictConfig) -> int:
    try:
        cfg = typed(composed)
        # Ray and pyarrow take seconds to import; a mistake in the config is told before.
        from selfalign_ray.job import plan_job, run_job

        if cfg.plan.rows is None:
            summary = run_job(cfg)
            text = _ending(summary)
        else:
            summary, text = plan_job(cfg)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on with what is written")
        _leave(composed, "interrupted")
        return EXIT_INTERRUPTED
    except StoppedError as stopped:
        _say(f"stopped; what was in flight is written: {stopped}; the same command goes on")
        _leave(composed, "interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        told = _user_error(error, composed["run_dir"])
        if told is not None:
            _say(f"error: {told}")
            if not isinstance(error, TakenError):
                _leave(composed, told)
            return EXIT_USER_ERROR
        log.exception("the run failed")
        _say(f"failed: {type(error).__name__}: {error}")
        _leave(composed, f"{type(error).__name__}: {error}")
        return EXIT_FAILED
    sys.stdout.write(text)
    if summary.problems:
        _say(f"failed: the counts do not add up; {shown(summary.report)} says where")
        return EXIT_FAILED
    if summary.kept:
        return 0
    _say(f"done, but no row was kept; {shown(summary.report)} says where they went")
    return EXIT_NOTHING_KEPT


def _leave(composed: DictConfig, reason: str) -> None:
    """Leaves the reason in the run_dir for whoever compares runs, unless another run has it."""
    from selfalign_ray.job import sole
    from selfalign_ray.mirror import push_notes
    from selfalign_ray.report.comparison import FAILED

    run_dir = Path(composed["run_dir"])
    with contextlib.suppress(Exception), sole(run_dir):  # a store's clients raise what they like
        masked = _masker(composed).text(reason)
        (run_dir / FAILED).write_text(f"{masked}\n", encoding="utf-8")
        push_notes(run_dir)


def _ending(summary: Summary) -> str:
    """Where everything lies, and what to try next."""
    what = ", written by the stand-in: no result" if summary.standin else ""
    places = [
        ("data set", summary.dataset),
        ("to load", summary.folder),
        ("report", summary.report),
    ]
    return "\n".join(
        [
            "",
            f"kept      {summary.kept} row{'s' * (summary.kept != 1)}{what}",
            *(f"{name:<9} {shown(path)}" for name, path in places if path is not None),
            "next      selfalign source=folder source.path=DIR name=mine     your own code",
            "          selfalign model.id=DIR_OR_HUB_ID name=other           another model",
            "          selfalign --help                                      what can be set",
            "",
        ]
    )


def _user_error(error: BaseException, run_dir: str) -> str | None:
    """What to tell the user, where a mistake of theirs or a lack of their machine is the cause."""
    causes = _causes(error)
    for cause in causes:
        if type(cause) in (UserError, TakenError):  # Ray's own subclass of it reads as a traceback
            return str(cause)
    if (told := fault_of(causes, stored(Path(run_dir)))) is not None:
        return told
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRORS:
            # Ray Data puts a text of its own where the path was.
            known = isinstance(cause.filename, str) and Path(cause.filename).is_absolute()
            return f"{cause.filename if known else run_dir}: {_MACHINE_ERRORS[cause.errno]}"
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
