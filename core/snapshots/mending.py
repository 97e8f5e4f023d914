"""A ledger that was lost or damaged, made anew from what each snapshot's folder says of itself.

Rules of this file: only who holds the engine's lock opens a driver for good, and only there a ledger is mended. Beside
a snapshot's files lies its line once more (`<number>/line.json`, with a checksum); the ledger is right where both can
be read, since a note is written before the line it repeats. A folder that is mounted somewhere is somebody's root: it
is given its line back, with those below it, and is never swept.
"""

from __future__ import annotations

import json
import os
import re
from binascii import crc32
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from core import fsio, proc
from core.clock import Clock
from core.errors import Corrupt
from core.snapshots.ledger import Ledger
from core.snapshots.ports import SnapshotInfo, SnapshotKind

NOTE: Final = "line.json"
ASIDE: Final = ".damaged-"
_PARTS: Final = ("", "-wal", "-shm")
_NUMBER: Final = re.compile(r"(?:^|[/=:])(\d+)/fs(?=$|[:,])")
_LIMIT: Final = 1 << 16


def write_note(folder: Path, info: SnapshotInfo) -> None:
    """Repeat a line in the snapshot's folder. Not synced: who makes a line durable syncs the file system before."""
    said = [info.key, info.parent, info.kind.value, info.created]
    # In place: a kill in the middle leaves a note that its sum gives away, and nothing to sweep.
    (folder / NOTE).write_text(json.dumps({"line": said, "sum": _sum(said)}))


def read_note(folder: Path) -> SnapshotInfo | None:
    """What a folder says it is; None when it does not say, or says what was not written."""
    try:
        found = json.loads(fsio.read_bounded(folder / NOTE, _LIMIT))
        said = found["line"]
        if found["sum"] != _sum(said):
            return None
        return SnapshotInfo(str(said[0]), said[1], SnapshotKind(said[2]), float(said[3]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def open_ledger(root: Path, clock: Clock) -> tuple[Ledger, str]:
    """The ledger of the driver at `root`, mended where it must be, and what was lost (a sentence; empty: nothing)."""
    path = root / "ledger.db"
    ledger, fault = _opened(path, anything=any(folders(root)))
    if ledger is None:
        _set_aside(path, f"{path.name}{ASIDE}{clock.wall():.0f}")
        ledger = Ledger(path)
        back = [number for number in folders(root) if _give_back(ledger, root, number)]
        ledger.skip_to(max(folders(root), default=0) + 1)
        return ledger, f"the ledger of {root.name} {fault}; {len(back)} snapshots are known again from their folders"
    ledger.skip_to(max(folders(root), default=0) + 1)
    back = _return_mounted(ledger, root)
    _repeat(ledger, root)
    if back:
        return ledger, f"the ledger of {root.name} had lost its newest lines; {len(back)} mounted snapshots are back"
    return ledger, ""


def folders(root: Path) -> list[int]:
    """The numbers of the snapshots that have a folder, in order: parents come before children."""
    return sorted(int(name) for name in os.listdir(root) if name.isdigit())


def mounted(root: Path) -> set[int]:
    """The numbers of the snapshots whose files are part of a mount that can be seen from here."""
    found: set[int] = set()
    for mount in proc.mounts():
        if mount.fstype == "overlay":
            # A long lineage is named relative to the driver's folder: then nothing tells whose it is, and it counts.
            options = mount.options
            if f"{root}/" in options or not _absolute(options):
                found.update(map(int, _NUMBER.findall(options)))
        elif f"/{root.name}/" in mount.root:
            found.update(map(int, _NUMBER.findall(mount.root)))
    return found


def _absolute(options: str) -> bool:
    return "lowerdir=/" in options


def _opened(path: Path, *, anything: bool) -> tuple[Ledger | None, str]:
    """The ledger, or what is wrong with it. One that is not there is new, unless there are snapshots."""
    if not path.exists() or not path.stat().st_size:  # SQLite takes an empty file for a new one
        log = path.with_name(f"{path.name}-wal")
        if anything or log.exists():
            return None, "was gone" if not path.exists() else "was empty"
    try:
        ledger = Ledger(path)
    except Corrupt as error:
        return None, f"was damaged ({error.message})"
    try:
        ledger.check()
    except Corrupt as error:
        ledger.close()
        return None, f"was damaged ({error.message})"
    return ledger, ""


def _set_aside(path: Path, name: str) -> None:
    for old in sorted(path.parent.glob(f"{path.name}{ASIDE}*")):
        old.unlink()
    for part in _PARTS:
        if (there := path.with_name(path.name + part)).exists():
            os.rename(there, path.with_name(name + part))


def _give_back(ledger: Ledger, root: Path, number: int) -> bool:
    """Write the line that a folder says it is; False when it does not say, or the line cannot be."""
    info = read_note(root / str(number))
    if info is None or ledger.has(info.key) or (info.parent is not None and not ledger.find([info.parent])):
        return False
    if info.kind is SnapshotKind.COMMITTED:
        ledger.add_committed([(number, info)])
    else:
        ledger.add(number, info)
    return True


def _return_mounted(ledger: Ledger, root: Path) -> list[int]:
    lost = [number for number in folders(root) if not ledger.has_number(number)]
    if not lost:
        return []
    used = mounted(root)
    return [number for number in lost if number in used and _give_back(ledger, root, number)]


def _repeat(ledger: Ledger, root: Path) -> None:
    """Have every folder say what the ledger says of it."""
    for line in ledger.lines():
        folder = root / str(line.id)
        if folder.is_dir() and read_note(folder) != line.info:
            write_note(folder, line.info)


def _sum(said: list[Any]) -> int:
    return crc32(json.dumps(said).encode())


def damaged(root: Path) -> Iterator[Path]:
    """The ledgers of the driver at `root` that were set aside."""
    return root.glob(f"ledger.db{ASIDE}*")
