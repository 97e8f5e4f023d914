"""What to do next for a container: facts in, a plan out (rules 4, 11 and 16 of the architecture).

The story of one attempt: *remember* its number → *prepare* its root and bundle (an older attempt still runs) →
*stop* the older one → *create* → *start* → drop the older one. Each step is taken only when what was seen says that
the one before is done, so that it does not matter where we were killed.

Rules of this file: a number whose making is in doubt is given up for the next; only what was never prepared keeps its.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from core.runtime.ports import TaskPhase
from reconciler.decide.attempts import STOPPED_BY_HAND, Attempt, Ended, Memory, failures_after, restart_delay
from reconciler.decide.facts import ContainerFacts, Now, TaskSeen
from reconciler.decide.going import deletion, drop_older, stop, stop_others, teardown
from reconciler.decide.health import UNHEALTHY, Health, escaped, health
from reconciler.decide.hooks import after_start
from reconciler.decide.launching import begin, failed_restore, launch, start
from reconciler.decide.overrides import STOP, Stop, checkpoint_of, restart_asked, stop_of
from reconciler.decide.surroundings import around, disown_unneeded, ensure_owned, needs
from reconciler.decide.switching import (
    adopted,
    anew,
    failed_switch,
    fresh,
    good_before,
    has_started,
    is_live,
    may_have_run,
    never_ready,
    replaced_by,
    restarts,
    runs,
    switch_fault,
    task_of,
    tried,
    unchanged,
    wanted_again,
)
from reconciler.model.actions import (
    Action,
    AskLocal,
    Await,
    Plan,
    Remember,
    ResumeTask,
    UpdateTask,
)
from reconciler.model.kinds.container import ContainerSpec
from reconciler.model.objects import ORPHAN

_NO_FAULTS: Final = ("NodeRebooted", STOPPED_BY_HAND)
"""Ends that are no fault of the container's."""
_ORPHANED: Final = Await(
    "Orphan",
    "it runs, and nothing that is known here asks for it; it is left alone",
    None,
    stalled=True,
    hint="Apply a manifest of that name to keep it, or delete it.",
)


def plan_container(facts: ContainerFacts, spec: ContainerSpec, now: Now) -> Plan:
    """What to do for a container now."""
    memory = Memory.of(facts.obj.record)
    if facts.obj.deleted is not None:
        return teardown(facts, spec, memory, now)
    if memory.current is None and (known := adopted(facts)) is not None:
        return Plan((Remember(facts.obj.key, known, "Adopted", "a task that the store did not remember"),))
    if facts.obj.manager == ORPHAN:
        return Plan((), (_ORPHANED,))
    highest = max((facts.used, *(task.attempt for task in facts.tasks)))
    if highest > memory.attempt:  # the store is older than the node: no number is used again
        return Plan((Remember(facts.obj.key, {"attempt": highest}),))
    if owned := tuple(ensure_owned(facts)):
        return Plan(owned)
    if (asked_stop := stop_of(facts.obj.local)) is not None:
        if not asked_stop.holds(now.wall):
            return Plan((AskLocal(facts.obj.key, {STOP: None}),), (), "the stop has run out")
        return _stopped(facts, spec, memory, asked_stop, now)
    waits = tuple(needs(facts))
    if memory.current is None:
        return Plan((), waits) if waits else _begin(facts, spec, memory, now, "created")
    asked = restart_asked(facts.obj.local, memory)
    if waits and not asked and _is_done(memory, spec) and unchanged(facts, memory.current):
        return _keep(facts, spec, memory, now)  # it needs nothing any more
    plan = failed_restore(facts, memory, now) or _revert(facts, spec, memory, waits, now)
    if plan is None and not waits and (cause := replaced_by(facts, memory)):
        plan = _begin(facts, spec, memory, now, cause)
    if plan is None and asked and not any(around(facts)):
        plan = _again(facts, spec, memory, now)
    if plan is None:
        plan = _keep(facts, spec, memory, now)
    return replace(plan, waits=(*plan.waits, *failed_switch(facts, memory), *waits))


def _is_done(memory: Memory, spec: ContainerSpec) -> bool:
    ended = memory.current_ended()
    return ended is not None and not restarts(spec.restart.policy, ended)


