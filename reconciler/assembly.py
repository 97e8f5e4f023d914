"""The engine, put together by hand from literal tables: drivers, eyes, hands, controllers, queue, threads."""

from __future__ import annotations

import os
import random
import re
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core import cgroups, fsio, proc
from core.clock import Clock
from core.content.scrub import Scrubber
from core.content.store import ContentStore
from core.errors import NotFound
from core.network.cni import Cni
from core.network.own import Bridge
from core.process import Launcher
from core.runtime.drivers import Ground, build_table
from core.runtime.node import read_node
from core.runtime.probing import PROBES, Prober, told
from core.runtime.table import RuntimeSpec
from core.snapshots.driver import FolderSnapshotter
from core.snapshots.native import NativeSnapshotter
from core.snapshots.overlay import OverlaySnapshotter
from core.transfer import platform
from core.transfer.ports import Unpacker
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
from reconciler.decide.references import auth_secret
from reconciler.engine import recovery, telling
from reconciler.engine.backoff import Backoff
from reconciler.engine.cgroup_home import CgroupHome
from reconciler.engine.collecting import COLLECT, Collector
from reconciler.engine.controller import register
from reconciler.engine.engine import Engine
from reconciler.engine.exits import Exits
from reconciler.engine.health_checks import HealthChecks, asker
from reconciler.engine.images import ImageHands
from reconciler.engine.index import Index
from reconciler.engine.lanes import Lanes
from reconciler.engine.life import Life
from reconciler.engine.networks import CniNetworks
from reconciler.engine.observe import Eyes, Node, disk_of
from reconciler.engine.perform import Crew, NodeHands
from reconciler.engine.queue import WorkQueue
from reconciler.engine.remotes import Remotes, TransferSettings
from reconciler.engine.repairing import REPAIR, Repairer
from reconciler.engine.requests import Requests
from reconciler.engine.scope import Scope
from reconciler.engine.sources import SourceHands, Ways
from reconciler.engine.tasks import TaskHands
from reconciler.engine.watcher import Watcher
from reconciler.engine.workers import Workers
from reconciler.model.config import Config, TransferConfig
from reconciler.model.identity import Key, Kind, source_of
from reconciler.model.kinds.secret import SecretSpec
from reconciler.model.kinds.source import SourceSpec
from reconciler.model.objects import ORPHAN, Object
from reconciler.places import Paths
from reconciler.sources.fetchers import git_fetcher
from reconciler.sources.folder import FolderFetcher
from reconciler.sources.git_access import access
from reconciler.sources.repositories import Home, Limits, wanted
from reconciler.sources.revisions import Fetcher
from reconciler.sources.substitution import Variables
from reconciler.store.functions import ENGINE, members, sweep
from reconciler.store.port import ObjectStore, Put, Remove
from reconciler.store.revisions import Revisions

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
    config: Config = field(default_factory=Config)
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
        prober=Prober(launcher, cgroups.hierarchies(), paths.state / PROBES),
    )
    unpackers = {name: partial(_unpacker, driver, launcher) for name, driver in snapshotters.items()}
    remotes = Remotes(transfer_settings(options.config.transfer), launcher, clock, os.environ)
    ways = source_ways(paths, store, options.config, launcher)
    return _assemble(paths, store, clock, options, node, home, _Coming(unpackers, remotes, ways))


@dataclass(frozen=True, slots=True)
class _Coming:
    """How images come and what they are unpacked by, and how Sources are read."""

    unpackers: Mapping[str, Callable[[], Unpacker]]
    remotes: Remotes
    ways: Ways


def transfer_settings(config: TransferConfig) -> TransferSettings:
    """What the configuration says of transfers, for below the wiring."""
    proxy = config.proxy
    return TransferSettings(
        hosts=tuple(map(Path, config.hosts)),
        docker_config=Path(config.docker_config) if config.docker_config is not None else None,
        proxy=(proxy.http, proxy.https, proxy.no_proxy),
        ca=Path(config.ca) if config.ca is not None else None,
        plain=frozenset(config.plain_http),
        parallel=config.parallel,
        keep_free=config.keep_free,
    )


