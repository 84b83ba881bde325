"""Type checkers on real functions: how often each agrees with Pyright, and its CPU time beside it.

The functions are seeds that meet the rules of conf/seeds, alone with their imports. A checker says
of each whether it has a type error; what it cannot import is none. Pyright, which SelfCodeAlign
filtered with, is the measure. `pyrefly` runs as the stage `typecheck` does; the others are looked
for on PATH, in their default settings, and one that is not there is left out.

PATH=$PATH:... python benchmarks/bench_typecheck.py [--functions 400] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_seeds import config, files_of_packages
from measure import load_average, tell

from selfalign_ray.seeds.functions import extract, limits_of
from selfalign_ray.seeds.quality import judged
from selfalign_ray.seeds.typecheck import first_errors

_FILE = re.compile(r"seed_(\d+)\.py")
_NO_TYPE_ERRORS = ("reportMissingImports", "reportMissingModuleSource")
# Of an import that is not there, or has no stubs.
_UNKNOWN_IMPORT = ("[import", "unresolved-import")
_BLOCKED = "errors prevented further checking"  # of all files, for one that cannot be parsed
Checker = Callable[[Sequence[str]], set[int]]


def real_seeds(count: int) -> list[str]:
    """Seeds that meet the rules, but for that on foreign imports: on those checkers differ."""
    cfg = config("source=installed", "seeds.quality.dependencies=null")
    rules = cfg.seeds.quality
    files = files_of_packages(20 * count)
    seeds = judged(
        extract(files, settings=cfg.seeds.functions, rules=rules),
        rules=rules,
        limits=limits_of(cfg.seeds.functions),
    )
    kept = seeds.filter(seeds["drop_reason"].is_null())["seed"].to_pylist()
    return list(dict.fromkeys(kept))[:count]


def pyrefly(codes: Sequence[str]) -> set[int]:
    """As the stage runs it."""
    return {n for n, error in enumerate(first_errors(codes, 600)) if error is not None}


def pyright(codes: Sequence[str]) -> set[int]:
    said = json.loads(_run(dict(enumerate(codes)), ["pyright", "--outputjson", "."]))
    return {
        _number(one["file"])
        for one in said["generalDiagnostics"]
        if one["severity"] == "error" and one.get("rule") not in _NO_TYPE_ERRORS
    }


def by_lines(command: Sequence[str]) -> Checker:
    """A checker that prints a line an error, with the file's name in it."""

    def check(codes: Sequence[str]) -> set[int]:
        left, found = dict(enumerate(codes)), set[int]()
        while True:
            said = _run(left, command)
            errors = [line for line in said.splitlines() if "error" in line and _FILE.search(line)]
            counted = {
                _number(line)
                for line in errors
                if not any(word in line for word in _UNKNOWN_IMPORT)
            }
            found |= counted
            if _BLOCKED not in said or not counted:
                return found
            left = {number: code for number, code in left.items() if number not in counted}

    return check


CHECKERS: dict[str, Checker] = {
    "pyright": pyright,
    "pyrefly": pyrefly,
    "ty": by_lines(["ty", "check", "--output-format", "concise", "."]),
    "zuban": by_lines(["zuban", "check", "."]),
    "mypy": by_lines(["mypy", "--no-incremental", "--check-untyped-defs", "."]),
}


def _run(codes: Mapping[int, str], command: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        for number, code in codes.items():
            (Path(folder) / f"seed_{number}.py").write_text(code, encoding="utf-8")
        done = subprocess.run(  # noqa: S603
            list(command), cwd=folder, capture_output=True, text=True, check=False
        )
    return done.stdout


def _cpu_of_ended() -> float:
    """CPU seconds of the processes that this one has started and that are over."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _number(text: str) -> int:
    found = _FILE.search(text)
    assert found is not None, text
    return int(found.group(1))


def figures(codes: Sequence[str], rounds: int) -> dict[str, Any]:
    """For each checker there is, its agreement with Pyright and what it costs beside it."""
    here = [name for name in CHECKERS if name == "pyrefly" or shutil.which(name)]
    if "pyright" not in here:
        raise SystemExit("pyright is not on PATH: it is what the others are measured by")
    faults = {name: CHECKERS[name](codes) for name in here}
    seconds: dict[str, list[float]] = {name: [] for name in here}
    for _ in range(rounds):
        for name in here:
            before = _cpu_of_ended()
            CHECKERS[name](codes)
            seconds[name].append(_cpu_of_ended() - before)
    truth = faults["pyright"]
    measure = statistics.median(seconds["pyright"])
    return {
        name: {
            "with_errors": len(faults[name]),
            "agreement": round(1 - len(faults[name] ^ truth) / len(codes), 4),
            "errors_that_pyright_does_not_see": len(faults[name] - truth),
            "errors_that_only_pyright_sees": len(truth - faults[name]),
            "cpu_seconds": [round(s, 2) for s in seconds[name]],
            "ratio_cpu_to_pyright": round(statistics.median(seconds[name]) / measure, 3),
        }
        for name in here
    }


def versions_of(names: Sequence[str]) -> dict[str, str]:
    """What each says of itself."""
    return {
        name: subprocess.run(  # noqa: S603
            [shutil.which(name) or name, "--version"], capture_output=True, text=True, check=False
        ).stdout.strip()
        for name in names
        if name != "pyrefly"
    }


def main() -> None:
    """Measures and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--functions", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, help="a JSON file to write")
    options = parser.parse_args()
    before = load_average()
    codes = real_seeds(options.functions)
    found = figures(codes, options.rounds)
    result = {
        "functions": len(codes),
        "checkers": found,
        "said_versions": versions_of(list(found)),
        "rounds": options.rounds,
    }
    tell(result, load_before=before, packages=["pyrefly"], file=options.results)


if __name__ == "__main__":
    main()
