"""The engine: takes a key, looks, decides, performs, and says how it went.

Rules of this file: a controller never chooses an outcome; it is derived here (rule 3). A fault is kept per object in
memory: after a restart the first try tells it anew. Status is written once, at the end of a look.
"""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from core import telemetry
from core.clock import Clock
from core.errors import AgentError, Category, Failed, Retry, from_os_error
from core.retrying import delay
from core.signals import error_word
from core.telemetry import Span
from reconciler.decide.facts import Facts, Now
from reconciler.decide.outcomes import look_again, outcome_of, performable
from reconciler.decide.references import references
from reconciler.decide.summary import LOOK_AGAIN, is_true, summarise
from reconciler.engine import telling
from reconciler.engine.backoff import Convergence
from reconciler.engine.controller import Controller
from reconciler.engine.index import Index
from reconciler.engine.lanes import Lanes
from reconciler.engine.telling import Stories
from reconciler.model.actions import (
    Action,
    ApplyRevision,
    DeleteTask,
    Disown,
    EnsureOwned,
    FetchSource,
    LetGoOfMembers,
    Plan,
    PullImage,
    Release,
)
from reconciler.model.identity import Key, Kind, source_manager
from reconciler.model.objects import Object
from reconciler.model.outcome import Blocked, Fault, Outcome, RetryAfter, Settled, fault_of
from reconciler.store.functions import members
from reconciler.store.port import Event, ObjectStore

_log: Final = logging.getLogger(__name__)


class Hands(Protocol):
    """Who performs actions."""

    def perform(self, action: Action) -> None:
        """Do it; raises `AgentError` or `OSError`."""


