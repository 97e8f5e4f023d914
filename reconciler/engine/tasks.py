"""Hands for tasks: roots, bundles, secrets, volumes, logs.

Rules of this file: what a task needs beside its root lies in `attempts/<id>` below root (anonymous volumes) and below
state (secrets, files), and goes with it. Each step may have been done before and is then left as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from core import fsio, mounts
from core.clock import Clock
from core.errors import NotFound, Unavailable
from core.mounts import MountSpec
from core.process import find
from core.runtime import logs, rootfs
from core.runtime.node import Device
from core.runtime.node import Node as NodeLimits
from core.runtime.ports import NewTask, SandboxPhase, SandboxState, TaskPhase
from core.runtime.resourcing import resources as oci_resources
from core.runtime.spec import User, build
from core.snapshots.ports import SnapshotExists, SnapshotMissing
from core.transfer.ports import ImageConfig
from core.values import dataclass
from reconciler.decide import compose
from reconciler.decide.facts import StopAsked
from reconciler.engine import modules
from reconciler.engine.cdi_files import edits_of
from reconciler.engine.confining import apparmor_profile, check_allowed, seccomp_profile
from reconciler.engine.observe import Eyes
from reconciler.model.actions import DeleteTask, PrepareTask, RunHook, SignalTask
from reconciler.model.identity import Key, Kind, RuntimeId
from reconciler.model.kinds.base import Resources
from reconciler.model.kinds.container import ContainerSpec, Log
from reconciler.model.kinds.hooks import PRE_STOP
from reconciler.model.kinds.secret import SecretSpec

_SMALL_LOG: Final = 512
_DAM: Final = 64 << 20
"""Bytes of log that may come between two looks at it, before the monitor throws away what it has."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What is to be run, where, as whom (as the manifest or the image names the user)."""

    args: list[str]
    env: list[str]
    cwd: str
    user: str


