"""Settings of the report. None of them decides what the rows are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.places import is_url
from selfalign_ray.settings import setting


@dataclass(kw_only=True)
class ReportConfig:
    """What the report shows, and what it may take to make it."""

    examples: int = setting(ge=0, decides=False)  # accepted pairs shown whole in the report
    example_chars: int = setting(ge=80, decides=False)  # of a text in an example, before it is cut
    price_per_gpu_hour: float | None = setting(ge=0, decides=False)  # any currency; null: no cost
    rows_per_batch: int = setting(ge=1, decides=False)  # read at once
    sort_mb: int = setting(ge=1, decides=False)  # of lines sorted in memory, the rest on disk
    rows_per_file: int = setting(ge=1, decides=False)  # of the folder dataset/, at most
    dataset_dir: str | None = setting(decides=False)  # that folder; null: run_dir/dataset

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.dataset_dir is not None and is_url(self.dataset_dir):
            yield (
                "dataset_dir",
                "must be a folder; the data set of a run in a store lies there as dataset/",
            )
