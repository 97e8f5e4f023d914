"""What a registry's refusal means: status, headers and body to an error that says what to do. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import ClassVar, Final

from core.errors import AgentError, Category, Denied, Failed, NotFound, Retry, Unavailable
from core.transfer.reference import TAG

_LONGEST_WAIT: Final = 300.0
_FIRST_WAIT: Final = 30.0
_TAGS_SHOWN: Final = 10


class Throttled(AgentError):
    """The registry wants us to wait `seconds` (at most 300): no sense in trying again at once."""

    retry: ClassVar[Retry] = Retry.BACKOFF
    category: ClassVar[Category] = Category.UNAVAILABLE

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, advice="Registries limit pulls without a login; set spec.credentials to raise it.")
        self.seconds = seconds


class WrongClock(AgentError):
    """A certificate is not valid at the time that this node has: the node's clock is wrong, more likely than not."""

    retry: ClassVar[Retry] = Retry.BACKOFF
    category: ClassVar[Category] = Category.UNAVAILABLE

    def hint(self) -> str:
        """Say whose time it is."""
        return "Clock skew: set the node's clock (timedatectl, an NTP client); it is tried again by itself."


def said(body: bytes) -> str:
    """The registry's own words (distribution-spec, error codes), one printable line of at most 200 characters."""
    try:
        errors = json.loads(body)["errors"]
        words = "; ".join(f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        words = body[:400].decode("utf-8", "replace")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())[:200]


def refusal(
    what: str, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, logged_in: bool = False
) -> AgentError:
    """The error for a reply of `status` to a request for `what` (such as "localhost:5000/web:1")."""
    words = said(body)
    tail = f": {words}" if words else ""
    if status in (401, 403):
        advice = (
            "The registry does not accept the login, or it may not pull this: check the Secret in spec.credentials."
            if logged_in
            else "Set spec.credentials to a Secret with username and password; a private image looks the same as none."
        )
        return Denied(f"{what}: the registry denies it ({status}){tail}", advice=advice)
    if status == 404:
        return NotFound(f"{what} is not in the registry{tail}", advice="Check the name, or push the image.")
    if status == 429:
        return Throttled(f"{what}: the registry asks to wait{tail}", wait_of(headers or {}, otherwise=_FIRST_WAIT))
    if status in (408, 425) or status >= 500:
        error = Unavailable(f"{what}: the registry answers {status}{tail}")
        error.seconds = wait_of(headers or {}, otherwise=0.0)
        return error
    return Failed(f"{what}: the registry answers {status}{tail}")


def wait_of(headers: Mapping[str, str], *, otherwise: float) -> float:
    """Seconds of a Retry-After header, at most 300 (RFC 9110, 10.2.3); `otherwise` where there is none.

    A date counts from the reply's own Date, so that the node's clock does not matter; nonsense counts as 30.
    """
    text = headers.get("Retry-After", "").strip()
    if not text:
        return otherwise
    if text.isascii() and text.isdecimal():
        return min(float(text[:12]), _LONGEST_WAIT)
    try:
        now, then = (parsedate_to_datetime(one) for one in (headers.get("Date", ""), text))
        return min(max((then - now).total_seconds(), 0.0), _LONGEST_WAIT)
    except (TypeError, ValueError):
        return _FIRST_WAIT


def tags(body: bytes) -> list[str] | None:
    """The tags in a reply of tags/list; None when it is no such reply."""
    try:
        listed = json.loads(body)["tags"] or []
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return sorted(tag for tag in listed if isinstance(tag, str) and TAG.fullmatch(tag))


def no_such_tag(what: str, tag: str, tags: Sequence[str]) -> NotFound:
    """The repository is there, and the tag is not among its `tags`."""
    shown = ", ".join(tags[:_TAGS_SHOWN]) + (f" and {len(tags) - _TAGS_SHOWN} more" if len(tags) > _TAGS_SHOWN else "")
    return NotFound(f"{what} is not in the registry: it has no tag {tag!r}", advice=f"Tags there: {shown or 'none'}.")
