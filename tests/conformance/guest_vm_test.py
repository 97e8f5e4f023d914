"""The guest of a virtual machine by itself: the calls of its protocol, spoken directly, over one boot."""

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.process import find
from core.runtime.trees import NAME, Entry, Kind
from core.runtime.vm.frames import WINDOW
from core.runtime.vm.installed import GUEST
from tests.guests import CallFailed, Host, booted, spec, with_group

pytestmark = pytest.mark.skipif(not (GUEST / "guest.json").exists(), reason="no guest: reconciler runtime prepare vm")
APPLETS = ("cat", "echo", "head", "sh", "sleep", "stty", "tr", "yes")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    work = tmp_path_factory.mktemp("guest")
    tree = work / "tree"
    for folder in ("bin", "proc", "dev", "tmp"):
        (tree / folder).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(Path(find("busybox", "busybox-static")).read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    subprocess.run([find("mkfs.erofs", "erofs-utils"), "--quiet", str(work / "root"), str(tree)], check=True)
    disks = {"root": work / "root"}
    for name in ("layer-a", "layer-b"):
        (work / name).touch()
        os.truncate(work / name, 1 << 28)
        subprocess.run([find("mkfs.ext4", "e2fsprogs"), "-q", "-F", str(work / name)], check=True)
        disks[name] = work / name
    with booted(GUEST, work, disks) as made:
        made.call("hello", version=1)
        yield made


class Made:
    """A task, made and removed."""

    def __init__(self, host: Host, id: str, *args: str, layer: str = "layer-a", **more: Any) -> None:
        self.host, self.id = host, id
        host.events.clear()
        self.first = host.streams(3)
        value = with_group(spec(*args, **more.pop("process", {})), id, **more.pop("resources", {}))
        value["mounts"] += more.pop("mounts", [])
        numbers = {"stdin": self.first, "stdout": self.first + 1, "stderr": self.first + 2}
        given = {"spec": value, "root": "root", "layer": layer, "shared": [], "terminal": False, **numbers}
        host.call("create", id=id, **given, **more)

    def __enter__(self) -> "Made":
        self.host.call("start", id=self.id)
        return self

    def __exit__(self, *_: object) -> None:
        self.host.call("delete", id=self.id)

    def wait_for(self, text: bytes) -> None:
        self.host.until(lambda: text in self.host.output[self.first + 1])

    def exec(self, *args: str, terminal: bool = False) -> tuple[int, int]:
        first = self.host.streams(3)
        process = {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        numbers = {"stdin": first, "stdout": first + 1, "stderr": 0 if terminal else first + 2}
        made = self.host.call("exec", id=self.id, process={**process, "terminal": terminal}, **numbers)
        return made["exec"], first


def test_a_task_has_its_streams_and_its_exit_code(host: Host) -> None:
    with Made(host, "one", "sh", "-c", "read x; echo got $x; echo oops >&2; exit 7") as task:
        host.write(task.first, b"word\n", end=True)
        assert host.exit(id="one") == {"event": "exit", "id": "one", "code": 7, "oom": False}
        assert host.output[task.first + 1] == b"got word\n"
        assert host.output[task.first + 2] == b"oops\n"
        assert {task.first + 1, task.first + 2} <= host.ended


def test_further_processes_have_streams_terminals_and_codes(host: Host) -> None:
    with Made(host, "two", "sleep", "1000") as task:
        number, first = task.exec("sh", "-c", "cat; exit 5")
        host.write(first, b"abc", end=True)
        assert host.exit(exec=number)["code"] == 5
        assert host.output[first + 1] == b"abc"
        number, first = task.exec("sh", "-c", "read x; stty size", terminal=True)
        host.call("resize", exec=number, columns=101, rows=33)
        host.write(first, b"\n")
        assert host.exit(exec=number)["code"] == 0
        assert b"33 101" in host.output[first + 1]


def test_signals_pause_and_counters_reach_a_task(host: Host) -> None:
    with Made(host, "three", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done") as task:
        task.wait_for(b"up")
        host.call("pause", id="three")
        assert host.call("state")["tasks"]["three"]["phase"] == "paused"
        host.call("resume", id="three")
        host.call("update", id="three", resources={"memory": {"limit": 30 << 20}})
        assert len(host.call("pids", id="three")["pids"]) in (1, 2)
        assert 0 < host.call("stats", id="three")["memory"] < 30 << 20
        host.call("signal", id="three", signal=15, everyone=False)
        assert host.exit(id="three")["code"] == 3


def test_a_task_over_its_memory_is_killed_and_its_neighbour_is_not(host: Host) -> None:
    with Made(host, "calm", "sleep", "1000", layer="layer-b"):
        limits = {"memory": {"limit": 16 << 20}}
        with Made(host, "greedy", "sh", "-c", "x=y; while :; do x=$x$x; done", resources=limits):
            assert host.exit(id="greedy") == {"event": "exit", "id": "greedy", "code": 137, "oom": True}
        assert host.call("state")["tasks"]["calm"]["phase"] == "running"


def test_a_flood_with_a_slow_reader_holds_up_nobody(host: Host) -> None:
    host.slow.add(host.next_stream + 1)
    with Made(host, "flood", "yes") as task:
        host.until(lambda: len(host.output[task.first + 1]) == WINDOW)
        host.call("ping")
        assert len(host.output[task.first + 1]) == WINDOW
        host.give(task.first + 1)
        host.until(lambda: len(host.output[task.first + 1]) == 2 * WINDOW)
        host.call("signal", id="flood", signal=9, everyone=True)
        host.slow.clear()
        host.give(task.first + 1)
        assert host.exit(id="flood")["code"] == 137


def test_what_is_carried_in_is_seen_by_a_task(host: Host) -> None:
    data = base64.b64encode(b"secret").decode()
    host.call("put", path="/run/carried/x/s", mode=0o644, uid=5, gid=6, data=data)
    mount = {"destination": "/s", "type": "bind", "source": "/run/carried/x/s", "options": ["bind", "ro"]}
    with Made(host, "four", "cat", "/s", mounts=[mount]) as task:
        assert host.exit(id="four")["code"] == 0
        assert host.output[task.first + 1] == b"secret"


@pytest.mark.parametrize(
    ("call", "given", "category"),
    [
        ("nothing", {}, "not supported"),
        ("create", {}, "invalid"),
        ("create", {"id": "../x"}, "invalid"),
        ("start", {"id": "nobody"}, "not found"),
        ("signal", {"exec": 99, "signal": 9}, "not found"),
        ("put", {"path": "/run/carried/../x", "mode": 1, "uid": 0, "gid": 0, "data": ""}, "invalid"),
        ("put", {"path": "/run/carried/x", "mode": 1, "uid": 0, "gid": 0, "data": "#"}, "invalid"),
        ("network", {"hostname": "a", "interfaces": [{}, {}]}, "not supported"),
    ],
)
def test_nonsense_is_refused_and_the_guest_goes_on(host: Host, call: str, given: dict[str, Any], category: str) -> None:
    with pytest.raises(CallFailed) as caught:
        host.call(call, **given)
    assert caught.value.about["category"] == category
    assert host.call("ping") == {}


def test_a_task_that_cannot_be_made_leaves_nothing(host: Host) -> None:
    with pytest.raises(CallFailed):
        Made(host, "bad", "/bin/nothing")
    assert host.call("state") == {"tasks": {}}
    with Made(host, "bad", "echo"):
        assert host.exit(id="bad")["code"] == 0


def test_a_copy_that_is_given_up_leaves_nothing_and_one_that_waits_does_not_hold_up_a_delete(host: Host) -> None:
    with Made(host, "copied", "sleep", "1000") as task:
        first = host.streams(2)
        copy = {"way": "in", "path": "/tmp/made", "name": "x"}
        number = host.call("exec", id="copied", copy=copy, stdin=first, stdout=first + 1, stderr=0)["exec"]
        entry = Entry(Kind.FILE, NAME, 1 << 20)
        host.write(first, entry.encoded() + b"some")

        def listed() -> bytes:
            _, streams = task.exec("sh", "-c", "echo /tmp/.copy-* /tmp/made")
            host.until(lambda: b"\n" in host.output[streams + 1])
            return bytes(host.output[streams + 1])

        host.until(lambda: b"*" not in listed())
        host.call("signal", exec=number, signal=9)
        assert host.exit(exec=number)["code"] == 1
        assert listed() == b"/tmp/.copy-* /tmp/made\n"
        first = host.streams(2)
        host.call("exec", id="copied", copy=copy, stdin=first, stdout=first + 1, stderr=0)
    assert "copied" not in host.call("state")["tasks"]


def test_a_machine_that_is_shut_down_goes_off(host: Host) -> None:
    host.ask("shutdown")
    with pytest.raises(AssertionError, match="the guest is gone"):
        host.until(lambda: False)
