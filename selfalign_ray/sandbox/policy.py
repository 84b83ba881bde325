"""What a sample may ask of the kernel, by level and profile. Pure.

Three answers: KILL for what only an attack asks, so that the kernel's SIGSYS is a verdict nobody
can forge; EPERM for what a harmless program may try and can be told no; ENOSYS for everything
that is not listed, which C libraries take as "an older kernel" and do without.
"""

from __future__ import annotations

from collections.abc import Iterator

from selfalign_ray.sandbox.bpf import (
    ALLOW,
    ENOSYS,
    EPERM,
    KILL,
    OWN_PID,
    Check,
    Rule,
    assemble,
)
from selfalign_ray.sandbox.syscalls import numbers

_ALLOWED = """
access alarm arch_prctl brk capget chdir clock_getres clock_gettime clock_nanosleep close
close_range copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
epoll_pwait2 epoll_wait eventfd eventfd2 exit exit_group faccessat faccessat2 fadvise64 fchdir
fdatasync fgetxattr flistxattr flock fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
futex_waitv futex_wake get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid
getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
lgetxattr listxattr llistxattr lseek lstat madvise membarrier mincore mmap mprotect mremap msync
munmap nanosleep newfstatat open openat pause pidfd_open pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read readahead
readlink readlinkat readv recvfrom recvmmsg recvmsg restart_syscall rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_yield select sendfile sendmmsg sendmsg sendto set_robust_list
set_tid_address setitimer setrlimit setsockopt shutdown sigaltstack signalfd signalfd4 stat statfs
statx sync_file_range sysinfo time timer_create timer_delete timer_getoverrun timer_gettime
timer_settime timerfd_create timerfd_gettime timerfd_settime times umask uname wait4 waitid write
writev
"""

# Changes to a file's name or attributes, which Landlock does not see, or not in every version.
_FILE_CHANGES = """
chmod chown fallocate fchmod fchmodat fchmodat2 fchown fchownat fremovexattr fsetxattr futimesat
lchown link linkat lremovexattr lsetxattr mkdir mkdirat mknod mknodat removexattr rename renameat
renameat2 rmdir setxattr symlink symlinkat truncate unlink unlinkat utime utimensat utimes
"""

_KILLED = """
acct add_key bpf chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark
finit_module fsconfig fsmount fsopen fspick init_module io_uring_enter io_uring_register
io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie memfd_secret
migrate_pages mount mount_setattr move_mount move_pages name_to_handle_at open_by_handle_at
open_tree perf_event_open pidfd_getfd pivot_root process_madvise process_mrelease
process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot request_key setdomainname
sethostname setns settimeofday swapoff swapon syslog umount2 unshare userfaultfd vhangup
"""

_REFUSED = """
accept accept4 adjtimex bind capset connect execve execveat fork inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch ioprio_set listen mbind memfd_create mlock mlock2 mlockall
modify_ldt mq_open mq_unlink msgctl msgget msgrcv msgsnd munlock munlockall personality
pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo sched_setaffinity sched_setattr sched_setparam
sched_setscheduler seccomp semctl semget semop semtimedop set_mempolicy setfsgid setfsuid setgid
setgroups setpgid setpriority setregid setresgid setresuid setreuid setsid setuid shmat shmctl
shmdt shmget splice sync syncfs tee tkill vfork vmsplice
"""

# What multiprocessing does besides: processes, and queues over local sockets.
_FORKING = "accept accept4 bind connect fork listen pidfd_send_signal setpgid setsid vfork"

# What the zygote does between samples or for a new one: answered by the second filter.
_OF_ZYGOTE = """
capset clone fork kill landlock_add_rule landlock_create_ruleset landlock_restrict_self mount
pidfd_open prctl seccomp setgroups setns setresgid setresuid setsid tgkill umount2 unshare vfork
"""

_ALL = 0xFFFFFFFF
_AF_UNIX = 1
_SOCK_CONNECTED = (1, 5)  # stream, seqpacket; a datagram goes to any socket that has a path
_CLONE_THREAD = 0x00010000
# The namespace flags of linux/sched.h: mount, cgroup, uts, ipc, user, pid, net
_CLONE_NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_PR_HARMLESS = (3, 15, 16, 23, 39)  # get dumpable; set, get name; read bounding set, no_new_privs
_SIGKILL, _SIGSTOP = 9, 19
# What Python asks of any file: is it a terminal and of what size, how much waits, blocking, exec
_IOCTLS = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_SETPIPE_SZ = 8, 10, 15, 1031
_O_WRITES = (0x1, 0x2, 0x40, 0x200)  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC


