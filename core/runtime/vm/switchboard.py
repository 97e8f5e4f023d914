"""Between a machine's guest and those on this node who ask something of it: calls and streams, each with its number.

Rules of this file: numbers on the guest's side are ours alone; a client's are its own and are translated. Nothing
waits: an answer is sent when it comes. What a client began and did not see to its end dies with its connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final

from core.runtime.vm.carried import Carried, Task
from core.runtime.vm.frames import Frame, Kind, Nonsense, encode, more, said
from core.runtime.vm.machine import plugged
from core.runtime.vm.peers import Peer
from core.runtime.vm.qmp import Qmp
from core.values import dataclass

_KILL: Final = 9
_GONE: Final = {"category": "unavailable", "message": "the machine has ended"}
Answer = Callable[[Frame], None]


@dataclass(slots=True, eq=False)
class Client:
    """One who asks. `streams`: the client's numbers → the guest's; `execs`: the guest's numbers of what it runs."""

    peer: Peer
    streams: dict[int, int] = field(default_factory=dict)
    execs: dict[int, int] = field(default_factory=dict)

    def done(self, call: int, value: Mapping[str, Any]) -> None:
        """Answer a call."""
        self.peer.send(said(Kind.DONE, call, value))

    def failed(self, call: int, value: Mapping[str, Any]) -> None:
        """Answer a call that came to nothing."""
        self.peer.send(said(Kind.FAILED, call, value))


@dataclass(slots=True, eq=False)
class _Logged:
    task: Task
    name: str

    def take(self, frame: Frame) -> int:
        if frame.kind is Kind.DATA:
            self.task.log.write(self.name, frame.payload)
            return len(frame.payload)
        if frame.kind is Kind.END:
            self.task.log.end(self.name)
        return 0


@dataclass(slots=True, eq=False)
class _Passed:
    client: Client
    number: int

    def take(self, frame: Frame) -> int:
        if self.client.peer.gone:
            return len(frame.payload) if frame.kind is Kind.DATA else 0
        self.client.peer.send(encode(frame.kind, self.number, frame.payload))
        return 0


