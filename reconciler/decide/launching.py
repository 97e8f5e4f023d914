"""From nothing to running: the steps of one attempt, afresh or from a checkpoint, and what becomes of one that failed.

Rules of this file: a restore is tried once. What was begun of it and did not come to run counts as an end of that
attempt, and the next one starts afresh; while the attempt before it still runs, that one is the current one again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from core.runtime.ports import TaskPhase
from reconciler.decide.attempts import Attempt, Ended, Memory, failures_after
from reconciler.decide.facts import ContainerFacts, Now
from reconciler.decide.going import deletion
from reconciler.decide.overrides import RESTART
from reconciler.decide.switching import is_live, runs, task_of
from reconciler.model.actions import (
    Action,
    AskLocal,
    CreateTask,
    LayRoot,
    Plan,
    PrepareTask,
    Remember,
    RestoreTask,
    StartTask,
)
from reconciler.model.kinds.container import ContainerSpec

RESTORE_FAILED: Final = "RestoreFailed"


def launch(facts: ContainerFacts, spec: ContainerSpec, attempt: Attempt) -> Iterator[Action]:
    """From nothing to running; only to prepared when another attempt must be stopped first: two never run together."""
    id = attempt.id(facts.obj.name)
    if attempt.checkpoint:
        yield LayRoot(facts.obj.key, id, attempt.image, attempt.checkpoint)
    yield PrepareTask(facts.obj.key, id, attempt.spec, attempt.image, attempt.sandbox)
    if not any(is_live(task) for task in facts.tasks if task.id != id):
        yield from begin(facts, spec, attempt)


def begin(facts: ContainerFacts, spec: ContainerSpec, attempt: Attempt) -> Iterator[Action]:
    """From prepared to running."""
    id = attempt.id(facts.obj.name)
    if not attempt.checkpoint:
        yield CreateTask(id)
        yield from start(facts, spec, attempt)
        return
    # Its postStart hook was run where it began, and whatever comes of this it is not restored a second time.
    changes = {"current": replace(attempt, started=True).to_json(), "hooked": attempt.attempt}
    yield Remember(facts.obj.key, changes)
    yield RestoreTask(facts.obj.key, id, attempt.checkpoint)


def start(facts: ContainerFacts, spec: ContainerSpec, attempt: Attempt) -> Iterator[Action]:
    """Start, after noting so where an interruption must not lead to a second run."""
    if not attempt.started and (spec.restart.policy, attempt.policy) != ("Always", "Always"):
        yield Remember(facts.obj.key, {"current": replace(attempt, started=True).to_json()})
    yield StartTask(facts.obj.key, attempt.id(facts.obj.name))


def failed_restore(facts: ContainerFacts, memory: Memory, now: Now) -> Plan | None:
    """What to do when the current attempt could not be restored; None: it could, or it is no such attempt."""
    current, previous = memory.current, memory.previous
    if current is None or not current.checkpoint or memory.current_ended() is not None:
        return None
    task, fault = task_of(facts, current), facts.fault
    told = fault is not None and fault.phase == RestoreTask.phase and f"'{current.id(facts.obj.name)}'" in fault.action
    if is_live(task) or not (told or (task is not None and task.phase is TaskPhase.HALF_MADE)):
        return None
    cause = f"{fault.message}; {fault.hint}".rstrip("; ") if told and fault is not None else "it was interrupted"
    message = f"attempt {current.attempt} was not restored: {cause}"
    goes_on = previous is not None and runs(task_of(facts, previous))
    steps: list[Action] = []
    if previous is not None and goes_on:
        changes: dict[str, Any] = {"current": previous.to_json(), "previous": None}
        steps.append(AskLocal(facts.obj.key, {RESTART: None}))  # else it would be asked of that attempt once more
    else:
        ended = Ended(current.attempt, None, now.wall, reason=RESTORE_FAILED)
        changes = {"ended": ended.to_json(), "failures": failures_after(memory, ended)}
    remember = Remember(facts.obj.key, changes, RESTORE_FAILED, message, warning=True)
    # Removed first: what is left of it may run, and nothing else may begin before it is gone.
    gone = [deletion(facts, task.id, memory)] if task is not None else []
    return Plan((*gone, *steps, remember), (), "restore failed")
