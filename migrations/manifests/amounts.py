"""Amounts as Kubernetes, compose and containerd write them, to the texts of our manifests; "" for what is none.

Rules of this file: pure functions from text to text; what cannot be said exactly is rounded up, never down.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Final

_QUANTITY: Final = re.compile(
    r"\+?([0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})"
    r"(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?"
)
_UNITS: Final = "kMGTPE"
_DOCKER: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([kKmMgGtTpP]?)(?:i?[bB])?")
_DURATION: Final = re.compile(r"(?:([0-9.]{1,12})(ns|us|µs|ms|s|m|h))")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 0.001, "s": 1, "m": 60, "h": 3600}
_MOST_BYTES: Final = 2**63 - 1
_MOST_CORES: Final = 9999
_MOST_SECONDS: Final = 10 * 365 * 86400


def quantity(text: str) -> Decimal | None:
    """A number as the API of Kubernetes writes it (`500m`, `1.5Gi`, `1e3`)."""
    if not (found := _QUANTITY.fullmatch(text.strip())):
        return None
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix == "m":
        return number / 1000
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix != "Ei":
        return number * Decimal(10) ** int(suffix[1:])
    base = 1024 if suffix.endswith("i") else 1000
    return number * base ** (_UNITS.index(suffix[0]) + 1) if suffix else number


def cpu(cores: Decimal | None) -> str:
    """Cores in our words, at least a thousandth."""
    if cores is None or not 0 < cores <= _MOST_CORES:
        return ""
    return f"{math.ceil(cores * 1000)}m"


def cores(text: str) -> Decimal | None:
    """A plain number of cores, as compose writes it."""
    try:
        found = Decimal(text)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def size(count: Decimal | int | None) -> str:
    """Bytes in our words."""
    if count is None or not 1 <= count <= _MOST_BYTES:
        return ""
    whole = math.ceil(count)
    for power, unit in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if whole % 1024**power == 0:
            return f"{whole // 1024**power}{unit}"
    return str(whole)


def docker_size(text: str) -> str:
    """`512m`, `1gb`: powers of 1024, as Docker reads them."""
    if not (found := _DOCKER.fullmatch(text.strip())):
        return ""
    return size(Decimal(found[1]) * 1024 ** " kmgtp".index(found[2].lower() or " "))


def seconds(count: float) -> str:
    """A duration in our words: whole seconds, or milliseconds."""
    if not 0 <= count <= _MOST_SECONDS:
        return ""
    return f"{round(count)}s" if count == round(count) else f"{math.ceil(count * 1000)}ms"


def duration(text: str) -> str:
    """`1m30s`, `1.5s`, as Go writes durations."""
    pieces = _DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        return ""
    try:
        return seconds(sum(float(number) * _SECONDS[unit] for number, unit in pieces))
    except ValueError:
        return ""
