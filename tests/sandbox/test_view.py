"""view.py: nothing that a sample leaves in its scratch escapes notice."""

import subprocess
import sys
from pathlib import Path

import pytest

from selfalign_ray.sandbox.pool import Sandbox

pytestmark = pytest.mark.sandbox

# In a mount namespace of its own. A change to a ramfs has the time of the clock's last tick, on
# every kernel; so has one to a tmpfs before Linux 6.13.
SCRATCH = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from selfalign_ray.sandbox import kernel, view

user, group, mount = os.geteuid(), os.getegid(), kernel.mount
try:
    kernel.unshare(kernel.NEW_USER | kernel.NEW_MOUNTS)
except OSError:
    sys.exit(77)
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"1234 {user} 1")
Path("/proc/self/gid_map").write_text(f"1234 {group} 1")
mount("none", "/", "", kernel.PRIVATE | kernel.RECURSIVE)
kernel.mount = lambda source, target, kind, *rest: mount(source, target, "ramfs", *rest)
folder = Path(sys.argv[1])
changes = {
    "file": lambda: (folder / "left").touch(),
    "link": lambda: (folder / "left").symlink_to("text"),
    "mode": lambda: folder.chmod(0o1777),
}
scratch = view.Scratch(
    SimpleNamespace(below=[], links_below={}), [str(folder)], megabytes=1, files=64
)
for name, change in changes.items():
    for _ in range(10):
        scratch.mount()
        before = scratch.touched()
        change()
        print(name, before, scratch.touched())
        scratch.unmount()
"""


def test_a_change_within_the_tick_of_the_mount_is_noticed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRATCH, str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("no namespaces on this machine")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {f"{n} False True" for n in ("file", "link", "mode")}


def test_a_sample_finds_nothing_beside_a_package_in_tmp(configured, tmp_path, monkeypatch):
    if not tmp_path.is_relative_to("/tmp"):
        pytest.skip("the folder for temporary files is another one")
    (tmp_path / "tool.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    leaves = f"import tool\nopen({str(tmp_path / 'left')!r}, 'w').write('x')"
    finds = f"import os\nprint(os.listdir({str(tmp_path)!r}))"
    with Sandbox(configured(preload=["tool"], imports=["tool"])) as sandbox:
        if sandbox.describe()["level"] != "A":
            pytest.skip("no scratch")
        verdicts = sandbox.judge([(leaves, ""), (finds, "")])
    assert [v.verdict for v in verdicts] == ["passed", "passed"]
    assert verdicts[1].stdout == "['tool.py']\n"
