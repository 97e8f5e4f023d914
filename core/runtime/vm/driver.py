"""The Shim over virtual machines: the tasks of a sandbox run in its machine, each with two disks of its own.

Rules of this file: nothing is mounted for a task on this node but what it shares; its root is a disk made from the
image, its writable layer another, both plugged in when it is created and taken out when it is deleted. What a task is
stands in files: `guest.json` and, once its program has begun, `begun`; its monitor is its carrier (`carried`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from core import cgroups, fsio, mounts
from core.clock import Clock
from core.errors import AgentError, Failed, NotFound, OverLimit, Unavailable
from core.mounts import MountSpec
from core.proc import ProcessId
from core.process import Launcher, Result
from core.runtime import rootfs
from core.runtime.bundle import Bundle, Bundles, Made
from core.runtime.further import Wanted, writer
from core.runtime.joining import joined
from core.runtime.monitored import ALIVE, MonitoredTasks, telling
from core.runtime.observing import Eyes
from core.runtime.ports import ExecSpec, NewTask, Stats, TaskEvent, TaskPhase, TaskState
from core.runtime.vm import execs
from core.runtime.vm.copies import Copy
from core.runtime.vm.disks import Disks, root_name, serial
from core.runtime.vm.frames import VERSION
from core.runtime.vm.installed import check_sharing, installed
from core.runtime.vm.link import Link, connected
from core.runtime.vm.machine import TAG
from core.runtime.vm.sandboxes import BOOT_SECONDS, VmSandboxer
from core.runtime.vm.translate import translate

_BEGUN: Final = "begun"
_PAUSED: Final = "paused"
_WANTED: Final = "guest.json"
_MOST_SAID: Final = 64 << 10
_LARGEST: Final = 1 << 20
"""Bytes of one file that is carried into the guest: as many as a `file` mount may have."""
_REACH_MORE_SECONDS: Final = 2.0
_MOST_TOLD: Final = 300
_UNPLUG_SECONDS: Final = 10.0


class VmEyes(Eyes):
    """Sees where a task is by the marks in its bundle: no process of this node is its own."""

    def _living(self, id: str, bundle: Bundle, first: ProcessId) -> TaskPhase:
        path = self.bundles.path(id)
        if not (path / _BEGUN).exists():
            return TaskPhase.CREATED
        return TaskPhase.PAUSED if (path / _PAUSED).exists() else TaskPhase.RUNNING


class VmShim(MonitoredTasks):
    """Tasks in the machines of `sandboxer`; `cache`: the folder of disks."""

    def __init__(self, sandboxer: VmSandboxer, launcher: Launcher, clock: Clock, cache: Path) -> None:
        state, group, boot = sandboxer.ground
        self._state = state
        self._sandboxer = sandboxer
        self._clock = clock
        self._disks = Disks(cache, launcher)
        bundles = Bundles(state)
        eyes = VmEyes(bundles, fsio.make_private(state / "exits"), state, cgroups.hierarchies(), boot, "")
        super().__init__(bundles, eyes, group)

    def _left(self) -> Iterable[str]:
        return self._disks.left()

    @contextlib.contextmanager
    def _talking(self, sandbox: str) -> Iterator[Link]:
        with connected(self._sandboxer.folder(sandbox), self._clock) as link:
            yield link

    # From nothing to running.

    def prepare(self, task: NewTask) -> None:
        """ABSENT → PREPARED: both disks made, the spec translated. Raises `Unsupported`, `MissingTool`, `NoSpace`."""
        self._moving(task.id, TaskEvent.PREPARE)
        group = self._group_of(task)
        translated = translate(task.id, task.spec, str(self._state))
        if translated.shared:
            check_sharing(installed(self._sandboxer.guest))

        def fill(work: Path) -> None:
            with self.bundles.looking(task.rootfs) as tree:
                root = self._disks.root(task.id, task.image, tree)
                _keep_users(tree, work / "rootfs")
            wanted = {
                "spec": translated.spec,
                "shared": translated.shared,
                "carried": translated.carried,
                "root": str(root),
                "root_serial": serial("r", root_name(task.image) if task.image else root.name),
                "layer": str(self._disks.layer(task.id)),
                "layer_serial": serial("l", task.id),
            }
            fsio.write_atomic(work / _WANTED, json.dumps(wanted).encode(), durable=False)

        self._make(task, group, fill)

    def create(self, id: str) -> TaskState:
        """PREPARED → CREATED, when the machine has booted; raises the guest's complaint and leaves HALF_MADE."""
        bundle = self._begun(id)
        sandbox = bundle.record.sandbox
        path = self.bundles.path(id)
        wanted = json.loads((path / _WANTED).read_bytes())
        made = self._sandboxer.processes(sandbox)
        if made is None:
            raise Unavailable(f"the machine of {sandbox} does not run")
        with telling(f"creating {id}"), self._talking(sandbox) as link:
            self.bundles.begin(id)
            link.call("hello", BOOT_SECONDS + 5.0, version=VERSION)
            self._configure(link, sandbox)
            self._share(sandbox, wanted["shared"])
            for source, place in wanted["carried"].items():
                _carry(link, Path(source), place)
            link.call("plug", serial=wanted["root_serial"], path=wanted["root"], read_only=True)
            link.call("plug", serial=wanted["layer_serial"], path=wanted["layer"], read_only=False)
            said = link.call("launch", **self._launched(id, bundle, wanted))
            carrier = self._identity(int(said["pid"]), f"the carrier of {id}")
            self.bundles.complete(id, Made(made[0], carrier))
        return self.state(id)

    def _launched(self, id: str, bundle: Bundle, wanted: Mapping[str, Any]) -> dict[str, Any]:
        record = bundle.record
        return {
            "id": id,
            "spec": wanted["spec"],
            "root": wanted["root_serial"],
            "layer": wanted["layer_serial"],
            "shared": [TAG] if wanted["shared"] else [],
            "terminal": record.terminal,
            "stdin": record.stdin or record.terminal,
            "log": str(record.log),
            "log_limit": record.log_limit,
            "exit": str(self._eyes.exits / id),
            "oom": str(self.bundles.path(id) / "oom"),
        }

    def _configure(self, link: Link, sandbox: str) -> None:
        """Give the guest its name and its card's address, once."""
        if link.call("status").get("network"):
            return
        # Once more, for an engine that was killed between attaching the network and starting the sandbox.
        self._sandboxer.join(sandbox)
        self._sandboxer.configure(sandbox, link)

    def _share(self, sandbox: str, shared: Mapping[str, str]) -> None:
        for source, name in shared.items():
            place = self._sandboxer.folder(sandbox) / "share" / name
            if os.path.ismount(place):
                continue
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            if os.path.isdir(source):
                place.mkdir(exist_ok=True)
            else:
                place.touch()
            mounts.attach([MountSpec("", source, ("rbind",))], place)

    def start(self, id: str) -> TaskState:
        """CREATED → RUNNING (or STOPPED already, when it was quick)."""
        self._moving(id, TaskEvent.START)
        bundle = self._bundle(id)
        with self._talking(bundle.record.sandbox) as link:
            (self.bundles.path(id) / _BEGUN).touch(mode=0o600)
            link.call("start", id=id)
        return self.state(id)

    def _bundle(self, id: str) -> Bundle:
        if (bundle := self.bundles.read(id)) is None:
            raise NotFound(f"task {id} is not there")
        return bundle

    # While it runs.

    def pids(self, id: str) -> Sequence[int]:
        """The one process of this node that carries it: the machine. Raises `NotFound` when it does not run."""
        self._living(id)
        made = self._bundle(id).made
        return [] if made is None else [made.first.pid]

    def pause(self, id: str) -> None:
        """RUNNING → PAUSED, in the guest."""
        self._switch(id, TaskEvent.PAUSE, "pause")
        (self.bundles.path(id) / _PAUSED).touch(mode=0o600)

    def resume(self, id: str) -> None:
        """PAUSED → RUNNING."""
        self._switch(id, TaskEvent.RESUME, "resume")
        (self.bundles.path(id) / _PAUSED).unlink(missing_ok=True)

    def _switch(self, id: str, event: TaskEvent, call: str) -> None:
        self._moving(id, event)
        with self._talking(self._living(id).sandbox) as link:
            link.call(call, id=id)

    def kill(self, id: str, signal: int, *, everyone: bool = False) -> None:
        """In the guest; nothing happens when it has ended."""
        if self.state(id).phase not in ALIVE:
            return
        with contextlib.suppress(NotFound, Unavailable), self._talking(self._bundle(id).record.sandbox) as link:
            link.call("signal", id=id, signal=int(signal), everyone=everyone)

    def exec(self, id: str, process: ExecSpec) -> int:
        """In the guest, on the caller's own stdio; `user` is `uid[:gid[,gid…]]` in numbers."""
        wanted = Wanted(id, self._joined(id, process), writer(1), writer(2), process.stdin or process.tty)
        with self._talking(self._living(id).sandbox) as link:
            return execs.run(link, wanted, self._clock)

    def ask(self, id: str, args: Sequence[str], timeout: float) -> tuple[int, str]:
        """In the guest, with bounded output; killed when the time is over."""
        said = bytearray()

        def keep(data: bytes) -> None:
            said.extend(data[: _MOST_SAID - len(said)])

        wanted = Wanted(id, self._joined(id, ExecSpec(args)), keep, keep, timeout=timeout)
        with self._talking(self._living(id).sandbox) as link:
            code = execs.run(link, wanted, self._clock)
        return code, Result(code, b"", bytes(said)).complaint() if said else ""

    def _joined(self, id: str, process: ExecSpec) -> dict[str, Any]:
        self._living(id)
        return joined(json.loads((self.bundles.path(id) / "config.json").read_bytes())["process"], process)

    def reach(self, id: str, port: int, path: str | None, timeout: float) -> None:
        """By the guest, from inside. Raises `Failed` with what it saw, `TimedOut`, `NotFound`."""
        with self._talking(self._living(id).sandbox) as link:
            whole = max(1, math.ceil(timeout))
            said = link.call("reach", whole + _REACH_MORE_SECONDS, port=port, path=path, timeout=whole)
        if not said["ok"]:
            raise Failed(str(said["message"])[:_MOST_TOLD])

    @contextlib.contextmanager
    def copying(self, id: str, way: str, path: str, name: str = "") -> Iterator[Copy]:
        """See `Carrying`."""
        with self._talking(self._bundle(id).record.sandbox) as link:
            yield Copy(link, id, way=way, path=path, **({"name": name} if name else {}))

    def resize(self, id: str, columns: int, rows: int) -> None:
        """The size of its terminal."""
        with self._talking(self._living(id).sandbox) as link:
            link.call("resize", id=id, columns=columns, rows=rows)

    def close_io(self, id: str) -> None:
        """Close its stdin; harmless for a task that has none."""
        record = self._living(id)
        if record.stdin:
            with self._talking(record.sandbox) as link:
                link.call("close", id=id)

    def reopen_log(self, id: str) -> bool:
        """Have the monitor open the log by name again; False when there is no monitor."""
        bundle = self.bundles.read(id)
        if bundle is None or bundle.made is None:
            return False
        try:
            with self._talking(bundle.record.sandbox) as link:
                return bool(link.call("reopen", id=id)["there"])
        except Unavailable:
            return False

    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        """Change limits in the guest (OCI `linux.resources`)."""
        with self._talking(self._living(id).sandbox) as link:
            link.call("update", id=id, resources=dict(resources))

    def stats(self, id: str) -> Stats:
        """The guest's own counters of the task; raises `NotFound`."""
        with self._talking(self._living(id).sandbox) as link:
            said = link.call("stats", id=id)
        return Stats(float(said["cpu_seconds"]), int(said["memory"]), int(said["pids"]), int(said["oom_kills"]))

    # To the end.

    def _end(self, id: str, bundle: Bundle) -> None:
        made = self._sandboxer.processes(bundle.record.sandbox)
        if bundle.created and made is not None and all(one.alive(self._eyes.boot) for one in made):
            try:
                with self._talking(bundle.record.sandbox) as link:
                    link.call("drop", id=id)
                    self._unplug(link, id, bundle)
            except AgentError:
                if all(one.alive(self._eyes.boot) for one in made):
                    raise
        share = self._sandboxer.folder(bundle.record.sandbox) / "share" / id
        if share.exists():
            mounts.detach_below(share)
            fsio.remove_tree(share)

    def _unplug(self, link: Link, id: str, bundle: Bundle) -> None:
        wanted = self._wanted(id)
        others = (self._wanted(one) for one in self.bundles.ids() if one != id and self._shares(one, bundle))
        serials = {wanted.get("root_serial"), wanted.get("layer_serial")} - {one.get("root_serial") for one in others}
        for one in sorted(filter(None, serials)):
            link.call("unplug", _UNPLUG_SECONDS, serial=one)

    def _shares(self, id: str, bundle: Bundle) -> bool:
        other = self.bundles.read(id)
        return other is not None and other.record.sandbox == bundle.record.sandbox

    def _wanted(self, id: str) -> Mapping[str, Any]:
        found = fsio.read_if_there(self.bundles.path(id) / _WANTED, 16 << 20)
        return {} if found is None else json.loads(found)

    def _forget(self, id: str, bundle: Bundle | None) -> None:
        self._disks.forget(id)

    def collect(self, images: Collection[str], *, dry: bool) -> Iterator[tuple[str, int]]:
        """See `Keeping`: roots."""
        return self._disks.collect(images, dry=dry)

    def sweep(self) -> None:
        """Remove what killed engines left half-made."""
        super().sweep()
        self._disks.sweep()


