"""The task table: every pair of phase and event is decided."""

import pytest

from core.runtime.ports import TASK_MOVES, IllegalMove, TaskEvent, TaskPhase, advance


def test_every_pair_of_phase_and_event_moves_by_the_table_or_is_refused() -> None:
    for phase in TaskPhase:
        for event in TaskEvent:
            if event in TASK_MOVES[phase]:
                assert advance(phase, event) is TASK_MOVES[phase][event]
            else:
                with pytest.raises(IllegalMove, match=f"{phase} cannot {event}"):
                    advance(phase, event)


def test_every_phase_is_in_the_table_and_can_be_reached_from_nothing() -> None:
    assert set(TASK_MOVES) == set(TaskPhase)
    reached = {TaskPhase.ABSENT}
    for _ in TaskPhase:
        reached |= {target for phase in reached for target in TASK_MOVES[phase].values()}
    assert reached == set(TaskPhase)


def test_every_phase_leads_back_to_nothing() -> None:
    home = {TaskPhase.ABSENT}
    for _ in TaskPhase:
        home |= {phase for phase in TaskPhase if set(TASK_MOVES[phase].values()) & home}
    assert home == set(TaskPhase)


def test_an_ended_task_never_runs_again() -> None:
    for phase in (TaskPhase.STOPPED, TaskPhase.LOST, TaskPhase.HALF_MADE):
        assert TaskEvent.START not in TASK_MOVES[phase]
