"""An initramfs as the kernel unpacks it: a cpio archive of the kind `newc`, uncompressed. Pure.

Specification: the kernel's driver-api/early-userspace/buffer-format.
"""

from __future__ import annotations

import stat
from typing import Final

_MAGIC: Final = b"070701"
_END: Final = "TRAILER!!!"


class Archive:
    """Entries in the order they are added; folders above a file are added by themselves. All belong to root."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._count = 0
        self._folders = {""}

    def folder(self, path: str) -> None:
        """A folder, and those above it; harmless when it is there."""
        if path not in self._folders:
            self.folder(path.rpartition("/")[0])
            self._folders.add(path)
            self._entry(path, stat.S_IFDIR | 0o755)

    def file(self, path: str, data: bytes, *, executable: bool = False) -> None:
        """A regular file."""
        self.folder(path.rpartition("/")[0])
        self._entry(path, stat.S_IFREG | (0o755 if executable else 0o644), data)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self.folder(path.rpartition("/")[0])
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """A character device."""
        self.folder(path.rpartition("/")[0])
        self._entry(path, stat.S_IFCHR | 0o600, device=(major, minor))

    def done(self) -> bytes:
        """The whole archive."""
        self._entry(_END, 0)
        return bytes(self._out)

    def _entry(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._count += 1
        text = name.encode() + b"\0"
        numbers = (self._count, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(text), 0)
        self._out += _MAGIC + b"".join(b"%08X" % number for number in numbers) + text
        self._pad()
        self._out += data
        self._pad()

    def _pad(self) -> None:
        self._out += b"\0" * (-len(self._out) % 4)
