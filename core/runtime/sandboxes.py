"""Sandboxes as pinned namespaces: network, IPC and UTS held by bind mounts, with no idle process.

Rules of this file: a sandbox gets its name by rename, whole; one that is found under its name with every pin in place
and this boot's id is adopted, anything less is removed and made anew. Namespaces are made in a thread of their own,
which ends at once; the kernel keeps what is pinned. Only a pid namespace needs a process: Debian's static catatonit, in
the group of the monitors, since it outlives the engine as they do; a sandbox whose first process is gone is made anew.

A sandbox's folder `<state>/netns/<id>` (0700): `sandbox.json`, `object.json`, the pins `network` (not in host mode),
`ipc`, `uts`, and `pid` where processes are shared, the files `hosts`, `hostname`, `resolv.conf`, and `shm`, a tmpfs
that is all its tasks' /dev/shm.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import signal
import socket
import struct
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from core import cgroups, fsio, mounts, proc, syscalls
from core.clock import Clock
from core.errors import Failed, Invalid, Unsupported
from core.mounts import MountSpec
from core.proc import ProcessId
from core.process import Launcher, find
from core.runtime import limits, placing
from core.runtime.bundle import checked_name
from core.runtime.holding import hold
from core.runtime.id_ranges import SIZE, IdRanges
from core.runtime.ports import NewSandbox, SandboxPhase, SandboxState, Stats
from core.runtime.sandbox_folders import STOPPED, SandboxFolders
from core.values import dataclass

_NAMESPACES: Final = {
    "network": ("net", syscalls.CLONE_NEWNET),
    "ipc": ("ipc", syscalls.CLONE_NEWIPC),
    "uts": ("uts", syscalls.CLONE_NEWUTS),
}
_PIDS: Final = "pid"
_USERS: Final = "user"
_PAUSE: Final = "catatonit"
_SHM: Final = MountSpec("tmpfs", "shm", ("nosuid", "nodev", "noexec", "mode=1777", "size=65536k"))
_SYSCTL: Final = re.compile(r"net\.[a-zA-Z0-9._/-]+|kernel\.(shm|msg)[a-z_]*|kernel\.sem|fs\.mqueue\.[a-z_]+")
_HOST_FILES: Final = ("/etc/hosts", "/etc/resolv.conf")
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x41
_PAUSE_SECONDS: Final = 5.0
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}


@dataclass(frozen=True, slots=True)
class _Record:
    boot: str
    network: str
    created: float
    files: Mapping[str, str] = field(default_factory=dict)
    first: Mapping[str, Any] | None = None
    """The process that holds the pid namespace, where it is shared."""
    first_id: int = 0

    @property
    def pins(self) -> list[str]:
        """Those that need no process."""
        return [name for name in _NAMESPACES if name != "network" or self.network != "host"]

    @property
    def pause(self) -> ProcessId | None:
        """The process that holds the pid namespace."""
        return None if self.first is None else ProcessId.from_json(self.first)


class OciSandboxer(SandboxFolders):
    """Sandboxes for runtimes that run processes on this kernel."""

    def __init__(self, state: Path, group: str, clock: Clock, boot: str, launcher: Launcher | None = None) -> None:
        super().__init__(state, group, clock, boot)
        self._launcher = launcher or Launcher()
        self._ranges = IdRanges(state)
        self._found = cgroups.hierarchies()

    def _check(self, sandbox: NewSandbox) -> None:
        check(sandbox)

    def _make(self, sandbox: NewSandbox) -> None:
        program = find(_PAUSE) if sandbox.share_processes else ""
        limits.limit(self._found, self.cgroup(sandbox.id), sandbox.resources)
        final = self._folder / sandbox.id
        pause: ProcessId | None = None
        with fsio.staging(self._folder, sandbox.id) as work:
            try:
                first_id = self._ranges.take(sandbox.id) if sandbox.own_users else 0
                record = _Record(self._boot, sandbox.network, self._clock.wall(), first_id=first_id)
                files = write_files(sandbox, work, final)
                pause = self._hold(sandbox, record, program, work)
                (work / "shm").mkdir(mode=0o1777)
                mounts.attach([_SHM], work / "shm")
                data = {"boot": record.boot, "network": record.network, "created": record.created, "files": files}
                data["first_id"] = record.first_id
                data["first"] = pause.to_json() if pause is not None else None
                _write(work / "sandbox.json", json.dumps(data))
                _write(work / "object.json", json.dumps(dict(sandbox.object)))
                os.rename(work, final)
                # Only now: until then it is one of our helpers, and ends with us.
                if pause is not None:
                    placing.move_out(self._found, self._group, pause.pid)
            finally:
                if work.exists():
                    mounts.detach_below(work)
                    if pause is not None:
                        pause.signal(signal.SIGKILL)

    def _hold(self, sandbox: NewSandbox, record: _Record, program: str, work: Path) -> ProcessId | None:
        """Have the namespaces made and pinned; the first process of the pid namespace, where there is one."""
        if not record.first_id:
            self._pin(sandbox, record, work)
        if not (record.first_id or program):
            return None
        flags = _unshared(record) | syscalls.CLONE_NEWUSER if record.first_id else 0
        pid = hold(self._launcher, flags, program, lambda maker: self._pin_made(sandbox, record, maker, work))
        if pid is None:
            return None
        if (found := ProcessId.of(pid, self._boot)) is None:
            raise Failed("the first process of the sandbox ended at once")
        _pin_one(f"/proc/{found.pid}/ns/pid", work / _PIDS)
        return found

    def _pin_made(self, sandbox: NewSandbox, record: _Record, maker: int, work: Path) -> None:
        """Give the user namespace of the process `maker` its ids, and pin it and what it owns."""
        if not record.first_id:
            return
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{maker}/{kind}").write_text(f"0 {record.first_id} {SIZE}")
        _pin_one(f"/proc/{maker}/ns/user", work / _USERS)
        for name in record.pins:
            _pin_one(f"/proc/{maker}/ns/{_NAMESPACES[name][0]}", work / name)

        def inside() -> None:
            for name in record.pins:
                fd = os.open(work / name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    syscalls.setns(fd, _NAMESPACES[name][1])
                finally:
                    os.close(fd)
            _furnish(sandbox, record)

        syscalls.in_own_thread(inside)

    def _pin(self, sandbox: NewSandbox, record: _Record, work: Path) -> None:
        def inside() -> None:
            syscalls.unshare(_unshared(record))
            _furnish(sandbox, record)
            for name in record.pins:
                _pin_one(f"/proc/thread-self/ns/{_NAMESPACES[name][0]}", work / name)

        syscalls.in_own_thread(inside)

    def platform(self) -> str:
        """This node's own, as image indexes name it."""
        machine = platform.machine()
        return f"linux/{_ARCHITECTURES.get(machine, machine)}"

    def stop(self, id: str, timeout: float) -> None:
        """SIGTERM to all that runs in it, SIGKILL after `timeout` seconds; harmless when absent."""
        if self.status(id).phase is not SandboxPhase.READY:
            return
        group = self.cgroup(id)
        deadline = self._clock.monotonic() + timeout
        limits.signal_all(self._found, group, signal.SIGTERM)
        while limits.pids_below(self._found, group) and self._clock.monotonic() < deadline:
            self._clock.sleep(min(0.05, timeout))
        limits.end_all(self._found, group, self._clock, within=10.0)
        (self._folder / id / STOPPED).touch(mode=0o600)

    def status(self, id: str) -> SandboxState:
        """READY only with this boot's id and every pin in place; anything less that is there is HALF_MADE."""
        folder = self._folder / checked_name(id)
        if not folder.exists():
            return SandboxState(id, SandboxPhase.ABSENT)
        try:
            record = _Record(**json.loads((folder / "sandbox.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return SandboxState(id, SandboxPhase.HALF_MADE)
        pause = record.pause
        if record.boot != self._boot or not _pinned(folder, record) or (pause and not pause.alive(self._boot)):
            return SandboxState(id, SandboxPhase.HALF_MADE)
        phase = SandboxPhase.STOPPED if (folder / STOPPED).exists() else SandboxPhase.READY
        pins = {name: str(folder / name) for name in _all_pins(record)}
        return SandboxState(id, phase, pins, record.files, self.cgroup(id), pause, record.created, record.first_id)

    def shutdown(self, id: str) -> None:
        """Remove processes, groups, pins and files; from any state, as often as wanted."""
        folder = self._folder / checked_name(id)
        record = self._record(folder)
        pause, first_id = (record.pause, record.first_id) if record is not None else (None, 0)
        if pause is not None and pause.signal(signal.SIGKILL):  # and with it all that it is the first process of
            proc.wait_gone(pause, _PAUSE_SECONDS)
        limits.end_all(self._found, self.cgroup(id), self._clock, within=10.0)
        cgroups.remove_everywhere(self.cgroup(id), self._found, self._clock)
        # sandbox.json first: without it what is left is HALF_MADE, whatever else is still there.
        (folder / "sandbox.json").unlink(missing_ok=True)
        mounts.detach_below(folder)
        fsio.remove_tree(folder)
        if first_id:
            self._ranges.give_back(first_id)

    def sweep(self) -> None:
        """Remove what killed engines left half-made, and free the ranges of ids that nobody has any more."""
        super().sweep()
        self._ranges.sweep(lambda name: (self._folder / name).exists())

    def _record(self, folder: Path) -> _Record | None:
        """What is written of a sandbox of this boot."""
        try:
            record = _Record(**json.loads((folder / "sandbox.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return record if record.boot == self._boot else None

    def metrics(self, id: str) -> Stats:
        """Counters of all its tasks together; raises `NotFound`."""
        seen = limits.counters(self._found, self._existing(id).cgroup)
        return seen or Stats(0.0, 0, 0, 0)


def check(sandbox: NewSandbox) -> None:
    """Raise `Invalid` or `Unsupported` for what cannot be made; changes nothing."""
    checked_name(sandbox.id)
    if sandbox.network not in ("host", "none"):
        raise Unsupported(f"network mode {sandbox.network!r}", advice="Choose `host` or `none`.")
    if sandbox.own_users and sandbox.network == "host":
        raise Unsupported(
            "a user namespace cannot own the node's network", advice="Choose another network, or userNamespace host."
        )
    if len(sandbox.hostname.encode()) > 64 or "\n" in sandbox.hostname:
        raise Invalid(f"hostname {sandbox.hostname[:80]!r} is longer than 64 bytes")
    for name in sandbox.sysctls:
        if not _SYSCTL.fullmatch(name) or ".." in name:
            raise Invalid(f"sysctl {name!r} does not belong to a sandbox", advice="net.*, kernel.shm*, kernel.msg*, …")
        if sandbox.network == "host" and name.startswith("net."):
            raise Invalid(f"sysctl {name!r} would change the host, with `network: host`")


def raise_loopback() -> None:
    """Set `lo` of this thread's network namespace up (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))


def write_files(sandbox: NewSandbox, work: Path, final: Path) -> dict[str, str]:
    """Write a sandbox's hosts, hostname and resolv.conf; returns task path → host path, with /dev/shm."""
    hostname = sandbox.hostname or socket.gethostname()
    texts = {"hostname": f"{hostname}\n", "resolv.conf": _resolv(sandbox), "hosts": _hosts(hostname)}
    files = {"/dev/shm": str(final / "shm")}
    for name, text in texts.items():
        path = f"/etc/{name}"
        if sandbox.network == "host" and path in _HOST_FILES and os.path.isfile(path) and not _own_dns(sandbox, name):
            files[path] = path
        else:
            _write(work / name, text, 0o644)
            files[path] = str(final / name)
    return files


def _own_dns(sandbox: NewSandbox, name: str) -> bool:
    return name == "resolv.conf" and bool(sandbox.dns_servers or sandbox.dns_searches or sandbox.dns_options)


def _hosts(hostname: str) -> str:
    return (
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        f"fe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t{hostname}\n"
    )


def _resolv(sandbox: NewSandbox) -> str:
    lines = [f"nameserver {server}" for server in sandbox.dns_servers]
    lines += [f"search {' '.join(sandbox.dns_searches)}"] if sandbox.dns_searches else []
    lines += [f"options {' '.join(sandbox.dns_options)}"] if sandbox.dns_options else []
    return "".join(f"{line}\n" for line in lines)


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "w", encoding="utf-8") as out:
        out.write(text)
        os.fchmod(fd, mode)


def _pin_one(namespace: str, place: Path) -> None:
    place.touch(mode=0o400)
    syscalls.mount(namespace, str(place), "", syscalls.MS_BIND)


def _all_pins(record: _Record) -> list[str]:
    more = {_PIDS: record.first is not None, _USERS: bool(record.first_id)}
    return [*record.pins, *(name for name, there in more.items() if there)]


def _unshared(record: _Record) -> int:
    flags = 0
    for name in record.pins:
        flags |= _NAMESPACES[name][1]
    return flags


def _furnish(sandbox: NewSandbox, record: _Record) -> None:
    """Set up the namespaces that the calling thread is in."""
    syscalls.sethostname(sandbox.hostname or socket.gethostname())
    if "network" in record.pins:
        raise_loopback()
    for name, value in sandbox.sysctls.items():
        Path("/proc/sys", name.replace(".", "/")).write_text(value)


def _pinned(folder: Path, record: _Record) -> bool:
    namespaces = os.stat("/proc/self/ns/uts").st_dev
    with contextlib.suppress(FileNotFoundError):  # a pin is not even a file
        pins = all(os.stat(folder / name).st_dev == namespaces for name in _all_pins(record))
        return pins and os.stat(folder / "shm").st_dev != os.stat(folder).st_dev
    return False
