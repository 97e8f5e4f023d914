"""Tasks and the further processes in them, as crun makes them (OCI runtime command line)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Final

from core.runtime.vm.guest.asking import Given, Refused
from core.runtime.vm.guest.groups import TOP, Group
from core.runtime.vm.guest.loop import Children, Loop
from core.runtime.vm.guest.stdio import Inlet, Outlet, Send

_KILLED: Final = 137
_END_OF_TEXT: Final = b"\x04"
_SIZE: Final = 0x5414  # TIOCSWINSZ


class Streams:
    """The stdio of one process: the ends that are ours, and until it is started those that are its own."""

    def __init__(self, loop: Loop, send: Send) -> None:
        self._loop = loop
        self._send = send
        self.theirs = [-1, -1, -1]
        self.outlets: list[Outlet] = []
        self.inlet: Inlet | None = None
        self.terminal = -1

    def pipes(self, given: Given) -> None:
        """Make a pipe for each stream that is not 0."""
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            if stream := given.number(name):
                read, write = os.pipe2(os.O_CLOEXEC)
                self.theirs[number] = write if number else read
                if number:
                    self.outlets.append(Outlet(self._loop, self._send, stream, read))
                else:
                    self.inlet = Inlet(self._loop, self._send, stream, write)

    def attach(self, given: Given, terminal: int) -> None:
        """Take the other side of a terminal as stdin and stdout."""
        self.terminal = terminal
        if stream := given.number("stdout"):
            self.outlets.append(Outlet(self._loop, self._send, stream, os.dup(terminal)))
        if stream := given.number("stdin"):
            self.inlet = Inlet(self._loop, self._send, stream, os.dup(terminal))

    def handed_over(self) -> None:
        """The process has its ends: ours of them are closed."""
        for fd in self.theirs:
            if fd >= 0:
                os.close(fd)
        self.theirs = [-1, -1, -1]

    def end_input(self) -> None:
        """Its stdin is at its end."""
        if self.inlet and self.terminal >= 0:
            os.write(self.terminal, _END_OF_TEXT)
        elif self.inlet:
            self.inlet.end()

    def resize(self, columns: int, rows: int) -> None:
        """Tell a terminal its size; harmless without one."""
        if self.terminal >= 0:
            import fcntl

            words = b"".join(value.to_bytes(2, "little") for value in (rows, columns, 0, 0))
            fcntl.ioctl(self.terminal, _SIZE, words)

    def close(self) -> None:
        """Let go of everything."""
        self.handed_over()
        for outlet in self.outlets:
            outlet.close()
        if self.inlet:
            self.inlet.close()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


class Process:
    """A task's first process, or a further one: `exit` is None until it is reaped and its streams are at their end."""

    def __init__(self, about: dict[str, Any], group: Group, streams: Streams) -> None:
        self.about = about
        self.group = group
        self.streams = streams
        self.pid = 0
        self.code: int | None = None
        self.oom = False
        self.exit: int | None = None
        self.tidy = False
        """It has something to remove before it ends: it is asked to end, not killed."""
        self._kills = group.oom_kills()
        self._ended: Callable[[Process], None] | None = None

    def follow(self, children: Children, ended: Callable[[Process], None]) -> None:
        """`ended` is called when it is over."""
        self._ended = ended
        for outlet in self.streams.outlets:
            outlet.ended = self._settle
        children.exit_of(self.pid)(self._gone)

    def _gone(self, code: int) -> None:
        self.code = code
        self.oom = code != 0 and self.group.oom_kills() > self._kills
        for outlet in self.streams.outlets:
            outlet.finish()
        self._settle()

    def _settle(self) -> None:
        if self.code is None or self.exit is not None or not all(one.closed for one in self.streams.outlets):
            return
        self.exit = self.code
        self.streams.close()
        if self._ended:
            self._ended(self)

    def alive(self) -> bool:
        """Whether it was started, and was not reaped."""
        return self.pid > 0 and self.code is None


class Task:
    """One container: its bundle's folder, its first process, and where it is in its life."""

    def __init__(self, id: str, folder: str, streams: Streams) -> None:
        self.id = id
        self.folder = folder
        self.root = f"{folder}/rootfs"
        self.group = Group(f"{TOP}/tasks/{id}")
        self.process = Process({"id": id}, self.group, streams)
        self.phase = "created"
        self.ending = False
        self.copies: list[Process] = []

    def state(self) -> dict[str, Any]:
        """As `state` tells it."""
        return {"pid": self.process.pid, "phase": self.phase, "exit": self.process.exit}

    def running(self) -> Process:
        """Its first process; raises `Refused` when that is not there any more, or not yet."""
        if self.phase not in ("running", "paused") or not self.process.alive():
            raise Refused("not found", f"{self.id} does not run")
        return self.process


def write_bundle(task: Task, spec: dict[str, Any]) -> None:
    """config.json, with the root where it is mounted here; raises `Refused`."""
    given = Given(spec)
    linux = Given(given.object("linux"))
    kinds = {one.text("type") for one in linux.objects("namespaces")}
    changed = {**spec, "root": {**given.object("root"), "path": task.root}}
    if "uts" not in kinds:
        changed.pop("hostname", None)  # the machine has it already
    with open(f"{task.folder}/config.json", "w") as file:
        file.write(json.dumps(changed))


def pid_in(path: str) -> int:
    """The pid that crun left in a file."""
    with open(path) as file:
        return int(file.read())


def remove(folder: str) -> None:
    """Remove a folder with what is in it; links as links, and nothing that is mounted there. Harmless if it is gone.

    By hand, because the import of shutil costs an emulated machine's start 50 ms.
    """
    if not os.path.isdir(folder):
        return
    for one in list(os.scandir(folder)) if not os.path.ismount(folder) else ():
        if one.is_dir(follow_symlinks=False):
            remove(one.path)
        else:
            os.unlink(one.path)
    if not os.path.ismount(folder) and not os.listdir(folder):
        os.rmdir(folder)