class Switchboard:
    """`gone` is set when the guest can be talked to no more; `heard` counts what it said."""

    def __init__(self, guest: Peer, qmp: Qmp, carried: Carried) -> None:
        self.guest = guest
        self.booted = False
        self.off = False
        self.fault = ""
        self.clients: dict[int, Client] = {}
        self._qmp = qmp
        self._carried = carried
        self._calls: dict[int, Answer] = {}
        self._streams: dict[int, _Logged | _Passed] = {}
        self._execs: dict[int, tuple[Client, int]] = {}
        self._ended: dict[int, int] = {}
        self._starting = 0
        self._plugged: set[str] = set()
        self._network = False
        self._number = 0
        self._local: Mapping[str, Callable[[Client, int, dict[str, Any]], None]] = {
            "launch": self._launch,
            "drop": self._drop,
            "exec": self._exec,
            "plug": self._plug,
            "unplug": self._unplug,
            "network": self._configure,
            "reopen": self._reopen,
            "status": self._status,
            "off": self._off,
        }

    # To the guest.

    def call(self, body: Mapping[str, Any], answer: Answer) -> None:
        """Ask the guest; it is answered in the order that suits it."""
        self._number += 1
        self._calls[self._number] = answer
        self.guest.send(said(Kind.CALL, self._number, body))

    def _open(self, sink: _Logged | _Passed) -> int:
        self._number += 1
        self._streams[self._number] = sink
        return self._number

    # From the guest.

    def hear(self) -> None:
        """Take what the guest says; raises `Nonsense`."""
        for frame in self.guest.frames():
            match frame.kind:
                case Kind.DONE | Kind.FAILED:
                    if (answer := self._calls.pop(frame.stream, None)) is not None:
                        answer(frame)
                case Kind.DATA | Kind.END | Kind.MORE:
                    self._carry(frame)
                case Kind.EVENT:
                    self._event(frame.json())
                case Kind.CALL:
                    raise Nonsense("the guest calls its host")

    def _carry(self, frame: Frame) -> None:
        sink = self._streams.get(frame.stream)
        if sink is not None and (taken := sink.take(frame)):
            self.guest.send(more(frame.stream, taken))

    def _event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "fault":
            self.fault = str(event.get("message", ""))[:500]
        elif event.get("event") == "exit" and "id" in event:
            self._carried.end(str(event["id"]), int(event["code"]) & 0xFF, oom=bool(event.get("oom")))
        elif event.get("event") == "exit":
            self._ended[int(event["exec"])] = int(event["code"]) & 0xFF
            self._tell(int(event["exec"]))

    def _tell(self, exec: int) -> None:
        """Tell the end of a further process to its asker: it may have come before that one knew the number."""
        if exec in self._ended and (known := self._execs.pop(exec, None)) is not None:
            client, call = known
            client.execs.pop(call, None)
            client.peer.send(said(Kind.EVENT, call, {"event": "exit", "code": self._ended[exec]}))
        if exec not in self._execs and not self._starting:
            self._ended.clear()

    # From clients.

    def listen(self, client: Client) -> None:
        """Take what a client says; raises `Nonsense`."""
        for frame in client.peer.frames():
            if frame.kind is Kind.CALL:
                body = frame.json()
                handle = self._local.get(str(body.get("call")), self._forward)
                handle(client, frame.stream, body)
            elif frame.kind in (Kind.DATA, Kind.END, Kind.MORE) and frame.stream in client.streams:
                self.guest.send(encode(frame.kind, client.streams[frame.stream], frame.payload))

    def leave(self, client: Client) -> None:
        """A client is gone: so is what it ran."""
        client.peer.gone = True
        for exec in client.execs.values():
            self.call({"call": "signal", "exec": exec, "signal": _KILL}, _ignore)
        for global_number in client.streams.values():
            self._streams.pop(global_number, None)

    def _forward(self, client: Client, call: int, body: dict[str, Any]) -> None:
        self.call(body, lambda frame: client.peer.send(encode(frame.kind, call, frame.payload)))

    def _launch(self, client: Client, call: int, body: dict[str, Any]) -> None:
        id = str(body["id"])
        try:
            task = self._carried.add(id, body)
        except OSError as error:
            client.failed(call, {"category": "failed", "message": f"the log of {id}: {error.strerror}"})
            return
        names = ("stdout",) if body["terminal"] else ("stdout", "stderr")
        opened = {name: self._open(_Logged(task, name)) for name in names}
        opened["stdin"] = self._open(_Logged(task, "stdin")) if body["stdin"] else 0
        task.streams = [number for number in opened.values() if number]
        taken = ("id", "spec", "root", "layer", "shared", "terminal")
        wanted = {"call": "create", "stderr": 0, **{name: body[name] for name in taken}, **opened}

        def answer(frame: Frame) -> None:
            if frame.kind is Kind.FAILED:
                self._forget(id)
                client.peer.send(encode(frame.kind, call, frame.payload))
            else:
                client.done(call, {"pid": self._carried.carry(id)})

        self.call(wanted, answer)

    def _forget(self, id: str) -> None:
        if (task := self._carried.tasks.get(id)) is not None:
            for number in task.streams:
                self._streams.pop(number, None)
        self._carried.forget(id)

    def _drop(self, client: Client, call: int, body: dict[str, Any]) -> None:
        id = str(body["id"])

        def answer(frame: Frame) -> None:
            if frame.kind is Kind.DONE:
                self._forget(id)
            client.peer.send(encode(frame.kind, call, frame.payload))

        self.call({"call": "delete", "id": id}, answer)

    def _exec(self, client: Client, call: int, body: dict[str, Any]) -> None:
        for name in ("stdin", "stdout", "stderr"):
            if number := int(body.get(name, 0)):
                client.streams[number] = body[name] = self._open(_Passed(client, number))

        def answer(frame: Frame) -> None:
            self._starting -= 1
            client.peer.send(encode(frame.kind, call, frame.payload))
            if frame.kind is Kind.DONE:
                exec = int(frame.json()["exec"])
                self._execs[exec] = client, call
                client.execs[call] = exec
                self._tell(exec)
                if client.peer.gone:
                    self.leave(client)

        self._starting += 1
        self.call(body, answer)

    def _plug(self, client: Client, call: int, body: dict[str, Any]) -> None:
        serial = str(body["serial"])
        if serial in self._plugged:
            client.done(call, {})
            return
        first, second = plugged(serial, body["path"], read_only=bool(body["read_only"]))

        def ready(answer: Mapping[str, Any]) -> None:
            if "error" in answer:
                message = f"disk {serial}: {answer['error'].get('desc', '')}"
                client.failed(call, {"category": "failed", "message": message})
                return
            self._plugged.add(serial)
            client.done(call, {})

        self._qmp.ask(*first, lambda answer: ready(answer) if "error" in answer else self._qmp.ask(*second, ready))

    def _unplug(self, client: Client, call: int, body: dict[str, Any]) -> None:
        serial = str(body["serial"])
        if serial not in self._plugged:
            client.done(call, {})
            return

        def removed() -> None:
            self._plugged.discard(serial)
            self._qmp.ask("blockdev-del", {"node-name": serial}, lambda _: client.done(call, {}))

        self._qmp.once("DEVICE_DELETED", f"disk-{serial}", removed)
        self._qmp.ask("device_del", {"id": f"disk-{serial}"}, lambda _: None)

    def _configure(self, client: Client, call: int, body: dict[str, Any]) -> None:
        if not body.pop("again", False) and self._network:
            client.done(call, {})
            return

        def answer(frame: Frame) -> None:
            self._network = frame.kind is Kind.DONE
            client.peer.send(encode(frame.kind, call, frame.payload))

        self.call(body, answer)

    def _reopen(self, client: Client, call: int, body: dict[str, Any]) -> None:
        if (task := self._carried.tasks.get(str(body["id"]))) is not None:
            task.log.reopen()
        client.done(call, {"there": task is not None})

    def _status(self, client: Client, call: int, body: dict[str, Any]) -> None:
        tasks, disks = sorted(self._carried.tasks), sorted(self._plugged)
        seen = {"booted": self.booted, "network": self._network, "tasks": tasks, "plugged": disks}
        client.done(call, seen)

    def _off(self, client: Client, call: int, body: dict[str, Any]) -> None:
        self.off = True
        client.done(call, {})
        self.call({"call": "shutdown"}, _ignore)

    def abandon(self) -> None:
        """The machine is gone: all who wait are told."""
        waiting, self._calls = self._calls, {}
        told = json.dumps({**_GONE, **({"message": self.fault} if self.fault else {})}).encode()
        for answer in waiting.values():
            answer(Frame(Kind.FAILED, 0, told))


def _ignore(frame: Frame) -> None:
    """Nobody waits for this answer."""
