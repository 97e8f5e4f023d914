"""The resident engine: the node's agent in the foreground, from its lock to its end.

Rules of this file: nothing heavy is imported before the lock is held. A service manager is told what goes on; its signs
of life come from a look at the engine.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Final

from core import fsio, telemetry
from core.clock import Clock, SystemClock
from reconciler.model.identity import Key, Kind
from reconciler.wiring import judge, listen, open_store

if TYPE_CHECKING:
    from core.notify import Notifier
    from reconciler.config import ConfigFiles
    from reconciler.engine.life import Life
    from reconciler.places import Paths
    from reconciler.store.port import ObjectStore

_TICK: Final = 0.1


def run_agent(paths: Paths, files: ConfigFiles, *, once: bool, private_mounts: bool) -> int:
    """Be the node's engine until told to stop (TERM, INT): 0. With `once` until every Source was fetched and nothing is
    left to do: 0, or 1 when something is not as it should be. HUP has it read its configuration again.
    """
    import faulthandler

    from core.notify import from_environment
    from reconciler.engine.lock import EngineLock, Role, check_mounts

    check_mounts(private_allowed=private_mounts)
    faulthandler.enable()  # a manager that finds us hanging aborts us: each thread's place is then in its log
    clock = SystemClock()
    told = Told()
    manager = from_environment()
    lock = EngineLock(paths.state, paths.root, Role.AGENT, clock)
    lock.take(lambda holder: manager.status(f"Waiting until {holder} is done"))
    try:
        return _serve(paths, files, clock, told, manager, once=once)
    finally:
        lock.release()


class Told:
    """Whether TERM or INT has come (`stop`), or HUP (`reload`); signals wake who waits."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self.stop = self.reload = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.stop = True

    def wait(self, seconds: float) -> None:
        """Wait up to `seconds` for a signal."""
        self._read.settimeout(seconds)
        with contextlib.suppress(TimeoutError):  # nothing came: look again
            self._read.recv(64)


def _serve(paths: Paths, files: ConfigFiles, clock: Clock, told: Told, manager: Notifier, *, once: bool) -> int:
    from reconciler.assembly import Options, build_life, prepare_store
    from reconciler.engine.doorbell import Doorbell
    from reconciler.engine.scope import Scope
    from reconciler.engine.standing import Standing
    from reconciler.reloading import LOOK_SECONDS, Engine, Reloader
    from reconciler.store.sqlite_recovery import mend

    seen, loaded = files.signature(), files.load()
    config = loaded.config
    standing = Standing(tuple(map(str, loaded.files)), clock.wall())
    manager.status("Opening the store")
    fsio.make_private(paths.root)
    mend(paths.store_file, clock)
    listen(paths, config, clock)
    store = open_store(paths, create=True, engine=True)
    assert store is not None
    prepare_store(paths, store, clock, config)
    bell = Doorbell.bind(paths.state)
    scope = Scope(store, None)
    options = Options(scope, not once, bell.wait, lambda: told.stop, not once, config, standing, fetches=True)
    life = build_life(paths, store, clock, options)
    engine = Engine(store, standing, life.take_up, life.engine.queue.add)
    reloader = Reloader(files, engine, config, seen, clock)
    reloader.tell_steps(loaded.steps)
    if life.timetable is not None:
        life.timetable.every("configuration", LOOK_SECONDS, 0.1, reloader.look)
    try:
        manager.status("Looking at what is here")
        life.start()
        manager.ready()
        code: int | None = None
        while not told.stop and code is None:
            _sign_of_life(life, manager, clock)
            told.wait(_TICK if once else manager.pause or 3600.0)
            if told.reload:
                told.reload = False
                manager.reloading(clock.monotonic())
                reloader.reload()
                manager.ready()
            code = _once_over(store, life) if once else None
        manager.stopping()
        return code or 0
    finally:
        life.stop()
        bell.close()
        telemetry.shutdown()
        store.close()


def _sign_of_life(life: Life, manager: Notifier, clock: Clock) -> None:
    """Tell the manager that we are alive, after a look at the engine; one that hangs is left to be ended by it."""
    from reconciler.engine.life import ailment

    if found := ailment(life.workers, clock.monotonic()):
        manager.status(f"Hangs: {found}")
        return
    manager.beat()
    objects, failing = life.engine.tally()
    manager.status(f"{objects} object{'s' * (objects != 1)}" + (f", {failing} with an error" if failing else ""))


def _once_over(store: ObjectStore, life: Life) -> int | None:
    """The exit code, once nothing more is to come; None before. A Source that cannot be fetched is not waited for."""
    if not life.idle():
        return None
    verdict = judge(store, _all(store), supervised=False)
    failed = {obj.key for obj in store.list(Kind.SOURCE) if "lastError" in obj.status}
    return None if verdict.pending - failed else int(bool(verdict.stalled | verdict.pending))


def _all(store: ObjectStore) -> frozenset[Key]:
    return frozenset(obj.key for obj in store.list())
