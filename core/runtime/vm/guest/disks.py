"""Disks by their serials, and what is mounted for tasks from them."""

from __future__ import annotations

import os
from typing import Final

from core.runtime.vm.guest.asking import Refused
from core.runtime.vm.guest.loop import Children, Job, Loop

_BLOCK: Final = "/sys/class/block"
_WAIT: Final = 0.01
_TRIES: Final = 1000
_EROFS: Final = (1024, b"\xe2\xe1\xf5\xe0")
_SHELL: Final = "/bin/sh"


class Mounts:
    """Roots (each mounted once, for all tasks that have it), layers, and shared folders."""

    def __init__(self, loop: Loop, children: Children, run: str) -> None:
        self._loop = loop
        self._children = children
        self._run = run
        self._users: dict[str, set[str]] = {}
        self._shared: set[str] = set()

    def arrange(self, id: str, root: str, layer: str, target: str) -> Job:
        """A job: `target` becomes the task's root, the disk `layer` over the disk `root`."""
        below, own = f"{self._run}/roots/{root}", f"{self._run}/layers/{id}"
        root_disk, layer_disk = (yield from self._disk(root)), (yield from self._disk(layer))
        commands = []
        if not self._users.get(root):
            commands.append(f"mkdir -p {below} && mount -t {_format(root_disk)} -o ro {root_disk} {below}")
        commands.append(f"mkdir -p {own} {target} && mount -t ext4 -o noatime {layer_disk} {own}")
        commands.append(f"mkdir -p {own}/upper {own}/work && chmod 755 {own}/upper")
        options = f"lowerdir={below},upperdir={own}/upper,workdir={own}/work"
        commands.append(f"mount -t overlay -o {options} overlay {target}")
        self._users.setdefault(root, set()).add(id)
        yield from self._children.run([_SHELL, "-c", " && ".join(commands)])

    def release(self, id: str, target: str) -> Job:
        """A job: undo `arrange`, however far it came; harmless when there is nothing."""
        mounted = _mounted()
        wanted = [target, f"{self._run}/layers/{id}"]
        for root, users in list(self._users.items()):
            users.discard(id)
            if not users:
                del self._users[root]
                wanted.append(f"{self._run}/roots/{root}")
        for path in wanted:
            if path in mounted:
                yield from self._children.run([_SHELL, "-c", f"umount {path} && rmdir {path}"])

    def share(self, tag: str) -> Job:
        """A job: the virtiofs of that tag is mounted at /run/shared/TAG."""
        if tag in self._shared:
            return
        path = f"{self._run}/shared/{tag}"
        yield from self._children.run([_SHELL, "-c", f"mkdir -p {path} && mount -t virtiofs {tag} {path}"])
        self._shared.add(tag)

    def _disk(self, serial: str) -> Job:
        """A job: the device of that serial, waited for; raises `Refused` when it does not come within 10 s."""
        for _ in range(_TRIES):
            if found := _device(serial):
                return found
            yield self._loop.pause(_WAIT)
        raise Refused("not found", f"no disk of serial {serial} came up")


def _device(serial: str) -> str:
    for name in os.listdir(_BLOCK):
        try:
            with open(f"{_BLOCK}/{name}/device/vpd_pg80", "rb") as page:
                if page.read()[4:].strip().decode("ascii", "replace") == serial:
                    os.close(os.open(f"/dev/{name}", os.O_RDONLY))  # one that comes or goes cannot be opened
                    return f"/dev/{name}"
        except OSError:  # no disk of SCSI, or one that goes at this moment
            continue
    return ""


def _format(device: str) -> str:
    with open(device, "rb") as disk:
        start = disk.read(4096)
    offset, magic = _EROFS
    return "erofs" if start[offset : offset + 4] == magic else "ext4"


def _mounted() -> set[str]:
    with open("/proc/self/mounts") as table:
        return {line.split(" ")[1] for line in table}
