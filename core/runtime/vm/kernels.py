"""Debian's kernel as a guest wants it: unpacked, with the few modules that a machine needs, in the order of loading."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from core.errors import Corrupt
from core.process import Launcher

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "mmio": ("virtio_mmio", "virtio_console", "virtio_scsi", "sd_mod", "erofs", "ext4", "overlay"),
    "pci": ("virtio_pci", "virtio_console", "virtio_scsi", "sd_mod", "erofs", "ext4", "overlay"),
    "0x0001": ("virtio_net",),
    "0x001a": ("virtiofs",),
}
"""What is loaded: by the machine's bus, then by the virtio devices that are there (virtio specification, 5)."""
_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)\0")
_SIGNED: Final = b"~Module signature appended~\n"
_SIGNATURE: Final = 12
_ELF: Final = b"\x7fELF"
_LZ4: Final = b"\x02\x21\x4c\x18"
_UNPACKED: Final = 256 << 20


def modules(
    tree: Path, groups: Mapping[str, tuple[str, ...]] = GROUPS
) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """The modules by name, unsigned, and for each of the groups their names in the order of loading.

    Signatures are left out because the kernel, which does not insist on them, takes 20 ms of an emulated processor to
    check each; the image is checked as a whole. What is built in is not there, and need not be.
    """
    there = {path.stem.replace("-", "_"): path for path in tree.glob("lib/modules/*/kernel/**/*.ko")}
    if not there:
        raise Corrupt("the kernel's package has no modules as they are known")
    taken: dict[str, bytes] = {}
    orders = {}
    for group, names in groups.items():
        order: list[str] = []
        for name in names:
            _add(name, there, taken, order)
        orders[group] = order
    return taken, orders


def _add(name: str, there: Mapping[str, Path], taken: dict[str, bytes], order: list[str]) -> None:
    if name in order or name not in there:
        return
    data = taken.get(name) or unsigned(there[name].read_bytes())
    found = _DEPENDS.search(data)
    for needed in found[1].decode().replace("-", "_").split(",") if found else ():
        _add(needed, there, taken, order)
    taken[name] = data
    order.append(name)


def unsigned(module: bytes) -> bytes:
    """A module without the signature behind it (kernel: scripts/sign-file)."""
    if not module.endswith(_SIGNED):
        return module
    rest = module[: -len(_SIGNED)]
    return rest[: -_SIGNATURE - int.from_bytes(rest[-4:], "big")]


def kernel(tree: Path, launcher: Launcher) -> tuple[bytes, str]:
    """The kernel, and its version; unpacked where it can be, since that takes it a second of each start."""
    found = sorted(tree.glob("boot/vmlinuz-*"))
    if not found:
        raise Corrupt("the kernel's package has no kernel")
    image = found[-1].read_bytes()
    return _unpacked(image, launcher) or image, found[-1].name.removeprefix("vmlinuz-")


def _unpacked(image: bytes, launcher: Launcher) -> bytes | None:
    """The ELF file within a bzImage (kernel: arch/x86/boot); None where it is none, or its packing is another."""
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        return None
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    payload = image[start : start + length]
    program = shutil.which("lz4")
    if not payload.startswith(_LZ4) or program is None:
        return None
    unpacked = launcher.run([program, "-d", "-c", "-q"], stdin=payload[:-4], limit=_UNPACKED).stdout
    return unpacked if unpacked.startswith(_ELF) else None
