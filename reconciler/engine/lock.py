"""One engine on a node: the lock, and its hand-over from a one-shot `apply` to the agent.

`engine.lock` is held (flock) by the engine. `engine.next` is held by an agent that wants it: for an instant while it
looks, and for as long as it waits for a one-shot to let go. Both say in JSON who holds them; that is for people and for
who waits, never proof: only the flock is, which the kernel drops with its process. What a file says counts only while
it names a live process; a holder wipes it before it lets go.

Whoever has `engine.lock` then takes the root folder itself (flock): an agent with the same `--root` and another
`--state`, or one that came after somebody removed the lock files, is no second engine either.

Rules of this file: it imports nothing heavy, since the agent takes the lock before all else. A one-shot never takes the
lock past an agent that waits. An agent goes through `engine.next` always, so that of several one is told by the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from core import proc
from core.clock import Clock, timestamp
from core.errors import Busy, Unsupported, from_os_error
from core.fsio import Lock, lock_folder, make_private
from core.values import dataclass
from reconciler.engine import doorbell

_PAUSE: Final = 0.02
_RING: Final = 0.5
PATIENCE: Final = 1.0
"""Seconds an agent bears with a lock that is held by nobody it can name (just taken, or dying)."""


class Role(StrEnum):
    """What kind of engine holds the lock."""

    AGENT = "agent"
    APPLY = "apply"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock file, as it says itself. `since` is RFC 3339, `root` a path."""

    process: proc.ProcessId
    role: Role
    root: str
    since: str

    def to_json(self) -> str:
        """The lock file's content."""
        return json.dumps({**self.process.to_json(), "role": self.role, "root": self.root, "since": self.since})

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """The inverse of `to_json`; None for anything else (nothing yet, half a line)."""
        try:
            data: Any = json.loads(text)
            process = proc.ProcessId.from_json(data)
            return cls(process, Role(data["role"]), str(data["root"]), str(data["since"]))
        except (ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        what = "the agent" if self.role is Role.AGENT else "an apply"
        return f"{what} with pid {self.process.pid} (since {self.since}, root {self.root})"


def _silent(_: Holder) -> None:
    return None


class EngineLock:
    """The lock of the engine at `state`. Released by `release`, and by the end of the process, however it ends."""

    def __init__(self, state: Path, root: Path, role: Role, clock: Clock) -> None:
        self._state = state
        self._root = root
        self._role = role
        self._clock = clock
        self._boot = proc.boot_id()
        try:
            make_private(state)
        except OSError as error:
            raise from_os_error(error, f"making {state}") from error
        self._root_fd = -1
        self._rival: int | None = None
        self._lock = Lock(state / "engine.lock")
        self._next = Lock(state / "engine.next")

    @property
    def held(self) -> bool:
        """Whether this process is the engine."""
        return self._lock.held

    def holder(self) -> Holder | None:
        """The live process that says it is the engine; None when there is none, or it has not said so yet."""
        return self._named(self._lock)

    def try_take(self) -> bool:
        """For a one-shot: become the engine if nobody is and no agent waits to be. Raises `Denied` and the like."""
        if not self.held and not self.wanted_by_agent():
            self._grab_both()
        return self.held

    def wanted_by_agent(self) -> bool:
        """For a one-shot: whether an agent wants the lock; if so finish what is in hand, `release`, and wait."""
        probe = Lock(self._next.path)
        try:
            wanted = not probe.acquire(
                shared=True, wait=False
            )  # shared: who asks does not look like an agent to others
        except OSError as error:
            raise from_os_error(error, f"locking {probe.path}") from error
        probe.release()
        return wanted

    def take(self, waiting: Callable[[Holder], None] = _silent) -> None:
        """For the agent: become the engine. Raises `Busy`, naming it, within 2 s when another agent is or is about to.

        While a one-shot holds the lock it is rung and waited for, as long as it takes; `waiting` is told once.
        """
        try:
            self._first_in_line()
            self._wait_for_lock(waiting)
        finally:
            self._drop(self._next)

    def release(self) -> None:
        """Let go; harmless when not held. Every child is gone and the doorbell is closed before."""
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1
        self._drop(self._lock)

    def _first_in_line(self) -> None:
        until = self._clock.monotonic() + PATIENCE
        while not self._grab(self._next, name=False):
            engine = self.holder()
            other = engine if engine is not None and engine.role is Role.AGENT else self._named(self._next)
            self._bear(other, until)

    def _wait_for_lock(self, waiting: Callable[[Holder], None]) -> None:
        until = self._clock.monotonic() + PATIENCE
        ring_at = 0.0
        told = False
        while not self._grab_both():
            engine = self.holder()
            if engine is None or engine.role is Role.AGENT:
                self._bear(engine, until)
                continue
            if not told:
                self._next.write(self._me())
                waiting(engine)
                told = True
            if self._clock.monotonic() >= ring_at:
                doorbell.ring(self._state)
                ring_at = self._clock.monotonic() + _RING
            until = self._clock.monotonic() + PATIENCE
            self._clock.sleep(_PAUSE)

    def _bear(self, other: Holder | None, until: float) -> None:
        if other is None and self._clock.monotonic() < until:
            self._clock.sleep(_PAUSE)
            return
        name, held = "a process that does not say who it is" if other is None else str(other), self._lock.path
        stop = "" if other is None else f" (kill {other.process.pid})"
        if other is None and self._rival is not None:
            name, held = f"pid {self._rival}, with another --state or without its lock file", self._root
            stop = f" (kill {self._rival})"
        raise Busy(
            f"this node's engine is {name}: it holds {held}",
            advice=f"Stop it first{stop}, or give both another --root and another --state.",
        )

    def _grab(self, lock: Lock, *, name: bool) -> bool:
        try:
            if not lock.acquire(wait=False):
                return False
            lock.write(self._me() if name else "")
        except OSError as error:
            lock.release()
            raise from_os_error(error, f"locking {lock.path}") from error
        return True

    def _grab_both(self) -> bool:
        """The lock, then the root; neither where one is somebody else's."""
        self._rival = None
        if not self._grab(self._lock, name=True):
            return False
        try:
            found = lock_folder(make_private(self._root))
            if found is None:
                self._rival = proc.flock_holder(str(self._root))
        except OSError as error:
            self._drop(self._lock)
            raise from_os_error(error, f"locking {self._root}") from error
        if found is None:
            self._drop(self._lock)
            return False
        self._root_fd = found
        return True

    def _drop(self, lock: Lock) -> None:
        if lock.held:
            lock.write("")
            lock.release()

    def _me(self) -> str:
        me = proc.ProcessId.of(os.getpid(), self._boot)
        assert me is not None, "this process is there"
        return Holder(me, self._role, str(self._root), timestamp(self._clock.wall())).to_json()

    def _named(self, lock: Lock) -> Holder | None:
        try:
            found = Holder.parse(lock.path.read_text("utf-8", "replace"))
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                return None
            raise from_os_error(error, f"reading {lock.path}") from error
        return found if found is not None and found.process.alive(self._boot) else None


def check_mounts(*, private_allowed: bool, same: Callable[[], bool | None] = proc.same_mount_namespace_as_init) -> None:
    """Refuse to be an engine whose mounts the node does not see. Raises `Unsupported`; passes where none can tell."""
    if same() is False and not private_allowed:
        raise Unsupported(
            "this process is in a mount namespace other than that of pid 1: what it mounts vanishes with it",
            advice="Start it outside (nsenter -t 1 -m), or say --private-mounts when that is meant.",
        )
