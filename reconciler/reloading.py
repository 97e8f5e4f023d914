"""A configuration read again while the engine runs: when told to, or when its files have changed.

Rules of this file: a configuration is taken up whole or refused whole; what was in force stays. Files are looked at,
not watched; two looks must find them the same, so that nothing half-written is read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from core.clock import Clock
from core.errors import AgentError, from_os_error
from core.values import dataclass
from reconciler.config import Loaded, Signature
from reconciler.decide.configuring import compare, told
from reconciler.engine.standing import Standing
from reconciler.model.config import Config
from reconciler.model.identity import Key, Kind
from reconciler.store.port import Event, ObjectStore
from reconciler.translation import node_name

LOOK_SECONDS: Final = 2.0
RELOADED: Final = "ConfigReloaded"
INVALID: Final = "ConfigInvalid"
MIGRATED: Final = "ConfigMigrated"
_log: Final = logging.getLogger(__name__)


class Files(Protocol):
    """Where the configuration comes from."""

    def load(self) -> Loaded:
        """Read it; raises `AgentError`."""

    def signature(self) -> Signature:
        """Changes with the files."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What is told of a new configuration: `take_up` has it work by it, `look` has it look at the node anew."""

    store: ObjectStore
    standing: Standing
    take_up: Callable[[Config], None]
    look: Callable[[Key], None]


class Reloader:
    """Reads anew. `seen`: the signature before the configuration in force was read. May be called from any thread."""

    def __init__(self, files: Files, engine: Engine, config: Config, seen: Signature, clock: Clock) -> None:
        self._files = files
        self._engine = engine
        self._config = config
        self._read = self._last = seen
        self._clock = clock
        self._lock = threading.Lock()

    def look(self) -> None:
        """Read it when its files have changed since and are at rest; called every two seconds."""
        seen = self._files.signature()
        before, self._last = self._last, seen
        if seen == before and seen != self._read:
            self.reload()

    def reload(self) -> None:
        """Read it now, and take it up or refuse it."""
        with self._lock:
            self._read = self._files.signature()
            try:
                loaded = self._files.load()
            except AgentError as error:
                self._refuse(error)
            except OSError as error:
                self._refuse(from_os_error(error, "reading the configuration"))
            else:
                self._take_up(loaded)
            self._engine.look(self._node)

    def tell_steps(self, steps: tuple[str, ...]) -> None:
        """Say what became of each key of files of version 1; nothing when those are the steps that were said last."""
        standing = self._engine.standing
        if steps and steps != standing.steps:
            for step in steps:
                _log.warning("configuration of version 1: %s", step)
            told = "a configuration of version 1 was brought to version 2 in memory, for now; have it written: "
            dropped = [step for step in steps if " is dropped" in step]
            self._tell("Warning" if dropped else "Normal", MIGRATED, f"{told}reconciler config migrate FILE --write")
            for step in dropped:
                self._tell("Warning", MIGRATED, step)
        standing.steps = steps

    @property
    def _node(self) -> Key:
        return Key(Kind.NODE, node_name(self._config))

    def _refuse(self, error: AgentError) -> None:
        self._engine.standing.problem = error.message
        _log.warning("the configuration is refused, the last good one stays in force: %s", error.message)
        self._tell("Warning", INVALID, error.message)

    def _take_up(self, loaded: Loaded) -> None:
        self.tell_steps(loaded.steps)
        change = compare(self._config, loaded.config)
        standing = self._engine.standing
        was_waiting, mended = standing.waiting, bool(standing.problem)
        self._config = change.in_force
        standing.files, standing.since = tuple(map(str, loaded.files)), self._clock.wall()
        standing.problem, standing.waiting = "", change.waiting
        if change.taken_up:
            self._engine.take_up(change.in_force)
        level = logging.WARNING if change.waiting else logging.INFO
        _log.log(level, "the configuration was read: %s", told(change))
        if change.taken_up or change.waiting != was_waiting or mended:
            self._tell("Normal", RELOADED, told(change))

    def _tell(self, type_: str, reason: str, message: str) -> None:
        wall = self._clock.wall()
        self._engine.store.add_event(Event(0, self._node, type_, reason, message, wall, wall))
