"""The process that makes what only a process can: a user namespace, and the first process of a pid namespace.

Rules of this file: it runs for a moment, with one thread, says `made` when the namespaces are there that it was told to
make, goes on when it gets a line, says the number of the first process, and ends; without that line it ends too. The
first process is Debian's static catatonit, which does nothing but to reap what is left to it. Whoever shares its pid
namespace may look into it as into any other of the same user: so it has no capability, no file but its own program, and
nothing of the host's file systems.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final, NoReturn

from core import syscalls

_ROOT: Final = "/proc"
"""Where the new root is mounted before it becomes the root: a folder that is there on every node, for every user."""
_NAME: Final = "catatonit"


def main() -> None:
    """`holder FLAGS PROGRAM`: unshare FLAGS (0: nothing), then hold a new pid namespace by PROGRAM ("": none)."""
    flags, program = int(sys.argv[1]), sys.argv[2]
    if flags:
        syscalls.unshare(flags)
    _say("made")
    if not sys.stdin.readline():
        return
    if flags & syscalls.CLONE_NEWUSER:  # who is nobody here could do nothing to files; who is root outside, too much
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    if program:
        _say(str(_hold(program)))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _hold(program: str) -> int:
    """Start the first process of a new pid namespace; its number, once it is the program. Raises `OSError`."""
    syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS)
    ours, theirs = os.pipe()
    if (pid := os.fork()) == 0:
        _become(program, theirs)
    os.close(theirs)
    with open(ours, "rb") as told:
        if fault := told.read():
            raise OSError(fault.decode())
    return pid


def _become(program: str, told: int) -> NoReturn:
    """Be the first process: alone in a root that holds the program only."""
    try:
        os.setsid()
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("pause", _ROOT, "tmpfs", flags, "mode=755,size=8m")
        shutil.copy(program, f"{_ROOT}/{_NAME}")
        syscalls.pivot_into(_ROOT)
        syscalls.mount("", "/", "", flags | syscalls.MS_REMOUNT | syscalls.MS_RDONLY)
        null = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        syscalls.keep_capabilities(0)
        os.execve(f"/{_NAME}", [_NAME, "-P"], {})
    except OSError as error:
        os.write(told, str(error).encode())
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
