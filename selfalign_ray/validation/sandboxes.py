"""The sandboxes of a stage: Ray actors, one pool of slots each, that work on blocks of rows."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from selfalign_ray.nodes import cpus_with, slivers
from selfalign_ray.sandbox.config import SandboxConfig
from selfalign_ray.sandbox.pool import Sandbox
from selfalign_ray.validation.config import ExecutionConfig
from selfalign_ray.watch.interrupt import unless_stopping
from selfalign_ray.watch.tally import count, flush, gauge

Work = Callable[[pa.Table, Sandbox], pa.Table]


def in_sandboxes(
    ds: Dataset, stage: str, work: Work, sandbox: SandboxConfig, pool: ExecutionConfig
) -> Dataset:
    """The blocks that `work` makes of each block, as many rows as came in, in any order.

    Args:
        ds: any rows.
        stage: whose rows are counted.
        work: given a block and a sandbox.
        sandbox: what each sandbox enforces.
        pool: how many there are, and how many rows a block has.
    """
    most = max(1, int(cpus_with(sandbox.resources)))
    blocks = ds.repartition(target_num_rows_per_block=pool.rows_per_block)
    return blocks.map_batches(
        _SandboxActor,
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=pool.actors or 1, max_size=pool.actors or most),
        num_cpus=pool.num_cpus,
        resources=slivers(sandbox.resources),
        fn_constructor_kwargs={"stage": stage, "work": work, "config": sandbox},
    )


class _SandboxActor:
    """One sandbox with its slots; the programs of a block are judged together.

    Once the run is to end, a block that was not begun comes back without its rows.
    """

    def __init__(self, *, stage: str, work: Work, config: SandboxConfig) -> None:
        self._stage, self._work = stage, work
        self._sandbox = Sandbox(config)

    def __call__(self, block: pa.Table) -> pa.Table:
        block = unless_stopping(block)
        gauge(self._stage, rows_in_flight=block.num_rows)
        done = self._work(block, self._sandbox)
        gauge(self._stage, rows_in_flight=0)
        count(self._stage, rows=done.num_rows)
        flush()  # the actor is killed right after its last block
        return done
