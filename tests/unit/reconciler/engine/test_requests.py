"""Requests to the engine: done by whoever is the engine, answered once, dropped when nobody waits."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import Failed, NoSpace, Unsupported
from reconciler.engine.requests import Fields, Interrupted, Operation, Report, Request, Requests
from reconciler.store.sqlite import SqliteStore, open_store

ASKER = """
import os, sys
from pathlib import Path
from reconciler.engine.requests import Request
from reconciler.store.sqlite import open_store
store = open_store(Path(sys.argv[1]), create=False)
request = Request(store, sys.argv[2], {})
print("asked", flush=True)
sys.stdin.read()
os._exit(9)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(file: Path) -> Iterator[SqliteStore]:
    made = open_store(file, create=True)
    assert made is not None
    yield made
    made.close()


def engine(store: SqliteStore, interrupted: Callable[[], bool] = lambda: False, **operations: Operation) -> Requests:
    """The engine's side, with these operations."""
    return Requests(store, operations, SystemClock(), interrupted)


def double(given: Fields, report: Report) -> Fields:
    """An operation."""
    report({"half": True})
    return {"doubled": 2 * given["number"]}


def until(look: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until `look` is true."""
    deadline = time.monotonic() + seconds
    never = threading.Event()
    while not look():
        assert time.monotonic() < deadline
        never.wait(0.01)


def words(store: SqliteStore) -> list[str]:
    """What is kept of requests."""
    return [name for prefix in ("ask/", "answer/", "done/") for name in store.metas(prefix)]


def test_what_is_asked_is_answered_and_leaves_nothing(store: SqliteStore) -> None:
    with Request(store, "double", {"number": 21}) as request:
        assert request.answer() is None
        engine(store, double=double).serve()
        assert request.answer() == {"doubled": 42}
        assert request.progress() == {"half": True}
    assert words(store) == []


def test_an_answered_request_is_not_done_again(store: SqliteStore) -> None:
    times: list[int] = []

    def count(given: Fields, report: Report) -> Fields:
        times.append(1)
        return {}

    with Request(store, "count", {}):
        engine(store, count=count).serve()
        engine(store, count=count).serve()
        assert times == [1]


def test_what_an_operation_raises_is_raised_where_it_was_asked(store: SqliteStore) -> None:
    def full(given: Fields, report: Report) -> Fields:
        raise NoSpace("the disk is full", advice="Free some.")

    def odd(given: Fields, report: Report) -> Fields:
        raise ZeroDivisionError("a fault of the program")

    with Request(store, "full", {}) as request, Request(store, "odd", {}) as other:
        engine(store, full=full, odd=odd).serve()
        with pytest.raises(NoSpace, match="the disk is full") as told:
            request.answer()
        assert told.value.hint() == "Free some."
        with pytest.raises(Failed, match="ZeroDivisionError"):
            other.answer()


def test_what_this_engine_cannot_do_is_answered_too(store: SqliteStore) -> None:
    with Request(store, "fly", {}) as request:
        engine(store).serve()
        with pytest.raises(Unsupported, match="'fly'"):
            request.answer()


def test_an_operation_that_is_interrupted_is_begun_anew_by_the_next_engine(store: SqliteStore) -> None:
    with Request(store, "double", {"number": 1}) as request:
        engine(store, interrupted=lambda: True, double=double).serve()
        assert request.answer() is None
        engine(store, double=double).serve()
        assert request.answer() == {"doubled": 2}


def test_what_nobody_waits_for_is_dropped_and_not_done(store: SqliteStore, file: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ASKER, file, "double"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline() == b"asked\n"
        assert len(words(store)) == 1
        asker.kill()
    done: list[Fields] = []

    def note(given: Fields, report: Report) -> Fields:
        done.append(given)
        return {}

    engine(store, double=note).serve()
    assert (done, words(store)) == ([], [])


def test_an_operation_whose_asker_is_killed_meanwhile_is_told_to_stop(store: SqliteStore, file: Path) -> None:
    ended: list[bool] = []
    with subprocess.Popen(
        [sys.executable, "-c", ASKER, file, "linger"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as asker:
        assert asker.stdout is not None
        assert asker.stdout.readline() == b"asked\n"

        def linger(given: Fields, report: Report) -> Fields:
            asker.kill()
            asker.wait()
            try:
                until(lambda: report({}))
            except Interrupted:
                ended.append(True)
                raise
            return {}

        served = engine(store, linger=linger)
        served.look()
        until(lambda: not served.busy())
    assert ended == [True]
    engine(store).serve()
    assert words(store) == []


def test_an_engine_that_is_stopped_leaves_what_it_does_to_the_next(store: SqliteStore) -> None:
    begun: list[bool] = []

    def forever(given: Fields, report: Report) -> Fields:
        begun.append(True)
        until(lambda: report({}))
        return {}

    served = engine(store, forever=forever)
    with Request(store, "forever", {}) as request:
        served.look()
        until(lambda: begun)
        served.stop(10.0)
        assert not served.busy()
        assert request.answer() is None
        assert json.loads(store.metas("ask/")[f"ask/{request.id}"])["from"]["pid"] == os.getpid()
