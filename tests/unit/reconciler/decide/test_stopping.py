"""How a task is asked to end."""

from typing import Any

import pytest

from core.runtime.ports import TaskPhase
from reconciler.decide.facts import Now, StopAsked, TaskSeen
from reconciler.decide.stopping import Goodbye, goodbye, signal_number, stop_task
from reconciler.model.actions import Plan, SignalTask
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.container import ContainerSpec

WEB = Key(Kind.CONTAINER, "web")
TASK = TaskSeen("web-aaaaaaaa-1", "aaaaaaaa", 1, TaskPhase.RUNNING, True)


def stop(asked: StopAsked | None, at: float) -> Plan:
    """The next step at a monotonic second, with 10 seconds of grace."""
    return stop_task(WEB, TASK, {} if asked is None else {TASK.id: asked}, Goodbye(15, 10.0), Now(0.0, at))


@pytest.mark.parametrize(
    ("manifest", "image", "signal"),
    [
        ({}, {}, 15),
        ({}, {"stop_signal": "SIGQUIT"}, 3),
        ({}, {"stop_signal": "QUIT"}, 3),
        ({}, {"stop_signal": "10"}, 10),
        ({}, {"stop_signal": "nonsense"}, 15),
        ({}, {"stop_signal": "999"}, 15),
        ({}, {"stop_signal": None}, 15),
        ({"signal": "INT"}, {"stop_signal": "SIGQUIT"}, 2),
    ],
)
def test_the_manifests_signal_wins_over_the_images_and_term_is_the_default(
    manifest: dict[str, Any], image: dict[str, Any], signal: int
) -> None:
    spec = ContainerSpec.model_validate({"image": "base", "sandbox": "s", "stop": manifest})
    assert goodbye(spec, {"config": image}).signal == signal


def test_without_an_image_there_is_term_and_the_manifests_grace() -> None:
    spec = ContainerSpec.model_validate({"image": "base", "sandbox": "s", "stop": {"grace": "1m"}})
    assert goodbye(spec, {}) == Goodbye(15, 60.0)


@pytest.mark.parametrize(
    ("name", "number"), [("TERM", 15), ("SIGKILL", 9), ("1", 1), ("0", None), ("65", None), ("", None)]
)
def test_a_signals_name_with_or_without_sig_or_its_number(name: str, number: int | None) -> None:
    assert signal_number(name) == number


def test_first_it_is_asked() -> None:
    assert stop(None, 5.0).actions == (SignalTask(WEB, TASK.id, 15),)


@pytest.mark.parametrize(("at", "left"), [(100.0, 10.0), (104.0, 6.0), (109.9, 0.1)])
def test_then_the_grace_is_waited_out(at: float, left: float) -> None:
    (wait,) = stop(StopAsked(100.0), at).waits
    assert wait.reason == "Stopping"
    assert wait.seconds == pytest.approx(left)


def test_then_all_its_processes_are_killed() -> None:
    assert stop(StopAsked(100.0), 110.0).actions == (SignalTask(WEB, TASK.id, 9, everyone=True),)


def test_after_the_kill_its_end_is_waited_for_and_then_it_is_killed_again() -> None:
    assert stop(StopAsked(100.0, 110.0), 111.0).waits[0].seconds == pytest.approx(1.0)
    assert stop(StopAsked(100.0, 110.0), 112.0).actions == (SignalTask(WEB, TASK.id, 9, everyone=True),)


def test_without_grace_the_kill_follows_at_once() -> None:
    plan = stop_task(WEB, TASK, {TASK.id: StopAsked(5.0)}, Goodbye(15, 0.0), Now(0.0, 5.0))
    assert plan.actions == (SignalTask(WEB, TASK.id, 9, everyone=True),)
