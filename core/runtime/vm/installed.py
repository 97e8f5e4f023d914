"""What a machine is made of on this node: QEMU, the guest's kernel and initramfs, virtiofsd."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from core.errors import NotFound, Unsupported
from core.process import find
from core.runtime.vm.machine import program
from core.values import dataclass

GUEST: Final = Path("/var/cache/reconciler/vm")
KERNEL: Final = "kernel"
INITRD: Final = "initramfs"
_FS: Final = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")


@dataclass(frozen=True, slots=True)
class Installed:
    """Paths of programs and files; `virtiofsd` "": no folder can be shared with a machine.

    `board`: what machines are built on, once it is known.
    """

    qemu: str
    kernel: str
    initrd: str
    virtiofsd: str
    board: str = ""


def installed(guest: Path, kernel: str = "", qemu: str = "") -> Installed:
    """What is there; raises `MissingTool` for QEMU, `NotFound` for a guest that nobody prepared or a missing kernel."""
    qemu = find(qemu or program(), "qemu-system-x86")
    own, initrd = guest / KERNEL, guest / INITRD
    if not own.exists() or not initrd.exists():
        raise NotFound(f"no guest for virtual machines in {guest}", advice="Run `reconciler runtime prepare vm`.")
    if kernel and not os.path.isfile(kernel):
        raise NotFound(f"the kernel {kernel} is not on this node", advice="Correct vm.kernel, or leave it out.")
    fs = next((path for path in _FS if os.access(path, os.X_OK)), "") or shutil.which("virtiofsd") or ""
    return Installed(qemu, kernel or str(own), str(initrd), fs)


def check_sharing(found: Installed) -> None:
    """Raise `Unsupported` where no folder can be shared with a machine."""
    if not found.virtiofsd:
        raise Unsupported(
            "volumes in a virtual machine without virtiofsd",
            advice="Install virtiofsd (Debian 12: qemu-system-common; later: virtiofsd).",
        )
