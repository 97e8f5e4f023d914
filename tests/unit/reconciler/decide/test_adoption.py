"""A store that was lost: what runs is taken up again, not started anew."""

from dataclasses import replace

from core.runtime.ports import SandboxPhase, TaskPhase
from reconciler.decide.container import plan_container
from reconciler.decide.facts import ContainerFacts, Now, SandboxFacts, SandboxSeen, TaskSeen
from reconciler.decide.others import plan_sandbox, sandbox_hash
from reconciler.model.actions import Remember
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.container import ContainerSpec
from reconciler.model.objects import ORPHAN, Object

NOW = Now(1000.0, 1000.0)
SPEC = {"image": "web", "sandbox": "shared"}
CURRENT = {
    "attempt": 3, "hash": "0123abcd", "sandbox": "shared-01234567-1", "boot": "b", "at": 900.0,
    "spec": SPEC, "image": {"digest": "sha256:00"}, "started": False,
}  # fmt: skip
TASK = TaskSeen("web-0123abcd-3", "0123abcd", 3, TaskPhase.RUNNING, True)
LOST = ContainerFacts(Object(Key(Kind.CONTAINER, "web"), spec=SPEC), "b")


def _described(phase: TaskPhase) -> TaskSeen:
    return replace(TASK, phase=phase, described={"record": {"attempt": 3, "current": CURRENT}})


def test_a_running_task_gives_its_container_the_memory_back() -> None:
    facts = replace(LOST, tasks=(_described(TaskPhase.RUNNING),))
    (action,) = plan_container(facts, ContainerSpec.model_validate(SPEC), NOW).actions
    assert isinstance(action, Remember)
    assert action.changes["attempt"] == 3
    assert action.changes["current"] == {**CURRENT, "started": True}


def test_a_prepared_task_is_not_said_to_have_started() -> None:
    facts = replace(LOST, tasks=(_described(TaskPhase.PREPARED),))
    (action,) = plan_container(facts, ContainerSpec.model_validate(SPEC), NOW).actions
    assert isinstance(action, Remember)
    assert action.changes["current"]["started"] is False


def test_a_task_that_says_nothing_of_itself_only_keeps_its_number_from_being_used_again() -> None:
    (action,) = plan_container(replace(LOST, tasks=(TASK,)), ContainerSpec.model_validate(SPEC), NOW).actions
    assert isinstance(action, Remember)
    assert dict(action.changes) == {"attempt": 3}


def test_an_orphan_is_left_alone_and_says_so() -> None:
    orphan = replace(LOST.obj, manager=ORPHAN, record={"attempt": 3, "current": CURRENT})
    plan = plan_container(replace(LOST, obj=orphan, tasks=(TASK,)), ContainerSpec.model_validate(SPEC), NOW)
    assert plan.actions == ()
    assert [wait.reason for wait in plan.waits] == ["Orphan"]
    assert plan.waits[0].stalled


def test_a_whole_sandbox_of_the_same_spec_is_taken_up_again() -> None:
    obj = Object(Key(Kind.SANDBOX, "shared"), spec={"runtime": "runc", "network": {"mode": "none"}})
    hash = sandbox_hash(obj.spec)
    seen = SandboxSeen(f"shared-{hash}-4", hash, 4, SandboxPhase.READY)
    (action,) = plan_sandbox(SandboxFacts(obj, "b", (seen,))).actions
    assert isinstance(action, Remember)
    assert (action.changes["id"], action.changes["attempt"], action.changes["made"]) == (seen.id, 4, True)


def test_a_sandbox_of_another_spec_is_not_taken_up_and_its_number_not_used_again() -> None:
    obj = Object(Key(Kind.SANDBOX, "shared"), spec={"runtime": "runc", "network": {"mode": "none"}})
    seen = SandboxSeen("shared-00000000-4", "00000000", 4, SandboxPhase.READY)
    first = plan_sandbox(SandboxFacts(obj, "b", (seen,))).actions[0]
    assert isinstance(first, Remember)
    assert first.changes["attempt"] == 5
