"""Each step on documents as people have them, against what was looked at and kept.

After a change that is meant: `GOLDEN=write pytest tests/golden`, then look at what changed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrations.config import migrate
from migrations.config.work import Settings

FOLDER = Path(__file__).parent / "config"
CASES = sorted(path.stem for path in FOLDER.glob("*.toml"))
SETTINGS = Settings("/etc/containerd")


def told(result: migrate.Result) -> str:
    """The result as one text: the document, the report, the files beside it."""
    parts = [result.text.decode()]
    width = max(len(entry.outcome) for entry in result.entries)
    lines = [f"{e.line:4} {e.outcome:{width}} {e.key} → {e.to or '-'} | {e.why or '-'}" for e in result.entries]
    parts.append("\n".join(lines) + "\n")
    parts += [f"{name}\n{content.decode()}" for name, content in sorted(result.files.items())]
    return "\n=====\n".join(parts)


def check(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("case", CASES)
def test_each_step_gives_what_was_kept(case: str) -> None:
    data = (FOLDER / f"{case}.toml").read_bytes()
    while True:
        document = migrate.read_containerd(data, f"{case}.toml", SETTINGS)
        if (target := document.work.version + 1) > 4:
            break
        result = migrate.to_containerd(document, target)
        check(f"{case}/v{target}.txt", told(result))
        data = result.text


@pytest.mark.parametrize("case", CASES)
def test_what_ours_is_of_each_is_what_was_kept(case: str) -> None:
    data = (FOLDER / f"{case}.toml").read_bytes()
    document = migrate.read_containerd(data, f"{case}.toml", SETTINGS._replace(ours=True))
    check(f"{case}/ours.txt", told(migrate.to_ours(document)))
