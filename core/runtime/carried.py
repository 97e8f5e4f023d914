"""Copies of what is in a virtual machine: entries of `trees` on its side, folders of this node or tar on ours."""

from __future__ import annotations

import contextlib
import struct
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, Final

from core.errors import AgentError, Conflict, Denied, Failed, Invalid, NoSpace, NotFound, OverLimit
from core.runtime import copying, trees
from core.runtime.copying import Budget, Place
from core.runtime.trees import Entry, Kind

_CLASSES: Final[Mapping[str, type[AgentError]]] = {
    one.category.value: one for one in (Invalid, NotFound, Denied, Conflict, NoSpace, OverLimit, Failed)
}


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What a copy is refused with becomes the error of its category."""
    try:
        yield
    except trees.CopyFailed as error:
        raise _CLASSES.get(error.category, Failed)(error.message) from None


def lay_out(read: trees.Read, place: Place, budget: Budget) -> None:
    """One entry from the machine, called as `place` says; owners, modes and times kept. Raises as `copying.copy`."""
    with told():
        kept = budget.keep_set_id
        budget.skipped += trees.receive_new(read, budget.take, place.folder, place.name, set_id=kept)


def send(write: trees.Write, source: Place, budget: Budget) -> None:
    """One entry to the machine; raises as `copying.copy` and what the machine says."""
    with told():
        sender = trees.Sender(write, budget.take)
        sender.send(source.folder, source.name)
        budget.skipped += sender.skipped


def pack(read: trees.Read, name: str, out: IO[bytes], budget: Budget) -> None:
    """One entry from the machine, called `name`, as a tar (pax) stream; raises as `copying.pack`."""
    way: list[str] = []
    with told(), tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        while (one := trees.entry(read)).kind is not Kind.END:
            if one.kind is Kind.UP:
                if not way:
                    raise Failed("the machine sends nonsense")
                way.pop()
                continue
            budget.take(one.size if one.kind is Kind.FILE else 0)
            path = "/".join((*way, one.name.decode("utf-8", "surrogateescape") if way else name))
            if len(way) > trees.DEPTH:
                raise OverLimit(f"folders are nested more than {trees.DEPTH} deep")
            _add(tar, one, path, read, budget)
            if one.kind is Kind.FOLDER:
                way.append(path.rpartition("/")[2])
        budget.skipped += one.size


_KINDS: Final = {Kind.FILE: tarfile.REGTYPE, Kind.LINK: tarfile.SYMTYPE, Kind.FOLDER: tarfile.DIRTYPE}


def _add(tar: tarfile.TarFile, one: Entry, path: str, read: trees.Read, budget: Budget) -> None:
    member = tarfile.TarInfo(path)
    if one.kind not in _KINDS:
        raise Failed("the machine sends nonsense")
    member.type = _KINDS[one.kind]
    member.mode = one.mode & (0o7777 if budget.keep_set_id else 0o1777)
    member.uid, member.gid = one.owner
    member.mtime = one.times[1] / 1e9
    if one.kind is Kind.LINK:
        member.linkname = read(one.size).decode("utf-8", "surrogateescape")
    member.size = one.size if one.kind is Kind.FILE else 0
    tar.addfile(member, _Left(read) if member.size else None)  # type: ignore[arg-type]  # only read() is asked of it
    tar.members = []  # type: ignore[attr-defined]  # else it keeps each


class _Left:
    def __init__(self, read: trees.Read) -> None:
        self.read = read


def unpack(given: IO[bytes], write: trees.Write, budget: Budget) -> None:
    """Send a tar stream to the machine; what is in it is held to the rules of `copying.unpack`, whose errors it has."""
    with told():
        try:
            with tarfile.open(fileobj=given, mode="r|*") as tar:
                for member in tar:
                    budget.take(member.size)
                    _send_member(tar, member, write)
        except (tarfile.TarError, OverflowError) as error:
            raise Invalid(f"it is no tar stream: {error}") from error
        write(Entry(Kind.END).encoded())


def _send_member(tar: tarfile.TarFile, member: tarfile.TarInfo, write: trees.Write) -> None:
    parts = [part.encode("utf-8", "surrogateescape") for part in copying.parts_of(member)]
    folders = parts if member.isdir() else parts[:-1]
    for number, part in enumerate(folders, 1):
        own = member.isdir() and number == len(parts)
        write(_entry(Kind.ENTER, part, int(own), member))
    if member.issym():
        target = member.linkname.encode("utf-8", "surrogateescape")
        write(_entry(Kind.LINK, parts[-1], len(target), member) + target)
    elif not member.isdir():
        write(_entry(Kind.FILE, parts[-1], member.size, member))
        data = tar.extractfile(member)
        left = member.size
        while data is not None and left and (block := data.read(1 << 16)):
            write(block)
            left -= len(block)
        if left:
            raise Invalid("it is no tar stream: it is cut off")
    for _ in folders:
        write(Entry(Kind.UP).encoded())


def _entry(kind: Kind, name: bytes, size: int, member: tarfile.TarInfo) -> bytes:
    made = Entry(kind, name, size)
    made.mode, made.owner = member.mode & 0o7777, (member.uid, member.gid)
    made.times = (int(member.mtime * 1e9), int(member.mtime * 1e9))
    try:
        return made.encoded()
    except struct.error as error:
        raise Invalid(f"member {member.name[:100]!r}: {error}") from error
