"""The file system that a sample sees at level A: the interpreter and an empty scratch, read-only.

Everything keeps its path, and the folders above it are the view's own: an interpreter in a home
that is closed to others is reached all the same.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path

from selfalign_ray.sandbox import kernel

SHARED = "/dev/shm"  # noqa: S108 - inside the view, a file system of its own
DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
# What C libraries read besides: shared objects, locales, time zones, terminal descriptions.
_SYSTEM = [
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache",
    "/etc/localtime", "/usr/share/zoneinfo", "/usr/share/locale",
]  # fmt: skip
_TMP, _BELOW = "/tmp", "/.below"  # noqa: S108 - the view's own
_CLOCK_REALTIME_COARSE = 5  # linux/time.h; the clock of files' times
_BASE = "/dev"  # where the view is put together: a folder that is always there


def interpreter_paths() -> list[str]:
    """The standard library and the shared libraries below it."""
    found = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    found.add(f"{sys.base_prefix}/lib")  # conda and others keep what extension modules load there
    library = sysconfig.get_config_var("LIBDIR")
    shared = sysconfig.get_config_var("INSTSONAME")
    if library and shared:
        found.add(f"{library}/{shared}")
    found.update(path for path in sys.path if path.endswith("lib-dynload"))
    return sorted(path for path in found if os.access(path, os.R_OK))


def package_paths(folders: Iterable[str]) -> list[str]:
    """The loaded packages and their bundled libraries (`numpy.libs`), of all in these folders."""
    tops = {name.partition(".")[0] for name in sys.modules}
    out = []
    for folder in folders:
        for entry in sorted(Path(folder).iterdir()):
            top, _, rest = entry.name.partition(".")
            if top in tops and (rest in {"", "libs", "py"} or rest.endswith("so")):
                out.append(str(entry))
    return out


def readable(packages: Iterable[str]) -> list[str]:
    """Every path that a sample may read, outermost only."""
    paths = [p for p in [*_SYSTEM, *interpreter_paths(), *packages] if os.access(p, os.R_OK)]
    real = sorted({*paths, *(os.path.realpath(p) for p in paths)})
    return [p for p in real if not any(p.startswith(f"{other}/") for other in real)]


def scratch_folders(packages: Iterable[str]) -> list[str]:
    """Where a sample may write, its working folder first.

    That is /tmp, unless the interpreter or a package lies there: then /tmp shows these too.
    """
    hidden = any(path.startswith(f"{_TMP}/") for path in readable(packages))
    return ["/scratch", _TMP] if hidden else [_TMP]


class View:
    """The paths of a view, held open while the worker's user still reaches them."""

    def __init__(self, packages: Iterable[str], folders: Iterable[str]) -> None:
        self._folders = list(folders)
        paths = readable(packages)
        self._links = {p: str(Path(p).readlink()) for p in paths if Path(p).is_symlink()}
        held = [path for path in [*paths, *DEVICES] if path not in self._links]
        self._sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in held}
        # What a scratch at /tmp would hide, and shows instead: folders, files and links.
        self.below = {p for p in held if p.startswith(f"{_TMP}/")}
        self.links_below = {p: to for p, to in self._links.items() if p.startswith(f"{_TMP}/")}

    def enter(self) -> None:
        """Makes the view the root of this process; needs a mount namespace of its own.

        The user must be one that the namespace knows: others cannot make files.
        """
        os.umask(0o022)
        kernel.mount("none", "/", "", kernel.PRIVATE | kernel.RECURSIVE)
        kernel.mount("tmpfs", _BASE, "tmpfs", kernel.NO_SUID | kernel.NO_DEV, "size=1m,mode=755")
        for path, link in self._links.items():
            _link(_BASE + path, link)
        for path, source in self._sources.items():
            target = _BASE + (_BELOW if path in self.below else "") + path
            _bind(f"/proc/self/fd/{source}", target, folder=_is_folder(source))
            if path not in DEVICES:
                kernel.make_read_only(target)
            os.close(source)
        for folder in self._folders:
            Path(_BASE + folder).mkdir(parents=True, exist_ok=True)
        os.chdir(_BASE)
        kernel.pivot_root(".", ".")
        kernel.unmount(".")
        os.chdir("/")
        flags = kernel.REMOUNT | kernel.BIND | kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_DEV
        kernel.mount("none", "/", "", flags)


def _is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def _link(path: str, to: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).symlink_to(to)


def _bind(source: str, target: str, *, folder: bool) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    if folder:
        Path(target).mkdir(exist_ok=True)
    else:
        Path(target).touch()
    kernel.mount(source, target, "", kernel.BIND | kernel.RECURSIVE)


class Scratch:
    """The folders that a sample may write into; made anew once a sample has written.

    Whether one has is read off the change times of folders, which no sample can set.
    """

    def __init__(self, view: View, folders: list[str], *, megabytes: int, files: int) -> None:
        self._view, self._folders = view, folders
        self._options = f"size={megabytes}m,nr_inodes={files},mode=1777"
        parents = {parent for path in (*view.below, *view.links_below) for parent in _above(path)}
        self._watched = [*folders, *sorted(parents)]
        self._clean: list[tuple[int, ...]] = []

    def mount(self) -> None:
        flags = kernel.NO_SUID | kernel.NO_DEV | kernel.NO_EXEC
        for folder in self._folders:
            kernel.mount("tmpfs", folder, "tmpfs", flags, self._options)
        for path in sorted(self._view.below):
            _bind(_BELOW + path, path, folder=Path(_BELOW + path).is_dir())
        for path, to in self._view.links_below.items():
            _link(path, to)
        os.chdir(self._folders[0])
        self._clean = self._state()
        # Before Linux 6.13 a change has the time of the last tick: one in this would not be seen.
        tick = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
        while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) == tick:
            time.sleep(0.001)

    def touched(self) -> bool:
        try:
            return self._state() != self._clean
        except OSError:  # a folder has another name
            return True

    def unmount(self) -> None:
        os.chdir("/")
        for folder in self._folders:
            kernel.unmount(folder)

    def _state(self) -> list[tuple[int, ...]]:
        stats = [Path(folder).stat() for folder in self._watched]
        return [(s.st_ctime_ns, s.st_mtime_ns, s.st_mode, s.st_uid) for s in stats]


def _above(path: str) -> list[str]:
    """The folders between the scratch at /tmp and what it shows, which are the scratch's own."""
    return [str(p) for p in Path(path).parents if str(p).startswith(f"{_TMP}/")]
