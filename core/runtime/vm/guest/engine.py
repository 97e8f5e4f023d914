"""Makes, watches and ends tasks: the calls about them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any, Final

from core.runtime.vm.guest.asking import Given, Refused
from core.runtime.vm.guest.disks import Mounts
from core.runtime.vm.guest.groups import tell
from core.runtime.vm.guest.loop import Children, Job, Loop, complaint, read_if_there
from core.runtime.vm.guest.stdio import Inlet, Outlet, Send
from core.runtime.vm.guest.tasks import Process, Streams, Task, pid_in, remove, write_bundle
from core.runtime.vm.guest.terminals import Handover

_CRUN: Final = "/usr/bin/crun"
_LONGEST_PATH: Final = 100  # of a socket's name
_WAIT: Final = 0.02
Tell = Callable[[dict[str, Any]], None]


class Engine:
    """All tasks of this machine; `run` is the folder for what lives as long as it."""

    def __init__(self, loop: Loop, children: Children, send: Send, event: Tell, run: str = "/run") -> None:
        self._loop = loop
        self._children = children
        self._send = send
        self._event = event
        self._run = run
        self._mounts = Mounts(loop, children, run)
        self._tasks: dict[str, Task] = {}
        self._execs: dict[int, Process] = {}
        self._numbers = 0

    def stream(self, number: int) -> Outlet | Inlet | None:
        """Whose bytes those of stream `number` are; None when it is over."""
        for process in [*(task.process for task in self._tasks.values()), *self._execs.values()]:
            for end in (*process.streams.outlets, process.streams.inlet):
                if end and end.stream == number:
                    return end
        return None

    def create(self, given: Given) -> Job:
        """See `frames`."""
        id = given.name("id")
        if id in self._tasks:
            raise Refused("conflict", f"{id} is there already")
        task = Task(id, f"{self._run}/tasks/{id}", Streams(self._loop, self._send))
        self._tasks[id] = task
        try:
            os.makedirs(task.root)
            yield from self._mounts.arrange(id, given.name("root"), given.name("layer"), task.root)
            for tag in given.texts("shared"):
                yield from self._mounts.share(Given({"tag": tag}).name("tag"))
            write_bundle(task, given.object("spec"))
            made = ["create", "--bundle", task.folder]
            pid = yield from self._made(task.process.streams, given, task.folder, made, id)
        except (Refused, OSError):
            yield from self._undo(task)
            raise
        self._follow(task.process, pid)
        return {"pid": pid}

    def _made(self, streams: Streams, given: Given, folder: str, words: list[str], id: str) -> Job:
        """A job: let crun make a process with its streams; gives its pid."""
        log, pid_file = f"{folder}/log", f"{folder}/pid"
        argv = [_CRUN, "--root", f"{self._run}/crun", "--log", log, *words, "--pid-file", pid_file]
        handover = Handover(f"{folder}/console") if given.flag("terminal") else None
        try:
            if handover:
                argv += ["--console-socket", handover.path]
            else:
                streams.pipes(given)
            child = self._children.start([*argv, id], *streams.theirs)
            streams.handed_over()
            code = yield self._children.exit_of(child)
            if code:
                raise Refused("failed", f"crun: {complaint(read_if_there(log)) or f'exit code {code}'}")
            if handover:
                streams.attach(given, handover.terminal())
        finally:
            if handover:
                handover.close()
        return pid_in(pid_file)

    def start(self, given: Given) -> Job:
        """See `frames`."""
        task = self._task(given)
        if task.phase != "created":
            raise Refused("conflict", f"{task.id} is {task.phase}")
        log = f"{task.folder}/log"
        argv = [_CRUN, "--root", f"{self._run}/crun", "--log", log, "start", task.id]
        task.phase = "running"
        try:
            yield from self._children.run(argv, log)
        except Refused:
            task.process.group.signal(signal.SIGKILL)
            raise
        return {}

    def exec(self, given: Given) -> Job:
        """See `frames`."""
        task = self._task(given)
        if given.has("copy"):
            return self._copy(task, given)
        task.running()
        process = given.object("process")
        self._numbers += 1
        number = self._numbers
        folder = f"{task.folder}/exec-{number}"
        os.mkdir(folder)
        with open(f"{folder}/process.json", "w") as file:
            file.write(json.dumps(process))
        terminal = Given({**process, "terminal": process.get("terminal", False)}).flag("terminal")
        made = Process({"exec": number}, task.group, Streams(self._loop, self._send))
        self._execs[number] = made
        try:
            words = ["exec", "--detach", "--process", f"{folder}/process.json"]
            given = Given({**given.values(), "terminal": terminal})
            pid = yield from self._made(made.streams, given, folder, words, task.id)
        except (Refused, OSError):
            del self._execs[number]
            made.streams.close()
            raise
        finally:
            remove(folder)
        self._follow(made, pid)
        return {"exec": number}

    def _copy(self, task: Task, given: Given) -> dict[str, Any]:
        from core.runtime.vm.guest import copying  # only where somebody copies: the start need not pay for it

        if task.phase == "created" or task.ending:
            raise Refused("not found", f"{task.id} has no files now")
        wanted = copying.Wanted(Given(given.object("copy")))
        self._numbers += 1
        made = Process({"exec": self._numbers}, task.group, Streams(self._loop, self._send))
        made.tidy = True
        try:
            made.streams.pipes(given)
            pid = copying.begin(task, made.streams, wanted)
            made.streams.handed_over()
        except OSError:
            made.streams.close()
            raise
        self._execs[self._numbers] = made
        task.copies = [one for one in task.copies if one.alive()] + [made]
        self._follow(made, pid)
        return {"exec": self._numbers}

    def _follow(self, process: Process, pid: int) -> None:
        # after the answer has gone: the end of a process must not be told before its beginning
        process.pid = pid
        self._loop.after(0, lambda: process.follow(self._children, self._ended))

    def _ended(self, process: Process) -> None:
        if "exec" in process.about:
            self._execs.pop(process.about["exec"], None)
        elif task := self._tasks.get(process.about["id"]):
            task.phase = "stopped"
        self._event({"event": "exit", **process.about, "code": process.exit, "oom": process.oom})

    def signal(self, given: Given) -> dict[str, Any]:
        """See `frames`; harmless when it has ended."""
        number = given.number("signal", 64)
        process = self._process(given)
        if given.flag("everyone"):
            process.group.signal(number)
        elif process.alive():
            tell(process.pid, signal.SIGTERM if process.tidy else number)
        return {}

    def resize(self, given: Given) -> dict[str, Any]:
        """See `frames`."""
        self._process(given).streams.resize(given.number("columns", 65535), given.number("rows", 65535))
        return {}

    def close(self, given: Given) -> dict[str, Any]:
        """See `frames`."""
        self._process(given).streams.end_input()
        return {}

    def pids(self, given: Given) -> dict[str, Any]:
        """See `frames`."""
        return {"pids": self._task(given).group.pids()}

    def stats(self, given: Given) -> dict[str, Any]:
        """See `frames`."""
        return self._task(given).group.stats()

    def pause(self, given: Given) -> Job:
        """See `frames`."""
        task = self._task(given)
        task.running()
        yield from task.group.freeze(self._loop, True)
        task.phase = "paused"
        return {}

    def resume(self, given: Given) -> Job:
        """See `frames`."""
        task = self._task(given)
        task.running()
        yield from task.group.freeze(self._loop, False)
        task.phase = "running"
        return {}

    def update(self, given: Given) -> Job:
        """See `frames`."""
        task = self._task(given)
        path, log = f"{task.folder}/resources.json", f"{task.folder}/log"
        with open(path, "w") as file:
            file.write(json.dumps(given.object("resources")))
        words = ["update", "--resources", path, task.id]
        yield from self._children.run([_CRUN, "--root", f"{self._run}/crun", "--log", log, *words], log)
        return {}

    def delete(self, given: Given) -> Job:
        """See `frames`; harmless when it is not there."""
        task = self._tasks.get(given.name("id"))
        if task:
            yield from self._undo(task)
        return {}

    def _undo(self, task: Task) -> Job:
        task.phase, task.ending = "stopped", True
        for copy in task.copies:
            if copy.alive():
                tell(copy.pid, signal.SIGKILL)
            while copy.alive():
                yield self._loop.pause(_WAIT)
        yield from task.group.emptied(self._loop)
        argv = [_CRUN, "--root", f"{self._run}/crun", "--log", f"{task.folder}/log", "delete", "--force", task.id]
        yield self._children.exit_of(self._children.start(argv))
        yield from self._mounts.release(task.id, task.root)
        task.process.streams.close()
        remove(task.folder)
        self._tasks.pop(task.id, None)

    def everything_ends(self) -> Job:
        """A job: delete all tasks, whatever becomes of each."""
        for task in list(self._tasks.values()):
            try:
                yield from self._undo(task)
            except (Refused, OSError):
                continue

    def state(self) -> dict[str, Any]:
        """See `frames`."""
        return {"tasks": {id: task.state() for id, task in self._tasks.items()}}

    def _task(self, given: Given) -> Task:
        id = given.name("id")
        if id not in self._tasks:
            raise Refused("not found", f"no task {id} in this machine")
        return self._tasks[id]

    def _process(self, given: Given) -> Process:
        if not given.has("exec"):
            return self._task(given).process
        number = given.number("exec")
        if number not in self._execs:
            raise Refused("not found", f"no process {number} in this machine")
        return self._execs[number]
