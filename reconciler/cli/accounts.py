"""What became of each key of a document, for people and programs."""

from __future__ import annotations

import os
from collections.abc import Sequence

from migrations.config.work import Entry, Outcome
from reconciler.cli.terminal import printable


def as_json(entries: Sequence[Entry]) -> bytes:
    """The report as one JSON document."""
    import json

    return (
        json.dumps({"entries": [entry._asdict() for entry in entries]}, indent=2, ensure_ascii=False).encode() + b"\n"
    )


def as_table(entries: Sequence[Entry]) -> list[str]:
    """What became of each key, a line each, and the sum."""
    names = {entry.file for entry in entries}
    rows = [("PLACE", "OUTCOME", "KEY", "NOW", "WHY")]
    for entry in entries:
        place = str(entry.line) if len(names) == 1 else f"{os.path.relpath(entry.file)}:{entry.line}"
        now = "" if entry.to == entry.key else entry.to
        rows.append((place, entry.outcome.value, entry.key, now, entry.why))
    widths = [min(max(len(row[i]) for row in rows), 60) for i in range(4)]
    lines: list[str] = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line = "  ".join([*cells, row[4]]).rstrip()
        lines.append(line if line.isprintable() else printable(line))
    counts = {outcome: sum(entry.outcome is outcome for entry in entries) for outcome in Outcome}
    total = ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items())
    return [*lines, f"{len(entries)} keys: {total}"]
