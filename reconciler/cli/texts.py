"""Numbers, times and tables as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from core.clock import parse_timestamp
from reconciler.cli.terminal import printable

_SECOND_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60))
_BYTE_UNITS: Final = ("kB", "MB", "GB", "TB")


def age(seconds: float) -> str:
    """`12s`, `5m30s`, `3h20m`, `4d`: two units at most, only as exact as one needs."""
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    for (unit, size), finer in zip(_SECOND_UNITS, (("h", 3600), ("m", 60), ("s", 1)), strict=True):
        if left >= size:
            rest = left % size // finer[1]
            return f"{left // size}{unit}" + (f"{rest}{finer[0]}" if rest and left < 10 * size else "")
    return f"{left}s"


def since(when: float | str | None, now: float) -> str:
    """The age of a moment (seconds since 1970, or RFC 3339); `-` when there is none."""
    if when is None or when == "":
        return "-"
    if isinstance(when, str):
        try:
            when = parse_timestamp(when)
        except ValueError:
            return "-"
    return age(now - when)


def amount(count: int | None) -> str:
    """`0 B`, `512 B`, `18.2 MB` (powers of 1000, as registries and disks count); `unknown` for None."""
    if count is None:
        return "unknown"
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _BYTE_UNITS:
        value /= 1000
        if value < 999.95 or unit == _BYTE_UNITS[-1]:
            return f"{value:.1f} {unit}"
    return f"{count} B"


def counted(count: int, noun: str) -> str:
    """`1 object`, `2 objects`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def cell(value: Any) -> str:
    """A table's cell: `-` for what is not known, everything on one line."""
    if value is None or value == "":
        return "-"
    return printable(" ".join(str(value).split())) or "-"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], least: Sequence[int] = ()) -> str:
    """Columns two spaces apart, the last one ragged; `least` are widths to keep. Ends without a line break."""
    lines = [list(head), *([cell(value) for value in row] for row in rows)]
    widths = column_widths(lines, least)
    return "\n".join(_line(line, widths) for line in lines)


def column_widths(lines: Sequence[Sequence[str]], least: Sequence[int] = ()) -> list[int]:
    """The width of each column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [max(pair) for pair in zip(widths, least, strict=True)] if least else widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(size) for text, size in zip(cells, widths, strict=True)).rstrip()
