"""What was measured, as values, and the texts made of them: the printed table, docs/benchmarks.md, the README's table.

Every figure anywhere comes from docs/benchmarks.json, which `make bench` writes; run as a program this module puts the
table between the markers of README.md, or with `--check` says whether it stands there already.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

TOP: Final = Path(__file__).resolve().parent.parent.parent
DATA: Final = TOP / "docs/benchmarks.json"
PAGE: Final = TOP / "docs/benchmarks.md"
README: Final = TOP / "README.md"
BEGIN: Final = "<!-- benchmarks: begin (written by `make bench`) -->"
END: Final = "<!-- benchmarks: end -->"
HEADS: Final = ("what", "reconciler", "against", "ratio", "goal", "")

PREFACE: Final = """\
Written by `make bench` from one run, in which all of it was measured side by side on the same machine; do not edit.
Figures are medians, with the least and the most in brackets. Ratios are ours through theirs, round by round, the tools
taking turns: below 1 we are faster."""

Samples = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: `ours`, and round by round beside it `theirs` when there is a `peer` to compare with.

    `goal` is the most that may be: of the ratio where there is a peer, else of our median, in `unit`. `bound` is what
    is promised in any case where that is more than the goal. A row that could not be measured says why in `skipped`.
    """

    what: str
    unit: str = "s"
    ours: Samples = ()
    peer: str = ""
    theirs: Samples = ()
    goal: float | None = None
    bound: float | None = None
    how: str = ""
    skipped: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `asdict`."""
        return cls(**{**data, "ours": tuple(data["ours"]), "theirs": tuple(data["theirs"])})

    @property
    def label(self) -> str:
        """What was measured and against whom."""
        return f"{self.what} against {self.peer}" if self.peer else self.what

    @property
    def ratios(self) -> Samples:
        """Ours through theirs, round by round."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=False))

    @property
    def value(self) -> float:
        """What the goal is about: the median ratio, or our median."""
        return median(self.ratios if self.peer else self.ours)

    @property
    def verdict(self) -> str:
        """`hit`, `miss`, `promise kept, goal missed`, `skipped: …`, or nothing where there is no goal."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        if self.goal is None:
            return ""
        if self.value <= self.goal:
            return "hit"
        return "promise kept, goal missed" if self.bound is not None and self.value <= self.bound else "miss"

    def cells(self) -> tuple[str, ...]:
        """The row as texts, one below each of HEADS."""
        if self.skipped:
            return (self.what, "", self.peer, "", self._goal(), self.verdict)
        against = f"{self.peer}: {spread(self.theirs, self.unit)}" if self.peer else ""
        return (
            self.what,
            spread(self.ours, self.unit),
            against,
            spread(self.ratios, "") if self.peer else "",
            self._goal(),
            self.verdict,
        )

    def _goal(self) -> str:
        if self.goal is None:
            return ""
        unit = "" if self.peer else self.unit
        promise = "" if self.bound is None else f" (promised: {figure(self.bound, unit)})"
        return f"≤ {figure(self.goal, unit)}{promise}"


def figure(value: float, unit: str) -> str:
    """A number with three digits that count, and its unit."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 or value == 0 else 3
    return f"{value:.{digits}f} {unit}".strip()


def spread(samples: Sequence[float], unit: str) -> str:
    """`median unit (least – most)`; the median alone where there is but one."""
    if len(samples) == 1:
        return figure(samples[0], unit)
    return f"{figure(median(samples), unit)} ({figure(min(samples), '')}–{figure(max(samples), '')})"


@dataclass(frozen=True, slots=True)
class Report:
    """All rows of one run, where they were measured, and when (a date)."""

    rows: tuple[Row, ...]
    machine: Mapping[str, str]
    date: str

    @classmethod
    def load(cls, path: Path = DATA) -> Self:
        """The run that was written last."""
        data = json.loads(path.read_text())
        return cls(tuple(Row.from_json(row) for row in data["rows"]), data["machine"], data["date"])

    def save(self) -> None:
        """Writes docs/benchmarks.json and docs/benchmarks.md."""
        DATA.parent.mkdir(exist_ok=True)
        rounded = [{**asdict(row), "ours": _short(row.ours), "theirs": _short(row.theirs)} for row in self.rows]
        data = {"date": self.date, "machine": dict(self.machine), "rows": rounded}
        DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(Report.load().page())

    def table(self) -> str:
        """The table in Markdown, its columns padded so that it can be read as it stands."""
        lines = [HEADS, *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
        padded = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        rule = "|".join("-" * (width + 2) for width in widths)
        return "\n".join([f"| {padded[0]} |", f"|{rule}|", *(f"| {line} |" for line in padded[1:])])

    def page(self) -> str:
        """docs/benchmarks.md."""
        how = [f"- **{row.label}**: {row.how} Samples: {len(row.ours)}." for row in self.rows if row.how]
        missed = [row for row in self.rows if row.verdict in ("miss", "promise kept, goal missed")]
        misses = [f"- {row.label}: {self._by(row)}" for row in missed]
        parts = [
            "# Benchmarks",
            PREFACE,
            self.table(),
            "## Goals missed",
            "\n".join(misses) or "None.",
            "## How it was measured",
            "\n".join(how),
            "## Where",
            "\n".join([*(f"- {name}: {value}" for name, value in self.machine.items()), f"- date: {self.date}"]),
        ]
        return "\n\n".join(parts) + "\n"

    @staticmethod
    def _by(row: Row) -> str:
        assert row.goal is not None
        unit = "" if row.peer else row.unit
        return f"{figure(row.value, unit)} where at most {figure(row.goal, unit)} was wanted"


def _short(samples: Samples) -> list[float]:
    return [float(f"{value:.4g}") for value in samples]


def with_table(text: str, table: str) -> str:
    """`text` with `table` between the markers; raises ValueError where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no markers: {BEGIN} … {END}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main(words: Sequence[str]) -> int:
    """Puts the table into README.md (0); with `--check` changes nothing and says whether it is there (0) or not (1)."""
    text = README.read_text()
    wanted = with_table(text, Report.load().table())
    if "--check" in words:
        return int(text != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
