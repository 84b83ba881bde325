"""The system calls that Python has no function for, through ctypes; each raises OSError.

The jailed processes load this before their jail closes.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import struct
from pathlib import Path
from typing import Any

from selfalign_ray.sandbox.bpf import ARCHITECTURES
from selfalign_ray.sandbox.syscalls import numbers

# Those that end a process by default, without what Python or the worker has a use for.
FATAL_SIGNALS = (1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 26, 27, 29, 30, 31)
MESSAGE_BYTES = 1 << 17  # the longest between worker and zygote: the plan

# linux/sched.h
NEW_MOUNTS, NEW_UTS, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USER, NEW_PIDS, NEW_NET = 0x10000000, 0x20000000, 0x40000000

# linux/mount.h, sys/mount.h
READ_ONLY, NO_SUID, NO_DEV, NO_EXEC = 1, 2, 4, 8
REMOUNT, BIND, RECURSIVE, PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_DETACH = 2  # umount2

# linux/prctl.h
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _CAPBSET_DROP = 1, 4, 22, 24
_SET_SECUREBITS, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS, _SET_THP_DISABLE = 28, 36, 38, 41
_SECCOMP_MODE_FILTER = 2
# SECBIT_NOROOT, NO_SETUID_FIXUP and their locks: no capability comes or goes with a user id.
_SECUREBITS = 0x0F
_LAST_CAPABILITY = 63  # more than any kernel has; the rest answer EINVAL
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3

# linux/landlock.h: the rights of each version, by version
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
_NET_RIGHTS_SINCE, _NET_RIGHTS = 4, 0x3  # bind and connect TCP
_SCOPES_SINCE, _SCOPES = 6, 0x3  # abstract sockets, signals
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 0x2, 0x4, 0x8, 0x4000
_MAKE_DEVICES = 0x40 | 0x800  # character, block
_EXECUTE, _IOCTL_DEVICES = 0x1, 0x8000

_libc = ctypes.CDLL(None, use_errno=True)
_MACHINE = os.uname().machine
# Others have no jail: `pool.require_linux` says so, once somebody asks for one.
_NUMBERS = numbers(_MACHINE) if _MACHINE in ARCHITECTURES else {}
_RESTRICT_SELF = ctypes.c_long(_NUMBERS.get("landlock_restrict_self", -1))
_CAPSET_NOTHING = (
    ctypes.c_long(_NUMBERS.get("capset", -1)),
    ctypes.c_char_p(struct.pack("=Ii", _CAPABILITY_VERSION, 0)),
    ctypes.c_char_p(bytes(24)),
)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _call(name: str, *arguments: Any) -> int:
    _libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(_NUMBERS[name]), *words), name)


def _prctl(option: int, *arguments: Any) -> None:
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(option, *words), f"prctl {option}")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    _checked(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    words = [os.fsencode(t) for t in (source, target, kind)]
    result = _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options))
    _checked(result, f"mount {target}")


def unmount(target: str) -> None:
    _checked(_libc.umount2(os.fsencode(target), _DETACH), f"umount {target}")


def make_read_only(target: str) -> None:
    """Makes a bind mount and all that is mounted below it read-only."""
    attributes = struct.pack("=QQQQ", 0x3, 0, 0, 0)  # MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID
    try:
        words = (ctypes.c_char_p(attributes), len(attributes))
        _call("mount_setattr", -100, os.fsencode(target), 0x8000, *words)  # AT_RECURSIVE
    except OSError:  # before Linux 5.12: this mount alone, with the flags it has, which are locked
        kept = os.statvfs(target).f_flag & (NO_SUID | NO_DEV | NO_EXEC | 1024 | 2048)
        mount("none", target, "", REMOUNT | BIND | READ_ONLY | kept)


def pivot_root(new: str, old: str) -> None:
    _call("pivot_root", os.fsencode(new), os.fsencode(old))


def die_with_parent() -> None:
    _prctl(_SET_PDEATHSIG, 9)


def adopt_orphans() -> None:
    _prctl(_SET_CHILD_SUBREAPER, 1)


def undumpable() -> None:
    """Closes the process's memory to others of the same user."""
    _prctl(_SET_DUMPABLE, 0)


def small_pages() -> None:
    """Keeps huge pages out: a forked child would copy or zero 2 MiB where it writes a few bytes."""
    _prctl(_SET_THP_DISABLE, 1)


def no_new_privileges() -> None:
    _prctl(_SET_NO_NEW_PRIVS, 1)


def freeze_capability_rules() -> None:
    _prctl(_SET_SECUREBITS, _SECUREBITS)


def drop_bounding_capabilities() -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break


def drop_capabilities() -> None:
    _checked(_libc.syscall(*_CAPSET_NOTHING), "capset")


def leave_on_signals() -> None:
    """Lets the signals that end a process end one that is the first of its namespace, too.

    The kernel keeps from such a process what it does not handle. The handler is the C library's
    `_exit`, so that the status is the signal's number; Python goes on to take the default for
    set, and a program that sets the default gets the handler again.
    """
    for number in FATAL_SIGNALS:
        _libc.signal(number, _libc._exit)
    original = signal.signal

    @functools.wraps(original)
    def as_everywhere(number: int, handler: Any, /) -> Any:
        previous = original(number, handler)
        if handler == signal.SIG_DFL and number in FATAL_SIGNALS and os.getpid() == 1:
            _libc.signal(int(number), _libc._exit)
        return previous

    signal.signal = as_everywhere  # type: ignore[assignment]


class Filter:
    """A seccomp filter, ready for the call: a sample's process does as little as it can."""

    def __init__(self, program: bytes) -> None:
        self._text = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(self._text))
        nothing = ctypes.c_ulong(0)
        mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
        self._words = (_SET_SECCOMP, mode, ctypes.c_char_p(header), nothing, nothing)

    def install(self) -> None:
        """Sets it for this thread; needs `no_new_privileges` first."""
        _checked(_libc.prctl(*self._words), "seccomp filter")


def trim_heap() -> None:
    """Gives memory that is free back, where the C library can: each fork copies its page tables."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def landlock_version() -> int:
    """The kernel's Landlock version, 0 where it has none or has it switched off."""
    try:
        return _call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def landlock_ruleset(version: int, *, read: list[str], write: list[str], devices: list[str]) -> int:
    """A descriptor of the rules: what lies under these paths, and nothing else in any file system.

    Args:
        version: from `landlock_version`, at least 1.
        read: folders and files.
        write: folders in which all but devices may be made, read and changed.
        devices: files such as /dev/null.
    """
    files = _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]
    net = _NET_RIGHTS if version >= _NET_RIGHTS_SINCE else 0
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    words = struct.pack("=QQQ", files, net, scopes)
    size = 24 if scopes else 16 if net else 8
    ruleset = _call("landlock_create_ruleset", ctypes.c_char_p(words), size, 0)
    in_folders = files & ~(_MAKE_DEVICES | _EXECUTE | _IOCTL_DEVICES)
    on_files = files & (_READ_FILE | _WRITE_FILE | _TRUNCATE)
    rules = [(p, _READ_FILE | _READ_DIR if Path(p).is_dir() else _READ_FILE) for p in read]
    rules += [(p, in_folders) for p in write] + [(p, on_files) for p in devices]
    for path, rights in rules:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", rights, parent)
            _call("landlock_add_rule", ruleset, 1, ctypes.c_char_p(rule), 0)
        finally:
            os.close(parent)
    return ruleset


def landlock_enter(ruleset: int) -> None:
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
