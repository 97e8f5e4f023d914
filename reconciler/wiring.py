"""What the command line stands on: the store, an engine in this process, or the agent's work waited for.

Rules of this file: nothing heavy is imported until an engine is really built, so that reading commands start fast, and
the engine's lock is taken before that.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core import fsio, telemetry
from core.clock import Clock, SystemClock
from core.errors import NotFound
from core.values import dataclass
from reconciler.decide.summary import settled, stalled
from reconciler.model.identity import Key, Kind
from reconciler.places import Paths, resolve_paths
from reconciler.store import sqlite
from reconciler.store.port import ObjectStore, StoreTooOld

if TYPE_CHECKING:
    from core.runtime.ports import ExecSpec, Shim
    from core.runtime.table import RuntimeTable
    from reconciler.engine.doorbell import Doorbell
    from reconciler.engine.life import Life
    from reconciler.engine.lock import EngineLock
    from reconciler.engine.requests import Request
    from reconciler.model.config import Config

__all__ = [
    "Paths",
    "Verdict",
    "ask",
    "check_command",
    "converge",
    "listen",
    "open_store",
    "resolve_paths",
    "runtime_of",
    "user_in",
]

Configured = Callable[[], "Config"]
"""Reads the configuration when an engine is really built: a mere waiter needs none."""

_TICK: Final = 0.1
_PAUSE: Final = 0.02
_CALM: Final = 0.35
"""Seconds for which all must have been settled before a waiter believes it, where the engine goes on with other things:
statuses of others come 250 ms late."""


def open_store(paths: Paths, *, create: bool, engine: bool = False) -> ObjectStore | None:
    """The node's store; None when there is none and it is not to be made (reading creates nothing).

    An older version's store is brought up to our format by who is the `engine`, or while nobody is: two versions that
    write it together would spoil it. Raises `StoreTooOld` while that version's engine runs, and as `sqlite.open_store`.
    """
    if create:
        fsio.make_private(paths.root)
    try:
        return sqlite.open_store(paths.store_file, create=create, upgrade=engine)
    except StoreTooOld:
        return _brought_up(paths)


def _brought_up(paths: Paths) -> ObjectStore | None:
    from reconciler.engine.lock import EngineLock, Role

    lock = EngineLock(paths.state, paths.root, Role.APPLY, SystemClock())
    if not lock.try_take():
        raise StoreTooOld(
            f"{lock.holder() or 'this node’s engine'} is of an older version than this command; nothing was changed",
            advice="Have the agent be of this version too: reconciler agent install (no container is stopped).",
        )
    try:
        return sqlite.open_store(paths.store_file, create=False)
    finally:
        lock.release()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far the objects asked for are: settled or gone; waiting for a person; neither yet."""

    done: frozenset[Key]
    stalled: frozenset[Key]
    pending: frozenset[Key]
    supervised: bool
    timed_out: bool

    @property
    def finished(self) -> bool:
        """Whether more time would not change it."""
        return not self.pending


def judge(store: ObjectStore, keys: Iterable[Key], *, supervised: bool, timed_out: bool = False) -> Verdict:
    """Sort `keys` by what the store says of them now."""
    groups: dict[str, set[Key]] = {"done": set(), "stalled": set(), "pending": set()}
    for key in keys:
        obj = store.get(key)
        word = "done" if obj is None or settled(obj) else "stalled" if stalled(obj) else "pending"
        groups[word].add(key)
    done, stuck, pending = (frozenset(groups[word]) for word in ("done", "stalled", "pending"))
    return Verdict(done, stuck, pending, supervised, timed_out)


@dataclass(frozen=True, slots=True)
class _Node:
    """What an engine in this process stands on."""

    paths: Paths
    store: ObjectStore
    config: Config


def converge(
    paths: Paths,
    store: ObjectStore,
    keys: frozenset[Key],
    *,
    config: Configured,
    timeout: float,
    tick: Callable[[], None],
) -> Verdict:
    """Work on `keys` here, or wait while another engine does; returns when nothing is pending, or after `timeout` s.

    `tick` is called about every 100 ms. Whoever is the engine, an agent that comes takes over, and we go on waiting.
    """
    from reconciler.engine.doorbell import ring
    from reconciler.engine.lock import EngineLock, Role, check_mounts

    clock = SystemClock()
    deadline = clock.monotonic() + timeout
    lock = EngineLock(paths.state, paths.root, Role.APPLY, clock)
    ring(paths.state)
    calm = Calm(clock)
    while True:
        if lock.try_take():
            check_mounts(private_allowed=False)
            if _work(_Node(paths, store, config()), keys, lock, deadline, tick):
                return judge(store, keys, supervised=False, timed_out=clock.monotonic() >= deadline)
        holder = lock.holder()
        supervised = holder is not None and holder.role is Role.AGENT
        version = store.version()
        verdict = judge(store, keys, supervised=supervised, timed_out=clock.monotonic() >= deadline)
        if calm.believes(verdict, rested=store.rested() == version) or verdict.timed_out:
            return verdict
        tick()
        store.wait(version, _TICK)


