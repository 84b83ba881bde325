"""Runs a command on a poorer machine: `confine.py [--no-namespaces] ... -- command`.

An ordinary user is made by a user namespace in which our own user has another number, so that the
interpreter stays readable wherever it lies. What a machine lacks is refused by a filter.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from selfalign_ray.sandbox import kernel
from selfalign_ray.sandbox.bpf import ALLOW, EPERM, Check, Rule, assemble
from selfalign_ray.sandbox.syscalls import numbers

ENOSYS, EINVAL = 0x00050000 | errno.ENOSYS, 0x00050000 | errno.EINVAL
LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in (
        "user", "no-capabilities", "no-kill", "no-namespaces", "no-user-namespaces",
        "no-landlock", "no-seccomp",
    ):  # fmt: skip
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.user:
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.NEW_USER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"1234 {user} 1")
        Path("/proc/self/gid_map").write_text(f"1234 {group} 1")
    if options.no_user_namespaces:  # by the kernel itself, for the namespace of --user
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    rules = {}
    if options.no_namespaces:
        rules["unshare"] = Rule((), EPERM)
    if options.no_landlock:
        rules.update({name: Rule((), ENOSYS) for name in LANDLOCK})
    if options.no_seccomp:
        rules["prctl"] = Rule((Check(0, 0xFFFFFFFF, 22, EINVAL),), ALLOW)
    if options.no_capabilities:
        kernel.drop_bounding_capabilities()
        kernel.drop_capabilities()
    if options.no_kill and os.geteuid() == 0:
        kernel._prctl(24, 5)  # PR_CAPBSET_DROP, CAP_KILL: gone with the program that follows
    machine = os.uname().machine
    known = numbers(machine)
    kernel.no_new_privileges()
    if rules:
        by_number = {known[name]: rule for name, rule in rules.items()}
        kernel.Filter(assemble(machine, by_number, ALLOW)).install()
    os.execvp(options.command[0], options.command)


main()
