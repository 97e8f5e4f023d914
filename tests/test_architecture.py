"""Floors, pins and budgets of the packages that are shipped; and that each rule catches what it is there for."""

from pathlib import Path

import pytest

from tests import architecture as rules
from tests.architecture import House, Rule

TOP = Path(__file__).resolve().parent.parent
HOUSE = House.read(TOP)
BROAD = "try:\n    f()\nexcept Exception:\n    log()\n"
LONG = "\n".join("    x = 1" for _ in range(61))
NINE = "\n".join("    x = 1" for _ in range(8))
FORTY = "\n".join("    x = 1" for _ in range(39))


@pytest.mark.parametrize("rule", rules.HOUSE_RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    found = rule(HOUSE)
    assert not found, "\n" + "\n".join(found)


def test_the_house_is_really_read() -> None:
    assert {"core", "reconciler", "migrations.config"} <= set(HOUSE.modules)


def test_every_test_file_keeps_the_rules_of_tests() -> None:
    found = [
        fault
        for path in sorted((TOP / "tests").rglob("*.py"))
        for fault in rules.faults_of_test(str(path.relative_to(TOP)), path.read_text())
    ]
    assert not found, "\n" + "\n".join(found)


CATCHES: list[tuple[Rule, dict[str, str], str]] = [
    (rules.homeless, {"core.new.x": "", "core.new": "", "core": ""}, "core.new"),
    (rules.homeless, {"reconciler.stray": ""}, "reconciler.stray"),
    (rules.upward_imports, {"core.a": "import reconciler.model.b", "reconciler.model.b": ""}, "core.a"),
    (rules.upward_imports, {"core.a": "from reconciler import model", "reconciler.model": ""}, "core.a"),
    (rules.upward_imports, {"core.a": "from core import content", "core.content": "", "core": ""}, "core.content"),
    (rules.upward_imports, {"core.a": "def f():\n    import core.content.b", "core.content.b": ""}, "core.a"),
    (rules.upward_imports, {"core.a": "from .content import b", "core.content": ""}, "core.content"),
    (rules.upward_imports, {"reconciler.wiring": "import reconciler.cli.x", "reconciler.cli.x": ""}, "wiring"),
    (
        rules.sideways_imports,
        {"core.transfer.a": "import core.runtime.b", "core.runtime.b": ""},
        "core.transfer.a imports core.runtime.b",
    ),
    (rules.import_cycles, {"core.a": "import core.b", "core.b": "import core.a"}, "core.a, core.b"),
    (
        rules.import_cycles,
        {"core.a": "import core.b", "core.b": "from core.c import x", "core.c": "def f():\n    from core import a"},
        "core.a, core.b, core.c",
    ),
    (rules.broken_pins, {"core.a": "import git"}, "imports git"),
    (rules.broken_pins, {"reconciler.engine.a": "from subprocess import run"}, "imports subprocess"),
    (rules.broken_pins, {"reconciler.engine.a": "def f():\n    import ruamel.yaml"}, "imports ruamel"),
    (rules.broken_pins, {"core.a": "import numpy"}, "no pin"),
    (rules.impure, {"reconciler.decide.a": "import os"}, "pure"),
    (rules.own_clocks, {"core.a": "import time\ntime.sleep(1)"}, "time.sleep"),
    (rules.own_clocks, {"core.a": "from time import monotonic"}, "time.monotonic"),
    (rules.own_clocks, {"core.a": "import datetime\ndatetime.datetime.now()"}, "now"),
    (rules.long_functions, {"core.a": f"def f():\n{LONG}"}, "f has 62 lines"),
    (rules.long_functions, {"core.a": f"def f():\n{NINE}"}, "median 9"),
    (rules.long_functions, {"core.a": f"def f():\n{FORTY}"}, "p90 40"),
    (rules.long_files, {"core.a": "x = 1\n" * 401}, "401 lines"),
    (
        rules.wide_constructors,
        {"core.a": "class A:\n    def __init__(self, a, b, c, d, *, e, f, g): 0"},
        "7 parameters",
    ),
    (rules.swallowed, {"core.a": "try:\n    f()\nexcept OSError:\n    pass"}, "pass"),
    (rules.swallowed, {"core.a": "try:\n    f()\nexcept OSError:\n    ..."}, "pass"),
    (rules.broad_excepts, {"core.a": "try:\n    f()\nexcept Exception as e:\n    log(e)"}, "core.a:3"),
    (rules.broad_excepts, {"core.a": "try:\n    f()\nexcept (OSError, BaseException):\n    log()"}, "broad"),
    (rules.broad_excepts, {"core.a": "try:\n    f()\nexcept:\n    log()"}, "broad"),
    (rules.broad_excepts, {"core.a": "with contextlib.suppress(Exception):\n    f()"}, "broad"),
    (
        rules.broad_excepts,
        {"reconciler.engine.a": BROAD + BROAD},
        "reconciler.engine.a:7",
    ),
    (rules.undocumented, {"core.a": "class A:\n    def f(self): 0"}, "core.a.A.f"),
    (rules.refused_names, {"core.utils": ""}, "core.utils"),
    (rules.unfinished, {"core.a": "x = 1  # TODO: later"}, "TODO"),
    (rules.unfinished, {"core.a": "def f():\n    raise NotImplementedError('soon')"}, "stub"),
    (rules.silenced_types, {"core.a": "x = f()  # type: ignore"}, "core.a:1"),
    (rules.silenced_types, {"core.a": "x = f()  # type: ignore[arg-type]"}, "reason"),
]


@pytest.mark.parametrize(("rule", "sources", "words"), CATCHES, ids=[rule.__name__ for rule, _, _ in CATCHES])
def test_the_rule_catches_a_violation(rule: Rule, sources: dict[str, str], words: str) -> None:
    found = rule(House.of(sources))
    assert any(words in violation for violation in found), found


def test_no_rule_is_without_a_violation_that_it_catches() -> None:
    assert {rule for rule, _, _ in CATCHES} == set(rules.HOUSE_RULES)


PASSES: list[tuple[Rule, dict[str, str]]] = [
    (rules.homeless, {"core": "", "core.new": "", "migrations.config.v9": "", "reconciler.cli.x": ""}),
    (rules.upward_imports, {"core.content.a": "import core.b", "core.b": "", "core": ""}),
    (rules.sideways_imports, {"core.transfer.a": "import core.transfer.b", "core.transfer.b": ""}),
    (rules.import_cycles, {"core": "", "core.a": "from core import b", "core.b": "import core"}),
    (
        rules.broken_pins,
        {"reconciler.model.a": "import pydantic, json", "reconciler.sources.git": "from git import Repo"},
    ),
    (rules.own_clocks, {"core.clock": "import time\ntime.sleep(1)", "reconciler.engine.a": "import time\ntime.time()"}),
    (rules.long_functions, {"core.a": 'def f():\n    """' + "word\n" * 99 + '"""\n    return 1'}),
    (rules.broad_excepts, {"core.a": "try:\n    f()\nexcept BaseException:\n    tidy()\n    raise"}),
    (rules.broad_excepts, {"reconciler.engine.a": "try:\n    f()\nexcept Exception as e:\n    record(e)"}),
    (rules.undocumented, {"core.a": '"""D."""\nclass _A:\n    def f(self): 0\ndef _g(): 0'}),
    (rules.unfinished, {"core.a": "TODO = 1\ntry:\n    f()\nexcept NotImplementedError:\n    g()"}),
    (rules.silenced_types, {"core.a": "x = f()  # type: ignore[arg-type]  # the stub is wrong"}),
]


@pytest.mark.parametrize(("rule", "sources"), PASSES, ids=[rule.__name__ for rule, _ in PASSES])
def test_the_rule_lets_good_sources_pass(rule: Rule, sources: dict[str, str]) -> None:
    assert rule(House.of(sources)) == []


@pytest.mark.parametrize(
    ("path", "source", "words"),
    [
        ("tests/unit/test_a.py", "from unittest.mock import patch", "mock"),
        ("tests/unit/test_a.py", "import time\ndef test_it_works_well():\n    time.sleep(1)", "sleep"),
        ("tests/unit/test_a.py", "def test_it():\n    pass", "sentence"),
    ],
)
def test_the_rules_of_tests_catch_a_violation(path: str, source: str, words: str) -> None:
    assert any(words in fault for fault in rules.faults_of_test(path, source))
