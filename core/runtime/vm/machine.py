"""A machine as QEMU's command line. Pure.

Rules of this file: nothing that QEMU would add by itself, no device that nobody asked for; every descriptor comes from
the monitor, so that no socket of the machine has a name. A *board* is what QEMU calls a machine; on one that is no
microvm, the devices are those of PCI.
"""

from __future__ import annotations

import platform
from typing import Final

from core.runtime.vm.frames import PORT
from core.values import dataclass

_ACCELERATORS: Final = {"tcg": "tcg,tb-size=64"}
"""Left alone, TCG takes a gigabyte for translated code."""
TAG: Final = "reconciler"
"""The virtiofs tag of the one folder that host and guest share."""
SOCKET: Final = "control"
ENDED: Final = "ended"
"""In a machine's folder: where its monitor is asked, and what it wrote when the machine had ended."""
CPUS: Final = 1
MEMORY: Final = 256 << 20
OVERHEAD: Final = 192 << 20
"""Bytes that QEMU may use beside the guest's own memory (TCG keeps up to 64 MiB of translated code)."""
_KERNEL: Final = "quiet loglevel=4 panic=-1 reboot=t no_timer_check mitigations=off cryptomgr.notests"
_PROGRAMS: Final = {"x86_64": ("qemu-system-x86_64", ("microvm", "q35")), "aarch64": ("qemu-system-aarch64", ("virt",))}
_BOARDS: Final = {
    "microvm": ("microvm,rtc=on,acpi=on", "device", "ttyS0"),
    "q35": ("q35,usb=off,smbus=off,sata=off,vmport=off", "pci", "ttyS0"),
    "virt": ("virt", "pci", "ttyAMA0"),
}
"""With its options, the ending of the devices' names on its bus, and what its guest calls the console."""
_EMULATED: Final = {"virt": "max,pauth-impdef=on"}
"""Processors under TCG: arm64's signed pointers by the algorithm of the architecture cost two thirds of a boot."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is wanted: `memory` in bytes, `kernel` and `initrd` as paths; `fs`: the socket of virtiofsd ("": none)."""

    kernel: str
    initrd: str
    cpus: int = CPUS
    memory: int = MEMORY
    accelerator: str = "tcg"
    fs: str = ""
    tsc: int = 0
    """kHz of the host's time-stamp counter; see `core.runtime.vm.tsc`."""
    board: str = ""
    """One of `boards`; "": the first of them."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Descriptors that QEMU inherits: the guest's port, QMP, the console, a tap (-1: no network card)."""

    guest: int
    qmp: int
    console: int
    tap: int = -1

    @property
    def all(self) -> tuple[int, ...]:
        """Those that are there."""
        return tuple(fd for fd in (self.guest, self.qmp, self.console, self.tap) if fd >= 0)


def program(machine: str = "") -> str:
    """QEMU's name for this node's architecture."""
    return _PROGRAMS.get(machine or platform.machine(), _PROGRAMS["x86_64"])[0]


def boards() -> tuple[str, ...]:
    """The boards that machines of this node's architecture can be built on, the one that boots fastest first."""
    return _PROGRAMS.get(platform.machine(), _PROGRAMS["x86_64"])[1]


def kernel_command_line(accelerator: str, tsc: int, console: str = "ttyS0") -> str:
    """What the guest's kernel is told; `tsc`: the host's time-stamp counter in kHz (0: it has none)."""
    counter = f" tsc=reliable tsc_early_khz={tsc}" if accelerator == "tcg" and tsc else ""
    return f"console={console} {_KERNEL}{counter}"


def command(wanted: Machine, doors: Doors, qemu: str) -> list[str]:
    """The command line; `qemu` is the program's path."""
    name = wanted.board or boards()[0]
    board, bus, console = _BOARDS[name]
    memory = wanted.memory >> 20
    told = kernel_command_line(wanted.accelerator, wanted.tsc, console)
    words = [
        *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *(
            "-machine",
            f"{board},memory-backend=ram",
            "-accel",
            _ACCELERATORS.get(wanted.accelerator, wanted.accelerator),
            "-cpu",
            _EMULATED.get(name, "max") if wanted.accelerator == "tcg" else "max",
        ),
        *("-smp", str(wanted.cpus), "-m", f"{memory}M"),
        *("-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on"),
        # Devices of virtio 1.0: virtiofsd knows no other.
        *("-global", "virtio-mmio.force-legacy=false"),
        *("-kernel", wanted.kernel, "-initrd", wanted.initrd, "-append", told),
        *("-chardev", f"socket,id=console,fd={doors.console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={doors.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=guest,fd={doors.guest}", "-device", f"virtio-serial-{bus},max_ports=2"),
        *("-device", f"virtserialport,chardev=guest,name={PORT}"),
        *("-device", f"virtio-scsi-{bus},id=disks"),
    ]
    if doors.tap >= 0:
        words += ["-netdev", f"tap,id=net,fd={doors.tap}", "-device", f"virtio-net-{bus},netdev=net"]
    if wanted.fs:
        words += ["-chardev", f"socket,id=fs,path={wanted.fs}"]
        words += ["-device", f"vhost-user-fs-{bus},chardev=fs,tag={TAG}"]
    return words


def plugged(serial: str, path: str, *, read_only: bool) -> list[tuple[str, dict[str, object]]]:
    """The QMP commands that plug a disk in."""
    disk: dict[str, object] = {"driver": "raw", "node-name": serial, "read-only": read_only, "discard": "unmap"}
    file = {"driver": "file", "filename": path, "discard": "unmap"}
    device: dict[str, object] = {
        "driver": "scsi-hd",
        "id": f"disk-{serial}",
        "drive": serial,
        "serial": serial,
        "bus": "disks.0",
    }
    return [("blockdev-add", {**disk, "file": file}), ("device_add", device)]