class Calm:
    """Believes a waiter's verdict at once when the engine has nothing left to do, else when it has held for a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None

    def believes(self, verdict: Verdict, *, rested: bool) -> bool:
        """Whether nothing is pending, and the engine `rested` at the version that was judged, or it is so for long."""
        now = self._clock.monotonic()
        if not verdict.finished or rested:
            self._since = None
            return verdict.finished
        self._since = now if self._since is None else self._since
        return now - self._since >= _CALM


def _work(node: _Node, keys: frozenset[Key], lock: EngineLock, deadline: float, tick: Callable[[], None]) -> bool:
    """Be the engine for `keys` until they are done (True), the time is over (True) or an agent wants to be (False)."""
    clock = SystemClock()
    with _one_shot(node, keys, lock) as (life, bell):
        while clock.monotonic() < deadline and not lock.wanted_by_agent():
            if _finished(node.store, life, keys, clock):
                return True
            tick()
            if life.engine.queue.wait_idle(_TICK):
                bell.wait(_PAUSE)  # all that is left is due later, or is for somebody else
        return not lock.wanted_by_agent()


def ask(
    paths: Paths,
    store: ObjectStore,
    verb: str,
    arguments: Mapping[str, Any],
    *,
    config: Configured,
    tick: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    """Have the engine do `verb`: the resident agent, or, when there is none, one in this process; returns its answer.

    `tick` is called about every 100 ms with how far it is. Raises what the operation raises.
    """
    from reconciler.engine.doorbell import ring
    from reconciler.engine.lock import EngineLock, Role, check_mounts
    from reconciler.engine.requests import Request

    lock = EngineLock(paths.state, paths.root, Role.APPLY, SystemClock())
    with Request(store, verb, arguments) as request:
        while (answer := request.answer()) is None:
            if lock.try_take():
                check_mounts(private_allowed=False)
                _answer(_Node(paths, store, config()), request, lock, tick)
            else:
                ring(paths.state)
                tick(request.progress())
                store.wait(store.version(), _TICK)
        return answer


def _answer(node: _Node, request: Request, lock: EngineLock, tick: Callable[[Mapping[str, Any]], None]) -> None:
    """Be the engine for what is asked, until it is answered or an agent wants to be the engine."""
    with _one_shot(node, frozenset(), lock) as (life, bell):
        life.requests.look()
        while life.requests.busy():
            tick(request.progress())
            bell.wait(_TICK)
            if lock.wanted_by_agent():
                life.requests.stop(0.0)  # the agent begins it anew


@contextlib.contextmanager
def _one_shot(node: _Node, keys: frozenset[Key], lock: EngineLock) -> Iterator[tuple[Life, Doorbell]]:
    """An engine in this process for `keys` inside the block, which holds the lock when it begins."""
    from reconciler.assembly import Options, build_life, prepare_store
    from reconciler.engine.doorbell import Doorbell
    from reconciler.engine.scope import Scope
    from reconciler.translation import node_name

    clock, ending = SystemClock(), list[bool]()
    scope = Scope(node.store, keys | {Key(Kind.NODE, node_name(node.config))})
    options = Options(scope, False, None, lambda: bool(ending), False, node.config)
    prepare_store(node.paths, node.store, clock, node.config)
    life = build_life(node.paths, node.store, clock, options)
    bell = Doorbell.bind(node.paths.state)
    try:
        life.start()
        yield life, bell
    finally:
        ending.append(True)
        bell.close()
        life.stop()
        lock.release()


def _finished(store: ObjectStore, life: Life, keys: frozenset[Key], clock: Clock) -> bool:
    """Whether an engine has nothing to do and `keys` are all settled, stalled or gone."""
    if not life.idle():
        return False
    return judge(store, keys, supervised=False).finished


def listen(paths: Paths, config: Config, clock: Clock) -> None:
    """Turn telemetry on if the environment or the configuration asks for it; whoever calls it ends it."""
    from reconciler import __version__

    telemetry.configure(
        os.environ,
        clock,
        endpoint=config.telemetry.endpoint,
        interval=config.telemetry.interval,
        service_version=__version__,
        service_instance_id=paths.instance,
        host_name=socket.gethostname(),
    )


def check_command(paths: Paths, shim: Shim, id: str, process: ExecSpec) -> None:
    """Look for the command of `process` where the task sees files; raises `NotFound` or `Denied` as a shell would.

    What a runtime says of it by itself is a line of its log.
    """
    import json

    from core.runtime import rootfs

    pid = shim.state(id).pid
    if pid is None:
        raise NotFound(f"task {id} does not run", advice="Wait for it, or see why: reconciler get containers")
    bundle = paths.state / "bundles" / id
    made = json.loads((bundle / "config.json").read_bytes())["process"]
    with rootfs.opened(Path(f"/proc/{pid.pid}/root")) as root:
        if not rootfs.is_same(root, bundle / "rootfs"):
            return  # a module, a virtual machine or a sentry of gVisor's, which sees other files: its shim will say it
        rootfs.find_command(root, process.args[0], [*made["env"], *process.env], process.cwd or made["cwd"])


def user_in(paths: Paths, id: str, text: str) -> str:
    """The numbers of a user as the image of a running task has it; "" stays "". Raises `Invalid`."""
    from core.runtime import rootfs

    if not text:
        return ""
    with rootfs.opened(paths.state / "bundles" / id / "rootfs") as root:
        return str(rootfs.resolve_user(root, text))


def runtime_of(paths: Paths, store: ObjectStore, name: str) -> tuple[Shim, str]:
    """The driver and the id of the running task of a container; raises `NotFound`."""
    from reconciler.decide.attempts import Memory

    obj = store.get(Key(Kind.CONTAINER, name))
    memory = Memory.of(obj.record) if obj is not None else Memory()
    if memory.current is None:
        raise NotFound(f"container/{name} has never run", advice=f"See why: reconciler describe container {name}")
    id = (memory.previous or memory.current).id(name)
    return runtimes_of(paths).shim(id), id


def runtimes_of(paths: Paths) -> RuntimeTable:
    """The node's runtimes as they are driven without an engine: for what is there already."""
    from core import proc
    from core.process import Launcher
    from core.runtime.drivers import Ground, build_table

    return build_table(Ground(paths.state, paths.group, Launcher(), SystemClock(), proc.boot_id()))