class Engine:
    """Works on keys."""

    def __init__(
        self,
        store: ObjectStore,
        controllers: Mapping[Kind, Controller],
        hands: Hands,
        queue: Lanes,
        clock: Clock,
        index: Index,
    ) -> None:
        self.store = store
        self.queue = queue
        self._controllers = controllers
        self._hands = hands
        self._clock = clock
        self.index = index
        self._faults: dict[Key, Fault] = {}
        self._stories = Stories()
        self._convergence = Convergence()

    def now(self) -> Now:
        """This moment."""
        return Now(self._clock.wall(), self._clock.monotonic())

    def woken(self, key: Key) -> None:
        """The store says that `key` changed: look at it and at whom it concerns, unless only its status is new."""
        obj = self.store.get(key)
        if obj is None:
            concerned = self.index.concerned(key)
            self.index.drop(key)
        elif self.index.update(obj):
            concerned = self.index.concerned(key)
        else:
            return
        self.queue.add(key)
        for other in concerned:
            self.queue.add(other)

    def reconsider(self) -> None:
        """Try at once what had failed, and look at everything: what failures came from may be otherwise now."""
        for key in list(self._faults):
            self._forget(key)
        self.resync()

    def resync(self) -> None:
        """Look at everything once more."""
        for obj in self.store.list():
            self.index.update(obj)
            self.queue.add(obj.key)

    def work(self, key: Key) -> None:
        """One look at one object; performs what may be performed now."""
        obj = self.store.get(key)
        controller = self._controllers.get(key.kind)
        if obj is None or controller is None:
            self._forget(key)
            self._stories.ends(key)
            return
        began = self._clock.monotonic()
        with self._stories.look(obj) as look:
            word = self._work(obj, controller, look)
        telemetry.measure(
            "reconciler.reconcile.duration", self._clock.monotonic() - began, kind=key.kind.value, outcome=word
        )

    def _work(self, obj: Object, controller: Controller, look: Span) -> str:
        """Look, plan, and perform or settle; returns the outcome's name, `Performed` when something was done."""
        key = obj.key
        fault = self._fault(obj)
        facts = controller.facts(obj, fault)
        look.mark("observed")
        now = self.now()
        plan = controller.plan(facts, now)
        look.mark("planned")
        if plan.converged or _is_over(fault, plan):
            self._forget(key)
            fault = None
        todo = performable(plan, fault, now)
        if not todo:
            look.drop()
            return self._settle(obj, controller, facts, plan, outcome_of(plan, fault, now))
        step = _step(facts, plan)
        if self._convergence.stuck(key, step):
            return self._settle(obj, controller, facts, plan, _stuck(plan))
        self._stories.goes_on(obj, look)
        if any(_is_slow(action, obj) for action in todo):
            self._settle(obj, controller, facts, plan, RetryAfter("Progressing", f"{todo[0].phase}"))
        if self._perform(obj, todo):  # what failed has its own back-off, and is no sign that somebody undoes it
            self._convergence.performed(key, step, self._clock.monotonic())
        if (after := self.store.get(key)) is not None:
            self.index.update(after)
        self.queue.add(key)
        self._notify(key)
        look.note(outcome="Performed")
        return "Performed"

    def tally(self) -> tuple[int, int]:
        """How many objects there are, and how many of them have an error."""
        return len(self.index), len(self._faults)

    def failed(self, key: Key, error: Exception) -> None:
        """A look itself went wrong (a fault of the program, or a store that cannot be read): tell it as a fault."""
        _log.error("%s: %s", key, error, exc_info=error)
        obj = self.store.get(key)
        if obj is None:
            return
        known = error if isinstance(error, AgentError) else Failed(f"{type(error).__name__}: {error}")
        fault = self._failure(obj, self._inputs(obj), "reconciling", repr(error), known)
        detail = "this is a fault of the program; the agent's log has more" if known is not error else fault.message
        self.store.add_event(self._event(key, "Warning", fault.reason, detail))

    def _fault(self, obj: Object) -> Fault | None:
        fault = self._faults.get(obj.key)
        if fault is not None and fault.inputs != self._inputs(obj):
            self._forget(obj.key)
            return None
        return fault

    def _inputs(self, obj: Object) -> tuple[int, ...]:
        """What a failure came from: a corrected Secret or Image, or a person who asks, has it
        tried at once, not when the back-off is over.
        """
        needed = (self.store.get(key) for key in sorted(references(obj)))
        asked = zlib.crc32(repr(sorted(obj.local.items())).encode())
        return (obj.generation, asked, *(0 if one is None else one.generation for one in needed))

    def _forget(self, key: Key) -> None:
        self._faults.pop(key, None)
        self._convergence.settled(key)

    def _perform(self, obj: Object, todo: tuple[Action, ...]) -> bool:
        """Whether nothing failed."""
        inputs = self._inputs(obj)
        for action in todo:
            try:
                self._act(obj, action)
            except AgentError as error:
                self._failure(obj, inputs, action.phase, repr(action), error)
                return False
            except OSError as error:
                self._failure(obj, inputs, action.phase, repr(action), from_os_error(error, action.phase))
                return False
            self._wake_touched(action)
            fault = self._faults.get(obj.key)
            if fault is not None and fault.phase == action.phase:
                del self._faults[obj.key]
        return True

    def _act(self, obj: Object, action: Action) -> None:
        began, error = self._clock.monotonic(), {}
        try:
            with telling.acting(action):
                self._hands.perform(action)
                telling.count_done(obj, action)
        except (AgentError, OSError) as fault:
            error = {"error": error_word(fault)}
            raise
        finally:
            took = self._clock.monotonic() - began
            telemetry.measure("reconciler.action.duration", took, action=telling.name_of(action), **error)

    def _wake_touched(self, action: Action) -> None:
        """Look at once at the objects that an action wrote; the store's watcher would tell of them a moment later."""
        match action:
            case EnsureOwned(_, made):
                self.woken(made.key)
            case Release(key) | Disown(_, key):
                for other in self.index.concerned(key):
                    self.woken(other)
            case ApplyRevision(key) | LetGoOfMembers(key):
                for obj in (*members(self.store, source_manager(key.name)), *self.store.owned(key)):
                    self.woken(obj.key)
            case DeleteTask():
                for other in self.index.keys(Kind.SNAPSHOT):  # its root rested on one
                    self.queue.add(other)
            case _:
                pass

    def _failure(self, obj: Object, inputs: tuple[int, ...], phase: str, action: str, error: AgentError) -> Fault:
        known = self._faults.get(obj.key)
        failures = known.failures + 1 if known is not None and known.phase == phase else 1
        # Wrong bytes are fetched once more; then it is for a person, or for the other side, to mend them.
        hopeless = error.retry is Retry.NEVER or (error.category is Category.CORRUPT and failures > 1)
        pause = LOOK_AGAIN if hopeless else delay(failures, jitter=random.random())
        if error.category is Category.NO_SPACE:
            pause = min(pause, _SPACE_SECONDS)  # nobody tells us when there is room again
        pause = max(pause, error.seconds)
        if error.retry is Retry.NOW and failures < _CONFLICTS:
            pause = 0.0
        until = self._clock.monotonic() + pause
        fault = fault_of(error, phase, action, failures=failures, until=until, inputs=inputs)
        fault = replace(fault, retry=Retry.NEVER) if hopeless else fault
        self._faults[obj.key] = fault
        telemetry.note(error=error.category.value)
        telemetry.count("reconciler.retries", kind=obj.kind.value, phase=phase, error=error.category.value)
        if pause:
            self.store.add_event(self._event(obj.key, "Warning", fault.reason, fault.message))
        return fault

    def _event(self, key: Key, type_: str, reason: str, message: str) -> Event:
        wall = self._clock.wall()
        return Event(0, key, type_, reason, message, wall, wall)

    def _settle(self, obj: Object, controller: Controller, facts: Facts, plan: Plan, outcome: Outcome) -> str:
        """Write the status, see to the next look, and return the outcome's name."""
        now = self.now()
        fault = self._faults.get(obj.key)
        status = summarise(obj, outcome, fault, controller.detail(facts, plan), now)
        for again in (look_again(outcome, fault, now), plan.again):
            if again is not None:
                self.queue.add_after(obj.key, again)
        if not _same(status, obj.status):
            self.store.set_status(obj.key, obj.uid, status)
            if _matters(status, obj.status):
                self._notify(obj.key)
        if isinstance(outcome, Settled):
            self._stories.ends(obj.key)
        return type(outcome).__name__

    def _notify(self, key: Key) -> None:
        for other in self.index.concerned(key):
            if other.kind is Kind.SOURCE:
                self.queue.add_after(other, _SOON)  # it counts its objects, of which many may move at once
            else:
                self.queue.add(other)

    def refresh_status(self, key: Key) -> None:
        """Publish how far a long action is: called by who performs it, now and then."""
        obj = self.store.get(key)
        if obj is not None:
            controller = self._controllers[key.kind]
            facts = controller.facts(obj, None)
            self._settle(obj, controller, facts, Plan(), RetryAfter("Progressing", "fetching"))


