"""`top` and `cp` on real containers of each runtime."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workloads import Stage, document, eventually, stage
from tests.registry import Registry
from tests.runtimes import QUICK

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=QUICK)
def st(registry: Registry, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """One node for the module, for each runtime."""
    with stage(registry, request.param) as made:
        yield made


def copy(st: Stage, *words: str | Path) -> None:
    done = st.node.cli("cp", *words)
    assert done.returncode == 0, done.stderr


def test_top_tells_what_each_container_uses(st: Stage) -> None:
    busy = "head -c 3000000 /dev/zero >/big; echo said; while :; do :; done"
    st.must_apply(st.container("busy", busy), st.container("idle", "sleep 1000"))
    eventually(lambda: st.node.cli("exec", "busy", "--", "test", "-s", "/big").returncode == 0, "it has written")
    items = {one["name"]: one for one in json.loads(st.node.cli("top", "-o", "json").stdout)["items"]}
    assert set(items) == {"busy", "idle"}
    assert items["busy"]["cpuPercent"] > items["idle"]["cpuPercent"]
    assert items["busy"]["pids"] == items["idle"]["pids"] == 1
    assert items["busy"]["disk"] >= 3_000_000 > items["idle"]["disk"]
    assert items["busy"]["log"] > items["idle"]["log"] == 0
    assert 0 < items["idle"]["memory"] < 100 << 20
    lines = st.node.cli("top").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "busy", "idle"]
    st.delete("container/busy", "container/idle")
    assert st.node.cli("top").stdout.splitlines() == lines[:1] or "NAME" in st.node.cli("top").stdout


def test_files_are_copied_out_and_in_with_their_owners(st: Stage, tmp_path: Path) -> None:
    volume = document("Volume", "kept", {"retain": False})
    st.must_apply(volume, st.container("box", "sleep 1000", mounts=[{"path": "/data", "volume": "kept"}]))
    st.exec("box", "mkdir /data/d; echo hello >/data/d/file; chown 12:34 /data/d/file; chmod 640 /data/d/file")
    copy(st, "box:/data/d", tmp_path / "out")
    seen = (tmp_path / "out/file").stat()
    assert ((tmp_path / "out/file").read_text(), seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (
        "hello\n",
        12,
        34,
        0o640,
    )
    (tmp_path / "in").write_text("from here")
    os.chown(tmp_path / "in", 5, 6)
    copy(st, tmp_path / "in", "box:/data/")
    copy(st, tmp_path / "in", "container/box:/tmp/renamed")
    assert st.exec("box", "cat /data/in; stat -c %u:%g /tmp/renamed") == "from here5:6\n"
    command = st.node.arguments("cp", "box:/data", "-")
    packed = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert sorted(tar.getnames()) == ["data", "data/d", "data/d/file", "data/in"]
    subprocess.run(st.node.arguments("cp", "-", "box:/tmp"), input=packed, check=True, timeout=30)
    assert st.exec("box", "cat /tmp/data/d/file") == "hello\n"
    st.delete("container/box", "volume/kept")


def test_what_a_container_left_can_be_copied_and_a_link_leads_to_nothing_of_ours(st: Stage, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("ours")
    script = f"echo left >/result; ln -s {tmp_path} /way; ln -s /proc/1/root/etc /magic"
    st.said("ended", script)
    copy(st, "ended:/result", tmp_path / "result")
    assert (tmp_path / "result").read_text() == "left\n"
    for path in ("/way/secret", "/magic/hostname", "/../../etc/hostname/x"):
        done = st.node.cli("cp", f"ended:{path}", tmp_path / "stolen")
        assert (done.returncode, (tmp_path / "stolen").exists()) == (1, False), done.stderr
    done = st.node.cli("cp", tmp_path / "secret", "ended:/way/made")
    assert (done.returncode, (tmp_path / "made").exists()) == (1, False)
    st.delete("container/ended")


def test_a_read_only_root_takes_nothing(st: Stage, tmp_path: Path) -> None:
    st.must_apply(st.container("frozen", "sleep 1000", security={"readOnlyRootfs": True}))
    (tmp_path / "file").write_text("x")
    done = st.node.cli("cp", tmp_path / "file", "frozen:/etc/")
    assert done.returncode == 1
    assert "ead-only" in done.stderr
    st.delete("container/frozen")


def test_words_that_are_no_copy_are_refused(st: Stage) -> None:
    for words in (("a", "b"), ("web:/a", "db:/b")):
        assert st.node.cli("cp", *words).returncode == 2
    done = st.node.cli("cp", "nobody:/a", "/tmp")
    assert (done.returncode, "there is no container/nobody" in done.stderr) == (1, True)
