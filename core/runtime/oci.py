"""The Shim over an OCI runtime (runc, crun) under conmon.

Rules of this file: calls that change a task first look where it is and refuse an illegal move; they spawn the runtime
through the launcher, so that a killed engine's half-done calls are ended by the next one. What a task *is* comes from
`observing`. `delete` works from any phase and from any point at which an earlier `delete` was killed.

Order of `delete`: processes, monitor, runtime state, groups, bundle, exit file. The exit file is the last to go: until
then the task is still STOPPED with its exit, and `delete` is called again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal as signals
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from core import cgroups, fsio, proc
from core.clock import Clock
from core.errors import AgentError, Failed, MissingTool, NotFound, TimedOut, Unsupported
from core.process import Launcher, find, foreground
from core.runtime import beginning, conmon, criu, limits, placing
from core.runtime.bundle import Bundle, Bundles, Made
from core.runtime.joining import joined
from core.runtime.monitored import MonitoredTasks, telling
from core.runtime.observing import Eyes, GroupEyes
from core.runtime.ports import (
    ExecSpec,
    Stats,
    TaskEvent,
    TaskState,
)
from core.values import dataclass

CREATE_SECONDS: Final = 60.0
CHECKPOINT_SECONDS: Final = 600.0
_ENDING_SECONDS: Final = 10.0
_MONITOR_SECONDS: Final = 2.0
_KNOWN: Final = ("runc", "crun")
MOST_SAID: Final = 16 << 10
"""Bytes kept of what a short command says."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs, by name or path; they are looked up when they are needed, since they may be installed later."""

    runtime: str = "runc"
    monitor: str = "conmon"
    flags: tuple[str, ...] = ()
    """What the runtime is told before each of its commands."""

    @property
    def own_folder(self) -> str:
        """The name of the runtime's own folder (`--root`) below the state folder."""
        name = Path(self.runtime).name
        return name if name in _KNOWN else f"oci-{name}"

    @property
    def leaves_fifo(self) -> bool:
        """Whether what it has created begins as `beginning` knows it."""
        return Path(self.runtime).name == "runc"

    @property
    def unbegun(self) -> str:
        """What a first process is called (/proc/PID/comm) before it becomes the task's own program.

        runc names it so itself; crun and its like leave it the name of their own program.
        """
        name = Path(self.runtime).name
        return ":[2:INIT]" if name == "runc" else name[:15]


RUNC: Final = Tools()


