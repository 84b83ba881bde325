import ctypes
import importlib.util
from pathlib import Path

import pytest

from selfalign_ray.sandbox import policy
from selfalign_ray.sandbox.bpf import ALLOW, ENOSYS, EPERM, KILL
from selfalign_ray.sandbox.syscalls import numbers

_spec = importlib.util.spec_from_file_location("bpf_tests", Path(__file__).with_name("test_bpf.py"))
_tests = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tests)

A = {"own_files": True, "landlock_abi": 7, "forks": False}
B = {"own_files": False, "landlock_abi": 7, "forks": False}
C = {"own_files": False, "landlock_abi": 0, "forks": False}
MACHINES = ("x86_64", "aarch64")


def of_both(name, arguments=(), machine="x86_64", **kind):
    """The stricter answer of the two filters, as the kernel takes it."""
    answers = [
        _tests.answer(program, numbers(machine)[name], arguments, machine)
        for program in policy.filters(machine, **kind)
    ]
    return min(answers, key=[KILL, EPERM, ENOSYS, ALLOW].index)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", [A, B, C])
def test_attacks_are_killed_at_every_level(machine, kind):
    for name in [
        "ptrace",
        "mount",
        "unshare",
        "setns",
        "bpf",
        "io_uring_setup",
        "keyctl",
        "userfaultfd",
    ]:
        assert of_both(name, machine=machine, **kind) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_processes_and_programs_are_refused(machine):
    assert of_both("execve", machine=machine, **A) == EPERM
    assert of_both("clone", [17], machine, **A) == EPERM
    assert of_both("clone3", machine=machine, **A) == ENOSYS


def test_threads_are_allowed_and_new_namespaces_are_not():
    assert of_both("clone", [0x3D0F00], **A) == ALLOW
    assert of_both("clone", [0x3D0F00 | 0x10000000], **A) == KILL


def test_the_fork_profile_starts_processes_in_the_same_namespaces():
    kind = {**A, "forks": True}
    assert of_both("clone", [17], **kind) == ALLOW
    assert of_both("clone", [17 | 0x20000000], **kind) == KILL
    assert of_both("execve", **kind) == EPERM
    assert of_both("socket", [1], **kind) == ALLOW
    assert of_both("socket", [2], **kind) == EPERM


@pytest.mark.parametrize("kind", [A, B, C])
def test_no_socket_but_a_local_pair(kind):
    assert of_both("socket", [1], **kind) == EPERM
    assert of_both("socket", [2], **kind) == EPERM
    assert of_both("socketpair", [1, 1], **kind) == ALLOW
    assert of_both("socketpair", [16, 1], **kind) == EPERM


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("kind", [A, B, C])
def test_a_local_pair_sends_to_its_other_end_alone(machine, kind):
    for of_connections in (1, 5, 1 | 0o4000 | 0o2000000):  # SOCK_NONBLOCK, SOCK_CLOEXEC
        assert of_both("socketpair", [1, of_connections], machine, **kind) == ALLOW
    for addressed in {*range(16)} - {1, 5}:
        assert of_both("socketpair", [1, addressed], machine, **kind) == EPERM
        assert of_both("socketpair", [1, addressed | 0o4000], machine, **kind) == EPERM


@pytest.mark.parametrize("kind", [B, C])
def test_nobody_else_is_signalled_where_processes_are_shared(kind):
    assert of_both("kill", [1, 15], **kind) == EPERM
    assert of_both("kill", [-1, 9], **kind) == EPERM
    assert of_both("tgkill", [5, 5, 15], **kind) == EPERM
    assert of_both("pidfd_open", [1], **kind) == EPERM
    assert of_both("prlimit64", [1], **kind) == EPERM
    assert of_both("prlimit64", [0], **kind) == ALLOW


def test_nobody_sends_the_signal_that_is_the_workers_own():
    for number in (9, 19):
        assert of_both("kill", [1, number], **A) == EPERM
        assert of_both("tgkill", [1, 1, number], **A) == EPERM
    assert of_both("kill", [1, 15], **A) == ALLOW
    assert of_both("prlimit64", [1], **A) == EPERM


@pytest.mark.parametrize("kind", [B, C])
def test_no_file_changes_where_files_are_shared(kind):
    for name in [
        "chmod",
        "unlink",
        "rename",
        "mkdir",
        "symlink",
        "setxattr",
        "utimensat",
        "truncate",
    ]:
        assert of_both(name, **kind) == EPERM
        assert of_both(name, **A) == ALLOW or name == "setxattr"


def test_files_open_for_reading_only_where_landlock_does_not_watch():
    assert of_both("openat", [-100, 0, 0o0], **C) == ALLOW
    for flags in (0o1, 0o2, 0o100, 0o1000):
        assert of_both("openat", [-100, 0, flags], **C) == EPERM
        assert of_both("openat", [-100, 0, flags], **B) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_that_nobody_knows_is_no_system_call(machine):
    program, _ = policy.filters(machine, **A)
    assert _tests.answer(program, 9999, machine=machine) == ENOSYS


def test_the_call_numbers_are_those_of_libseccomp():
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    resolve = library.seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    for machine, architecture in (("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)):
        for name, number in numbers(machine).items():
            assert resolve(architecture, name.encode()) in {number, -1}, name
