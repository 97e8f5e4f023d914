"""Which spec a container's attempt should have: why the current one gives way, to what, and when to go back (rule 16).

Rules of this file: what the person wants is compared by hash; a spec that could not be switched to is not wanted until
the manifest changes; what was never seen to run is nothing to go back to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from core.errors import Retry
from core.runtime.ports import TaskPhase
from reconciler.decide.attempts import IN_PLACE, STOPPED_BY_HAND, Attempt, Ended, Memory, container_hash, next_attempt
from reconciler.decide.facts import ContainerFacts, Now, TaskSeen
from reconciler.decide.health import ProbeSeen
from reconciler.model.actions import Await
from reconciler.model.kinds.container import ContainerSpec
from reconciler.model.outcome import Fault

LIVE: Final = (TaskPhase.CREATED, TaskPhase.RUNNING, TaskPhase.PAUSED)
_TRIES: Final = 3


def task_of(facts: ContainerFacts, made: Attempt) -> TaskSeen | None:
    """What of an attempt is on the node."""
    id = made.id(facts.obj.name)
    return next((task for task in facts.tasks if task.id == id), None)


def adopted(facts: ContainerFacts) -> dict[str, Any] | None:
    """The memory of a container whose store was lost: what its newest attempt was prepared with."""
    for task in reversed(facts.tasks):
        record = (task.described or {}).get("record", {})
        if record.get("current", {}).get("attempt") == task.attempt:
            begun = task.phase not in (TaskPhase.PREPARED, TaskPhase.HALF_MADE)
            return {**record, "current": {**record["current"], "started": record["current"]["started"] or begun}}
    return None


def is_live(task: TaskSeen | None) -> bool:
    """Whether it must be gone before another may be created."""
    return task is not None and (task.phase in LIVE or (task.phase is TaskPhase.LOST and task.alive))


def runs(task: TaskSeen | None) -> bool:
    """Whether its own program runs."""
    return task is not None and is_live(task) and task.phase is not TaskPhase.CREATED


def may_have_run(made: Attempt) -> bool:
    """Whether a start is possible though nobody saw it: a start is noted first unless the policy is Always."""
    return made.started or made.policy == "Always"


def restarts(policy: str, ended: Ended) -> bool:
    """Whether the restart policy asks for another run after this end; after a stop by hand it is not asked."""
    return ended.reason == STOPPED_BY_HAND or policy == "Always" or (policy == "OnFailure" and ended.failed)


def desired_hash(facts: ContainerFacts) -> str:
    """The hash that the container's current attempt should have."""
    image = facts.image.record if facts.image is not None else {}
    return container_hash(facts.obj.spec, image, facts.secrets)


def tried(facts: ContainerFacts, memory: Memory) -> bool:
    """Whether the wanted spec is the one that could not be switched to."""
    return memory.failed_switch is not None and memory.failed_switch["hash"] == desired_hash(facts)


def replaced_by(facts: ContainerFacts, memory: Memory) -> str:
    """Why the current attempt must give way, or ""."""
    current = memory.current
    if current is None or facts.sandbox is None:
        return ""
    if current.hash != desired_hash(facts) and not tried(facts, memory):
        return "spec changed"
    goes_on = memory.current_ended() is None or is_live(task_of(facts, current))
    unfinished = goes_on and current.boot == facts.boot
    if current.sandbox != facts.sandbox.id and unfinished:
        return "sandbox changed"
    return ""


def unchanged(facts: ContainerFacts, made: Attempt) -> bool:
    """Whether the manifest itself asks for nothing that the attempt does not have."""
    pair = [
        {name: value for name, value in spec.items() if name not in IN_PLACE} for spec in (made.spec, facts.obj.spec)
    ]
    return pair[0] == pair[1]


