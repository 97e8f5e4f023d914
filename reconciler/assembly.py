"""The engine, put together by hand from literal tables: drivers, eyes, hands, controllers, queue, threads."""

from __future__ import annotations

import contextlib
import os
import random
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core import cgroups, fsio, proc
from core.clock import Clock
from core.content.scrub import Scrubber
from core.content.store import ContentStore
from core.errors import AgentError
from core.network.cni import Cni
from core.network.own import Bridge
from core.process import Launcher
from core.runtime.apparmor import AppArmor
from core.runtime.drivers import Ground, build_table
from core.runtime.node import read_node
from core.runtime.probing import PROBES, Prober, told
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.native import NativeSnapshotter
from core.snapshots.overlay import OverlaySnapshotter
from core.transfer import platform
from core.transfer.ports import Unpacker
from core.values import dataclass
from reconciler.controllers.container import ContainerController
from reconciler.controllers.node import NodeController
from reconciler.controllers.others import (
    ImageController,
    PlainController,
    SandboxController,
    SnapshotController,
    VolumeController,
)
from reconciler.controllers.source import RevisionController, SourceController
from reconciler.engine import recovery, telling
from reconciler.engine.backoff import Backoff
from reconciler.engine.cgroup_home import CgroupHome
from reconciler.engine.checkpoints import CheckpointHands
from reconciler.engine.collecting import COLLECT, Collector
from reconciler.engine.controller import register
from reconciler.engine.engine import Engine
from reconciler.engine.exits import Exits
from reconciler.engine.health_checks import HealthChecks, asker
from reconciler.engine.hooks import Hooks, runner
from reconciler.engine.images import ImageHands
from reconciler.engine.index import Index
from reconciler.engine.lanes import Lanes
from reconciler.engine.life import Life
from reconciler.engine.networks import CniNetworks, Networks
from reconciler.engine.observe import Eyes, Node, disk_of
from reconciler.engine.perform import Crew, NodeHands
from reconciler.engine.queue import WorkQueue
from reconciler.engine.remotes import Remotes
from reconciler.engine.repairing import REPAIR, Repairer
from reconciler.engine.requests import Requests
from reconciler.engine.scope import Scope
from reconciler.engine.sources import SourceHands, Ways
from reconciler.engine.standing import Standing
from reconciler.engine.tasks import TaskHands
from reconciler.engine.watcher import Watcher
from reconciler.engine.workers import Workers
from reconciler.model.config import Config
from reconciler.model.identity import Key, Kind, RuntimeId
from reconciler.model.objects import ORPHAN
from reconciler.places import Paths
from reconciler.store.functions import members, sweep
from reconciler.store.port import ObjectStore
from reconciler.store.revisions import Revisions
from reconciler.taking_up import Parts, name_node
from reconciler.translation import facts_of, node_name, runtime_specs, source_ways, transfer_settings

if TYPE_CHECKING:
    from reconciler.engine.timetable import Timetable

SNAPSHOTTERS: Final[Mapping[str, Callable[[Path, Clock, Launcher], FolderSnapshotter]]] = {
    "overlayfs": lambda root, clock, _: OverlaySnapshotter(root, clock),
    "native": NativeSnapshotter,
}
WORKERS: Final = (4, 16)
"""Threads for what takes moments, and for what may take minutes (pulling an image)."""
FEW_FILES: Final = 256
"""With a lower limit of open files there is one of each: a thread has up to nine for its connections."""


SCRUB_SECONDS: Final = 20.0
NETWORKS_SECONDS: Final = 120.0
SCRUB_BYTES: Final = 4 << 20
"""How often how much of the blobs is read again: 17 GB a day, for a thousandth of a core."""


@dataclass(frozen=True, slots=True)
class Options:
    """What differs between an agent, which is `resident` and follows what others write, and a one-shot."""

    scope: Scope
    resident: bool
    pause: Callable[[float], object] | None
    """Waits for a ring at the doorbell: for what is resident."""
    stopping: Callable[[], bool]
    supervised: bool
    config: Config = field(default_factory=Config.model_construct)
    standing: Standing = field(default_factory=Standing)
    fetches: bool = False
    """Whether Sources are fetched: by an agent, also one that ends when all is done."""