class TaskHands:
    """Prepares, signals and removes tasks. `attempts`: two folders, on disk and in memory; `facts`: of the node."""

    def __init__(
        self, eyes: Eyes, limits: NodeLimits, clock: Clock, attempts: tuple[Path, Path], facts: Mapping[str, str]
    ) -> None:
        self._eyes = eyes
        self._limits = limits
        self._clock = clock
        self._on_disk, self._in_memory = attempts
        self._facts = facts
        self._looked: dict[tuple[str, ...], User] = {}

    def configure(self, facts: Mapping[str, str]) -> None:
        """Give these facts of the node to what is prepared from now on."""
        self._facts = facts

    def prepare(self, action: PrepareTask) -> None:
        """ABSENT → PREPARED: root, look-ups, mounts, config.json. Raises what is wrong with the manifest or image."""
        node = self._eyes.node
        self._eyes.note_task(action.id, there=True)
        if node.runtimes.shim(action.id).state(action.id).phase is not TaskPhase.ABSENT:
            return
        spec = ContainerSpec.model_validate(action.spec)
        check_allowed(spec.security, allow_privileged=node.allow_privileged)
        config = ImageConfig.from_json(dict(action.image["config"]))
        sandbox = self._sandbox(action.sandbox)
        secrets = {name: self._secret(name) for name in _secret_names(spec)}
        env = compose.environment(spec, config, secrets, self._facts)
        args = compose.command(spec, config)
        cwd = compose.working_dir(spec, config)
        line = CommandLine(args, env, cwd, spec.user or config.user)
        is_module = node.runtimes.of_sandbox(action.sandbox).is_for_modules
        root = (self._module_root if is_module else self._root)(action)
        user = modules.user_of(line.user) if is_module else self._look(action, config, line, root)
        places = self._places(action.id, spec, config, secrets, user)
        self._fill(spec, places, () if is_module else root)
        wanted = compose.wanted_task(action.id, spec, args, env, cwd, user, places, sandbox)
        built = build(wanted, self._limits)
        node.runtimes.prepare(
            NewTask(
                id=action.id,
                spec=built.spec,
                rootfs=root,
                log=node.logs / action.key.name / f"{action.id}.log",
                object=self._object(action),
                sandbox=action.sandbox,
                terminal=spec.tty,
                stdin=spec.stdin,
                image=str(action.image["chain"]),
                log_limit=max(4 * spec.log.max_size, _DAM),
            )
        )

    def _object(self, action: PrepareTask) -> Mapping[str, Any]:
        """What a lost store is refilled from; secrets are named in it, never held."""
        obj = self._eyes.store.get(action.key)
        if obj is None:
            raise NotFound(f"{action.key} is gone")
        return {
            "kind": obj.kind.value,
            "name": obj.name,
            "uid": obj.uid,
            "manager": obj.manager,
            "labels": dict(obj.labels),
            "spec": dict(action.spec),
            "record": dict(obj.record),
        }

    def _sandbox(self, id: str) -> SandboxState:
        state = self._eyes.node.runtimes.sandboxer(id).status(id)
        if state.phase is not SandboxPhase.READY:
            raise Unavailable(f"sandbox {id} is {state.phase}")
        return state

    def _secret(self, name: str) -> Mapping[str, bytes]:
        obj = self._eyes.store.get(Key(Kind.SECRET, name))
        if obj is None:
            raise NotFound(f"secret/{name} is not there", advice=f"Apply a Secret named {name}.")
        return SecretSpec.model_validate(obj.spec).contents()

    def _root(self, action: PrepareTask) -> tuple[MountSpec, ...]:
        snapshotter = self._eyes.node.snapshotters[str(action.image["driver"])]
        try:
            return snapshotter.prepare(action.id, str(action.image["chain"]))
        except SnapshotExists:
            return snapshotter.mounts(action.id)

    def _module_root(self, action: PrepareTask) -> tuple[MountSpec, ...]:
        """Where a module is read from, once: nothing has to be mounted for an image of one layer."""
        snapshotter = self._eyes.node.snapshotters[str(action.image["driver"])]
        return modules.files_of(snapshotter, str(action.image["chain"])) or self._root(action)

    def _look(self, action: PrepareTask, config: ImageConfig, line: CommandLine, root: tuple[MountSpec, ...]) -> User:
        """The user's numbers, once the command is known to be there. What an image holds never changes: remembered."""
        path = next((pair for pair in line.env if pair.startswith("PATH=")), "")
        known = (str(action.image["chain"]), line.user, line.args[0], path, line.cwd)
        if known not in self._looked or config.volumes:
            with self._mounted(root) as top, rootfs.opened(top) as fd:
                user = rootfs.resolve_user(fd, line.user)
                rootfs.find_command(fd, line.args[0], line.env, line.cwd)
            self._looked[known] = user
        return self._looked[known]

    @contextlib.contextmanager
    def _mounted(self, root: tuple[MountSpec, ...]) -> Iterator[Path]:
        """The root, for a look before the task's bundle is made."""
        with fsio.staging(fsio.make_private(self._in_memory), "look") as work:
            mounts.attach(root, work)
            try:
                yield work
            finally:
                mounts.detach(work)

    def _places(
        self, id: str, spec: ContainerSpec, config: ImageConfig, secrets: compose.Secrets, user: User
    ) -> compose.Places:
        memory = self._in_memory / id
        files: dict[int, str] = {}
        held: dict[str, str] = {}
        for name in dict.fromkeys(mount.secret for mount in spec.mounts if mount.secret is not None):
            held[name] = str(_write_secret(memory / "secrets" / name, secrets[name], user))
        for index, mount in enumerate(spec.mounts):
            if mount.file is not None:
                files[index] = str(_write_file(memory / "files" / str(index), mount.content()))
            elif mount.bind is not None:
                _check_bind(mount.bind.source, create=mount.bind.create)
        anonymous = {path: str(self._on_disk / id / f"volume-{n}") for n, path in enumerate(config.volumes)}
        volumes = {name: str(self._eyes.node.volumes / name) for name in _volume_names(spec)}
        init = find("catatonit") if spec.init else ""
        cdi = edits_of(spec.security.cdi_devices, self._eyes.node.cdi)
        devices = [*(Device.at(path) for path in spec.security.device_nodes), *cdi.devices]
        apparmor = apparmor_profile(spec.security, self._eyes.node.apparmor)
        profile = seccomp_profile(spec.security)
        return compose.Places(volumes, held, files, anonymous, init, devices, profile, cdi, apparmor)

    def _fill(self, spec: ContainerSpec, places: compose.Places, root: tuple[MountSpec, ...]) -> None:
        """Give volumes that are empty what the image has at their path; nothing of an image without a `root`."""
        wanted = [(mount.path, Path(places.volumes[mount.volume])) for mount in spec.mounts if mount.volume is not None]
        wanted += [(path, Path(folder)) for path, folder in places.anonymous.items()]
        for _, folder in wanted:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        empty = [(path, folder) for path, folder in wanted if self._takes_over(folder)]
        if empty and root:
            with self._mounted(root) as top, rootfs.opened(top) as fd:
                for path, folder in empty:
                    rootfs.copy_up(fd, path, folder)

    def _takes_over(self, folder: Path) -> bool:
        """An empty folder that its Volume gave neither owner nor mode."""
        if any(os.scandir(folder)):
            return False
        obj = self._eyes.store.get(Key(Kind.VOLUME, folder.name)) if folder.parent == self._eyes.node.volumes else None
        return obj is None or not {"owner", "mode"} & obj.spec.keys()

    def hook(self, action: RunHook) -> None:
        """Begin to run a hook; with preStop the grace begins."""
        if action.role == PRE_STOP:
            self._eyes.note_stop(action.id, StopAsked(self._clock.monotonic(), hooking=True))
        self._eyes.hooks.start(action.key, action.id, action.role, action.args, action.timeout)

    def signal(self, action: SignalTask) -> None:
        """Ask it to end, and remember when."""
        self._eyes.node.runtimes.shim(action.id).kill(action.id, action.signal, everyone=action.everyone)
        now = self._clock.monotonic()
        before = self._eyes.stop_asked(action.id)
        first = before is None or before.hooking  # a hook that went before has its part of the grace
        asked = StopAsked(before.asked if before else now, None if first else now)
        self._eyes.note_stop(action.id, asked)

    def delete(self, action: DeleteTask) -> None:
        """Any phase → ABSENT, what was made beside it, and last its root: by that a next engine finds what is left."""
        node = self._eyes.node
        node.runtimes.delete(action.id)
        fsio.remove_tree(self._in_memory / action.id)
        fsio.remove_tree(self._on_disk / action.id)
        for snapshotter in node.snapshotters.values():
            with contextlib.suppress(SnapshotMissing):  # the other driver's, or gone with an earlier try
                snapshotter.remove(action.id)
        if not action.keep_log:
            for path in (node.logs / action.key.name).glob(f"{action.id}.log*"):
                path.unlink(missing_ok=True)
        self._drop_old_logs(action)
        self._eyes.note_task(action.id, there=False)

    def _drop_old_logs(self, action: DeleteTask) -> None:
        """Keep the logs of the newest two attempts."""
        folder = self._eyes.node.logs / action.key.name
        found: dict[int, list[Path]] = {}
        for path in folder.glob("*.log*"):
            known = RuntimeId.parse(path.name.partition(".log")[0])
            if known is not None:
                found.setdefault(known.attempt, []).append(path)
        for attempt in sorted(found)[:-2]:
            for path in found[attempt]:
                path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove look-ups that a killed engine left mounted."""
        for work in self._in_memory.glob(f"{fsio.STAGING}*"):
            mounts.detach_below(work)
        fsio.sweep_staging(self._in_memory)

    def rotate_logs(self) -> None:
        """Rotate every log that has grown over its container's size."""
        runtimes = self._eyes.node.runtimes
        for id in runtimes.tasks():
            known = RuntimeId.parse(id)
            path = self._eyes.node.logs / (known.name if known is not None else "") / f"{id}.log"
            if known is None or _is_small(path):
                continue
            obj = self._eyes.store.get(Key(Kind.CONTAINER, known.name))
            if obj is not None:
                log = Log.model_validate(obj.spec.get("log", {}))
                logs.rotate(path, partial(runtimes.shim(id).reopen_log, id), max_size=log.max_size, keep=log.files)

    def update(self, id: str, raw: Mapping[str, Any]) -> None:
        """New limits for a running task."""
        limits = oci_resources(compose.resources(Resources.model_validate(raw)), self._limits)
        self._eyes.node.runtimes.of_task(id).shim.update(id, limits)


