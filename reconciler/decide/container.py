"""What to do next for a container: facts in, a plan out (rules 4, 11 and 16 of the architecture).

The story of one attempt: *remember* its number → *prepare* its root and bundle (an older attempt still runs) →
*stop* the older one → *create* → *start* → drop the older one. Each step is taken only when what was seen says that
the one before is done, so that it does not matter where we were killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from core.runtime.ports import TaskPhase
from reconciler.decide.attempts import (
    Attempt,
    Ended,
    Memory,
    container_hash,
    failures_after,
    next_attempt,
    restart_delay,
)
from reconciler.decide.facts import ContainerFacts, Now, TaskSeen
from reconciler.decide.stopping import goodbye, stop_task
from reconciler.decide.surroundings import disown_unneeded, ensure_owned, needs
from reconciler.model.actions import (
    Action,
    Await,
    CreateTask,
    DeleteTask,
    Plan,
    PrepareTask,
    Release,
    Remember,
    RemoveLogs,
    StartTask,
    UpdateTask,
)
from reconciler.model.kinds.container import ContainerSpec

NEVER_RAN: Final = (TaskPhase.ABSENT, TaskPhase.PREPARED, TaskPhase.HALF_MADE)
LIVE: Final = (TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED)


def plan_container(facts: ContainerFacts, spec: ContainerSpec, now: Now) -> Plan:
    """What to do for a container now."""
    memory = Memory.of(facts.obj.record)
    if facts.obj.deleted is not None:
        return _teardown(facts, spec, memory, now)
    if owned := tuple(ensure_owned(facts)):
        return Plan(owned)
    waits = tuple(needs(facts))
    if memory.current is None:
        return Plan((), waits, "") if waits else _begin(facts, spec, memory, now, "created")
    revert = _revert(facts, memory, waits)
    if revert is not None:
        return revert
    if not waits and (cause := _replaced_by(facts, memory)):
        return _begin(facts, spec, memory, now, cause)
    return _with_waits(_keep(facts, spec, memory, now), waits)


def _with_waits(plan: Plan, waits: tuple[Await, ...]) -> Plan:
    return replace(plan, waits=(*plan.waits, *waits)) if waits else plan


def _task(facts: ContainerFacts, attempt: int) -> TaskSeen | None:
    return next((task for task in facts.tasks if task.attempt == attempt), None)


def _live(task: TaskSeen | None) -> bool:
    return task is not None and (task.phase in LIVE or (task.phase is TaskPhase.LOST and task.alive))


def desired_hash(facts: ContainerFacts) -> str:
    """The hash that the container's current attempt should have."""
    image = facts.image.record if facts.image is not None else {}
    return container_hash(facts.obj.spec, image, facts.secrets)


def _replaced_by(facts: ContainerFacts, memory: Memory) -> str:
    """Why the current attempt must give way, or ""."""
    current = memory.current
    if current is None or facts.sandbox is None:
        return ""
    wanted = desired_hash(facts)
    if memory.failed_switch is not None and memory.failed_switch["hash"] == wanted:
        wanted = current.hash  # that spec was tried and failed; the one before runs until the spec changes again
    if current.hash != wanted:
        return "spec changed"
    unfinished = memory.current_ended() is None and current.boot == facts.boot
    if current.sandbox != facts.sandbox.id and unfinished:
        return "sandbox changed"
    return ""


def _begin(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now, cause: str) -> Plan:
    """A new attempt of the wanted spec; what runs goes on until it is prepared."""
    assert facts.image is not None
    assert facts.sandbox is not None
    attempt = Attempt(
        attempt=memory.attempt + 1,
        hash=desired_hash(facts),
        sandbox=facts.sandbox.id,
        boot=facts.boot,
        at=now.wall,
        spec=dict(facts.obj.spec),
        image=dict(facts.image.record),
    )
    previous = memory.previous or memory.current
    if previous is not None and not _live(_task(facts, previous.attempt)):
        previous = None
    remembered: dict[str, Any] = {
        "attempt": attempt.attempt,
        "current": attempt.to_json(),
        "previous": None if previous is None else previous.to_json(),
        "failures": 0,
        "failedSwitch": None,
    }
    record = Remember(facts.obj.key, remembered)
    return Plan((record, *_launch(facts, spec, attempt)), (), cause)


def _launch(facts: ContainerFacts, spec: ContainerSpec, attempt: Attempt) -> Iterator[Action]:
    """From nothing to running; only to prepared when another attempt must be stopped first: two never run together."""
    id = attempt.id(facts.obj.name)
    yield PrepareTask(facts.obj.key, id, attempt.spec, attempt.image, attempt.sandbox)
    if not any(_live(task) for task in facts.tasks if task.attempt != attempt.attempt):
        yield CreateTask(id)
        yield from _start(facts, spec, attempt)


