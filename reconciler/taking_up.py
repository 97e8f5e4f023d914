"""A configuration taken up by an engine that runs: each part gets what it was built with, anew.

Rules of this file: what runs is not touched; what is begun from now on follows. Taking up the same twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.runtime.drivers import all_runtimes
from core.values import dataclass
from reconciler.controllers.source import SourceController
from reconciler.engine.engine import Engine
from reconciler.engine.observe import Node
from reconciler.engine.remotes import Remotes
from reconciler.engine.sources import SourceHands, Ways
from reconciler.engine.tasks import TaskHands
from reconciler.model.config import Config
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.model.settings import plain, without_passwords
from reconciler.store.functions import ENGINE
from reconciler.store.port import ObjectStore, Put, Remove
from reconciler.store.revisions import Revisions
from reconciler.translation import facts_of, node_name, runtime_specs, transfer_settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What in an engine was built from the configuration. `collect` sets how often is collected."""

    node: Node
    remotes: Remotes
    tasks: TaskHands
    sources: SourceHands
    revisions: Revisions
    reader: SourceController
    engine: Engine
    ways: Callable[[Config], Ways]
    collect: Callable[[float], None]

    def take_up(self, config: Config) -> None:
        """Work by `config` from now on, and try at once what had failed."""
        facts = facts_of(config)
        self.remotes.configure(transfer_settings(config.transfer))
        self.node.runtimes.configure(all_runtimes(runtime_specs(config)))
        self.node.default_runtime = config.default_runtime
        self.node.default_snapshotter = config.snapshots.default
        self.node.allow_privileged = config.policy.allow_privileged
        self.node.cdi = tuple(map(Path, config.policy.cdi))
        self.node.networks.configure(Path(config.network.lists), config.network.plugins)
        self.tasks.configure(facts)
        self.sources.configure(self.ways(config))
        self.reader.configure(config, facts)
        self.revisions.keep = config.gc.keep_revisions
        self.collect(config.gc.interval)
        name_node(self.engine.store, Key(Kind.NODE, node_name(config)), config)
        self.engine.reconsider()


def name_node(store: ObjectStore, key: Key, config: Config) -> None:
    """Have the one Node object, with the configuration in force and the labels that it gives; another name's goes."""
    for obj in store.list(Kind.NODE):
        if obj.key != key:
            store.commit([Remove(obj.key, obj.version)])
    found = store.get(key) or Object(key, manager=ENGINE)
    spec = {"config": without_passwords(plain(config))}
    store.commit([Put(replace(found, labels=config.node.labels, spec=spec), found.version)])
