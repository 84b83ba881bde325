"""`selfalign-sandbox`: judges programs from a file, or says what this machine can hold.

selfalign-sandbox run IN.jsonl OUT.jsonl    one row a line: {"id", "code", "tests"}
selfalign-sandbox probe
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from selfalign_ray.config import conf_dir
from selfalign_ray.errors import UserError
from selfalign_ray.sandbox.canaries import fly
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.launch import StartError, Zygote, ladder, plan_of, policy_of
from selfalign_ray.sandbox.pool import Sandbox, require_linux
from selfalign_ray.settings import check

_LINE_START = b'{"id": '
_PROGRESS_SECONDS = 0.5
_PROGRESS_SECONDS_NO_TERMINAL = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code is 2 for a mistake of the user's."""
    options = _parser().parse_args(arguments)
    try:
        config = settings({k: v for k, v in vars(options).items() if v is not None})
        if options.command == "probe":
            return probe(config, sys.stdout)
        return run(config, options.source, options.target)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except BrokenPipeError:  # the reader of `probe | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; run the same command to go on\n")
        return 130


def settings(overrides: dict[str, Any]) -> SandboxConfig:
    """conf/sandbox/default.yaml with changes.

    Raises:
        UserError: a value has another type or cannot be.
    """
    values: Any = OmegaConf.load(Path(conf_dir()) / "sandbox" / "default.yaml")
    del values["defaults"]
    values["slots"] = len(os.sched_getaffinity(0))  # the command has the machine to itself
    names = {field.name for field in dataclasses.fields(SandboxConfig)}
    chosen = {name: value for name, value in overrides.items() if name in names}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(SandboxConfig), values, chosen)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {error.msg or error}") from error
    assert isinstance(config, SandboxConfig)
    check(config)
    return config


def run(config: SandboxConfig, source: Path, target: Path) -> int:
    """Judges what is in `source` and not yet in `target`.

    Raises:
        UserError: one of them cannot be read or written, or is something else.
    """
    if source.exists() and not source.is_file():
        raise UserError(f"{source}: is read twice, and so must be a regular file")
    total = sum(1 for _ in rows(source))
    done = finished(target)
    waiting = (row for row in rows(source) if _key(row["id"]) not in done)
    try:
        added = target.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}") from error
    with added as out, Sandbox(config) as sandbox:
        progress = Progress(total, len(done), sys.stderr)
        _judge_all(sandbox, waiting, out, progress, config.slots)
        progress.show(final=True)
    return 0


