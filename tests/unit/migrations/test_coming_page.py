"""docs/coming-from-containerd.md says what the tables of the migration say.

After a change that is meant: `GOLDEN=write pytest` on this file writes the page's generated part anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from migrations.config.to_reconciler import RULES
from migrations.config.tree import spell
from migrations.config.work import Outcome
from tests.migrating import ours

PAGE = Path(__file__).parents[3] / "docs/coming-from-containerd.md"
BEGIN, END = "<!-- what has no place: from the rules -->\n", "<!-- end -->\n"


def no_place() -> str:
    """The table of what has no place with us, by reason."""
    reasons: dict[str, list[str]] = {}
    for pattern, rule in RULES:
        if isinstance(rule, str):
            reasons.setdefault(rule, []).append(f"`{spell(pattern)}`")
    lines = [f"| {', '.join(keys)} | {reason} |\n" for reason, keys in reasons.items()]
    return "".join(["| containerd's | instead |\n", "|---|---|\n", *lines])


def test_what_has_no_place_stands_on_the_page_with_what_to_do() -> None:
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    whole = before + BEGIN + no_place() + END + rest.split(END)[1]
    if os.environ.get("GOLDEN") == "write":
        PAGE.write_text(whole)
    assert whole == PAGE.read_text()


MOVES = re.findall(r"^\| `([^`]+)` \| `([^`]+)` = `([^`]+)` \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("line", "key", "value"), MOVES)
def test_each_line_of_the_page_moves_where_it_says(line: str, key: str, value: str) -> None:
    moved = ours(f"version = 4\n{line.replace('; ', chr(10))}\n")
    found: object = moved.values
    for part in key.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert str(found) == value
    assert Outcome.DROPPED not in {entry.outcome for entry in moved.result.entries}


def test_the_page_tells_of_every_place() -> None:
    assert {key.split(".")[0] for _, key, _ in MOVES} == {
        "root",
        "state",
        "snapshots",
        "transfer",
        "network",
        "runtimes",
        "defaultRuntime",
        "telemetry",
    }
