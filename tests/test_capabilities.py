"""The docs' tables of what works under which runtime say what the tables of the suites say, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from reconciler.assembly import SNAPSHOTTERS
from tests.capabilities import EVERY, LACKS, NOT_THERE, ROWS
from tests.conformance import shim_gvisor_test, shim_vm_test, shim_wasm_test
from tests.conformance.shim_contract import ShimContract
from tests.conformance.snapshotter_ground import DRIVERS as SUITES

TOP: Final = Path(__file__).resolve().parents[1]
DRIVERS: Final[Mapping[str, ModuleType]] = {"gvisor": shim_gvisor_test, "vm": shim_vm_test, "wasm": shim_wasm_test}
"""The suites of the drivers that leave out something of the suite of every Shim."""
SECTIONS: Final = {
    "gvisor": "gVisor",
    "vm": "Virtual machines",
    "wasm": "WASM modules",
    "runc-v2": "containerd's shims",
}
MODES: Final = {"host": "host network", "bridge": "ports"}
"""What a network mode needs; `none` needs nothing."""


def lacking(runtime: str) -> set[str]:
    """All that the suites' tables say that it lacks; not what another test of its own shows in its own way."""
    found = set(LACKS[runtime])
    if (driver := DRIVERS.get(runtime)) is not None:
        found |= set(driver.LACKS) - set(driver.INSTEAD)
    return found


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the first table whose head begins so, row by row, the head first; without the marks of notes."""
    lines = text[text.index(f"\n{head}") + 1 :].splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    rows = [[re.sub("[¹²³⁴]", "", cell).strip() for cell in line.strip("|").split("|")] for line in lines[:end]]
    return [rows[0], *rows[2:]]


HEAD, *BODY = table((TOP / "README.md").read_text(), "| | `runc`")
COLUMNS: Final = [re.findall("`([^`]+)`", cell)[0] for cell in HEAD[1:]]
CELLS: Final = [(row[0], name, cell) for row in BODY for name, cell in zip(COLUMNS, row[1:], strict=True)]


def test_the_readme_has_a_column_for_every_runtime_and_a_row_for_all_that_one_lacks() -> None:
    assert sorted(COLUMNS) == sorted(EVERY)
    assert [row[0] for row in BODY] == list(ROWS)
    told = {what for row in ROWS.values() for what in row}
    assert {what for runtime in EVERY for what in lacking(runtime)} <= told
    assert [what for what in told if what.startswith("test_") and not hasattr(ShimContract, what)] == []


@pytest.mark.parametrize(("row", "runtime", "cell"), CELLS)
def test_a_cell_of_the_readme_says_what_the_suites_say(row: str, runtime: str, cell: str) -> None:
    asked = set(ROWS[row])
    lacks = asked & lacking(runtime)
    if row == "network":
        modes = {mode for mode, what in MODES.items() if what not in lacks}
        assert set(re.findall(r"`(\w+)`", cell)) == {"none", *modes}
    elif not lacks:
        assert cell.startswith("yes"), "it lacks nothing"
    elif lacks == asked:
        assert re.match(r"(no|nothing)\b", cell), "it lacks all of it"
    else:
        assert not re.match(r"(yes|no|nothing)\b", cell), f"it lacks {lacks}, and not {asked - lacks}"


@pytest.mark.parametrize("runtime", SECTIONS)
def test_what_is_not_there_stands_in_the_page_of_runtimes(runtime: str) -> None:
    page = (TOP / "docs/runtimes.md").read_text()
    section = page[page.index(f"\n## {SECTIONS[runtime]}\n") :]
    rows = dict(row[:2] for row in table(section, "| | |"))
    for word, asked in NOT_THERE.items():
        lacks = bool(set(asked) & lacking(runtime))
        assert (word in rows["not there"]) is lacks, (word, rows["not there"])


def test_the_readme_has_a_row_for_each_snapshotter_that_passes_the_suite() -> None:
    _, *rows = table((TOP / "README.md").read_text(), "| snapshotter |")
    assert [re.findall("`([^`]+)`", row[0])[0] for row in rows] == list(SNAPSHOTTERS)
    assert set(SNAPSHOTTERS) == set(SUITES)


@pytest.mark.parametrize("runtime", DRIVERS)
def test_what_is_shown_in_another_way_is_shown(runtime: str) -> None:
    driver = DRIVERS[runtime]
    assert set(driver.INSTEAD) <= set(driver.LACKS)
    assert [name for name in driver.INSTEAD.values() if not hasattr(driver, name)] == []