def _begin(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now, cause: str) -> Plan:
    """A new attempt of the wanted spec; what runs goes on until it is prepared."""
    attempt, before = fresh(facts, memory, now), good_before(facts, memory)
    changes: dict[str, Any] = {
        "attempt": attempt.attempt,
        "current": attempt.to_json(),
        "previous": None if before is None else before.to_json(),
        "failures": 0,
    }
    if not tried(facts, memory):
        changes["failedSwitch"] = None
    return Plan((Remember(facts.obj.key, changes), *launch(facts, spec, attempt)), (), cause)


def _again(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """Another attempt of the same spec because a person asked; what runs goes on until it is prepared."""
    assert memory.current is not None
    again, before = anew(facts, memory, memory.current, now), good_before(facts, memory)
    again = replace(again, checkpoint=checkpoint_of(facts.obj.local))
    changes: dict[str, Any] = {
        "attempt": again.attempt,
        "current": again.to_json(),
        "previous": None if before is None else before.to_json(),
        "failures": 0,
    }
    message = f"attempt {again.attempt} instead of {memory.current.attempt}"
    remember = Remember(facts.obj.key, changes, "RestartedByHand", message)
    return Plan((remember, *launch(facts, spec, again)), (), "restart by hand")


def _stopped(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, asked: Stop, now: Now) -> Plan:
    """A person wants it to stay stopped: end what runs, remove what has not begun, keep the last one's remains."""
    for task in facts.tasks:
        if runs(task) and task.attempt == asked.spares:
            return Plan((), (Await("Checkpointing", "it is being written down", asked.left(now.wall)),))
        if runs(task):
            return stop(facts, spec, task, now)
    unbegun = (TaskPhase.PREPARED, TaskPhase.HALF_MADE, TaskPhase.CREATED)
    if begun := [task for task in facts.tasks if task.phase in unbegun]:
        actions: list[Action] = [deletion(facts, task.id, memory) for task in begun]
        if memory.current is not None and task_of(facts, memory.current) in begun:  # it never ran, whatever was noted
            actions.append(Remember(facts.obj.key, {"current": replace(memory.current, started=False).to_json()}))
        return Plan(tuple(actions), (), "stopped by hand")
    current = memory.current
    last = task_of(facts, current) if current is not None else None
    if last is not None and memory.current_ended() is None:
        if last.exit is None:
            return _remember_end(facts, memory, Ended(last.attempt, None, now.wall, reason=STOPPED_BY_HAND))
        if last.exit.at < asked.at:  # it had ended by itself before
            return _ending(facts, spec, memory, last, now)
        how = Ended(last.attempt, last.exit.code, last.exit.at, last.exit.oom, STOPPED_BY_HAND)
        return _remember_end(facts, memory, how)
    older = tuple(drop_older(facts, memory)) if current is not None else ()
    return Plan(older, (), "stopped by hand", asked.left(now.wall))


def _begin_anew(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> tuple[Action, ...]:
    """The same spec under the next number, with all that follows; nothing while what it needs is not there."""
    assert memory.current is not None
    if any(around(facts)):
        return ()
    again = anew(facts, memory, memory.current, now)
    if not memory.current.started:  # it never began: what it was to go on from is still to be gone on from
        again = replace(again, checkpoint=memory.current.checkpoint)
    remember = Remember(facts.obj.key, {"attempt": again.attempt, "current": again.to_json()})
    return (remember, *launch(facts, spec, again))


def _revert(
    facts: ContainerFacts, spec: ContainerSpec, memory: Memory, waits: tuple[Await, ...], now: Now
) -> Plan | None:
    """Go back to the attempt that still runs when it is wanted again, or when the switch to the new one failed."""
    current, previous = memory.current, memory.previous
    if current is None or previous is None:
        return None
    if runs(task_of(facts, previous)):
        anew_by_hand = (previous.hash, previous.sandbox) == (current.hash, current.sandbox)
        if waits or anew_by_hand or not wanted_again(facts, previous):
            return None
        changes: dict[str, Any] = {"current": previous.to_json(), "previous": None, "failedSwitch": None}
        return Plan((Remember(facts.obj.key, changes),), (), "changed back")
    fault = switch_fault(facts, memory, spec.restart.policy)
    cause = fault.message if fault is not None else never_ready(facts, memory, spec)
    if not cause:
        return None
    again = anew(facts, memory, previous, now)
    changes = {
        "attempt": again.attempt,
        "current": again.to_json(),
        "previous": None,
        "failedSwitch": {"hash": current.hash, "cause": cause},
    }
    message = f"the new attempt failed ({cause}); the one before is started again"
    steps = () if any(around(facts)) else tuple(launch(facts, spec, again))
    return Plan((Remember(facts.obj.key, changes, "SwitchFailed", message), *steps), (), "switch failed")


def _keep(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """The current attempt is the right one: bring it to where it should be."""
    current = memory.current
    assert current is not None
    task = task_of(facts, current)
    if memory.current_ended() is not None and not is_live(task):
        return _after_end(facts, spec, memory, now)
    if task is None:
        return _absent(facts, spec, memory, current, now)
    match task.phase:
        case TaskPhase.ABSENT:
            return _absent(facts, spec, memory, current, now)
        case TaskPhase.PREPARED if current.boot == facts.boot:
            return _switch(facts, spec, memory, current, now)
        case TaskPhase.PREPARED | TaskPhase.HALF_MADE:
            return Plan((deletion(facts, task.id, memory), *_begin_anew(facts, spec, memory, now)))
        case TaskPhase.CREATED:
            others = stop_others(facts, spec, memory, now)
            return others if others is not None else Plan(tuple(start(facts, spec, current)))
        case TaskPhase.PAUSED:
            return Plan((ResumeTask(facts.obj.key, task.id),), (), "something has frozen it")
        case TaskPhase.RUNNING:
            return _running(facts, spec, memory, now)
        case TaskPhase.STOPPED | TaskPhase.LOST:
            return _ending(facts, spec, memory, task, now)


def _absent(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, current: Attempt, now: Now) -> Plan:
    """Nothing of the current attempt is here: it was never prepared, or it is gone."""
    rebooted = current.boot != facts.boot
    if current.started or (rebooted and may_have_run(current)):
        reason = "NodeRebooted" if rebooted else "TaskLost"
        return _remember_end(facts, memory, Ended(current.attempt, None, now.wall, reason=reason))
    fault = facts.fault
    of_this_spec = f"'{facts.obj.name}-{current.hash}-"
    unprepared = fault is not None and fault.phase == "preparing" and of_this_spec in fault.action
    if unprepared and not rebooted and _is_at_home(facts, current):
        return Plan(tuple(launch(facts, spec, current)))
    return Plan(_begin_anew(facts, spec, memory, now))


def _is_at_home(facts: ContainerFacts, current: Attempt) -> bool:
    """Whether its sandbox is there."""
    return facts.sandbox is not None and facts.sandbox.ready and facts.sandbox.id == current.sandbox


def _switch(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, current: Attempt, now: Now) -> Plan:
    """Prepared: stop all older attempts, then create and start."""
    if not _is_at_home(facts, current):
        return Plan()
    others = stop_others(facts, spec, memory, now)
    return others or Plan(tuple(begin(facts, spec, current)))


def _running(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """It runs: bring limits in line, forget the switch, drop older attempts."""
    current = memory.current
    assert current is not None
    if (others := stop_others(facts, spec, memory, now)) is not None:
        return others
    if (hook := after_start(facts, spec, memory)) is not None:
        return hook
    state = health_of(facts, spec, memory)
    if (end := _unhealthy(facts, spec, memory, state, now)) is not None:
        return end
    actions: list[Action] = []
    wanted = facts.obj.spec.get("resources", {})
    changes: dict[str, Any] = {}
    if memory.previous is not None and state.ready:
        changes["previous"] = None
    if spec.probes.startup is not None and state.started and memory.started != current.attempt:
        changes["startedUp"] = current.attempt
    if wanted != current.spec.get("resources", {}):
        actions.append(UpdateTask(current.id(facts.obj.name), wanted))
        changed = {name: value for name, value in current.spec.items() if name != "resources"}
        changes["current"] = replace(current, spec={**changed, **({"resources": wanted} if wanted else {})}).to_json()
    known = not any(needs(facts))
    if known and memory.failed_switch is not None and not tried(facts, memory):
        changes["failedSwitch"] = None  # the manifest has changed since: it may be changed to that again
    if changes:
        actions.append(Remember(facts.obj.key, changes))
    actions.extend(drop_older(facts, memory))
    if known and not tried(facts, memory):
        actions.extend(disown_unneeded(facts))
    return Plan(tuple(actions), () if state.ready else (Await("NotReady", state.trouble),))


def health_of(facts: ContainerFacts, spec: ContainerSpec, memory: Memory) -> Health:
    """What its probes say of the current attempt, which runs."""
    assert memory.current is not None
    return health(spec.probes, facts.probes, started=has_started(facts.probes, memory))


def _unhealthy(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, state: Health, now: Now) -> Plan | None:
    """A probe or its groups say that it must be ended: write down why, then end it; who was condemned is not spared."""
    current = memory.current
    assert current is not None
    task = task_of(facts, current)
    assert task is not None
    if memory.condemned():
        return stop(facts, spec, task, now)
    if not (cause := state.fatal or escaped(task.outside)):
        return None
    mark = {"unhealthy": {"attempt": current.attempt, "cause": cause}}
    return Plan((Remember(facts.obj.key, mark, UNHEALTHY, cause),), (), "unhealthy")


def _ending(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, task: TaskSeen, now: Now) -> Plan:
    """It ended, or its monitor did: write down how."""
    if task.phase is TaskPhase.LOST:
        current = memory.current
        assert current is not None
        if task.alive:
            return stop(facts, spec, task, now)
        if not may_have_run(current):
            return Plan((deletion(facts, task.id, memory), *_begin_anew(facts, spec, memory, now)))
        reason = "NodeRebooted" if current.boot != facts.boot else "MonitorLost"
        return _remember_end(facts, memory, Ended(task.attempt, None, now.wall, reason=reason))
    seen = task.exit
    assert seen is not None
    reason = "OOMKilled" if seen.oom else "Completed" if seen.code == 0 else "Error"
    if memory.condemned():
        reason = UNHEALTHY
    return _remember_end(facts, memory, Ended(task.attempt, seen.code, seen.at, seen.oom, reason))


def _remember_end(facts: ContainerFacts, memory: Memory, ended: Ended) -> Plan:
    failures = memory.failures if ended.reason in _NO_FAULTS else failures_after(memory, ended)
    code = "unknown code" if ended.code is None else f"code {ended.code}"
    message = f"attempt {ended.attempt} ended with {code}"
    changes = {"ended": ended.to_json(), "failures": failures}
    return Plan((Remember(facts.obj.key, changes, ended.reason, message),))


def _after_end(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """It ended and that is written down: start it again, wait, or be done."""
    ended, current = memory.current_ended(), memory.current
    assert ended is not None
    assert current is not None
    if (others := stop_others(facts, spec, memory, now)) is not None:
        return others
    if not restarts(spec.restart.policy, ended):
        return _done(facts, memory)
    if any(around(facts)):
        return Plan()
    left = _pause_left(memory, ended, spec.restart.max_delay, now)
    if left > 0.001:
        message = f"ended with {ended.reason} ({memory.failures} in a row); next start in {left:.0f} s"
        return Plan(tuple(drop_older(facts, memory)), (Await("BackOff", message, left),))
    again = anew(facts, memory, current, now)
    count = memory.restarts + (ended.reason != STOPPED_BY_HAND)
    changes = {"attempt": again.attempt, "current": again.to_json(), "restarts": count}
    remember = Remember(facts.obj.key, changes, "Restarting", f"attempt {again.attempt} after {ended.reason}")
    return Plan((remember, *launch(facts, spec, again)), (), "restart")


def _pause_left(memory: Memory, ended: Ended, most: float, now: Now) -> float:
    """Seconds until the next start. A clock that is now before the end has jumped back: then nothing is left."""
    if ended.reason in _NO_FAULTS or now.wall < ended.at:
        return 0.0
    return ended.at + restart_delay(memory.failures, most) - now.wall


def _done(facts: ContainerFacts, memory: Memory) -> Plan:
    """It ended for good: let go of all but its own remains."""
    actions: list[Action] = []
    if memory.previous is not None:
        actions.append(Remember(facts.obj.key, {"previous": None}))
    actions.extend(drop_older(facts, replace(memory, previous=None)))
    if memory.current is not None and unchanged(facts, memory.current):
        actions.extend(disown_unneeded(facts))
    return Plan(tuple(actions))
