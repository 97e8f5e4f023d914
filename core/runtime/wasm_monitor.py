"""The monitor of one WASM task: carries the module in a child of its own, writes its log, records how it ended.

Rules of this file: it outlives the engine, in a session of its own; what it needs comes from `wasm.json` in the bundle
and two descriptors (the compiled module, and the pipe on which it answers once). The module runs in a child, so that
whatever ends that one, a kill, a fault of the engine or too much memory, is recorded like any other end. The child
loads the module before it answers, then gives up root, and begins when a byte comes on the fifo `start`. Few imports:
there is one monitor a task.

The exit file (`exits/<id>`, the code as text) is written last, after the log is whole; `oom` in the bundle before it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from typing import Any, Final

from core.clock import SystemClock

REOPEN: Final = b"2 "
"""What a message on `ctl` begins with that asks for the log to be opened by name again (as conmon has it)."""
_CHUNK: Final = 1 << 16
_LONGEST: Final = 16 << 10
"""Bytes of a line after which it goes on as another piece."""
_CLOCK: Final = SystemClock()
_BATCH: Final = 64 << 10
"""Bytes written to a log at once."""
_FILES: Final = 0b11111
"""The capabilities that root keeps: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID."""


class Log:
    """A log in the CRI format; written anew when it has `limit` bytes, so that no module fills the disk."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._rest = {"stdout": b"", "stderr": b""}
        self._fd = self._size = -1
        self.reopen()

    def reopen(self) -> None:
        """Go on in the file of that name, which is made when it is not there; in the old one where it cannot be."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            if self._fd < 0:
                raise
            return
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Whole lines at once; what lacks its end waits for it."""
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        pieces = [(line, b"F") for line in lines]
        while len(rest) >= _LONGEST:
            pieces.append((rest[:_LONGEST], b"P"))
            rest = rest[_LONGEST:]
        self._rest[stream] = rest
        self._put(stream, pieces)

    def end(self, stream: str) -> None:
        """Write what never got its end."""
        if rest := self._rest[stream]:
            self._rest[stream] = b""
            self._put(stream, [(rest, b"P")])

    def close(self) -> None:
        """Nothing is written any more."""
        os.close(self._fd)

    def _put(self, stream: str, pieces: list[tuple[bytes, bytes]]) -> None:
        if not pieces:
            return
        wall = _CLOCK.wall()
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall)) + f".{int(wall % 1 * 1e9):09d}Z"
        head = f"{at} {stream} ".encode()
        batch = b""
        for line, mark in pieces:  # short lines grow twentyfold by their heads: what was read at once may be too much
            text = head + mark + b" " + line + b"\n"
            if len(batch) + len(text) > min(self._limit, _BATCH):
                self._append(batch)
                batch = b""
            batch += text
        self._append(batch)

    def _append(self, text: bytes) -> None:
        if self._size + len(text) > self._limit:
            with contextlib.suppress(OSError):  # it cannot be made anew: then it grows on
                os.rename(self._path, f"{self._path}.full")
                self.reopen()
                os.unlink(f"{self._path}.full")
        with contextlib.suppress(OSError):  # a full disk costs lines, never the workload
            self._size += os.write(self._fd, text)