def build_life(paths: Paths, store: ObjectStore, clock: Clock, options: Options) -> Life:
    """Everything, built once, not started; ends what a dead engine left running (the lock is held already)."""
    for folder in (paths.root, paths.state, paths.logs, paths.volumes, *paths.attempts):
        fsio.make_private(folder)
    home = CgroupHome(cgroups.hierarchies().tracking, paths.instance, clock)
    launcher = home.enter()
    boot = proc.boot_id()
    snapshotters = {name: make(paths.snapshots / name, clock, launcher) for name, make in SNAPSHOTTERS.items()}
    for driver in snapshotters.values():
        if driver.lost:
            recovery.say(store, Key(Kind.NODE, node_name(options.config)), "LedgerRebuilt", driver.lost, clock.wall())
    ground = Ground(paths.state, paths.group, launcher, clock, boot, paths.root)
    node = Node(
        runtimes=build_table(ground, runtime_specs(options.config)),
        networks=build_networks(paths, launcher, boot, options.config),
        snapshotters=snapshotters,
        content=ContentStore(paths.content),
        volumes=paths.volumes,
        logs=paths.logs,
        boot=boot,
        platform=str(platform.of_node()),
        default_runtime=options.config.default_runtime,
        default_snapshotter=options.config.snapshots.default,
        cdi=tuple(map(Path, options.config.policy.cdi)),
        allow_privileged=options.config.policy.allow_privileged,
        prober=Prober(launcher, cgroups.hierarchies(), paths.state / PROBES),
        apparmor=AppArmor(launcher, paths.instance, paths.state / "bundles"),
    )
    unpackers = {name: partial(_unpacker, driver, launcher) for name, driver in snapshotters.items()}
    remotes = Remotes(transfer_settings(options.config.transfer), launcher, clock, os.environ)
    ways = partial(source_ways, paths, store, launcher)

    def checkpoints(eyes: Eyes) -> CheckpointHands:
        return CheckpointHands(eyes, snapshotters, launcher, paths.checkpoints)

    return _assemble(paths, store, clock, options, node, home, _Coming(unpackers, remotes, ways, checkpoints))


@dataclass(frozen=True, slots=True)
class _Coming:
    """How images come and what they are unpacked by, how Sources are read, how attempts go on from checkpoints."""

    unpackers: Mapping[str, Callable[[], Unpacker]]
    remotes: Remotes
    ways: Callable[[Config], Ways]
    checkpoints: Callable[[Eyes], CheckpointHands]


def _assemble(
    paths: Paths,
    store: ObjectStore,
    clock: Clock,
    options: Options,
    node: Node,
    home: CgroupHome,
    coming: _Coming,
) -> Life:
    lanes, queue = _lanes(store, clock, options)
    telling.watch(store, queue, paths.root)
    exits = Exits(queue.add, node.boot)
    checks = HealthChecks(asker(node.runtimes, node.boot), queue.add, clock)
    eyes = Eyes(store, node, exits, checks, Hooks(runner(node.runtimes), queue.add))
    index, late = Index(), _Late()
    limits = read_node()
    images = ImageHands(eyes, coming.unpackers, coming.remotes, clock, late.tell, options.stopping)
    tasks = TaskHands(eyes, limits, clock, paths.attempts, facts_of(options.config))
    revisions = Revisions(paths.root, store, options.config.gc.keep_revisions)
    sources = SourceHands(store, revisions, coming.ways(options.config), clock)
    crew = Crew(tasks, images, sources, coming.checkpoints(eyes))
    hands = NodeHands(eyes, crew, limits, clock, paths.root)
    told_node = facts_of(options.config)
    reader = SourceController(store, sources.memories, options.config, told_node, fetches=options.fetches)
    controllers = (
        ContainerController(eyes, index.owned_by),
        ImageController(eyes, index.users),
        SandboxController(eyes, index.users),
        SnapshotController(eyes),
        VolumeController(eyes, index.users),
        PlainController(Kind.SECRET, dict),
        NodeController(
            lambda: _node_fields(node, store, eyes, options),
            lambda: disk_of(paths.root),
            lambda: recovery.notice(paths, store, clock.wall()),
            options.standing,
        ),
        reader,
        RevisionController(store),
    )
    engine = Engine(store, register(controllers), hands, queue, clock, index)
    late.engine = engine
    workers = _workers(engine, lanes, clock)
    collector = Collector(eyes, clock)
    mender = Repairer(eyes, queue.add, clock)
    requests = Requests(store, {COLLECT: collector.operate, REPAIR: mender.operate}, clock, options.stopping)
    timetable = watcher = None
    if options.resident:
        timetable = _timetable(clock)
        _collect_every(timetable, collector, options.config.gc.interval)
        timetable.every("scrub", SCRUB_SECONDS, 0.1, partial(_scrub, Scrubber(node.content), store, queue))
        timetable.every("networks", NETWORKS_SECONDS, 0.1, partial(_inspect, node.networks, queue))
        watcher = Watcher(store, engine.woken, _rung(options.pause, requests))
    sweeps = _sweeps(paths, node, crew)
    collect = partial(_collect_every, timetable, collector)
    parts = Parts(node, coming.remotes, tasks, sources, revisions, reader, engine, coming.ways, collect)
    regularly = partial(_each_in_turn, tasks.rotate_logs, partial(sources.watch, queue.add))
    return Life(
        engine, eyes, home, exits, checks, watcher, workers, sweeps, regularly, requests, timetable, parts.take_up
    )