_CONFLICTS: Final = 5
_SPACE_SECONDS: Final = 20.0
_SOON: Final = 0.5


def _is_over(fault: Fault | None, plan: Plan) -> bool:
    """Whether only the state had moved under us, and what failed is not planned any more."""
    return fault is not None and fault.retry is Retry.NOW and fault.phase not in {one.phase for one in plan.actions}


def _is_slow(action: Action, obj: Object) -> bool:
    """Whether it may take so long that people should see it begin. Of a Source only the first fetch is told: later
    ones mostly find that nothing is new.
    """
    return isinstance(action, PullImage) or (isinstance(action, FetchSource) and not obj.record)


def _step(facts: Facts, plan: Plan) -> int:
    """Equal for equal facts and plan; the object counts by its version, its status not at all."""
    bare = replace(facts, obj=replace(facts.obj, status={}))
    return hash((repr(bare), repr(plan)))


def _stuck(plan: Plan) -> Blocked:
    phases = ", ".join(dict.fromkeys(action.phase for action in plan.actions))
    hint = "Something outside undoes what is done here; see the events."
    return Blocked("NotConverging", f"the same steps ({phases}) were done three times within a minute in vain", hint)


def _same(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether two statuses say the same; a due time counts by its second."""
    due = [str(status.get("nextRetryAt", ""))[:19] for status in (new, old)]
    return due[0] == due[1] and {**new, "nextRetryAt": 0} == {**old, "nextRetryAt": 0}


def _matters(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether others may decide otherwise now."""
    types = ("Ready", "Reconciling", "Stalled")
    told = [tuple(is_true(status, type_) for type_ in types) for status in (new, old)]
    return told[0] != told[1] or new.get("state") != old.get("state") or new.get("id") != old.get("id")
