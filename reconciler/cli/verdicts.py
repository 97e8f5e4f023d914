"""How a wait ended, in words: the closing line, the failures in two lines each, the exit code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from core.clock import parse_timestamp
from reconciler.cli.columns import message, wait_of
from reconciler.cli.progress import concerned, unfinished
from reconciler.cli.terminal import complain_in_words, printable
from reconciler.decide.summary import is_true
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object

if TYPE_CHECKING:
    from reconciler.wiring import Verdict

DOT: Final = "  ·  "
NOT_READY: Final = 1
IN_PROGRESS: Final = 3
NO_AGENT: Final = (
    "no agent on this node: nothing will restart, probe or start these after a reboot; run: reconciler agent install"
)


def exit_code(verdict: Verdict) -> int:
    """0: all there; 3: something was still in progress; 1: what is not there is Stalled."""
    if verdict.pending:
        return IN_PROGRESS
    return NOT_READY if verdict.stalled else 0


def tell_failures(objects: Iterable[Object], keys: Collection[Key]) -> None:
    """Say of each object that is not there why, where it was asked for, what to do, and when it is tried again."""
    for obj in failing(concerned(objects, keys), keys):
        complain_in_words(failure(obj), [help_line(obj)])


def failing(objects: Sequence[Object], keys: Collection[Key]) -> list[Object]:
    """The objects to tell of: those waited for, and beside them only what has an error of its own."""
    return [
        obj
        for obj in objects
        if unfinished(obj)
        and obj.kind is not Kind.SNAPSHOT
        and (obj.key in keys or obj.status.get("lastError") or is_true(obj.status, "Stalled"))
    ]


def failure(obj: Object) -> str:
    """`image/web: fetching: not found: registry.local:5000/web:9 has no such tag`."""
    if error := obj.status.get("lastError"):
        return printable(f"{obj.key}: {error['phase']}: {error['category']}: {error['message']}")
    if obj.status.get("observedGeneration") != obj.generation:
        return f"{obj.key}: pending: not looked at yet"
    word = "stalled" if is_true(obj.status, "Stalled") else "deleting" if obj.deleted is not None else "waiting"
    return printable(f"{obj.key}: {word}: {wait_of(obj) or message(obj) or 'not ready'}")


def help_line(obj: Object) -> str:
    """`at edge/web.yaml:7  ·  tags there: 1.1, 1.2  ·  next try 14:02:31`."""
    return DOT.join(filter(None, _helps(obj)))


def _helps(obj: Object) -> Iterator[str]:
    yield f"at {obj.origin}" if obj.origin is not None else ""
    yield str((obj.status.get("lastError") or {}).get("hint") or "")
    if due := obj.status.get("nextRetryAt"):
        yield f"next try {datetime.fromtimestamp(parse_timestamp(due)).astimezone():%H:%M:%S}"
