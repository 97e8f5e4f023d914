"""Figures that tests print, for the page of promises: one JSON line each, in the folder that `--figures` names.

A line has the test (its node id without parameters), the figure's name, its value, its unit. `scripts/promises` reads
them. Without the option they are only printed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """Where the figures of one test go."""

    test: str
    folder: Path | None

    def __call__(self, name: str, value: float, unit: str = "") -> None:
        """Record one; `value` is what was measured, not what was allowed."""
        line = {"test": self.test, "name": name, "value": round(value, 3), "unit": unit}
        print(f"figure: {name}: {shown(value, unit)}")
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "figures.jsonl", "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")


Figure = Callable[..., None]


def shown(value: float, unit: str) -> str:
    """A figure as people read it: whole numbers whole, others with as many digits as matter."""
    text = (
        f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"
    )
    return f"{text} {unit}".strip()


def read(folder: Path) -> dict[str, dict[str, tuple[float, str]]]:
    """What a run recorded: test → name → value and unit; the last of several."""
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            one = json.loads(line)
            found.setdefault(one["test"], {})[one["name"]] = one["value"], one["unit"]
    return found
