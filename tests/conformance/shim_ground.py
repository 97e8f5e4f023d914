"""What the tests of the OCI driver stand on: a tiny root, a state folder, a control group, an end without rest."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core import cgroups, mounts, proc
from core.clock import SystemClock
from core.mounts import MountSpec
from core.process import Launcher
from core.runtime import node, spec
from core.runtime.oci import OciShim, Tools
from core.runtime.ports import NewTask, Shim
from core.runtime.resourcing import Resources
from tests.runtimes import program

BUSYBOX = "/bin/busybox"
_PATIENCE = 30.0


def why_not() -> str:
    """Why the real runtime cannot be used here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [program for program in ("runc", "crun", "conmon", BUSYBOX) if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def make_root(folder: Path) -> Path:
    """A root file system of busybox alone."""
    for name in ("bin", "etc", "tmp", "data"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if not (folder / "bin" / applet).exists():
            (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\nwww:x:33:\nextra:x:44:www\n")
    return folder


def _comes_late(words: list[bytes]) -> bool:
    """Whether it is a helper of a killed engine on its way into a group that is gone: it ends as soon as it runs.

    Either still the engine's own copy, or the shell that enters the group before it becomes the program.
    """
    copy = b"-c" in words and b"-I" not in words
    return copy or any(word.endswith(b"/cgroup.procs") and not os.path.exists(word) for word in words)


def _described(pid: int) -> str:
    """A process, for who has to find out where it comes from; "" for one that is ending and has no memory any more."""
    with contextlib.suppress(OSError):
        if words := Path(f"/proc/{pid}/cmdline").read_bytes():
            return f"process {pid}, {words.replace(bytes(1), b' ').decode(errors='replace')}"
    return ""


class Remains:
    """What tasks leave behind, and that it is nothing, whoever drove them."""

    state: Path
    group: str
    found: cgroups.Hierarchies
    shim: Shim
    folders: tuple[str, ...] = ("bundles", "exits")
    """Those of the state folder that must be empty."""

    def leftovers(self) -> list[str]:
        """Processes, mounts, groups and files that no task owns any more."""
        kept = {"monitors", "box", self.group.lstrip("/")}
        left = [mount.target for mount in proc.mounts(str(self.state))]
        for name in self.folders:
            left += [str(entry) for entry in (self.state / name).iterdir()]
        for hierarchy in self.found.all():
            for below, _, _ in os.walk(hierarchy / self.group.lstrip("/")):
                path = Path(below)
                if path.name not in kept and not path.name.startswith("helpers-"):
                    left.append(below)
                left += [f"{below}: {who}" for pid in cgroups.members(path) if (who := _described(pid))]
        return left + [f"process {pid} of {self.state}" for pid in self.processes()]

    def processes(self) -> list[int]:
        """Those with our state folder on their command line, once those that come late have given up."""
        deadline = time.monotonic() + _PATIENCE
        while any(_comes_late(words) for words in self._command_lines().values()):
            assert time.monotonic() < deadline, f"still on their way: {self._command_lines()}"
            time.sleep(0.005)
        return list(self._command_lines())

    def _command_lines(self) -> dict[int, list[bytes]]:
        found = {}
        for pid in proc.pids():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.state) in line and pid != os.getpid():
                found[pid] = line.split(b"\0")
        return found

    def end(self) -> None:
        """Delete every task, look for what is left, remove the groups."""
        try:
            for id in list(self.shim.tasks()):
                self.shim.delete(id)
            left = self.leftovers()
            assert not left, left
        finally:
            # A mount left here would have what lies behind it removed with the temporary folder.
            mounts.detach_below(self.state)
            cgroups.remove_everywhere(self.group, self.found, SystemClock())


class OciGround(Remains):
    """One instance: its own state folder and its own control group."""

    def __init__(self, folder: Path, root: Path, runtime: str = "runc") -> None:
        self.group = f"/reconciler-{secrets.token_hex(4)}"
        (folder / "state").mkdir()
        self.open(folder / "state", root, folder / "logs", program(runtime, folder / "runtime"))

    def open(self, state: Path, root: Path, logs: Path, runtime: str = "runc") -> None:
        """Look at the node and build the driver."""
        self.state = state
        self.logs = logs
        self.root = root
        self.found = cgroups.hierarchies()
        self.node = node.read_node()
        self.boot = proc.boot_id()
        self.tools = Tools(runtime)
        self.folders = ("bundles", "exits", self.tools.own_folder)
        self.shim = self.again()

    def again(self) -> OciShim:
        """The driver of a new engine, with a helpers' group of its own, as each engine has."""
        tracking = self.found.tracking
        assert tracking is not None
        self.helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}")
        return OciShim(self.state, self.group, Launcher(self.helpers), SystemClock(), self.boot, self.tools)

    def task(self, *args: str, id: str = "one", **wanted: object) -> NewTask:
        """A task on a copy of the root that is its own to write; `memory`, `pids`, or fields of Wanted and NewTask."""
        stdin = bool(wanted.pop("stdin", False))
        limits = {name: wanted.pop(name) for name in ("memory", "pids", "cpu") if name in wanted}
        whole = spec.Wanted(
            args,
            f"{self.group}/box/{id}",
            resources=replace(Resources(), **limits),  # type: ignore[arg-type]  # by name, in tests
            **wanted,  # type: ignore[arg-type]  # by name, in tests
        )
        rootfs = [MountSpec("bind", str(self.root), ("bind", "nodev"))]
        data = {"name": id}
        built = spec.build(whole, self.node).spec
        log = self.logs / (id[:50].replace("/", "_") or "x")
        return NewTask(id, built, rootfs, log, data, "box", whole.terminal, stdin)


def skip_unless_possible() -> None:
    """Skip with the reason."""
    if reason := why_not():
        pytest.skip(reason)
