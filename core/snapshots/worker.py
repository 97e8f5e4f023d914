"""The process that applies layers: one request a line on stdin, one answer a line on stdout, until stdin ends.

Rules of this file: it runs in a process of its own, exec-ed, with one thread, so that Python's cost for a layer is a
core's own and the umask and mounts it changes are nobody else's. It holds the folder it fills (a shared flock), and
ends when its parent does. It imports little: it must be at work within 60 ms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core import fsio, mounts, syscalls
from core.clock import SystemClock
from core.errors import AgentError, TimedOut, from_os_error
from core.snapshots.apply import Allowance, apply_layer
from core.snapshots.job import Done, Fault, Job, Redo, answer_line
from core.snapshots.overlay_mount import overlay_mount
from core.snapshots.rooted import OPEN_FOLDER, NeedsParent
from core.stream import LayerStream
from core.tar import TarReader


def main() -> None:
    """Answer requests until stdin ends."""
    parent = os.getppid()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(answer_line(answer(Job.parse(line), parent)))
        sys.stdout.buffer.flush()


def answer(job: Job, parent: int) -> Done | Redo | Fault:
    """Do one job; ends the process when its parent is no longer `parent`."""
    try:
        held = fsio.hold(Path(job.prefix, job.target).parent)
        if held is None:
            return Fault("Failed", f"the staging folder of {job.target} is gone")
        try:
            with _folder(job) as root:
                return _apply(job, root, _pulse(job, parent))
        finally:
            os.close(held)
    except NeedsParent as need:
        return Redo(str(need))
    except AgentError as error:
        return Fault.of(error)
    except OSError as error:
        return Fault.of(from_os_error(error, f"applying a layer to {job.target}"))


def _apply(job: Job, root: int, pulse: Callable[[], None]) -> Done:
    with open(job.blob, "rb", buffering=0) as blob:
        stream = LayerStream(blob, job.compression, job.algorithm, pulse)
        source = TarReader(stream.fill)
        applied = apply_layer(root, job.beneath, source, Allowance(job.max_bytes, job.max_inodes, job.scarce))
        source.drain()
    return Done(stream.hexdigest(), applied.bytes, applied.inodes, applied.named_root)


def _pulse(job: Job, parent: int) -> Callable[[], None]:
    clock = SystemClock()
    deadline = clock.monotonic() + job.seconds

    def pulse() -> None:
        if clock.monotonic() > deadline:
            raise TimedOut(f"a layer was not applied within {job.seconds:g} s")
        if os.getppid() != parent:
            raise SystemExit(1)

    return pulse


@contextmanager
def _folder(job: Job) -> Iterator[int]:
    """A descriptor of the folder to apply to: the target itself, or the overlay of it on its parents."""
    target = Path(job.prefix, job.target)
    if not job.lower:
        fd = os.open(target, OPEN_FOLDER)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    fsio.empty(target)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    merged = target.parent / "merged"
    merged.mkdir(exist_ok=True)
    mounts.attach([overlay_mount(job.prefix, job.lower, job.target, job.work)], merged)
    try:
        fd = os.open(merged, OPEN_FOLDER)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        syscalls.umount(str(merged))
        merged.rmdir()