def filters(
    machine: str, *, own_files: bool, landlock_abi: int, forks: bool
) -> tuple[bytes, bytes]:
    """The seccomp filters of a sample: the zygote's, which it inherits, and one of its own.

    Of two filters the kernel takes the stricter answer. The long one is installed once, as its
    translation costs half a millisecond; the short one closes what the zygote itself needs.

    Args:
        machine: x86_64 or aarch64.
        own_files: the sample has a file system and process ids of its own (level A); otherwise
            it shares both with the worker, and no file may be changed and no other process
            named.
        landlock_abi: the kernel's Landlock version, 0 for none. From version 3 on it stops
            truncation too, and opening for writing may be left to it.
        forks: whether processes may be started.
    """
    rules = _rules(own_files=own_files, landlock_abi=landlock_abi, forks=forks)
    closing = {name: rules.get(name, Rule((), EPERM)) for name in _OF_ZYGOTE.split()}
    standing = {**rules, **dict.fromkeys(closing, Rule((), ALLOW))}
    known = numbers(machine)
    by_number = [
        {known[n]: r for n, r in part.items() if n in known} for part in (standing, closing)
    ]
    return assemble(machine, by_number[0], ENOSYS), assemble(machine, by_number[1], ALLOW)


def _rules(*, own_files: bool, landlock_abi: int, forks: bool) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for names, answer in ((_ALLOWED, ALLOW), (_KILLED, KILL), (_REFUSED, EPERM)):
        rules.update({name: Rule((), answer) for name in names.split()})
    rules.update({name: Rule((), ALLOW if own_files else EPERM) for name in _FILE_CHANGES.split()})
    if forks:
        rules.update({name: Rule((), ALLOW) for name in _FORKING.split()})
    rules.update(_checked(forks=forks))
    rules.update(_signals(own_files=own_files, forks=forks))
    if not own_files:
        rules["pidfd_open"] = Rule((), EPERM)
        if landlock_abi < 3:
            rules.update(_read_only_opens())
    return rules


def _checked(*, forks: bool) -> Iterator[tuple[str, Rule]]:
    new = tuple(Check(0, flag, flag, KILL) for flag in _CLONE_NEW)
    thread = Check(0, _CLONE_THREAD, _CLONE_THREAD, ALLOW)
    yield "clone", Rule((*new, thread), ALLOW if forks else EPERM)
    local = (Check(0, _ALL, _AF_UNIX, ALLOW),)
    addressed = (Check(1, 0xF, kind, EPERM) for kind in range(16) if kind not in _SOCK_CONNECTED)
    yield "socketpair", Rule((*addressed, *local), EPERM)
    yield "socket", Rule(local if forks else (), EPERM)
    yield "prctl", Rule(tuple(Check(0, _ALL, option, ALLOW) for option in _PR_HARMLESS), EPERM)
    yield "ioctl", Rule(tuple(Check(1, _ALL, request, ALLOW) for request in _IOCTLS), EPERM)
    owners = (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_SETPIPE_SZ)
    yield "fcntl", Rule(tuple(Check(1, _ALL, command, EPERM) for command in owners), ALLOW)
    yield "prlimit64", Rule((Check(0, _ALL, 0, ALLOW),), EPERM)


def _signals(*, own_files: bool, forks: bool) -> Iterator[tuple[str, Rule]]:
    """Signals go to the process itself only, and never SIGKILL: that one is always the worker's.

    A sample with process ids of its own can reach nobody else anyhow; one that may have several
    processes may end them.
    """
    for name, signal_argument in (("kill", 1), ("tgkill", 2)):
        final = [Check(signal_argument, _ALL, s, EPERM) for s in (_SIGKILL, _SIGSTOP)]
        if own_files:
            yield name, Rule(() if forks else tuple(final), ALLOW)
        else:
            yield name, Rule((*final, Check(0, _ALL, OWN_PID, ALLOW)), EPERM)


def _read_only_opens() -> Iterator[tuple[str, Rule]]:
    for name, flags_argument in (("open", 1), ("openat", 2)):
        writes = tuple(Check(flags_argument, bit, bit, EPERM) for bit in _O_WRITES)
        yield name, Rule(writes, ALLOW)
    yield "creat", Rule((), EPERM)
    yield "ftruncate", Rule((), ALLOW)
