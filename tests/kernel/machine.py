"""A machine that runs tests of ours under the kernel of the prepared guest, with this node's files as its own.

Nothing but that kernel and its modules is another: programs, libraries and the checkout are read from this node through
virtiofs, what is written stays in the machine's memory and ends with it. KVM is not asked for: the machine is the same
wherever it runs.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.runtime.vm.cpio import Archive
from core.runtime.vm.installed import Installed
from core.runtime.vm.machine import kernel_command_line
from core.runtime.vm.tsc import kilohertz
from tests.kernel.modules import fetched

CHECKOUT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).resolve().parent
MEMORY_MIB: Final = 3072
CPUS: Final = 2
FIRST: Final = "first"
NULL: Final = subprocess.DEVNULL


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one phase of one test: `outcome` is passed, failed or skipped; `why` is the reason or the trace."""

    test: str
    when: str
    outcome: str
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """All that was told, and the machine's console. `over`: whether pytest came to its end in time."""

    told: tuple[Told, ...]
    console: str
    over: bool

    def of(self, test: str) -> list[Told]:
        """What was told of a test, by its whole id; a file or class that could not be read is told of all its tests."""
        return [one for one in self.told if one.test == test or (one.when == "collect" and _holds(one.test, test))]


def _holds(outer: str, test: str) -> bool:
    return test.startswith(f"{outer}::")


def run(found: Installed, folder: Path, tests: Sequence[str], seconds: float) -> Run:
    """Boot the machine in an empty `folder`, run the tests by their ids, and end it after so many `seconds`."""
    console, told = folder / "console", folder / "told"
    initrd = folder / "initrd"
    initrd.write_bytes(_padded(Path(found.initrd).read_bytes()) + _first(tests, fetched(Path(found.initrd).parent)))
    with _served(found.virtiofsd) as door:
        child = subprocess.Popen(_command(found, initrd, door, console, told), stdin=NULL, pass_fds=[door])
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    said = console.read_text(errors="replace") if console.exists() else ""
    return Run(tuple(_read(told)), said, "pytest ended with" in said)


def _read(told: Path) -> Iterator[Told]:
    for line in told.read_bytes().splitlines() if told.exists() else ():
        yield Told(**json.loads(line))


def _padded(archive: bytes) -> bytes:
    return archive + b"\0" * (-len(archive) % 4)


def _first(tests: Sequence[str], modules: Mapping[str, bytes]) -> bytes:
    """What is unpacked beside the guest's own files."""
    archive = Archive()
    words = [str(HERE / "guest.sh"), str(CHECKOUT), *tests]
    script = (HERE / "first.sh").read_text().replace('"$@"', shlex.join(words))
    archive.folder("modules")
    for name, data in modules.items():
        archive.file(f"modules/{name}.ko", data)
    archive.file("modules/node", " ".join(modules).encode())
    archive.file(FIRST, script.encode(), executable=True)
    return archive.done()


@contextmanager
def _served(virtiofsd: str) -> Iterator[int]:
    """The root of this node, given out by virtiofs: a connected socket for QEMU.

    virtiofsd stays in our mount namespace: in one of its own it would hold what other tests unmount.
    """
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as connected:
        listening.bind("")  # the kernel finds a name that lies in no folder
        listening.listen(1)
        options = ["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot", "-o", "log_level=err"]
        number = listening.fileno()
        child = subprocess.Popen([virtiofsd, f"--fd={number}", "-f", *options], pass_fds=[number], stdin=NULL)
        try:
            connected.connect(listening.getsockname())
            yield connected.fileno()
        finally:
            child.kill()
            child.wait()


def _command(found: Installed, initrd: Path, door: int, console: Path, told: Path) -> list[str]:
    words = f"{kernel_command_line('tcg', kilohertz())} rdinit=/{FIRST}"
    return [
        *(found.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "microvm,rtc=on,acpi=on,memory-backend=ram", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", str(CPUS), "-m", f"{MEMORY_MIB}M"),
        *("-object", f"memory-backend-memfd,id=ram,size={MEMORY_MIB}M,share=on"),
        *("-global", "virtio-mmio.force-legacy=false"),
        *("-kernel", found.kernel, "-initrd", str(initrd), "-append", words),
        *("-serial", f"file:{console}"),
        *("-device", "virtio-serial-device", "-chardev", f"file,id=told,path={told}"),
        *("-device", "virtserialport,chardev=told,name=told"),
        *("-chardev", f"socket,id=fs,fd={door}", "-device", "vhost-user-fs-device,chardev=fs,tag=node"),
    ]


if __name__ == "__main__":
    # By hand: python -m tests.kernel.machine FOLDER TEST…
    from core.runtime.vm.installed import GUEST, installed

    came = run(installed(GUEST), Path(sys.argv[1]).resolve(), sys.argv[2:], 1800)
    print(came.console)
    for one in came.told:
        print(f"{one.seconds:7.2f} {one.outcome:8} {one.when:8} {one.test}")