def main() -> None:
    """`--bundle DIR ANSWER MODULE`: the two are descriptors. Goes on in a fork, whose parent ends at once."""
    bundle, answer, module = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if os.fork():
        os._exit(0)
    with open(f"{bundle}/wasm.json", "rb") as source:
        wanted = json.load(source)
    for name in ("ctl", "start"):
        os.mkfifo(f"{bundle}/{name}", 0o600)
    control = os.open(f"{bundle}/ctl", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    start = os.open(f"{bundle}/start", os.O_RDWR | os.O_CLOEXEC)
    log = Log(wanted["log"], wanted["log_limit"])
    ready, told = os.pipe()
    pipes = [os.pipe(), os.pipe()]
    child = os.fork()
    if child == 0:
        for fd in (answer, control, ready):  # who waits for their end must not wait for ours
            os.close(fd)
        _carry(wanted, module, start, told, [end for _, end in pipes])
    for fd in (told, start, module, *(end for _, end in pipes)):
        os.close(fd)
    trouble = _trouble(ready)
    _answer(answer, {"pid": 0, "message": trouble} if trouble else {"pid": child, "monitor": os.getpid()})
    if trouble:
        os.waitpid(child, 0)
        return
    streams = {pipes[0][0]: "stdout", pipes[1][0]: "stderr"}
    _record(wanted, _watch(child, control, streams, log))


def _trouble(ready: int) -> str:
    """What the child says of itself before it waits for its start; "" when it is ready."""
    said = b""
    while piece := os.read(ready, _CHUNK):
        said += piece
    os.close(ready)
    text = said.decode("utf-8", "replace")
    return "" if text == "ready" else text or "the process that carries the module ended before it was loaded"


def _answer(fd: int, said: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the engine was killed: the next one deletes the task
        os.write(fd, json.dumps(said).encode() + b"\n")
    os.close(fd)


def _carry(wanted: dict[str, Any], module: int, start: int, told: int, outputs: list[int]) -> None:
    """Be the module's process; never returns."""
    try:
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (outputs[0], 1), (outputs[1], 2)):
            os.dup2(source, target)
        for group in wanted["groups"]:  # before anything large is loaded: it counts as the task's
            with open(group, "wb") as members:
                members.write(b"0")
        from core.runtime.wasm_engine import Refused, load

        try:
            _withdraw()
            run = load(wanted, f"/proc/self/fd/{module}")
            _become(wanted["user"])
        except (Refused, OSError) as error:
            os.write(told, str(error).encode()[:4000] or b"no reason given")
            os._exit(1)
        os.write(told, b"ready")
        os.close(told)
        os.read(start, 1)
        os.close(start)
        os._exit(run())
    finally:
        with contextlib.suppress(OSError):  # it is loaded, and the other end is closed
            os.write(told, repr(sys.exc_info()[1]).encode())
        os._exit(134)


def _withdraw() -> None:
    """No core dumps, which would hold secrets; where we are root, no network either, should the engine ever fail us."""
    import resource

    from core import syscalls

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # not allowed here: the engine gives the module none anyway
            syscalls.unshare(syscalls.CLONE_NEWNET)


def _become(user: dict[str, Any]) -> None:
    """Where we are root: be the task's user; for root itself, keep only what files need."""
    from core import syscalls

    if os.geteuid() == 0:
        os.setgroups(user["additionalGids"])
        os.setgid(user["gid"])
        os.setuid(user["uid"])
    with open("/proc/self/status", "rb") as status:  # as bytes: from here on no module of Python's may be in reach
        held = next(int(line.split()[1], 16) for line in status if line.startswith(b"CapPrm:"))
    syscalls.keep_capabilities(held & _FILES)


def _watch(child: int, control: int, streams: dict[int, str], log: Log) -> int:
    """Write what it says until it has ended; returns its wait status."""
    ended = os.pidfd_open(child)
    poller = select.poll()
    for fd in (ended, control, *streams):
        poller.register(fd, select.POLLIN)
    gone = False
    while streams or not gone:
        for fd, _ in poller.poll():
            if fd == control:
                if any(line.startswith(REOPEN) for line in os.read(control, _CHUNK).splitlines()):
                    log.reopen()
            elif fd == ended:
                gone = True
                poller.unregister(fd)
            elif data := os.read(fd, _CHUNK):
                log.write(streams[fd], data)
            else:
                log.end(streams.pop(fd))
                poller.unregister(fd)
    return os.waitpid(child, 0)[1]


def _record(wanted: dict[str, Any], status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and any(_kills(path) for path in wanted["oom"]):
        os.close(os.open(f"{wanted['bundle']}/oom", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    aside = f"{wanted['exit']}.{os.urandom(3).hex()}"
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.write(fd, str(code if code >= 0 else 128 - code).encode())
    os.close(fd)
    os.rename(aside, wanted["exit"])


def _kills(path: str) -> int:
    """How many processes the kernel has killed for want of memory, by a control group's own table."""
    with contextlib.suppress(OSError), open(path, encoding="ascii") as table:  # this node has the other version
        for line in table:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
