"""What goes: an attempt that runs is asked to end, what is left of others is removed, all of a deleted container."""

from __future__ import annotations

from collections.abc import Iterator

from core.runtime.ports import TaskPhase
from reconciler.decide.attempts import Memory
from reconciler.decide.facts import ContainerFacts, Now, TaskSeen
from reconciler.decide.hooks import before_stop
from reconciler.decide.stopping import goodbye, stop_task
from reconciler.decide.switching import is_live, runs, task_of
from reconciler.model.actions import Action, DeleteTask, Plan, Release, RemoveLogs
from reconciler.model.kinds.container import ContainerSpec


def stop_others(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan | None:
    """The next step towards the end of every other attempt; None when none of them lives."""
    assert memory.current is not None
    others = [task for task in facts.tasks if task.id != memory.current.id(facts.obj.name) and is_live(task)]
    for task in others:
        if runs(task):
            return stop(facts, spec, task, now)
    return Plan(tuple(deletion(facts, task.id, memory) for task in others)) if others else None


def stop(facts: ContainerFacts, spec: ContainerSpec, task: TaskSeen, now: Now) -> Plan:
    """The next step towards the end of `task`, as the spec or the image it was made from asks."""
    memory = Memory.of(facts.obj.record)
    made = next((one for one in (memory.current, memory.previous) if one and one.attempt == task.attempt), None)
    wish = goodbye(spec, made.image if made else {})
    hook = spec.hooks.pre_stop
    if hook is not None and task.phase is TaskPhase.RUNNING:
        asked = facts.stopping.get(task.id)
        hooking = before_stop(facts.obj.key, task, hook, facts.hooks, asked, wish.grace, now)
        if hooking is not None:
            return hooking
    return stop_task(facts.obj.key, task, facts.stopping, wish, now)


def drop_older(facts: ContainerFacts, memory: Memory) -> Iterator[Action]:
    """Remove what is left of other attempts, but of the one to go back to while the current one was not seen to run."""
    assert memory.current is not None
    kept = {memory.current.id(facts.obj.name)}
    if memory.previous is not None and not runs(task_of(facts, memory.current)):
        kept.add(memory.previous.id(facts.obj.name))
    for task in facts.tasks:
        if task.id not in kept and not is_live(task):
            yield deletion(facts, task.id, memory)


def deletion(facts: ContainerFacts, id: str, memory: Memory, *, keep_log: bool = True) -> DeleteTask:
    driver = "" if memory.current is None else str(memory.current.image.get("driver", ""))
    return DeleteTask(facts.obj.key, id, driver, keep_log)


def teardown(facts: ContainerFacts, spec: ContainerSpec, memory: Memory, now: Now) -> Plan:
    """It is to go: stop what runs, remove every attempt, its logs, then let go of the object."""
    for task in facts.tasks:
        if runs(task):
            return stop(facts, spec, task, now)
    if facts.tasks:
        return Plan(tuple(deletion(facts, task.id, memory, keep_log=False) for task in facts.tasks))
    return Plan((RemoveLogs(facts.obj.name), Release(facts.obj.key)), (), "deleted")