def _lanes(store: ObjectStore, clock: Clock, options: Options) -> tuple[tuple[WorkQueue, WorkQueue], Lanes]:
    def rested() -> None:
        """Have who waits for us see at once that all is done, not only when statuses are written anyway."""
        if queue.idle():
            with contextlib.suppress(AgentError):  # a full disk: the statuses stay in the buffer, and come later
                store.flush(rest=True)

    quick, slow = (WorkQueue(clock, options.scope.accepts, lane, rested) for lane in ("quick", "slow"))
    queue = Lanes(quick, slow, (Kind.IMAGE, Kind.SOURCE), clock)
    return (quick, slow), queue


def _sweeps(paths: Paths, node: Node, crew: Crew) -> tuple[Callable[[], object], ...]:
    """What removes half-made things."""
    return (
        partial(fsio.sweep_staging, paths.root),  # a store that was never made
        partial(fsio.sweep_staging, paths.volumes),
        partial(fsio.sweep_staging, paths.state),
        node.runtimes.sweep,
        lambda: node.networks.sweep(frozenset(node.runtimes.sandboxes())),
        *(driver.sweep for driver in node.snapshotters.values()),
        crew.tasks.sweep,
        crew.sources.sweep,
        crew.checkpoints.sweep,
    )


def _timetable(clock: Clock) -> Timetable:
    from reconciler.engine.timetable import Timetable  # only who stays pays for it

    return Timetable(clock)


def _collect_every(timetable: Timetable | None, collector: Collector, interval: float) -> None:
    if timetable is not None:
        timetable.every("collect", interval, 0.1 * interval, collector.by_timetable)


def _workers(engine: Engine, lanes: Sequence[WorkQueue], clock: Clock) -> list[Workers]:
    backoff = Backoff(clock, random.random)
    return [
        Workers(lane, engine.work, engine.failed, backoff, clock, count)
        for lane, count in zip(lanes, _worker_counts(), strict=True)
    ]


def _each_in_turn(*jobs: Callable[[], None]) -> None:
    for job in jobs:
        job()


def _worker_counts() -> tuple[int, int]:
    return WORKERS if resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= FEW_FILES else (1, 1)


def _scrub(scrubber: Scrubber, store: ObjectStore, queue: Lanes) -> None:
    """Read on in the blobs; an image whose blob was wrong is looked at, and fetches it again."""
    wrong = {str(digest) for digest in scrubber.step(SCRUB_BYTES)}
    for obj in store.list(Kind.IMAGE) if wrong else ():
        if wrong & set(obj.record.get("blobs", ())):
            queue.add(obj.key)


def _inspect(networks: Networks, queue: Lanes) -> None:
    """Look at a network; a sandbox whose network was amiss is looked at, and attached anew."""
    for known in filter(None, map(RuntimeId.parse, networks.inspect())):
        queue.add(Key(Kind.SANDBOX, known.name))


def _rung(pause: Callable[[float], object] | None, requests: Requests) -> Callable[[float], object] | None:
    """`pause`, after which requests are looked at when the doorbell was rung."""
    if pause is None:
        return None

    def waited(seconds: float) -> object:
        if rung := pause(seconds):
            requests.look()
        return rung

    return waited


def build_networks(paths: Paths, launcher: Launcher, boot: str, config: Config) -> CniNetworks:
    """The networks of sandboxes, as an engine has them."""
    own = Bridge(paths.state / "network", launcher, paths.instance)
    cni = Cni(paths.state / "network" / "entries", launcher, boot, paths.instance, config.network.plugins)
    return CniNetworks(cni, own, Path(config.network.lists), paths.state / "network")


def _unpacker(driver: FolderSnapshotter, launcher: Launcher) -> Unpacker:
    from core.snapshots.unpack import LayerUnpacker  # only who pulls pays for it

    return LayerUnpacker(driver, launcher)


class _Late:  # the hands tell of progress through the engine, and the engine has hands
    """Lets the hands tell of progress through an engine that is made after them."""

    engine: Engine | None = None

    def tell(self, key: Key) -> None:
        if self.engine is not None:
            self.engine.refresh_status(key)


def _node_fields(node: Node, store: ObjectStore, eyes: Eyes, options: Options) -> Mapping[str, Any]:
    orphans = [obj.name for obj in members(store, ORPHAN)]
    return {
        "bootId": node.boot,
        "platform": node.platform,
        "supervised": options.supervised,
        "orphans": orphans,
        "runtimes": {spec.name: told(spec, node.prober.probe(spec)) for spec in node.runtimes.specs},
        "defaultRuntime": node.default_runtime,
    }


def prepare_store(paths: Paths, store: ObjectStore, clock: Clock, config: Config) -> None:
    """Before the first look: bring back what was lost, name the node, finish removals."""
    node = Key(Kind.NODE, node_name(config))
    recovery.fill(paths, store, clock.wall(), node)
    sweep(store, clock.wall())
    name_node(store, node, config)
