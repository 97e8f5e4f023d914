"""Copying out of and into roots: what is kept, what is left out, and that nothing leads out."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import AgentError, Conflict, Invalid, NotFound, OverLimit
from core.runtime import copying, rootfs
from core.runtime.copying import Budget, Place, copy, inside, pack, target_inside, unpack

SECRET = "secret of the host"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text(SECRET)
    folder = tmp_path / "root"
    (folder / "data/deep").mkdir(parents=True)
    (folder / "data/file").write_text("content")
    (folder / "data/deep/tool").write_text("#!/bin/sh\n")
    (folder / "data/deep/tool").chmod(0o4755)
    (folder / "data/link").symlink_to("/etc/passwd")
    (folder / "etc").mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "out").mkdir()
    fd = os.open(tmp_path / "out", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def copied(root: Path, path: str, out: int, budget: Budget | None = None) -> Budget:
    budget = budget or Budget()
    with rootfs.opened(root) as fd, inside(fd, path) as source:
        copy(source, Place(out, "it"), budget)
    return budget


def test_a_folder_is_copied_with_modes_times_and_links_as_links(root: Path, out: int, tmp_path: Path) -> None:
    os.utime(root / "data/file", (1_000_000, 1_000_000))
    copied(root, "/data", out)
    made = tmp_path / "out/it"
    assert (made / "file").read_text() == "content"
    assert os.readlink(made / "link") == "/etc/passwd"
    assert (made / "file").stat().st_mtime == 1_000_000
    assert sorted(os.listdir(tmp_path / "out")) == ["it"]


def test_set_id_bits_do_not_come_out_and_do_go_in(root: Path, out: int, tmp_path: Path) -> None:
    copied(root, "/data/deep", out)
    assert (tmp_path / "out/it/tool").stat().st_mode & 0o7777 == 0o755
    with rootfs.opened(root) as fd, inside(fd, "data/deep/tool") as source:
        copy(source, Place(out, "kept"), Budget(keep_set_id=True))
    assert (tmp_path / "out/kept").stat().st_mode & 0o7777 == 0o4755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_owners_are_kept(root: Path, out: int, tmp_path: Path) -> None:
    os.chown(root / "data/file", 1234, 5678)
    copied(root, "/data/file", out)
    seen = (tmp_path / "out/it").stat()
    assert (seen.st_uid, seen.st_gid) == (1234, 5678)


def test_devices_sockets_and_fifos_are_left_out_and_counted(root: Path, out: int, tmp_path: Path) -> None:
    os.mkfifo(root / "data/fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "data/socket"))
        budget = copied(root, "/data", out)
    assert budget.skipped == 2
    assert sorted(os.listdir(tmp_path / "out/it")) == ["deep", "file", "link"]
    with pytest.raises(Invalid):
        copied(root, "/data/fifo", out)


@pytest.mark.parametrize("path", ["/etc/out/secret", "/etc/up/secret", "/../host/secret", "/etc/magic/host/secret"])
def test_no_link_in_the_path_leads_out(root: Path, out: int, tmp_path: Path, path: str) -> None:
    (root / "etc/out").symlink_to(tmp_path / "host")
    (root / "etc/up").symlink_to("../../host")
    (root / "etc/magic").symlink_to("/proc/self/root" + str(tmp_path))
    with pytest.raises(AgentError):
        copied(root, path, out)
    assert os.listdir(tmp_path / "out") == []


def test_a_link_at_the_end_is_copied_and_not_followed(root: Path, out: int, tmp_path: Path) -> None:
    (root / "etc/out").symlink_to(tmp_path / "host/secret")
    copied(root, "/etc/out", out)
    assert (tmp_path / "out/it").is_symlink()


def test_a_workload_that_swaps_folders_for_links_meanwhile_leads_nowhere(root: Path, tmp_path: Path) -> None:
    for n in range(40):
        (root / f"data/deep/d{n}").mkdir()
        (root / f"data/deep/d{n}/secret").write_text("inside")
    (root / "outward").symlink_to(tmp_path / "host")
    over = threading.Event()

    def swap() -> None:
        n = 0
        while not over.is_set():
            n += 1
            name = root / f"data/deep/d{n % 40}"
            os.rename(name, root / "aside")
            os.rename(root / "outward", name)
            os.rename(name, root / "outward")
            os.rename(root / "aside", name)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for n in range(15):
            out = tmp_path / f"out{n}"
            out.mkdir()
            fd = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(AgentError, OSError):  # to refuse is as good
                copied(root, "/data", fd)
            os.close(fd)
            assert all(SECRET not in file.read_text() for file in real_files(out))
            stream = io.BytesIO()
            with contextlib.suppress(AgentError, OSError), rootfs.opened(root) as top, inside(top, "/data") as source:
                pack(source, "data", stream, Budget())
            assert SECRET.encode() not in stream.getvalue()
    finally:
        over.set()
        swapping.join()


def real_files(folder: Path) -> Iterator[Path]:
    for top, _, names in os.walk(folder):
        yield from (path for name in names if not (path := Path(top, name)).is_symlink())


def test_copying_into_a_root_does_not_follow_its_links(root: Path, tmp_path: Path) -> None:
    (root / "etc/out").symlink_to(tmp_path / "host")
    (root / "etc/file").symlink_to(tmp_path / "host/secret")
    given = os.open(root / "data", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with rootfs.opened(root) as fd:
            with pytest.raises(NotFound), target_inside(fd, "/etc/out/new", "file") as place:
                copy(Place(given, "file"), place, Budget())
            with target_inside(fd, "/etc/file", "file") as place:
                copy(Place(given, "file"), place, Budget())
            with target_inside(fd, "/etc", "file2") as place:
                copy(Place(given, "file"), place, Budget())
    finally:
        os.close(given)
    assert (tmp_path / "host/secret").read_text() == SECRET
    assert os.listdir(tmp_path / "host") == ["secret"]
    assert (root / "etc/file").read_text() == (root / "etc/file2").read_text() == "content"


def test_a_folder_that_is_there_is_not_replaced_and_a_file_is(root: Path, out: int, tmp_path: Path) -> None:
    copied(root, "/data", out)
    with pytest.raises(Conflict):
        copied(root, "/data", out)
    with pytest.raises(Conflict):
        copied(root, "/data/file", out)
    (tmp_path / "out/file").write_text("old")
    with rootfs.opened(root) as fd, inside(fd, "/data/file") as source:
        copy(source, Place(out, "file"), Budget())
    assert (tmp_path / "out/file").read_text() == "content"
    assert sorted(os.listdir(tmp_path / "out")) == ["file", "it"]


def test_bytes_entries_and_depth_are_bounded_and_nothing_is_left(root: Path, out: int, tmp_path: Path) -> None:
    os.truncate(root / "data/file", 1 << 40)
    with pytest.raises(OverLimit):
        copied(root, "/data", out)
    with pytest.raises(OverLimit):
        copied(root, "/data", out, Budget(entries=2))
    os.truncate(root / "data/file", 1)
    deep = root
    for _ in range(210):
        deep = deep / "d"
        deep.mkdir()
    with pytest.raises(OverLimit):
        copied(root, "/d", out)
    assert os.listdir(tmp_path / "out") == []


def test_a_tar_stream_goes_out_and_in_again_as_it_was(root: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with rootfs.opened(root) as fd:
        with inside(fd, "/data") as source:
            pack(source, "data", stream, Budget(keep_set_id=True))
        stream.seek(0)
        unpack(stream, fd, "/etc", Budget(keep_set_id=True))
    assert (root / "etc/data/file").read_text() == "content"
    assert (root / "etc/data/deep/tool").stat().st_mode & 0o7777 == 0o4755
    assert os.readlink(root / "etc/data/link") == "/etc/passwd"


def tar_of(*members: tuple[str, bytes, str]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.uid, member.gid = os.getuid(), os.getgid()
            tar.addfile(member, io.BytesIO())
    stream.seek(0)
    return stream


@pytest.mark.parametrize(
    "members",
    [
        [("../out", tarfile.REGTYPE, "")],
        [("x/../../out", tarfile.REGTYPE, "")],
        [("dev", tarfile.CHRTYPE, "")],
        [("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [("way", tarfile.SYMTYPE, "/"), ("way/out", tarfile.REGTYPE, "")],
        [("way", tarfile.SYMTYPE, "../../host"), ("way/secret", tarfile.REGTYPE, "")],
    ],
)
def test_members_that_lead_out_or_are_no_files_are_refused(
    root: Path, tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    with rootfs.opened(root) as fd, pytest.raises((AgentError, OSError)):
        unpack(tar_of(*members), fd, "/etc", Budget())
    assert (tmp_path / "host/secret").read_text() == SECRET
    assert not (tmp_path / "out").exists()


def test_what_is_no_tar_stream_is_refused(root: Path) -> None:
    with rootfs.opened(root) as fd, pytest.raises(Invalid, match="no tar stream"):
        unpack(io.BytesIO(b"no tar at all" * 100), fd, "/etc", Budget())


def test_a_file_that_is_cut_off_while_it_is_packed_keeps_the_stream_whole() -> None:
    short = copying._Padded(io.BytesIO(b"abc"), 5)
    assert short.read(100) + short.read(100) == b"abc\0\0"
