"""The monitor's switchboard between a played guest, a played QEMU, and those who ask."""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.runtime.vm.carried import Carried
from core.runtime.vm.frames import Decoder, Frame, Kind, Nonsense, encode, more, said
from core.runtime.vm.peers import Peer
from core.runtime.vm.qmp import Qmp
from core.runtime.vm.switchboard import Client, Switchboard


class Wire:
    """The far end of a socket that a played one holds."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.far.settimeout(5)
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def frame(self) -> Frame:
        """The next frame that comes."""
        while not self._frames:
            data = self.far.recv(1 << 16)
            assert data, "it hung up"
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    @property
    def silent(self) -> bool:
        """Whether nothing has come."""
        return not self._frames and not select.select([self.far], [], [], 0)[0]

    def close(self) -> None:
        """Hang up at both ends."""
        self.near.close()
        self.far.close()


class Exchange:
    """A switchboard with its three neighbours; each `…_says` delivers at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.guest, self.qemu, self.asker = Wire(), Wire(), Wire()
        self.carried = Carried()
        self.qmp = Qmp(self.qemu.near)
        self.board = Switchboard(Peer(self.guest.near), self.qmp, self.carried)
        self.client = Client(Peer(self.asker.near))

    def guest_says(self, data: bytes) -> None:
        self.guest.far.sendall(data)
        self.board.hear()

    def asker_says(self, data: bytes) -> None:
        self.asker.far.sendall(data)
        self.board.listen(self.client)

    def asks(self, number: int, call: str, **values: object) -> None:
        self.asker_says(said(Kind.CALL, number, {"call": call, **values}))

    def answers(self, call: Frame, value: object, kind: Kind = Kind.DONE) -> None:
        self.guest_says(said(kind, call.stream, value))

    def qemu_says(self, value: object) -> None:
        self.qemu.far.sendall(json.dumps(value).encode() + b"\r\n")
        self.qmp.read()

    def qemu_was_told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.qemu.far.recv(1 << 16))
        return told

    def launch(self, id: str = "one", *, terminal: bool = False) -> tuple[dict[str, Any], int]:
        """A task as far as created: what the guest was asked, and the carrier's number."""
        place = {"log": str(self.folder / f"{id}.log"), "exit": str(self.folder / id), "oom": str(self.folder / "oom")}
        task = {"spec": {}, "root": "r", "layer": "l", "shared": [], "stdin": False}
        self.asks(1, "launch", id=id, log_limit=1 << 20, terminal=terminal, **place, **task)
        call = self.guest.frame()
        self.answers(call, {"pid": 7})
        pid = self.asker.frame().json()["pid"]
        assert isinstance(pid, int)
        return call.json(), pid

    def log(self, id: str = "one") -> list[tuple[str, str]]:
        """Stream and text of each line."""
        lines = (self.folder / f"{id}.log").read_text().splitlines()
        return [(words[1], words[3]) for words in (line.split(" ", 3) for line in lines)]

    def end(self) -> None:
        for id in list(self.carried.tasks):
            self.carried.forget(id)
        for wire in (self.guest, self.qemu, self.asker):
            wire.close()


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Exchange]:
    exchange = Exchange(tmp_path)
    yield exchange
    exchange.end()


def test_an_answer_comes_back_under_the_number_of_the_one_who_asked(it: Exchange) -> None:
    it.asks(41, "pids", id="one")
    it.asks(42, "stats", id="one")
    pids, stats = it.guest.frame(), it.guest.frame()
    assert pids.json() == {"call": "pids", "id": "one"}
    it.answers(stats, {"category": "not-found", "message": "no"}, Kind.FAILED)
    it.answers(pids, {"pids": [1]})
    first, second = it.asker.frame(), it.asker.frame()
    assert (first.kind, first.stream, first.json()["message"]) == (Kind.FAILED, 42, "no")
    assert (second.kind, second.stream, second.json()) == (Kind.DONE, 41, {"pids": [1]})


def test_what_a_task_says_is_logged_and_makes_room_for_more(it: Exchange) -> None:
    created, _ = it.launch()
    it.guest_says(encode(Kind.DATA, created["stdout"], b"hello\nwor"))
    taken = it.guest.frame()
    assert (taken.kind, taken.stream, taken.credit()) == (Kind.MORE, created["stdout"], 9)
    it.guest_says(encode(Kind.DATA, created["stderr"], b"oh\n") + encode(Kind.END, created["stdout"]))
    assert it.log() == [("stdout", "hello"), ("stderr", "oh"), ("stdout", "wor")]


def test_an_exit_is_recorded_before_the_carrier_ends(it: Exchange) -> None:
    _, carrier = it.launch()
    assert os.path.exists(f"/proc/{carrier}")
    it.guest_says(said(Kind.EVENT, 0, {"event": "exit", "id": "one", "code": 137, "oom": True}))
    assert (it.folder / "one").read_text() == "137"
    assert (it.folder / "oom").exists()
    assert not os.path.exists(f"/proc/{carrier}")
    it.guest_says(said(Kind.EVENT, 0, {"event": "exit", "id": "one", "code": 0}))
    assert (it.folder / "one").read_text() == "137"


def test_a_task_that_the_guest_refuses_leaves_nothing_and_may_be_tried_again(it: Exchange) -> None:
    place = {"log": str(it.folder / "log"), "exit": str(it.folder / "exit"), "oom": ""}
    it.asks(
        *(1, "launch"),
        **{**place, "id": "one", "log_limit": 1 << 20, "terminal": False, "stdin": False},
        spec={},
        root="r",
        layer="l",
        shared=[],
    )
    it.answers(it.guest.frame(), {"category": "failed", "message": "no such program"}, Kind.FAILED)
    assert it.asker.frame().json()["message"] == "no such program"
    assert it.carried.tasks == {}
    it.carried.end_all(137)
    assert not (it.folder / "exit").exists()
    it.launch()


