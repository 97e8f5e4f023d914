"""What hooks ask for: a command after the start before anything else counts, one before the end within the grace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reconciler.decide.attempts import Memory
from reconciler.decide.facts import ContainerFacts, HookSeen, Now, StopAsked, TaskSeen
from reconciler.decide.health import UNHEALTHY
from reconciler.model.actions import Await, Plan, Remember, RunHook
from reconciler.model.identity import Key
from reconciler.model.kinds.container import ContainerSpec
from reconciler.model.kinds.hooks import POST_START, PRE_STOP, Hook

_LOOK: Final = 60.0


def awaits_start(spec: ContainerSpec, memory: Memory) -> bool:
    """Whether the current attempt's postStart hook has not ended well yet."""
    return spec.hooks.post_start is not None and memory.current is not None and memory.hooked != memory.current.attempt


def after_start(facts: ContainerFacts, spec: ContainerSpec, memory: Memory) -> Plan | None:
    """The next step of the postStart hook of the current attempt, which runs; None when there is nothing to do."""
    hook, current = spec.hooks.post_start, memory.current
    if hook is None or current is None or not awaits_start(spec, memory) or memory.condemned():
        return None
    key, id = facts.obj.key, current.id(facts.obj.name)
    seen = facts.hooks.get((id, POST_START))
    if seen is None:
        return Plan((RunHook(key, id, POST_START, tuple(hook.exec), hook.timeout),), (), POST_START)
    if not seen.done:
        return Plan((), (Await("PostStart", "its postStart hook runs", hook.timeout + _LOOK),))
    if seen.fault:
        mark = {"unhealthy": {"attempt": current.attempt, "cause": f"postStart: {seen.fault}"}}
        return Plan((Remember(key, mark, UNHEALTHY, f"postStart: {seen.fault}", True),), (), "postStart failed")
    return Plan((Remember(key, {"hooked": current.attempt}),), (), "postStart is done")


def before_stop(
    key: Key,
    task: TaskSeen,
    hook: Hook,
    seen: Mapping[tuple[str, str], HookSeen],
    asked: StopAsked | None,
    grace: float,
    now: Now,
) -> Plan | None:
    """The next step of the preStop hook; None when it is time to ask the container itself."""
    if asked is None:
        most = max(0.1, min(hook.timeout, grace))
        return Plan((RunHook(key, task.id, PRE_STOP, tuple(hook.exec), most),), (), PRE_STOP)
    left = asked.asked + grace - now.monotonic
    found = seen.get((task.id, PRE_STOP))
    if not asked.hooking or found is None or found.done or left <= 0:
        return None
    return Plan((), (Await("Stopping", f"its preStop hook runs; {left:.0f} s of grace left", left),))
