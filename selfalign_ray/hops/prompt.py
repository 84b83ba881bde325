"""Prompts: a hop's templates over shots and a row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfalign_ray.errors import UserError
from selfalign_ray.hops.config import HopConfig
from selfalign_ray.hops.shots import Example, named

_CALL = re.compile(r"`([A-Za-z_]\w*)\s*[(`]")


def called_name(instruction: str) -> str:
    """The name that an instruction gives first, as `name(...)` or `name`; empty where none."""
    found = _CALL.search(instruction)
    return found.group(1) if found else ""


class HopPrompt:
    """The compiled templates of one hop."""

    def __init__(self, name: str, hop: HopConfig, examples: Sequence[Example]) -> None:
        """Compiles the templates and renders each of the hop's examples once.

        Raises:
            UserError: a template does not parse, or names a field that is not there or that an
                example lacks.
        """
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
        )
        environment.filters["called_name"] = called_name
        self._templates: dict[str, Template] = {}
        self._shots: dict[tuple[int, str], str] = {}
        for field in ("preamble", "header", "input", "output", "prefix"):
            try:
                self._templates[field] = environment.from_string(getattr(hop, field))
            except TemplateError as error:
                raise UserError(f"recipe.hops.{name}.{field}: {error}") from error
            for example in named(examples, hop.examples):
                try:
                    self._render(field, 1, example.fields())
                except TemplateError as error:
                    raise UserError(
                        f"recipe.hops.{name}.{field}: {error}, for the example {example.name}"
                    ) from error

    def prompt(self, row: Mapping[str, Any], shots: Sequence[Example]) -> tuple[str, str]:
        """Everything the model continues, and the forced start of the answer that it ends with."""
        parts = [self._render("preamble", 0, row)]
        parts += [self._shown(index, shot) for index, shot in enumerate(shots, start=1)]
        last = len(shots) + 1
        parts += [self._render(field, last, row) for field in ("header", "input", "prefix")]
        return "".join(parts), parts[-1]

    def _shown(self, index: int, shot: Example) -> str:
        """A shot at its place, which many rows have the same."""
        if (index, shot.name) not in self._shots:
            fields = shot.fields()
            parts = [self._render(field, index, fields) for field in ("header", "input", "output")]
            self._shots[index, shot.name] = "".join(parts)
        return self._shots[index, shot.name]

    def output(self, example: Example) -> str:
        """What an example answers, whole."""
        return self._render("output", 1, example.fields())

    def _render(self, field: str, index: int, fields: Mapping[str, Any]) -> str:
        return self._templates[field].render(index=index, **fields)
