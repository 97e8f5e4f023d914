"""The Shim over containerd's shim v2: any of its shims drives a task, a minder of ours watches it.

Rules of this file: the bundle, the record of who runs and the exit file are the same as for OCI runtimes; a task's
monitor is its minder (see `minder`). Where a runtime's own state can be seen in files, a task is observed without
asking its shim. A shim is never shut down before its exit was read, and a bundle is never removed while its shim lives.

Order of `delete`: processes, exit read by the minder, the shim's own `Delete` and `Shutdown`, or its `delete` command
when it is dead; then groups, bundle, exit file, which is the last to go.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core import cgroups, fsio, proc
from core.clock import Clock
from core.errors import AgentError, Failed, NotFound, TimedOut, Unavailable, Unsupported
from core.proc import ProcessId
from core.process import Launcher, Result
from core.runtime import criu, limits, placing
from core.runtime.bundle import Bundle, Bundles, Made, Record
from core.runtime.further import Sink, Wanted, writer
from core.runtime.joining import joined
from core.runtime.monitored import MonitoredTasks, telling
from core.runtime.observing import Eyes
from core.runtime.ports import ExecSpec, NewTask, Stats, TaskEvent, TaskPhase, TaskState
from core.runtime.shimv2 import bootstrap, ending, execs, messages, metering, minding, roots, sandboxes
from core.runtime.shimv2.complaints import explained
from core.runtime.shimv2.program import SERVICE, ShimProgram
from core.runtime.shimv2.service import CREATE_SECONDS, TaskService, packed, talking

_PHASES: Final[Mapping[int, TaskPhase]] = {
    messages.CREATED: TaskPhase.CREATED,
    messages.PAUSED: TaskPhase.PAUSED,
    messages.PAUSING: TaskPhase.PAUSED,
}
CHECKPOINT_SECONDS: Final = 600.0
_ENDING_SECONDS: Final = 10.0
_GONE: Final = (NotFound, Unavailable, TimedOut)
_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 2.0
_MOST_SAID: Final = 16 << 10
_UNBEGUN: Final = ":[2:INIT]"
_WORK: Final = "work"
"""The folder of a bundle in which runc's shim has CRIU work."""
_BEGUN: Final = "started"
"""A file of the bundle, for the time when a shim does not say how its task is."""


