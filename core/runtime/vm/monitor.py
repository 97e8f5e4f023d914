"""The monitor of one machine: starts QEMU, answers those who ask, keeps logs and exits, and sees when it hangs.

Rules of this file: it outlives the engine, in a session of its own; what it needs comes from `machine.json` in the
sandbox's folder and one descriptor, on which it answers once. QEMU has no capability, no name it could connect to, and
a control group; it ends with us (its port and its QMP are ours), and we end with it. When it ends, whatever ran in it
has ended with 137, and `ended` in the folder says why.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, Final

from core.clock import SystemClock
from core.runtime.vm.carried import Carried
from core.runtime.vm.frames import VERSION, Frame, Kind, Nonsense
from core.runtime.vm.machine import ENDED, SOCKET, Doors, Machine, command
from core.runtime.vm.peers import Peer
from core.runtime.vm.qmp import Qmp
from core.runtime.vm.switchboard import Client, Switchboard

MISSES: Final = 3
OFF_SECONDS: Final = 3.0
_CONSOLE: Final = 16 << 10
_TUNSETIFF: Final = 0x400454CA
_SIOCSIFFLAGS: Final = 0x8914
_TAP: Final = 0x0002 | 0x1000 | 0x4000  # IFF_TAP, IFF_NO_PI, IFF_VNET_HDR
_UP: Final = 0x1
_CLOCK: Final = SystemClock()


def main() -> None:
    """`--sandbox DIR ANSWER`: goes on in a fork, whose parent ends at once."""
    folder, answer = sys.argv[2], int(sys.argv[3])
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir(folder)
    wanted = json.loads(Path("machine.json").read_bytes())
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        watch = Watch(wanted)
    except OSError as error:
        os.write(answer, json.dumps({"message": str(error)}).encode() + b"\n")
        os._exit(1)
    with contextlib.suppress(BrokenPipeError):  # the engine was killed: the next one removes us
        os.write(answer, json.dumps({"monitor": os.getpid(), "qemu": watch.qemu}).encode() + b"\n")
    os.close(answer)
    watch.run()
    os._exit(0)


class Watch:
    """The loop."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted = wanted
        self._reason = ""
        self._said = b""
        self._ping_seconds = float(wanted["ping_seconds"])
        self._ping_at = self._now() + self._ping_seconds
        self._missed = 0
        self._boot_until = self._now() + float(wanted["boot_seconds"])
        self._off_until = 0.0
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._server.bind(SOCKET)
        os.chmod(SOCKET, 0o600)
        self._server.listen(64)
        self._fs = _share(wanted) if wanted["virtiofsd"] else 0
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
        tap = _tap(wanted["netns"]) if wanted["netns"] else -1
        inside, control, text = (theirs.fileno() for _, theirs in pairs)
        doors = Doors(inside, control, text, tap)
        self.qemu = _start(command(Machine(**wanted["machine"]), doors, wanted["qemu"]), doors.all, wanted["doors"])
        for _, theirs in pairs:
            theirs.close()
        if tap >= 0:
            os.close(tap)
        guest, qmp, console = (ours for ours, _ in pairs)
        self._console = Peer(console)
        self._qmp = Qmp(qmp)
        self._carried = Carried()
        self._board = Switchboard(Peer(guest), self._qmp, self._carried)
        self._ended = os.pidfd_open(self.qemu)
        self._board.call({"call": "hello", "version": VERSION}, self._hello)

    @staticmethod
    def _now() -> float:
        return _CLOCK.monotonic()

    def _hello(self, frame: Frame) -> None:
        if frame.kind is Kind.DONE and frame.json().get("version") == VERSION:
            self._board.booted = True
        elif not self._reason:
            self._stop("the guest speaks another version: run `reconciler runtime prepare vm`")

    def run(self) -> None:
        """Until QEMU has ended; then the last is told."""
        while True:
            ready = self._poll()
            if self._ended in ready:
                break
            self._take(ready)
            self._look()
        status = os.waitstatus_to_exitcode(os.waitpid(self.qemu, 0)[1])
        with contextlib.suppress(Nonsense):  # what it said last: exits, perhaps
            self._board.hear()
        self._console_read()
        lines = self._said.decode("utf-8", "replace").strip().splitlines()[-5:]
        reason = self._reason or self._board.fault or ("" if self._board.off else _own_end(status))
        Path(ENDED).write_text("\n".join([reason, *lines]) + "\n")
        self._carried.end_all(137)
        self._board.abandon()
        if self._fs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._fs, signal.SIGKILL)

    def _poll(self) -> set[int]:
        poller = select.poll()
        poller.register(self._ended, select.POLLIN)
        poller.register(self._server, select.POLLIN)
        peers = [self._board.guest, self._qmp.peer, self._console, *(one.peer for one in self._board.clients.values())]
        for peer in peers:
            if not peer.gone:
                poller.register(peer.link, select.POLLIN | (select.POLLOUT if peer.waiting else 0))
        until = min(self._ping_at, self._off_until or self._ping_at)
        if not self._board.booted:
            until = min(until, self._boot_until)
        found = poller.poll(max(0.0, until - self._now()) * 1000)
        for peer in peers:
            if peer.waiting:
                peer.flush()
        return {fd for fd, _ in found}

    def _take(self, ready: set[int]) -> None:
        if self._qmp.peer.link.fileno() in ready:
            self._qmp.read()
        if self._console.link.fileno() in ready:
            self._console_read()
        if self._board.guest.link.fileno() in ready:
            try:
                self._board.hear()
            except Nonsense as error:
                self._stop(f"the guest speaks nonsense: {error}")
        for fd in ready & self._board.clients.keys():
            self._client(fd)
        if self._server.fileno() in ready:
            link, _ = self._server.accept()
            self._board.clients[link.fileno()] = Client(Peer(link))

    def _client(self, fd: int) -> None:
        client = self._board.clients[fd]
        try:
            self._board.listen(client)
        except (Nonsense, KeyError, ValueError, TypeError):
            client.peer.gone = True
        if client.peer.gone:
            self._board.leave(client)
            del self._board.clients[fd]
            client.peer.close()

    def _console_read(self) -> None:
        self._said = (self._said + self._console.bytes())[-_CONSOLE:]

    def _look(self) -> None:
        now = self._now()
        if not self._board.booted and now >= self._boot_until:
            self._stop(f"the guest did not answer within {self._wanted['boot_seconds']:g} s of its start")
        if self._board.off and not self._off_until:
            self._off_until = now + OFF_SECONDS
        if self._off_until and now >= self._off_until:
            self._kill()
        if now >= self._ping_at:
            # After a pause of our own nothing can be said of the guest.
            self._missed = self._missed + 1 if now < self._ping_at + self._ping_seconds else 0
            self._ping_at = now + self._ping_seconds
            if self._board.booted and self._missed > MISSES:
                self._stop(f"the guest did not answer for {MISSES * self._ping_seconds:g} s")
            elif self._board.booted:
                self._board.call({"call": "ping"}, self._pong)
            else:
                self._missed = 0

    def _pong(self, frame: Frame) -> None:
        self._missed = 0

    def _stop(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.qemu, signal.SIGKILL)


