import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.errors import Unavailable
from reconciler.engine.watcher import Watcher
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.store.port import Change, TooOld

A, B, C = (Key(Kind.IMAGE, name) for name in "abc")


@dataclass
class Log:
    """The part of a store that a watcher reads: objects, changes kept from `oldest` on."""

    keys: set[Key] = field(default_factory=set)
    log: list[Change] = field(default_factory=list)
    oldest: int = 0
    moved: threading.Condition = field(default_factory=threading.Condition)
    down: bool = False

    def write(self, key: Key, *, gone: bool = False) -> None:
        with self.moved:
            (self.keys.discard if gone else self.keys.add)(key)
            self.log.append(Change(len(self.log) + 1, key, gone))
            self.moved.notify_all()

    def version(self) -> int:
        return len(self.log)

    def list(self, kind: Kind | None = None) -> Sequence[Object]:
        return [Object(key) for key in sorted(self.keys)]

    def changes(self, since: int) -> Sequence[Change]:
        if self.down:
            raise Unavailable("the store is locked")
        if since < self.oldest:
            raise TooOld("gone")
        return self.log[since:]

    def wait(self, since: int, seconds: float) -> bool:
        with self.moved:
            return self.moved.wait_for(lambda: len(self.log) > since, seconds)


def watched(store: Log) -> tuple[Watcher, list[Key]]:
    woken: list[Key] = []
    return Watcher(store, woken.append), woken  # type: ignore[arg-type]  # only what is read is there


def test_the_first_turn_wakes_every_object_and_the_next_ones_what_changed() -> None:
    store = Log()
    store.write(B)
    store.write(A)
    watcher, woken = watched(store)
    watcher.turn(0)
    assert woken == [A, B]
    watcher.turn(0)
    assert woken == [A, B]
    store.write(C)
    store.write(A, gone=True)
    watcher.turn(0)
    assert woken == [A, B, C, A]
    watcher.turn(0)
    assert woken == [A, B, C, A]


def test_a_watcher_that_comes_too_late_wakes_all_there_is_and_all_that_went() -> None:
    store = Log()
    store.write(A)
    store.write(B)
    watcher, woken = watched(store)
    watcher.turn(0)
    woken.clear()
    store.write(B, gone=True)
    store.write(C)
    store.oldest = store.version()
    watcher.turn(0)
    assert woken == [A, C, B]
    woken.clear()
    store.write(A)
    watcher.turn(0)
    assert woken == [A]


def test_a_store_that_fails_for_a_while_makes_it_miss_nothing() -> None:
    store = Log()
    watcher, woken = watched(store)
    watcher.turn(0)
    store.write(A)
    store.down = True
    for _ in range(2):
        try:
            watcher.turn(0)
        except Unavailable:
            continue
        raise AssertionError("the error was swallowed")
    store.down = False
    watcher.turn(0)
    assert woken == [A]


def test_the_thread_delivers_and_ends() -> None:
    store = Log()
    woken = threading.Semaphore(0)
    watcher = Watcher(store, lambda key: woken.release())  # type: ignore[arg-type]  # only what is read is there
    watcher.start()
    store.write(A)
    assert woken.acquire(timeout=10)
    watcher.stop()
    assert not any(thread.name == "watcher" for thread in threading.enumerate())


def test_a_watcher_that_never_started_stops() -> None:
    watched(Log())[0].stop()
