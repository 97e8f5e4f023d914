"""The node that a command is about: where its folders are, and its store."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Final

import click

from core.clock import Clock, SystemClock
from core.errors import NotFound
from core.values import dataclass
from reconciler.model.identity import Key, Kind, checked_name, kind_of
from reconciler.model.objects import Object
from reconciler.store.port import ObjectStore

if TYPE_CHECKING:
    from reconciler.model.config import Config
    from reconciler.places import Paths


DEFAULT_CONFIG: Final = ("/etc/reconciler/config.yaml", "/etc/reconciler/conf.d")
"""Said here too, as commands that find none must not import what reads one."""


@dataclass
class Node:
    """What `--root`, `--state` and `--config` mean; None: the configuration's, or the defaults of this user."""

    root: str | None = None
    state: str | None = None
    config_file: str | None = None
    _config: Config | None = None

    @cached_property
    def paths(self) -> Paths:
        """The node's folders; nothing is made."""
        from reconciler.places import resolve_paths

        if (self.root and self.state) or not (self.config_file or any(map(os.path.exists, DEFAULT_CONFIG))):
            return resolve_paths(self.root, self.state)
        config = self.config()
        return resolve_paths(self.root or config.root, self.state or config.state)

    def config(self) -> Config:
        """The configuration in force, read when it is first asked for; raises `BadConfig`, `NotFound`."""
        from reconciler.config import config_file, load_config

        if self._config is None:
            self._config = load_config(config_file(self.config_file))
        return self._config

    def engine_config(self) -> Config:
        """The same for an engine in this process: what a file of an older version says beside is staged for it."""
        from reconciler.config import config_file, load, staged

        return staged(load(config_file(self.config_file)), self.paths.state).config

    @cached_property
    def clock(self) -> Clock:
        """The machine's clock."""
        return SystemClock()

    def store(self) -> ObjectStore | None:
        """The store to read; None where none exists yet, and reading makes none."""
        from reconciler.wiring import open_store

        return open_store(self.paths, create=False)

    def store_to_write(self) -> ObjectStore:
        """The store, made when it is not there."""
        from reconciler.wiring import open_store

        store = open_store(self.paths, create=True)
        assert store is not None, "it was to be made"
        return store

    def wanted(self, key: Key) -> Object:
        """The object of `key`; raises `NotFound`."""
        store = self.store()
        found = None if store is None else store.get(key)
        if found is None:
            raise NotFound(f"there is no {key}", advice=f"List what is there: reconciler get {key.kind.value.lower()}")
        return found


pass_node = click.make_pass_decorator(Node, ensure=True)


def key_from(kind: str, name: str | None) -> Key:
    """The key in `KIND NAME` or `KIND/NAME`; raises `Invalid`, or a usage error when there is no name."""
    if name is None:
        if "/" not in kind:
            raise click.UsageError("Missing argument 'NAME'.")
        return Key.parse(kind)
    return Key(kind_of(kind), checked_name(name))


def container_key(text: str) -> Key:
    """The key of a container that was named `web` or `container/web`."""
    return Key.parse(text) if "/" in text else Key(Kind.CONTAINER, checked_name(text))
