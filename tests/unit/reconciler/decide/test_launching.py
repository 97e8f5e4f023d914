"""An attempt from a checkpoint: the steps, once only, and what comes of a failure; a stop that a checkpoint is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.errors import Category, Retry
from core.runtime.ports import Exit, TaskPhase
from reconciler.decide.attempts import STOPPED_BY_HAND, Attempt, Memory, next_attempt
from reconciler.decide.facts import ContainerFacts, TaskSeen
from reconciler.decide.launching import RESTORE_FAILED
from reconciler.decide.overrides import (
    STOP,
    ask_checkpoint,
    ask_restart,
    checkpoint_of,
    confirm_checkpoint,
    stop_of,
)
from reconciler.model.actions import (
    AskLocal,
    CreateTask,
    DeleteTask,
    LayRoot,
    Plan,
    PrepareTask,
    Remember,
    RestoreTask,
    SignalTask,
    StartTask,
)
from reconciler.model.objects import with_local, with_record
from reconciler.model.outcome import Fault
from tests.unit.reconciler.decide.test_container import NOW, SPEC, after, facts, id_of, kinds, plan, with_task


def running(spec: dict[str, Any] = SPEC) -> ContainerFacts:
    """A container whose first attempt runs."""
    seen = facts(spec)
    return with_task(after(seen, plan(seen)), TaskPhase.RUNNING, alive=True)


def asked(seen: ContainerFacts, checkpoint: str = "web-1") -> ContainerFacts:
    """It is to go on from a checkpoint."""
    return replace(seen, obj=with_local(seen.obj, ask_restart(seen.obj, NOW.wall, "", checkpoint)))


def ended(seen: ContainerFacts) -> ContainerFacts:
    """Its attempt has ended."""
    (task,) = seen.tasks
    return replace(seen, tasks=(replace(task, phase=TaskPhase.STOPPED, alive=False, exit=Exit(0, NOW.wall)),))


def memory(seen: ContainerFacts) -> Memory:
    """What is remembered of it."""
    return Memory.of(seen.obj.record)


def current(seen: ContainerFacts) -> Attempt:
    """Its current attempt."""
    found = memory(seen).current
    assert found is not None
    return found


def fault(seen: ContainerFacts, phase: str = "restoring") -> Fault:
    """The restore of the current attempt has failed."""
    action = repr(RestoreTask(seen.obj.key, id_of(seen), "web-1"))
    return Fault(phase, action, Category.FAILED, "criu failed", "look at it", Retry.BACKOFF)


def restoring(seen: ContainerFacts, phase: TaskPhase) -> ContainerFacts:
    """The attempt that was asked for, alone, in that phase, with all remembered that is before a restore."""
    made = after(seen, plan(seen))
    return with_task(made, phase, alive=phase is TaskPhase.RUNNING)


def test_an_attempt_from_a_checkpoint_has_its_root_laid_and_is_restored_not_created() -> None:
    seen = asked(ended(running()))
    made = plan(seen)
    assert kinds(made) == [Remember, LayRoot, PrepareTask, Remember, RestoreTask]
    assert current(after(seen, made)).checkpoint == "web-1"
    assert current(after(seen, made)).started


def test_while_another_runs_it_is_only_prepared_and_restored_when_that_is_gone() -> None:
    seen = asked(running())
    made = plan(seen)
    assert kinds(made) == [Remember, LayRoot, PrepareTask]
    (old,) = seen.tasks
    then = with_task(after(seen, made), TaskPhase.PREPARED)
    assert kinds(plan(replace(then, tasks=(old, *then.tasks)))) == [SignalTask]
    gone = replace(old, phase=TaskPhase.STOPPED, alive=False, exit=Exit(0, NOW.wall))
    assert kinds(plan(replace(then, tasks=(gone, *then.tasks)))) == [Remember, RestoreTask]


def test_what_is_restored_is_not_restored_a_second_time() -> None:
    seen = restoring(asked(ended(running())), TaskPhase.RUNNING)
    assert not any(isinstance(action, RestoreTask | LayRoot) for action in plan(seen).actions)
    stopped = with_task(seen, TaskPhase.STOPPED, exit=Exit(1, NOW.wall))
    noted = after(stopped, plan(stopped))
    again = plan(noted)
    assert kinds(again) == [Remember, PrepareTask, CreateTask, StartTask]
    assert current(after(noted, again)).checkpoint == ""


def test_an_attempt_that_never_began_is_still_to_go_on_from_its_checkpoint() -> None:
    seen = asked(ended(running()))
    first = plan(seen).actions[0]
    assert isinstance(first, Remember)
    killed = after(seen, Plan((first,)))
    assert [*kinds(plan(killed))][:3] == [Remember, LayRoot, PrepareTask]


@pytest.mark.parametrize("told", [True, False])
def test_a_restore_that_failed_is_an_end_with_its_reason_and_the_next_attempt_starts_afresh(told: bool) -> None:
    seen = restoring(asked(ended(running())), TaskPhase.HALF_MADE)
    seen = replace(seen, fault=fault(seen)) if told else seen
    made = plan(seen)
    assert kinds(made) == [DeleteTask, Remember]
    remembered = made.actions[1]
    assert isinstance(remembered, Remember)
    assert (remembered.reason, remembered.warning) == (RESTORE_FAILED, True)
    assert ("criu failed; look at it" if told else "interrupted") in remembered.message
    noted = replace(after(seen, made), tasks=())
    assert kinds(plan(noted)) == [Remember, PrepareTask, CreateTask, StartTask]


def test_a_failed_restore_of_what_is_never_run_again_is_its_end() -> None:
    seen = restoring(asked(ended(running({**SPEC, "restart": {"policy": "Never"}}))), TaskPhase.HALF_MADE)
    noted = replace(after(seen, plan(seen)), tasks=())
    assert not any(isinstance(action, CreateTask | RestoreTask) for action in plan(noted).actions)
    found = memory(noted).current_ended()
    assert found is not None
    assert found.failed


def test_a_root_that_could_not_be_laid_leaves_what_runs_running() -> None:
    seen = asked(running())
    before = current(seen)
    made = after(seen, plan(seen))
    failed = replace(made, fault=fault(made))
    forget, remember = plan(failed).actions
    assert isinstance(forget, AskLocal)
    assert isinstance(remember, Remember)
    assert remember.reason == RESTORE_FAILED
    back = after(failed, Plan((remember,)))
    back = replace(back, obj=with_local(back.obj, forget.changes))
    assert current(back).attempt == before.attempt
    assert memory(back).previous is None
    assert kinds(plan(replace(back, fault=None))) == []


def test_another_fault_is_no_failed_restore() -> None:
    seen = restoring(asked(ended(running())), TaskPhase.PREPARED)
    seen = replace(seen, fault=fault(seen, "preparing"))
    assert kinds(plan(seen)) == [Remember, RestoreTask]


def test_the_record_of_an_attempt_that_starts_afresh_is_as_older_versions_know_it() -> None:
    made = Attempt(1, "aaaaaaaa", "box", "boot", 1.0)
    assert "checkpoint" not in made.to_json()
    from_one = replace(made, checkpoint="web-1")
    assert Attempt.from_json(from_one.to_json()) == from_one
    assert next_attempt(Memory(attempt=1), from_one).checkpoint == ""


# A stop that is a checkpoint.


def ending(seen: ContainerFacts, seconds: float = 60.0) -> ContainerFacts:
    """Its checkpoint is being written, which ends it."""
    attempt = current(seen).attempt
    return replace(seen, obj=with_local(seen.obj, ask_checkpoint(NOW.wall, seconds, "moved", attempt)))


def test_what_its_checkpoint_ends_is_not_asked_to_end() -> None:
    made = plan(ending(running()))
    assert made.actions == ()
    assert [wait.reason for wait in made.waits] == ["Checkpointing"]


def test_an_attempt_that_the_checkpoint_is_not_of_is_stopped() -> None:
    seen = ending(running())
    (task,) = seen.tasks
    seen = replace(seen, obj=with_record(seen.obj, {"attempt": 7}))
    other = TaskSeen("web-bbbbbbbb-7", "bbbbbbbb", 7, TaskPhase.RUNNING, True)
    assert plan(replace(seen, tasks=(task,))).actions == ()
    assert kinds(plan(replace(seen, tasks=(other,)))) == [SignalTask]


def test_what_its_checkpoint_ended_stays_stopped_and_counts_as_no_failure() -> None:
    seen = ended(ending(running()))
    made = plan(seen)
    noted = after(seen, made)
    found = memory(noted).current_ended()
    assert found is not None
    assert found.reason == STOPPED_BY_HAND
    assert plan(noted).actions == ()


def test_a_checkpoint_that_nobody_confirms_is_over_by_itself() -> None:
    seen = ended(ending(running(), seconds=-1.0))
    assert plan(seen).actions == (AskLocal(seen.obj.key, {STOP: None}),)


def test_a_confirmed_one_is_a_stop_like_any_other() -> None:
    seen = ending(running())
    confirmed = with_local(seen.obj, confirm_checkpoint(seen.obj))
    stop = stop_of(confirmed.local)
    assert stop is not None
    assert (stop.until, stop.spares, stop.reason) == (None, 0, "moved")
    nothing = with_local(seen.obj, {STOP: None})
    assert confirm_checkpoint(nothing) == {}


def test_a_restart_afresh_names_no_checkpoint() -> None:
    seen = running()
    assert checkpoint_of(ask_restart(seen.obj, NOW.wall, "")) == ""
    assert checkpoint_of({}) == ""
