"""Hands: every action, by one exhaustive match. Decides nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import assert_never

from core import fsio
from core.clock import Clock
from core.errors import Invalid, Unsupported
from core.network.own import dns_of_host
from core.runtime.node import Node as NodeLimits
from core.runtime.ports import NewSandbox
from core.runtime.resourcing import resources as oci_resources
from core.values import dataclass
from reconciler.decide import compose
from reconciler.engine.checkpoints import CheckpointHands
from reconciler.engine.images import ImageHands
from reconciler.engine.networks import name_address
from reconciler.engine.observe import Eyes
from reconciler.engine.sources import SourceHands
from reconciler.engine.tasks import TaskHands
from reconciler.model.actions import (
    Action,
    ApplyRevision,
    AskLocal,
    CheckImage,
    CreateTask,
    DeleteTask,
    Disown,
    EnsureOwned,
    FetchSource,
    ForgetImage,
    ForgetSource,
    LayRoot,
    LetGoOfMembers,
    LoadRevision,
    MakeSandbox,
    MakeVolume,
    PrepareTask,
    PullImage,
    Release,
    Remember,
    RemoveChain,
    RemoveLogs,
    RemoveSandbox,
    RemoveVolume,
    RestoreTask,
    ResumeTask,
    RunHook,
    SignalTask,
    StartTask,
    UpdateTask,
)
from reconciler.model.identity import FINALIZERS, Key
from reconciler.model.kinds.sandbox import SandboxSpec
from reconciler.model.modules import network_mode
from reconciler.model.objects import with_local, with_record, without_finalizer
from reconciler.store.applied import keep_applied
from reconciler.store.functions import create_owned, disown, existing, keep_attempts, modify, vanish
from reconciler.store.port import Event


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does what takes more than a few lines."""

    tasks: TaskHands
    images: ImageHands
    sources: SourceHands
    checkpoints: CheckpointHands


