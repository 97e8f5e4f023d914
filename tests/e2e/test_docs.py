"""What the documentation says is tried: examples, options, reasons, the diagram, links, and how long it may be."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from core.errors import Category
from core.runtime.ports import TASK_MOVES
from reconciler.cli.main import COMMANDS
from reconciler.model import actions
from reconciler.model.kinds.later import LATER_FIELDS
from reconciler.sources.loading import load
from reconciler.sources.substitution import Variables
from tests import leftovers
from tests.conftest import Node

TOP: Final = Path(__file__).resolve().parents[2]
DOCS: Final = TOP / "docs"
PAGES: Final = sorted([TOP / "README.md", TOP / "CHANGELOG.md", *DOCS.rglob("*.md")])
DECISIONS: Final = sorted((DOCS / "decisions").glob("*.md"))
FILES: Final = ("shop.conf", "images/web.tar")
"""Files that the examples name."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


EXAMPLES: Final = [
    (page.name, number, block)
    for page in (TOP / "README.md", DOCS / "manifests.md", DOCS / "images.md", DOCS / "registries.md")
    for number, block in enumerate(blocks(page, "yaml"))
]


@pytest.mark.parametrize(("page", "number", "block"), EXAMPLES, ids=[f"{page}-{n}" for page, n, _ in EXAMPLES])
def test_every_example_is_a_manifest_that_apply_takes(page: str, number: int, block: str, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("# an example\n")
    (tmp_path / "example.yaml").write_text(block)
    node = Node(leftovers.Place(tmp_path / "node"))
    done = node.cli("apply", "--dry-run", "-f", tmp_path / "example.yaml")
    assert done.returncode == 0, done.stderr
    assert f"{block.count('apiVersion:')} create" in done.stdout


def test_every_source_in_the_documentation_is_a_valid_one(tmp_path: Path) -> None:
    found = [block for block in blocks(DOCS / "sources.md", "yaml") if "apiVersion" in block]
    for number, block in enumerate(found):
        (tmp_path / f"{number}.yaml").write_text(block)
        assert load([str(tmp_path / f"{number}.yaml")], Variables("node")).faults == ()
    assert len(found) > 1


def test_the_demos_manifests_are_taken(tmp_path: Path) -> None:
    done = Node(leftovers.Place(tmp_path / "node")).cli("apply", "--dry-run", "-f", TOP / "manifests/demo")
    assert done.returncode == 0, done.stderr
    assert "7 create" in done.stdout


def test_fields_of_later_work_are_not_in_the_reference_as_if_they_worked() -> None:
    examples = "\n".join(block for _, _, block in EXAMPLES)
    fields = {field.split(".")[-1].removesuffix("[]") for fields in LATER_FIELDS.values() for field in fields}
    used = {field for field in fields - {"image", "network", "interval", "size"} if re.search(rf"\b{field}:", examples)}
    assert used == set()


def test_every_command_has_its_section_with_all_its_options() -> None:
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", (DOCS / "cli.md").read_text(), re.MULTILINE | re.DOTALL))
    assert set(sections) == set(COMMANDS)
    for name, entry in COMMANDS.items():
        command = importlib.import_module(f"reconciler.cli.{entry.module}").command
        below = list(command.commands.values()) if isinstance(command, click.Group) else []
        assert [one.name for one in below if f"`{name} {one.name}" not in sections[name]] == []
        params = [one for part in (command, *below) for one in part.params]
        for option in (one for one in params if isinstance(one, click.Option)):
            names = [*option.opts, *option.secondary_opts]
            assert any(one in sections[name] for one in names), f"{name}: {names} is not told of"


def test_the_diagram_is_drawn_from_the_table_of_moves() -> None:
    moves = [
        f"    {phase} --> {target}: {event}" for phase, ways in TASK_MOVES.items() for event, target in ways.items()
    ]
    (diagram,) = blocks(DOCS / "architecture.md", "mermaid")
    assert diagram.splitlines() == ["stateDiagram-v2", *moves]


def reasons() -> Iterator[str]:
    """The reasons that the program gives: first words of waits and ends, and of what controllers say of readiness."""
    for room in ("decide", "controllers", "engine"):
        for path in (TOP / "reconciler" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Await", "Blocked", "RetryAfter"):
                    yield from constants(node.args[:1])
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Detail", "Remember"):
                    yield from constants(node.args[1:3])
                if isinstance(node, ast.keyword) and node.arg == "reason":
                    yield from constants([node.value])


def constants(nodes: list[ast.expr]) -> Iterator[str]:
    """The CamelCase words in expressions."""
    for node in (one for top in nodes for one in ast.walk(top)):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[A-Z][A-Za-z]+", node.value)
        ):
            yield node.value


def test_every_reason_phase_and_category_is_explained() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    told = set(re.findall(r"[A-Za-z]+", " ".join(line.split("|")[1] for line in page.splitlines() if line[:1] == "|")))
    assert len(set(reasons())) > 20
    assert set(reasons()) - told == set()
    phases = {member.phase for member in vars(actions).values() if hasattr(member, "phase")}
    first_cells = " ".join(line.split("|")[1] for line in page.splitlines() if line[:1] == "|")
    assert {phase for phase in phases if phase not in first_cells} == set()
    assert {one.value for one in Category if one.value not in first_cells} == set()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(TOP)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    written_by_bench = {DOCS / "benchmarks.md"}
    missing = [link for link in links if not ((to := page.parent / link).exists() or to in written_by_bench)]
    assert missing == []


def test_decisions_are_numbered_and_short() -> None:
    assert len({int(page.name[:4]) for page in DECISIONS}) == len(DECISIONS)
    assert [page.name for page in DECISIONS if len(page.read_text().splitlines()) > 40] == []
