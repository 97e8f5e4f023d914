"""Logs in the CRI format: read, followed across rotation, rotated.

One line is `<RFC 3339 time> <stdout|stderr> <F|P> <text>`; P is a piece of a longer line (Kubernetes CRI, logging).
Rotated logs are `<path>.1` (the youngest) to `<path>.<n>`. A monitor that keeps an open descriptor goes on writing to
the renamed file until it is told to open the name again, so nothing is lost in between: a reader finishes the old file
once the new one is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from core.clock import Clock
from core.values import dataclass

_BLOCK: Final = 1 << 16
_LINE_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `at` in seconds since 1970, `partial` when the text goes on in the next line of its stream."""

    at: float
    stream: str
    text: bytes
    partial: bool = False


def parse(raw: bytes) -> Line:
    """A log line without its newline; what is not in the format (torn by a crash) comes as text of stream `raw`."""
    fields = raw.split(b" ", 3)
    if len(fields) == 4 and fields[1] in (b"stdout", b"stderr") and fields[2][:1] in (b"F", b"P"):
        try:
            return Line(_seconds(fields[0].decode()), fields[1].decode(), fields[3], fields[2][:1] == b"P")
        except ValueError:
            return Line(0.0, "raw", raw)
    return Line(0.0, "raw", raw)


def _seconds(text: str) -> float:
    head, dot, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    whole = datetime.fromisoformat((head + rest[digits:] if dot else head).replace("Z", "+00:00")).timestamp()
    return whole + (float(f"0.{rest[:digits]}") if digits else 0.0)


def files(path: Path) -> list[Path]:
    """The files of a log that are there, oldest first, the current one last."""
    numbered = [entry for entry in path.parent.glob(f"{path.name}.*") if entry.suffix[1:].isdigit()]
    numbered.sort(key=lambda entry: -int(entry.suffix[1:]))
    return [entry for entry in (*numbered, path) if entry.exists()]


def read(path: Path, *, tail: int | None = None, since: float = 0.0) -> Iterator[Line]:
    """The log so far, across rotated files: the last `tail` lines, from `since` (seconds since 1970) on."""
    skip = 0 if tail is None else max(0, sum(_count(file) for file in files(path)) - tail)
    for file in files(path):
        with contextlib.suppress(FileNotFoundError), open(file, "rb") as source:  # rotated away meanwhile
            for raw in _complete(source):
                skip -= 1
                line = parse(raw)
                if skip < 0 and line.at >= since:
                    yield line


def _count(path: Path) -> int:
    try:
        with open(path, "rb") as source:
            return sum(block.count(b"\n") for block in iter(lambda: source.read(_BLOCK), b""))
    except FileNotFoundError:
        return 0


def _complete(source: BinaryIO) -> Iterator[bytes]:
    while raw := source.readline(_LINE_LIMIT):
        if not raw.endswith(b"\n") and len(raw) < _LINE_LIMIT:
            source.seek(-len(raw), os.SEEK_CUR)  # still being written
            return
        yield raw.rstrip(b"\n")


def follow(
    path: Path, clock: Clock, done: Callable[[], bool], *, start: int | None = None, pause: float = 0.1
) -> Iterator[Line]:
    """New lines as they come, until `done()` and nothing is left; from byte `start` of the file (None: its end).

    Looks every `pause` seconds. Goes on in the next file when the log is rotated or written anew.
    """
    source = _wait_for(path, clock, done, pause)
    if source is None:
        return
    source.seek(0, os.SEEK_END) if start is None else source.seek(start)
    while True:
        last = done()
        moved = _newer(path, source)
        yield from map(parse, _complete(source))
        if moved is not None:
            source.close()
            source = moved
        elif last:
            source.close()
            return
        else:
            clock.sleep(pause)


def _wait_for(path: Path, clock: Clock, done: Callable[[], bool], pause: float) -> BinaryIO | None:
    while True:
        try:
            return open(path, "rb")
        except FileNotFoundError:
            if done():
                return None
            clock.sleep(pause)


def _newer(path: Path, source: BinaryIO) -> BinaryIO | None:
    """The file that follows `source` in the log's order, opened; None while `source` is the current one."""
    own = os.fstat(source.fileno())
    there = files(path)
    inodes = [_inode(file) for file in there]
    known = (own.st_dev, own.st_ino) in inodes
    # Not among them: the monitor wrote it anew at its own limit, or we slept through all rotations.
    for file in there[inodes.index((own.st_dev, own.st_ino)) + 1 :] if known else [path]:
        try:
            return open(file, "rb")
        except FileNotFoundError:
            continue
    return None


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    return seen.st_dev, seen.st_ino


def rotate(path: Path, reopen: Callable[[], bool], *, max_size: int, keep: int) -> bool:
    """Rotate a log over `max_size` bytes, keeping `keep` files in all; True when it was.

    `reopen` tells the monitor (`OciShim.reopen_log`). Killed between the renames and `reopen`, the monitor goes on
    writing to `<path>.1`: the next call sees the name missing and finishes. A log that somebody removed is begun anew.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return reopen()
    if size < max_size:
        return False
    for old in files(path):
        number = int(old.suffix[1:]) if old != path else 0
        if number + 1 >= keep:
            old.unlink(missing_ok=True)
        else:
            os.replace(old, path.with_name(f"{path.name}.{number + 1}"))
    reopen()
    return True