def _assemble(
    paths: Paths,
    store: ObjectStore,
    clock: Clock,
    options: Options,
    node: Node,
    home: CgroupHome,
    coming: _Coming,
) -> Life:
    lanes = WorkQueue(clock, options.scope.accepts), WorkQueue(clock, options.scope.accepts, "slow")
    queue = Lanes(*lanes, (Kind.IMAGE, Kind.SOURCE), clock)
    telling.watch(store, queue, paths.root)
    exits = Exits(queue.add, node.boot)
    checks = HealthChecks(asker(node.runtimes, node.boot), queue.add, clock)
    eyes = Eyes(store, node, exits, checks)
    index = Index()
    limits = read_node()
    late = _Late()
    images = ImageHands(eyes, coming.unpackers, coming.remotes, clock, late.tell, options.stopping)
    tasks = TaskHands(eyes, limits, clock, paths.attempts, _facts_of(options.config))
    sources = SourceHands(store, Revisions(paths.root, store, options.config.gc.keep_revisions), coming.ways, clock)
    hands = NodeHands(eyes, Crew(tasks, images, sources), limits, clock, paths.root)
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
        ),
        SourceController(store, sources.memories, options.config, _facts_of(options.config), fetches=options.fetches),
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
        timetable = _timetable(clock, collector, options.config.gc.interval)
        timetable.every("scrub", SCRUB_SECONDS, 0.1, partial(_scrub, Scrubber(node.content), store, queue))
        watcher = Watcher(store, engine.woken, _rung(options.pause, requests))
    sweeps: tuple[Callable[[], object], ...] = (
        partial(fsio.sweep_staging, paths.root),  # a store that was never made
        partial(fsio.sweep_staging, paths.volumes),
        partial(fsio.sweep_staging, paths.state),
        node.runtimes.sweep,
        lambda: node.networks.sweep(frozenset(node.runtimes.sandboxes())),
        *(driver.sweep for driver in node.snapshotters.values()),
        tasks.sweep,
        sources.sweep,
    )
    regularly = partial(_each_in_turn, tasks.rotate_logs, partial(sources.watch, queue.add))
    return Life(engine, eyes, home, exits, checks, watcher, workers, sweeps, regularly, requests, timetable)


def _timetable(clock: Clock, collector: Collector, interval: float) -> Timetable:
    from reconciler.engine.timetable import Timetable  # only who stays pays for it

    made = Timetable(clock)
    made.every("collect", interval, 0.1 * interval, collector.by_timetable)
    return made


def _workers(engine: Engine, lanes: Sequence[WorkQueue], clock: Clock) -> list[Workers]:
    backoff = Backoff(clock, random.random)
    return [
        Workers(lane, engine.work, engine.failed, backoff, clock, count)
        for lane, count in zip(lanes, _worker_counts(), strict=True)
    ]


def _each_in_turn(*jobs: Callable[[], None]) -> None:
    for job in jobs:
        job()


def source_ways(paths: Paths, store: ObjectStore, config: Config, launcher: Launcher) -> Ways:
    """How Sources are read on this node."""
    git = config.sources.git

    def make(obj: Object, spec: SourceSpec) -> Fetcher:
        if spec.folder is not None:
            return FolderFetcher(Path(spec.folder), spec.path)
        what = wanted(obj.spec["git"], spec.path, allow_file=git.allow_file or source_of(obj.manager) is None)
        home = Home(paths.sources / obj.name, paths.state / "sources" / obj.name)
        shown = access(what.address, git, _login_of(store, auth_secret(obj.spec)))
        return git_fetcher(home, what, shown, launcher, Limits(seconds=git.timeout))

    return Ways(make, paths.sources, Variables(node_name(config), config.node.labels), git.allow_file)


def _login_of(store: ObjectStore, name: str | None) -> Mapping[str, bytes] | None:
    if name is None:
        return None
    secret = store.get(Key(Kind.SECRET, name))
    if secret is None or secret.deleted is not None:
        raise NotFound(f"secret/{name} is not there", advice=f"Apply a Secret named {name}; it is then tried at once.")
    return SecretSpec.model_validate(secret.spec).contents()


def _worker_counts() -> tuple[int, int]:
    return WORKERS if resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= FEW_FILES else (1, 1)


def _scrub(scrubber: Scrubber, store: ObjectStore, queue: Lanes) -> None:
    """Read on in the blobs; an image whose blob was wrong is looked at, and fetches it again."""
    wrong = {str(digest) for digest in scrubber.step(SCRUB_BYTES)}
    for obj in store.list(Kind.IMAGE) if wrong else ():
        if wrong & set(obj.record.get("blobs", ())):
            queue.add(obj.key)


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


def runtime_specs(config: Config) -> tuple[RuntimeSpec, ...]:
    """The runtimes that the configuration adds, or describes otherwise than they are by themselves."""
    return tuple(RuntimeSpec(name, one.sandboxer, one.path or "", one.options) for name, one in config.runtimes.items())


def _facts_of(config: Config) -> Mapping[str, str]:
    """What `valueFrom: {node: …}` may name."""
    return {"name": node_name(config), **{f"labels.{name}": text for name, text in config.node.labels.items()}}


def prepare_store(paths: Paths, store: ObjectStore, clock: Clock, config: Config) -> None:
    """Before the first look: bring back what was lost, name the node, finish removals."""
    node = Key(Kind.NODE, node_name(config))
    recovery.fill(paths, store, clock.wall(), node)
    sweep(store, clock.wall())
    _name_node(store, node, config)


def _name_node(store: ObjectStore, key: Key, config: Config) -> None:
    """Have the one Node object, with the labels that the configuration gives; another name's is removed."""
    for obj in store.list(Kind.NODE):
        if obj.key != key:
            store.commit([Remove(obj.key, obj.version)])
    found = store.get(key) or Object(key, manager=ENGINE)
    store.commit([Put(replace(found, labels=config.node.labels), found.version)])


def node_name(config: Config) -> str:
    """This node's name as an object: the configured one, else its host name in the letters that names have."""
    if config.node.name is not None:
        return config.node.name
    return re.sub(r"[^-a-z0-9.]+", "-", socket.gethostname().lower()).strip("-.")[:63] or "node"
