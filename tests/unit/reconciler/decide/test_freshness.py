"""Images that follow a tag."""

from typing import Any

import pytest

from core.errors import TimedOut, Unavailable
from reconciler.decide.freshness import answered, follows, is_due, stale, unanswered
from reconciler.model.kinds.image import ImageSpec

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RECORD = {"digest": OLD, "checkedAt": 1000.0}
TARGET = {"mediaType": "x", "size": 1}


def spec(**more: Any) -> ImageSpec:
    return ImageSpec.model_validate({"ref": "reg.example/app:1", "update": {"policy": "Digest"}, **more})


@pytest.mark.parametrize(
    ("more", "is_followed"),
    [
        ({}, True),
        ({"update": {"policy": "Pinned"}}, False),
        ({"update": {}, "pullPolicy": "Always"}, True),
        ({"ref": f"reg.example/app@{OLD}"}, False),
        ({"archive": "/srv/app.tar"}, False),
    ],
)
def test_a_tag_is_followed_when_that_is_asked_for(more: dict[str, Any], is_followed: bool) -> None:
    assert follows(spec(**more)) is is_followed


@pytest.mark.parametrize(
    ("record", "wall", "due"),
    [
        ({}, 1000.0, True),
        (RECORD, 1000.0, False),
        (RECORD, 1299.0, False),
        (RECORD, 1300.0, True),
        (RECORD, 999.0, True),  # the clock went back
        ({**RECORD, "next": TARGET}, 1300.0, False),  # it is known already
    ],
)
def test_it_is_asked_for_once_an_interval(record: dict[str, Any], wall: float, due: bool) -> None:
    assert is_due(spec(), record, wall) is due


def test_after_no_answer_it_is_asked_again_in_five_minutes_at_the_latest() -> None:
    slow = spec(update={"policy": "Digest", "interval": "24h"})
    record = RECORD | unanswered(Unavailable("gone"), 1000.0)
    assert not is_due(slow, record, 1299.0)
    assert is_due(slow, record, 1300.0)
    assert not is_due(slow, RECORD, 1300.0)


def test_a_tag_that_moved_is_remembered_and_one_that_did_not_is_not() -> None:
    assert answered(RECORD, {**TARGET, "digest": NEW}, 5.0)["next"] == {**TARGET, "digest": NEW}
    assert answered(RECORD, {**TARGET, "digest": OLD}, 5.0) == {"checkedAt": 5.0, "stale": None, "next": None}


def test_no_answer_is_a_condition_that_says_why() -> None:
    record = RECORD | unanswered(TimedOut("reg.example does not answer"), 1000.0)
    ((kind, truth, reason, message),) = stale(spec(), record)
    assert (kind, truth, reason) == ("Stale", True, "TimedOut")
    assert "reg.example does not answer" in message
    assert stale(spec(update={}), record) == ()
    assert stale(spec(), RECORD) == ()
