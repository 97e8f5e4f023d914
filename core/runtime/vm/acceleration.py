"""Whether machines may use KVM here: only where one was seen to boot by it in this boot of the node.

Rules of this file: a /dev/kvm that opens proves nothing (nested ones hang, or refuse what QEMU asks for). So a guest
is booted once, for a few seconds at most, and the answer is kept for as long as node, QEMU, kernel and initramfs are
the same. Whatever is not a clear yes means TCG.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from pathlib import Path
from typing import Any, Final

from core import fsio
from core.clock import Clock
from core.process import Launcher, kill_group
from core.runtime.vm.frames import VERSION, Decoder, Kind, Nonsense, said
from core.runtime.vm.installed import Installed
from core.runtime.vm.machine import Doors, Machine, command

DEVICE: Final = Path("/dev/kvm")
SECONDS: Final = 3.0
"""How long a guest may take to say hello: with KVM it needs a fraction of one."""
_ANSWERS: Final = "kvm.json"
_CHUNK: Final = 1 << 16


class Kvm:
    """`folder`: where the answer is kept; `boot`: this boot's id; `device`: where KVM is."""

    def __init__(
        self, folder: Path, launcher: Launcher, clock: Clock, boot: str, device: Path = DEVICE, seconds: float = SECONDS
    ) -> None:
        self._folder = folder
        self._launcher = launcher
        self._clock = clock
        self._boot = boot
        self._device = device
        self._seconds = seconds

    @property
    def is_there(self) -> bool:
        """Whether there is anything to try."""
        return os.access(self._device, os.R_OK | os.W_OK)

    def accelerator(self, found: Installed) -> str:
        """`kvm` or `tcg`; boots a guest when the answer is not known yet. Raises `OSError` of the folder."""
        if not self.is_there:
            return "tcg"
        fsio.make_private(self._folder)
        with fsio.locked(self._folder / ".kvm.lock"):
            works = self.known(found)
            if works is None:
                works = self._boots(found)
                answers = {**self._answers(), found.kernel: {"asked": self._key(found), "works": works}}
                fsio.write_atomic(self._folder / _ANSWERS, json.dumps(answers).encode(), durable=False)
        return "kvm" if works else "tcg"

    def known(self, found: Installed) -> bool | None:
        """What was seen; None when nobody has looked since something changed. Starts nothing."""
        answer = self._answers().get(found.kernel, {})
        return bool(answer.get("works")) if answer.get("asked") == self._key(found) else None

    def _answers(self) -> dict[str, dict[str, Any]]:
        """By kernel; those of another boot are left out."""
        try:
            answers = json.loads((self._folder / _ANSWERS).read_bytes())
            return {kernel: one for kernel, one in answers.items() if one["asked"][0] == self._boot}
        except (OSError, ValueError, AttributeError, LookupError, TypeError):  # not there, or not ours: asked anew
            return {}

    def _key(self, found: Installed) -> list[Any]:
        seen = [os.stat(path) for path in (found.qemu, found.kernel, found.initrd)]
        return [self._boot, *([one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns] for one in seen)]

    def _boots(self, found: Installed) -> bool:
        with contextlib.ExitStack() as left:
            pairs = [socket.socketpair() for _ in range(3)]
            for end in (end for pair in pairs for end in pair):
                left.callback(end.close)
            doors = Doors(*(theirs.fileno() for _, theirs in pairs))
            argv = command(Machine(found.kernel, found.initrd, accelerator="kvm", board=found.board), doors, found.qemu)
            child = self._launcher.start(argv, pass_fds=doors.all, cwd="/")
            left.callback(kill_group, child)
            for _, theirs in pairs:  # so that its end is seen
                theirs.close()
            return self._greets(*(ours for ours, _ in pairs))

    def _greets(self, guest: socket.socket, *others: socket.socket) -> bool:
        """Whether the guest answers in time; what comes on the other sockets is thrown away."""
        decoder = Decoder()
        until = self._clock.monotonic() + self._seconds
        try:
            guest.sendall(said(Kind.CALL, 1, {"call": "hello", "version": VERSION}))
            while (left := until - self._clock.monotonic()) > 0:
                for one in select.select([guest, *others], [], [], left)[0]:
                    data = one.recv(_CHUNK)
                    if not data:  # it has ended
                        return False
                    if one is guest and any(frame.kind is Kind.DONE for frame in decoder.feed(data)):
                        return True
        except (OSError, Nonsense):
            return False
        return False


def kvm(guest: Path, state: Path, launcher: Launcher, clock: Clock, boot: str) -> Kvm:
    """Its answers lie beside the guest, for all engines of the node; in the state folder where we may not write."""
    return Kvm(guest if os.access(guest, os.W_OK) else state / "vm", launcher, clock, boot)
