"""The page of promises: every row names tests that are there, and the page is what its figures make of it."""

import ast
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.figures import Figures, read, shown

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def promises() -> ModuleType:
    """scripts/promises.py as a module."""
    found = importlib.util.spec_from_file_location("promises", TOP / "scripts" / "promises.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    import sys

    sys.modules["promises"] = module  # dataclasses look their module up
    found.loader.exec_module(module)
    return module


def test_every_promise_names_tests_that_are_there(promises: ModuleType) -> None:
    for promise in promises.PROMISES:
        assert promise.tests or promise.lacks, promise.title
        for test in promise.tests:
            path, _, name = test.partition("::")
            tree = ast.parse((TOP / path).read_text())
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert name in names, f"{promise.title}: there is no {test}"


def test_the_page_is_what_the_kept_figures_make_of_it(promises: ModuleType) -> None:
    kept = json.loads((TOP / "docs" / "promises.json").read_text())
    assert (TOP / "docs" / "promises.md").read_text() == promises.page(kept), "run scripts/promises"


def test_figures_that_tests_record_are_read_back(tmp_path: Path) -> None:
    Figures("a::b", tmp_path)("slowest", 1.23456, "s")
    Figures("a::b", tmp_path)("count", 3)
    Figures("a::b", None)("nowhere", 3)
    assert read(tmp_path) == {"a::b": {"slowest": (1.235, "s"), "count": (3, "")}}


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(3.0, "", "3"), (0.123, "s", "0.12 s"), (4.86, "s", "4.9 s"), (1234.5, "", "1,234")]
)
def test_figures_are_shown_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text