def test_all_tasks_of_a_machine_that_ends_have_ended(it: Exchange) -> None:
    it.launch("one")
    it.launch("two")
    it.asks(9, "stats", id="one")
    it.carried.end_all(137)
    it.board.abandon()
    assert [(it.folder / id).read_text() for id in ("one", "two")] == ["137", "137"]
    told = it.asker.frame()
    assert (told.kind, told.stream, told.json()["category"]) == (Kind.FAILED, 9, "unavailable")


def test_streams_of_a_further_process_go_to_the_one_who_asked_for_it(it: Exchange) -> None:
    it.asks(5, "exec", id="one", process={}, stdin=1, stdout=2, stderr=0)
    call = it.guest.frame()
    streams = call.json()
    it.answers(call, {"exec": 3})
    assert it.asker.frame().json() == {"exec": 3}
    it.asker_says(encode(Kind.DATA, 1, b"typed") + more(2, 10))
    typed, room = it.guest.frame(), it.guest.frame()
    assert (typed.stream, typed.payload) == (streams["stdin"], b"typed")
    assert (room.stream, room.credit()) == (streams["stdout"], 10)
    it.guest_says(encode(Kind.DATA, streams["stdout"], b"shown"))
    shown = it.asker.frame()
    assert (shown.kind, shown.stream, shown.payload) == (Kind.DATA, 2, b"shown")
    it.guest_says(said(Kind.EVENT, 0, {"event": "exit", "exec": 3, "code": 4}))
    ended = it.asker.frame()
    assert (ended.stream, ended.json()["code"]) == (5, 4)


def test_a_further_process_that_ends_before_its_number_is_known_is_told_afterwards(it: Exchange) -> None:
    it.asks(5, "exec", id="one", process={}, stdin=0, stdout=2, stderr=0)
    call = it.guest.frame()
    it.guest_says(said(Kind.EVENT, 0, {"event": "exit", "exec": 3, "code": 4}))
    it.answers(call, {"exec": 3})
    begun, ended = it.asker.frame(), it.asker.frame()
    assert (begun.kind, begun.json()) == (Kind.DONE, {"exec": 3})
    assert (ended.kind, ended.stream, ended.json()["code"]) == (Kind.EVENT, 5, 4)


def test_a_further_process_dies_with_the_one_who_asked_for_it(it: Exchange) -> None:
    it.asks(5, "exec", id="one", process={}, stdin=0, stdout=2, stderr=0)
    it.answers(it.guest.frame(), {"exec": 3})
    it.board.leave(it.client)
    assert it.guest.frame().json() == {"call": "signal", "exec": 3, "signal": 9}


def test_streams_that_are_not_the_askers_own_are_not_touched(it: Exchange) -> None:
    it.asker_says(encode(Kind.DATA, 77, b"x"))
    it.guest_says(encode(Kind.DATA, 78, b"x"))
    assert it.guest.silent
    assert it.asker.silent


def test_a_disk_is_plugged_once_and_unplugged_when_qemu_says_that_it_is_gone(it: Exchange) -> None:
    it.asks(1, "plug", serial="r1", path="/x", read_only=True)
    it.qemu_says({"QMP": {"version": {}}})
    assert it.qemu_was_told()["execute"] == "qmp_capabilities"
    for expected in ("blockdev-add", "device_add"):
        it.qemu_says({"return": {}})
        assert it.qemu_was_told()["execute"] == expected
    it.qemu_says({"return": {}})
    assert it.asker.frame().kind is Kind.DONE
    it.asks(2, "plug", serial="r1", path="/x", read_only=True)
    assert it.asker.frame().stream == 2
    it.asks(3, "unplug", serial="r1")
    assert it.qemu_was_told() == {"execute": "device_del", "arguments": {"id": "disk-r1"}}
    it.qemu_says({"return": {}})
    assert it.asker.silent
    it.qemu_says({"event": "DEVICE_DELETED", "data": {"device": "disk-r1", "path": "/p"}})
    assert it.qemu_was_told() == {"execute": "blockdev-del", "arguments": {"node-name": "r1"}}
    it.qemu_says({"return": {}})
    assert it.asker.frame().stream == 3


def test_a_disk_that_qemu_refuses_is_told_in_its_words(it: Exchange) -> None:
    it.qemu_says({"QMP": {}})
    it.asks(1, "plug", serial="r1", path="/x", read_only=False)
    it.qemu_says({"return": {}})
    it.qemu_says({"error": {"class": "GenericError", "desc": "Could not open '/x'"}})
    told = it.asker.frame()
    assert (told.kind, told.json()["message"]) == (Kind.FAILED, "disk r1: Could not open '/x'")


@pytest.mark.parametrize("data", [said(Kind.CALL, 1, {"call": "hello"}), encode(Kind.EVENT, 0, b"["), b"\xff" * 9])
def test_a_guest_that_speaks_nonsense_is_found_out(it: Exchange, data: bytes) -> None:
    with pytest.raises(Nonsense):
        it.guest_says(data)


def test_what_the_other_side_does_not_take_waits(it: Exchange) -> None:
    peer = Peer(it.guest.near)
    sent = 0
    while not peer.waiting:
        peer.send(b"x" * (1 << 16))
        sent += 1 << 16
    taken = 0
    while taken < sent:
        taken += len(it.guest.far.recv(1 << 20))
        peer.flush()
    assert (taken, peer.waiting, peer.gone) == (sent, False, False)
    it.guest.far.close()
    peer.send(b"x")
    assert (peer.gone, peer.waiting) == (True, False)