def _own_end(status: int) -> str:
    """What to say of a QEMU that nobody ended; 0: its guest switched itself off."""
    if status == 0:
        return "the machine switched itself off"
    how = f"signal {-status}" if status < 0 else f"code {status}"
    return f"QEMU ended with {how}: {_tail(next(iter(Path().glob('qemu*.err')), Path('qemu.err')).name)}"


def _start(argv: list[str], fds: tuple[int, ...], doors: list[str], *, bare: bool = True) -> int:
    """Start a program with these descriptors in these control groups; with `bare` without any capability."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        for door in doors:
            Path(door).write_bytes(b"0")
        for fd in fds:
            os.set_inheritable(fd, True)
        err = os.open(f"{Path(argv[0]).name}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        null = os.open("/dev/null", os.O_RDWR)
        for source, target in ((null, 0), (err, 1), (err, 2)):
            os.dup2(source, target)
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        from core import syscalls

        if bare:
            syscalls.keep_capabilities(0)
        syscalls.die_with_parent()
        if os.getppid() != parent:  # it died before we could ask
            os._exit(127)
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"{Path(argv[0]).name}: {error}\n".encode())
    finally:
        os._exit(127)


def _share(wanted: dict[str, Any]) -> int:
    """Start virtiofsd on the shared folder; QEMU can connect at once. Raises `OSError`.

    It is given a socket that listens already: one that it makes itself has a lock in /run, named after the path.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as door:
        door.bind("fs")
        door.listen(1)
        argv = [wanted["virtiofsd"], f"--fd={door.fileno()}", "-f", "-o", f"source={wanted['share']}", "-o", "xattr"]
        return _start(argv, (door.fileno(),), wanted["doors"], bare=False)


def _tap(netns: str) -> int:
    """A tap in that network namespace, set up. Raises `OSError`."""
    from core import syscalls

    def inside() -> int:
        with open(netns, "rb") as there:
            syscalls.setns(there.fileno(), syscalls.CLONE_NEWNET)
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _TAP))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sh14x", b"tap0", _UP))
        return tap

    return syscalls.in_own_thread(inside)


def _tail(path: str) -> str:
    with contextlib.suppress(FileNotFoundError):  # it ended before it could say anything
        return Path(path).read_text("utf-8", "replace").strip()[-300:]
    return "it said nothing"