class ShimV2(MonitoredTasks):
    """Tasks by a shim each. Parameters as for `OciShim`; `program` says which shim."""

    def __init__(
        self, state: Path, group: str, launcher: Launcher, clock: Clock, boot: str, program: ShimProgram
    ) -> None:
        self._launcher = launcher
        self._clock = clock
        self._program = program
        self._state = state
        self._caller = sandboxes.caller(program, state, group)
        self._found = cgroups.hierarchies()
        self._root = state / "shim" / Path(program.program).name
        bundles = Bundles(state)
        seen = self._root / self._caller.namespace
        eyes = Eyes(bundles, fsio.make_private(state / "exits"), seen, self._found, boot, _UNBEGUN)
        super().__init__(bundles, eyes, group)

    # What is there.

    def state(self, id: str) -> TaskState:
        """Observe from files and /proc; a runtime without files that we know is asked by its shim."""
        seen = self._eyes.state(id)
        if seen.phase is not TaskPhase.RUNNING or self._program.is_runc:
            return seen
        try:
            with self._talking(id) as task:
                said = task.call("State", _LOOK_SECONDS, id=id)["status"]
        except AgentError:
            begun = os.path.lexists(self.bundles.path(id) / _BEGUN)
            return seen if begun else TaskState(id, TaskPhase.CREATED, seen.pid, seen.monitor)
        return TaskState(id, _PHASES.get(said, seen.phase), seen.pid, seen.monitor)

    def _left(self) -> Iterable[str]:
        return os.listdir(self._eyes.runtime_root) if self._eyes.runtime_root.exists() else ()

    @contextlib.contextmanager
    def _talking(self, id: str) -> Iterator[TaskService]:
        """A connection to the shim of a task; what it complains of is raised in words that say what to do."""
        path = self.bundles.path(id)
        try:
            with talking(bootstrap.checked(bootstrap.kept(path))) as task:
                yield task
        except AgentError as error:
            raise explained(error, self._program.program, path) from error

    # From nothing to running.

    def prepare(self, task: NewTask) -> None:
        """ABSENT → PREPARED; the root is mounted, or written down for a shim that mounts it itself."""
        if not self._program.wants_mounts:
            super().prepare(task)
            return
        self._moving(task.id, TaskEvent.PREPARE)
        self._make(task, self._group_of(task), lambda work: roots.keep(task.rootfs, work))

    def create(self, id: str) -> TaskState:
        """PREPARED → CREATED; raises the shim's or its runtime's complaint and leaves HALF_MADE."""
        return self._made(id, self._begun(id), None)

    def _made(self, id: str, bundle: Bundle, image: Path | None) -> TaskState:
        """Have a shim create it, or restore it from `image`, and a minder watch it."""
        path = self.bundles.path(id)
        with telling(f"{'creating' if image is None else 'restoring'} {id}"):
            fsio.make_private(self._eyes.runtime_root)
            self.bundles.begin(id)
            for name in minding.FIFOS:
                os.mkfifo(path / name, 0o600)
            with minding.minded(self._launcher, path, self._eyes.exits, bundle.record) as minder:
                shared = sandboxes.join(self._state, bundle.record.sandbox, path)
                if not shared:
                    bootstrap.start(self._launcher, self._caller, id, path)
                with self._talking(id) as task:
                    if not shared:
                        self._keep_shim(task, id)
                    monitor = self._identity(minder(), f"the minder of {id}")
                    placing.move_out(self._found, self._group, monitor.pid)
                    first = self._create(task, id, path, bundle.record, image)
                    if image is not None:  # what is written down begins to run with the start
                        pid = task.call("Start", CHECKPOINT_SECONDS, id=id)["pid"]
                        first = self._identity(pid, f"task {id}")
            placing.settle(self._found, self._launcher.group, first.pid, bundle.record.cgroup)
            if image is not None:
                placing.gather(self._found, self._launcher.group, first.pid, bundle.record.cgroup)
                (path / _BEGUN).touch(mode=0o600)
            self.bundles.complete(id, Made(first, monitor))
        return self.state(id)

    def _keep_shim(self, task: TaskService, id: str) -> None:
        pid = task.call("Connect", id=id)["shim_pid"]
        shim = self._identity(pid, f"the shim of {id}")
        placing.move_out(self._found, self._group, pid)
        ending.record(shim, self.bundles.path(id))

    def _create(self, task: TaskService, id: str, path: Path, record: Record, image: Path | None) -> ProcessId:
        streams = {"stdout": str(path / "stdout")}
        if not record.terminal:
            streams["stderr"] = str(path / "stderr")
        if record.stdin or record.terminal:
            streams["stdin"] = str(path / "stdin")
        wanted = {"terminal": record.terminal, "options": self._program.any(self._root), "rootfs": roots.kept(path)}
        if image is not None:
            wanted["checkpoint"] = str(image)
        said = task.call("Create", CREATE_SECONDS, id=id, bundle=str(path), **wanted, **streams)
        # Where no process of this node is the task's, its shim stands for it.
        return self._identity(said["pid"] or task.call("Connect", id=id)["shim_pid"], f"task {id}")

    def start(self, id: str) -> TaskState:
        """CREATED → RUNNING (or STOPPED already, when it was quick)."""
        self._moving(id, TaskEvent.START)
        with self._talking(id) as task:
            task.call("Start", CREATE_SECONDS, id=id)
        (self.bundles.path(id) / _BEGUN).touch(mode=0o600)
        return self.state(id)

    # While it runs.

    def pids(self, id: str) -> Sequence[int]:
        """What the shim counts as its processes; raises `NotFound` when it does not run."""
        self._living(id)
        with self._talking(id) as task:
            return [one["pid"] for one in task.call("Pids", id=id)["processes"]]

    def pause(self, id: str) -> None:
        """RUNNING → PAUSED."""
        self._moving(id, TaskEvent.PAUSE)
        with self._talking(id) as task:
            task.call("Pause", id=id)

    def resume(self, id: str) -> None:
        """PAUSED → RUNNING."""
        self._moving(id, TaskEvent.RESUME)
        with self._talking(id) as task:
            task.call("Resume", id=id)

    def kill(self, id: str, signal: int, *, everyone: bool = False) -> None:
        """By the shim; by pidfd when there is none any more. Nothing happens when the task has ended."""
        bundle = self.bundles.read(id)
        if bundle is None or bundle.made is None or not bundle.made.first.alive(self._eyes.boot):
            return
        try:
            with self._talking(id) as task:
                task.call("Kill", id=id, signal=signal, all=everyone)
        except _GONE:
            if everyone:
                limits.signal_all(self._found, bundle.record.cgroup, signal)
            elif bundle.made.first not in self._shims(id):
                bundle.made.first.signal(signals.Signals(signal))

    def exec(self, id: str, process: ExecSpec) -> int:
        """By the shim, on the caller's own stdio; `user` is `uid[:gid[,gid…]]` in numbers."""
        wanted = Wanted(id, self._joined(id, process), writer(1), writer(2), process.stdin or process.tty)
        with self._talking(id) as task:
            return execs.run(task, self.bundles.path(id), wanted, self._clock)

    def ask(self, id: str, args: Sequence[str], timeout: float) -> tuple[int, str]:
        """By the shim, with bounded output; what goes on inside when the time is over is killed too."""
        out, err = bytearray(), bytearray()
        wanted = Wanted(id, self._joined(id, ExecSpec(args)), _keeper(out), _keeper(err), timeout=timeout)
        with self._talking(id) as task:
            code = execs.run(task, self.bundles.path(id), wanted, self._clock)
        return code, Result(code, bytes(out), bytes(err)).complaint() if out or err else ""

    def _joined(self, id: str, process: ExecSpec) -> dict[str, Any]:
        self._living(id)
        return joined(json.loads((self.bundles.path(id) / "config.json").read_bytes())["process"], process)

    def resize(self, id: str, columns: int, rows: int) -> None:
        """The size of its terminal."""
        self._living(id)
        with self._talking(id) as task:
            task.call("ResizePty", id=id, width=columns, height=rows)

    def reopen_log(self, id: str) -> bool:
        """Have the minder open the log by name again, after it was renamed; False when there is no minder."""
        bundle = self.bundles.read(id)
        return bundle is not None and bundle.made is not None and bundle.made.monitor.signal(signals.SIGHUP)

    def close_io(self, id: str) -> None:
        """Close its stdin; harmless for a task that has none."""
        if self._living(id).stdin:
            with self._talking(id) as task:
                task.call("CloseIO", id=id, stdin=True)

    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Change limits in place (OCI `linux.resources`)."""
        self._living(id)
        with self._talking(id) as task:
            task.call("Update", id=id, resources=packed("LinuxResources", resources))

    def why_no_checkpoint(self, *, ending: bool) -> str:
        """Of shims only runc's are known to, where CRIU works on this kernel."""
        if not self._program.is_runc or self._program.has_sandboxes:
            return f"of shims only containerd-shim-runc-v2 has checkpoints, without `sandbox: {SERVICE}`"
        return criu.why_not(self._launcher)

    def _check_checkpoints(self, *, ending: bool) -> None:
        if why := self.why_no_checkpoint(ending=ending):
            raise Unsupported(f"checkpoints: {why}")

    def checkpoint(self, id: str, folder: Path, *, ending: bool = False) -> None:
        """By the shim's `Checkpoint`. Raises what the runtime complains of."""
        self._moving(id, TaskEvent.CHECKPOINT)
        self._check_checkpoints(ending=ending)
        fsio.make_private(self.bundles.path(id) / _WORK)
        with self._talking(id) as task:
            options = self._program.checkpointing(folder, ending=ending)
            task.call("Checkpoint", CHECKPOINT_SECONDS, id=id, path=str(folder), options=options)
        if ending and self.wait(id, _ENDING_SECONDS) is None:
            raise Failed(f"{id} was written down, and goes on all the same")

    def restore(self, id: str, folder: Path) -> TaskState:
        """By the shim's `Create`, which is told of the checkpoint, and `Start`."""
        bundle = self._begun(id)
        self.bundles.begin(id)
        self._check_checkpoints(ending=True)
        fsio.make_private(self.bundles.path(id) / _WORK)
        return self._made(id, bundle, folder)

    def stats(self, id: str) -> Stats:
        """Counters of the task's control group, or where there is nothing in it the shim's own; raises `NotFound`."""
        group = self._living(id).cgroup
        seen = limits.counters(self._found, group)
        if seen is not None and limits.pids_below(self._found, group):
            return seen
        with self._talking(id) as task:
            return metering.read(task.call("Stats", id=id)["stats"])

    # To the end.

    def _end(self, id: str, bundle: Bundle) -> None:
        group, made = bundle.record.cgroup, bundle.made
        if made is not None:
            self._end_first(id, made.first)
        limits.end_all(self._found, group, self._clock, within=10.0)
        if made is not None:
            proc.wait_gone(made.monitor, _END_SECONDS)
        if bundle.created:
            seen = self._eyes.runtime_root / id if self._program.is_runc else None
            self._ending(id).task(seen)
        if made is not None and made.monitor.signal(signals.SIGKILL):
            proc.wait_gone(made.monitor, _END_SECONDS)
        limits.end_all(self._found, group, self._clock, within=10.0)
        cgroups.remove_everywhere(group, self._found, self._clock)

    def _end_first(self, id: str, first: ProcessId) -> None:
        """Kill the task's own process; where that is its shim, have the shim kill what is inside."""
        if first not in self._shims(id):
            first.signal(signals.SIGKILL)
            return
        with contextlib.suppress(AgentError), self._talking(id) as task:  # it is dead, or hangs: ended below
            task.call("Kill", id=id, signal=int(signals.SIGKILL), all=True)

    def _shims(self, id: str) -> list[ProcessId]:
        """The shim of a task, and that of its sandbox, as they were recorded."""
        path = self.bundles.path(id)
        return [found for where in (path, sandboxes.joined(self._state, path)) if (found := ending.recorded(where))]

    def _ending(self, id: str) -> ending.Ending:
        path = self.bundles.path(id)
        shared = sandboxes.joined(self._state, path)
        return ending.Ending(self._launcher, self._caller, path, id, self._eyes.boot, shared)

    def _forget(self, id: str, bundle: Bundle | None) -> None:
        fsio.remove_tree(self._eyes.runtime_root / id)


def _keeper(kept: bytearray) -> Sink:
    def keep(data: bytes) -> None:
        kept.extend(data[: _MOST_SAID - len(kept)])

    return keep
