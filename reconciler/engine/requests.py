"""How a command has something done that only the engine may do: collect what nobody needs, repair content.

The request is a word in the store, durable, and so is its answer. Whoever holds `engine.lock` answers: the resident
agent, rung for it; or, when nobody holds the lock, the command itself, which takes it. Both go through `serve`.

    ask/<id>    {"verb", "with", "from": the process that asks}      written by who asks, removed by who asks
    answer/<id> {"ok": {…}} or {"error": {category, message, hint}}  written once, by the engine
    done/<id>   {…}                                                  how far it is, told at most every 250 ms

Rules of this file: an operation may be done twice (an engine that dies in the middle is followed by another that begins
anew), so it is idempotent; it is answered once, errors too; what nobody waits for any more is dropped, not done.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from core import errors, proc
from core.clock import Clock
from core.errors import AgentError, Busy, Failed, from_os_error
from reconciler.engine.workers import attempt
from reconciler.store.port import ObjectStore

Fields: TypeAlias = Mapping[str, Any]
"""JSON."""
Report: TypeAlias = Callable[[Fields], None]
"""Called often by an operation with how far it is. Raises `Interrupted` when it is to stop: nobody waits, or the engine
is to end."""
Operation: TypeAlias = Callable[[Fields, Report], Fields]
"""Does it, for the arguments of the request, and says what came of it. Raises `AgentError` or `OSError`."""

_ASK: Final = "ask/"
_ANSWER: Final = "answer/"
_DONE: Final = "done/"
_EVERY: Final = 0.25
_log: Final = logging.getLogger(__name__)
_CLASSES: Final[Mapping[str, type[AgentError]]] = {
    one.category.value: one
    for one in (
        errors.Invalid,
        errors.NotFound,
        errors.Denied,
        errors.Conflict,
        errors.Unavailable,
        errors.TimedOut,
        errors.Corrupt,
        errors.NoSpace,
        errors.Unsupported,
        errors.OverLimit,
        errors.Busy,
    )
}


class Interrupted(Busy):
    """An operation was told to stop; it is begun anew by the next engine, if somebody still waits for it."""


class Request:
    """One request, from the side of who asks; removed at the end of its block, answered or not."""

    def __init__(self, store: ObjectStore, verb: str, arguments: Fields) -> None:
        self._store = store
        self.id = secrets.token_hex(8)
        self._said: Fields | None = None
        me = proc.ProcessId.of(os.getpid(), proc.boot_id())
        assert me is not None, "this process is there"
        asked = {"verb": verb, "with": dict(arguments), "from": me.to_json()}
        store.set_meta(f"{_ASK}{self.id}", json.dumps(asked))

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *_: object) -> None:
        forget(self._store, self.id)

    def answer(self) -> Fields | None:
        """What came of it; None: not answered yet. Raises what the operation raised, as its class of error."""
        text = self._store.meta(f"{_ANSWER}{self.id}")
        if text is None:
            return None
        answer = json.loads(text)
        if "error" in answer:
            raise _raised(answer["error"])
        fields: Fields = answer["ok"]
        return fields

    def progress(self) -> Fields:
        """How far it is; nothing before it has begun."""
        text = self._store.meta(f"{_DONE}{self.id}")
        return {} if text is None else json.loads(text)


def _raised(error: Mapping[str, str]) -> AgentError:
    return _CLASSES.get(error["category"], Failed)(error["message"], advice=error["hint"])


def forget(store: ObjectStore, id: str) -> None:
    """Remove all that is kept of a request: the question last, so that no answer is left without one."""
    for kind in (_DONE, _ANSWER, _ASK):
        store.drop_meta(f"{kind}{id}")


class Requests:
    """The engine's side. `look` is called when the doorbell rings; `interrupted` says that the engine is to end."""

    def __init__(
        self,
        store: ObjectStore,
        operations: Mapping[str, Operation],
        clock: Clock,
        interrupted: Callable[[], bool],
    ) -> None:
        self._store = store
        self._operations = operations
        self._clock = clock
        self._interrupted = interrupted
        self._stopped = False
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Answer what is asked, in a thread of its own; returns at once. Always called from the same thread.

        What is asked while that thread ends is seen at the next ring: who asks rings again and again.
        """
        if self.busy() or self._stopped or not self._open():
            return
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)
        self._thread.start()

    def busy(self) -> bool:
        """Whether something is being done."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, within: float) -> None:
        """Interrupt what is being done and wait up to `within` seconds until it has stopped."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join(within)

    def serve(self) -> None:
        """Answer all that is asked now, one after the other, in this thread; an interrupted one stays unanswered."""
        for id, asked in self._open().items():
            if not self._waited_for(asked):
                forget(self._store, id)
                continue
            try:
                answer = self._answer(id, asked)
            except Interrupted:
                if self._ending():
                    return
                continue
            self._store.set_meta(f"{_ANSWER}{id}", json.dumps(answer))
            if not self._waited_for(asked):
                forget(self._store, id)

    def _run(self) -> None:
        if (error := attempt(self.serve)) is not None:
            _log.error("a request is not answered yet: %s", error, exc_info=error)

    def _open(self) -> dict[str, Fields]:
        """The requests without an answer, and what is left of those whose asker is gone."""
        asked = {name[len(_ASK) :]: json.loads(text) for name, text in self._store.metas(_ASK).items()}
        answered = {name[len(_ANSWER) :] for name in self._store.metas(_ANSWER)}
        for id in answered:
            if id not in asked or not self._waited_for(asked[id]):
                forget(self._store, id)
        return {id: fields for id, fields in asked.items() if id not in answered}

    def _answer(self, id: str, asked: Fields) -> Fields:
        operation = self._operations.get(asked["verb"])
        if operation is None:
            unknown = f"this engine cannot {asked['verb']!r}"
            return _told(errors.Unsupported(unknown, advice="It is of another version: stop it, and start it anew."))
        done: dict[str, Fields] = {}
        report = self._report(id, asked)
        fault = attempt(lambda: done.update(ok=operation(asked["with"], report)))
        match fault:
            case None:
                return done
            case Interrupted():
                raise fault
            case AgentError():
                return _told(fault)
            case OSError():
                return _told(from_os_error(fault, asked["verb"]))
            case _:
                return _told(Failed(f"{type(fault).__name__}: {fault}", advice="This is a fault of the program."))

    def _report(self, id: str, asked: Fields) -> Report:
        told = float("-inf")

        def report(fields: Fields) -> None:
            nonlocal told
            now = self._clock.monotonic()
            if self._stopped or now - told >= _EVERY:
                told = now
                if self._ending():
                    raise Interrupted("the engine is to end")
                if not self._waited_for(asked):
                    raise Interrupted("nobody waits for it any more")
                self._store.set_meta(f"{_DONE}{id}", json.dumps(dict(fields)))

        return report

    def _ending(self) -> bool:
        return self._stopped or self._interrupted()

    def _waited_for(self, asked: Fields) -> bool:
        return proc.ProcessId.from_json(asked["from"]).alive(proc.boot_id())


def _told(error: AgentError) -> Fields:
    return {"error": {"category": error.category.value, "message": error.message, "hint": error.hint()}}
