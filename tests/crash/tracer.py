"""Kills a program at its Nth call that changes something, counted over all its threads: `python tracer.py N COMMAND…`.

strace can do nearly that (`--inject=CALL:signal=KILL:when=N`), but counts `when` for each thread and each call by
itself, so that its N never comes for what is spread over workers. This tracer keeps one count. It prints it on
stdout's last line: `points COUNT` with N = 0 (nothing is killed), else `killed CALL` or `ended CODE`.

What it follows: threads, and children up to their execve, at which they are let go of. So the program is stopped
wherever it may be, between two threads or in a child that has not become a helper yet, while helpers, monitors and
workloads are never traced: nothing can stay attached to them. The kill comes at the entry of the call, which is not
carried out any more; the call before it was.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

POINTS: Final[Mapping[str, Mapping[int, str]]] = {
    "x86_64": {
        18: "pwrite64", 56: "clone", 57: "fork", 58: "vfork", 59: "execve", 74: "fsync", 75: "fdatasync",
        77: "ftruncate", 82: "rename", 83: "mkdir", 84: "rmdir", 86: "link", 87: "unlink", 88: "symlink", 90: "chmod",
        91: "fchmod", 92: "chown", 165: "mount", 166: "umount2", 188: "setxattr", 263: "unlinkat", 264: "renameat",
        272: "unshare", 306: "syncfs", 316: "renameat2", 424: "pidfd_send_signal", 435: "clone3",
    },
}  # fmt: skip
"""By machine: the calls at which a kill may leave something half-done."""

_SEIZE: Final = 0x4206
_CONT: Final = 7
_SYSCALL: Final = 24
_DETACH: Final = 17
_GETEVENTMSG: Final = 0x4201
_LISTEN: Final = 0x4208
_GET_SYSCALL_INFO: Final = 0x420E
_OPTIONS: Final = 0x01 | 0x02 | 0x04 | 0x08 | 0x10  # syscalls marked; fork, vfork, clone, exec told
_EVENT_EXEC: Final = 4
_EVENT_STOP: Final = 128
_INFO_ENTRY: Final = 1
_WALL: Final = 0x40000000
_STOPS: Final = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class _SyscallInfo(ctypes.Structure):
    """The head of ptrace_syscall_info (ptrace(2))."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 8),
    )


_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> bool:
    """One call of ptrace(2); False when the tracee is gone."""
    if _LIBC.ptrace(request, pid, address, data) >= 0:
        return True
    code = ctypes.get_errno()
    if code == 3:  # ESRCH: it was killed meanwhile
        return False
    raise OSError(code, f"ptrace {request:#x} of {pid}: {os.strerror(code)}")


def supported() -> bool:
    """Whether the numbers of this machine's calls are known."""
    return platform.machine() in POINTS


@dataclass(slots=True)
class Tracer:
    """Follows the program `leader`; kills it at point number `stop_at` (from 1; 0: never)."""

    leader: int
    stop_at: int
    calls: Mapping[int, str] = field(default_factory=lambda: POINTS[platform.machine()])
    seen: list[str] = field(default_factory=list)
    killed: str = ""
    _info: _SyscallInfo = field(default_factory=_SyscallInfo)

    def run(self) -> int:
        """Until the leader has ended; its wait status."""
        while True:
            try:
                pid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                raise RuntimeError("the program vanished without a status") from None
            if os.WIFSTOPPED(status):
                self._stopped(pid, status)
            elif pid == self.leader:
                return status

    def _stopped(self, pid: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if event == _EVENT_EXEC and pid != self.leader:
            ptrace(_DETACH, pid)
        elif number == signal.SIGTRAP | 0x80:
            self._syscall(pid)
        elif event == _EVENT_STOP and number in _STOPS:
            ptrace(_LISTEN, pid)
        elif event:
            ptrace(_SYSCALL, pid)
        else:
            ptrace(_SYSCALL, pid, 0, number)

    def _syscall(self, pid: int) -> None:
        info = self._info
        if not ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info)):
            return
        name = self.calls.get(info.number) if info.op == _INFO_ENTRY else None
        if name is not None and not self.killed:
            self.seen.append(name)
            if len(self.seen) == self.stop_at:
                self.killed = name
                os.kill(self.leader, signal.SIGKILL)
                # Not resumed: SIGKILL ends the stop, and the call is not made. In a child that is no thread of the
                # program it is made once we let go of it: the child has outlived its parent.
                return
        ptrace(_SYSCALL, pid)


def start(command: Sequence[str]) -> int:
    """Fork the program, seized before its first instruction; returns its pid."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs)
        os.read(ours, 1)
        os.execv(command[0], list(command))
    os.close(ours)
    if not ptrace(_SEIZE, pid, 0, _OPTIONS):
        raise RuntimeError("the program ended before it began")
    os.close(theirs)
    return pid


def main(words: Sequence[str]) -> int:
    """The command line in this file's docstring; its own code is the program's, or 137 when it was killed."""
    tracer = Tracer(start(words[1:]), int(words[0]))
    status = tracer.run()
    code = os.waitstatus_to_exitcode(status)
    if tracer.killed:
        print(f"killed {tracer.killed}")
    elif tracer.stop_at:
        print(f"ended {code}")
    else:
        print(" ".join(tracer.seen))
        print(f"points {len(tracer.seen)}")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
