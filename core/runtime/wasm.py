"""The Shim over WASM modules: each in a process of its own, under a monitor of its own (`wasm_monitor`).

Rules of this file: nothing here needs root. Where we are root a task has a control group like any other, with room for
the engine beside what the module may have; elsewhere the engine alone holds the module to its memory. A signal goes to
the process that carries the module, and a module cannot mind one: any that ends processes ends it, however it loops.
What a module cannot have is refused when it is asked for: a terminal, stdin, a further process.

Order of `delete`: as for OCI runtimes; the exit file is the last to go.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal as signals
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from core import fsio, proc
from core.clock import Clock
from core.errors import Failed, Invalid, NotFound, TimedOut, Unsupported
from core.proc import ProcessId
from core.process import Launcher
from core.runtime import conmon, wasm_files
from core.runtime.bundle import Bundle, Bundles, Made
from core.runtime.monitored import ALIVE, MonitoredTasks, telling
from core.runtime.observing import Eyes
from core.runtime.ports import (
    ExecSpec,
    NewTask,
    Stats,
    TaskEvent,
    TaskPhase,
    TaskState,
)
from core.runtime.wasm_cache import ModuleCache, command
from core.runtime.wasm_groups import Groups, of_process

CREATE_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 2.0
_MONITOR_SECONDS: Final = 2.0
_ADVICE: Final = "Look with `logs`; or run it as a process, with `runtime: runc`."


class WasmEyes(Eyes):
    """Sees what a task of ours is: it has begun when its fifo is gone, it is paused when its process is stopped."""

    def _living(self, id: str, bundle: Bundle, first: ProcessId) -> TaskPhase:
        if (self.bundles.path(id) / "start").exists():
            return TaskPhase.CREATED
        return TaskPhase.PAUSED if proc.is_stopped(first.pid) else TaskPhase.RUNNING


class WasmShim(MonitoredTasks):
    """Tasks as modules. `state`, `group`, `boot`: as for `OciShim`; `cache`: the folder of compiled modules."""

    def __init__(self, state: Path, group: str, launcher: Launcher, clock: Clock, boot: str, cache: Path) -> None:
        self._launcher = launcher
        self._clock = clock
        self._groups = Groups()
        self._cache = ModuleCache(cache, launcher)
        bundles = Bundles(state)
        exits = fsio.make_private(state / "exits")
        super().__init__(bundles, WasmEyes(bundles, exits, state, self._groups.found, boot, ""), group)

    def _carrier(self, id: str) -> ProcessId:
        """The process that carries the module; raises `NotFound` when it does not run."""
        seen = self._eyes.state(id)
        if seen.phase not in ALIVE or seen.pid is None:
            raise NotFound(f"task {id} does not run")
        return seen.pid

    # From nothing to running.

    def prepare(self, task: NewTask) -> None:
        """ABSENT → PREPARED: the module copied, single files gathered. Raises `Unsupported`, `Invalid`, `OverLimit`."""
        self._moving(task.id, TaskEvent.PREPARE)
        if task.terminal or task.stdin:
            raise Unsupported("a terminal or stdin for a module", advice="Leave `tty` and `stdin` out.")
        group = self._group_of(task)
        planned = wasm_files.plan(task.spec)
        final = self.bundles.path(task.id)
        process = task.spec["process"]

        def fill(work: Path) -> None:
            module = work / "module.wasm"
            wasm_files.copy_module(self.bundles, task.rootfs, process["args"][0], process["cwd"], module)
            opened = wasm_files.fill(planned, work, final)
            wanted = {
                "args": process["args"],
                "env": process["env"],
                "user": process["user"],
                "memory": task.spec["linux"]["resources"].get("memory", {}).get("limit"),
                "preopens": [list(asdict(one).values()) for one in opened],
                "log": str(task.log),
                "log_limit": task.log_limit,
                "bundle": str(final),
                "exit": str(self._eyes.exits / task.id),
                "oom": self._groups.oom_tables(group),
                "groups": self._groups.doors(group),
            }
            fsio.write_atomic(work / "wasm.json", json.dumps(wanted).encode(), durable=False)

        self._make(task, group, fill)

    def create(self, id: str) -> TaskState:
        """PREPARED → CREATED: compiled, loaded, waiting. Raises what is wrong with the module, leaving HALF_MADE."""
        bundle = self._begun(id)
        path = self.bundles.path(id)
        with telling(f"creating {id}"):
            self.bundles.begin(id)
            spec = json.loads((path / "config.json").read_bytes())
            module = path / "module.wasm"
            if not module.exists():
                name = spec["process"]["args"][0]
                raise NotFound(f"{name} is not a file in the image", advice="Correct `command`, or the image.")
            self._groups.make(bundle.record.cgroup, spec["linux"]["resources"])
            first, monitor = self._launch(path, module)
            self._groups.settle(self._group, monitor)
            self.bundles.complete(id, Made(*(self._identity(pid, f"task {id}") for pid in (first, monitor))))
        return self._eyes.state(id)

    def _launch(self, path: Path, module: Path) -> tuple[int, int]:
        """Start the monitor and wait for its answer: the numbers of the module's process and of the monitor."""
        compiled = self._cache.compiled(module)
        ours, theirs = os.pipe()
        try:
            with open(path / "monitor.err", "wb") as err:
                words = ("--bundle", str(path), str(theirs), str(compiled))
                argv = command("core.runtime.wasm_monitor", "main", *words)
                try:
                    child = self._launcher.start(argv, stderr=err, pass_fds=(theirs, compiled), cwd="/")
                finally:
                    os.close(theirs)
                    os.close(compiled)
            child.wait()  # it forks itself away at once
            said = _answer(ours)
        finally:
            os.close(ours)
        if not said:
            raise Failed(_last_line(path / "monitor.err"))
        answer = json.loads(said)
        if not answer["pid"]:
            raise Invalid(answer["message"], advice="Build it as a WASI command (preview 1, or a 0.2 component).")
        return int(answer["pid"]), int(answer["monitor"])

    def start(self, id: str) -> TaskState:
        """CREATED → RUNNING (or STOPPED already, when it was quick)."""
        self._moving(id, TaskEvent.START)
        fifo = self.bundles.path(id) / "start"
        with contextlib.suppress(OSError):  # ENXIO: it was killed meanwhile, and its end is being recorded
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, b"!")
            finally:
                os.close(fd)
        fifo.unlink(missing_ok=True)
        return self._eyes.state(id)

    # While it runs.

    def pids(self, id: str) -> Sequence[int]:
        """The one process that carries it; raises `NotFound` when it does not run."""
        return [self._carrier(id).pid]

    def pause(self, id: str) -> None:
        """Stop its process."""
        self._switch(id, TaskEvent.PAUSE, signals.SIGSTOP, TaskPhase.RUNNING)

    def resume(self, id: str) -> None:
        """Let it go on."""
        self._switch(id, TaskEvent.RESUME, signals.SIGCONT, TaskPhase.PAUSED)

    def _switch(self, id: str, event: TaskEvent, number: signals.Signals, before: TaskPhase) -> None:
        state = self._moving(id, event)
        if state.pid is not None:
            state.pid.signal(number)
        deadline = self._clock.monotonic() + _PAUSE_SECONDS
        while self._eyes.state(id).phase is before and self._clock.monotonic() < deadline:
            self._clock.sleep(0.001)  # the kernel stops the threads one by one

    def kill(self, id: str, signal: int, *, everyone: bool = False) -> None:
        """By pidfd; nothing happens when it has ended. There is only one process to mean."""
        bundle = self.bundles.read(id)
        if bundle is not None and bundle.made is not None:
            bundle.made.first.signal(signals.Signals(signal))

    def exec(self, id: str, process: ExecSpec) -> int:
        """Raises `Unsupported`, or `NotFound` when it does not run."""
        self._living(id)
        raise Unsupported("a further process in a module", advice=_ADVICE)

    @contextlib.contextmanager
    def exec_command(self, id: str, process: ExecSpec) -> Iterator[list[str]]:
        """Raises as `exec`."""
        self.exec(id, process)
        yield []

    def ask(self, id: str, args: Sequence[str], timeout: float) -> tuple[int, str]:
        """Raises as `exec`."""
        self._living(id)
        raise Unsupported("a command in a module", advice=_ADVICE)

    def resize(self, id: str, columns: int, rows: int) -> None:
        """Nothing: no module has a terminal. Raises `NotFound`."""
        self._living(id)

    def close_io(self, id: str) -> None:
        """Nothing: stdin was never open. Raises `NotFound`."""
        self._living(id)

    def reopen_log(self, id: str) -> bool:
        """Have the monitor open the log by name again; False when there is no monitor."""
        return conmon.control(self.bundles.path(id), conmon.REOPEN_LOG)

    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Change the control group's limits; the engine's own hold of the memory stays until the next start."""
        record = self._living(id)
        with telling(f"changing the limits of {id}"):
            self._groups.make(record.cgroup, resources)

    def stats(self, id: str) -> Stats:
        """Counters of a task that runs; without a control group those of its process. Raises `NotFound`."""
        first = self._carrier(id)
        return self._groups.counters(self._living(id).cgroup) or of_process(first)

    # To the end.

    def _end(self, id: str, bundle: Bundle) -> None:
        made: tuple[ProcessId, ...] = (bundle.made.first, bundle.made.monitor) if bundle.made is not None else ()
        if not made and bundle.created:
            made = tuple(self._unrecorded(id))
        for number, one in enumerate(made):
            # The recorded monitor ends by itself, once it has written the exit of what we killed.
            own_end = number == 1 and bundle.made is not None and proc.wait_gone(one, _MONITOR_SECONDS)
            if not own_end and one.signal(signals.SIGKILL) and not proc.wait_gone(one, 10.0):
                raise TimedOut(f"process {one.pid} of task {id} does not die")

    def _forget(self, id: str, bundle: Bundle | None) -> None:
        if bundle is not None:
            self._groups.remove(bundle.record.cgroup, self._clock)


def _answer(fd: int) -> bytes:
    """The monitor's one line; nothing when it ended without one. Raises `TimedOut`."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    said = b""
    while not said.endswith(b"\n"):
        if not poller.poll(CREATE_SECONDS * 1000):
            raise TimedOut(f"the module was not loaded within {CREATE_SECONDS:g} s")
        if not (piece := os.read(fd, 1 << 16)):
            break
        said += piece
    return said


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][:500] if lines else "the monitor ended before it said anything"
