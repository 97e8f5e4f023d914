"""The names in the code are those of the tables, and the tables in the docs are those of the code."""

import ast
from collections.abc import Iterator
from pathlib import Path

from core.signals import ATTRIBUTES, METRICS, SPANS
from tests.architecture import House, Module, dotted

TOP = Path(__file__).parents[3]
PAGE = TOP / "docs" / "telemetry.md"
NOT_ATTRIBUTES = ("parent", "link")


def tables() -> str:
    """The tables of docs/telemetry.md."""
    lines = ["| span | what it covers |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in SPANS.items()]
    lines += ["", "| metric | kind | unit | what | attributes |", "|---|---|---|---|---|"]
    for name, metric in METRICS.items():
        attributes = ", ".join(f"`{ATTRIBUTES[one]}`" for one in metric.attributes)
        lines.append(f"| `{name}` | {metric.instrument.value} | {metric.unit} | {metric.help} | {attributes} |")
    return "\n".join(lines)


def calls() -> Iterator[tuple[Module, ast.Call, str]]:
    """Every call of telemetry's door in the code, with the name that is called."""
    for module in House.read(TOP).modules.values():
        for node in module.nodes:
            if isinstance(node, ast.Call) and (name := dotted(node.func)).startswith("telemetry."):
                yield module, node, name.partition(".")[2]


def test_every_span_metric_and_attribute_in_the_code_is_in_the_tables() -> None:
    known = {"span": SPANS, "count": METRICS, "measure": METRICS, "observe": METRICS}
    seen: set[str] = set()
    for module, call, name in calls():
        if name in known and isinstance(call.args[0], ast.Constant):
            assert call.args[0].value in known[name], module.at(call, f"{call.args[0].value!r} is in no table")
            seen.add(call.args[0].value)
        if name in (*known, "note"):
            for keyword in call.keywords:
                told = keyword.arg is None or keyword.arg in (*ATTRIBUTES, *NOT_ATTRIBUTES)
                assert told, module.at(call, f"{keyword.arg} is no attribute that may be told")
    assert set(METRICS) - seen <= {"reconciler.telemetry.dropped", "reconciler.source.revisions"}


def test_the_page_has_the_tables_of_the_code() -> None:
    assert tables() in PAGE.read_text(), f"docs/telemetry.md is to have:\n{tables()}"


def test_the_page_names_every_attribute() -> None:
    page = PAGE.read_text()
    assert [name for name in ATTRIBUTES.values() if f"`{name}`" not in page] == []
