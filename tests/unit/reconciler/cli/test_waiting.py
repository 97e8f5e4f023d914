"""Progress, failures and exit codes of a wait."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

from core.clock import VirtualClock
from reconciler.cli.apply import closing_line
from reconciler.cli.progress import Progress, stage
from reconciler.cli.proposal import Proposal
from reconciler.cli.verdicts import exit_code, failing, failure, help_line
from reconciler.decide.changes import Op, Row
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object
from reconciler.wiring import Verdict
from tests.unit.reconciler.cli.objects import bad_image, condition, job, pulling, status, web

WEB = Key(Kind.CONTAINER, "web")
IMAGE = Key(Kind.IMAGE, "web")


def waiting() -> Object:
    """A container that waits for a probe."""
    reason = condition("Reconciling", "True", "ProbeFailed", "readiness probe 2/3 (tcp :5432 refused)")
    return web(status=status(condition("Ready", "False", "ProbeFailed", reason["message"]), reason))


@pytest.mark.parametrize(
    ("obj", "rate", "text"),
    [
        (pulling(), 9.4e6, "web:1.2  1/2 layers  60 %  18.2/29.9 MB  9.4 MB/s"),
        (pulling(), 0.0, "web:1.2  1/2 layers  60 %  18.2/29.9 MB"),
        (waiting(), 0.0, "waiting: readiness probe 2/3 (tcp :5432 refused)"),
        (bad_image(), 0.0, "fetching: not found: registry.local:5000/web:9 has no such tag"),
        (web(generation=2), 0.0, "pending"),
        (web(deleted=1.0), 0.0, "deleting"),
    ],
)
def test_a_line_of_progress_names_the_stage(obj: Object, rate: float, text: str) -> None:
    assert stage(obj, rate) == text


def test_plain_progress_says_a_new_stage_at_once_and_new_numbers_every_two_seconds() -> None:
    clock, out = VirtualClock(), io.StringIO()
    seen = {"object": pulling()}
    progress = Progress(lambda: [seen["object"], job()], [IMAGE], clock, out)

    def later(seconds: float, fetched: int) -> None:
        clock.advance(seconds)
        layers = [dict(layer) for layer in pulling().status["layers"]]
        layers[1]["fetched"] = fetched
        seen["object"] = replace(pulling(), status={**pulling().status, "layers": layers})
        progress.tick()

    progress.tick()
    later(0.5, 9_000_000)
    later(0.5, 10_000_000)
    later(1.0, 11_000_000)
    seen["object"] = bad_image()
    clock.advance(1.0)
    progress.tick()
    progress.clear()
    assert [re.sub(r" +", " ", line) for line in out.getvalue().splitlines()] == [
        "web image web:1.2 1/2 layers 60 % 18.2/29.9 MB",
        "web image web:1.2 1/2 layers 69 % 20.9/29.9 MB 1.0 MB/s",
        "web image fetching: not found: registry.local:5000/web:9 has no such tag",
    ]


def test_progress_shows_what_is_needed_too() -> None:
    out = io.StringIO()
    Progress(lambda: [pulling(), waiting()], [WEB], VirtualClock(), out).tick()
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["image", "container"]


def test_a_failure_says_phase_object_category_cause_place_advice_and_next_try() -> None:
    assert failure(bad_image()) == "image/web: fetching: not found: registry.local:5000/web:9 has no such tag"
    assert re.fullmatch(
        r"at edge/web\.yaml:7  ·  tags there: 1\.1, 1\.2  ·  next try \d\d:\d\d:\d\d", help_line(bad_image())
    )
    assert failure(waiting()) == "container/web: waiting: readiness probe 2/3 (tcp :5432 refused)"


def test_what_was_not_waited_for_is_told_of_only_when_it_fails() -> None:
    assert failing([pulling(), waiting()], {WEB}) == [waiting()]
    assert failing([bad_image(), waiting()], {WEB}) == [bad_image(), waiting()]


@pytest.mark.parametrize(
    ("stalled", "pending", "timed_out", "code"),
    [
        (frozenset(), frozenset(), False, 0),
        (frozenset({IMAGE}), frozenset(), False, 1),
        (frozenset({IMAGE}), frozenset({WEB}), True, 3),
        (frozenset(), frozenset({WEB}), True, 3),
        (frozenset(), frozenset(), True, 0),
        (frozenset({IMAGE}), frozenset(), True, 1),
    ],
)
def test_the_exit_code_of_a_wait(stalled: frozenset[Key], pending: frozenset[Key], timed_out: bool, code: int) -> None:
    assert exit_code(Verdict(frozenset(), stalled, pending, True, timed_out)) == code


def proposal(*ops: Op) -> Proposal:
    rows = tuple(Row(Key(Kind.CONTAINER, str(number)), op) for number, op in enumerate(ops))
    return Proposal(tuple(Object(row.key) for row in rows if row.op is not Op.REMOVE), (), rows, "3f2a91bc")


@pytest.mark.parametrize(
    ("ops", "stalled", "pending", "line"),
    [
        ([Op.NOTHING], 0, 0, "Converged: 1 object, nothing to do, in 2.4 s."),
        ([Op.CREATE, Op.CREATE, Op.REPLACE], 0, 0, "Converged: 3 objects, 2 created, 1 replaced, in 2.4 s."),
        ([Op.CHANGE, Op.REMOVE], 0, 0, "Converged: 1 object, 1 changed, 1 removed, in 2.4 s."),
        ([Op.CREATE, Op.CREATE], 1, 1, "Not converged: 2 objects, 1 stalled, 1 still in progress, after 2.4 s."),
    ],
)
def test_the_closing_line(ops: list[Op], stalled: int, pending: int, line: str) -> None:
    assert closing_line(proposal(*ops), stalled, pending, 2.44) == line