class NodeHands:
    """Performs actions on this node and in its store. `root`: where hand-applied specs are kept beside the store."""

    def __init__(
        self,
        eyes: Eyes,
        crew: Crew,
        limits: NodeLimits,
        clock: Clock,
        root: Path,
    ) -> None:
        self._eyes = eyes
        self._tasks = crew.tasks
        self._images = crew.images
        self._sources = crew.sources
        self._checkpoints = crew.checkpoints
        self._limits = limits
        self._clock = clock
        self._root = root

    def perform(self, action: Action) -> None:
        """Do it; raises `AgentError` or `OSError`."""
        match action:
            case Remember() | EnsureOwned() | Disown() | Release() | AskLocal():
                self._record(action)
            case FetchSource() | LoadRevision() | ApplyRevision() | LetGoOfMembers() | ForgetSource():
                self._source(action)
            case PullImage():
                self._images.pull(action)
            case CheckImage():
                self._images.check(action)
            case ForgetImage():
                self._images.forget(action)
            case RemoveChain():
                self._images.remove_chain(action)
            case MakeSandbox():
                self._make_sandbox(action)
            case RemoveSandbox(id):
                self._eyes.node.networks.detach(id)
                self._eyes.node.runtimes.shutdown_sandbox(id)
                self._eyes.note_sandbox(id, there=False)
            case PrepareTask():
                self._tasks.prepare(action)
            case CreateTask(id):
                self._eyes.node.runtimes.of_task(id).shim.create(id)
            case StartTask(key, id):
                self._eyes.node.runtimes.of_task(id).shim.start(id)
                self._tell(key, "Normal", "Started", id)
            case ResumeTask(key, id):
                self._eyes.node.runtimes.of_task(id).shim.resume(id)
                self._tell(key, "Warning", "Resumed", f"{id} stood still: something else had frozen it")
            case LayRoot():
                self._checkpoints.lay(action)
            case RestoreTask(key, id):
                self._checkpoints.restore(action)
                self._tell(key, "Normal", "Restored", f"{id} goes on from checkpoint {action.checkpoint}")
            case RunHook():
                self._tasks.hook(action)
            case SignalTask():
                self._tasks.signal(action)
            case UpdateTask(id, resources):
                self._tasks.update(id, resources)
            case DeleteTask():
                self._tasks.delete(action)
            case RemoveLogs(name):
                fsio.remove_tree(self._eyes.node.logs / name)
            case MakeVolume():
                self._make_volume(action)
            case RemoveVolume(name):
                fsio.remove_tree(self._eyes.node.volumes / name)
            case _:
                assert_never(action)

    def _source(self, action: FetchSource | LoadRevision | ApplyRevision | LetGoOfMembers | ForgetSource) -> None:
        match action:
            case FetchSource():
                self._sources.fetch(action)
            case LoadRevision():
                self._sources.load(action)
            case ApplyRevision():
                self._sources.apply(action)
            case LetGoOfMembers():
                self._sources.let_go_of_members(action)
            case ForgetSource():
                self._sources.forget(action)
            case _:
                assert_never(action)

    def _record(self, action: Remember | EnsureOwned | Disown | Release | AskLocal) -> None:
        store = self._eyes.store
        match action:
            case Remember(key, changes):
                modify(store, key, lambda obj: with_record(obj, changes))
                if action.reason:
                    self._tell(key, "Warning" if action.warning else "Normal", action.reason, action.message)
            case AskLocal(key, changes):
                modify(store, key, lambda obj: with_local(obj, changes))
            case EnsureOwned(owner, wanted):
                create_owned(store, existing(store, owner), wanted)
            case Disown(key, owner):
                disown(store, owner, key, self._clock.wall())
            case Release(key):
                keep_attempts(store, existing(store, key))
                released = modify(store, key, lambda obj: without_finalizer(obj, FINALIZERS[key.kind]))
                vanish(store, released, self._clock.wall())
                keep_applied(self._root, store, [key])
            case _:
                assert_never(action)

    def _tell(self, key: Key, type_: str, reason: str, message: str) -> None:
        wall = self._clock.wall()
        self._eyes.store.add_event(Event(0, key, type_, reason, message, wall, wall))

    def _make_sandbox(self, action: MakeSandbox) -> None:
        spec = SandboxSpec.model_validate(action.spec)
        obj = self._eyes.store.get(action.key)
        runtimes = self._eyes.node.runtimes
        runtime = runtimes.named(spec.runtime)
        self._eyes.note_sandbox(action.id, there=True)
        mode = network_mode(action.spec)
        bridged = mode == "bridge"
        if bridged and runtime.is_for_modules:
            raise Unsupported("a network for modules", advice="Write network: {mode: none}.")
        if spec.vm is not None and not runtime.is_for_machines:
            raise Invalid(
                f"vm, but {spec.runtime} makes no virtual machines", advice="Leave vm out, or choose a runtime."
            )
        made = runtimes.create_sandbox(
            runtime,
            NewSandbox(
                id=action.id,
                object={"kind": action.key.kind.value, "name": action.key.name, "uid": obj.uid if obj else ""},
                network="none" if bridged else mode,
                hostname=spec.hostname or action.key.name,
                dns_servers=spec.dns.servers or (dns_of_host() if bridged else ()),
                dns_searches=spec.dns.searches,
                dns_options=spec.dns.options,
                sysctls=spec.sysctls,
                resources=oci_resources(compose.resources(spec.resources), self._limits),
                share_processes=spec.share_process_namespace,
                own_users=spec.user_namespace.mode == "auto",
                machine={} if spec.vm is None else spec.vm.model_dump(exclude_none=True),
            ),
        )
        if bridged:
            got = self._eyes.node.networks.attach(action.id, made.namespaces["network"], spec.network)
            name_address(Path(made.files["/etc/hosts"]), got.address, spec.hostname or action.key.name)
        runtime.sandboxer.start(action.id)

    def _make_volume(self, action: MakeVolume) -> None:
        """Aside first, then by rename: a folder under its name has its owner and mode."""
        volumes = fsio.make_private(self._eyes.node.volumes)
        with fsio.staging(volumes, action.name) as work:
            if action.owner is not None:
                os.chown(work, *action.owner)
            os.chmod(work, 0o755 if action.mode is None else action.mode)
            if not (volumes / action.name).exists():
                fsio.publish(work, volumes / action.name)
