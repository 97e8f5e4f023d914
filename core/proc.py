"""What /proc says: mounts, processes, this boot. Read once, as values.

A process is (pid, start time, boot id), everywhere: a number alone may be somebody else's by now.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from core.values import dataclass

PROC: Final = Path("/proc")
_OCTAL: Final = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def boot_id() -> str:
    """The kernel's id of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


_PF_EXITING: Final = 0x4
"""Of the kernel's flags of a process, as /proc/PID/stat shows them."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process for ever: never matches a later process that got the same number."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int, boot: str) -> Self | None:
        """The identity of `pid` now, or None when there is no such process."""
        start = start_time(pid)
        return None if start is None else cls(pid, start, boot)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(int(data["pid"]), int(data["start"]), str(data["boot"]))

    def to_json(self) -> dict[str, Any]:
        """A form for records."""
        return {"pid": self.pid, "start": self.start, "boot": self.boot}

    def alive(self, boot: str) -> bool:
        """Whether this very process still runs (a zombie does not), given this boot's id."""
        if boot != self.boot:
            return False
        seen = _stat(self.pid)
        return seen is not None and seen[1] == self.start and seen[0] not in "ZX"

    def open(self) -> int | None:
        """A pidfd of this very process, or None when it is gone; the caller closes it.

        Raises `OSError` when that cannot be told (no descriptors left).
        """
        try:
            fd = os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):  # the last two: now the number of a thread
                return None
            raise
        try:
            same = start_time(self.pid) == self.start
        except OSError:
            os.close(fd)
            raise
        if not same:
            os.close(fd)
            return None
        return fd

    def signal(self, number: signal.Signals) -> bool:
        """Signal this very process, by pidfd; False when it is gone."""
        fd = self.open()
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True


def read_small(path: str) -> bytes:
    """A kernel file of at most 4 KiB, in three system calls; raises `OSError`. For what is read often, of each task."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        text = read_small(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which `pid` started, or None when there is no such process."""
    seen = _stat(pid)
    return None if seen is None else seen[1]


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP and its like) has stopped `pid`."""
    seen = _stat(pid)
    return seen is not None and seen[0] == "T"


def is_ending(pid: int) -> bool:
    """Whether `pid` is on its way out, or gone."""
    try:
        text = read_small(f"/proc/{pid}/stat")
    except OSError:
        return True
    return bool(int(text[text.rindex(b")") + 2 :].split()[6]) & _PF_EXITING)


def wait_gone(process: ProcessId, seconds: float) -> bool:
    """Wait up to `seconds` for this very process to end; True when it has."""
    fd = process.open()
    if fd is None:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(max(0, int(seconds * 1000))))
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo (proc(5))."""

    target: str
    fstype: str
    source: str
    root: str
    options: str
    propagation: str


def _unescape(text: str) -> str:
    if "\\" in text:
        for code, char in _OCTAL:
            text = text.replace(code, char)
    return text


def mounts(under: str = "/") -> list[Mount]:
    """The mounts at or below `under` in this mount namespace, in the order they were made."""
    prefix = under.rstrip("/") + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as source:
        return [seen for line in source if (seen := _mount(line)).target == under or seen.target.startswith(prefix)]


def _mount(line: str) -> Mount:
    left, _, right = line.rstrip("\n").partition(" - ")
    fields = left.split(" ")
    fstype, source, options = [*right.split(" "), "", ""][:3]
    return Mount(
        _unescape(fields[4]),
        fstype,
        _unescape(source),
        _unescape(fields[3]),
        f"{fields[5]},{options}",
        " ".join(fields[6:]),
    )


def pids() -> Iterator[int]:
    """The numbers of all processes that can be seen."""
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            yield int(entry.name)


def command_lines(boot: str) -> Iterator[tuple[ProcessId, frozenset[bytes]]]:
    """Every process with the words of its command line; `boot`: this boot's id."""
    for pid in pids():
        found = ProcessId.of(pid, boot)
        with contextlib.suppress(OSError):  # it ended while we looked
            words = (PROC / f"{pid}/cmdline").read_bytes().split(b"\0")
            if found is not None:
                yield found, frozenset(words)


def pss_bytes(pid: int) -> int:
    """Proportional set size of `pid` in bytes; raises `OSError` when it is gone."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as source:
        for line in source:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def same_mount_namespace_as_init() -> bool | None:
    """Whether this process sees the mounts that pid 1 sees; None where /proc/1/ns cannot be read."""
    try:
        return os.readlink("/proc/1/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    except (PermissionError, FileNotFoundError):
        return None


def flock_holder(path: str) -> int | None:
    """The pid that holds an exclusive flock on `path`, as /proc/locks has it; None where it does not say."""
    seen = os.stat(path)
    wanted = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}:{seen.st_ino}"
    for line in read_small("/proc/locks").decode().splitlines():
        fields = line.split()
        if fields[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and fields[5] == wanted:
            return int(fields[4])
    return None
