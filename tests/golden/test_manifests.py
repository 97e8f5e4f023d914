"""What people bring, converted, against what was looked at and kept; all of it can be loaded.

After a change that is meant: `GOLDEN=write pytest tests/golden`, then look at what changed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.converting import convert

FOLDER = Path(__file__).parent / "manifests"
CASES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.glob("*/*") if path.suffix in (".yaml", ".json"))
WAYS = {"pod": "pod", "compose": "compose", "containers": "containerd-labels"}


@pytest.mark.parametrize("case", CASES)
def test_what_becomes_of_each_is_what_was_kept(case: str) -> None:
    file = FOLDER / case
    done = convert(WAYS[file.parent.name], file.read_bytes(), str(file.parent), {"PASSWORD": "hush"})
    text = done.told().replace(str(file.parent), "/FOLDER")
    kept = file.with_suffix(".txt")
    if os.environ.get("GOLDEN") == "write":
        kept.write_text(text)
    assert text == kept.read_text()
