"""What is wrong with a manifest, for a person: where, what, and what to write instead."""

from __future__ import annotations

from core.values import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault. `line` and `column` count from 1 in characters; line 0: the file as a whole. `path` may be empty."""

    file: str
    line: int
    column: int
    path: str
    message: str
    advice: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        path = f"{self.path}: " if self.path else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{place}: {path}{self.message}{advice}"