def _is_small(log: Path) -> bool:
    """Whether no limit can be reached; a log that lacks its name is being rotated, and is not small."""
    try:
        return os.stat(log).st_size < _SMALL_LOG
    except FileNotFoundError:
        return False


def _secret_names(spec: ContainerSpec) -> list[str]:
    mounted = [mount.secret for mount in spec.mounts if mount.secret is not None]
    taken = [v.value_from.secret.name for v in spec.env if v.value_from is not None and v.value_from.secret is not None]
    return list(dict.fromkeys([*mounted, *taken]))


def _volume_names(spec: ContainerSpec) -> list[str]:
    return [mount.volume for mount in spec.mounts if mount.volume is not None]


def _write_secret(folder: Path, data: Mapping[str, bytes], user: User) -> Path:
    """One file a key, 0400, for the container's user alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, value in data.items():
        fsio.write_atomic(folder / name, value, mode=0o400, durable=False)
        os.chown(folder / name, user.uid, user.gid)
    os.chown(folder, user.uid, user.gid)
    return folder


def _write_file(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fsio.write_atomic(path, data, mode=0o644, durable=False)
    return path


def _check_bind(source: str, *, create: bool) -> None:
    if create:
        Path(source).mkdir(parents=True, exist_ok=True)
    elif not os.path.lexists(source):
        raise NotFound(f"bind source {source} is not on this node", advice="Make it, or set bind.create: true.")
