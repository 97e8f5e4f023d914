"""What a registry's refusals mean."""

import pytest

from core.errors import AgentError, Denied, Failed, NotFound, Unavailable
from core.transfer import faults
from core.transfer.faults import Throttled


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Denied),
        (403, Denied),
        (404, NotFound),
        (408, Unavailable),
        (429, Throttled),
        (500, Unavailable),
        (503, Unavailable),
        (400, Failed),
        (418, Failed),
    ],
)
def test_a_status_has_a_class(status: int, kind: type[AgentError]) -> None:
    assert type(faults.refusal("app:1", status, b"")) is kind


def test_the_registrys_own_words_are_passed_on_clean() -> None:
    body = b'{"errors":[{"code":"DENIED","message":"pull\\u001b[31m\\nlimit"}]}'
    assert "DENIED pull [31m limit" in faults.refusal("app:1", 403, body).message
    assert len(faults.said(b"x" * 10_000)) <= 200
    assert faults.said(b'{"errors": 5}') == '{"errors": 5}'


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("999999", 300.0),
        ("", 30.0),
        ("-1", 30.0),
        ("9" * 5000, 300.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 30.0),
    ],
)
def test_a_wait_is_honoured_up_to_five_minutes(header: str, seconds: float) -> None:
    error = faults.refusal("app:1", 429, b"", {"Retry-After": header})
    assert isinstance(error, Throttled)
    assert error.seconds == seconds


def test_a_wait_until_a_date_counts_from_the_replys_own_date() -> None:
    headers = {"Retry-After": "Wed, 21 Oct 2026 07:28:20 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert faults.refusal("app:1", 503, b"", headers).seconds == 20.0
    assert faults.refusal("app:1", 503, b"").seconds == 0.0


def test_a_denial_says_what_to_do_about_credentials() -> None:
    assert "Set spec.credentials" in faults.refusal("app:1", 401, b"").hint()
    assert "check the Secret" in faults.refusal("app:1", 401, b"", logged_in=True).hint()


def test_a_missing_tag_lists_those_that_are_there() -> None:
    tags = faults.tags(b'{"name":"app","tags":["2","1","bad tag",7]}')
    assert tags == ["1", "2"]
    assert faults.no_such_tag("app:3", "3", tags).hint() == "Tags there: 1, 2."
    assert "and 5 more" in faults.no_such_tag("app:x", "x", [str(n) for n in range(15)]).hint()
    assert faults.tags(b"[]") is None
    assert faults.tags(b'{"tags": null}') == []
