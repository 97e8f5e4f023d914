"""Fails a program's Nth write or sync below a folder, over all threads: `failing.py N ERROR FOLDER COMMAND…`.

As `tracer`, whose rules hold: threads are followed, and children up to their execve. The call is not made, and answers
ERROR (`ENOSPC`, `EDQUOT`, `EROFS`, `EIO`). On stdout's last line: `points COUNT` with N = 0, else `failed CALL FILE`
or `past`; its own code is the program's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.crash import tracer

CALLS: Final[Mapping[int, str]] = {
    1: "write",
    18: "pwrite64",
    74: "fsync",
    75: "fdatasync",
    77: "ftruncate",
    306: "syncfs",
}
"""Of x86-64: the calls that a full disk refuses; each has the file's descriptor first."""
_GETREGS: Final = 12
_SETREGS: Final = 13
_RAX: Final = 10
_ORIG_RAX: Final = 15
_NONE: Final = (1 << 64) - 1
_EXIT: Final = 2


class _Registers(ctypes.Structure):
    """user_regs_struct of x86-64 (sys/user.h)."""

    _fields_ = (("all", ctypes.c_uint64 * 27),)


@dataclass(slots=True)
class Failing(tracer.Tracer):
    """A tracer that fails call number `stop_at` below `folder` with `code` instead of killing."""

    code: int = errno.ENOSPC
    folder: str = "/"
    failed: str = ""
    _now: int = 0
    _registers: _Registers = field(default_factory=_Registers)

    def _syscall(self, pid: int) -> None:
        info = self._info
        if not tracer.ptrace(tracer._GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info)):
            return
        if info.op == _EXIT and pid == self._now:
            self._set(pid, _RAX, (1 << 64) - self.code)
            self._now = 0
        elif info.op == tracer._INFO_ENTRY and info.number in CALLS and self._below(pid, info.rest[0]):
            self.seen.append(CALLS[info.number])
            if len(self.seen) == self.stop_at:
                name = Path(os.readlink(f"/proc/{pid}/fd/{info.rest[0]}")).name
                self.failed, self._now = f"{CALLS[info.number]} {name}", pid
                self._set(pid, _ORIG_RAX, _NONE)  # no such call: nothing is done
        tracer.ptrace(tracer._SYSCALL, pid)

    def _below(self, pid: int, fd: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/fd/{fd}").startswith(self.folder)
        except OSError:
            return False

    def _set(self, pid: int, which: int, value: int) -> None:
        at = ctypes.addressof(self._registers)
        tracer.ptrace(_GETREGS, pid, 0, at)
        self._registers.all[which] = value
        tracer.ptrace(_SETREGS, pid, 0, at)


def main(words: Sequence[str]) -> int:
    """The command line in this file's docstring."""
    number, code, folder = int(words[0]), getattr(errno, words[1]), words[2]
    failing = Failing(tracer.start(words[3:]), number, code=code, folder=folder)
    status = failing.run()
    if number:
        print(f"\nfailed {failing.failed}" if failing.failed else "\npast")
    else:
        print(f"\n{' '.join(failing.seen)}\npoints {len(failing.seen)}")
    ended = os.waitstatus_to_exitcode(status)
    return ended if ended >= 0 else 128 - ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
