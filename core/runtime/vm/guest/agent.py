"""The guest's first process: it answers the host until it is told to end, or cannot go on."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

from core.runtime.vm.frames import PORT, VERSION, Decoder, Frame, Kind, Nonsense, said
from core.runtime.vm.guest import carrying, network, probes
from core.runtime.vm.guest.asking import Given, Refused
from core.runtime.vm.guest.engine import Engine
from core.runtime.vm.guest.loop import HANG_UP, READ, WRITE, Children, Job, Loop, Now, carry_on
from core.runtime.vm.guest.stdio import Inlet, Outlet

_PORTS: Final = "/sys/class/virtio-ports"
_PIECE: Final = 64 << 10
_AGAIN: Final = 0.05


class Agent:
    """Serves one port, the descriptor `port`; `over` is called when there is nobody to serve any more."""

    def __init__(self, port: int, now: Now, run: str = "/run") -> None:
        self._port = port
        self._run = run
        self.loop = Loop(now)
        self._children = Children(self.loop)
        self._decoder = Decoder()
        self._out = bytearray()
        self._greeted = False
        self.engine = Engine(self.loop, self._children, self.send, self._tell, run)
        os.set_blocking(port, False)
        self.loop.watch(port, READ, self._seen)

    def send(self, frame: bytes) -> None:
        """Queue a frame; what streams may queue is bounded by their windows."""
        self._out += frame
        self._flush()

    def _tell(self, event: dict[str, Any]) -> None:
        self.send(said(Kind.EVENT, 0, event))

    def _flush(self) -> None:
        while self._out:
            try:
                count = os.write(self._port, self._out[:_PIECE])
            except BlockingIOError:
                break
            del self._out[:count]
        self.loop.watch(self._port, READ | WRITE if self._out else READ, self._seen)

    def _seen(self, events: int) -> None:
        if events & READ:
            try:
                data = os.read(self._port, _PIECE)
            except BlockingIOError:
                data = None
            for frame in self._decoder.feed(data or b""):
                self._take(frame)
            if data == b"":
                self._nobody_there()
        elif events & HANG_UP:
            self._nobody_there()
        if events & WRITE and not events & HANG_UP:
            self._flush()

    def _nobody_there(self) -> None:
        if self._greeted:  # the monitor is gone: nobody can reach what runs here
            self.loop.over = True
            return
        self.loop.forget(self._port)
        self.loop.after(_AGAIN, lambda: self.loop.watch(self._port, READ, self._seen))

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.CALL:
            carry_on(self._answer(frame), lambda value, refused: self._reply(frame.stream, value, refused))
            return
        end = self.engine.stream(frame.stream)
        if frame.kind == Kind.DATA:
            if isinstance(end, Inlet):
                end.feed(frame.payload)
        elif frame.kind == Kind.END:
            if isinstance(end, Inlet):
                end.end()
        elif frame.kind == Kind.MORE:
            if isinstance(end, Outlet):
                end.credit(frame.credit())
        else:
            raise Nonsense(f"a frame of kind {frame.kind.name} from the host")

    def _reply(self, number: int, value: Any, refused: Refused | None) -> None:
        if refused is None:
            self.send(said(Kind.DONE, number, value or {}))
        else:
            self.send(said(Kind.FAILED, number, {"category": refused.category, "message": refused.message}))

    def _answer(self, frame: Frame) -> Job:
        """A job: what the call asks for."""
        given = Given(frame.json())
        name = given.text("call")
        if name in _ENGINE_JOBS:
            return (yield from getattr(self.engine, name)(given))
        if name in _ENGINE_CALLS:
            return getattr(self.engine, name)(given)
        if name == "hello":
            return self._hello(given)
        if name == "network":
            return (yield from network.configure(self._children, given))
        if name == "put":
            return carrying.put(given, f"{self._run}/carried")
        if name == "append":
            return carrying.append(given, f"{self._run}/carried")
        if name == "reach":
            return (yield from probes.reach(self.loop, given))
        if name == "state":
            return self.engine.state()
        if name == "shutdown":
            yield from self.engine.everything_ends()
            self.loop.after(0, self._end)
        elif name != "ping":
            raise Refused("not supported", f"no call {name[:40]!r} in this guest")
        return {}

    def _end(self) -> None:
        self.loop.over = True

    def _hello(self, given: Given) -> dict[str, Any]:
        if (version := given.number("version")) != VERSION:
            raise Refused("not supported", f"version {version} of the host: this guest speaks {VERSION}")
        self._greeted = True
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {"version": VERSION, "kernel": os.uname().release, "memory": memory}

    def serve(self) -> str:
        """Until the end; gives why the guest cannot go on, "" when it was told to end."""
        try:
            self.loop.run()
        except (Nonsense, OSError) as error:
            return str(error)
        return ""

    def fault(self, message: str) -> None:
        """The last words, if they can still be heard."""
        self._tell({"event": "fault", "message": message})


_ENGINE_JOBS: Final = frozenset({"create", "start", "exec", "pause", "resume", "update", "delete"})
_ENGINE_CALLS: Final = frozenset({"signal", "resize", "close", "pids", "stats"})


def port_of_host() -> int:
    """The virtio-serial port of our name, opened."""
    for name in os.listdir(_PORTS):
        with open(f"{_PORTS}/{name}/name") as file:
            if file.read().strip() == PORT:
                return os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(f"no port {PORT}")


def boot_seconds() -> float:
    """Seconds since the kernel's start: the guest has no other clock to hand down."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> None:
    """As the first process: serve until the end, write everything to the disks, and put the machine off."""
    agent = Agent(port_of_host(), boot_seconds)
    sys.excepthook = lambda kind, error, trace: _die(agent, f"{kind.__name__}: {error}")
    _die(agent, agent.serve())


def _die(agent: Agent, message: str) -> None:
    if message:
        agent.fault(message)
    os.sync()
    os.execv("/bin/poweroff", ["poweroff", "-f"])
