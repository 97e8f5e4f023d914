"""What the tests of the VM driver stand on: one machine for a whole file, tasks on disks made from a tiny root."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

from core import cgroups, mounts, proc
from core.clock import SystemClock
from core.errors import AgentError
from core.mounts import MountSpec
from core.process import Launcher
from core.runtime import node, spec
from core.runtime.ports import NewSandbox, NewTask
from core.runtime.vm.driver import VmShim
from core.runtime.vm.installed import GUEST, installed
from core.runtime.vm.machine import program
from core.runtime.vm.sandboxes import VmSandboxer
from tests.conformance.shim_ground import Remains, make_root


def why_not() -> str:
    """Why no machine can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in (program(), "mkfs.erofs", "mkfs.ext4") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        installed(GUEST)
    except AgentError as error:
        return str(error)
    return ""


class VmGround(Remains):
    """One instance: its own state folder, its own control group, a machine called `box`."""

    def __init__(self, folder: Path) -> None:
        self.group = f"/reconciler-{secrets.token_hex(4)}"
        self.state, self.logs, self.cache = folder / "state", folder / "logs", folder / "cache"
        self.state.mkdir()
        self.root = make_root(folder / "root")
        self.found = cgroups.hierarchies()
        self.node = node.read_node()
        self.boot = proc.boot_id()
        self.shim = self.again()

    def boxer(self) -> VmSandboxer:
        """The driver of sandboxes of a new engine."""
        tracking = self.found.tracking
        assert tracking is not None
        helpers = cgroups.make(tracking, f"{self.group}/helpers-{secrets.token_hex(4)}")
        return VmSandboxer(self.state, self.group, Launcher(helpers), SystemClock(), self.boot)

    def again(self) -> VmShim:
        """The driver of tasks of a new engine."""
        return VmShim(self.boxer(), Launcher(), SystemClock(), self.cache)

    def boot_machine(self) -> None:
        """Make `box`, or see that it runs on."""
        self.boxer().create(NewSandbox("box", {"name": "box"}, "none", "tests"))
        self.boxer().start("box")

    def task(self, *args: str, id: str = "one", **wanted: object) -> NewTask:
        """A task on a disk made from the root; `memory`, `pids`, or fields of Wanted and NewTask."""
        stdin = bool(wanted.pop("stdin", False))
        image = str(wanted.pop("image", "tiny"))
        limits = {name: wanted.pop(name) for name in ("memory", "pids", "cpu") if name in wanted}
        whole = spec.Wanted(
            args,
            f"{self.group}/box/{id}",
            resources=replace(spec.Resources(), **limits),  # type: ignore[arg-type]  # by name, in tests
            **wanted,  # type: ignore[arg-type]  # by name, in tests
        )
        rootfs = [MountSpec("bind", str(self.root), ("bind", "ro"))]
        log = self.logs / (id[:50].replace("/", "_") or "x")
        built = spec.build(whole, self.node).spec
        return NewTask(id, built, rootfs, log, {"name": id}, "box", whole.terminal, stdin, image=image)

    def leftovers(self) -> list[str]:
        """What no task owns any more: bundles, exits, disks, mounts of tasks."""
        left = [mount.target for mount in proc.mounts(str(self.state)) if "/bundles/" in mount.target]
        left += [
            mount.target for mount in proc.mounts(str(self.state / "netns/box/vm/share")) if "/share/" in mount.target
        ]
        for folder in (self.state / "bundles", self.state / "exits", self.cache / "layers"):
            left += [str(entry) for entry in folder.iterdir()] if folder.exists() else []
        return left

    def clear(self) -> None:
        """Delete every task and look for what is left of it."""
        for id in list(self.shim.tasks()):
            self.shim.delete(id)
        assert self.leftovers() == []
        shutil.rmtree(self.logs, ignore_errors=True)

    def end(self) -> None:
        """Remove the machine too; nothing at all may be left."""
        try:
            self.clear()
            self.boxer().shutdown("box")
            assert Remains.leftovers(self) == []
            assert list((self.state / "netns").iterdir()) == []
        finally:
            mounts.detach_below(self.state)
            cgroups.remove_everywhere(self.group, self.found, SystemClock())