def rows(source: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file.

    Raises:
        UserError: the file cannot be read, or a line is no row, with its number.
    """
    try:
        lines = source.open("rb")
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}") from error
    seen = set()
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row = _row(line.removeprefix(b"\xef\xbb\xbf"), f"{source}:{number}")
            if _key(row["id"]) in seen:
                raise UserError(f"{source}:{number}: the id {row['id']!r} is there twice")
            seen.add(_key(row["id"]))
            yield row


def finished(target: Path) -> set[str]:
    """The ids that a partial output has a verdict for.

    What is none is taken away and judged again: a line that was cut off in the middle, and
    `infra`, which says nothing about the program.

    Raises:
        UserError: the file is no output of this command; it stays as it is.
    """
    if not target.exists():
        return set()
    try:
        text = target.read_bytes()
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}") from error
    whole = text.rfind(b"\n") + 1
    tail = text[whole:]
    lines = [line for line in text[:whole].splitlines(keepends=True) if line.strip()]
    try:
        listed = [(json.loads(line), line) for line in lines]
        kept = {_key(row["id"]): line for row, line in listed if row["verdict"] != "infra"}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{target}: is no output of this command ({error!r})") from error
    if not tail.startswith(_LINE_START[: len(tail)]):
        raise UserError(f"{target}: is no output of this command (its last line)")
    try:
        if len(kept) < len(lines):
            place = target.resolve()
            part = place.with_name(f".{place.name}.part")
            part.write_bytes(b"".join(kept.values()))
            part.replace(place)
        elif tail:
            os.truncate(target, whole)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror}") from error
    return set(kept)


def probe(config: SandboxConfig, out: TextIO) -> int:
    """Tries every level, and tells what each layer and each canary did."""
    require_linux()
    best = ""
    for rung in ladder():
        plan = plan_of(config, rung)
        try:
            zygote = Zygote(plan, config.start_seconds)
        except StartError as error:
            out.write(f"{rung.name()}: no ({error})\n\n")
            continue
        try:
            results = fly(zygote, config, rung.level)
        except StartError as error:
            out.write(f"{rung.name()}: no ({error})\n\n")
            continue
        finally:
            zygote.close()
        holds = all(result.held for result in results if result.promised)
        best = best or (rung.level if holds else "")
        out.write(f"{rung.name()}: {'yes' if holds else 'no'}, policy {policy_of(plan)}\n")
        for layer, active in rung.layers().items():
            out.write(f"  {'+' if active else '-'} {layer}\n")
        for result in results:
            word = "held" if result.held else "GOT THROUGH" if result.promised else "open"
            out.write(f"  {word:11}  {result.canary.name} ({result.how})\n")
        out.write("\n")
    out.write(f"best level: {best or 'none'}; asked for: {config.minimum_level} or better\n")
    return 0 if best and best <= config.minimum_level else 2


class Progress:
    """One line that says how far it is; rewritten on a terminal, now and then elsewhere."""

    def __init__(self, total: int, done: int, out: TextIO) -> None:
        self._total, self._done, self._out = total, done, out
        self._first, self._started, self._shown = done, time.monotonic(), 0.0
        self._counts: dict[str, int] = {}

    def add(self, verdict: str) -> None:
        self._done += 1
        self._counts[verdict] = self._counts.get(verdict, 0) + 1
        self.show()

    def show(self, *, final: bool = False) -> None:
        now = time.monotonic()
        live = self._out.isatty()
        if not final and now - self._shown < (
            _PROGRESS_SECONDS if live else _PROGRESS_SECONDS_NO_TERMINAL
        ):
            return
        self._shown = now
        rate = (self._done - self._first) / max(now - self._started, 1e-9)
        counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(self._counts.items()))
        line = f"{self._done}/{self._total} judged, {rate:.0f}/s: {counts or 'nothing to do'}"
        self._out.write(f"\r\033[K{line}" if live else f"{line}\n")
        if live and final:
            self._out.write("\n")
        self._out.flush()


def _judge_all(
    sandbox: Sandbox, waiting: Iterator[dict[str, Any]], out: TextIO, progress: Progress, slots: int
) -> None:
    """A thread a slot takes rows and writes lines, so that no slot waits for another."""
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not failures:
                with lock:
                    row = next(waiting, None)
                if row is None:
                    return
                [verdict] = sandbox.judge([(row["code"], row["tests"])])
                line = json.dumps({"id": row["id"], **dataclasses.asdict(verdict)})
                with lock:
                    out.write(line + "\n")
                    out.flush()
                    progress.add(verdict.verdict)
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: no JSON ({error})") from error
    if not isinstance(row, dict) or "id" not in row or "code" not in row:
        raise UserError(f"{place}: a row is {{'id', 'code', 'tests'}}")
    row = {"tests": "", **row}
    for name in ("code", "tests"):
        if not isinstance(row[name], str | None):
            raise UserError(f"{place}: {name} is no text")
    return row


def _key(identity: Any) -> str:
    return json.dumps(identity, sort_keys=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="selfalign-sandbox", description=(__doc__ or "").split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    judging = commands.add_parser("run", help="judge the programs of a file")
    judging.add_argument(
        "source", type=Path, metavar="IN.jsonl", help='rows {"id", "code", "tests"}'
    )
    judging.add_argument("target", type=Path, metavar="OUT.jsonl", help="added to; may be partial")
    probing = commands.add_parser("probe", help="say which levels and layers this machine holds")
    hints = get_type_hints(SandboxConfig)
    usual = settings({})
    for command in (judging, probing):
        for field in dataclasses.fields(SandboxConfig):
            bounds = field.metadata.get("bounds", {})
            several = hints[field.name] == list[str]
            command.add_argument(
                f"--{field.name.replace('_', '-')}",
                dest=field.name,
                choices=bounds.get("choices"),
                nargs="*" if several else None,
                help=_help(getattr(usual, field.name)),
            )
    return parser


def _help(usual: Any) -> str:
    text = ", ".join(usual) if isinstance(usual, list) else str(usual)
    return f"usually {text}; see conf/sandbox/default.yaml".replace("%", "%%")


if __name__ == "__main__":
    sys.exit(main())
