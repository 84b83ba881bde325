"""Settings of the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from selfalign_ray.settings import setting

PROFILES = ("default", "fork", "strict")
ASSURANCES = ("auto", "shared", "split")
LEVELS = ("A", "B", "C", "D")


@dataclass(kw_only=True)
class SandboxConfig:
    """How generated code is run; the group `sandbox`."""

    resources: list[str] = setting(decides=False)  # noqa: RUF009  custom ones that a node must have
    slots: int = setting(ge=1, decides=False)  # samples that run at once in one actor; a core each
    cpu_seconds: float = setting(gt=0)  # CPU time of a sample, all its threads and processes
    cpu_backstop_seconds: int = setting(ge=1)  # above cpu_seconds: the kernel's own limit
    wall_seconds: float = setting(gt=0)  # from start to end, so that sleeping ends too
    memory_mb: int = setting(ge=16)  # address space of each process above the bare interpreter's
    scratch_mb: int = setting(ge=1)  # size of the temporary folder, which is memory (level A)
    scratch_files: int = setting(ge=16)  # files and folders in it
    file_mb: int = setting(ge=1)  # size of one file
    processes: int = setting(ge=1)  # threads, and processes where the profile allows them
    open_files: int = setting(ge=16)  # descriptors of a process
    output_bytes: int = setting(ge=0)  # kept of stdout and of stderr each; the rest is thrown away
    # default: one process. fork: processes too, for multiprocessing; level A only. strict: imports
    # only the modules of `imports`.
    profile: str = setting(choices=PROFILES)
    imports: list[str]  # what the strict profile may import
    # shared: code and tests in one process. split: in two, which exchange plain data; what does not
    # cross fails. auto: shared; suspicious code that passed must pass split too, or, where its
    # values do not cross and it has no power over its process, fail tests with false expectations.
    assurance: str = setting(choices=ASSURANCES)
    minimum_level: str = setting(choices=LEVELS)  # a machine that offers less is refused
    preload: list[str]  # modules loaded before the fork, in every zygote
    # Modules in further zygotes of the slot, for programs whose text has one of their names: all
    # up to that one, those of the standard library together. Packages go last, the heaviest at the
    # end. Outside the standard library a program finds only what is listed here and is installed.
    preload_if_named: list[str]
    samples_per_zygote: int = setting(ge=1, decides=False)  # then the process is replaced
    attempts: int = setting(ge=1)  # until a sample has run undisturbed, each on a fresh zygote
    start_seconds: float = setting(gt=0, decides=False)  # for a zygote to start and preload

    def problems(self) -> Iterator[tuple[str, str]]:
        if self.wall_seconds < self.cpu_seconds:
            yield "wall_seconds", f"must be at least cpu_seconds; got {self.wall_seconds}"
        if self.profile == "fork" and self.minimum_level != "A":
            yield (
                "minimum_level",
                "must be A for the profile fork: no other level ends all processes",
            )