class OciShim(MonitoredTasks):
    """Tasks as processes in namespaces.

    `state`: the folder that may vanish at reboot. `group`: the instance's cgroup, `/reconciler-<instance>`; tasks' own
    groups lie below it, monitors in `<group>/monitors`. `boot`: this boot's id.
    """

    _looking: ClassVar[type[Eyes]] = GroupEyes
    """How the phase of a task is seen."""

    def __init__(
        self, state: Path, group: str, launcher: Launcher, clock: Clock, boot: str, tools: Tools = RUNC
    ) -> None:
        self._launcher = launcher
        self._clock = clock
        self._tools = tools
        self._found = cgroups.hierarchies()
        bundles = Bundles(state)
        eyes = self._looking(
            bundles,
            fsio.make_private(state / "exits"),
            fsio.make_private(state / tools.own_folder),
            self._found,
            boot,
            tools.unbegun,
        )
        super().__init__(bundles, eyes, group)

    def _left(self) -> Iterable[str]:
        return os.listdir(self._eyes.runtime_root)

    # From nothing to running.

    def create(self, id: str) -> TaskState:
        """PREPARED → CREATED; raises the runtime's complaint and leaves HALF_MADE."""
        return self._made(id, self._begun(id), None)

    def _made(self, id: str, bundle: Bundle, image: Path | None) -> TaskState:
        """Have the monitor create it, or restore it from `image`, and put all where it belongs."""
        monitor = conmon.Monitor(
            find(self._tools.monitor),
            find(self._tools.runtime),
            self._eyes.runtime_root,
            self._eyes.exits,
            self._tools.flags,
        )
        path = self.bundles.path(id)
        options = () if image is None else self._restoring(path)
        with telling(f"{'creating' if image is None else 'restoring'} {id}"):
            self.bundles.begin(id)
            argv = monitor.command(id, path, bundle.record, image=image, options=options)
            seconds = CREATE_SECONDS if image is None else CHECKPOINT_SECONDS
            first, own = conmon.launch(self._launcher, argv, path, timeout=seconds)
            placing.move_out(self._found, self._group, own)
            group = bundle.record.cgroup
            for pid in self._born(first, group) if image is None else limits.pids_below(self._found, group):
                placing.settle(self._found, self._launcher.group, pid, bundle.record.cgroup)
            if image is not None:
                placing.gather(self._found, self._launcher.group, first, group)
            self.bundles.complete(id, Made(*(self._identity(pid, f"task {id}") for pid in (first, own))))
        return self._eyes.state(id)

    def _born(self, first: int, group: str) -> Iterable[int]:
        """The processes that `create` has made."""
        return (first,)

    def start(self, id: str) -> TaskState:
        """CREATED → RUNNING (or STOPPED already, when it was quick)."""
        first = self._moving(id, TaskEvent.START).pid
        own = self._eyes.runtime_root / id
        if first is None or not self._tools.leaves_fifo or not beginning.begin(own, first):
            self._runtime("start", id)
        return self._eyes.state(id)

    def _runtime(self, *words: str, stdin: bytes = b"") -> None:
        argv = self._command(*words)
        result = self._launcher.run(argv, stdin=stdin)
        if result.code != 0:
            raise conmon.complaint(result.stderr.decode("utf-8", "replace"))

    def _command(self, *words: str) -> list[str]:
        return [find(self._tools.runtime), "--root", str(self._eyes.runtime_root), *self._tools.flags, *words]

    # Written down, and taken up again.

    def why_no_checkpoint(self, *, ending: bool) -> str:
        """The runtime must be built for it, and CRIU must work on this kernel."""
        try:
            path = find(self._tools.runtime)
        except MissingTool as error:
            return f"{error.message}: {error.hint()}"
        return criu.answered(path, lambda: self._unable(path)) or criu.why_not(self._launcher)

    def _unable(self, path: str) -> str:
        from core.runtime import probing  # of no use to an engine that writes nothing down

        can = probing.ask(path, self._launcher, self._found).can
        return "" if can.get("checkpoint", True) else f"{Path(path).name} was built without checkpoints (CRIU)"

    def _check_checkpoints(self, *, ending: bool) -> None:
        if why := self.why_no_checkpoint(ending=ending):
            raise Unsupported(f"checkpoints: {why}")

    def checkpoint(self, id: str, folder: Path, *, ending: bool = False) -> None:
        """Raises the runtime's complaint, with what CRIU's log says last."""
        self._moving(id, TaskEvent.CHECKPOINT)
        self._check_checkpoints(ending=ending)
        argv = self._command("checkpoint", *self._writing(self.bundles.path(id), folder, ending=ending), id)
        result = self._launcher.run(argv, timeout=CHECKPOINT_SECONDS)
        if result.code != 0:
            raise self._explained(conmon.complaint(result.stderr.decode("utf-8", "replace")), id)
        if ending and self.wait(id, _ENDING_SECONDS) is None:
            raise Failed(f"{id} was written down, and goes on all the same")

    def restore(self, id: str, folder: Path) -> TaskState:
        """By the monitor, as `create`: log, exit and monitor are as for any other task."""
        bundle = self._begun(id)
        self.bundles.begin(id)
        self._check_checkpoints(ending=True)
        try:
            return self._made(id, bundle, folder)
        except AgentError as error:
            raise self._explained(error, id) from error

    def _writing(self, bundle: Path, folder: Path, *, ending: bool) -> list[str]:
        """What the runtime is told of a checkpoint. CRIU's logs come to lie in the bundle."""
        going_on = [] if ending else ["--leave-running"]
        return ["--image-path", str(folder), "--work-path", str(bundle / criu.WORK), *going_on, *self._criu_options]

    def _restoring(self, bundle: Path) -> Sequence[str]:
        """What the runtime is told of a restore, beside where from."""
        return ["--work-path", str(bundle / criu.WORK), *self._criu_options]

    @property
    def _criu_options(self) -> list[str]:
        return ["--tcp-established", *(["--file-locks"] if self._tools.own_folder == "runc" else [])]

    def _explained(self, error: AgentError, id: str) -> AgentError:
        """The error with the last complaint in CRIU's log, which says more than the runtime's pointer to it."""
        said = criu.last_complaint(self.bundles.path(id) / criu.WORK)
        return type(error)(f"{error.message}: {said}", advice=error.hint()) if said else error

    # While it runs.

    def pids(self, id: str) -> Sequence[int]:
        """The members of its groups; raises `NotFound` when it does not run."""
        return limits.pids_below(self._found, self._living(id).cgroup)

    def pause(self, id: str) -> None:
        """Freeze its group."""
        self._moving(id, TaskEvent.PAUSE)
        self._runtime("pause", id)

    def resume(self, id: str) -> None:
        """Thaw its group."""
        self._moving(id, TaskEvent.RESUME)
        self._runtime("resume", id)

    def kill(self, id: str, signal: int, *, everyone: bool = False) -> None:
        """By pidfd, so that no stranger is met; nothing happens when it has ended."""
        bundle = self.bundles.read(id)
        if bundle is None or bundle.made is None:
            return
        if everyone:
            limits.signal_all(self._found, bundle.record.cgroup, signal)
        else:
            bundle.made.first.signal(signals.Signals(signal))

    def exec(self, id: str, process: ExecSpec) -> int:
        """Runs in the foreground; `user` is `uid[:gid[,gid…]]` in numbers (see `rootfs.resolve_user`)."""
        with self.exec_command(id, process) as argv:
            return foreground(argv)

    @contextlib.contextmanager
    def exec_command(self, id: str, process: ExecSpec) -> Iterator[list[str]]:
        """The command line that `exec` runs, good for the block: for who wants to run it with a limit of time."""
        self._living(id)
        bundle = self.bundles.path(id)
        first = json.loads((bundle / "config.json").read_bytes())["process"]
        described = bundle / f"exec-{secrets.token_hex(8)}.json"
        fsio.write_atomic(described, json.dumps(joined(first, process)).encode(), durable=False)
        try:
            yield self._command("exec", "--process", str(described), id)
        finally:
            described.unlink(missing_ok=True)

    def ask(self, id: str, args: Sequence[str], timeout: float) -> tuple[int, str]:
        """Runs in the helpers' group, with bounded output. What goes on inside when the time is over is killed too."""
        self._living(id)
        argv = self._command("exec", id, *args)
        try:
            done = self._launcher.run(argv, timeout=timeout, limit=MOST_SAID, descendants=True)
        except TimedOut:
            raise TimedOut(f"{args[0]} took longer than {timeout:g} s") from None
        return done.code, done.complaint() if done.stdout or done.stderr else ""

    def resize(self, id: str, columns: int, rows: int) -> None:
        """The size of its terminal, through the monitor."""
        self._living(id)
        conmon.control(self.bundles.path(id), conmon.RESIZE, rows, columns)

    def reopen_log(self, id: str) -> bool:
        """Have the monitor open the log by name again, after it was renamed; False when there is no monitor."""
        return conmon.control(self.bundles.path(id), conmon.REOPEN_LOG)

    def close_io(self, id: str) -> None:
        """Close its stdin; harmless for a task that has none."""
        if self._living(id).stdin:
            conmon.close_stdin(self.bundles.path(id))

    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Change limits in place (OCI `linux.resources`: cpu, memory, pids)."""
        group = self._living(id).cgroup
        self._runtime("update", "--resources", "-", id, stdin=json.dumps(resources).encode())
        if pages := resources.get("hugepageLimits"):  # which no runtime's update knows
            limits.limit(self._found, group, {"hugepageLimits": pages})

    def stats(self, id: str) -> Stats:
        """Counters of a task that runs; raises `NotFound`."""
        seen = limits.counters(self._found, self._living(id).cgroup)
        if seen is None:
            raise NotFound(f"task {id} has no control group")
        return seen

    # To the end.

    def _end(self, id: str, bundle: Bundle) -> None:
        group = bundle.record.cgroup
        if bundle.made is None:
            for helper in self._unrecorded(id) if bundle.created else ():
                helper.signal(signals.SIGKILL)
                proc.wait_gone(helper, _MONITOR_SECONDS)
            limits.end_all(self._found, group, self._clock, within=10.0)
            return
        bundle.made.first.signal(signals.SIGKILL)
        limits.end_all(self._found, group, self._clock, within=10.0)
        if not proc.wait_gone(bundle.made.monitor, _MONITOR_SECONDS) and bundle.made.monitor.signal(signals.SIGKILL):
            proc.wait_gone(bundle.made.monitor, _MONITOR_SECONDS)

    def _forget(self, id: str, bundle: Bundle | None) -> None:
        own = self._eyes.runtime_root / id
        if own.exists():
            self._forced(id)
            fsio.remove_tree(own)
        if bundle is not None:
            cgroups.remove_everywhere(bundle.record.cgroup, self._found, self._clock)

    def _forced(self, id: str) -> None:
        with contextlib.suppress(AgentError):  # half-made, or the runtime gone: what is left goes anyway
            self._runtime("delete", "--force", id)