def _start(facts: ContainerFacts, spec: ContainerSpec, attempt: Attempt) -> Iterator[Action]:
    """Start, after noting so where an interruption must not lead to a second run."""
    if spec.restart.policy != "Always" and not attempt.started:
        yield Remember(facts.obj.key, {"current": replace(attempt, started=True).to_json()})
    yield StartTask(facts.obj.key, attempt.id(facts.obj.name))


def _revert(facts: ContainerFacts, memory: Memory, waits: tuple[Await, ...]) -> Plan | None:
    """Go back to the attempt that still runs when it is wanted again, or when the switch to the new one failed."""
    current, previous = memory.current, memory.previous
    if current is None or previous is None:
        return None
    if not waits and _wanted_again(facts, previous) and _live(_task(facts, previous.attempt)):
        changes: dict[str, Any] = {"current": previous.to_json(), "previous": None, "failedSwitch": None}
        return Plan((Remember(facts.obj.key, changes),), (), "changed back")
    fault = facts.fault
    switching = (
        fault is not None and fault.phase in ("creating", "starting") and current.id(facts.obj.name) in fault.action
    )
    if fault is None or not switching or _live(_task(facts, previous.attempt)):
        return None
    again = next_attempt(memory, previous)
    changes = {
        "attempt": again.attempt,
        "current": again.to_json(),
        "previous": None,
        "failedSwitch": {"hash": current.hash, "cause": fault.message},
    }
    message = f"the new attempt failed ({fault.message}); the one before is started again"
    return Plan((Remember(facts.obj.key, changes, "SwitchFailed", message),), (), "switch failed")


def _wanted_again(facts: ContainerFacts, previous: Attempt) -> bool:
    return facts.sandbox is not None and (previous.hash, previous.sandbox) == (desired_hash(facts), facts.sandbox.id)


