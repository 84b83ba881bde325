"""Few-shot examples: reading them, and which of them a row's prompt shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from selfalign_ray.errors import UserError
from selfalign_ray.ids import keyed_int, keyed_random

KINDS = ("function", "class", "program")
DIFFICULTIES = ("easy", "medium", "hard")
_OPTIONAL = {"idea"}  # parts that an example may lack


@dataclass(frozen=True, kw_only=True)
class Example:
    """One worked example: every hop's input and output."""

    name: str  # of its file
    kind: str  # one of KINDS
    difficulty: str  # one of DIFFICULTIES
    snippet: str
    concepts: list[str]
    instruction: str
    reasoning: str
    solution: str
    explanation: str
    tests: str
    idea: str | None = None  # the concepts as one paragraph of prose; not every example has it

    def fields(self) -> dict[str, Any]:
        """What templates see: the parts that the example has."""
        return {name: part for name, part in vars(self).items() if part is not None}


def read_examples(folder: str | None) -> list[Example]:
    """The examples of a folder of YAML files, by name; null: the project's own.

    Raises:
        UserError: no folder, no file in it, or a file with a part missing, unknown or empty.
    """
    path = Path(folder) if folder else Path(__file__).parent / "examples"
    files = sorted(path.glob("*.yaml"))
    if not files:
        raise UserError(f"recipe.examples: no .yaml file in {path}; give a folder of examples")
    return [_read_example(file) for file in files]


def _read_example(path: Path) -> Example:
    try:
        # The same as safe_load, by libyaml: ten times as fast.
        fields = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"recipe.examples: cannot read {path}: {error}") from error
    if not isinstance(fields, dict):
        raise UserError(f"recipe.examples: {path} must hold named parts")
    known = {field.name for field in dataclasses.fields(Example)} - {"name"}
    for problem, names in (
        ("lacks", known - _OPTIONAL - fields.keys()),
        ("has the unknown", fields.keys() - known),
        ("has an empty", {name for name in known & fields.keys() if not fields[name]}),
    ):
        if names:
            raise UserError(f"recipe.examples: {path} {problem} {', '.join(sorted(names))}")
    _check_choice(path, "kind", fields["kind"], KINDS)
    _check_choice(path, "difficulty", fields["difficulty"], DIFFICULTIES)
    text: dict[str, Any] = {
        k: v.strip("\n") if isinstance(v, str) else v for k, v in fields.items()
    }
    return Example(name=path.stem, **text)


def _check_choice(path: Path, field: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UserError(
            f"recipe.examples: {path}: {field} must be one of {', '.join(allowed)}; got {value!r}"
        )


def named(examples: Sequence[Example], names: str) -> list[Example]:
    """The examples whose names fit one of the globs, with commas between; after a !, the others."""
    negated, globs = names.startswith("!"), names.removeprefix("!").split(",")
    return [e for e in examples if any(fnmatch(e.name, glob) for glob in globs) is not negated]


class ShotSets:
    """The K fixed shot sets of one hop, and the set of each row.

    Fixed sets are long shared prefixes: an engine caches all K, so rows need no routing.
    """

    def __init__(
        self,
        pool: Sequence[Example],
        *,
        hop: str,
        names: str,
        shots: int,
        sets: int | None,
        run_seed: int,
    ) -> None:
        """Draws the sets.

        Raises:
            UserError: fewer examples match `names` than a prompt shows.
        """
        self._pool = named(pool, names)
        if len(self._pool) < shots:
            raise UserError(
                f"recipe.hops.{hop}.shots: {shots} asked for, but {len(self._pool)} examples "
                f"match recipe.hops.{hop}.examples={names!r}"
            )
        self._hop, self._shots, self._run_seed = hop, shots, run_seed
        self._sets = None if sets is None else [self._draw(str(k)) for k in range(sets)]

    def of(self, row_id: str) -> tuple[int | None, list[Example]]:
        """The number and the examples of a row's set; no number where each row has its own."""
        if self._sets is None:
            return None, self._draw(f"row/{row_id}")
        number = keyed_int(32, self._run_seed, "shot_set", self._hop, row_id) % len(self._sets)
        return number, self._sets[number]

    def _draw(self, key: str) -> list[Example]:
        rng = keyed_random(self._run_seed, "shots", self._hop, key)
        return rng.sample(self._pool, k=self._shots)
