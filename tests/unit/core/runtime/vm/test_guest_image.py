import os
import subprocess
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.process import find
from core.runtime.vm.cpio import Archive
from core.runtime.vm.guest.asking import Given, Refused
from core.runtime.vm.guest.carrying import append, put
from core.runtime.vm.kernels import unsigned
from core.runtime.vm.tsc import measured


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("a/b/c", b"words", executable=True)
    archive.link("a/l", "b/c")
    argv = [find("busybox", "busybox-static"), "cpio", "-id"]
    subprocess.run(argv, input=archive.done(), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "a/l").read_bytes() == b"words"
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o755


def test_a_modules_signature_is_cut_off_and_nothing_else() -> None:
    signature = b"s" * 300
    signed = b"module" + signature + b"\0" * 8 + len(signature).to_bytes(4, "big") + b"~Module signature appended~\n"
    assert unsigned(signed) == b"module"
    assert unsigned(b"module") == b"module"


def test_the_counters_speed_is_always_about_the_same() -> None:
    first, second = measured(SystemClock()), measured(SystemClock())
    assert first > 100_000
    assert abs(first - second) < first / 100


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a b", "ä", "x" * 201])
def test_a_name_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(Refused):
        Given({"id": name}).name("id")


def test_a_file_in_pieces_is_there_with_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "carried/one/file"
    given = {"path": str(path), "mode": 0o600, "uid": os.getuid(), "gid": os.getgid()}
    put(Given({**given, "data": "YWI=", "more": True}), str(tmp_path))
    append(Given({"path": str(path), "data": "Y2Q=", "more": True}), str(tmp_path))
    assert not path.exists()
    append(Given({"path": str(path), "data": "ZQ=="}), str(tmp_path))
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("abcde", 0o600)
    with pytest.raises(FileNotFoundError):
        append(Given({"path": str(path), "data": "ZQ=="}), str(tmp_path))
    assert path.read_text() == "abcde"


def test_a_file_is_not_put_through_a_link(tmp_path: Path) -> None:
    top = tmp_path / "carried"
    top.mkdir()
    (top / "out").symlink_to(tmp_path)
    given = {"path": f"{top}/out/x", "mode": 0o600, "uid": 0, "gid": 0, "data": ""}
    with pytest.raises(Refused, match="elsewhere"):
        put(Given(given), str(top))
    assert not (tmp_path / "x").exists()
