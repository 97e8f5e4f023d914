"""Amounts as people write them, read into plain numbers: cpu, bytes, durations, signals, file modes, owners.

Rules of this file: a quantity is always text in a manifest (`"2"`, not `2`), so that no YAML reader changes it; each
reader raises `Wrong` with what to write instead.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from reconciler.model.problems import Wrong

T = TypeVar("T")

_CPU: Final = re.compile(r"([0-9]{1,7})m|([0-9]{1,4}(?:\.[0-9]{1,3})?)")
_BYTES: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,3})?)(|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)")
_DURATION: Final = re.compile(r"(?=.)(?:([0-9]{1,6})h)?(?:([0-9]{1,8})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?")
_SIGNAL: Final = re.compile(r"([0-9]{1,2})|(?:SIG)?([A-Z][A-Z0-9]{1,8})(?:\+([0-9]{1,2})|-([0-9]{1,2}))?")
_MODE: Final = re.compile(r"0?[0-7]{3,4}")
_OWNER: Final = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?")
_FACTORS: Final = {"": 1, "k": 1000, "Ki": 1024} | {
    unit + suffix: base**power
    for power, unit in enumerate("MGTP", start=2)
    for suffix, base in (("", 1000), ("i", 1024))
}
_MOST_BYTES: Final = 2**63 - 1
_MOST_SECONDS: Final = 10 * 366 * 86400
_MOST_ID: Final = 2**32 - 2


def text_of(value: object) -> str:
    """`value` when it is text; raises `Wrong` with `text_due`."""
    if isinstance(value, str):
        return value
    raise Wrong("is not text", "write it in quotes", text_due=True)


def parse_cpu(value: object) -> int:
    """`500m` or `1.5` (cores) → thousandths of a core, at least 1."""
    found = _CPU.fullmatch(text_of(value))
    millis = 0 if found is None else int(found[1]) if found[1] else int(Decimal(found[2]) * 1000)
    if millis < 1:
        raise Wrong("is not an amount of cpu", 'write thousandths of a core or cores, such as 500m or "2"')
    return millis


def parse_bytes(value: object) -> int:
    """`128Mi`, `64M`, `1.5Gi` or `4096` → bytes, at least 1, at most 2^63 - 1."""
    found = _BYTES.fullmatch(text_of(value))
    amount = Decimal(0) if found is None else Decimal(found[1]) * _FACTORS[found[2]]
    if not 1 <= amount <= _MOST_BYTES or amount != int(amount):
        raise Wrong("is not an amount of bytes", "write a number with Ki, Mi, Gi, Ti (or k, M, G, T), such as 128Mi")
    return int(amount)


def parse_duration(value: object) -> float:
    """`250ms`, `10s`, `5m`, `1h`, `1h30m` → seconds, at most ten years."""
    found = _DURATION.fullmatch(text_of(value))
    if found is not None:
        hours, minutes, seconds, millis = (int(part or 0) for part in found.groups())
        total = hours * 3600 + minutes * 60 + seconds + millis / 1000
        if total <= _MOST_SECONDS:
            return total
    raise Wrong("is not a duration", "write a number with ms, s, m or h, such as 10s, 5m or 1h30m")


def parse_signal(value: object) -> int:
    """`TERM`, `SIGTERM`, `15` or `RTMIN+3` → the signal's number on this system."""
    found = _SIGNAL.fullmatch(text_of(value))
    number = 0
    if found is not None and found[1]:
        number = int(found[1])
    elif found is not None and f"SIG{found[2]}" in signal.Signals.__members__:
        number = signal.Signals[f"SIG{found[2]}"] + int(found[3] or 0) - int(found[4] or 0)
        if number < signal.SIGRTMIN and (found[3] or found[4]):
            number = 0
    if not 1 <= number <= signal.SIGRTMAX:
        raise Wrong("is not a signal", "write a signal's name, such as TERM, INT, QUIT or RTMIN+3")
    return number


def parse_mode(value: object) -> int:
    """`"0750"` → 0o750."""
    if not _MODE.fullmatch(text_of(value)):
        raise Wrong("is not a file mode", 'write three or four octal digits in quotes, such as "0750"')
    return int(str(value), 8)


class Owner(NamedTuple):
    """Numbers of a user and a group."""

    uid: int
    gid: int


def parse_owner(value: object) -> Owner:
    """`"1000:1000"`, or `"1000"` for user and group alike."""
    found = _OWNER.fullmatch(text_of(value))
    ids = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if found is None or max(ids) > _MOST_ID:
        raise Wrong("is not an owner", 'write the numbers of user and group in quotes, such as "1000:1000"')
    return Owner(*ids)


def read_by(reader: Callable[[object], Any], schema: dict[str, Any]) -> tuple[PlainValidator, WithJsonSchema]:
    """The two annotations of a type that is text in a manifest (`schema` for editors) and `reader`'s value here."""
    return PlainValidator(reader), WithJsonSchema({"type": "string", **schema})


def _by(pattern: re.Pattern[str], *examples: str) -> dict[str, Any]:
    return {"pattern": f"^(?:{pattern.pattern})$", "examples": list(examples)}


Millicores = Annotated[int, *read_by(parse_cpu, _by(_CPU, "500m", "2"))]
ByteCount = Annotated[int, *read_by(parse_bytes, _by(_BYTES, "128Mi", "1Gi"))]
Seconds = Annotated[float, *read_by(parse_duration, _by(_DURATION, "10s", "5m"))]
SignalNumber = Annotated[int, *read_by(parse_signal, _by(_SIGNAL, "TERM", "QUIT"))]
FileMode = Annotated[int, *read_by(parse_mode, _by(_MODE, "0750"))]
Ownership = Annotated[Owner, *read_by(parse_owner, _by(_OWNER, "1000:1000"))]
