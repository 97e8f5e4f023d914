"""The system calls that Python does not offer, each with its errno checked.

Rules of this file: nothing else in the program imports ctypes. `setns` and `unshare` change only a thread made for it,
which ends afterwards. Numbers are those of Linux's asm-generic table, the same on x86-64, arm64 and riscv for the calls
used by number here (all newer than 5.0).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import struct
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000
MS_SHARED: Final = 0x100000
MNT_DETACH: Final = 0x2
UMOUNT_NOFOLLOW: Final = 0x8

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10


_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_OPENAT2: Final = 437
_SYS_MOUNT_SETATTR: Final = 442
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_MOUNT_ATTR_IDMAP: Final = 0x00100000
_CAPABILITY_VERSION_3: Final = 0x20080522
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_OPEN_HOW: Final = struct.Struct("=QQQ")
_MOUNT_ATTR: Final = struct.Struct("=QQQQ")


def _check(result: int, what: str | None = None) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2): raises `OSError` with the target's name."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode() or None,
            ctypes.c_ulong(flags),
            options.encode() or None,
        ),
        target,
    )


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2): raises `OSError` (EINVAL: not a mount point, EBUSY: in use)."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def bind_mapped(source: str, target: str, users: int) -> None:
    """Bind `source` and what is mounted below it on `target`, its owners shown as the user namespace `users` (a
    descriptor) maps them: what lies there as 0 is whoever 0 is in it, and the other way when written.

    open_tree(2), mount_setattr(2), move_mount(2). Raises `OSError` (EINVAL: a file system that cannot be mapped).
    """
    flags = os.O_CLOEXEC | _OPEN_TREE_CLONE | _AT_RECURSIVE
    tree = _numbered(_SYS_OPEN_TREE, source, _AT_FDCWD, os.fsencode(source), flags)
    try:
        attributes = _MOUNT_ATTR.pack(_MOUNT_ATTR_IDMAP, 0, 0, users)
        _numbered(_SYS_MOUNT_SETATTR, source, tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
        _numbered(_SYS_MOVE_MOUNT, target, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)


def _numbered(call: int, what: str, *arguments: int | bytes) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    return _check(_libc.syscall(ctypes.c_long(call), *words), what)


def pivot_into(folder: str) -> None:
    """Make `folder`, a mount point, the root of this process' own mount namespace, and let go of what was there before.

    pivot_root(2), the way with one folder for both; raises `OSError`.
    """
    os.chdir(folder)
    _check(_libc.pivot_root(b".", b"."), folder)
    umount(".", MNT_DETACH)
    os.chdir("/")


def openat2(dirfd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): a new descriptor (O_CLOEXEC added), resolved as `resolve` (RESOLVE_*) allows; raises `OSError`."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    raw = path if isinstance(path, bytes) else os.fsencode(path)
    return _check(
        _libc.syscall(ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(dirfd), ctypes.c_char_p(raw), how, ctypes.c_size_t(24)),
        os.fsdecode(raw),
    )


def syncfs(fd: int) -> None:
    """Write the whole file system that `fd` lies on to disk."""
    _check(_libc.syncfs(ctypes.c_int(fd)))


def in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that ends with it, and so does what it unshares or joins; raises what `work` raises."""
    from concurrent.futures import ThreadPoolExecutor  # costs 10 ms, which commands that only read need not pay

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="namespace") as own:
        return own.submit(work).result()


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread: only inside `in_own_thread`."""
    _check(_libc.unshare(ctypes.c_int(flags)))


def setns(fd: int, kind: int) -> None:
    """setns(2) for the calling thread: only inside `in_own_thread`."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)))


def keep_capabilities(mask: int) -> None:
    """capset(2) and no_new_privs for the calling thread and what it starts: of its capabilities only the bits `mask`.

    Raises `OSError` (EPERM: `mask` has one that it lacks).
    """
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(number) for number in (1, 0, 0, 0))))


def die_with_parent() -> None:
    """PR_SET_PDEATHSIG: SIGKILL for this process when the thread that made it ends. After `keep_capabilities`."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, *(ctypes.c_ulong(number) for number in (9, 0, 0, 0))))


def sethostname(name: str) -> None:
    """sethostname(2) in the calling thread's UTS namespace: only inside `in_own_thread` after `unshare`."""
    raw = name.encode()
    _check(_libc.sethostname(raw, ctypes.c_size_t(len(raw))))


def time_stamp() -> int:
    """The processor's time-stamp counter (x86-64 only: elsewhere the process would end)."""
    return int(_rdtsc()[0]())


@functools.cache
def _rdtsc() -> tuple[Callable[[], int], mmap.mmap]:
    """`rdtsc; shl rdx, 32; or rax, rdx; ret` as a function, and the memory that it lies in."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_uint64)(address), code
