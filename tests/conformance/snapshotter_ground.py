"""What tests of snapshots and layers stand on: tars made entry by entry, trees told file by file."""

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core import mounts
from core.clock import SystemClock
from core.digest import Digest
from core.layers import Budgets, Compression
from core.process import Launcher
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.native import NativeSnapshotter
from core.snapshots.overlay import OverlaySnapshotter
from core.snapshots.unpack import LayerUnpacker

REG, DIR, SYM, LNK, CHR, BLK, FIFO = (
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)  # fmt: skip
OVERLAY_OWN = "trusted.overlay."


@dataclass(frozen=True)
class Entry:
    """One member of a layer; `pax` are extension records, `data` a regular file's content."""

    name: str
    type: bytes = REG
    data: bytes = b""
    link: str = ""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime: int = 1_600_000_000
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)


def layer(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed layer of `entries`, in order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode, info.mtime = entry.type, entry.link, entry.mode, entry.mtime
            info.uid, info.gid = entry.owner
            info.devmajor, info.devminor = entry.device
            info.pax_headers = dict(entry.pax)
            info.size = len(entry.data) if entry.type == REG else 0
            archive.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


def folder(name: str, mode: int = 0o755, **more: Any) -> Entry:
    """A folder's entry."""
    return Entry(name, DIR, mode=mode, **more)


def need_root() -> None:
    """Skip without root: owners, devices and mounts are what is tested."""
    if os.geteuid() != 0:
        pytest.skip("needs root: layers hold other owners, devices and mounts")


def overlay(root: Path) -> OverlaySnapshotter:
    """The overlay driver in `root`; skips where the kernel refuses the mount."""
    need_root()
    driver = OverlaySnapshotter(root, SystemClock())
    driver.prepare("probe-base", None)
    driver.commit("probe-committed", "probe-base")
    target = root.parent / "probe"
    target.mkdir(exist_ok=True)
    try:
        mounts.attach(driver.prepare("probe", "probe-committed"), target)
    except OSError as error:
        pytest.skip(f"overlayfs cannot be mounted here: {error}")
    mounts.detach(target)
    for key in ("probe", "probe-committed"):
        driver.remove(key)
    return driver


def native(root: Path) -> NativeSnapshotter:
    """The native driver in `root`."""
    need_root()
    return NativeSnapshotter(root, SystemClock(), Launcher())


DRIVERS = {"overlayfs": overlay, "native": native}


def unpack(
    driver: FolderSnapshotter,
    layers: Sequence[bytes],
    *,
    budgets: Budgets | None = None,
    compression: Compression = Compression.NONE,
    raw: Sequence[bytes] | None = None,
) -> str:
    """Unpack an image of `layers` (their uncompressed bytes; `raw` are the blobs) and return its top chain id."""
    blobs = raw or layers
    sink = LayerUnpacker(driver, Launcher()).begin(
        [Digest.of(data) for data in layers], [len(blob) for blob in blobs], budgets or Budgets()
    )
    try:
        for index in sink.missing():
            path = driver.root.parent / f"blob-{index}"
            path.write_bytes(blobs[index])
            sink.ready(index, path, compression)
        return sink.finish()
    finally:
        sink.abort()


@contextmanager
def mounted(driver: FolderSnapshotter, key: str, parent: str | None) -> Iterator[Path]:
    """A writable snapshot on `parent`, mounted for the block and removed after it."""
    target = driver.root.parent / f"mnt-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    target.mkdir(exist_ok=True)
    mounts.attach(driver.prepare(key, parent), target)
    try:
        yield target
    finally:
        mounts.detach(target)
        driver.remove(key)


def tree(root: Path, *, times: bool = True) -> dict[str, tuple[Any, ...]]:
    """Every file below `root` by its path: type and mode, owner, times, attributes, hard links, content or target."""
    seen: dict[str, tuple[Any, ...]] = {}
    groups: dict[int, str] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        name = str(path.relative_to(root))
        status = path.lstat()
        what: object = None
        if stat.S_ISREG(status.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(status.st_mode):
            what = os.readlink(path)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            what = status.st_rdev
        first = "" if stat.S_ISDIR(status.st_mode) else groups.setdefault(status.st_ino, name)
        attributes = {
            key: os.getxattr(path, key, follow_symlinks=False)
            for key in os.listxattr(path, follow_symlinks=False)
            if not key.startswith(OVERLAY_OWN)
        }
        when = status.st_mtime_ns if times else 0
        seen[name] = (oct(status.st_mode), status.st_uid, status.st_gid, when, attributes, first, what)
    return seen


@dataclass(frozen=True)
class Layout:
    """An OCI image layout on disk, tag `latest`: its layers' blobs and uncompressed digests."""

    path: Path
    blobs: tuple[Path, ...]
    diff_ids: tuple[Digest, ...]

    @classmethod
    def read(cls, path: Path) -> "Layout":
        """Read a layout of one image of one platform with gzip layers."""

        def blob(digest: str) -> Path:
            return path / "blobs" / digest.replace(":", "/")

        index = json.loads((path / "index.json").read_bytes())
        manifest = json.loads(blob(index["manifests"][0]["digest"]).read_bytes())
        config = json.loads(blob(manifest["config"]["digest"]).read_bytes())
        blobs = tuple(blob(described["digest"]) for described in manifest["layers"])
        return cls(path, blobs, tuple(Digest.parse(text) for text in config["rootfs"]["diff_ids"]))

    def unpack(self, driver: FolderSnapshotter, workers: int = 2) -> str:
        """Unpack it and return the top chain id."""
        unpacker = LayerUnpacker(driver, Launcher(), workers)
        sink = unpacker.begin(self.diff_ids, [path.stat().st_size for path in self.blobs], Budgets())
        try:
            for index in sink.missing():
                sink.ready(index, self.blobs[index], Compression.GZIP)
            return sink.finish()
        finally:
            sink.abort()
