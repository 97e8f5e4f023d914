"""Sandboxes as virtual machines: the namespaces of any sandbox, and in its network namespace a machine.

Rules of this file: a machine boots when its sandbox is made, and nobody waits for it until a task is to be made. A
sandbox is READY only while its machine and the machine's monitor run. Everything of the machine lies in
`<state>/netns/<id>/vm`: `machine.json` (what is wanted), `made.json` (who runs), the monitor's socket, and `share`,
which is a mount of its own that virtiofsd sees grow.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from core import cgroups, fsio, mounts, proc, syscalls
from core.clock import Clock
from core.errors import AgentError, Failed, TimedOut, Unsupported
from core.mounts import MountSpec
from core.proc import ProcessId
from core.process import Launcher
from core.runtime import placing
from core.runtime.ports import NewSandbox, SandboxPhase, SandboxState, Stats
from core.runtime.sandbox_folders import STOPPED
from core.runtime.sandboxes import OciSandboxer
from core.runtime.vm import joining
from core.runtime.vm.acceleration import kvm
from core.runtime.vm.boards import Boards
from core.runtime.vm.booted import Booted
from core.runtime.vm.frames import VERSION
from core.runtime.vm.installed import GUEST, Installed, installed
from core.runtime.vm.link import Link, connected, ended
from core.runtime.vm.machine import CPUS, MEMORY, OVERHEAD, Machine
from core.runtime.vm.tsc import kilohertz
from core.runtime.wasm_cache import command
from core.runtime.wasm_groups import Groups

FOLDER: Final = "vm"
BOOT_SECONDS: Final = 30.0
PING_SECONDS: Final = 5.0
"""After three times as long without an answer a machine is ended."""
START_SECONDS: Final = 15.0
_MORE_SECONDS: Final = 5.0
_GONE_SECONDS: Final = 5.0
_JOINED: Final = "joined"
"""In the folder: that the network was looked at since it was last attached."""


class VmSandboxer(OciSandboxer):
    """`launcher` starts monitors; `guest`: the folder with kernel and initramfs."""

    def __init__(
        self, state: Path, group: str, launcher: Launcher, clock: Clock, boot: str, guest: Path = GUEST
    ) -> None:
        super().__init__(state, group, clock, boot, launcher)
        self.ground = (state, group, boot)
        self.guest = guest
        self.ping_seconds = PING_SECONDS
        self.qemu = ""
        """QEMU's path; "": found by its name."""
        self.board = ""
        """What machines are built on; "": the best that QEMU has."""
        self._boards = Boards(launcher)

    def folder(self, id: str) -> Path:
        """Where what belongs to a sandbox's machine lies."""
        return self._folder / id / FOLDER

    def _installed(self, sandbox: NewSandbox) -> Installed:
        return installed(self.guest, str(sandbox.machine.get("kernel", "")), self.qemu)

    def _check(self, sandbox: NewSandbox) -> None:
        if sandbox.network == "host":
            raise Unsupported("the node's own network in a virtual machine", advice="Choose `bridge` or `none`.")
        if sandbox.share_processes:
            raise Unsupported("a shared process namespace in a virtual machine", advice="Leave it out.")
        if sandbox.own_users:
            raise Unsupported("user ids of its own in a virtual machine, which has them anyway", advice="Leave it out.")
        super()._check(sandbox)
        self._installed(sandbox)

    def create(self, sandbox: NewSandbox) -> SandboxState:
        """As any sandbox; its network may be attached anew from now on, so that `start` looks at it again."""
        made = super().create(sandbox)
        (self.folder(sandbox.id) / _JOINED).unlink(missing_ok=True)
        return made

    def sweep(self) -> None:
        """Also join the networks that a killed engine attached and did not come to join."""
        super().sweep()
        for id in self.sandboxes():
            there = (self.folder(id) / "made.json").exists() and not (self.folder(id) / _JOINED).exists()
            if there and self.status(id).phase is SandboxPhase.READY:
                with contextlib.suppress(AgentError):  # the next start tells it
                    self.join(id)

    def _make(self, sandbox: NewSandbox) -> None:
        memory = int(sandbox.machine.get("memory") or MEMORY)
        resources = {name: value for name, value in sandbox.resources.items() if name != "pids"}
        resources["memory"] = {"limit": memory + OVERHEAD}
        group = self.cgroup(sandbox.id)
        groups = Groups()
        for hierarchy in groups.used:
            cgroups.make(hierarchy, group)
        super()._make(replace(sandbox, resources=resources))
        folder = fsio.make_private(self.folder(sandbox.id))
        found = self._installed(sandbox)
        found = replace(found, board=self._boards.choose(found.qemu, self.board))
        cpus = int(sandbox.machine.get("cpus") or CPUS)
        accelerator = kvm(self.guest, self.ground[0], self._launcher, self._clock, self._boot).accelerator(found)
        share = _shared(folder / "share") if found.virtiofsd else ""
        fs = "fs" if found.virtiofsd else ""
        machine = Machine(found.kernel, found.initrd, cpus, memory, accelerator, fs, kilohertz(), found.board)
        wanted = {
            "machine": asdict(machine),
            "qemu": found.qemu,
            "virtiofsd": found.virtiofsd,
            "share": share,
            "netns": str(self._folder / sandbox.id / "network"),
            "doors": groups.doors(group),
            "boot_seconds": BOOT_SECONDS,
            "ping_seconds": self.ping_seconds,
        }
        fsio.write_atomic(folder / "machine.json", json.dumps(wanted).encode(), durable=False)
        self._launch(sandbox.id)

    def _launch(self, id: str) -> None:
        folder = self.folder(id)
        for name in ("control", "fs", "ended", "made.json", _JOINED):
            (folder / name).unlink(missing_ok=True)
        ours, theirs = os.pipe()
        try:
            argv = command("core.runtime.vm.monitor", "main", "--sandbox", str(folder), str(theirs))
            with open(folder / "monitor.err", "wb") as err:
                try:
                    child = self._launcher.start(argv, stderr=err, pass_fds=(theirs,), cwd="/")
                finally:
                    os.close(theirs)
            child.wait()  # it forks itself away at once
            said = _answer(ours, folder)
        finally:
            os.close(ours)
        made = {name: ProcessId.of(said[name], self._boot) for name in ("qemu", "monitor")}
        if None in made.values():
            raise Failed(f"the machine of {id} ended at once: {_last(folder / 'monitor.err')}")
        placing.move_out(self._found, self._group, int(said["monitor"]))
        data = {name: one.to_json() for name, one in made.items() if one is not None}
        fsio.write_atomic(folder / "made.json", json.dumps(data).encode(), durable=False)

    def processes(self, id: str) -> tuple[ProcessId, ProcessId] | None:
        """QEMU and the monitor, as they were recorded; None before that."""
        try:
            data = json.loads((self.folder(id) / "made.json").read_bytes())
            return ProcessId.from_json(data["qemu"]), ProcessId.from_json(data["monitor"])
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def status(self, id: str) -> SandboxState:
        """READY only while machine and monitor run."""
        seen = super().status(id)
        if seen.phase is not SandboxPhase.READY:
            return seen
        made = self.processes(id)
        if made is None or not all(one.alive(self._boot) for one in made):
            return replace(seen, phase=SandboxPhase.HALF_MADE)
        return replace(seen, pid=made[0])

    def start(self, id: str) -> SandboxState:
        """Its network is joined to the machine's card; one that was stopped boots again.

        Raises `NotFound`, and `Failed` with the last words of one that does not boot.
        """
        if self._existing(id).phase is SandboxPhase.STOPPED:
            self._launch(id)
            (self._folder / id / STOPPED).unlink(missing_ok=True)
        self.join(id)
        self._prove(id)
        return self.status(id)

    def join(self, id: str) -> None:
        """Join its network to the machine's card, where that is not so; a guest that runs is told its new address."""
        netns, mark = self._folder / id / "network", self.folder(id) / _JOINED
        if mark.exists():
            return
        if not joining.is_joined(netns, self._launcher):
            with connected(self.folder(id), self._clock) as link:
                if link.call("status")["network"]:
                    self.configure(id, link, again=True)
            joining.join(netns, self._launcher)
        mark.touch(mode=0o600)

    def configure(self, id: str, link: Link, *, again: bool = False) -> None:
        """Give the guest its name and its card's address; `again`: also when it has one."""
        netns = self._folder / id / "network"
        hostname = Path(self.status(id).files["/etc/hostname"]).read_text().strip()
        told = joining.described(netns, self._launcher)
        link.call("network", hostname=hostname, interfaces=told, again=again)

    def _prove(self, id: str) -> None:
        """Wait for a guest of a kind that nobody saw boot here."""
        wanted = json.loads((self.folder(id) / "machine.json").read_bytes())
        seen = Booted(self.ground[0] / "vm")
        if seen.knows(wanted):
            return
        try:
            with connected(self.folder(id), self._clock) as link:
                link.call("hello", BOOT_SECONDS + _MORE_SECONDS, version=VERSION)
        except AgentError as error:
            advice = "Correct `vm`, or run `reconciler runtime prepare vm` again."
            raise Failed(f"the machine does not boot: {error}", advice=advice) from error
        seen.remember(wanted)

    def stop(self, id: str, timeout: float) -> None:
        """The guest ends what runs in it and switches itself off; QEMU is killed after `timeout` seconds."""
        if self.status(id).phase is not SandboxPhase.READY:
            return
        self._end_machine(id, timeout)
        (self._folder / id / STOPPED).touch(mode=0o600)

    def _end_machine(self, id: str, timeout: float) -> None:
        made = self.processes(id)
        if made is None:
            return
        qemu, monitor = made
        if timeout > 0 and monitor.alive(self._boot):
            with contextlib.suppress(AgentError), connected(self.folder(id), self._clock) as link:
                link.call("off", min(timeout, 2.0))
                proc.wait_gone(monitor, timeout)
        for one in (qemu, monitor):  # the monitor ends by itself, once it has recorded what ended with QEMU
            if one is monitor and proc.wait_gone(monitor, _GONE_SECONDS):
                continue
            if one.signal(signal.SIGKILL) and not proc.wait_gone(one, 10.0):
                raise TimedOut(f"process {one.pid} of the machine of {id} does not die")

    def ping(self, id: str) -> bool:
        """Whether the guest answers within two seconds; one that is still booting may take its time."""
        try:
            with connected(self.folder(id), self._clock) as link:
                if link.call("status", 2.0)["booted"]:
                    link.call("ping", 2.0)
        except AgentError:
            return False
        return True

    def metrics(self, id: str) -> Stats:
        """What the machine uses; as `pids` the number of its tasks. Raises `NotFound`."""
        seen = super().metrics(id)
        tasks = 0
        with contextlib.suppress(AgentError), connected(self.folder(id), self._clock) as link:
            tasks = len(link.call("status")["tasks"])
        return replace(seen, pids=tasks)

    def shutdown(self, id: str) -> None:
        """Remove machine, processes, groups, pins and files; from any state, as often as wanted."""
        if ended(self.folder(id)):  # by itself: until one of its kind boots again, each is waited for
            with contextlib.suppress(OSError, ValueError):  # what it was made from is gone too
                wanted = json.loads((self.folder(id) / "machine.json").read_bytes())
                Booted(self.ground[0] / "vm").forget(wanted)
        self._end_machine(id, 0.0)
        super().shutdown(id)


def _shared(folder: Path) -> str:
    """A folder whose mounts virtiofsd, in a mount namespace of its own, sees come and go."""
    folder.mkdir(mode=0o755)
    mounts.attach([MountSpec("", str(folder), ("rbind",))], folder)
    syscalls.mount("", str(folder), "", syscalls.MS_SHARED)
    return str(folder)


def _answer(fd: int, folder: Path) -> dict[str, Any]:
    """The monitor's one line. Raises `TimedOut`, `Failed` with what it complained of."""
    said = b""
    while not said.endswith(b"\n"):
        if not select.select([fd], [], [], START_SECONDS)[0]:
            raise TimedOut(f"the machine was not started within {START_SECONDS:g} s")
        if not (piece := os.read(fd, 1 << 16)):
            raise Failed(f"the machine's monitor ended: {_last(folder / 'monitor.err')}")
        said += piece
    answer: dict[str, Any] = json.loads(said)
    if "message" in answer:
        raise Failed(f"the machine cannot be started: {answer['message']}")
    return answer


def _last(path: Path) -> str:
    lines = path.read_text("utf-8", "replace").strip().splitlines() if path.exists() else []
    return lines[-1][:500] if lines else "it said nothing"
