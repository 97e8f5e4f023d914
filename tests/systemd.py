"""A machine with systemd as pid 1, for tests: namespaces and control groups of its own over the files of this one.

What is written there is written to a folder of the test's. The network is this machine's, so that registries on
loopback are there; nothing is started but what a test starts. `boot` again after `halt` is a reboot: /run is empty, the
boot id is another one, every process is gone.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.leftovers import all_mounts, read_bytes, retried

SYSTEMD: Final = Path("/lib/systemd/systemd")
BOUND: Final = 60.0
NAMESPACES: Final = ("--mount", "--pid", "--cgroup", "--uts", "--ipc")
MASKED: Final = ("systemd-sysctl", "systemd-timesyncd", "systemd-binfmt", "systemd-modules-load", "systemd-udevd")
_MAKE: Final = r"""
set -e
enter() {  # a group of its own in each hierarchy
    for top in $HIERARCHIES; do
        mkdir -p "$top/$GROUP"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$top/$file" ] || cat "$top/$file" > "$top/$GROUP/$file"
        done
        echo $$ > "$top/$GROUP/cgroup.procs"
    done
}
enter
exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child --propagation private sh -c "$INSIDE"
"""
_INSIDE: Final = r"""
set -e
mkdir -p "$HOME_OF_IT/up" "$HOME_OF_IT/work" "$HOME_OF_IT/new" "$HOME_OF_IT/lib"
mount -t overlay overlay -o "lowerdir=/,upperdir=$HOME_OF_IT/up,workdir=$HOME_OF_IT/work" "$HOME_OF_IT/new"
cd "$HOME_OF_IT/new"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
for kind in $KINDS; do
    mkdir "sys/fs/cgroup/$kind"
    case $kind in
        unified) mount -t cgroup2 cgroup2 sys/fs/cgroup/unified ;;
        systemd) mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd ;;
        *) mount -t cgroup -o "$kind" cgroup "sys/fs/cgroup/$kind" ;;
    esac
done
mount -t tmpfs -o mode=755 tmpfs run
mount --rbind /dev dev
mkdir -p var/lib/reconciler
mount --bind "$HOME_OF_IT/lib" var/lib/reconciler
mount --bind "$HOME_OF_IT/boot_id" proc/sys/kernel/random/boot_id
if [ ! -e etc/made ]; then
    find lib/systemd/system etc/systemd/system -path '*.wants/*' ! -name 'systemd-journald*' -delete
    for unit in $MASKED; do ln -sf /dev/null "etc/systemd/system/$unit.service"; done
    touch etc/made
fi
mkdir -p old
pivot_root . old
umount -l /old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd $HOW
"""


def hierarchies() -> dict[str, str]:
    """Where the hierarchies of control groups are mounted, by the name that the machine gives them."""
    found = {}
    for mount in all_mounts():
        if mount.kind in ("cgroup", "cgroup2"):
            found[Path(mount.target).name if mount.kind == "cgroup" else "unified"] = mount.target
    return found


def lacking() -> str:
    """Why no such machine can be here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists():
        return "not installed: systemd"
    if not {"unified", "systemd"} <= set(hierarchies()):
        return "control groups are not mounted as this machine needs them (version 1 with `systemd` and `unified`)"
    return ""


@dataclass(slots=True)
class Machine:
    """The machine; `folder` holds its files, among them `lib`, which it has at /var/lib/reconciler."""

    folder: Path
    init: int = 0
    _outer: "subprocess.Popen[bytes] | None" = None
    _group: str = field(default_factory=lambda: f"systemd-of-test-{uuid.uuid4().hex[:8]}")

    def boot(self) -> None:
        """Start it, and wait until it is up."""
        found = hierarchies()
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        env = {
            **os.environ,
            "INSIDE": _INSIDE,
            "HOME_OF_IT": str(self.folder),
            "GROUP": self._group,
            "HIERARCHIES": " ".join(found.values()),
            "KINDS": " ".join(found),
            "HOW": "--log-target=null --show-status=0 --unit=multi-user.target",
            "MASKED": " ".join(MASKED),
        }
        with (self.folder / "console").open("ab") as console:
            self._outer = subprocess.Popen(
                ["sh", "-c", _MAKE], env=env, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        deadline = time.monotonic() + BOUND
        while "running" not in self._up():
            assert self._outer.poll() is None, (self.folder / "console").read_text()
            assert time.monotonic() < deadline, f"does not come up: {self._up()}"
            time.sleep(0.05)

    def _up(self) -> str:
        assert self._outer is not None
        children = read_bytes(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").split()
        if not children or b"systemd" not in read_bytes(f"/proc/{int(children[0])}/comm"):
            return "not yet"
        self.init = int(children[0])
        return self.run("systemctl", "is-system-running").stdout

    def run(self, *words: str | Path, timeout: float = BOUND, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command on the machine to its end, whatever its exit code."""
        inside = ["nsenter", f"--target={self.init}", *NAMESPACES, "--wd=/", *map(str, words)]
        return subprocess.run(
            inside,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def must(self, *words: str | Path, timeout: float = BOUND) -> str:
        """`run`, which must end with 0; gives its stdout."""
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, path: str | Path, text: str) -> None:
        """Write a file of the machine, and the folders to it."""
        done = self.run("sh", "-c", 'mkdir -p "$(dirname "$0")" && cat > "$0"', path, stdin=text)
        assert done.returncode == 0, done.stderr

    def groups(self) -> list[str]:
        """The control groups below its own that carry the name of an instance."""
        return [
            str(path)
            for top in hierarchies().values()
            for path in (Path(top) / self._group).rglob("reconciler-*")
            if path.is_dir() and path.suffix != ".service"
        ]

    def halt(self) -> None:
        """Pull the plug: every process is gone, and what only memory held."""
        if self._outer is not None:
            with suppress(ProcessLookupError):
                if self.init:
                    os.kill(self.init, signal.SIGKILL)
            self._outer.kill()
            self._outer.wait()
            self._outer, self.init = None, 0
        retried(self._remove_groups)

    def _remove_groups(self) -> None:
        for top in hierarchies().values():
            for folder, _, _ in os.walk(Path(top) / self._group, topdown=False):
                os.rmdir(folder)


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine that is up; all of it is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="rc-systemd-", dir="/tmp"))
    made = Machine(folder)
    try:
        made.boot()
        yield made
    finally:
        made.halt()
        shutil.rmtree(folder, ignore_errors=True)