def fresh(facts: ContainerFacts, memory: Memory, now: Now) -> Attempt:
    """The next attempt of the wanted spec, or of the current one where the wanted one was tried and failed."""
    assert facts.image is not None
    assert facts.sandbox is not None
    if memory.current is not None and tried(facts, memory):
        return anew(facts, memory, memory.current, now)
    return Attempt(
        attempt=memory.attempt + 1,
        hash=desired_hash(facts),
        sandbox=facts.sandbox.id,
        boot=facts.boot,
        at=now.wall,
        spec=dict(facts.obj.spec),
        image=dict(facts.image.record),
    )


def anew(facts: ContainerFacts, memory: Memory, like: Attempt, now: Now) -> Attempt:
    """The next attempt of the spec of `like`, in today's sandbox, with today's word on all that changes in place."""
    kept = {name: value for name, value in like.spec.items() if name not in IN_PLACE}
    today = {name: value for name, value in facts.obj.spec.items() if name in IN_PLACE}
    sandbox = facts.sandbox.id if facts.sandbox is not None else like.sandbox
    return replace(next_attempt(memory, like), spec={**kept, **today}, sandbox=sandbox, boot=facts.boot, at=now.wall)


def good_before(facts: ContainerFacts, memory: Memory) -> Attempt | None:
    """What to go back to if another attempt cannot be switched to: what runs, or ran before an unfinished switch."""
    current = memory.current
    if current is None or not runs(task_of(facts, current)):
        return memory.previous
    return memory.previous if memory.previous is not None and _tells_ready(current) else current


def _tells_ready(made: Attempt) -> bool:
    """Whether probes say when it is ready; until then what was before it is remembered."""
    return any(role in made.spec.get("probes", {}) for role in ("startup", "readiness"))


def wanted_again(facts: ContainerFacts, previous: Attempt) -> bool:
    """Whether `previous` is what is wanted, where it is wanted."""
    return facts.sandbox is not None and (previous.hash, previous.sandbox) == (desired_hash(facts), facts.sandbox.id)


def switch_fault(facts: ContainerFacts, memory: Memory, policy: str) -> Fault | None:
    """Why the switch from the previous to the current attempt failed, when it did and the previous one is down.

    What another try may mend (a runtime that was killed) has failed when it did so three times. Also when the current
    one can never be prepared and the previous one, left running for that, has ended by itself.
    """
    current, previous, fault = memory.current, memory.previous, facts.fault
    if current is None or previous is None or fault is None or current.hash == previous.hash:
        return None
    if f"'{current.id(facts.obj.name)}'" not in fault.action:
        return None
    if fault.phase in ("creating", "starting"):
        return fault if fault.retry is Retry.NEVER or fault.failures >= _TRIES else None
    if fault.phase != "preparing" or fault.retry is not Retry.NEVER:
        return None
    task = task_of(facts, previous)
    code = None if task is None or task.exit is None else task.exit.code
    return fault if restarts(policy, Ended(previous.attempt, code, 0.0)) else None


def has_started(probes: Mapping[str, ProbeSeen], memory: Memory) -> bool:
    """Whether the startup probe of the current attempt has passed, as seen now or as remembered."""
    assert memory.current is not None
    return memory.started == memory.current.attempt or probes.get("startup", ProbeSeen()).passing


def never_ready(facts: ContainerFacts, memory: Memory, spec: ContainerSpec) -> str:
    """Why the switch failed though the new attempt was started: it ended before its probes ever called it ready."""
    current, previous, ended = memory.current, memory.previous, memory.current_ended()
    if current is None or previous is None or ended is None or current.hash == previous.hash:
        return ""
    if not _tells_ready(current) or (not ended.failed and spec.restart.policy != "Always"):
        return ""
    code = "unknown code" if ended.code is None else f"code {ended.code}"
    return memory.condemned() or f"it ended with {code} before it was ready"


def failed_switch(facts: ContainerFacts, memory: Memory) -> Iterator[Await]:
    """That the wanted spec was tried in vain."""
    if memory.failed_switch is not None and tried(facts, memory):
        yield Await(
            "SwitchFailed",
            f"the changed container could not be started ({memory.failed_switch['cause']}); "
            "the one before was started again",
            None,
            stalled=True,
            hint="Change the manifest; the failed spec is not tried again by itself.",
        )
