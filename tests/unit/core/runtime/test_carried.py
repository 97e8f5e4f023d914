"""Entries between this node and a machine: a tree goes through whole, and a hostile stream leads nowhere."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import AgentError, Conflict, Failed, Invalid, NotFound, OverLimit
from core.runtime import carried, trees
from core.runtime.copying import Budget, Place
from core.runtime.trees import Entry, Kind, Receiver

HEAD = struct.Struct(">BHIIqqQH")


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "out").mkdir()
    fd = os.open(tmp_path / "out", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def reader(data: bytes) -> Callable[[int], bytes]:
    """As a connection reads: exactly so many bytes, or `Failed`."""
    source = io.BytesIO(data)

    def read(count: int) -> bytes:
        if len(found := source.read(count)) < count:
            raise Failed("the copy broke off")
        return found

    return read


def packed(folder: Path) -> bytes:
    sent = bytearray()
    fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        carried.send(sent.extend, Place(fd, folder.name), Budget())
    finally:
        os.close(fd)
    return bytes(sent)


def head(kind: int, name: bytes = b"copy", size: int = 0, mode: int = 0o644, uid: int = 0) -> bytes:
    return HEAD.pack(kind, mode, uid, 0, 0, 0, size, len(name)) + name


END = head(Kind.END, b"")
UP = head(Kind.UP, b"")


def test_a_tree_arrives_as_it_was_without_bits_that_set_ids(tmp_path: Path, out: int) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/tool").write_bytes(b"x" * 200_000)
    (tree / "deep/tool").chmod(0o4755)
    (tree / "link").symlink_to("/etc/passwd")
    os.mkfifo(tree / "fifo")
    os.utime(tree / "deep/tool", ns=(5, 1_000_000_007))
    sent, budget = packed(tree), Budget()
    carried.lay_out(reader(sent), Place(out, "it"), budget)
    made = (tmp_path / "out/it/deep/tool").stat()
    assert (made.st_mode & 0o7777, made.st_mtime_ns, made.st_size) == (0o755, 1_000_000_007, 200_000)
    assert os.readlink(tmp_path / "out/it/link") == "/etc/passwd"
    assert (sorted(os.listdir(tmp_path / "out/it")), budget.skipped) == (["deep", "link"], 1)
    stream = io.BytesIO()
    carried.pack(reader(sent), "called", stream, Budget())
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        assert tar.getnames() == ["called", "called/deep", "called/deep/tool", "called/link"]
        assert tar.getmember("called/deep/tool").mode == 0o755


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (head(Kind.FILE, b"../up") + END, Invalid),
        (head(Kind.FILE, b"..") + END, Invalid),
        (head(Kind.FILE, b"/abs") + END, Invalid),
        (head(Kind.FILE, b"a\0b") + END, Invalid),
        (head(Kind.FILE, b"x" * 300) + END, Failed),
        (head(Kind.FILE, uid=0xFFFFFFFF) + END, Failed),
        (head(Kind.FILE, mode=0o60644) + END, Failed),
        (head(Kind.FILE, size=1 << 62), OverLimit),
        (head(Kind.LINK, size=1 << 20), Invalid),
        (head(99) + END, Failed),
        (UP + END, Failed),
        (head(Kind.FOLDER) + END, Failed),
        (head(Kind.FOLDER) * 300, OverLimit),
        (END, Failed),
        (head(Kind.FILE, b"other") + END, Failed),
        (head(Kind.FILE, size=10) + b"short", Failed),
        (b"", Failed),
        (head(Kind.FAILED, b"not found", 5) + b"a\x1b[2J", NotFound),
        (head(Kind.FAILED, b"conflict", 1 << 60) + b"a" * 1000, Conflict),
    ],
)
def test_a_hostile_stream_is_refused_and_leaves_nothing(
    tmp_path: Path, out: int, sent: bytes, error: type[AgentError]
) -> None:
    with pytest.raises(error) as told:
        carried.lay_out(reader(sent), Place(out, "it"), Budget())
    assert told.value.message.isprintable()
    assert os.listdir(tmp_path / "out") == []
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_a_link_that_was_sent_is_not_gone_through(tmp_path: Path, out: int) -> None:
    (tmp_path / "host").mkdir()
    target = str(tmp_path / "host").encode()
    link = head(Kind.LINK, b"way", len(target)) + target
    sent = head(Kind.FOLDER) + link + head(Kind.ENTER, b"way") + head(Kind.FILE, b"made") + UP + UP + END
    with pytest.raises(OSError, match="way"):
        carried.lay_out(reader(sent), Place(out, "it"), Budget())
    assert os.listdir(tmp_path / "host") == []
    assert os.listdir(tmp_path / "out") == []


def test_entries_without_end_come_to_the_end_of_the_budget(tmp_path: Path, out: int) -> None:
    sent = head(Kind.FOLDER) + b"".join(head(Kind.FILE, str(number).encode()) for number in range(50)) + UP + END
    with pytest.raises(OverLimit):
        carried.lay_out(reader(sent), Place(out, "it"), Budget(entries=20))
    with pytest.raises(OverLimit):
        carried.pack(reader(sent), "it", io.BytesIO(), Budget(entries=20))
    assert os.listdir(tmp_path / "out") == []


def test_a_folder_that_is_there_is_not_replaced_and_a_file_is(tmp_path: Path, out: int) -> None:
    (tmp_path / "file").write_text("new")
    (tmp_path / "out/folder").mkdir()
    (tmp_path / "out/old").write_text("old")
    with pytest.raises(Conflict):
        carried.lay_out(reader(packed(tmp_path / "file")), Place(out, "folder"), Budget())
    carried.lay_out(reader(packed(tmp_path / "file")), Place(out, "old"), Budget())
    assert (tmp_path / "out/old").read_text() == "new"
    assert sorted(os.listdir(tmp_path / "out")) == ["folder", "old"]


def test_a_tar_stream_is_laid_into_folders_that_are_there(tmp_path: Path, out: int) -> None:
    (tmp_path / "out/d").mkdir(mode=0o750)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("d/e/f")
        member.size, member.mode, member.mtime = 3, 0o640, 77
        tar.addfile(member, io.BytesIO(b"abc"))
    stream.seek(0)
    sent = bytearray()
    carried.unpack(stream, sent.extend, Budget())
    Receiver(reader(bytes(sent)), lambda _: None, set_id=True, fresh=False).receive(out)
    made = tmp_path / "out/d/e/f"
    assert (made.read_text(), made.stat().st_mode & 0o777, made.stat().st_mtime) == ("abc", 0o640, 77)
    assert (tmp_path / "out/d").stat().st_mode & 0o777 == 0o750
    assert os.listdir(tmp_path / "out/d/e") == ["f"]


@pytest.mark.parametrize("change", [{"name": "../x"}, {"type": tarfile.LNKTYPE}, {"type": tarfile.CHRTYPE}])
def test_a_tar_stream_that_leads_out_is_not_sent(change: dict[str, object]) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("x")
        for name, value in change.items():
            setattr(member, name, value)
        tar.addfile(member)
    stream.seek(0)
    sent = bytearray()
    with pytest.raises(Invalid):
        carried.unpack(stream, sent.extend, Budget())
    assert sent == b""


def test_an_entry_is_what_was_written() -> None:
    made = Entry(Kind.FILE, b"name", 7)
    made.mode, made.owner, made.times = 0o640, (1, 2), (3, -4)
    read = trees.entry(reader(made.encoded()))
    assert (read.kind, read.name, read.size, read.mode, read.owner, read.times) == (
        *(Kind.FILE, b"name", 7),
        *(0o640, (1, 2), (3, -4)),
    )
