"""What a field of a config dataclass may hold, and the check that reads it.

A dataclass of settings has no defaults (the numbers live in conf/) and no methods but an
optional `problems()` for what concerns two fields at once:

    @dataclass(kw_only=True)
    class SamplingConfig:
        temperature: float = setting(ge=0)  # 0 is greedy
        concurrency: int = setting(ge=1, decides=False)  # speed only: rows stay the same

        def problems(self) -> Iterator[tuple[str, str]]:
            if ...:
                yield "temperature", "must be 0 when ..."
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfalign_ray.errors import UserError


def setting(
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: Sequence[str] | None = None,
    decides: bool = True,
) -> Any:
    """A dataclass field without a default.

    Args:
        ge: the least value, itself allowed.
        gt: the least value, itself refused.
        le: the greatest value, itself allowed.
        choices: the only strings allowed.
        decides: whether the setting decides what the rows are. One that only concerns speed,
            places or looks is no part of a stage's fingerprint.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "choices": choices}
    return dataclasses.field(metadata={"bounds": bounds, "decides": decides})


def check(config: Any, key: str = "") -> None:
    """Checks a tree of config dataclasses.

    Raises:
        UserError: with one line for each setting that cannot be, under its full key.
    """
    problems = [f"{name}: {text}" for name, text in _problems(config, key)]
    if problems:
        raise UserError("\n".join(problems))


def deciding(config: Any) -> Any:
    """The settings that decide rows, as plain data that `json.dumps` takes."""
    if dataclasses.is_dataclass(config):
        return {
            f.name: deciding(getattr(config, f.name))
            for f in dataclasses.fields(config)
            if f.metadata.get("decides", True)
        }
    if isinstance(config, Mapping):
        return {str(k): deciding(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [deciding(v) for v in config]
    return config if isinstance(config, str | int | float | bool | None) else str(config)


def _problems(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            name = f"{key}.{field.name}" if key else field.name
            item = getattr(value, field.name)
            yield from ((name, text) for text in _outside(item, field.metadata.get("bounds", {})))
            yield from _problems(item, name)
        if hasattr(value, "problems"):
            for field_name, text in value.problems():
                yield (f"{key}.{field_name}" if key else field_name), text
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _problems(item, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _problems(item, f"{key}.{index}")


def _outside(value: Any, bounds: Mapping[str, Any]) -> Iterator[str]:
    if value is None:
        return
    choices = bounds.get("choices")
    if choices is not None and value not in choices:
        yield f"must be one of {', '.join(choices)}; got {value!r}"
    if bounds.get("ge") is not None and not value >= bounds["ge"]:
        yield f"must be at least {bounds['ge']}; got {value}"
    if bounds.get("gt") is not None and not value > bounds["gt"]:
        yield f"must be greater than {bounds['gt']}; got {value}"
    if bounds.get("le") is not None and not value <= bounds["le"]:
        yield f"must be at most {bounds['le']}; got {value}"
