"""Several engines as one: a prompt goes to the one with least to do, and outlives a dead one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from selfalign_ray.engine.base import EngineDiedError, EngineKilledError, Generation, Prompt
from selfalign_ray.errors import UserError

log = logging.getLogger(__name__)

_DEATHS = 2  # that a prompt may be there for
# Prompts that were there when an engine died are asked again so many at a time: the one that
# kills takes few of the others with it.
_SUSPECTS_AT_ONCE = 4
_RETRY_SECONDS = 0.5  # between two calls to an engine that Ray restarts
_FAREWELLS = 6  # calls that say an engine died for good until it is believed


@dataclass(eq=False)
class _Member:
    actor: Any
    is_up: bool = False
    is_gone: bool = False
    in_flight: int = 0
    last_error: str = ""
    mistake: UserError | None = None  # for which it does not load


def _member(name: str) -> _Member:
    try:
        return _Member(ray.get_actor(name))
    except ValueError as error:
        return _Member(None, is_gone=True, last_error=str(error))


class Fleet:
    """The Engine that the hops see. All of it runs on one event loop."""

    def __init__(self, engines: Sequence[str], *, model: str, rows_in_flight: int) -> None:
        """Prepares to ask the engines.

        Args:
            engines: names of actors with `load` and `generate` as EngineActor has them; one that
                Ray has forgotten has died as often as it may.
            model: that they run.
            rows_in_flight: prompts that one engine has at most, so that the first one up leaves
                work to those that still load.
        """
        self.model = model
        self._most = rows_in_flight
        self._members = [_member(name) for name in engines]
        self._changed = asyncio.Condition()
        self._suspects = asyncio.Semaphore(_SUSPECTS_AT_ONCE)
        self._calls: set[asyncio.Task[None]] = set()

    async def generate(self, prompt: Prompt) -> Generation:
        """As Engine.generate.

        Raises:
            EngineKilledError: two engines died with this prompt in flight.
            EngineDiedError: every engine has died as often as it may.
            UserError: no engine loads as it is set, or a server takes the key no more.
        """
        if not self._calls:
            for member in self._members:
                if not member.is_gone:
                    self._call(member)
        deaths = 0
        while True:
            async with self._suspects if deaths else contextlib.nullcontext():
                member = await self._free_member()
                member.in_flight += 1
                try:
                    made: Generation = await member.actor.generate.remote(prompt)
                except RayTaskError as error:
                    raise error.cause from None  # what the engine raised, and not its traceback
                except RayActorError as error:
                    # It was up when it was asked: all that it had in flight are suspects.
                    deaths += 1
                    self._lost(member, error)
                else:
                    return made
                finally:
                    member.in_flight -= 1
                    async with self._changed:
                        self._changed.notify()
            if deaths >= _DEATHS:
                raise EngineKilledError(f"{deaths} engines died with this prompt in flight")

    async def _free_member(self) -> _Member:
        async with self._changed:
            while True:
                up = [m for m in self._members if m.is_up and m.in_flight < self._most]
                if up:
                    return min(up, key=lambda member: member.in_flight)
                if all(member.is_gone for member in self._members):
                    for member in self._members:
                        if member.mistake:
                            raise member.mistake
                    raise EngineDiedError(
                        f"all {len(self._members)} engines died as often as engine.max_restarts "
                        f"allows; the last one: {self._members[-1].last_error}"
                    )
                await self._changed.wait()

    def _lost(self, member: _Member, error: RayActorError) -> None:
        if member.is_up:
            member.is_up = False
            log.warning("an engine died with %d prompts in flight: %s", member.in_flight, error)
            self._call(member)

    def _call(self, member: _Member) -> None:
        """Waits in the background until the member is up, or gone for good."""
        task = asyncio.get_running_loop().create_task(self._until_up(member))
        self._calls.add(task)

    async def _until_up(self, member: _Member) -> None:
        farewells = 0
        while farewells < _FAREWELLS:
            try:
                await member.actor.load.remote()
                member.is_up = True
                break
            except ActorDiedError as error:
                # Also said, for a moment, of one that Ray is about to restart.
                farewells += 1
                member.last_error = str(error)
            except RayActorError as error:
                member.last_error = str(error)
            except UserError as error:
                member.mistake = getattr(error, "cause", error)
                break
            except Exception as error:
                log.exception("an engine does not load")
                member.last_error = str(error)
                break
            await asyncio.sleep(_RETRY_SECONDS)
        member.is_gone = not member.is_up
        async with self._changed:
            self._changed.notify_all()