def _keep(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """The current attempt is the right one: bring it to where it should be."""
    current = memory.current
    assert current is not None
    id = current.id(facts.obj.name)
    task = _task(facts, current.attempt)
    phase = TaskPhase.ABSENT if task is None else task.phase
    if memory.current_ended() is not None and not (task and _live(task)):
        return _after_end(facts, spec, memory, now)
    match phase:
        case TaskPhase.ABSENT if current.started or current.boot != facts.boot:
            reason = "NodeRebooted" if current.boot != facts.boot else "TaskLost"
            return _remember_end(facts, memory, Ended(current.attempt, None, now.wall, reason=reason))
        case TaskPhase.ABSENT:
            return Plan(tuple(_launch(facts, spec, current)))
        case TaskPhase.PREPARED:
            return _switch(facts, spec, memory, current, now)
        case TaskPhase.HALF_MADE:
            again = replace(next_attempt(memory, current), at=now.wall)
            remember = Remember(facts.obj.key, {"attempt": again.attempt, "current": again.to_json()})
            return Plan((_delete(facts, id, current), remember))
        case TaskPhase.CREATED:
            return Plan(tuple(_start(facts, spec, current)))
        case TaskPhase.RUNNING | TaskPhase.PAUSED:
            return _running(facts, spec, memory, current, now)
        case TaskPhase.STOPPED | TaskPhase.LOST:
            assert task is not None
            return _ending(facts, spec, memory, task, now)


def _switch(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, current: Attempt, now: Now) -> Plan:
    """Prepared: stop all older attempts, then create and start."""
    if facts.sandbox is None or not facts.sandbox.ready:
        return Plan()
    for task in facts.tasks:
        if task.attempt != current.attempt and _live(task):
            return _stop(facts, spec, task, now)
    return Plan((CreateTask(current.id(facts.obj.name)), *_start(facts, spec, current)))


def _stop(facts: ContainerFacts, spec: ContainerSpec, task: TaskSeen, now: Now) -> Plan:
    """The next step towards the end of `task`, as the spec or the image it was made from asks."""
    memory = Memory.of(facts.obj.record)
    made = next((one for one in (memory.current, memory.previous) if one and one.attempt == task.attempt), None)
    return stop_task(facts.obj.key, task, facts.stopping, goodbye(spec, made.image if made else {}), now)


def _running(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, current: Attempt, now: Now) -> Plan:
    """It runs: drop older attempts, bring limits in line, forget the switch."""
    actions: list[Action] = []
    for task in facts.tasks:
        if task.attempt == current.attempt:
            continue
        if _live(task):
            return _stop(facts, spec, task, now)
        actions.append(_delete(facts, task.id, memory.previous or current))
    wanted = facts.obj.spec.get("resources", {})
    changes: dict[str, Any] = {}
    if wanted != current.spec.get("resources", {}):
        actions.append(UpdateTask(current.id(facts.obj.name), wanted))
        changed = {name: value for name, value in current.spec.items() if name != "resources"}
        changes["current"] = replace(current, spec={**changed, **({"resources": wanted} if wanted else {})}).to_json()
    if memory.previous is not None:
        changes["previous"] = None
    if changes:
        actions.append(Remember(facts.obj.key, changes))
    actions.extend(disown_unneeded(facts))
    return Plan(tuple(actions), tuple(_failed_switch(facts, memory)))


def _failed_switch(facts: ContainerFacts, memory: Memory) -> Iterator[Await]:
    failed = memory.failed_switch
    if failed is not None and failed["hash"] == desired_hash(facts):
        yield Await(
            "SwitchFailed",
            f"the changed container could not be started ({failed['cause']}); the one before was started again",
            None,
            stalled=True,
            hint="Change the manifest; the failed spec is not tried again by itself.",
        )


def _ending(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, task: TaskSeen, now: Now) -> Plan:
    """It ended, or its monitor did: write down how."""
    if task.phase is TaskPhase.LOST:
        if task.alive:
            return _stop(facts, spec, task, now)
        current = memory.current
        reason = "NodeRebooted" if current is not None and current.boot != facts.boot else "MonitorLost"
        return _remember_end(facts, memory, Ended(task.attempt, None, now.wall, reason=reason))
    seen = task.exit
    assert seen is not None
    reason = "OOMKilled" if seen.oom else "Completed" if seen.code == 0 else "Error"
    return _remember_end(facts, memory, Ended(task.attempt, seen.code, seen.at, seen.oom, reason))


def _remember_end(facts: ContainerFacts, memory: Memory, ended: Ended) -> Plan:
    failures = memory.failures if ended.reason == "NodeRebooted" else failures_after(memory, ended)
    changes = {"ended": ended.to_json(), "failures": failures if ended.failed else max(1, failures)}
    code = "unknown code" if ended.code is None else f"code {ended.code}"
    message = f"attempt {ended.attempt} ended with {code}"
    return Plan((Remember(facts.obj.key, changes, ended.reason, message),))


def restarts(policy: str, ended: Ended) -> bool:
    """Whether the restart policy asks for another run after this end."""
    return policy == "Always" or (policy == "OnFailure" and ended.failed)


def _after_end(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """It ended and that is written down: start it again, wait, or be done."""
    ended, current = memory.current_ended(), memory.current
    assert ended is not None
    assert current is not None
    if not restarts(spec.restart.policy, ended):
        return Plan(tuple(_drop_older(facts, current)), tuple(_failed_switch(facts, memory)))
    if facts.sandbox is None or not facts.sandbox.ready:
        return Plan()
    pause = restart_delay(memory.failures, spec.restart.max_delay)
    left = min(pause, ended.at + pause - now.wall)  # a clock that jumped back must not stretch it
    if ended.reason != "NodeRebooted" and left > 0.001:
        message = f"ended with {ended.reason} ({memory.failures} in a row); next start in {left:.0f} s"
        return Plan(tuple(_drop_older(facts, current)), (Await("BackOff", message, left),))
    again = replace(
        next_attempt(memory, current),
        at=now.wall,
        boot=facts.boot,
        sandbox=facts.sandbox.id,
    )
    changes = {"attempt": again.attempt, "current": again.to_json(), "previous": None, "restarts": memory.restarts + 1}
    message = f"attempt {again.attempt} after {ended.reason}"
    remember = Remember(facts.obj.key, changes, "Restarting", message)
    return Plan((remember, *_launch(facts, spec, again)), (), "restart")


def _drop_older(facts: ContainerFacts, current: Attempt) -> Iterator[Action]:
    for task in facts.tasks:
        if task.attempt != current.attempt and not _live(task):
            yield _delete(facts, task.id, current)


def _delete(facts: ContainerFacts, id: str, like: Attempt) -> DeleteTask:
    return DeleteTask(facts.obj.key, id, str(like.image.get("driver", "")))


def _teardown(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """It is to go: stop what runs, remove every attempt, its logs, then let go of the object."""
    like = memory.current or Attempt(0, "", "", "", 0.0)
    plan = Plan()
    for task in facts.tasks:
        if _live(task) and task.phase is not TaskPhase.CREATED:
            return _stop(facts, spec, task, now)
        plan = replace(plan, actions=(*plan.actions, replace(_delete(facts, task.id, like), keep_log=False)))
    if plan.actions:
        return plan
    return Plan((RemoveLogs(facts.obj.name), Release(facts.obj.key)), (), "deleted")