def _keep_users(tree: Path, kept: Path) -> None:
    """Keep the image's own lists of users and groups, by which names are looked up later: its root is not mounted."""
    (kept / "etc").mkdir(mode=0o755)
    with rootfs.opened(tree) as root:
        for name in ("passwd", "group"):
            with contextlib.suppress(OSError):  # the image has none: then there are only numbers
                fd = rootfs.open_inside(root, f"/etc/{name}", os.O_RDONLY | os.O_NONBLOCK)
                with open(fd, "rb") as source:
                    (kept / "etc" / name).write_bytes(source.read(_LARGEST))


def _carry(link: Link, source: Path, place: str) -> None:
    """Carry a file, or a folder of files, into the guest's memory. Raises `OverLimit`."""
    seen = source.stat()
    owner = (seen.st_uid, seen.st_gid)
    if not stat.S_ISDIR(seen.st_mode):
        if seen.st_size > _LARGEST:
            raise OverLimit(f"{source} is larger than {_LARGEST >> 20} MiB", advice="Mount a volume instead.")
        with open(source, "rb") as file:
            link.put(place, file, mode=stat.S_IMODE(seen.st_mode), owner=owner)
        return
    link.call("put", path=place, folder=True, mode=stat.S_IMODE(seen.st_mode), uid=owner[0], gid=owner[1], data="")
    for one in sorted(source.iterdir()):
        _carry(link, one, f"{place}/{one.name}")
