"""Power cuts: what of a disk is left when the power goes at some moment.

The disk is a file with an ext4 on it, mounted by a loop device. What was not synced is in the page cache of that file
system and not in the file: a copy of the file is what a power cut leaves. All processes that write are stopped while it
is copied, and a copy during which the kernel wrote to the device is thrown away: so a copy is one moment. What this
does not model are blocks that reach a disk in another order than they were given to it, or by halves.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import leftovers

DISK_BYTES: Final = 256 << 20
UNMOUNT_SECONDS: Final = 20.0


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[str]:
    """The file system in `image` at `folder`; gives the name of its loop device."""
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield next(one.source.rsplit("/", 1)[1] for one in leftovers.all_mounts() if one.target == str(folder))
    finally:
        for inner in reversed([one for one in leftovers.all_mounts() if one.target.startswith(f"{folder}/")]):
            subprocess.run(["umount", "--lazy", inner.target], check=False)
        _unmount(folder)


def _unmount(folder: Path) -> None:
    """Unmounts; waits for processes that were killed and still hold it."""
    deadline = time.monotonic() + UNMOUNT_SECONDS
    while (done := subprocess.run(["umount", folder], capture_output=True, text=True, check=False)).returncode != 0:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.05)


def make(image: Path) -> None:
    """An empty disk."""
    with image.open("wb") as out:
        out.truncate(DISK_BYTES)
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-E", lazy, image], check=True)


@dataclass(frozen=True)
class Cut:
    """A disk as it was at one moment, and how many writes had been acknowledged by then."""

    image: Path
    acknowledged: int


def cut(place: leftovers.Place, disk: tuple[Path, str], acks: Path, copy: Path) -> Cut | None:
    """The disk as it is now; None when it was written while it was copied."""
    image, device = disk
    stopped = list(leftovers.processes(place))
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        before = _writes(device)
        acknowledged = _number(acks)
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
        same = _writes(device) == before
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return Cut(copy, acknowledged) if same else None


def _writes(device: str) -> str:
    """How often the kernel wrote to it, how much, and what is under way."""
    fields = Path(f"/sys/block/{device}/stat").read_text().split()
    return " ".join((*fields[4:7], fields[8]))


def _number(file: Path) -> int:
    return int(text) if (text := leftovers.read_bytes(str(file)).decode().strip()) else 0


def write_on_and_on(store: Path, acks: Path) -> None:
    """Commits objects, one after the other, and writes down how many were acknowledged, on another disk."""
    from reconciler.model.identity import Key, Kind
    from reconciler.model.objects import Object
    from reconciler.store import sqlite
    from reconciler.store.port import Put

    opened = sqlite.open_store(store, create=True)
    assert opened is not None
    file = os.open(acks, os.O_WRONLY | os.O_CREAT)
    number = 0
    while True:
        number += 1
        opened.commit([Put(Object(Key(Kind.VOLUME, f"v{number}"), spec={"retain": False}), 0)])
        os.pwrite(file, f"{number:8d}".encode(), 0)
        time.sleep(0.005)


if __name__ == "__main__":
    write_on_and_on(Path(sys.argv[1]), Path(sys.argv[2]))
