"""A prepared guest in QEMU, and the host's side of its protocol as plain as it can be."""

import contextlib
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.runtime.vm.frames import PORT, Decoder, Kind, encode, more, said
from core.runtime.vm.machine import kernel_command_line
from core.runtime.vm.tsc import kilohertz

ANSWER_SECONDS = 120.0


class CallFailed(Exception):
    """The guest refused; `said` is its own object."""

    def __init__(self, about: dict[str, Any]) -> None:
        super().__init__(about.get("message"))
        self.about = about


class Host:
    """Calls over a connected socket; what else comes meanwhile is kept. `slow` streams get no room until asked."""

    def __init__(self, port: socket.socket) -> None:
        self.port = port
        self.output: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.events: list[dict[str, Any]] = []
        self.slow: set[int] = set()
        self.room: dict[int, int] = defaultdict(int)
        self.answers: dict[int, tuple[Kind, dict[str, Any]]] = {}
        self._decoder = Decoder()
        self._number = 0
        self.next_stream = 1000

    def call(self, name: str, **given: Any) -> dict[str, Any]:
        """Ask and wait for the answer; raises `CallFailed`."""
        number = self.ask(name, **given)
        self.until(lambda: number in self.answers)
        kind, value = self.answers.pop(number)
        if kind == Kind.FAILED:
            raise CallFailed(value)
        return value

    def streams(self, count: int) -> int:
        """The first of so many numbers of streams that nobody has used."""
        self.next_stream += count
        return self.next_stream - count

    def ask(self, name: str, **given: Any) -> int:
        """Ask, and do not wait; gives the number of the call."""
        self._number += 1
        self.port.sendall(said(Kind.CALL, self._number, {"call": name, **given}))
        return self._number

    def write(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """To a stdin; all of it at once, so at most a window's worth."""
        self.port.sendall(encode(Kind.DATA, stream, data) + (encode(Kind.END, stream) if end else b""))

    def until(self, true: Callable[[], bool], seconds: float = ANSWER_SECONDS) -> None:
        """Take what comes until something is so."""
        deadline = time.monotonic() + seconds
        while not true():
            self.port.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self.port.recv(1 << 16)
            assert data, f"the guest is gone; it said {self.events}"
            for frame in self._decoder.feed(data):
                if frame.kind in (Kind.DONE, Kind.FAILED):
                    self.answers[frame.stream] = (frame.kind, frame.json())
                elif frame.kind == Kind.EVENT:
                    self.events.append(frame.json())
                elif frame.kind == Kind.DATA:
                    self.output[frame.stream] += frame.payload
                    self._taken(frame.stream, len(frame.payload))
                elif frame.kind == Kind.END:
                    self.ended.add(frame.stream)

    def _taken(self, stream: int, count: int) -> None:
        self.room[stream] += count
        if stream not in self.slow:
            self.give(stream)

    def give(self, stream: int) -> None:
        """Say that all that came of a stream was taken."""
        if count := self.room.pop(stream, 0):
            self.port.sendall(more(stream, count))

    def exit(self, **about: Any) -> dict[str, Any]:
        """Wait for the end of a process."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.events if one["event"] == "exit" and about.items() <= one.items()]

        self.until(lambda: bool(found()))
        return found()[0]


def spec(*args: str, **process: Any) -> dict[str, Any]:
    """A runtime-spec for a guest."""
    kinds = ("pid", "mount", "cgroup")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "args": list(args),
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
            **process,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
            {"destination": "/dev/shm", "type": "bind", "source": "/run/sandbox/shm", "options": ["rbind"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }


def with_group(value: dict[str, Any], id: str, **resources: Any) -> dict[str, Any]:
    """The spec with its control group and limits."""
    return {**value, "linux": {**value["linux"], "cgroupsPath": f"/tasks/{id}", "resources": resources}}


@contextlib.contextmanager
def booted(guest: Path, work: Path, disks: dict[str, Path]) -> Iterator[Host]:
    """A machine that has started; `disks` by serial (a name that begins with "r" is read-only)."""
    ours, theirs = socket.socketpair()
    told = kernel_command_line("tcg", kilohertz())
    words = [
        *("qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-cpu", "max", "-m", "256", "-smp", "1"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{work / 'console'}"),
        *(
            "-kernel",
            str(guest / "kernel"),
            "-initrd",
            str(guest / "initramfs"),
            "-append",
            told,
        ),
        *("-device", "virtio-scsi-device,id=scsi", "-device", "virtio-serial-device"),
        *("-chardev", f"socket,id=guest,fd={theirs.fileno()}"),
        *("-device", f"virtserialport,chardev=guest,name={PORT}"),
    ]
    for serial, path in disks.items():
        fixed = "on" if serial.startswith("r") else "off"
        words += ["-drive", f"if=none,id={serial},file={path},format=raw,readonly={fixed}"]
        words += ["-device", f"scsi-hd,drive={serial},serial={serial}"]
    machine = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    try:
        yield Host(ours)
    finally:
        ours.close()
        machine.kill()
        machine.wait()
