"""Health checks: asks in time, keeps answers, tells of those that matter, and starts no thread for nothing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from core.clock import SystemClock
from core.errors import Failed
from reconciler.decide.health import ProbeSeen
from reconciler.engine.health_checks import HealthChecks, after
from reconciler.model.identity import Key, Kind
from reconciler.model.kinds.probes import Probe

WEB = Key(Kind.CONTAINER, "web")
OFTEN = Probe.model_validate({"tcp": {"port": 80}, "every": "10ms", "failures": 2})


@dataclass
class Answers:
    """Says no as long as `trouble` says why, and counts what it was asked."""

    trouble: str = ""
    asked: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    told: queue.SimpleQueue[Key] = field(default_factory=queue.SimpleQueue)

    def ask(self, task: str, probe: Probe) -> None:
        self.asked.put(task)
        if self.trouble:
            raise Failed(self.trouble)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def checks(answers: Answers) -> Iterator[HealthChecks]:
    made = HealthChecks(answers.ask, answers.told.put, SystemClock())
    yield made
    made.stop()


def seen(checks: HealthChecks, answers: Answers) -> ProbeSeen:
    """What is known after the next telling."""
    assert answers.told.get(timeout=5) == WEB
    return checks.watch(WEB, "web-1", {"readiness": OFTEN})["readiness"]


def test_an_answer_is_kept_and_told_once(checks: HealthChecks, answers: Answers) -> None:
    assert checks.watch(WEB, "web-1", {"readiness": OFTEN}) == {"readiness": ProbeSeen()}
    assert seen(checks, answers) == ProbeSeen(True)
    for _ in range(3):
        answers.asked.get(timeout=5)
    assert answers.told.empty()


def test_failures_are_counted_and_told_up_to_the_limit(checks: HealthChecks, answers: Answers) -> None:
    answers.trouble = "refused"
    checks.watch(WEB, "web-1", {"readiness": OFTEN})
    assert seen(checks, answers).message == "refused"
    while (now := seen(checks, answers)).failures < 2:
        assert not now.passing


def test_what_passed_is_given_up_after_the_limit_only(answers: Answers) -> None:
    once = after(ProbeSeen(True), OFTEN, "refused")
    assert (once.passing, once.failures) == (True, 1)
    assert not after(once, OFTEN, "refused").passing
    assert after(once, OFTEN, "") == ProbeSeen(True)


def test_another_task_begins_anew_and_the_old_one_is_not_asked_any_more(checks: HealthChecks, answers: Answers) -> None:
    checks.watch(WEB, "web-1", {"readiness": OFTEN})
    seen(checks, answers)
    assert checks.watch(WEB, "web-2", {"readiness": OFTEN}) == {"readiness": ProbeSeen()}
    while answers.asked.get(timeout=5) != "web-2":
        pass
    checks.forget(WEB)


def test_no_thread_runs_while_nothing_is_asked(answers: Answers) -> None:
    before = threading.active_count()
    idle = HealthChecks(answers.ask, answers.told.put, SystemClock())
    idle.forget(WEB)
    assert threading.active_count() == before
    idle.stop()


def test_when_stopped_nothing_is_asked(answers: Answers) -> None:
    checks = HealthChecks(answers.ask, answers.told.put, SystemClock())
    checks.watch(WEB, "web-1", {"readiness": OFTEN})
    answers.asked.get(timeout=5)
    checks.stop()
    while not answers.asked.empty():
        answers.asked.get()
    checks.watch(WEB, "web-2", {"readiness": OFTEN})
    assert answers.asked.empty()
